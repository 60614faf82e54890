package wire

import (
	"encoding/binary"
	"testing"
)

func TestReaderGivesWhatWasWritten(t *testing.T) {
	t.Parallel()
	b := binary.AppendVarint(binary.AppendUvarint(nil, 1<<63), -5)
	r := Reader{Rest: append(b, "abc"...)}
	if n, i, s := r.Uint(), r.Int(), string(r.Take(3)); n != 1<<63 || i != -5 || s != "abc" || r.Failed || len(r.Rest) != 0 {
		t.Errorf("got %d, %d, %q, failed %t, %d bytes left", n, i, s, r.Failed, len(r.Rest))
	}
}

func TestReaderStaysWithinItsBytes(t *testing.T) {
	t.Parallel()
	endless := make([]byte, 20)
	for i := range endless {
		endless[i] = 0x80
	}
	for name, read := range map[string]func(*Reader){
		"uint": func(r *Reader) { r.Uint() },
		"int":  func(r *Reader) { r.Int() },
		"take": func(r *Reader) { r.Take(1 << 40) },
	} {
		for _, b := range [][]byte{nil, {0x80}, endless} {
			r := Reader{Rest: b}
			read(&r)
			if !r.Failed || r.Uint() != 0 || r.Int() != 0 || r.Take(1) != nil {
				t.Errorf("%s of %x: failed %t, %d bytes left, want that it fails and all else is zero", name, b, r.Failed, len(r.Rest))
			}
		}
	}
	r := Reader{Rest: []byte{1}}
	if r.Take(0); r.Failed {
		t.Error("nothing of something: failed")
	}
}
