package frontend

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster/clustertest"
	"github.com/co2relay/co2relay/internal/xmlrpc"
	"github.com/co2relay/co2relay/registry"
)

func TestASenderThatRelaysTooMuchIsToldWhenToGoOn(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.RateLimit, c.RateBurst = 0.001, 3 })
	c := r.from("")
	a, b := c.register(9000), c.register(9001)
	for range 3 {
		c.must("relay.relay", str("host_id", a, "data", 1))
	}
	text := c.mustFault(xmlrpc.CodeRegistry, "rate exceeded: '"+a+"' may relay 0.001 times a second here, and 3 times at once", "relay.relay", str("host_id", a, "data", 1))
	if !strings.HasPrefix(text, "registry.Co2RegistryError:") || !strings.Contains(text, "send it again in ") {
		t.Errorf("got %q, want a Co2RegistryError that says when to go on", text)
	}
	c.must("relay.relay", str("host_id", b, "data", 1)) // another sender is not concerned
	c.must("relay.get_num_satellites")                  // nor are other methods
	if got := logged(t, r.clus); len(got) != 4 {
		t.Errorf("log has %d messages, want the 4 accepted", len(got))
	}
}

func TestTheLimiterIsOffByDefault(t *testing.T) {
	t.Parallel()
	l := newLimiter(DefaultConfig().RateLimit, DefaultConfig().RateBurst)
	if _, ok := l.allow("127.0.0.1:1"); l != nil || !ok {
		t.Errorf("got %+v, want none, which allows everything", l)
	}
}

func TestTheLimiterRefillsAndIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	l := newLimiter(2, 0)
	l.now, l.most = func() time.Time { return now }, 10
	take := func(id registry.ID, want bool) time.Duration {
		t.Helper()
		wait, ok := l.allow(id)
		if ok != want {
			t.Errorf("%s: got %v, want %v", id, ok, want)
		}
		return wait
	}
	take("a", true)
	take("a", true) // the burst is as much as the rate unless it is said
	if wait := take("a", false); wait != 500*time.Millisecond {
		t.Errorf("wait: got %s, want 500ms", wait)
	}
	now = now.Add(500 * time.Millisecond)
	take("a", true)
	take("a", false)
	now = now.Add(-time.Hour) // a clock set back gives and takes nothing
	take("a", false)
	now = now.Add(time.Hour)
	for i := range 1000 {
		take(registry.ID(fmt.Sprint(i)), true)
		if len(l.by) > 10 {
			t.Fatalf("remembers %d senders, want 10 at most", len(l.by))
		}
	}
}

func TestRateFlagsAreValidated(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rate  float64
		burst int
		flag  string
	}{{-1, 0, "--rate-limit"}, {1e9, 0, "--rate-limit"}, {1, -1, "--rate-burst"}, {0, 5, "--rate-burst"}, {0.5, 0, ""}, {10, 100, ""}} {
		cfg := DefaultConfig()
		cfg.RateLimit, cfg.RateBurst = c.rate, c.burst
		err := cfg.Validate()
		if (err != nil) != (c.flag != "") || err != nil && !strings.Contains(err.Error(), c.flag+": ") {
			t.Errorf("%+v: got %v, want it to name %q", c, err, c.flag)
		}
	}
}

// Issue 3, item 4.
func TestADedupIDWorksAcrossFrontends(t *testing.T) {
	t.Parallel()
	s := clustertest.StartServer(t, t.TempDir())
	one, other := startOn(t, clustertest.Connect(t, s), nil), startOn(t, clustertest.Connect(t, s), nil)
	id := one.from("").register(9000)
	message := func(dedup string) xmlrpc.Value { return str("host_id", id, "data", 1, "dedup_id", dedup) }
	one.from("").must("relay.relay", message("x"))
	other.from("").must("relay.relay", message("x")) // answered OK too: it is in the log
	other.from("").must("relay.relay", message("y"))
	one.from("").must("relay.relay", message("y"))
	if got := logged(t, one.clus); len(got) != 2 {
		t.Errorf("log has %d messages, want 2", len(got))
	}
}
