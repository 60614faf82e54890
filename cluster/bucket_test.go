package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
)

func TestPutComparesRevisions(t *testing.T) {
	t.Parallel()
	ctx, b := testContext(t), clustertest.Start(t).Bucket(cluster.BucketSatellites)
	if i, err := b.Get(ctx, "k"); !errors.Is(err, cluster.ErrNotFound) || i.Revision != 0 {
		t.Errorf("get of nothing: got %+v, %v, want %v", i, err, cluster.ErrNotFound)
	}
	if _, err := b.Put(ctx, "k", []byte("1"), 7); !errors.Is(err, cluster.ErrWrongRevision) {
		t.Errorf("put of nothing at a revision: got %v, want %v", err, cluster.ErrWrongRevision)
	}
	one, err := b.Put(ctx, "k", []byte("1"), 0)
	if err != nil {
		t.Fatalf("put: %v", err)
	}
	for _, expect := range []uint64{0, one - 1, one + 1} {
		if _, err := b.Put(ctx, "k", []byte("2"), expect); !errors.Is(err, cluster.ErrWrongRevision) {
			t.Errorf("put at %d instead of %d: got %v, want %v", expect, one, err, cluster.ErrWrongRevision)
		}
	}
	two, err := b.Put(ctx, "k", []byte("2"), one)
	if err != nil || two <= one {
		t.Errorf("put: got %d, %v, want above %d", two, err, one)
	}
	if i, err := b.Get(ctx, "k"); err != nil || string(i.Value) != "2" || i.Revision != two || i.Deleted || i.Key != "k" || i.Created.IsZero() {
		t.Errorf("get: got %+v, %v", i, err)
	}
	if _, err := b.Delete(ctx, "k", one); !errors.Is(err, cluster.ErrWrongRevision) {
		t.Errorf("delete at an old revision: got %v, want %v", err, cluster.ErrWrongRevision)
	}
	three, err := b.Delete(ctx, "k", two)
	if err != nil {
		t.Fatalf("delete: %v", err)
	}
	if i, err := b.Get(ctx, "k"); err != nil || !i.Deleted || i.Revision != three || i.Value != nil {
		t.Errorf("get of a marker: got %+v, %v", i, err)
	}
	if _, err := b.Put(ctx, "k", nil, 0); !errors.Is(err, cluster.ErrWrongRevision) {
		t.Errorf("put over a marker as if nothing was there: got %v, want %v", err, cluster.ErrWrongRevision)
	}
	if _, err := b.Put(ctx, "k", []byte("3"), three); err != nil {
		t.Errorf("put over a marker: %v", err)
	}
	if _, err := b.PutAny(ctx, "k", []byte("4")); err != nil {
		t.Errorf("put any: %v", err)
	}
}

func TestOnlyOneOfManyWritersWins(t *testing.T) {
	t.Parallel()
	ctx, b := testContext(t), clustertest.Start(t).Bucket(cluster.BucketPartitions)
	for round := range 10 {
		var won atomic.Int32
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := b.Put(ctx, fmt.Sprint("k", round), []byte("x"), 0); err == nil {
					won.Add(1)
				} else if !errors.Is(err, cluster.ErrWrongRevision) {
					t.Errorf("put: %v", err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("winners: got %d, want 1", won.Load())
		}
	}
}

// mirror follows a bucket into a map, and checks the order.
type mirror struct {
	mu   sync.Mutex
	live map[string]string
	upTo uint64
}

func mirrorOf(t testing.TB, b *cluster.Bucket) *mirror {
	ctx, cancel := context.WithCancel(context.Background())
	m := &mirror{live: map[string]string{}}
	ended := make(chan struct{})
	var last uint64
	go func() {
		defer close(ended)
		err := b.Follow(ctx, func(items []cluster.Item, upTo uint64) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, i := range items {
				if i.Revision <= last || i.Revision > upTo {
					t.Errorf("revision: got %d after %d, up to %d", i.Revision, last, upTo)
				}
				last = i.Revision
				if m.live[i.Key] = string(i.Value); i.Deleted {
					delete(m.live, i.Key)
				}
			}
			m.upTo = max(upTo, 1)
		})
		if err != nil {
			t.Errorf("follow: %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return m
}

func (m *mirror) reached(revision uint64) func() bool {
	return func() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.upTo >= max(revision, 1) }
}

func (m *mirror) size() int { m.mu.Lock(); defer m.mu.Unlock(); return len(m.live) }

func TestFollowerOfABucketSeesWhatStandsAndEveryChange(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t)
	ctx, b := testContext(t), c.Bucket(cluster.BucketSatellites)
	empty := mirrorOf(t, b)
	eventually(t, "the load of an empty bucket", empty.reached(0))
	var last atomic.Uint64
	var wg sync.WaitGroup
	for w := range 10 {
		wg.Go(func() {
			for i := range 50 {
				rev, err := b.Put(ctx, fmt.Sprintf("%d-%d", w, i), []byte(strconv.Itoa(i)), 0)
				if err == nil && i%5 == 0 {
					rev, err = b.Delete(ctx, fmt.Sprintf("%d-%d", w, i), rev)
				}
				if err != nil {
					t.Errorf("write: %v", err)
				}
				for was := last.Load(); rev > was && !last.CompareAndSwap(was, rev); was = last.Load() {
				}
			}
		})
	}
	wg.Wait()
	loaded := mirrorOf(t, b)
	for name, m := range map[string]*mirror{"watching": empty, "loading": loaded} {
		eventually(t, name, m.reached(last.Load()))
		if got := m.size(); got != 400 {
			t.Errorf("%s: got %d keys, want 400", name, got)
		}
	}
	items, err := b.List(ctx)
	if err != nil || len(items) != 400 {
		t.Errorf("list: got %d items, %v, want 400", len(items), err)
	}
	eventually(t, "a consumer to drop", func() bool {
		n, err := c.DropConsumers(ctx, "KV_SATELLITES")
		return err == nil && n > 0
	})
	rev, err := b.PutAny(ctx, "later", nil)
	if err != nil {
		t.Fatalf("put: %v", err)
	}
	eventually(t, "a change after the consumer vanished", empty.reached(rev))
}

// Invariant: a key that is written again and again while the bucket is listed is in the list all the same.
func TestListHasKeysThatAreWrittenMeanwhile(t *testing.T) {
	t.Parallel()
	ctx, b := testContext(t), clustertest.Start(t).Bucket(cluster.BucketPartitions)
	const keys = 32
	write := func() {
		for k := range keys {
			if _, err := b.PutAny(ctx, strconv.Itoa(k), []byte("v")); err != nil && ctx.Err() == nil {
				t.Errorf("put: %v", err)
			}
		}
	}
	write()
	listed := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for {
			select {
			case <-listed:
				return
			case <-time.After(5 * time.Millisecond):
				write()
			}
		}
	})
	for range 30 {
		if items, err := b.List(ctx); err != nil || len(items) != keys {
			t.Errorf("list: got %d keys, %v, want %d", len(items), err, keys)
		}
	}
	close(listed)
	writing.Wait()
}

func TestLoadEndsThoughTheLastRevisionIsGone(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t)
	ctx, b := testContext(t), c.Bucket(cluster.BucketStats)
	if _, err := b.PutAny(ctx, "stays", nil); err != nil {
		t.Fatalf("put: %v", err)
	}
	rev, err := b.PutAny(ctx, "goes", nil)
	if err != nil {
		t.Fatalf("put: %v", err)
	}
	purge := map[string]string{"filter": "$KV.STATS.goes"}
	if err := c.API(ctx, "STREAM.PURGE.KV_STATS", purge, nil); err != nil {
		t.Fatalf("purge: %v", err)
	}
	m := mirrorOf(t, b)
	eventually(t, "the end of the load", m.reached(rev))
	if m.size() != 1 {
		t.Errorf("keys: got %d, want 1", m.size())
	}
	if err := c.API(ctx, "STREAM.PURGE.KV_STATS", nil, nil); err != nil {
		t.Fatalf("purge: %v", err)
	}
	if items, err := b.List(ctx); err != nil || len(items) != 0 {
		t.Errorf("list of nothing: got %v, %v", items, err)
	}
}

func TestBucketThatLostItsPastIsReadAnew(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t)
	ctx, b := testContext(t), c.Bucket(cluster.BucketStats)
	for _, key := range []string{"stays", "goes", "another"} {
		if _, err := b.PutAny(ctx, key, []byte("old")); err != nil {
			t.Fatalf("put: %v", err)
		}
	}
	m := mirrorAnyOrder(t, b)
	eventually(t, "the load", func() bool { return m.size() == 3 })
	var info struct {
		Config map[string]any `json:"config"`
	}
	for _, step := range []func() error{
		func() error { return c.API(ctx, "STREAM.INFO.KV_STATS", nil, &info) },
		func() error { return deleteStream(ctx, c, "KV_STATS") },
		func() error { return c.API(ctx, "STREAM.CREATE.KV_STATS", info.Config, nil) },
	} {
		if err := step(); err != nil {
			t.Fatalf("make the bucket anew: %v", err)
		}
	}
	if _, err := b.PutAny(ctx, "stays", []byte("new")); err != nil {
		t.Fatalf("put: %v", err)
	}
	eventually(t, "the bucket as it is now", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.live) == 1 && m.live["stays"] == "new"
	})
}

// deleteStream deletes a stream. A request that was repeated may be told that there is none.
func deleteStream(ctx context.Context, c *cluster.Cluster, name string) error {
	err := c.API(ctx, "STREAM.DELETE."+name, nil, nil)
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamNotFound {
		return nil
	}
	return err
}

// mirrorAnyOrder is mirrorOf for a bucket whose revisions begin anew.
func mirrorAnyOrder(t testing.TB, b *cluster.Bucket) *mirror {
	ctx, cancel := context.WithCancel(context.Background())
	m := &mirror{live: map[string]string{}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = b.Follow(ctx, func(items []cluster.Item, _ uint64) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, i := range items {
				if m.live[i.Key] = string(i.Value); i.Deleted {
					delete(m.live, i.Key)
				}
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return m
}
