package frontend

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/co2relay/co2relay/cluster/clustertest"
	"github.com/co2relay/co2relay/registry"
)

func TestATrustedProxysNameIsLookedUpAgain(t *testing.T) {
	t.Parallel()
	p, err := newProxies([]string{"10.0.0.0/8", "haproxy", "lb.example.org"}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	var now, lookups atomic.Int64 // now is the last byte of haproxy's address, 0 when it has none
	var hanging atomic.Int64
	var hang atomic.Bool
	answers := make(chan struct{})
	p.lookup = func(_ context.Context, name string) ([]netip.Addr, error) {
		lookups.Add(1)
		if hang.Load() {
			hanging.Add(1)
			<-answers
		}
		if name != "haproxy" || now.Load() == 0 {
			return nil, errors.New("no such host")
		}
		return []netip.Addr{netip.AddrFrom16(netip.AddrFrom4([4]byte{192, 0, 2, byte(now.Load())}).As16())}, nil
	}
	addr := netip.MustParseAddr
	trusts := func(a string) bool { return p.trusts(t.Context(), addr(a)) }
	if !p.knows(addr("10.1.2.3")) || lookups.Load() != 0 {
		t.Errorf("an address of a network: got not trusted or %d look-ups, want trusted without", lookups.Load())
	}
	now.Store(1)
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	defer following.Wait()
	defer cancel()
	answer := sync.OnceFunc(func() { close(answers) })
	defer answer()
	following.Go(func() { p.follow(ctx) })
	if !trusts("192.0.2.1") || trusts("192.0.2.9") {
		t.Error("got another address than haproxy's trusted, want only 192.0.2.1")
	}
	now.Store(2)
	eventually(t, "the new address is trusted", func() bool { return trusts("192.0.2.2") })
	if trusts("192.0.2.1") {
		t.Error("the old address is trusted still")
	}
	now.Store(0) // the DNS is away: what was known stays
	before := lookups.Load()
	eventually(t, "the names are looked up again", func() bool {
		return !trusts("192.0.2.1") && lookups.Load() >= before+2*int64(len(p.names))
	})
	if !trusts("192.0.2.2") {
		t.Error("a failed look-up changed what is trusted")
	}
	hang.Store(true) // it does not answer: only who is unknown waits for it
	asks, stop := context.WithCancel(t.Context())
	following.Go(func() {
		for asks.Err() == nil {
			p.trusts(asks, addr("192.0.2.3"))
		}
	})
	eventually(t, "both look-ups hang", func() bool { return hanging.Load() == int64(len(p.names)) })
	stop()
	if p.knows(addr("192.0.2.3")) || !trusts("192.0.2.2") {
		t.Error("a look-up that hangs changed what is trusted")
	}
	now.Store(3)
	answer()
	eventually(t, "the new address is trusted after that", func() bool { return trusts("192.0.2.3") })
}

func TestALookUpOfAProxysNameHoldsUpNoOtherConnection(t *testing.T) {
	t.Parallel()
	clus := clustertest.Start(t)
	answers := make(chan struct{})
	answer := sync.OnceFunc(func() { close(answers) })
	defer answer()
	r := startWith(t, clus, registry.New(clus, clustertest.Logger(t)), func(c *Config) { c.TrustedProxies = []string{"haproxy", "127.0.0.2"} }, func(f *Frontend) {
		f.trusted.lookup = func(context.Context, string) ([]netip.Addr, error) {
			<-answers
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}
	})
	call := "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + post11(pingDoc, "")
	unknown := []*raw{r.raw(t).send(call), r.raw(t).send(call)}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	nc, err := dialer.Dial("tcp", r.addr)
	if err != nil && runtime.GOOS != "linux" {
		t.Skipf("SKIPPED: this system has no address 127.0.0.2: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	known := &raw{nc, t, bufio.NewReader(nc)}
	for _, c := range append([]*raw{known.send(call)}, unknown...) {
		if resp, body := c.answer(); resp.StatusCode != 200 || !strings.Contains(body, "pong") {
			t.Errorf("got %d %q, want pong", resp.StatusCode, body)
		}
		answer() // the first did without; the others are a proxy's that has just come up
	}
}

func TestTrustedProxiesAreReadStrictly(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"10.0.0", "10.0.0.0/33", "1234", "a b", "-x", "x..y", "haproxy:2003", "http://haproxy"} {
		if _, err := newProxies([]string{bad}, nil); err == nil {
			t.Errorf("%q: got no fault, want one", bad)
		}
	}
	for _, good := range []string{"", "::1", "2001:db8::/32", "haproxy", "my_stack-haproxy.1.net", "a1"} {
		if _, err := newProxies([]string{good}, nil); err != nil {
			t.Errorf("%q: got %v, want no fault", good, err)
		}
	}
}
