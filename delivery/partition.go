package delivery

import (
	"time"

	"github.com/co2relay/co2relay/registry"
)

// partition is one share of the satellites, as its loop holds it.
type partition struct {
	id       int
	epoch    uint64
	lanes    map[registry.ID]*lane
	joining  map[registry.ID]*registry.Satellite // known by revision, but without a lane yet
	revision uint64                              // of SATELLITES, applied
	readTo   uint64                              // messages up to here are counted in their senders' figures
	past     registry.Totals
	dirty    bool   // a lane moved since the last checkpoint
	changed  bool   // figures changed since the last traffic record
	resting  bool   // being released: no new calls
	calls    int    // under way
	savedTo  uint64 // reading position of the last checkpoint
	nextSave int64  // when the next one is due, in the loop's clock
}

func (p *partition) moved() { p.dirty, p.changed = true, true }

// checkpoint is the partition's progress now. Lanes at the head of which all is told are not in it.
func (p *partition) checkpoint(read uint64) checkpoint {
	c := checkpoint{read: read, revision: p.revision}
	for _, l := range p.lanes {
		m := laneMark{
			hash: l.hash, position: min(l.position(), read), failing: l.tries > 0,
			figures: l.fig.refused != l.savedRefused || l.fig.expired != l.savedExpired,
		}
		if m.figures {
			m.refused, m.expired = l.fig.refused, l.fig.expired
		}
		if l.gap != nil {
			m.gap = l.gap.gap
		}
		if m.position != read || m.figures || m.gap.count > 0 {
			c.lanes = append(c.lanes, m)
		}
	}
	// Whoever goes on from here takes these for known: they must not seem to
	// be at the reading position.
	for id, sat := range p.joining {
		if sat.Began < read {
			c.lanes = append(c.lanes, laneMark{hash: hashID(id), position: sat.Began})
		}
	}
	p.dirty, p.savedTo = false, read
	return c
}

// record is the partition's figures now.
func (p *partition) record(now time.Time, clock int64) registry.TrafficRecord {
	r := registry.TrafficRecord{
		Partition: p.id, Epoch: p.epoch, ReadTo: p.readTo, Totals: p.past,
		Satellites: make([]registry.Traffic, 0, len(p.lanes)),
	}
	for _, l := range p.lanes {
		l.settleOwn(p.readTo)
		addLane(&r.Totals, l, p.readTo)
		r.Satellites = append(r.Satellites, l.traffic(now, clock))
	}
	p.changed = false
	return r
}

// stored takes note that a record was written. Until then checkpoints tell what
// it holds.
func (p *partition) stored(r *registry.TrafficRecord) {
	for i := range r.Satellites {
		t := &r.Satellites[i]
		if l := p.lanes[t.ID]; l != nil && l.sat.Generation == t.Generation {
			l.savedRefused, l.savedExpired = t.Refused, t.Expired
		}
	}
}

// addLane adds a lane's share to a partition's totals.
func addLane(t *registry.Totals, l *lane, read uint64) {
	t.Recipients += l.registered(read)
	t.Delivered += l.fig.received
	t.Refused += l.fig.refused
	t.Expired += l.fig.expired
}

// forget folds a removed lane into the totals: what it was owed is dropped.
func (p *partition) forget(l *lane) (dropped uint64) {
	delete(p.lanes, l.sat.ID)
	l.settleOwn(p.readTo)
	addLane(&p.past, l, p.readTo)
	dropped = uint64(max(0, l.owed(p.readTo)))
	p.past.Dropped += dropped
	p.moved()
	return dropped
}
