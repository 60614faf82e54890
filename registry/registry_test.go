package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
)

// open runs a registry over c until the test ends, and waits for its view.
func open(t testing.TB, c *cluster.Cluster) *Registry {
	t.Helper()
	r := New(c, clustertest.Logger(t))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("registry ended with %v, want nil", err)
		}
	})
	select {
	case <-r.Ready():
	case <-time.After(time.Minute):
		t.Fatal("registry is not ready after 30 s")
	}
	return r
}

// openMany opens registries over one broker, each with its own connection, as
// so many processes would.
func openMany(t testing.TB, n, maxSats int) []*Registry {
	t.Helper()
	s := clustertest.StartServer(t, t.TempDir())
	l := clustertest.Layout
	l.MaxSats = maxSats
	all := make([]*Registry, n)
	for i := range all {
		all[i] = open(t, clustertest.ConnectWith(t, s, l))
		all[i].tidy = time.Minute // no seat is left to the sweeper: tests count them
	}
	return all
}

// patient is for calls on a machine that may take longer than they allow
// themselves.
func patient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// write repeats a compare-and-set until the broker has answered, and gives the
// revision. Nobody else writes the key: a later revision than expected is that
// of a write whose answer never came.
func write(t testing.TB, b *cluster.Bucket, key string, expect uint64, put func() (uint64, error)) uint64 {
	t.Helper()
	for unsure := false; ; unsure = true {
		revision, err := put()
		if err == nil {
			return revision
		}
		if !errors.Is(err, cluster.ErrUnavailable) && !(unsure && errors.Is(err, cluster.ErrWrongRevision)) {
			t.Fatal(err)
		}
		if item, err := b.Get(patient(t), key); err == nil && item.Revision > expect {
			return item.Revision
		}
	}
}

func put(t testing.TB, r *Registry, key, value string, expect uint64) uint64 {
	t.Helper()
	return write(t, r.sats, key, expect, func() (uint64, error) { return r.sats.Put(t.Context(), key, []byte(value), expect) })
}

func saveTraffic(t testing.TB, r *Registry, rec TrafficRecord, expect uint64) uint64 {
	t.Helper()
	return write(t, r.stats, statsKey("delivery", rec.Partition), expect, func() (uint64, error) { return r.SaveTraffic(t.Context(), rec, expect) })
}

func savePing(t testing.TB, r *Registry, rec PingRecord, expect uint64) uint64 {
	t.Helper()
	return write(t, r.stats, statsKey("pinger", rec.Partition), expect, func() (uint64, error) { return r.SavePing(t.Context(), rec, expect) })
}

func registration(id ID) Registration {
	return Registration{Addr: id.Addr(), Nick: "nick of " + string(id), Plugins: []string{"p"}, NotifyPass: Secret("pass of " + string(id))}
}

func mustRegister(t testing.TB, r *Registry, id ID) *Satellite {
	t.Helper()
	s, isNew, err := r.Register(t.Context(), registration(id))
	if err != nil || !isNew {
		t.Fatalf("register %s: got new %v, %v, want a new one", id, isNew, err)
	}
	return s
}

func waitFor(t testing.TB, r *Registry, revision uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := r.WaitRevision(ctx, revision); err != nil {
		t.Fatalf("view at revision %d, want %d: %v", r.Revision(), revision, err)
	}
}

// publish puts n messages into the log and gives its last sequence.
func publish(t testing.TB, r *Registry, n int) uint64 {
	t.Helper()
	for i := range n {
		if err := r.cluster.Log().Publish(t.Context(), cluster.Message{Sender: "10.0.0.1:80", Body: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	last, err := r.cluster.Log().Last(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return last
}

func TestRegisterBeginsAtTheLogsEndAndShowsInEveryView(t *testing.T) {
	t.Parallel()
	rs := openMany(t, 2, 10)
	end := publish(t, rs[0], 5)
	id := testID(1)
	sat := mustRegister(t, rs[0], id)
	publish(t, rs[0], 1)
	if sat.Began != end || sat.Generation != sat.Revision || sat.Generation == 0 || sat.Seat == 0 || sat.Scheme != "http" {
		t.Errorf("got %+v, want it to begin at %d with a generation of its own revision and a seat", sat, end)
	}
	for i, r := range rs {
		waitFor(t, r, sat.Revision)
		got, ok := r.Lookup(id)
		if !ok || got.Nick != sat.Nick || got.NotifyPass != sat.NotifyPass || got.Generation != sat.Generation || !got.Created.Equal(sat.Created) || got.Seat != sat.Seat || got.Began != sat.Began {
			t.Errorf("view %d: got %+v, %v, want %+v", i, got, ok, sat)
		}
		if ids := r.IDs(); !slices.Equal(ids, []ID{id}) || r.Len() != 1 {
			t.Errorf("view %d: got ids %v, length %d, want %s alone", i, ids, r.Len(), id)
		}
	}
	if n, err := rs[1].MaxSats(t.Context()); err != nil || n != 10 {
		t.Errorf("max_sats: got %d, %v, want 10", n, err)
	}
}

func TestLookupLeaderKnowsAtOnce(t *testing.T) {
	t.Parallel()
	rs := openMany(t, 2, 100)
	for n := range 20 {
		sat := mustRegister(t, rs[0], testID(n))
		got, err := rs[1].LookupLeader(t.Context(), sat.ID)
		if err != nil || got.Revision != sat.Revision {
			t.Fatalf("look up %s: got %+v, %v, want revision %d", sat.ID, got, err, sat.Revision)
		}
	}
	if got, err := rs[1].LookupLeader(t.Context(), testID(99)); !errors.Is(err, ErrUnknown) {
		t.Errorf("look up an unknown id: got %+v, %v, want ErrUnknown", got, err)
	}
}

func TestSubscriberSeesExistingAndThenEveryChange(t *testing.T) {
	t.Parallel()
	rs := openMany(t, 1, 100)
	r := rs[0]
	var last *Satellite
	for n := range 10 {
		last = mustRegister(t, r, testID(n))
	}
	waitFor(t, r, last.Revision)
	var mu sync.Mutex
	known := make(map[ID]uint64)
	var upTo uint64
	cancel := r.Subscribe(func(changes []Change, to uint64) {
		mu.Lock()
		defer mu.Unlock()
		replay(t, known, changes)
		upTo = to
	})
	defer cancel()
	mu.Lock()
	if len(known) != 10 || upTo < last.Revision {
		t.Errorf("at once: got %d satellites up to %d, want 10 up to %d", len(known), upTo, last.Revision)
	}
	mu.Unlock()
	if err := r.Deregister(t.Context(), testID(3)); err != nil {
		t.Fatal(err)
	}
	last = mustRegister(t, r, testID(30))
	waitFor(t, r, last.Revision)
	mu.Lock()
	defer mu.Unlock()
	if _, still := known[testID(3)]; still || len(known) != 10 || known[testID(30)] != last.Revision || upTo < last.Revision {
		t.Errorf("then: got %v up to %d, want %s gone and %s at %d", known, upTo, testID(3), testID(30), last.Revision)
	}
}

func TestRegistrationsOutliveTheBroker(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := make(map[ID]uint64)
	s := clustertest.StartServer(t, dir)
	c := clustertest.Connect(t, s)
	r := New(c, clustertest.Logger(t))
	for n := range 20 {
		want[testID(n)] = mustRegister(t, r, testID(n)).Revision
	}
	if err := r.Deregister(t.Context(), testID(7)); err != nil {
		t.Fatal(err)
	}
	delete(want, testID(7))
	c.Close()
	s.Close()

	r = open(t, clustertest.Connect(t, clustertest.StartServer(t, dir)))
	checkView(t, r.view, want)
	if sat, _, err := r.Register(t.Context(), registration(testID(7))); err != nil || sat.Generation <= want[testID(19)] {
		t.Errorf("registered again after the broker's restart: got %+v, %v, want a later generation", sat, err)
	}
}

func TestUnreadableRegistrationIsLeftOutAndKept(t *testing.T) {
	t.Parallel()
	r := openMany(t, 1, 10)[0]
	sat := mustRegister(t, r, testID(1))
	waitFor(t, r, sat.Revision)
	put(t, r, sat.ID.Key(), `{"v":9}`, sat.Revision)
	waitFor(t, r, put(t, r, "not-an-address", `{"v":1}`, 0))
	if got, ok := r.Lookup(sat.ID); !ok || got.Revision != sat.Revision {
		t.Errorf("got %+v, %v, want the value that was readable", got, ok)
	}
	if _, _, err := r.Register(t.Context(), registration(sat.ID)); !errors.Is(err, ErrUnreadable) {
		t.Errorf("register over it: got %v, want ErrUnreadable", err)
	}
}

// BenchmarkLoad measures how long a process needs until it knows all
// satellites: -bench Load -benchtime 3x. It first registers 100,000, which
// takes half a minute.
func BenchmarkLoad(b *testing.B) {
	const n = 100_000
	c := clustertest.Start(b)
	r := New(c, clustertest.Logger(b))
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for i := w; i < n; i += 64 {
				s := testSatellite(testID(i))
				s.Nick, s.NotifyPass = fmt.Sprintf("satellite %d", i), Secret(fmt.Sprintf("%016x", i))
				v, err := encodeValue(s, nil)
				if err == nil {
					_, err = r.sats.Put(b.Context(), s.ID.Key(), v, 0)
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for b.Loop() {
		r := New(c, clustertest.Logger(b))
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		<-r.Ready()
		if r.Len() != n {
			b.Errorf("loaded %d, want %d", r.Len(), n)
		}
		b.StopTimer()
		cancel()
		<-done
		b.StartTimer()
	}
}
