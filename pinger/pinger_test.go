package pinger

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
	"github.com/co2relay/co2relay/satellite/satellitetest"
)

func answered(n uint64) func(registry.Ping) bool {
	return func(f registry.Ping) bool { return f.Count-f.Fails >= n }
}

func failed(n uint64) func(registry.Ping) bool {
	return func(f registry.Ping) bool { return f.Fails >= n }
}

func TestNewSatelliteIsPingedOnceAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p, _ := s.start(rarely())
	s.owns(p)
	sat := satellitetest.Start(t, satellitetest.Options{})
	id := s.register(sat)
	f := s.pings(id, "it is pinged", answered(1))
	if f.Count != 1 || f.Fails != 0 || f.Failing != 0 || f.At.IsZero() {
		t.Errorf("got %+v, want one ping and no failure", f)
	}
	if f.Current <= 0 || f.Min != f.Current || f.Max != f.Current || f.Sum != f.Current {
		t.Errorf("got %+v, want one round trip everywhere", f)
	}
	s.wantHint(id, cluster.HintAlive)
	if got := sat.Stats().Pings; got != 1 {
		t.Errorf("got %d pings, want 1", got)
	}
}

func TestSatelliteThatRegistersAgainIsPingedAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	cfg := rarely()
	cfg.pingedLately = DefaultConfig().pingedLately
	p, _ := s.start(cfg)
	s.owns(p)
	sat := satellitetest.Start(t, satellitetest.Options{})
	id := s.register(sat)
	s.pings(id, "it is pinged", answered(1))
	eventually(t, "it is pinged again", func() bool { // a registration within a second of a ping needs no other
		s.register(sat)
		return sat.Stats().Pings > 1
	})
	f := s.pings(id, "both are counted", answered(2))
	if f.Min > f.Current || f.Max < f.Current || f.Sum < f.Min+f.Max {
		t.Errorf("got %+v, want min <= current <= max and their sum", f)
	}
}

func TestSatellitesArePingedEachInterval(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	cfg := rarely()
	cfg.Interval = 200 * time.Millisecond
	s.start(cfg)
	for range 5 {
		id := s.register(satellitetest.Start(t, satellitetest.Options{}))
		defer s.pings(id, "it is pinged again and again", answered(4))
	}
}

func TestFaultIsAReply(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(rarely())
	id := s.register(satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Mode: satellitetest.Fault}}))
	if f := s.pings(id, "it is pinged", answered(1)); f.Fails != 0 || f.Current <= 0 {
		t.Errorf("got %+v, want a round trip", f)
	}
}

func TestOldAndOddServersAreReplies(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(rarely())
	for name, b := range map[string]satellitetest.Behaviour{
		"HTTP/1.0":         {HTTP10: true},
		"no length":        {NoLength: true},
		"chunked":          {Chunked: true},
		"LF only":          {LFOnly: true},
		"error status":     {Status: 500, WithBody: true},
		"closing silently": {CloseSilently: true},
	} {
		id := s.register(satellitetest.Start(t, satellitetest.Options{Behaviour: b}))
		if f := s.pings(id, name, func(f registry.Ping) bool { return f.Count > 0 }); f.Fails != 0 {
			t.Errorf("%s: got %+v, want a reply", name, f)
		}
	}
}

func TestRefusingSatelliteIsUnreachableAndSoonReachable(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(rarely())
	sat := satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Mode: satellitetest.Down}})
	id := s.register(sat)
	f := s.pings(id, "it fails", failed(1))
	if f.Current != -1 || f.Failing == 0 || f.Min != 0 || f.Max != 0 {
		t.Errorf("got %+v, want a failure and no round trip", f)
	}
	s.wantReason(id, "refused", "nothing listens there")
	if got := s.hinted(id, cluster.HintAlive); got != 0 {
		t.Errorf("got %d hints that it lives, want none", got)
	}
	sat.SetBehaviour(satellitetest.Behaviour{})
	s.pings(id, "it is back, long before the interval is over", answered(1))
	s.event(id, kindReachable)
	s.wantHint(id, cluster.HintAlive)
	if f := s.figures(id); f.Failing != 0 || f.Current <= 0 || f.OneAtATime {
		t.Errorf("got %+v, want no failures in a row", f)
	}
}

func TestHangingSatelliteTimesOut(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	cfg := rarely()
	cfg.Timeout = 2 * time.Second
	s.start(cfg)
	sat := satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Mode: satellitetest.Hang}})
	id := s.register(sat)
	s.wantHint(id, cluster.HintCloseIdle)
	s.pings(id, "it fails", failed(1))
	s.wantReason(id, fmt.Sprintf("no answer within %s", cfg.Timeout), "hangs, or serves one connection at a time")
	sat.SetBehaviour(satellitetest.Behaviour{})
	if f := s.pings(id, "it is back", answered(1)); f.OneAtATime {
		t.Error("it is taken for one that serves one connection at a time, though it hung")
	}
}

func TestServerThatIsNoSatelliteIsUnreachable(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(rarely())
	for mode, want := range map[satellitetest.Mode]string{
		satellitetest.Garbage:  "not in XML-RPC",
		satellitetest.Truncate: "broke before the answer was complete",
		satellitetest.Drop:     "broke before the answer was complete",
	} {
		id := s.register(satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Mode: mode}}))
		s.pings(id, want, failed(1))
		s.wantReason(id, want)
	}
	// One that speaks first, in another language.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n")
		}
	}()
	id := s.registerAddr(l.Addr().(*net.TCPAddr).AddrPort())
	s.wantReason(id, "not HTTP")
}

func TestFiguresSurviveARestart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	_, stop := s.start(rarely())
	up := satellitetest.Start(t, satellitetest.Options{})
	down := satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Mode: satellitetest.Down}})
	upID, downID := s.register(up), s.register(down)
	before := s.pings(upID, "it is pinged", answered(1))
	s.pings(downID, "it fails", failed(1))
	stop()
	fails := s.figures(downID).Fails
	p, stop := s.start(rarely())
	s.owns(p)
	down.SetBehaviour(satellitetest.Behaviour{})
	s.pings(downID, "it is back", answered(1))
	stop()
	eventually(t, "the figures are fresh", func() bool { return s.figures(downID).Failing == 0 })
	if got := s.figures(upID); got != before {
		t.Errorf("got %+v, want as before %+v", got, before)
	}
	if got := s.figures(downID); got.Fails < fails || got.Count != got.Fails+1 {
		t.Errorf("got %+v, want %d failures or more and one answer", got, fails)
	}
	if got := up.Stats().Pings; got != 1 {
		t.Errorf("got %d pings, want 1: its turn had not come again", got)
	}
}

func TestFiguresEndWithTheGeneration(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p, stop := s.start(rarely())
	sat := satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Mode: satellitetest.Down}})
	id := s.register(sat)
	s.pings(id, "it fails", failed(1))
	if err := s.reg.Deregister(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is forgotten", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.owned == 0
	})
	sat.SetBehaviour(satellitetest.Behaviour{})
	s.register(sat)
	f := s.pings(id, "it is pinged", answered(1))
	if f.Count != 1 || f.Fails != 0 {
		t.Errorf("got %+v, want figures that began anew", f)
	}
	if err := s.reg.Deregister(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	// Nothing is left of it, neither now nor after the next owner has come.
	stop()
	p, stop = s.start(rarely())
	s.owns(p)
	var record registry.PingRecord
	var err error
	nobody := func() bool {
		record, _, err = s.reg.LoadPing(t.Context(), id.Partition())
		return err == nil && len(record.Satellites) == 0
	}
	eventually(t, "nobody is left in the record", nobody)
	stop()
	if !nobody() {
		t.Errorf("got %+v, %v; want nobody", record.Satellites, err)
	}
}

// Servers with one thread that keep connections alive do not answer a ping
// while the delivery worker's idle connection stands.
func TestServerOfOneConnectionAtATimeIsFoundOut(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	cfg := rarely()
	cfg.Timeout = 3 * time.Second
	_, stop := s.start(cfg)
	var sat *satellitetest.Satellite
	var id registry.ID
	for try := 1; ; try++ {
		sat = satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{OneAtATime: true}})
		held := hold(t, sat.Addr())
		s.mu.Lock()
		s.onHint = func(h cluster.Hint) {
			if h.Kind == cluster.HintCloseIdle && h.Satellite == sat.ID() {
				held.Close() // as the delivery worker does
			}
		}
		s.mu.Unlock()
		id = s.register(sat)
		f := s.pings(id, "it is pinged", answered(1))
		if f.OneAtATime && f.Fails == 0 {
			break
		}
		// A ping that took seconds, or a lease that lapsed, hides what it was.
		if try == 3 {
			t.Fatalf("got %+v, want it found out, and no failure counted", f)
		}
	}
	s.wantHint(id, cluster.HintOneAtATime)
	// And that is remembered, and told to whoever delivers now.
	stop()
	s.mu.Lock()
	s.hints = nil
	s.mu.Unlock()
	s.start(cfg)
	eventually(t, "the next pinger knows", func() bool {
		s.register(sat)
		return s.hinted(id, cluster.HintOneAtATime) > 0
	})
}

// hold opens a connection, has one call answered, and keeps it.
func hold(t *testing.T, addr netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	body := `<?xml version="1.0"?><methodCall><methodName>ping</methodName><params></params></methodCall>`
	if _, err := fmt.Fprintf(c, "POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPingersShareTheSatellitesOut(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, _ := s.start(rarely())
	b, _ := s.start(rarely())
	eventually(t, "both own some", func() bool { return count(a) == cluster.Partitions/2 && count(b) == cluster.Partitions/2 })
	s.owns(a, b)
	fleet := satellitetest.StartFleet(t, 40, satellitetest.Options{Keep: satellitetest.KeepNone})
	var ids []registry.ID
	for _, sat := range fleet {
		ids = append(ids, s.register(sat))
	}
	for _, id := range ids {
		if f := s.pings(id, "it is pinged", answered(1)); f.Count != 1 {
			t.Errorf("%s: got %+v, want one ping", id, f)
		}
	}
	if got := fleet.Stats().Pings; got != uint64(len(fleet)) {
		t.Errorf("got %d pings, want one each of %d satellites", got, len(fleet))
	}
}

func count(p *Pinger) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, pt := range p.parts {
		if pt != nil {
			n++
		}
	}
	return n
}

func TestHangingSatellitesLeaveRoomForTheOthers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	cfg := rarely()
	cfg.Timeout, cfg.Concurrency = 2*time.Second, 4
	s.start(cfg)
	hang := satellitetest.Behaviour{Mode: satellitetest.Hang}
	var ids []registry.ID
	for _, sat := range satellitetest.StartFleet(t, 10, satellitetest.Options{Behaviour: hang}) {
		ids = append(ids, s.register(sat))
	}
	for _, id := range ids {
		s.wantHint(id, cluster.HintCloseIdle)
	}
	// All of them are failing or about to: from now on two places are free.
	id := s.register(satellitetest.Start(t, satellitetest.Options{}))
	s.pings(id, "the healthy one is pinged", answered(1))
}

func TestWrongConfigurationIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	err := Config{}.Validate()
	for _, flag := range []string{"--ping-interval", "--ping-timeout", "--ping-concurrency"} {
		if err == nil || !strings.Contains(err.Error(), flag+": ") {
			t.Errorf("got %v, want it to name %s", err, flag)
		}
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the defaults: got %v, want nil", err)
	}
	if _, err := New(Config{}, nil, nil, nil, nil); !errors.Is(err, err) || err == nil {
		t.Errorf("New: got %v, want the same error", err)
	}
}
