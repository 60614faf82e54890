package delivery

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
	"github.com/co2relay/co2relay/registry"
	"github.com/co2relay/co2relay/satellite/satellitetest"
)

// bed is a broker, a registry and any number of workers of this process.
type bed struct {
	t    *testing.T
	clus *cluster.Cluster
	reg  *registry.Registry
	cfg  Config

	lapses atomic.Int64 // of its workers' leases, and releases that took more than one try
}

func newBed(t *testing.T) *bed {
	t.Helper()
	return newBedOn(t, clustertest.Start(t))
}

func newBedOn(t *testing.T, clus *cluster.Cluster) *bed {
	t.Helper()
	b := &bed{t: t, clus: clus, reg: registry.New(clus, clustertest.Logger(t)), cfg: DefaultConfig()}
	b.cfg.Sole, b.cfg.Connections = true, 1000
	b.cfg.RetryBase, b.cfg.RetryCap = 20*time.Millisecond, 200*time.Millisecond
	b.cfg.NotifyTimeout = time.Minute // on a busy machine a healthy satellite may take seconds
	b.background(b.reg.Run)
	<-b.reg.Ready()
	return b
}

// background runs a loop until the test ends or stop is called.
func (b *bed) background(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("background loop: %v", err)
		}
	})
	b.t.Cleanup(stop)
	return stop
}

func (b *bed) worker() (w *Worker, stop func()) {
	b.t.Helper()
	cfg := b.cfg
	cfg.Name = "test"
	w, err := New(cfg, b.logger(), b.clus, b.reg, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	stop = b.background(w.Run)
	b.eventually("the worker owns every partition", func() bool { return w.owned.Load() == cluster.Partitions })
	return w, stop
}

// logger counts lapses beside what clustertest's does.
func (b *bed) logger() hclog.Logger {
	return clustertest.WatchedLogger(b.t, func(line string) {
		if strings.Contains(line, "lease lapsed") || strings.Contains(line, "writing down released partitions failed") {
			b.lapses.Add(1)
		}
	})
}

func (b *bed) register(s *satellitetest.Satellite, pass string) *registry.Satellite {
	b.t.Helper()
	return b.registerAt(s.Addr(), pass)
}

func (b *bed) registerAt(addr netip.AddrPort, pass string) *registry.Satellite {
	b.t.Helper()
	sat, _, err := b.reg.Register(b.t.Context(), registry.Registration{Addr: addr, NotifyPass: registry.Secret(pass)})
	if err != nil {
		b.t.Fatalf("register %s: %v", addr, err)
	}
	return sat
}

// publish relays n messages in sender's name and returns their number in all.
func (b *bed) publish(sender registry.ID, n int) {
	b.t.Helper()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 64)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := b.publishOne(sender, fmt.Sprint(i)); err != nil {
				b.t.Errorf("publish: %v", err)
			}
		})
	}
	wg.Wait()
}

func (b *bed) publishOne(sender registry.ID, data string) error {
	return b.clus.Log().Publish(b.t.Context(), cluster.Message{Sender: string(sender), Body: members(sender, data)})
}

func members(sender registry.ID, data string) string {
	return "<member><name>host_id</name><value><string>" + string(sender) + "</string></value></member>" +
		"<member><name>data</name><value><string>" + data + "</string></value></member>"
}

// patience is long because the simulation takes a whole core beside the other
// tests: there each change of goroutine may take a time slice.
const patience = 2 * time.Minute

func (b *bed) eventually(what string, ok func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			b.t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// wantAll waits until a satellite has n different messages, while they come, and
// checks promise 2: all of them, in order, one call at a time.
func (b *bed) wantAll(s *satellitetest.Satellite, n int) {
	b.t.Helper()
	st, grown := s.Stats(), time.Now()
	for st.Distinct < uint64(n) {
		if time.Since(grown) > patience {
			b.t.Fatalf("satellite %s has %+v, want %d messages", s.ID(), st, n)
		}
		time.Sleep(2 * time.Millisecond)
		before := st.Distinct
		if st = s.Stats(); st.Distinct > before {
			grown = time.Now()
		}
	}
	if st.Distinct != uint64(n) || st.OutOfOrder != 0 || st.Overlapping != 0 || st.Malformed != 0 || st.NoMsgID != 0 || st.WrongPass != 0 {
		b.t.Errorf("satellite %s: got %+v, want %d in order", s.ID(), st, n)
	}
	if ids := s.IDs(); !slices.IsSorted(ids) {
		b.t.Errorf("satellite %s: ids not in order", s.ID())
	}
}

// noRepeats checks promise 3. A lease that lapses, because the machine stood
// still for seconds, gives up the one call of each satellite that is under way.
func (b *bed) noRepeats(sats ...*satellitetest.Satellite) {
	b.t.Helper()
	most := uint64(b.lapses.Load())
	for _, s := range sats {
		if got := s.Stats().Repeats; got > most {
			b.t.Errorf("satellite %s: got %d repeats, want at most %d", s.ID(), got, most)
		}
	}
}

// balance waits until nothing is owed and checks promise 6 for the whole.
func (b *bed) balance(want registry.Totals) {
	b.t.Helper()
	var got registry.Totals
	b.eventually("the figures balance: "+fmt.Sprintf("%+v", want), func() bool {
		got = registry.Totals{}
		for p := range cluster.Partitions {
			r, _, err := b.reg.LoadTraffic(b.t.Context(), p)
			if err != nil {
				b.t.Fatal(err)
			}
			got.Recipients += r.Totals.Recipients
			got.Delivered += r.Totals.Delivered
			got.Refused += r.Totals.Refused
			got.Expired += r.Totals.Expired
			got.Dropped += r.Totals.Dropped
		}
		return got == want
	})
}

func contains(t *testing.T, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("%q is not in %q", part, text)
	}
}

func mustAddr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
