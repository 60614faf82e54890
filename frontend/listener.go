package frontend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/co2relay/co2relay/registry"
)

// listener admits connections within the limits and finds out whose they are.
type listener struct {
	net.Listener
	life          context.Context // of the frontend
	trusted       *proxies
	tls           *tls.Config // nil: plain HTTP
	maxConns      int
	maxPerAddr    int
	headerTimeout time.Duration // for a PROXY header
	metrics       *metrics
	goodbyes      chan struct{} // bounds the goroutines that refuse politely

	mu     sync.Mutex
	conns  map[*conn]struct{}
	byAddr map[netip.Addr]int
}

func newListener(life context.Context, ln net.Listener, cfg Config, trusted *proxies, m *metrics) *listener {
	return &listener{
		Listener:      ln,
		life:          life,
		trusted:       trusted,
		maxConns:      cfg.MaxConns,
		maxPerAddr:    cfg.MaxConnsPerAddr,
		headerTimeout: cfg.HeaderTimeout,
		metrics:       m,
		goodbyes:      make(chan struct{}, 64),
		conns:         make(map[*conn]struct{}),
		byAddr:        make(map[netip.Addr]int),
	}
}

// Accept gives the next connection within the limits. One beyond them gets a
// 503 and is closed.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: raw, l: l, peer: addrOf(raw.RemoteAddr())}
		if l.trusted.knows(c.peer) {
			c.isProxy()
		} else {
			c.client = normal(c.peer)
		}
		if l.tls != nil {
			c.tls = tls.Server(wire{c}, l.tls)
		}
		if err := l.admit(c); err != nil {
			l.refuse(raw, err)
			continue
		}
		return c, nil
	}
}

// errTooMany says why a connection is refused; its text is the client's.
type errTooMany struct {
	text   string
	reason string // the metric's label
}

func (e *errTooMany) Error() string { return e.text }

// admit counts a new connection, unless it is one too many.
func (l *listener) admit(c *conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.maxConns > 0 && len(l.conns) >= l.maxConns {
		return &errTooMany{"the relay has as many connections as it takes; try again later", "total"}
	}
	if err := l.countLocked(c); err != nil {
		return err
	}
	l.conns[c] = struct{}{}
	l.metrics.connections.Set(float64(len(l.conns)))
	return nil
}

// countLocked counts a connection for its client's address, if that is known.
func (l *listener) countLocked(c *conn) error {
	if !c.client.IsValid() {
		return nil
	}
	if l.byAddr[c.client] >= l.maxPerAddr {
		return &errTooMany{fmt.Sprintf("%s has %d connections to this relay already, and may have no more; close some or keep using one (--max-conns-per-addr)",
			c.client, l.maxPerAddr), "address"}
	}
	l.byAddr[c.client]++
	c.counted = true
	return nil
}

func (l *listener) forget(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.conns[c]; !ok {
		return
	}
	delete(l.conns, c)
	l.metrics.connections.Set(float64(len(l.conns)))
	l.uncountLocked(c)
}

func (l *listener) uncountLocked(c *conn) {
	if !c.counted {
		return
	}
	c.counted = false
	if l.byAddr[c.client]--; l.byAddr[c.client] <= 0 {
		delete(l.byAddr, c.client)
	}
}

// refuse tells a client why it is turned away. Closing at once would reset the
// connection when the client's request is already there, and it would never
// read the reason; so the rest is read for a moment, by few at a time.
func (l *listener) refuse(raw net.Conn, why error) {
	l.metrics.refusedConn(why)
	select {
	case l.goodbyes <- struct{}{}:
	default:
		_ = raw.Close()
		return
	}
	go func() {
		defer func() { <-l.goodbyes }()
		sayGoodbye(raw, why)
	}()
}

func sayGoodbye(raw net.Conn, why error) {
	defer raw.Close()
	text := why.Error() + "\n"
	_ = raw.SetDeadline(time.Now().Add(500 * time.Millisecond))
	_, err := fmt.Fprintf(raw, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nRetry-After: 1\r\nConnection: close\r\n\r\n%s", len(text), text)
	if err != nil {
		return
	}
	if half, ok := raw.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(raw, 64<<10))
}

// closeUnused closes the connections that have not sent a byte: nothing of
// theirs is in flight, and net/http would wait five seconds for them.
func (l *listener) closeUnused() {
	l.mu.Lock()
	var unused []*conn
	for c := range l.conns {
		if !c.used.Load() {
			unused = append(unused, c)
		}
	}
	l.mu.Unlock()
	for _, c := range unused {
		_ = c.Close()
	}
}

// conn is one client's connection.
type conn struct {
	net.Conn
	l        *listener
	pp       *proxyproto.Conn // reads the PROXY header; nil unless viaProxy
	tls      *tls.Conn        // speaks TLS above the PROXY header; nil: plain HTTP
	peer     netip.Addr       // the other end of the socket
	viaProxy bool             // peer is a trusted proxy
	client   netip.Addr       // who calls, in the registry's normal form; invalid: a trusted proxy did not say
	counted  bool             // guarded by l.mu
	named    sync.Once
	refused  error
	used     atomic.Bool
	framing  framing
	// life is the context of calls that go on when their client hangs up. It
	// ends when the frontend gives up what is in flight.
	life context.Context
}

// isProxy makes a connection a trusted proxy's. Such connections are those of
// many clients; each client's are counted once the PROXY header has named it.
func (c *conn) isProxy() {
	c.viaProxy, c.client = true, netip.Addr{}
	c.pp = proxyproto.NewConn(c.Conn, proxyproto.WithPolicy(proxyproto.USE), proxyproto.SetReadHeaderTimeout(c.l.headerTimeout))
}

// name reads the PROXY header, if one may come, and counts the client then.
// Whether one may come from an unknown address is found out here, where no
// other connection waits for it.
func (c *conn) name() {
	c.named.Do(func() {
		if c.pp == nil {
			if !c.l.trusted.trusts(c.l.life, c.peer) {
				return
			}
			c.l.mu.Lock()
			c.l.uncountLocked(c)
			c.isProxy()
			c.l.mu.Unlock()
		}
		h := c.pp.ProxyHeader()
		if h == nil || h.Command.IsLocal() {
			return
		}
		src, _, ok := h.TCPAddrs()
		if !ok {
			return
		}
		c.l.mu.Lock()
		defer c.l.mu.Unlock()
		c.client = normal(src.AddrPort().Addr())
		if _, open := c.l.conns[c]; open {
			c.refused = c.l.countLocked(c)
		}
	})
}

// Read also watches how requests are framed.
func (c *conn) Read(b []byte) (n int, err error) {
	if c.tls != nil {
		n, err = c.tls.Read(b)
	} else {
		n, err = c.readWire(b)
	}
	c.saw(b[:n])
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	if c.tls != nil {
		return c.tls.Write(b)
	}
	return c.Conn.Write(b)
}

// readWire reads what came, but for the PROXY header.
func (c *conn) readWire(b []byte) (int, error) {
	c.name()
	if c.pp == nil {
		return c.Conn.Read(b)
	}
	if c.refused != nil {
		c.l.metrics.refusedConn(c.refused)
		sayGoodbye(c.Conn, c.refused)
		return 0, io.EOF
	}
	return c.pp.Read(b)
}

func (c *conn) saw(b []byte) {
	if len(b) > 0 {
		c.used.Store(true)
		c.framing.feed(b)
	}
}

// Close may be called more than once.
func (c *conn) Close() error {
	c.l.forget(c)
	if c.tls != nil {
		return c.tls.Close() // says goodbye, if the handshake came that far
	}
	return c.Conn.Close()
}

// RemoteAddr is where the call came from, as a trusted proxy says.
func (c *conn) RemoteAddr() net.Addr {
	c.name()
	if c.pp != nil {
		return c.pp.RemoteAddr()
	}
	return c.Conn.RemoteAddr()
}

// LocalAddr is the address that the client connected to.
func (c *conn) LocalAddr() net.Addr {
	if c.pp != nil {
		return c.pp.LocalAddr()
	}
	return c.Conn.LocalAddr()
}

// SetReadDeadline goes through the PROXY reader, which sets one of its own.
func (c *conn) SetReadDeadline(t time.Time) error {
	if c.pp != nil {
		return c.pp.SetReadDeadline(t)
	}
	return c.Conn.SetReadDeadline(t)
}

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// CloseWrite lets net/http close its half first, so that a client which is
// still sending can read why it was refused.
func (c *conn) CloseWrite() error {
	if c.tls != nil {
		_ = c.tls.CloseWrite()
	}
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

type connKey struct{}

// withConn is net/http's ConnContext.
func withConn(ctx context.Context, nc net.Conn) context.Context {
	c, ok := nc.(*conn)
	if !ok {
		return ctx
	}
	c.life = ctx
	return context.WithValue(ctx, connKey{}, c)
}

func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

// addrOf gives the address of a TCP end, the zero Addr of anything else.
func addrOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// normal gives an address the form in which it stands in host ids. One that
// no satellite can have stays as it is: it may ask, and not register.
func normal(a netip.Addr) netip.Addr {
	if n, err := registry.Normalise(netip.AddrPortFrom(a, 1)); err == nil {
		return n.Addr()
	}
	return a.Unmap()
}

// addrPortOf gives address and port of a TCP end, the zero AddrPort of
// anything else.
func addrPortOf(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(t.AddrPort().Addr().Unmap(), t.AddrPort().Port())
}
