package frontend

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestATrustedProxysNameIsLookedUpAgain(t *testing.T) {
	t.Parallel()
	p, err := newProxies([]string{"10.0.0.0/8", "haproxy", "lb.example.org"}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	var now, lookups atomic.Int64 // now is the last byte of haproxy's address, 0 when it has none
	p.lookup = func(_ context.Context, name string) ([]netip.Addr, error) {
		lookups.Add(1)
		if name != "haproxy" || now.Load() == 0 {
			return nil, errors.New("no such host")
		}
		return []netip.Addr{netip.AddrFrom16(netip.AddrFrom4([4]byte{192, 0, 2, byte(now.Load())}).As16())}, nil
	}
	trusts := func(a string) bool { return p.trusts(t.Context(), netip.MustParseAddr(a)) }
	if !trusts("10.1.2.3") || lookups.Load() != 0 {
		t.Errorf("an address of a network: got not trusted or %d look-ups, want trusted without", lookups.Load())
	}
	now.Store(1)
	if !trusts("192.0.2.1") || trusts("192.0.2.9") {
		t.Error("got another address than haproxy's trusted, want only 192.0.2.1")
	}
	now.Store(2)
	deadline := time.Now().Add(10 * time.Second)
	for !trusts("192.0.2.2") {
		if time.Now().After(deadline) {
			t.Fatal("the new address is not trusted after 10 s")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if trusts("192.0.2.1") {
		t.Error("the old address is trusted still")
	}
	now.Store(0) // the DNS is away: what was known stays
	p.tried = time.Time{}
	if trusts("192.0.2.1") || !trusts("192.0.2.2") {
		t.Error("a failed look-up changed what is trusted")
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
