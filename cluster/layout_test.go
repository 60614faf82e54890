package cluster_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
)

func TestLayoutIsMadeOnceAndThenOnlyOpened(t *testing.T) {
	t.Parallel()
	s := clustertest.StartServer(t, t.TempDir())
	asked := cluster.Layout{Retention: time.Hour, RetentionBytes: 10 << 20, Replicas: 1, MaxSats: 7}
	c := clustertest.ConnectWith(t, s, asked)
	ctx := testContext(t)
	for _, step := range []struct{ ask, want cluster.Layout }{
		{cluster.Layout{}, asked},
		{cluster.Layout{Retention: 2 * time.Hour, RetentionBytes: 20 << 20}, asked},
		{cluster.Layout{MaxSats: 9}, cluster.Layout{Retention: time.Hour, RetentionBytes: 10 << 20, Replicas: 1, MaxSats: 9}},
		{cluster.Layout{}, cluster.Layout{Retention: time.Hour, RetentionBytes: 10 << 20, Replicas: 1, MaxSats: 9}},
	} {
		if got, err := c.Setup(ctx, step.ask); err != nil || got != step.want {
			t.Errorf("set up %+v: got %+v, %v, want %+v", step.ask, got, err, step.want)
		}
	}
	if n, err := c.MaxSats(ctx); err != nil || n != 9 {
		t.Errorf("limit of satellites: got %d, %v, want 9", n, err)
	}
	if _, err := c.Setup(ctx, cluster.Layout{MaxSats: -1}); err == nil || !strings.Contains(err.Error(), "--max-sats") {
		t.Errorf("negative limit: got %v, want an error that names the flag", err)
	}
}

func TestSequencesBeginAtTheTimeSoThatANewLogGoesOnAboveAnOldOne(t *testing.T) {
	t.Parallel()
	before := uint64(time.Now().UnixMicro())
	c := clustertest.Start(t)
	if got := startOf(t, c); got < before || got > uint64(time.Now().UnixMicro()) {
		t.Errorf("first sequence: got %d, want the time in microseconds, about %d", got, before)
	}
}

func TestStreamsOfALaterVersionOrOfSomebodyElseAreRefused(t *testing.T) {
	t.Parallel()
	for version, ok := range map[string]bool{"1": true, "2": true, "3": false, "": false} {
		s := clustertest.StartServer(t, t.TempDir())
		c, err := cluster.Connect(testContext(t), cluster.Options{Server: s}, clustertest.Logger(t))
		if err != nil {
			t.Fatalf("connect: %v", err)
		}
		defer c.Close()
		cfg := map[string]any{"name": "RELAY", "subjects": []string{"co2.relay"}, "storage": "file", "metadata": map[string]string{"co2-schema": version}}
		if err := c.API(testContext(t), "STREAM.CREATE.RELAY", cfg, nil); err != nil {
			t.Fatalf("create: %v", err)
		}
		if _, err := c.Setup(testContext(t), clustertest.Layout); (err == nil) != ok {
			t.Errorf("schema version %q: got %v, want accepted %v", version, err, ok)
		}
	}
}

func TestBucketsAreReadableByEveryNatsTool(t *testing.T) {
	t.Parallel()
	s := clustertest.StartServer(t, t.TempDir())
	c := clustertest.Connect(t, s)
	ctx := testContext(t)
	nc, err := nats.Connect("", nats.InProcessServer(s), nats.Timeout(30*time.Second))
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{cluster.BucketSatellites, cluster.BucketWorkers, cluster.BucketPartitions, cluster.BucketStats} {
		rev, err := c.Bucket(name).Put(ctx, "k", []byte("v"), 0)
		if err != nil {
			t.Fatalf("put: %v", err)
		}
		kv, err := js.KeyValue(ctx, name)
		if err != nil {
			t.Fatalf("open %s: %v", name, err)
		}
		if e, err := kv.Get(ctx, "k"); err != nil || string(e.Value()) != "v" || e.Revision() != rev {
			t.Errorf("get from %s: got %v, %v", name, e, err)
		}
		if _, err := c.Bucket(name).Delete(ctx, "k", rev); err != nil {
			t.Errorf("delete: %v", err)
		}
		if _, err := kv.Get(ctx, "k"); !errors.Is(err, jetstream.ErrKeyNotFound) {
			t.Errorf("get a deleted key from %s: got %v, want %v", name, err, jetstream.ErrKeyNotFound)
		}
		m, err := js.Stream(ctx, "KV_"+name)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := m.GetLastMsgForSubject(ctx, "$KV."+name+".k")
		if err != nil || raw.Header.Get("Nats-TTL") != "24h0m0s" {
			t.Errorf("life of a marker: got %v, %v, want 24h", raw, err)
		}
	}
}

func TestSeatsAreExactUnderConcurrency(t *testing.T) {
	t.Parallel()
	const limit, asking = 300, 400
	s := clustertest.StartServer(t, t.TempDir())
	frontends := []*cluster.Cluster{
		clustertest.ConnectWith(t, s, cluster.Layout{MaxSats: limit}), clustertest.ConnectWith(t, s, cluster.Layout{}),
	}
	ctx := testContext(t)
	var taken, full atomic.Int64
	var wg sync.WaitGroup
	for i := range asking {
		wg.Go(func() {
			_, err := frontends[i%2].TakeSeat(ctx, fmt.Sprintf("k%d", i))
			switch {
			case err == nil:
				taken.Add(1)
			case errors.Is(err, cluster.ErrFull):
				full.Add(1)
			default:
				t.Errorf("take a seat: %v", err)
			}
		})
	}
	wg.Wait()
	if taken.Load() != limit || full.Load() != asking-limit {
		t.Errorf("seats: got %d taken, %d refused, want %d and %d", taken.Load(), full.Load(), limit, asking-limit)
	}
	c := frontends[0]
	seats, err := c.Seats(ctx)
	if err != nil || len(seats) != limit {
		t.Fatalf("list: got %d seats, %v, want %d", len(seats), err, limit)
	}
	for range 2 {
		if err := c.FreeSeat(ctx, seats[3].Seq); err != nil {
			t.Errorf("free a seat, and once more: %v", err)
		}
	}
	if n, err := c.SeatCount(ctx); err != nil || n != limit-1 {
		t.Errorf("count: got %d, %v, want %d", n, err, limit-1)
	}
	seq, err := c.TakeSeat(ctx, "again")
	if err != nil || seq <= seats[limit-1].Seq {
		t.Errorf("take the freed seat: got %d, %v", seq, err)
	}
	if _, err := c.TakeSeat(ctx, "one more"); !errors.Is(err, cluster.ErrFull) {
		t.Errorf("take one too many: got %v, want %v", err, cluster.ErrFull)
	}
}

func TestLoweringTheLimitEvictsNobody(t *testing.T) {
	t.Parallel()
	s := clustertest.StartServer(t, t.TempDir())
	c := clustertest.ConnectWith(t, s, cluster.Layout{MaxSats: 5})
	ctx := testContext(t)
	var last uint64
	for i := range 5 {
		var err error
		if last, err = c.TakeSeat(ctx, fmt.Sprint(i)); err != nil {
			t.Fatalf("take a seat: %v", err)
		}
	}
	if _, err := c.Setup(ctx, cluster.Layout{MaxSats: 3}); err != nil {
		t.Fatalf("lower the limit: %v", err)
	}
	if n, err := c.SeatCount(ctx); err != nil || n != 5 {
		t.Errorf("seats: got %d, %v, want 5", n, err)
	}
	if err := c.FreeSeat(ctx, last); err != nil {
		t.Fatalf("free: %v", err)
	}
	if _, err := c.TakeSeat(ctx, "x"); !errors.Is(err, cluster.ErrFull) {
		t.Errorf("take a seat above the lowered limit: got %v, want %v", err, cluster.ErrFull)
	}
}
