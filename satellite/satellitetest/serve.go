package satellitetest

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// The methods that a Behaviour is set for.
const (
	methodNotify = iota
	methodPing
	methodOther
)

// maxRequest bounds a request's head and body: the relay's own limit, with room.
const maxRequest = 4 << 20

func (s *Satellite) accept(l net.Listener) {
	defer s.wg.Done()
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed: by Close, or by Down
		}
		s.rec.count(&s.rec.stats.Connections)
		raw := c
		if s.opts.TLS != nil {
			c = tls.Server(c, s.opts.TLS)
		}
		s.mu.Lock()
		select {
		case <-s.closed:
			s.mu.Unlock()
			raw.Close()
			return
		default:
		}
		if s.listener != l { // went down meanwhile
			s.mu.Unlock()
			reset(raw)
			continue
		}
		s.conns[c] = true
		s.wg.Add(1)
		s.mu.Unlock()
		go s.serve(c)
	}
}

func (s *Satellite) serve(c net.Conn) {
	defer s.wg.Done()
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		c.Close()
	}()
	if s.plans[methodNotify].Load().OneAtATime {
		s.turn.Lock()
		defer s.turn.Unlock()
	}
	r := requestReader{conn: c, buf: make([]byte, 0, 4096)}
	for served := 0; ; served++ {
		req, err := r.next()
		if errors.Is(err, errMalformed) {
			s.rec.count(&s.rec.stats.Malformed)
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		}
		if err != nil || !s.answer(c, req, served > 0) {
			return
		}
	}
}

// answer records and answers one call, and reports whether the connection
// stays open.
func (s *Satellite) answer(c net.Conn, req request, reused bool) bool {
	method := methodOf(req.body)
	if method == methodOther {
		s.rec.count(&s.rec.stats.Other)
		_, err := c.Write(noSuchMethod)
		return err == nil && !req.close
	}
	p := s.plans[method].Load()
	if reused && p.DropReused {
		return false
	}
	if !p.take() {
		p = s.usual
	}
	done := func() {}
	if method == methodNotify {
		id := s.rec.notify(req.body, p.settled)
		done = sync.OnceFunc(s.rec.done)
		defer done()
		if s.opts.OnNotify != nil {
			s.opts.OnNotify(id, req.body)
		}
	} else {
		s.rec.count(&s.rec.stats.Pings)
	}
	if p.Delay > 0 && !s.pause(p.Delay) {
		return false
	}
	switch p.Mode {
	case Hang:
		s.hang(c, method, p)
		return false
	case Drop, Down:
		return false
	}
	closing := 0
	if req.close {
		closing = 1
	}
	done() // before the write: the next call may come as soon as its last byte is out
	return write(c, p.wire[method][closing], p.Bytewise) == nil && !req.close && !p.closes()
}

// hang reads until the connection ends: by the caller, by the next
// SetBehaviour, or by Close.
func (s *Satellite) hang(c net.Conn, method int, p *plan) {
	s.mu.Lock()
	if s.plans[method].Load() != p { // switched meanwhile
		s.mu.Unlock()
		return
	}
	s.hanging[c] = method
	s.mu.Unlock()
	_, _ = io.Copy(io.Discard, c)
	s.mu.Lock()
	delete(s.hanging, c)
	s.mu.Unlock()
}

// pause waits, and reports false if the satellite was closed meanwhile.
func (s *Satellite) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.closed:
		return false
	}
}

func write(c net.Conn, b []byte, bytewise bool) error {
	size := len(b)
	if bytewise {
		size = 1
	}
	for len(b) > 0 {
		if _, err := c.Write(b[:size]); err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
}

// reset closes c so that its peer sees a reset, not an end.
func reset(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	c.Close()
}

var noSuchMethod = render(Behaviour{}, []byte(`<?xml version="1.0"?><methodResponse><fault><value><struct>`+
	`<member><name>faultCode</name><value><int>-32601</int></value></member>`+
	`<member><name>faultString</name><value><string>no such method</string></value></member>`+
	`</struct></value></fault></methodResponse>`), false)

func methodOf(body []byte) int {
	_, rest, _ := bytes.Cut(body[:min(len(body), 512)], []byte("<methodName>"))
	name, _, _ := bytes.Cut(rest, []byte("<"))
	switch string(bytes.TrimSpace(name)) {
	case "notify":
		return methodNotify
	case "ping":
		return methodPing
	}
	return methodOther
}

var errMalformed = errors.New("request is no POST with a Content-Length")

// request is one call; body is valid until the next one is read.
type request struct {
	body  []byte
	close bool // the caller wants the connection closed
}

// requestReader reads requests off a connection, into one buffer that it keeps.
type requestReader struct {
	conn net.Conn
	buf  []byte // read, and not consumed before used
	used int    // end of the request handed out last
}

func (r *requestReader) next() (request, error) {
	r.buf = r.buf[:copy(r.buf, r.buf[r.used:])]
	r.used = 0
	head := -1
	for {
		if head = bytes.Index(r.buf, []byte("\r\n\r\n")); head >= 0 {
			break
		}
		if len(r.buf) > 64<<10 {
			return request{}, errMalformed
		}
		if err := r.more(len(r.buf) + 1); err != nil {
			return request{}, err
		}
	}
	req, length, ok := parseHead(r.buf[:head])
	if !ok || length > maxRequest {
		return request{}, errMalformed
	}
	start := head + 4
	for len(r.buf) < start+length {
		if err := r.more(start + length); err != nil {
			return request{}, err
		}
	}
	r.used = start + length
	req.body = r.buf[start:r.used]
	return req, nil
}

// more reads once, into a buffer that holds at least want bytes.
func (r *requestReader) more(want int) error {
	if want > cap(r.buf) {
		bigger := make([]byte, len(r.buf), max(want, 2*cap(r.buf)))
		copy(bigger, r.buf)
		r.buf = bigger
	}
	n, err := r.conn.Read(r.buf[len(r.buf):cap(r.buf)])
	r.buf = r.buf[:len(r.buf)+n]
	if n > 0 {
		return nil
	}
	return err
}

// parseHead reads the two things that matter of a request's head: how long the
// body is, and whether the connection is to be closed.
func parseHead(head []byte) (req request, length int, ok bool) {
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	if !bytes.HasPrefix(line, []byte("POST ")) {
		return req, 0, false
	}
	req.close = bytes.HasSuffix(line, []byte(" HTTP/1.0"))
	length = -1
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			n, err := strconv.Atoi(string(value))
			if err != nil || n < 0 {
				return req, 0, false
			}
			length = n
		case bytes.EqualFold(name, []byte("Connection")):
			req.close = bytes.EqualFold(value, []byte("close"))
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			return req, 0, false
		}
	}
	return req, length, length >= 0
}
