package faults

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/co2relay/co2relay/satellite/satellitetest"
)

// Invariant: every message answered 'OK' reaches every other satellite, in one
// order for all, though the process is killed in the middle; a repeat carries
// the same msg_id.
func TestKilledThreeTimesLosesNothing(t *testing.T) {
	r := startRelay(t)
	sats := satellitetest.StartFleet(t, 10, satellitetest.Options{Keep: satellitetest.KeepBodies})
	var senders []*sender
	for i, s := range sats {
		id := r.register(s)
		if i < 3 {
			senders = append(senders, &sender{name: fmt.Sprintf("s%d", i), sat: s, id: id})
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, s := range senders {
		wg.Go(func() { s.run(ctx, r, time.Millisecond) })
	}
	accepted := func() (n int) {
		for _, s := range senders {
			n += len(s.accepted())
		}
		return n
	}
	for range 3 {
		before := accepted()
		eventually(t, "traffic flows", func() bool { return accepted() > before+300 })
		r.kill()
		r.start()
	}
	before := accepted()
	eventually(t, "traffic flows again", func() bool { return accepted() > before+300 })
	stop()
	wg.Wait()
	waitForAll(t, sats, senders)
	verdict(t, sats, senders)
	var repeats uint64
	for _, s := range sats {
		repeats += s.Stats().Repeats
	}
	// Promise 3: what was in flight or finished within the last checkpoint's
	// 100 ms, per kill. Three senders a millisecond apart make about 300.
	if most := uint64(3 * len(sats) * 600); repeats > most {
		t.Errorf("got %d repeats, want at most %d", repeats, most)
	}
}

// waitForAll waits until every satellite has every accepted message of others.
func waitForAll(t *testing.T, sats []*satellitetest.Satellite, senders []*sender) {
	t.Helper()
	total, own := 0, map[string]int{}
	for _, s := range senders {
		n := len(s.accepted())
		total += n
		own[s.sat.ID()] += n
	}
	for _, sat := range sats {
		want := uint64(total - own[sat.ID()])
		eventually(t, fmt.Sprintf("satellite %s has %d messages (has %+v)", sat.ID(), want, sat.Stats()), func() bool {
			return sat.Stats().Distinct >= want
		})
	}
}

// Invariant: a satellite that is down costs the broker an entry in a
// checkpoint, and gets everything in order when it returns, also from another
// process.
func TestASatelliteDownForTenThousandMessagesGetsThemAll(t *testing.T) {
	const messages = 10_000
	r := startRelay(t, "--ping-interval", "1s")
	sats := satellitetest.StartFleet(t, 3, satellitetest.Options{})
	down, well := sats[0], sats[1]
	r.register(down)
	r.register(well)
	id := r.register(sats[2])
	down.SetBehaviour(satellitetest.Behaviour{Mode: satellitetest.Down})
	var wg sync.WaitGroup
	for worker := range 32 {
		wg.Go(func() {
			for i := worker; i < messages; i += 32 {
				if err := sats[2].Relay(t.Context(), r.url(), id, fmt.Sprint(i), ""); err != nil {
					t.Errorf("relay: %v", err)
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "the healthy one has everything", func() bool { return well.Stats().Distinct == messages })
	if got := down.Stats().Notifies; got != 0 {
		t.Fatalf("the dead satellite got %d calls", got)
	}
	r.kill()
	r.start()
	down.SetBehaviour(satellitetest.Behaviour{})
	eventually(t, "the one that was down has everything", func() bool { return down.Stats().Distinct == messages })
	st := down.Stats()
	t.Logf("caught up: %+v", st)
	if st.OutOfOrder != 0 || st.Overlapping != 0 || st.Repeats != 0 || !slices.IsSorted(down.IDs()) {
		t.Errorf("got %+v, want %d in order and none twice", st, messages)
	}
	if got, want := down.IDs(), well.IDs(); !slices.Equal(got, want) {
		t.Error("the two satellites saw different messages or another order")
	}
}

// Invariant: SIGTERM repeats nothing and loses nothing.
func TestStoppedAndStartedRepeatsNothing(t *testing.T) {
	r := startRelay(t)
	sats := satellitetest.StartFleet(t, 5, satellitetest.Options{Keep: satellitetest.KeepBodies})
	s := &sender{name: "s", sat: sats[0]}
	for i, sat := range sats {
		if id := r.register(sat); i == 0 {
			s.id = id
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.run(ctx, r, 0) })
	for range 3 {
		before := len(s.accepted())
		eventually(t, "traffic flows", func() bool { return len(s.accepted()) > before+200 })
		r.stop()
		r.start()
	}
	stop()
	wg.Wait()
	waitForAll(t, sats, []*sender{s})
	verdict(t, sats, []*sender{s})
	if r.log.lapsed() {
		t.Log("NOT JUDGED: repeats, as the relay's lease lapsed in this run: what that repeats is promise 3's")
		return
	}
	for _, sat := range sats {
		if got := sat.Stats().Repeats; got != 0 {
			t.Errorf("satellite %s: got %d repeats, want 0", sat.ID(), got)
		}
	}
}
