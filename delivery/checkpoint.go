package delivery

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/co2relay/co2relay/internal/wire"
	"github.com/co2relay/co2relay/registry"
)

// checkpointVersion is the first byte of a checkpoint.
const checkpointVersion = 1

// checkpoint is the progress of one partition: how far the log was read, which
// registrations were known, and every lane that is not at the reading position.
// A satellite that was down for ten thousand messages is one entry here.
type checkpoint struct {
	read     uint64 // the reading position: everything up to here was seen
	revision uint64 // of SATELLITES, applied
	lanes    []laneMark
}

// laneMark is a lane that is not at the reading position, that has a gap which
// nobody was told of yet, or whose figures are not those of the last traffic
// record that is known to be written. Figures are told as a whole, and not since
// then: a write of unknown outcome would make that ambiguous.
type laneMark struct {
	hash     uint64 // of the satellite's id
	position uint64 // everything up to here is done
	failing  bool
	figures  bool
	refused  uint64 // of the lane's figures, at its position
	expired  uint64
	gap      gap // what nobody was told of yet
}

const (
	markFailing = 1 << iota
	markFigures
	markUntold
)

// hashID is the name of a satellite in a checkpoint: FNV-1a, 64 bits. Where two
// lanes of a partition share one, both go on from the earlier position, which
// repeats and never skips.
func hashID(id registry.ID) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id))
	return h.Sum64()
}

func (c *checkpoint) encode() []byte {
	b := make([]byte, 0, 32+len(c.lanes)*12)
	b = append(b, checkpointVersion)
	b = binary.AppendUvarint(b, c.read)
	b = binary.AppendUvarint(b, c.revision)
	b = binary.AppendUvarint(b, uint64(len(c.lanes)))
	for _, m := range c.lanes {
		b = binary.BigEndian.AppendUint64(b, m.hash)
		b = binary.AppendUvarint(b, c.read-m.position)
		var flags byte
		if m.failing {
			flags |= markFailing
		}
		if m.figures {
			flags |= markFigures
		}
		if m.gap.count > 0 {
			flags |= markUntold
		}
		b = append(b, flags)
		if flags&markFigures != 0 {
			b = binary.AppendUvarint(b, m.refused)
			b = binary.AppendUvarint(b, m.expired)
		}
		if flags&markUntold != 0 {
			b = m.gap.encode(b)
		}
	}
	return b
}

var errCheckpoint = errors.New("the checkpoint is cut short")

// decodeCheckpoint reads what encode wrote. An empty one is that of a partition
// that nobody has owned yet.
func decodeCheckpoint(b []byte) (checkpoint, error) {
	var c checkpoint
	if len(b) == 0 {
		return c, nil
	}
	if b[0] != checkpointVersion {
		return c, fmt.Errorf("the checkpoint has version %d, this program knows %d: run the newer program", b[0], checkpointVersion)
	}
	r := wire.Reader{Rest: b[1:]}
	c.read, c.revision = r.Uint(), r.Uint()
	n := r.Uint()
	if n > uint64(len(r.Rest)) {
		return c, errCheckpoint
	}
	for range n {
		c.lanes = append(c.lanes, readMark(&r, c.read))
	}
	if r.Failed {
		return c, errCheckpoint
	}
	return c, nil
}

func readMark(r *wire.Reader, read uint64) laneMark {
	var m laneMark
	if b := r.Take(8); b != nil {
		m.hash = binary.BigEndian.Uint64(b)
	}
	m.position = read - r.Uint()
	var flags byte
	if b := r.Take(1); b != nil {
		flags = b[0]
	}
	m.failing = flags&markFailing != 0
	if m.figures = flags&markFigures != 0; m.figures {
		m.refused, m.expired = r.Uint(), r.Uint()
	}
	if flags&markUntold != 0 {
		m.gap = readGap(r)
	}
	return m
}

// marks gives the entries by satellite.
func (c *checkpoint) marks() map[uint64]laneMark {
	byHash := make(map[uint64]laneMark, len(c.lanes))
	for _, m := range c.lanes {
		if other, twice := byHash[m.hash]; twice && other.position < m.position {
			continue
		}
		byHash[m.hash] = m
	}
	return byHash
}

// Progress is what a stored checkpoint says of one satellite.
type Progress struct {
	// Position is the last message that is done for the satellite. It is 0
	// where the checkpoint is older than the registration: then the satellite
	// begins at its own beginning.
	Position uint64
	Read     uint64 // up to here the owner had read the log
	Failing  bool   // the satellite's last call failed
}

// Position reads a partition's state, as PARTITIONS holds it, for the tools of
// operators. A satellite that shares its hash with another may be further than
// this says.
func Position(state []byte, sat *registry.Satellite) (Progress, error) {
	c, err := decodeCheckpoint(state)
	if err != nil {
		return Progress{}, fmt.Errorf("read the checkpoint of %s: %w", sat.ID, err)
	}
	p := Progress{Read: c.read}
	if sat.Generation > c.revision {
		return p, nil
	}
	p.Position = c.read
	if m, listed := c.marks()[hashID(sat.ID)]; listed {
		p.Position, p.Failing = m.position, m.failing
	}
	p.Position = max(p.Position, sat.Began)
	return p, nil
}
