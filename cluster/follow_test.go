package cluster_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
)

// eventually waits for a condition.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// collector follows the log and checks the order.
type collector struct {
	t       testing.TB
	mu      sync.Mutex
	entries []cluster.Entry
	err     error
	ended   chan struct{}
	stop    context.CancelFunc
}

func follow(t testing.TB, c *cluster.Cluster, from uint64) *collector {
	ctx, cancel := context.WithCancel(context.Background())
	k := &collector{t: t, ended: make(chan struct{}), stop: cancel}
	go func() {
		defer close(k.ended)
		k.err = c.Log().Follow(ctx, from, k.take)
	}()
	t.Cleanup(func() { cancel(); <-k.ended })
	return k
}

func (k *collector) take(entries []cluster.Entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range entries {
		if n := len(k.entries); n > 0 && e.Seq <= k.entries[n-1].Seq {
			k.t.Errorf("order: got %d after %d", e.Seq, k.entries[n-1].Seq)
		}
		k.entries = append(k.entries, e)
	}
}

func (k *collector) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.entries)
}

func (k *collector) has(n int) func() bool { return func() bool { return k.count() >= n } }

func publishMany(t testing.TB, c *cluster.Cluster, from, to int) {
	t.Helper()
	ctx := testContext(t)
	var wg sync.WaitGroup
	for i := from; i < to; i++ {
		wg.Go(func() {
			if err := c.Log().Publish(ctx, cluster.Message{Sender: "a", Body: strconv.Itoa(i)}); err != nil {
				t.Errorf("publish %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

func TestFollowHandsOutWhatStandsAndWhatComes(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t)
	first := startOf(t, c)
	publishMany(t, c, 0, 300)
	k := follow(t, c, first)
	late := follow(t, c, first+300)
	eventually(t, "what stood", k.has(300))
	publishMany(t, c, 300, 600)
	eventually(t, "what came", k.has(600))
	eventually(t, "what comes from a later position on", late.has(300))
	k.stop()
	<-k.ended
	if k.err != nil {
		t.Errorf("end of following: got %v, want nil", k.err)
	}
	if got := bodies(k.entries); len(k.entries) != 600 || len(got) != 600 {
		t.Errorf("entries: got %d with %d bodies, want 600", len(k.entries), len(got))
	}
	if got := late.entries[0].Seq; got != first+300 {
		t.Errorf("late follower starts at %d, want %d", got, first+300)
	}
}

func TestFollowHealsWhenItsConsumerVanishes(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t)
	ctx, first := testContext(t), startOf(t, c)
	k := follow(t, c, first)
	publishMany(t, c, 0, 100)
	eventually(t, "the first messages", k.has(100))
	for round := 1; round <= 2; round++ {
		eventually(t, "a consumer to drop", func() bool {
			n, err := c.DropConsumers(ctx, cluster.RelayStream)
			return err == nil && n > 0
		})
		publishMany(t, c, round*100, round*100+100)
		eventually(t, "messages after the consumer vanished", k.has(round*100+100))
	}
	if got := len(bodies(k.entries)); got != 300 || k.count() != 300 {
		t.Errorf("entries: got %d with %d bodies, want 300", k.count(), got)
	}
}

func TestFollowSkipsWhatWasPurgedAndNothingElse(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t)
	ctx, first := testContext(t), startOf(t, c)
	publishMany(t, c, 0, 100)
	if err := c.Log().PurgeTo(ctx, first+40); err != nil {
		t.Fatalf("purge: %v", err)
	}
	for _, from := range []uint64{0, first, first + 39, first + 40, first + 41} {
		want := first + 40
		if from > want {
			want = from
		}
		entries, next, err := c.Log().Read(ctx, from, 10, 0)
		if err != nil || len(entries) != 10 || entries[0].Seq != want || next != want+10 {
			t.Errorf("read from %d: got %d entries, next %d, %v; want 10 from %d", from, len(entries), next, err, want)
		}
		k := follow(t, c, from)
		eventually(t, "what is left", k.has(int(first+100-want)))
		if got := k.entries[0].Seq; got != want {
			t.Errorf("follow from %d: got first %d, want %d", from, got, want)
		}
	}
	if err := c.Log().PurgeTo(ctx, first+100); err != nil {
		t.Fatalf("purge all: %v", err)
	}
	state, err := c.Log().State(ctx)
	if err != nil || state.Messages != 0 || state.Last != first+99 || state.First != first+100 {
		t.Errorf("state of an empty log: got %+v, %v", state, err)
	}
	if entries, next, err := c.Log().Read(ctx, first, 10, 0); err != nil || len(entries) != 0 || next != first {
		t.Errorf("read of an empty log: got %v, %d, %v", entries, next, err)
	}
	k := follow(t, c, first)
	publishMany(t, c, 0, 1)
	eventually(t, "the first entry after a purge", k.has(1))
}

func TestReadStaysWithinItsLimits(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t)
	ctx, first := testContext(t), startOf(t, c)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if err := c.Log().Publish(ctx, cluster.Message{Body: fmt.Sprintf("%020000d", 7)}); err != nil {
				t.Errorf("publish: %v", err)
			}
		})
	}
	wg.Wait()
	for _, limit := range []struct{ max, bytes, least, most int }{
		{5, 0, 5, 5}, {0, 0, 26, 28}, {1000, 1 << 30, 26, 28}, {100, 100000, 5, 6}, {1, 1, 1, 1},
	} {
		entries, next, err := c.Log().Read(ctx, first, limit.max, limit.bytes)
		if err != nil || len(entries) < limit.least || len(entries) > limit.most || next != first+uint64(len(entries)) {
			t.Errorf("read %d entries, %d bytes: got %d, next %d, %v; want %d to %d", limit.max, limit.bytes, len(entries), next, err, limit.least, limit.most)
		}
	}
}

func TestFollowGoesOnOverARestartOfTheBroker(t *testing.T) {
	t.Parallel()
	s := clustertest.StartServer(t, t.TempDir())
	c := clustertest.Connect(t, s)
	ctx, first := testContext(t), startOf(t, c)
	k := follow(t, c, first)
	publishMany(t, c, 0, 100)
	for _, from := range []int{100, 250} {
		var wg sync.WaitGroup
		wg.Go(func() { publishMany(t, c, from, from+150) })
		if err := s.Restart(ctx); err != nil {
			t.Fatalf("restart broker: %v", err)
		}
		eventually(t, "the broker after its restart", func() bool { return c.Ready() == nil })
		wg.Wait()
	}
	publishMany(t, c, 400, 500)
	eventually(t, "everything, over two restarts", k.has(500))
	for body, n := range bodies(k.entries) {
		if n != 1 {
			t.Errorf("message %s: got it %d times, want once", body, n)
		}
	}
}

func TestFollowOfALogThatWasRewoundEndsWithAnError(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t)
	k := follow(t, c, startOf(t, c)+1000)
	select {
	case <-k.ended:
	case <-time.After(time.Minute):
		t.Fatal("following a position beyond the end did not end")
	}
	if k.err == nil {
		t.Errorf("follow: got no error, want %v", cluster.ErrRewound)
	}
}
