package caller

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// DefaultTimeout bounds a whole call when a Client names no other time.
const DefaultTimeout = 10 * time.Second

// Client makes single calls, each on a connection of its own that is closed
// after the answer. It follows no redirects and knows no proxies. It is safe for
// concurrent use.
type Client struct {
	Timeout time.Duration // of a whole call, DefaultTimeout when 0
	TLS     *tls.Config   // for satellites that register https; nil: the system's roots
}

// Post calls the target with body and returns its answer and the round trip,
// from before the connection is opened to the end of the answer.
func (c *Client) Post(ctx context.Context, t Target, body []byte) (Answer, time.Duration, error) {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	start := time.Now()
	t.Close = true
	conn, err := Dial(ctx, t, c.TLS)
	if err != nil {
		return Answer{}, time.Since(start), err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var p Parser
	err = Exchange(conn, append(AppendRequest(nil, t, len(body)), body...), &p)
	if ctx.Err() != nil && err != nil {
		err = fmt.Errorf("call %s: no answer within %s: %w", t.Addr, timeout, context.Cause(ctx))
	}
	return *p.Answer(), time.Since(start), err
}

// Exchange writes a request to conn and reads one answer into p.
func Exchange(conn net.Conn, request []byte, p *Parser) error {
	if _, err := conn.Write(request); err != nil {
		return err
	}
	buf := make([]byte, 4<<10)
	for {
		n, err := conn.Read(buf)
		done, perr := p.Feed(buf[:n])
		if done || perr != nil {
			return perr
		}
		if err == nil {
			continue
		}
		var nerr net.Error
		if errors.As(err, &nerr) && nerr.Timeout() {
			return err
		}
		if done, eof := p.EOF(); done {
			return eof
		}
		if p.Started() {
			return ErrTruncated
		}
		return fmt.Errorf("the connection ended without an answer: %w", err)
	}
}

// Loopback6 is tried where 127.0.0.1 refuses, since both loopbacks register as
// 127.0.0.1. It returns false for an address that has no such twin.
func Loopback6(addr netip.AddrPort) (netip.AddrPort, bool) {
	if addr.Addr() != netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
		return addr, false
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), addr.Port()), true
}

// Dial opens a connection to the target, and for https ends its handshake.
func Dial(ctx context.Context, t Target, config *tls.Config) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", t.Addr.String())
	if twin, ok := Loopback6(t.Addr); ok && errors.Is(err, syscall.ECONNREFUSED) {
		if conn6, err6 := d.DialContext(ctx, "tcp", twin.String()); err6 == nil {
			conn, err = conn6, nil
		}
	}
	if err != nil || t.Scheme != SchemeHTTPS {
		return conn, err
	}
	tlsConn := tls.Client(conn, tlsConfig(t, config))
	if err := tlsConn.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("tls to %s: %w", t.Addr, strangersError{err})
	}
	return tlsConn, nil
}

// strangersError is an error whose text quotes what the other side sent, such
// as the names in its certificate. It goes into events, pages and logs, so it
// is kept short and printable.
type strangersError struct{ error }

func (e strangersError) Unwrap() error { return e.error }

func (e strangersError) Error() string {
	const most = 300
	text := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '.'
		}
		return r
	}, e.error.Error())
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}

// tlsConfig is config with the name to verify: the registered tls_name, or the
// address itself.
func tlsConfig(t Target, config *tls.Config) *tls.Config {
	own := &tls.Config{MinVersion: tls.VersionTLS12}
	if config != nil {
		own = config.Clone()
	}
	own.ServerName = t.TLSName
	if own.ServerName == "" {
		own.ServerName = t.Addr.Addr().String()
	}
	return own
}
