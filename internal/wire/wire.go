// Package wire reads the binary records that the relay keeps in its broker. A
// record comes from another process, perhaps of another version, perhaps
// damaged: a Reader never goes beyond the bytes that there are.
package wire

import "encoding/binary"

// Reader reads fields one after the other and remembers that one was cut short.
// After that everything reads as zero, so that only the end needs a check.
type Reader struct {
	Rest   []byte // what was not read yet
	Failed bool
}

// Fail ends the reading, for a field that cannot be what it says.
func (r *Reader) Fail() { r.Rest, r.Failed = nil, true }

// Uint reads an unsigned varint.
func (r *Reader) Uint() uint64 {
	v, n := binary.Uvarint(r.Rest)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.Rest = r.Rest[n:]
	return v
}

// Int reads a signed varint.
func (r *Reader) Int() int64 {
	v, n := binary.Varint(r.Rest)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.Rest = r.Rest[n:]
	return v
}

// Take gives the next n bytes, nil if there are not as many. They are the
// record's own.
func (r *Reader) Take(n uint64) []byte {
	if n > uint64(len(r.Rest)) {
		r.Fail()
		return nil
	}
	b := r.Rest[:n]
	r.Rest = r.Rest[n:]
	return b
}
