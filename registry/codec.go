package registry

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/co2relay/co2relay/internal/wire"
)

// The figures' records are binary: thousands of satellites are rewritten each
// second. A record is
//
//	version (1 byte)  header (block)  number of entries (uvarint)  entries (blocks)
//
// where a block is its length in bytes (uvarint) and then its fields. A later
// version may append fields to a block, and keeps the version byte: this one
// reads the fields that it knows and skips the rest of the block. The version
// byte rises only when an older reader would misread the record, and then it
// refuses it.
//
// Integers are uvarints, times are signed varints of microseconds since the
// epoch (0 = none), floats 8 bytes little-endian.
const (
	trafficVersion = 1
	pingVersion    = 1
)

// MaxRecord bounds an encoded record in bytes: the broker's default
// max_payload of 1 MiB, less room for headers. 100,000 satellites are 3,125 a
// partition; a traffic entry takes 50 to 70 bytes, 250 at the very most, so
// that even the worst case holds 4,000, and 15,000 usual ones fit. A ping entry takes
// about 55 bytes, 110 at most.
const MaxRecord = 1<<20 - 16<<10

// encoder appends blocks. Lengths are patched in afterwards by encoding each
// block into a scratch buffer first.
type encoder struct {
	out   []byte
	block []byte
}

func (e *encoder) uint(v uint64) { e.block = binary.AppendUvarint(e.block, v) }
func (e *encoder) int(v int64)   { e.block = binary.AppendVarint(e.block, v) }
func (e *encoder) float(v float64) {
	e.block = binary.LittleEndian.AppendUint64(e.block, math.Float64bits(v))
}

func (e *encoder) time(t time.Time) {
	if t.IsZero() {
		e.int(0)
		return
	}
	e.int(t.UnixMicro())
}

func (e *encoder) bytes(s string) {
	e.uint(uint64(len(s)))
	e.block = append(e.block, s...)
}

func (e *encoder) id(id ID) error {
	var ok bool
	mark := len(e.block)
	e.block = append(e.block, 0)
	if e.block, ok = id.appendBinary(e.block); !ok {
		return fmt.Errorf("encode figures of %q: %w", string(id), ErrBadAddress)
	}
	e.block[mark] = byte(len(e.block) - mark - 1)
	return nil
}

func (e *encoder) endBlock() {
	e.out = binary.AppendUvarint(e.out, uint64(len(e.block)))
	e.out = append(e.out, e.block...)
	e.block = e.block[:0]
}

// decoder reads the fields of records.
type decoder struct{ wire.Reader }

func (d *decoder) uint32() uint32 {
	v := d.Uint()
	if v > math.MaxUint32 {
		d.Fail()
	}
	return uint32(v)
}

// small reads a number that must be below limit.
func (d *decoder) small(limit uint64) int {
	v := d.Uint()
	if v >= limit {
		d.Fail()
		return 0
	}
	return int(v)
}

func (d *decoder) float() float64 {
	b := d.Take(8)
	if b == nil {
		return 0
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(b))
}

func (d *decoder) time() time.Time {
	us := d.Int()
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

func (d *decoder) id() ID {
	a, ok := addrFromBinary(d.Take(d.Uint()))
	if !ok {
		d.Fail()
		return ""
	}
	return ID(a.String())
}

// sub gives a decoder of the next block.
func (d *decoder) sub() decoder {
	b := d.Take(d.Uint())
	return decoder{wire.Reader{Rest: b, Failed: d.Failed}}
}

// count reads the number of entries that follow. Each takes minEntry bytes
// at least, which bounds what a damaged record can make the reader allocate.
func (d *decoder) count() int {
	const minEntry = 1 + 1 + idLen4
	return d.small(uint64(len(d.Rest))/minEntry + 1)
}

// encodeRecord gives a record; most is about what one entry takes.
func encodeRecord[T any](version byte, header func(*encoder), entries []T, most int, entry func(*encoder, *T) error) ([]byte, error) {
	e := encoder{out: append(make([]byte, 0, 64+most*len(entries)), version)}
	header(&e)
	e.endBlock()
	e.out = binary.AppendUvarint(e.out, uint64(len(entries)))
	for i := range entries {
		if err := entry(&e, &entries[i]); err != nil {
			return nil, err
		}
		e.endBlock()
	}
	return e.out, nil
}

// decodeRecord reads a record and gives its entries. The error is ErrUnreadable.
func decodeRecord[T any](b []byte, what string, version byte, header func(*decoder), entry func(*decoder, *T)) ([]T, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("decode %s: empty: %w", what, ErrUnreadable)
	}
	if b[0] != version {
		return nil, fmt.Errorf("decode %s: schema version %d, this program reads %d: run one of that version: %w", what, b[0], version, ErrUnreadable)
	}
	d := decoder{wire.Reader{Rest: b[1:]}}
	h := d.sub()
	header(&h)
	n := d.count()
	d.Failed = d.Failed || h.Failed
	entries := make([]T, 0, n)
	for len(entries) < n && !d.Failed {
		s := d.sub()
		entries = entries[:len(entries)+1]
		entry(&s, &entries[len(entries)-1])
		d.Failed = s.Failed
	}
	if d.Failed {
		return nil, fmt.Errorf("decode %s: damaged: %w", what, ErrUnreadable)
	}
	return entries, nil
}

// tooLarge is the error of a record that the broker would not take.
func tooLarge(what string, partition, satellites, size int) error {
	return fmt.Errorf("encode %s %d: %d satellites make %d bytes, at most %d fit: lower max_sats", what, partition, satellites, size, MaxRecord)
}

// cut shortens a text to at most n bytes at the border of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
