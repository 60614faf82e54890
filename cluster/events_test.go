package cluster_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
)

func TestEventsArriveOnceAndFromATimeOn(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t)
	ctx, cancel := context.WithCancel(testContext(t))
	start := time.Now()
	same := cluster.Event{Kind: "gap", Satellite: "127.0.0.1:1", First: "12", Last: "17", Count: 6, Time: start.Truncate(time.Minute).UTC()}
	c.Emit(same)
	c.Emit(same)
	c.Emit(cluster.Event{Kind: "registered", Satellite: "127.0.0.1:2", Nick: "n"})
	var mu sync.Mutex
	var got []cluster.Event
	done := make(chan error, 1)
	go func() {
		done <- c.Events(ctx, start.Add(-time.Hour), func(e cluster.Event) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, e)
		})
	}()
	count := func(n int) func() bool {
		return func() bool { mu.Lock(); defer mu.Unlock(); return len(got) >= n }
	}
	eventually(t, "two events", count(2))
	c.Emit(cluster.Event{Kind: "parked", Satellite: "127.0.0.1:2"})
	eventually(t, "an event that comes", count(3))
	cancel()
	if err := <-done; err != nil {
		t.Errorf("end of following: got %v, want nil", err)
	}
	kinds := got[0].Kind + got[1].Kind + got[2].Kind
	if kinds != "gapregisteredparked" || len(got) != 3 {
		t.Errorf("events: got %+v, want a gap, registered and parked", got)
	}
	if e := got[0]; e.Version != 1 || e.Count != 6 || e.First != "12" || !e.Time.Equal(same.Time) || got[1].Time.Before(start) {
		t.Errorf("event: got %+v, want %+v with a version and a time", e, same)
	}
	cancelled, cancel := context.WithCancel(testContext(t))
	cancel()
	if err := c.Events(cancelled, start, func(cluster.Event) {}); err != nil {
		t.Errorf("following that ended before it began: got %v, want nil", err)
	}
	later, cancel := context.WithTimeout(testContext(t), 300*time.Millisecond)
	defer cancel()
	if err := c.Events(later, time.Now().Add(time.Minute), func(e cluster.Event) { t.Errorf("event before its time: %+v", e) }); err != nil {
		t.Errorf("events from the future: %v", err)
	}
	if n := c.EventsDropped(); n != 0 {
		t.Errorf("dropped: got %d, want 0", n)
	}
}

func TestEmitNeverBlocks(t *testing.T) {
	t.Parallel()
	s := clustertest.StartServer(t, t.TempDir())
	c := clustertest.Connect(t, s)
	s.Close()
	for range 5000 {
		c.Emit(cluster.Event{Kind: "registered"})
	}
	if c.EventsDropped() == 0 {
		t.Error("dropped: got none, want those that found no room to be counted")
	}
}

func TestHintsReachEveryListener(t *testing.T) {
	t.Parallel()
	s := clustertest.StartServer(t, t.TempDir())
	one, other := clustertest.Connect(t, s), clustertest.Connect(t, s)
	type hint struct {
		partition int
		h         cluster.Hint
	}
	got := make(chan hint, 10)
	for _, c := range []*cluster.Cluster{one, other} {
		cancel, err := c.OnHint("delivery", func(p int, h cluster.Hint) { got <- hint{p, h} })
		if err != nil {
			t.Fatalf("listen: %v", err)
		}
		defer cancel()
		eventually(t, "the subscription to reach the broker", func() bool { return c.Ready() == nil })
	}
	one.Hint(17, cluster.Hint{Kind: cluster.HintAlive, Satellite: "127.0.0.1:1"})
	for range 2 {
		if h := <-got; h.partition != 17 || h.h.Kind != cluster.HintAlive || h.h.Satellite != "127.0.0.1:1" {
			t.Errorf("hint: got %+v", h)
		}
	}
}
