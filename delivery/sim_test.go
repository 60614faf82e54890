package delivery

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The simulation runs the real lanes, loops, claims, checkpoints and figures of
// this package against a log, a registry, a partition store and satellites in
// memory, all on one goroutine, with time and chance from a seed. DESIGN.md
// says what it checks. A seed that failed is run again, with all that happens
// printed, by
//
//	CO2_SIM_SEED=4711 go test ./delivery -run TestSimulation
//
// and CO2_SIM_SEEDS is how many are run, from the first one on.
const (
	simSeeds      = 10_000
	simSeedsShort = 1000 // with -short, and under the race detector
)

func TestSimulationHoldsThePromises(t *testing.T) {
	t.Parallel()
	if text := os.Getenv("CO2_SIM_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("CO2_SIM_SEED: %v", err)
		}
		s := newSim(seed)
		s.trace = func(line string) { t.Log(line) }
		s.run()
		if s.failed != "" {
			t.Fatalf("seed %d: %s", seed, s.failed)
		}
		return
	}
	seeds := uint64(simSeeds)
	if testing.Short() || raceDetector {
		seeds = simSeedsShort
	}
	if text := os.Getenv("CO2_SIM_SEEDS"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("CO2_SIM_SEEDS: %v", err)
		}
		seeds = n
	}
	began := time.Now()
	failed, sum := simulate(seeds, nil, 10)
	for _, s := range failed {
		t.Errorf("seed %d (CO2_SIM_SEED=%d repeats it): %s", s.seed, s.seed, s.failed)
	}
	t.Logf("%d seeds in %s: %s", seeds, time.Since(began).Round(time.Millisecond), sum)
	if sum.deliveries == 0 || sum.repeats == 0 || sum.moves == 0 || sum.gaps == 0 {
		t.Errorf("the simulation does not do what it should: %s", sum)
	}
}

// A simulation that finds nothing proves little, unless it finds what is broken
// on purpose. DESIGN.md lists what else was broken by hand.
func TestTheSimulationNoticesABrokenRule(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*simRules){
		"a partition is served before its registrations are known": func(r *simRules) { r.noWaitRevision = true },
		"a worker calls without a lease":                           func(r *simRules) { r.noLease = true },
		"a checkpoint is written by who is not the owner":          func(r *simRules) { r.noCompare = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if failed, sum := simulate(3000, spoil, 1); len(failed) == 0 {
				t.Errorf("nothing was found: %s", sum)
			} else {
				t.Logf("seed %d: %s", failed[0].seed, failed[0].failed)
			}
		})
	}
}

func TestASimulationIsRepeatedExactly(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		var traces [2]string
		for i := range traces {
			var b strings.Builder
			s := newSim(seed)
			s.trace = func(line string) { fmt.Fprintln(&b, line) }
			s.run()
			traces[i] = b.String()
		}
		if traces[0] != traces[1] {
			t.Errorf("seed %d did not do the same twice", seed)
		}
	}
}

// simSum is what happened in all seeds together.
type simSum struct {
	deliveries, repeats, overlaps, moves, kills, gaps, late, events uint64
}

func (s *simSum) add(o *simSum) {
	s.deliveries += o.deliveries
	s.repeats += o.repeats
	s.overlaps += o.overlaps
	s.moves += o.moves
	s.kills += o.kills
	s.gaps += o.gaps
	s.late += o.late
	s.events += o.events
}

func (s *simSum) String() string {
	return fmt.Sprintf("%d events, %d deliveries, %d repeats, %d calls beside a dead owner's, %d claims, %d kills, %d gaps, %d late registrations",
		s.events, s.deliveries, s.repeats, s.overlaps, s.moves, s.kills, s.gaps, s.late)
}

// simulate runs seeds from 0 on, until enough of them have failed. spoil, if
// there is one, breaks a rule of the protocol.
func simulate(seeds uint64, spoil func(*simRules), enough int) (failed []*sim, sum *simSum) {
	sum = &simSum{}
	var mu sync.Mutex
	var next atomic.Uint64
	var all sync.WaitGroup
	for range max(1, runtime.GOMAXPROCS(0)-1) { // one core is for the tests beside it
		all.Go(func() {
			for {
				seed := next.Add(1) - 1
				if seed >= seeds {
					return
				}
				s := newSim(seed)
				if spoil != nil {
					spoil(&s.rules)
				}
				s.run()
				mu.Lock()
				sum.add(&s.sum)
				if s.failed != "" {
					failed = append(failed, s)
				}
				done := len(failed) >= enough
				mu.Unlock()
				if done {
					return
				}
			}
		})
	}
	all.Wait()
	return failed, sum
}

// simRules are rules of the protocol that lie outside of this package's code,
// in what the simulation does in its stead.
type simRules struct {
	noWaitRevision bool // a partition is served before its registrations are known
	noLease        bool // a worker is always alive
	noCompare      bool // checkpoints are written whoever owns the partition
}

func newSim(seed uint64) *sim {
	s := &sim{
		seed: seed,
		rng:  rand.New(rand.NewPCG(seed, 0x5ca1ab1e)),
		sats: make(map[simID]*simSat),
	}
	s.setUp()
	return s
}
