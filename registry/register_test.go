package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// seats is the number of seats taken.
func seats(t testing.TB, r *Registry) int {
	t.Helper()
	n, err := r.cluster.SeatCount(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// standing reads all registrations from the broker.
func standing(t testing.TB, r *Registry) map[ID]*Satellite {
	t.Helper()
	items, err := r.sats.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[ID]*Satellite)
	for _, item := range items {
		s, err := decodeValue(item.Key, item.Value, item.Revision)
		if err != nil {
			t.Fatal(err)
		}
		all[s.ID] = s
	}
	return all
}

// checkSeats fails unless every registration has a seat of its own and, if
// all, no other seat is taken.
func checkSeats(t testing.TB, r *Registry, all bool) {
	t.Helper()
	list, err := r.cluster.Seats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	owner := make(map[uint64]string)
	for _, s := range list {
		owner[s.Seq] = s.Key
	}
	sats := standing(t, r)
	for id, s := range sats {
		if owner[s.Seat] != id.Key() {
			t.Errorf("%s names seat %d, which is %q's, want its own", id, s.Seat, owner[s.Seat])
		}
		delete(owner, s.Seat)
	}
	if all && len(owner) > 0 {
		t.Errorf("got %d seats without a registration beside %d registrations, want none: %v", len(owner), len(sats), owner)
	}
}

func TestRegisteringAgainReplacesAndKeepsItsPlace(t *testing.T) {
	t.Parallel()
	r := openMany(t, 1, 1)[0]
	first := mustRegister(t, r, testID(1))
	publish(t, r, 3)

	reg := Registration{Addr: first.Addr, Nick: "other", Plugins: []string{"a", "b"}, NotifyPass: "new", MaxAge: time.Hour, Scheme: "https", TLSName: "x.example"}
	again, isNew, err := r.Register(t.Context(), reg)
	if err != nil || isNew {
		t.Fatalf("register again: got new %v, %v, want the old one replaced although the relay is full", isNew, err)
	}
	if again.Began != first.Began || again.Generation != first.Generation || !again.Created.Equal(first.Created) || again.Seat != first.Seat || again.Revision <= first.Revision {
		t.Errorf("carried on: got %+v, want began, generation, created and seat of %+v", again, first)
	}
	waitFor(t, r, again.Revision)
	got, _ := r.Lookup(first.ID)
	if got.Nick != "other" || len(got.Plugins) != 2 || got.NotifyPass != "new" || got.MaxAge != time.Hour || got.Scheme != "https" || got.TLSName != "x.example" || got.Generation != first.Generation {
		t.Errorf("replaced: got %+v, want what it said last", got)
	}
	same, isNew, err := r.Register(t.Context(), reg)
	if err != nil || isNew || same.Revision != again.Revision {
		t.Errorf("the same again: got %+v, new %v, %v, want nothing written", same, isNew, err)
	}
	if n := seats(t, r); n != 1 {
		t.Errorf("got %d seats taken, want 1", n)
	}
	if _, _, err := r.Register(t.Context(), registration(testID(2))); !errors.Is(err, ErrFull) {
		t.Errorf("a second satellite: got %v, want ErrFull", err)
	}
	// It was not there when it was read, and is when no seat was left.
	late, isNew, err := r.registerFull(t.Context(), first.ID, registration(first.ID))
	if err != nil || isNew || late.Seat != first.Seat || late.Generation != first.Generation {
		t.Errorf("registered by another call meanwhile: got %+v, new %v, %v, want it replaced", late, isNew, err)
	}
}

func TestDeregisteringEndsTheGeneration(t *testing.T) {
	t.Parallel()
	r := openMany(t, 1, 1)[0]
	first := mustRegister(t, r, testID(1))
	end := publish(t, r, 3)
	if err := r.Deregister(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	if err := r.Deregister(t.Context(), first.ID); !errors.Is(err, ErrUnknown) {
		t.Errorf("deregister twice: got %v, want ErrUnknown", err)
	}
	if n := seats(t, r); n != 0 {
		t.Errorf("got %d seats taken, want 0", n)
	}
	other := mustRegister(t, r, testID(2)) // there is room again
	if err := r.Deregister(t.Context(), other.ID); err != nil {
		t.Fatal(err)
	}
	again := mustRegister(t, r, first.ID)
	if again.Generation <= first.Generation || again.Began != end || again.Generation != again.Revision {
		t.Errorf("registered anew: got %+v, want a later generation than %d that begins at %d", again, first.Generation, end)
	}
}

func TestRegisterRefusesWhatItCannotKeep(t *testing.T) {
	t.Parallel()
	r := openMany(t, 1, 1)[0]
	addr := testID(1).Addr()
	for what, c := range map[string]struct {
		reg  Registration
		want error
	}{
		"no address":   {Registration{}, ErrBadAddress},
		"scheme":       {Registration{Addr: addr, Scheme: "ftp"}, ErrInvalid},
		"tls_name":     {Registration{Addr: addr, TLSName: "x"}, ErrInvalid},
		"max_age":      {Registration{Addr: addr, MaxAge: -1}, ErrInvalid},
		"not UTF-8":    {Registration{Addr: addr, NotifyPass: "\xff"}, ErrInvalid},
		"large":        {Registration{Addr: addr, Nick: fmt.Sprint(make([]byte, MaxRegistration))}, ErrInvalid},
		"large plugin": {Registration{Addr: addr, Plugins: []string{fmt.Sprint(make([]byte, MaxRegistration))}}, ErrInvalid},
	} {
		if s, _, err := r.Register(t.Context(), c.reg); !errors.Is(err, c.want) {
			t.Errorf("%s: got %+v, %v, want %v", what, s, err, c.want)
		}
	}
	if n := seats(t, r); n != 0 {
		t.Errorf("got %d seats taken, want 0", n)
	}
}

func TestOneIDRegisteredByManyAtOnceIsNewOnce(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	rs := openMany(t, 8, 24) // each of them may hold a seat for a moment
	for round := range 3 {
		id := testID(round)
		var news atomic.Int32
		var wg sync.WaitGroup
		for n := range 24 {
			wg.Go(func() {
				reg := registration(id)
				reg.Nick = fmt.Sprint("nick ", n)
				_, isNew, err := rs[n%len(rs)].Register(ctx, reg)
				if err != nil {
					t.Errorf("register %s: %v", id, err)
				}
				if isNew {
					news.Add(1)
				}
			})
		}
		wg.Wait()
		if got := news.Load(); got != 1 {
			t.Errorf("round %d: got %d new registrations, want 1", round, got)
		}
		checkSeats(t, rs[0], true)
		if err := rs[0].Deregister(ctx, id); err != nil {
			t.Error(err)
		}
	}
}

func TestMaxSatsIsExactForManyAtOnce(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	const limit, newcomers = 30, 100
	rs := openMany(t, 8, limit)
	var in, full atomic.Int32
	var wg sync.WaitGroup
	for n := range newcomers {
		wg.Go(func() {
			switch _, isNew, err := rs[n%len(rs)].Register(ctx, registration(testID(n))); {
			case err == nil && isNew:
				in.Add(1)
			case errors.Is(err, ErrFull):
				full.Add(1)
			default:
				t.Errorf("register %s: got new %v, %v", testID(n), isNew, err)
			}
		})
	}
	wg.Wait()
	if in.Load() != limit || full.Load() != newcomers-limit {
		t.Errorf("got %d registered and %d refused, want %d and %d", in.Load(), full.Load(), limit, newcomers-limit)
	}
	if got := len(standing(t, rs[0])); got != limit {
		t.Errorf("got %d registrations in the bucket, want %d", got, limit)
	}
	checkSeats(t, rs[0], true)
}

func TestMaxSatsHoldsWhileOthersLeave(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	const limit, newcomers = 20, 240
	rs := openMany(t, 8, limit)

	// Every prefix of the bucket's history is a moment that was: ids are used
	// once here, so none may show more than the limit.
	here := make(map[ID]bool)
	most := 0
	var mu sync.Mutex
	defer rs[0].Subscribe(func(changes []Change, _ uint64) {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range changes {
			if c.Sat != nil {
				here[c.ID] = true
			} else {
				delete(here, c.ID)
			}
			most = max(most, len(here))
		}
	})()

	var in, full atomic.Int32
	var last atomic.Uint64
	var wg sync.WaitGroup
	for w := range len(rs) * 3 {
		wg.Go(func() {
			r := rs[w%len(rs)]
			for n := w; n < newcomers; n += len(rs) * 3 {
				s, _, err := r.Register(ctx, registration(testID(n)))
				if errors.Is(err, ErrFull) {
					full.Add(1)
					continue
				}
				if err != nil {
					t.Errorf("register %s: %v", testID(n), err)
					continue
				}
				in.Add(1)
				for old := last.Load(); old < s.Revision && !last.CompareAndSwap(old, s.Revision); old = last.Load() {
				}
				if err := r.Deregister(ctx, s.ID); err != nil {
					t.Errorf("deregister %s: %v", s.ID, err)
				}
			}
		})
	}
	wg.Wait()
	waitFor(t, rs[0], last.Load())
	mu.Lock()
	defer mu.Unlock()
	t.Logf("%d registered, %d refused, %d at most at a time", in.Load(), full.Load(), most)
	if most > limit || in.Load() == 0 {
		t.Errorf("got %d at a time, want at most %d", most, limit)
	}
	if n := seats(t, rs[0]); n != 0 {
		t.Errorf("after all have left: got %d seats taken, want 0", n)
	}
}

// Whatever many do to a few ids at once, at the end each registration has its
// seat and there is no other.
func TestRandomStepsLeaveSeatsAndRegistrationsInAgreement(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	const limit = 4
	rs := openMany(t, 4, limit)
	var wg sync.WaitGroup
	for w := range 12 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(w)))
			r := rs[w%len(rs)]
			for step := range 60 {
				id := testID(rnd.IntN(6))
				var err error
				if rnd.IntN(3) == 0 {
					err = r.Deregister(ctx, id)
				} else {
					reg := registration(id)
					reg.Nick = fmt.Sprint(w, " ", step)
					_, _, err = r.Register(ctx, reg)
				}
				if err != nil && !errors.Is(err, ErrFull) && !errors.Is(err, ErrUnknown) {
					t.Errorf("step %d of %d on %s: %v", step, w, id, err)
				}
			}
		})
	}
	wg.Wait()
	checkSeats(t, rs[0], true)
	if n := seats(t, rs[0]); n > limit {
		t.Errorf("got %d seats, want at most %d", n, limit)
	}
}

func TestOneOfManyDeregistersAnID(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	rs := openMany(t, 4, 10)
	for round := 1; ; round++ {
		id := testID(round)
		mustRegister(t, rs[0], id)
		var ok, unknown atomic.Int32
		var wg sync.WaitGroup
		began := time.Now()
		for n := range 16 {
			wg.Go(func() {
				switch err := rs[n%len(rs)].Deregister(ctx, id); {
				case err == nil:
					ok.Add(1)
				case errors.Is(err, ErrUnknown):
					unknown.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		checkSeats(t, rs[0], true)
		if ok.Load() == 1 && unknown.Load() == 15 {
			return
		}
		// Several whose delete was not answered cannot tell whose it was that did it.
		if took := time.Since(began); took < 2*time.Second || round == 5 {
			t.Fatalf("got %d done and %d unknown in %s, want 1 and 15", ok.Load(), unknown.Load(), took)
		}
	}
}

func TestRegisterEndsWithItsContext(t *testing.T) {
	t.Parallel()
	r := openMany(t, 1, 10)[0]
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := r.Register(ctx, registration(testID(1))); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	if err := r.Deregister(ctx, testID(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func TestDeregisteringAGenerationLeavesALaterOne(t *testing.T) {
	t.Parallel()
	r := openMany(t, 1, 3)[0]
	first := mustRegister(t, r, testID(1))
	if err := r.DeregisterGeneration(t.Context(), first.ID, first.Generation); err != nil {
		t.Fatal(err)
	}
	again := mustRegister(t, r, testID(1))
	if err := r.DeregisterGeneration(t.Context(), first.ID, first.Generation); !errors.Is(err, ErrUnknown) {
		t.Errorf("deregister a generation that is over: got %v, want ErrUnknown", err)
	}
	if now, err := r.LookupLeader(t.Context(), first.ID); err != nil || now.Generation != again.Generation {
		t.Errorf("got %+v, %v; want the later generation registered still", now, err)
	}
	if all, unreadable, err := r.Registered(t.Context()); err != nil || unreadable != 0 || len(all) != 1 || all[0].Generation != again.Generation {
		t.Errorf("registered: got %+v, %d, %v; want the one", all, unreadable, err)
	}
}
