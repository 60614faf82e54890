package frontend

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/co2relay/co2relay/cluster/clustertest"
	"github.com/co2relay/co2relay/registry"
)

func TestValidateReportsEveryFaultByItsFlag(t *testing.T) {
	t.Parallel()
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("defaults: got %v, want nil", err)
	}
	err := Config{TrustedProxies: []string{"10.0.0.0/99", "proxy.example"}, Origins: []string{"relay.example"}, DrainDelay: -1}.Validate()
	if err == nil {
		t.Fatal("got nil, want faults")
	}
	for _, flag := range []string{
		"trusted-proxies", "origins", "publish-timeout", "header-timeout", "body-timeout", "idle-timeout", "drain-timeout", "drain-delay",
		"max-body", "max-inflated", "max-depth", "max-values", "max-name", "max-answer", "max-header", "max-conns-per-addr", "body-budget",
	} {
		if !strings.Contains("\n"+err.Error(), "\n--"+flag+": ") && flag != "body-budget" {
			t.Errorf("no fault of --%s in %q", flag, err)
		}
	}
	cfg := DefaultConfig()
	cfg.MaxAnswer, cfg.MaxConns = 1<<30, -1
	err = cfg.Validate()
	for _, flag := range []string{"body-budget", "max-conns"} {
		if err == nil || !strings.Contains("\n"+err.Error(), "\n--"+flag+": ") {
			t.Errorf("no fault of --%s in %v", flag, err)
		}
	}
}

func TestNewRefusesASecondFrontendOnTheSameMetrics(t *testing.T) {
	t.Parallel()
	clus := clustertest.Start(t)
	metrics := prometheus.NewRegistry()
	reg := registry.New(clus, clustertest.Logger(t))
	if _, err := New(DefaultConfig(), clustertest.Logger(t), reg, clus, metrics); err != nil {
		t.Fatalf("first: %v", err)
	}
	if _, err := New(DefaultConfig(), clustertest.Logger(t), reg, clus, metrics); err == nil {
		t.Error("second: got nil, want an error")
	}
	if _, err := New(Config{}, clustertest.Logger(t), reg, clus, nil); err == nil {
		t.Error("no configuration: got nil, want an error")
	}
}

// TestFramingDoesNotDependOnHowBytesArrive feeds the same bytes in pieces.
func TestFramingDoesNotDependOnHowBytesArrive(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct{ bad, coded bool }{
		strings.Repeat(post11(pingDoc, ""), 3):                                                 {},
		post11("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", ""):                  {},
		"GET / HTTP/1.1\nHost: x\n\n" + post11(pingDoc, "TE: trailers\r\n"):                    {},
		post11(pingDoc, "") + "\r\nPOST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\n": {coded: true},
		post11(pingDoc, "Transfer-Encoding: chunked\r\n"):                                      {bad: true},
		post11(pingDoc, "") + post11(pingDoc, "TRANSFER-ENCODING:x\r\n"):                       {bad: true},
		"POST / HTTP/1.1\r\nX: a\r\n\tb\r\n\r\n":                                               {bad: true},
		"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello":               {},
		"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nhello":               {bad: true},
		"POST / HTTP/1.1\r\nContent-Length:" + strings.Repeat(" ", 100) + "5\r\n\r\nhello":     {bad: true},
		"POST / HTTP/1.1\r\nX-" + strings.Repeat("x", 5000) + ": y\r\nContent-Length: 1\r\n":   {},
	} {
		for seed := range uint64(20) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			var f framing
			for rest := []byte(text); len(rest) > 0; {
				n := min(1+rnd.IntN(40), len(rest))
				f.feed(rest[:n])
				rest = rest[n:]
			}
			if f.bad.Load() != want.bad || f.coded.Load() != want.coded {
				t.Errorf("%.60q in pieces (seed %d): got bad %t, coded %t, want %t, %t", text, seed, f.bad.Load(), f.coded.Load(), want.bad, want.coded)
			}
		}
		var f framing
		f.feed([]byte(text))
		if f.bad.Load() != want.bad || f.coded.Load() != want.coded {
			t.Errorf("%.60q: got bad %t, coded %t, want %t, %t", text, f.bad.Load(), f.coded.Load(), want.bad, want.coded)
		}
	}
}

func TestTheBudgetIsSharedFairly(t *testing.T) {
	t.Parallel()
	p := newPool(100)
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	releaseA, err := p.take(context.Background(), a, 1000) // no more than half, however much is asked
	if err != nil {
		t.Fatalf("first: %v", err)
	}
	if _, err := p.take(ctx, a, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("second of the same address: got %v, want that it waits", err)
	}
	releaseB, err := p.take(context.Background(), b, 50)
	if err != nil {
		t.Fatalf("other address: %v", err)
	}
	if _, err := p.take(ctx, netip.Addr{}, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("when all is taken: got %v, want that it waits", err)
	}
	releaseA()
	releaseB()
	if len(p.by) != 0 {
		t.Errorf("%d addresses are remembered, want none", len(p.by))
	}
}

func TestTheRateLimitForgetsAndRefills(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	l := newRateLimit()
	l.now = func() time.Time { return now }
	a := netip.MustParseAddr("10.0.0.1")
	n := 0
	for l.allow(a) {
		n++
	}
	if n != int(lookupBurst) {
		t.Errorf("burst: got %d, want %d", n, int(lookupBurst))
	}
	if now = now.Add(time.Second); !l.allow(a) {
		t.Error("no token after a second")
	}
	for i := range uint32(maxBuckets) {
		l.allow(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if len(l.by) > maxBuckets {
		t.Errorf("%d addresses remembered, want %d at most", len(l.by), maxBuckets)
	}
	if l.allow(netip.MustParseAddr("12.0.0.1")) {
		t.Error("an address beyond the table's size was allowed, want it refused")
	}
	if now = now.Add(time.Minute); !l.allow(netip.MustParseAddr("12.0.0.1")) {
		t.Error("refused after the others' buckets had filled again")
	}
}

func TestHostFilesAreRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for got, want := range map[string]string{
		cpuModel(file("x86", "processor\t: 0\nmodel name\t: Fast CPU\n")):                         "Fast CPU",
		cpuModel(file("arm", "processor\t: 0\nBogoMIPS\t: 38.40\n\nModel\t\t: Raspberry Pi 4\n")): "Raspberry Pi 4",
		cpuModel(filepath.Join(dir, "none")) + "-":                                                "-",
		osRelease(file("os", "NAME=\"X\"\nPRETTY_NAME=\"X 1 (y)\"\n")):                            "X 1 (y)",
		firstLine(filepath.Join(dir, "none"), file("dmi", "\nBox 5\x00\n")):                       "Box 5",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestMetricsCountCallsAndRelays(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	c := r.from("")
	id := c.register(9000)
	c.must("relay.relay", str("host_id", id, "data", 1))
	c.must("ping")
	c.call("relay.relay", str("host_id", "10.0.0.1:1", "data", 1))
	c.call("nope.nope")
	c.post([]byte("<"))
	for name, want := range map[string]float64{
		"co2_frontend_calls_total relay ok":                1 + 1, // register and relay
		"co2_frontend_calls_total relay registry_fault":    1,
		"co2_frontend_calls_total top ok":                  1,
		"co2_frontend_calls_total unknown no_such_method":  1,
		"co2_frontend_calls_total unknown not_well_formed": 1,
		"co2_frontend_relays_total accepted":               1,
		"co2_frontend_relays_total not_registered":         1,
		"co2_frontend_connections":                         1,
		"co2_frontend_relay_accept_seconds":                1,
	} {
		if got := r.metric(name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

// metric gives a metric by its name and the values of its labels; of a
// histogram the count.
func (r *relayUnderTest) metric(name string) float64 {
	r.t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		r.t.Fatalf("gather metrics: %v", err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			full := family.GetName()
			for _, l := range m.GetLabel() {
				full += " " + l.GetValue()
			}
			if full == name {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	r.t.Fatalf("there is no metric %s", name)
	return 0
}
