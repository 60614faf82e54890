package frontend

import (
	"bytes"
	"strconv"
	"sync/atomic"
)

// framing watches the bytes that a client sends, beside net/http, for what
// net/http accepts silently and this relay refuses: a request with both a
// Transfer-Encoding and a Content-Length, and a folded header line. Parsers
// disagree about where such a request ends, which is how one is smuggled past
// a proxy. It follows requests by their Content-Length; after one with a
// Transfer-Encoding it stops looking, and the connection must be closed.
//
// feed is called by one goroutine at a time; the flags may be read by others.
type framing struct {
	bad     atomic.Bool // this connection carried a request that must be refused
	coded   atomic.Bool // it carried a Transfer-Encoding: close it after the answer
	off     bool
	lines   int   // of this header, the request line included
	body    int64 // bytes of this body still to come
	length  int64 // Content-Length of this header, -1 none
	encoded bool  // this header has a Transfer-Encoding
	held    []byte
}

// maxHeld is how much of a line is looked at: the names that matter, and a
// length of 19 digits with some white space.
const maxHeld = 64

var (
	nameLength   = []byte("content-length:")
	nameEncoding = []byte("transfer-encoding")
)

func (f *framing) feed(b []byte) {
	for len(b) > 0 && !f.off {
		if f.body > 0 {
			n := min(f.body, int64(len(b)))
			f.body -= n
			b = b[n:]
			continue
		}
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			f.hold(b)
			return
		}
		line := b[:end]
		if len(f.held) > 0 {
			f.hold(line)
			line = f.held
		}
		f.line(line)
		f.held = f.held[:0]
		b = b[end+1:]
	}
}

// hold keeps the beginning of a line that did not come in one piece.
func (f *framing) hold(b []byte) {
	f.held = append(f.held, b[:min(len(b), maxHeld-len(f.held))]...)
}

func (f *framing) line(line []byte) {
	line = bytes.TrimSuffix(line, []byte("\r"))
	if f.lines == 0 {
		if len(line) > 0 { // empty lines may stand before a request
			f.lines, f.length, f.encoded = 1, -1, false
		}
		return
	}
	f.lines++
	if len(line) == 0 {
		f.headerEnds()
		return
	}
	switch line[0] {
	case 'c', 'C':
		if hasPrefixFold(line, nameLength) {
			f.lengthIs(line[len(nameLength):])
		}
	case 't', 'T':
		f.encoded = f.encoded || hasPrefixFold(line, nameEncoding)
	case ' ', '\t':
		f.refuse()
	}
}

func (f *framing) lengthIs(text []byte) {
	if len(nameLength)+len(text) >= maxHeld { // its end may not have been kept
		f.refuse()
		return
	}
	n, err := strconv.ParseInt(string(bytes.Trim(text, " \t")), 10, 64)
	if err != nil || n < 0 || f.length >= 0 && f.length != n {
		f.refuse()
		return
	}
	f.length = n
}

func (f *framing) headerEnds() {
	f.lines = 0
	switch {
	case f.encoded && f.length >= 0:
		f.refuse()
	case f.encoded:
		f.coded.Store(true)
		f.off = true
	default:
		f.body = max(f.length, 0)
	}
}

func (f *framing) refuse() {
	f.bad.Store(true)
	f.off = true
}

// hasPrefixFold compares without regard to the case of ASCII letters; prefix
// is in lower case.
func hasPrefixFold(b, prefix []byte) bool {
	return len(b) >= len(prefix) && bytes.EqualFold(b[:len(prefix)], prefix)
}
