package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A message carries the time at which its sender called, so that a receiver
// can tell how long it took.
const (
	stampOpen   = "at="
	stampDigits = 19 // of Unix nanoseconds, until the year 2286
)

// client is one kept connection to a relay, with the least that a call needs:
// the measured machine is also the sender's.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	buf  []byte
}

// dialRelay connects to a relay from a satellite's address; from may be empty.
func dialRelay(addr, from string) (*client, error) {
	var d net.Dialer
	if from != "" {
		ip, err := netip.ParseAddrPort(from)
		if err != nil {
			return nil, err
		}
		d.LocalAddr = &net.TCPAddr{IP: ip.Addr().AsSlice()}
	}
	conn, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, in: bufio.NewReader(conn)}, nil
}

// call makes one call with a struct of these members and returns the text of
// its answer's value.
func (c *client) call(method, members string) (string, error) {
	body := "<?xml version=\"1.0\"?><methodCall><methodName>" + method + "</methodName><params><param><value><struct>" +
		members + "</struct></value></param></params></methodCall>"
	c.buf = fmt.Appendf(c.buf[:0], "POST /RPC2 HTTP/1.1\r\nHost: relay\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	return c.send(c.buf)
}

func (c *client) send(request []byte) (string, error) {
	if _, err := c.conn.Write(request); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return "", err
	}
	if bytes.Contains(body, []byte("<fault>")) {
		return "", fmt.Errorf("fault: %s", body)
	}
	_, rest, _ := strings.Cut(string(body), "<value><string>")
	text, _, ok := strings.Cut(rest, "</string>")
	if !ok {
		return "", fmt.Errorf("unexpected answer: %s", body)
	}
	return text, nil
}

func register(c *client, port string) (string, error) {
	return c.call("relay.register", "<member><name>port</name><value><int>"+port+"</int></value></member>"+
		"<member><name>notify_pass</name><value><string>bench</string></value></member>")
}

// registerAll registers every receiver, several at a time, each from its own
// address.
func registerAll(addr string, addrs []string) ([]string, error) {
	const parallel = 32
	ids := make([]string, len(addrs))
	errs := make([]error, parallel)
	each := (len(addrs) + parallel - 1) / parallel
	var wg sync.WaitGroup
	for k := range parallel {
		first, last := min(k*each, len(addrs)), min((k+1)*each, len(addrs))
		wg.Go(func() { errs[k] = registerSome(addr, addrs[first:last], ids[first:last]) })
	}
	wg.Wait()
	return ids, errors.Join(errs...)
}

// registerSome needs a connection for each run of satellites with one address.
func registerSome(addr string, addrs, ids []string) error {
	var c *client
	var err error
	last := ""
	for i, a := range addrs {
		if ip := a[:strings.LastIndexByte(a, ':')]; ip != last {
			if c != nil {
				c.conn.Close()
			}
			if c, err = dialRelay(addr, a); err != nil {
				return err
			}
			last = ip
		}
		if ids[i], err = register(c, portOf(a)); err != nil {
			break
		}
	}
	if c != nil {
		c.conn.Close()
	}
	return err
}

// load is a number of senders that relay until stopped.
type load struct {
	accepted atomic.Uint64
	mu       sync.Mutex
	times    []time.Duration
	errs     []error
	wg       sync.WaitGroup
	stop     context.CancelFunc
	paced    bool // at a rate
}

// startLoad lets senders relay one after the other, each as soon as its last
// call was answered and allowed says so.
func startLoad(ctx context.Context, addr string, ids []string, w workload, allowed func(sent uint64) bool) *load {
	ctx, stop := context.WithCancel(ctx)
	l := &load{stop: stop, paced: w.Rate > 0}
	var sent atomic.Uint64
	for i := range w.Senders {
		l.wg.Go(func() {
			id := ids[i%len(ids)]
			if err := l.sender(ctx, addr, id, w, &sent, allowed); err != nil && ctx.Err() == nil {
				l.mu.Lock()
				l.errs = append(l.errs, err)
				l.mu.Unlock()
			}
		})
	}
	return l
}

func (l *load) sender(ctx context.Context, addr, id string, w workload, sent *atomic.Uint64, allowed func(uint64) bool) error {
	var c *client
	pad := strings.Repeat("x", max(0, w.Size-len(stampOpen)-stampDigits))
	for ctx.Err() == nil {
		if !allowed(sent.Load()) {
			time.Sleep(100 * time.Microsecond)
			continue
		}
		sent.Add(1)
		if c == nil { // only now: a frontend closes a connection that says nothing
			var err error
			if c, err = dialRelay(addr, id); err != nil {
				return err
			}
			defer c.conn.Close()
		}
		began := time.Now()
		_, err := c.call("relay.relay", "<member><name>host_id</name><value><string>"+id+"</string></value></member><member><name>data</name><value><string>"+
			stampOpen+strconv.FormatInt(began.UnixNano(), 10)+pad+"</string></value></member>")
		if err != nil {
			return err
		}
		l.accepted.Add(1)
		l.mu.Lock()
		l.times = append(l.times, time.Since(began))
		l.mu.Unlock()
	}
	return nil
}

func (l *load) end() error {
	l.stop()
	l.wg.Wait()
	return errors.Join(l.errs...)
}

// takeTimes are the accept times since the last call.
func (l *load) takeTimes() quantiles {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := quantilesOf(l.times)
	l.times = nil
	return q
}
