// Package satellitetest has a satellite for tests: it fails, hangs, faults and
// misbehaves on demand, switchable while it runs, and records what it got. It
// reads raw TCP with next to no parsing, so that 200 of them take tens of
// thousands of notify calls a second beside the relay that a test measures.
//
// It relies on the relay's canonical form of a call (UTF-8, no attributes, no
// CDATA, Content-Length always), and counts what is anything else as Malformed
// or NoMsgID: a test of the relay looks there.
package satellitetest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// holdPatience is for whoever has got the port of a satellite that goes down.
const holdPatience = 10 * time.Second

// Keep says how much of every notify call is recorded.
type Keep uint8

// What is recorded; the Stats always are.
const (
	KeepIDs    Keep = iota // msg_id and time
	KeepBodies             // everything
	KeepNone               // only the Stats
)

// Options of a satellite. The zero Options listen on a free port of 127.0.0.1
// and record ids.
type Options struct {
	Listen     string      // address to listen on; "" = "127.0.0.1:0"
	Behaviour  Behaviour   // at the start, of notify and ping
	Keep       Keep        //
	NotifyPass string      // expected password, as it is escaped in XML; see Stats.WrongPass; sent by Register
	TLS        *tls.Config // serve HTTPS

	// OnNotify is called for every notify call before it is answered, from its
	// connection's goroutine. Body is valid only during the call.
	OnNotify func(msgID uint64, body []byte)
}

// Satellite is a running satellite. All methods may be called at any time from
// any goroutine.
type Satellite struct {
	opts   Options
	addr   netip.AddrPort
	rec    record
	plans  [2]atomic.Pointer[plan] // by method
	usual  *plan                   // the zero Behaviour
	turn   sync.Mutex              // held by the one connection of OneAtATime
	wg     sync.WaitGroup
	closed chan struct{}

	mu       sync.Mutex
	listener net.Listener // nil while down
	held     *heldPort    // not nil while down
	conns    map[net.Conn]bool
	hanging  map[net.Conn]int // method whose Behaviour the connection waits on
}

// Start starts a satellite that is closed when the test ends.
func Start(t testing.TB, opts Options) *Satellite {
	t.Helper()
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// Open starts a satellite for a caller that is no test; Close stops it.
func Open(opts Options) (*Satellite, error) {
	if opts.Listen == "" {
		opts.Listen = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", opts.Listen)
	if err != nil {
		return nil, fmt.Errorf("start satellite %s: %w", opts.Listen, err)
	}
	s := &Satellite{
		opts:     opts,
		addr:     l.Addr().(*net.TCPAddr).AddrPort(),
		usual:    newPlan(Behaviour{}),
		closed:   make(chan struct{}),
		listener: l,
		conns:    make(map[net.Conn]bool),
		hanging:  make(map[net.Conn]int),
	}
	s.rec.start, s.rec.keep, s.rec.pass = time.Now(), opts.Keep, opts.NotifyPass
	s.wg.Add(1)
	go s.accept(l)
	s.SetBehaviour(opts.Behaviour)
	return s, nil
}

// Addr is where the satellite listens; it stays the same through Down.
func (s *Satellite) Addr() netip.AddrPort { return s.addr }

// Port is the port of Addr.
func (s *Satellite) Port() int { return int(s.addr.Port()) }

// ID is the host id that a relay on this machine gives the satellite.
func (s *Satellite) ID() string { return s.addr.String() }

// SetBehaviour switches notify and ping to b. Calls that hang are ended by
// closing their connection; delayed answers still come.
func (s *Satellite) SetBehaviour(b Behaviour) {
	s.set(b, methodNotify)
	s.set(b, methodPing)
}

// SetNotify switches notify only. Down is for the whole satellite: it is
// entered by SetBehaviour, and left by any of the three.
func (s *Satellite) SetNotify(b Behaviour) { s.set(b, methodNotify) }

// SetPing switches ping only.
func (s *Satellite) SetPing(b Behaviour) { s.set(b, methodPing) }

func (s *Satellite) set(b Behaviour, method int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plans[method].Store(newPlan(b))
	if b.Mode == Down {
		s.down()
	} else {
		s.up()
	}
	for c, m := range s.hanging {
		if m == method {
			c.Close()
		}
	}
}

// down closes the listener and all connections, but keeps the port, so that
// nobody else's connection gets it. The caller holds mu.
func (s *Satellite) down() {
	if s.listener == nil {
		return
	}
	s.listener.Close()
	s.listener = nil
	held, err := holdPort(s.addr)
	// The port is free for a moment, in which somebody's connection may get it.
	for end := time.Now().Add(holdPatience); err != nil && time.Now().Before(end); held, err = holdPort(s.addr) {
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		panic(fmt.Sprintf("satellitetest: keep port %s: %v", s.addr, err))
	}
	s.held = held
	for c := range s.conns {
		reset(c)
	}
}

// up listens again on the port that down kept. The caller holds mu.
func (s *Satellite) up() {
	if s.listener != nil || s.held == nil {
		return
	}
	l, err := s.held.listen()
	if err != nil {
		panic(fmt.Sprintf("satellitetest: listen again on %s: %v", s.addr, err))
	}
	s.listener, s.held = l, nil
	s.wg.Add(1)
	go s.accept(l)
}

// Close stops the satellite and waits for its goroutines.
func (s *Satellite) Close() {
	s.mu.Lock()
	select {
	case <-s.closed:
		s.mu.Unlock()
		return
	default:
	}
	close(s.closed)
	if s.listener != nil {
		s.listener.Close()
		s.listener = nil
	}
	if s.held != nil {
		s.held.close()
		s.held = nil
	}
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// CloseConnections closes every connection that stands, as a satellite's own
// time-out for idle connections does.
func (s *Satellite) CloseConnections() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
}

// OpenConnections is how many stand now.
func (s *Satellite) OpenConnections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Stats returns the counts so far.
func (s *Satellite) Stats() Stats {
	s.rec.mu.Lock()
	defer s.rec.mu.Unlock()
	return s.rec.stats
}

// Received returns all notify calls in order of arrival; nil with KeepNone.
func (s *Satellite) Received() []Notify { return s.rec.received() }

// IDs returns the different msg_ids settled, in order of first arrival while
// they rose; those out of order come last.
func (s *Satellite) IDs() []uint64 { return s.rec.ids() }

// Reset forgets everything recorded.
func (s *Satellite) Reset() { s.rec.reset() }

// WaitFor waits until ok of the Stats, or returns the context's error.
func (s *Satellite) WaitFor(ctx context.Context, ok func(Stats) bool) error {
	return waitFor(ctx, s.Stats, ok)
}

func waitFor(ctx context.Context, stats func() Stats, ok func(Stats) bool) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		now := stats()
		if ok(now) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for satellite with %+v: %w", now, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
