package pinger

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
	"github.com/co2relay/co2relay/registry"
	"github.com/co2relay/co2relay/satellite/satellitetest"
)

const patience = time.Minute

// site is a broker with a registry, and what the pingers on it said.
type site struct {
	t      *testing.T
	server *cluster.Server
	clus   *cluster.Cluster
	reg    *registry.Registry

	mu     sync.Mutex
	events []cluster.Event
	hints  []cluster.Hint
	onHint func(cluster.Hint)
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, server: clustertest.StartServer(t, t.TempDir())}
	s.clus = clustertest.Connect(t, s.server)
	s.reg = s.registry(s.clus)
	s.follow(func(ctx context.Context) error {
		return s.clus.Events(ctx, time.Now().Add(-time.Hour), func(e cluster.Event) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if e.Satellite != "" {
				s.events = append(s.events, e)
			}
		})
	})
	cancel, err := s.clus.OnHint("test", func(p int, h cluster.Hint) {
		s.mu.Lock()
		s.hints = append(s.hints, h)
		on := s.onHint
		s.mu.Unlock()
		if want := cluster.PartitionOf(h.Satellite); p != want {
			t.Errorf("hint %s came for partition %d, want %d", h.Kind, p, want)
		}
		if on != nil {
			on(h)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cancel)
	return s
}

// follow runs something until the test ends, or until stop.
func (s *site) follow(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("ended with %v, want nil", err)
		}
	})
	s.t.Cleanup(stop)
	return stop
}

func (s *site) registry(c *cluster.Cluster) *registry.Registry {
	r := registry.New(c, clustertest.Logger(s.t))
	s.follow(r.Run)
	return r
}

// rarely is a pinger that pings new and failing satellites only, as far as a
// test can tell. Each satellite has its own moment of every interval: of an
// hour, one of 40 has it within a given second in one run of 90. And on a busy
// machine a registration's hint may come long after the ping.
func rarely() Config {
	cfg := DefaultConfig()
	cfg.Interval = 10 * 365 * 24 * time.Hour
	cfg.pingedLately = time.Hour
	return cfg
}

// start runs a pinger with a connection and a view of its own, as a process
// would.
func (s *site) start(cfg Config) (p *Pinger, stop func()) {
	s.t.Helper()
	cfg.Name = "p"
	c := clustertest.Connect(s.t, s.server)
	p, err := New(cfg, clustertest.Logger(s.t), c, s.registry(c), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return p, s.follow(p.Run)
}

// owns waits until the pingers own all partitions and pause has passed.
func (s *site) owns(pingers ...*Pinger) {
	s.t.Helper()
	eventually(s.t, "all partitions are owned and loaded", func() bool {
		n := 0
		for _, p := range pingers {
			p.mu.Lock()
			for _, pt := range p.parts {
				if pt != nil && pt.targets != nil {
					n++
				}
			}
			p.mu.Unlock()
		}
		return n == cluster.Partitions
	})
}

func (s *site) register(sat *satellitetest.Satellite) registry.ID { return s.registerAddr(sat.Addr()) }

func (s *site) registerAddr(addr netip.AddrPort) registry.ID {
	s.t.Helper()
	got, _, err := s.reg.Register(s.t.Context(), registry.Registration{Addr: addr, Nick: "nick of " + addr.String()})
	if err != nil {
		s.t.Fatal(err)
	}
	// As the frontend does.
	s.clus.Hint(got.ID.Partition(), cluster.Hint{Kind: cluster.HintRegistered, Satellite: string(got.ID), Revision: got.Revision})
	return got.ID
}

func (s *site) figures(id registry.ID) registry.Ping {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	f, err := s.reg.Figures(ctx, id)
	if err != nil {
		s.t.Fatal(err)
	}
	return f.Ping
}

// pings waits until a satellite's stored figures satisfy ok.
func (s *site) pings(id registry.ID, what string, ok func(registry.Ping) bool) registry.Ping {
	s.t.Helper()
	var f registry.Ping
	eventually(s.t, what, func() bool {
		f = s.figures(id)
		return ok(f)
	})
	return f
}

func (s *site) event(id registry.ID, kind string) cluster.Event {
	s.t.Helper()
	var found cluster.Event
	eventually(s.t, "an event "+kind+" of "+string(id), func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, e := range s.events {
			if e.Kind == kind && e.Satellite == string(id) {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

func (s *site) hinted(id registry.ID, kind string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, h := range s.hints {
		if h.Kind == kind && h.Satellite == string(id) {
			n++
		}
	}
	return n
}

func (s *site) wantHint(id registry.ID, kind string) {
	s.t.Helper()
	eventually(s.t, "a hint "+kind, func() bool { return s.hinted(id, kind) > 0 })
}

// wantReason checks an unreachable event.
func (s *site) wantReason(id registry.ID, parts ...string) {
	s.t.Helper()
	e := s.event(id, kindUnreachable)
	for _, part := range append(parts, string(id)) {
		if !strings.Contains(e.Reason, part) {
			s.t.Errorf("got reason %q, want it to contain %q", e.Reason, part)
		}
	}
	if e.Nick != "nick of "+string(id) || e.Partition != id.Partition() || e.Count != 1 {
		s.t.Errorf("got event %+v, want nick, partition and count 1", e)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
