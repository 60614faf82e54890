package pinger

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/internal/caller"
	"github.com/co2relay/co2relay/registry"
)

func TestPingsAreSpreadEvenlyOverTheInterval(t *testing.T) {
	t.Parallel()
	p := &Pinger{cfg: DefaultConfig()}
	now := time.Now()
	const n, slots = 60_000, 60
	var counts [slots]int
	for i := range n {
		x := &target{sat: &registry.Satellite{ID: registry.ID(fmt.Sprintf("10.0.%d.%d:2003", i>>8, i&255))}}
		wait := p.pause(x, now)
		if wait <= 0 || wait > p.cfg.Interval {
			t.Fatalf("waits %s, want more than 0 and at most %s", wait, p.cfg.Interval)
		}
		if again := p.pause(x, now.Add(wait)); again != p.cfg.Interval {
			t.Fatalf("waits %s at its own moment, want the interval", again)
		}
		counts[int((wait-1)*slots/p.cfg.Interval)]++
	}
	for i, got := range counts {
		if want := n / slots; got < want*8/10 || got > want*12/10 {
			t.Errorf("second %d has %d pings, want about %d", i, got, want)
		}
	}
}

func TestFailingSatellitesAreRepeatedSoonerAndThenEachInterval(t *testing.T) {
	t.Parallel()
	p := &Pinger{cfg: DefaultConfig()}
	x := &target{sat: &registry.Satellite{ID: "10.0.0.2:2003"}}
	for failing, want := range []time.Duration{0, 1, 2, 4, 8, 16, 32} {
		got := p.backoff(uint32(failing))
		if want *= time.Second; got > want || got < want*9/10 {
			t.Errorf("after %d failures: waits %s, want 90%% to 100%% of %s", failing, got, want)
		}
	}
	for _, failing := range []uint32{7, 30, 31, 1 << 31} {
		x.fig.Failing = failing
		if got := p.pause(x, time.Now()); got > p.cfg.Interval {
			t.Errorf("after %d failures: waits %s, want at most the interval", failing, got)
		}
	}
}

func TestEventsAboutOneSatelliteAreFew(t *testing.T) {
	t.Parallel()
	x := &target{sat: &registry.Satellite{ID: "10.0.0.2:2003"}, part: &part{id: 3}}
	now := time.Now()
	var events []*cluster.Event
	tell := func(kind string, after time.Duration) {
		now = now.Add(after)
		if e := x.event(result{kind: kind, reason: "why"}, now, "me"); e != nil {
			events = append(events, e)
		}
	}
	check := func(want ...string) {
		t.Helper()
		var got []string
		for _, e := range events {
			got = append(got, fmt.Sprintf("%s %d", e.Kind, e.Count))
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
		events = nil
	}
	tell(resultReply, 0)
	check()
	for range 60 {
		tell(resultRefused, time.Second)
	}
	check("unreachable 1")
	for range 10 {
		tell(resultRefused, time.Minute)
	}
	check("unreachable 60", "unreachable 2", "unreachable 4")
	tell(resultReply, time.Second)
	tell(resultReply, time.Minute)
	check("reachable 0")
	for range 20 { // flapping: what is left out is made good later
		tell(resultRefused, time.Second)
		tell(resultReply, time.Second)
	}
	tell(resultReply, time.Minute)
	for _, e := range events {
		if e.Satellite != "10.0.0.2:2003" || e.Partition != 3 || e.Worker != "me" {
			t.Errorf("got event %+v", e)
		}
	}
	if len(events) > 4 || len(events) < 2 || events[len(events)-1].Kind != kindReachable {
		t.Errorf("got %d events of a flapping satellite, want 2 to 4, the last one that it is reachable", len(events))
	}
}

func TestFailuresAreExplained(t *testing.T) {
	t.Parallel()
	dial := func(err error) error { return &net.OpError{Op: "dial", Err: err} }
	read := func(err error) error { return &net.OpError{Op: "read", Err: err} }
	for _, c := range []struct {
		err  error
		kind string
		want string
	}{
		{dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)), resultRefused, "nothing listens"},
		{dial(os.ErrDeadlineExceeded), resultTimeout, "firewall"},
		{fmt.Errorf("call: %w", context.DeadlineExceeded), resultTimeout, "did not answer in time"},
		{dial(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), resultNoRoute, "no route"},
		{fmt.Errorf("tls: %w", x509.UnknownAuthorityError{}), resultTLS, "certificate"},
		{caller.ErrNotHTTP, resultNotHTTP, "another kind of server"},
		{caller.ErrTruncated, resultBroken, "broke"},
		{read(os.NewSyscallError("read", syscall.ECONNRESET)), resultBroken, "broke"},
		{fmt.Errorf("ended: %w", io.EOF), resultBroken, "broke"},
		{dial(os.NewSyscallError("socket", syscall.EMFILE)), resultLocal, ""},
		{errors.New("something else"), resultOther, "something else"},
	} {
		kind, reason := explain(netip.MustParseAddrPort("192.0.2.7:80"), c.err)
		if kind != c.kind || !strings.Contains(reason, c.want) || !strings.Contains(reason, "192.0.2.7:80") {
			t.Errorf("%v: got %s, %q; want %s with %q and the address", c.err, kind, reason, c.kind, c.want)
		}
		if strings.Contains(reason, "translation (as") {
			t.Errorf("%v: got %q for a public address", c.err, reason)
		}
	}
	_, reason := explain(netip.MustParseAddrPort("172.17.0.1:80"), dial(os.ErrDeadlineExceeded))
	if !strings.Contains(reason, "gateway of address translation") {
		t.Errorf("got %q, want it to name the gateway", reason)
	}
}

func TestGatewaysOfAddressTranslationAreKnown(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{
		"172.17.0.1": true, "172.18.0.1": true, "10.88.0.1": true, "192.168.122.1": true, "192.168.65.3": true,
		"10.0.2.2": true, "fd00:1::1": true,
		"172.17.0.2": false, "127.0.0.1": false, "8.8.8.1": false, "192.168.1.20": false, "2001:db8::1": false, "::1": false,
	} {
		if got := looksTranslated(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: got %v, want %v", addr, got, want)
		}
	}
}

func TestAHintThatOvertakesItsRegistrationPingsNobody(t *testing.T) {
	t.Parallel()
	later := time.Now().Add(time.Hour)
	id := registry.ID("127.0.0.1:80")
	for revision, want := range map[uint64]bool{0: true, 6: true, 7: true, 8: false} { // 0: of an older frontend
		p := &Pinger{wake: make(chan struct{}, 1)}
		pt := &part{ctx: t.Context()}
		x := &target{part: pt, place: -1, sat: &registry.Satellite{ID: id, Revision: 7}}
		pt.targets = map[registry.ID]*target{id: x}
		p.parts[id.Partition()] = pt
		p.plan(x, later)
		p.onHint(id.Partition(), cluster.Hint{Kind: cluster.HintRegistered, Satellite: string(id), Revision: revision})
		if got := x.at.Before(later); got != want {
			t.Errorf("hint of revision %d, the one known is 7: got pinged %v, want %v", revision, got, want)
		}
	}
}
