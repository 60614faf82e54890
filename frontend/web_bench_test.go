package frontend

import (
	"context"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
	"github.com/co2relay/co2relay/internal/recent"
	"github.com/co2relay/co2relay/registry"
)

// BenchmarkPages measures the server's time for pages of the table of
// satellites when everything is read anew ("cold", at most once a second,
// whatever the number of browsers), and when it was read just before:
// go test -run xxx -bench Pages -benchtime 20x ./frontend
func BenchmarkPages(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkPages(b, n) })
	}
}

func benchmarkPages(b *testing.B, n int) {
	clus := clustertest.ConnectWith(b, clustertest.StartServer(b, b.TempDir()), cluster.Layout{MaxSats: n})
	reg := registry.New(clus, clustertest.Logger(b))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- reg.Run(ctx) }()
	<-reg.Ready()
	var g errgroup.Group
	g.SetLimit(64)
	for i := range n {
		g.Go(func() error {
			_, _, err := reg.Register(ctx, registry.Registration{
				Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 9000), Nick: fmt.Sprintf("satellite %d", i*7919%n),
			})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	for reg.Len() < n {
		time.Sleep(10 * time.Millisecond)
	}
	saveAll(b, reg)
	cfg := DefaultConfig()
	f, err := New(cfg, clustertest.Logger(b), reg, clus, nil)
	if err != nil {
		b.Fatal(err)
	}
	get := func(query string) {
		w := httptest.NewRecorder()
		f.serveWeb(w, httptest.NewRequest("GET", "/satellites"+query, nil))
		if w.Code != 200 || w.Body.Len() < 30_000 {
			b.Fatalf("got %d, %d bytes", w.Code, w.Body.Len())
		}
	}
	b.Run("cold", func(b *testing.B) {
		for range b.N {
			b.StopTimer()
			time.Sleep(600 * time.Millisecond) // the registry's own cache
			f.roster = recent.New(0, f.loadRoster)
			b.StartTimer()
			get("")
		}
	})
	for _, x := range []struct{ name, query string }{
		{"warm", ""}, {"last page", "?page=99999"}, {"search", "?q=satellite+77"}, {"sorted", "?sort=received&dir=down"}, {"state", "?state=live"},
	} {
		b.Run(x.name, func(b *testing.B) {
			f.roster = recent.New(time.Hour, f.loadRoster)
			get(x.query)
			for b.Loop() {
				get(x.query)
			}
		})
	}
	// The first who sorts by a column does it for all.
	b.Run("sorts", func(b *testing.B) {
		for b.Loop() {
			r, _ := f.roster.Get(ctx)
			clear(r.sorted)
			get("?sort=received&dir=down")
		}
	})
	cancel()
	<-ended
}

// saveAll writes figures for every satellite.
func saveAll(b *testing.B, reg *registry.Registry) {
	b.Helper()
	traffic := map[int]*registry.TrafficRecord{}
	pings := map[int]*registry.PingRecord{}
	for _, s := range reg.All() {
		p := s.ID.Partition()
		if traffic[p] == nil {
			traffic[p], pings[p] = &registry.TrafficRecord{Partition: p, ReadTo: s.Began + 1000}, &registry.PingRecord{Partition: p}
		}
		traffic[p].Satellites = append(traffic[p].Satellites, registry.Traffic{
			ID: s.ID, Generation: s.Generation, Position: s.Began + 1000, Sent: 7, Received: 990, ReceivedAt: time.Now(), State: registry.StateLive,
		})
		x := registry.Ping{ID: s.ID, Generation: s.Generation, Count: 20, Current: 1.5, Min: 1, Max: 3, Sum: 40, At: time.Now()}
		for i := range registry.RecentPings {
			x.Remember(time.Duration(i+1) * time.Millisecond)
		}
		pings[p].Satellites = append(pings[p].Satellites, x)
	}
	for p := range traffic {
		if _, err := reg.SaveTraffic(b.Context(), *traffic[p], 0); err != nil {
			b.Fatal(err)
		}
		if _, err := reg.SavePing(b.Context(), *pings[p], 0); err != nil {
			b.Fatal(err)
		}
	}
}
