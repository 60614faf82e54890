package frontend

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// Reasons for which a body is not taken. errTooLarge is answered by a Fault,
// which says more to an XML-RPC client than a status would.
var (
	errTooLarge = errors.New("body too large")
	errInflate  = errors.New("body cannot be inflated")
)

// coding is a content coding that calls may come in.
type coding uint8

const (
	identity coding = iota
	gzipped
	deflated
)

// codingOf reads a Content-Encoding header.
func codingOf(header string) (coding, bool) {
	switch strings.ToLower(strings.TrimSpace(header)) {
	case "", "identity":
		return identity, true
	case "gzip", "x-gzip":
		return gzipped, true
	case "deflate":
		return deflated, true
	}
	return identity, false
}

// buffers keeps byte slices between calls. Large ones are not kept: the
// budget bounds them only while a call runs.
type buffers struct{ pool sync.Pool }

func (p *buffers) get() *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, 4<<10)
	return &b
}

func (p *buffers) put(b *[]byte) {
	if cap(*b) > 2*smallBody {
		return
	}
	*b = (*b)[:0]
	p.pool.Put(b)
}

// readBody appends what r still gives to b, at most max bytes; errTooLarge
// when there is more. length is what was declared, -1 if nothing.
func readBody(b []byte, r io.Reader, length, limit int64) ([]byte, error) {
	if length > limit {
		return b, errTooLarge
	}
	if length >= 0 {
		if int64(cap(b)) < length {
			b = make([]byte, 0, length)
		}
		b = b[:length]
		n, err := io.ReadFull(r, b)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if length == 0 {
			err = nil
		}
		return b[:n], err
	}
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case int64(len(b)) > limit:
			return b, errTooLarge
		case err == io.EOF:
			return b, nil
		case err != nil:
			return b, err
		}
	}
}

// inflate undoes a content coding, at most max bytes long; errTooLarge when
// there is more, errInflate (with the cause) when it is damaged.
func inflate(body []byte, c coding, limit int64) ([]byte, error) {
	switch c {
	case gzipped:
		r, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, fmt.Errorf("%w: gzip: %w", errInflate, err)
		}
		return inflated(r, limit)
	case deflated:
		// "deflate" means zlib by the standard; many clients send it raw. A raw
		// stream may look like zlib by accident, so the other is tried then.
		if r, err := zlib.NewReader(bytes.NewReader(body)); err == nil {
			doc, err := inflated(r, limit)
			if err == nil || errors.Is(err, errTooLarge) {
				return doc, err
			}
		}
		return inflated(flate.NewReader(bytes.NewReader(body)), limit)
	}
	return body, nil
}

func inflated(r io.Reader, limit int64) ([]byte, error) {
	doc, err := readBody(make([]byte, 0, 4<<10), r, -1, limit)
	if err != nil && !errors.Is(err, errTooLarge) {
		err = fmt.Errorf("%w: %w", errInflate, err)
	}
	return doc, err
}
