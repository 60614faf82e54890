package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// testID gives the n-th of many ids.
func testID(n int) ID {
	return MakeID(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 2003))
}

func TestViewAgreesWithItsChangesAtEveryStep(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	v := newView()
	model := make(map[ID]uint64)
	seen := make(map[ID]uint64)
	v.subscribe(func(changes []Change, _ uint64) { replay(t, seen, changes) })
	revision := uint64(0)
	for step := range 400 {
		var batch []Change
		for range 1 + rnd.IntN(30) {
			revision++
			id := testID(rnd.IntN(300))
			if rnd.IntN(3) == 0 {
				delete(model, id)
				batch = append(batch, Change{ID: id, Revision: revision})
				continue
			}
			model[id] = revision
			batch = append(batch, Change{ID: id, Sat: &Satellite{ID: id, Revision: revision}, Revision: revision})
		}
		again := slices.Clone(batch)
		v.apply(batch, revision)
		if step%7 == 6 { // what stands comes again, as from a bucket that is read anew
			v.apply(slices.DeleteFunc(again, func(c Change) bool {
				return c.Sat != nil && model[c.ID] != c.Revision || c.Sat == nil && model[c.ID] != 0
			}), revision-1)
		}
		checkView(t, v, model)
		if len(seen) != len(model) {
			t.Fatalf("step %d: subscriber knows %d satellites, want %d", step, len(seen), len(model))
		}
	}
}

func TestViewFollowsABucketThatWasMadeAnew(t *testing.T) {
	t.Parallel()
	v := newView()
	a, b := testID(1), testID(2)
	v.apply([]Change{{ID: a, Sat: &Satellite{ID: a, Revision: 90}, Revision: 90}, {ID: b, Sat: &Satellite{ID: b, Revision: 100}, Revision: 100}}, 100)
	v.apply([]Change{{ID: a, Sat: &Satellite{ID: a, Revision: 3}, Revision: 3}}, 3)
	v.apply([]Change{{ID: b, Revision: 5}}, 5)
	checkView(t, v, map[ID]uint64{a: 3})
	if got := v.revision.Load(); got != 5 {
		t.Errorf("got revision %d, want 5", got)
	}
}

// replay applies changes to what a subscriber knows.
func replay(t *testing.T, known map[ID]uint64, changes []Change) {
	last := uint64(0)
	for _, c := range changes {
		if c.Revision <= last {
			t.Errorf("change of revision %d after %d", c.Revision, last)
		}
		last = c.Revision
		if c.Sat == nil {
			delete(known, c.ID)
		} else {
			known[c.ID] = c.Revision
		}
	}
}

func checkView(t *testing.T, v *view, model map[ID]uint64) {
	t.Helper()
	want := make([]ID, 0, len(model))
	for id, revision := range model {
		want = append(want, id)
		if s, ok := v.lookup(id); !ok || s.Revision != revision {
			t.Fatalf("lookup %s: got %+v, %v, want revision %d", id, s, ok, revision)
		}
	}
	slices.Sort(want)
	if got := v.ids(); !slices.Equal(got, want) {
		t.Fatalf("ids: got %v, want %v", got, want)
	}
	if got := int(v.count.Load()); got != len(want) {
		t.Fatalf("count: got %d, want %d", got, len(want))
	}
}

func TestSubscriberMissesNothingWhileChangesCome(t *testing.T) {
	t.Parallel()
	const changes = 2000
	v := newView()
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := range changes {
			id := testID(n % 500)
			v.apply([]Change{{ID: id, Sat: &Satellite{ID: id, Revision: uint64(n + 1)}, Revision: uint64(n + 1)}}, uint64(n+1))
		}
	})
	type subscriber struct {
		known map[ID]uint64
		upTo  uint64
	}
	subs := make([]*subscriber, 20)
	for i := range subs {
		s := &subscriber{known: make(map[ID]uint64)}
		subs[i] = s
		wg.Go(func() {
			v.subscribe(func(c []Change, upTo uint64) {
				replay(t, s.known, c)
				s.upTo = upTo
			})
		})
	}
	wg.Wait()
	for i, s := range subs {
		if len(s.known) != 500 || s.upTo != changes {
			t.Errorf("subscriber %d: got %d satellites up to %d, want 500 up to %d", i, len(s.known), s.upTo, changes)
		}
		for id, revision := range s.known {
			if sat, _ := v.lookup(id); sat.Revision != revision {
				t.Errorf("subscriber %d: %s at revision %d, want %d", i, id, revision, sat.Revision)
			}
		}
	}
}

func TestCancelledSubscriberHearsNothingMore(t *testing.T) {
	t.Parallel()
	v := newView()
	calls := 0
	cancel := v.subscribe(func([]Change, uint64) { calls++ })
	cancel()
	v.apply(nil, 5)
	if calls != 1 {
		t.Errorf("got %d calls, want the one of subscribing", calls)
	}
}

func TestWaitReturnsOnceTheRevisionIsThere(t *testing.T) {
	t.Parallel()
	v := newView()
	done := make(chan error, 3)
	for _, revision := range []uint64{0, 3, 5} {
		go func() { done <- v.wait(t.Context(), revision) }()
	}
	v.apply(nil, 2)
	v.apply(nil, 5)
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := v.wait(ctx, 6); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for what never comes: got %v, want the context's error", err)
	}
}

func TestManySatellitesTakeLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("measures memory: not with -short")
	}
	const n, limit = 100_000, 1024
	before := heap()
	v := newView()
	var batch []Change
	for i := range n {
		s := testSatellite(testID(i))
		s.Nick, s.NotifyPass, s.Plugins = fmt.Sprintf("satellite %d", i), Secret(fmt.Sprintf("%016x", i)), []string{fmt.Sprint("plugin", i%7), "dmx"}
		b, err := encodeValue(s, nil)
		if err != nil {
			t.Fatal(err)
		}
		if s, err = decodeValue(s.ID.Key(), b, uint64(i+1)); err != nil {
			t.Fatal(err)
		}
		if batch = append(batch, Change{ID: s.ID, Sat: s, Revision: uint64(i + 1)}); len(batch) == 500 {
			v.apply(batch, uint64(i+1))
			batch = nil
		}
	}
	if got := len(v.ids()); got != n {
		t.Fatalf("got %d ids, want %d", got, n)
	}
	each := float64(heap()-before) / n
	t.Logf("%.0f bytes a satellite", each)
	if each > limit {
		t.Errorf("got %.0f bytes a satellite, want at most %d", each, limit)
	}
	runtime.KeepAlive(v)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkLookup(b *testing.B) {
	v := newView()
	ids := make([]ID, 10_000)
	for i := range ids {
		ids[i] = testID(i)
		v.apply([]Change{{ID: ids[i], Sat: &Satellite{ID: ids[i]}, Revision: uint64(i + 1)}}, uint64(i+1))
	}
	b.RunParallel(func(pb *testing.PB) {
		for i := rand.IntN(len(ids)); pb.Next(); i = (i + 1) % len(ids) {
			if _, ok := v.lookup(ids[i]); !ok {
				b.Fatal("not there")
			}
		}
	})
}
