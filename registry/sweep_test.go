package registry

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster/clustertest"
)

// sweepAll sweeps until nothing is left to free, without a time of grace.
func sweepAll(t testing.TB, r *Registry) int {
	t.Helper()
	total := 0
	for {
		freed, err := r.sweep(t.Context(), make(suspects), 0)
		if err != nil {
			t.Fatal(err)
		}
		if freed == 0 {
			return total
		}
		total += freed
	}
}

func takeSeat(t testing.TB, r *Registry, key string) uint64 {
	t.Helper()
	seat, err := r.cluster.TakeSeat(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return seat
}

func TestSweepFreesSeatsThatNoRegistrationNames(t *testing.T) {
	t.Parallel()
	rs := openMany(t, 3, 20)
	stays := mustRegister(t, rs[0], testID(1))
	left := mustRegister(t, rs[0], testID(2))
	if err := rs[0].Deregister(t.Context(), left.ID); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{stays.ID.Key(), left.ID.Key(), testID(3).Key(), testID(4).Key(), "nonsense"} {
		takeSeat(t, rs[0], key)
	}
	waitFor(t, rs[0], left.Revision+1)

	seen := make(suspects)
	if freed, err := rs[0].sweep(t.Context(), seen, time.Hour); err != nil || freed != 0 || len(seen) != 5 {
		t.Errorf("within the time of grace: got %d freed, %d suspected, %v, want 0 and 5", freed, len(seen), err)
	}
	var freed atomic.Int32
	var wg sync.WaitGroup
	for _, r := range rs { // several at once are harmless
		wg.Go(func() { freed.Add(int32(sweepAll(t, r))) })
	}
	wg.Wait()
	if freed.Load() < 5 {
		t.Errorf("got %d seats freed, want 5", freed.Load())
	}
	checkSeats(t, rs[0], true)
	if got, err := rs[0].LookupLeader(t.Context(), stays.ID); err != nil || got.Revision != stays.Revision {
		t.Errorf("got %+v, %v, want %s untouched", got, err, stays.ID)
	}
	if n := seats(t, rs[0]); n != 1 {
		t.Errorf("got %d seats taken, want 1", n)
	}
}

// A registrar that slept between its seat and its put must not succeed after
// its seat was given to somebody else.
func TestSlowRegistrarCannotComeBackAfterTheSweep(t *testing.T) {
	t.Parallel()
	for _, before := range []string{"never there", "deregistered"} {
		t.Run(before, func(t *testing.T) {
			t.Parallel()
			r := openMany(t, 1, 1)[0]
			id := testID(1)
			if before == "deregistered" {
				mustRegister(t, r, id)
				if err := r.Deregister(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			}
			_, item, err := r.read(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			waitFor(t, r, item.Revision) // a sweep trusts the view
			slow := testSatellite(id)
			slow.Generation, slow.Seat = 0, takeSeat(t, r, id.Key())

			if freed := sweepAll(t, r); freed != 1 {
				t.Fatalf("got %d seats freed, want 1", freed)
			}
			other := mustRegister(t, r, testID(2))
			if err := r.putFirst(t.Context(), slow, item.Revision); !errors.Is(err, errLost) {
				t.Errorf("slow registrar's put: got %v, want that it lost", err)
			}
			sats := standing(t, r)
			if len(sats) != 1 || sats[other.ID] == nil {
				t.Errorf("got registrations %v, want %s alone", sats, other.ID)
			}
			checkSeats(t, r, true)
		})
	}
}

func TestSweepSparesARegistrationThatTheViewDoesNotKnowYet(t *testing.T) {
	t.Parallel()
	rs := openMany(t, 1, 10)
	blind := New(rs[0].cluster, clustertest.Logger(t)) // does not run: its view is empty
	sat := mustRegister(t, rs[0], testID(1))
	if freed, err := blind.sweep(t.Context(), make(suspects), 0); err != nil || freed != 0 {
		t.Errorf("got %d freed, %v, want 0", freed, err)
	}
	if n := seats(t, rs[0]); n != 1 {
		t.Errorf("got %d seats taken, want 1 for %s", n, sat.ID)
	}
}

// The broker restarts under registrations and deregistrations, so that answers
// are lost at every step of the protocol. Invariant: whatever was answered
// stands, and after a sweep seats and registrations agree.
func TestAnswersLostInABrokersRestartLoseNoSeat(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("restarts a broker: not with -short")
	}
	s := clustertest.StartServer(t, t.TempDir())
	l := clustertest.Layout
	l.MaxSats = 1000
	rs := make([]*Registry, 4)
	for i := range rs {
		rs[i] = open(t, clustertest.ConnectWith(t, s, l))
	}
	stop, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	stands := make(map[ID]bool) // what was answered; absent: unknown
	var errs, done int
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			r := rs[w%len(rs)]
			for n := 0; stop.Err() == nil; n++ {
				id := testID(w*10 + n%10)
				var err error
				in := n%20 < 10
				if in {
					_, _, err = r.Register(t.Context(), registration(id))
				} else if err = r.Deregister(t.Context(), id); errors.Is(err, ErrUnknown) {
					err = nil
				}
				mu.Lock()
				done++
				if delete(stands, id); err == nil {
					stands[id] = in
				} else {
					errs++
				}
				mu.Unlock()
			}
		})
	}
	for range 3 {
		before := progress(&mu, &done)
		eventually(t, func() bool { return progress(&mu, &done) > before+60 })
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	before := progress(&mu, &done)
	eventually(t, func() bool { return progress(&mu, &done) > before+60 })
	cancel()
	wg.Wait()

	freed := sweepAll(t, New(rs[0].cluster, clustertest.Logger(t))) // without a view, which may be behind
	t.Logf("%d steps, %d without an answer, %d seats swept", done, errs, freed)
	checkSeats(t, rs[0], true)
	sats := standing(t, rs[0])
	for id, want := range stands {
		if got := sats[id] != nil; got != want {
			t.Errorf("%s: registered %v, want %v as answered", id, got, want)
		}
	}
}

func progress(mu *sync.Mutex, n *int) int {
	mu.Lock()
	defer mu.Unlock()
	return *n
}

func eventually(t testing.TB, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatal("condition not met within 60 s")
}
