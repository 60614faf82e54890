package delivery

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
)

// Times of the simulation. All are shorter than the real ones, in about the
// same proportions, so that a seed has room for many failures.
const (
	simChaos      = 2 * time.Second
	simHealed     = 60 * time.Second // for everything to drain, at most
	simTick       = 25 * time.Millisecond
	simCheckpoint = 50 * time.Millisecond
	simFigures    = 300 * time.Millisecond
	simRenew      = 100 * time.Millisecond
	simLease      = 300 * time.Millisecond
	simDead       = 400 * time.Millisecond
	simRelease    = 50 * time.Millisecond
	simTimeout    = 150 * time.Millisecond // of a notify call
)

// sim is one seed's run.
type sim struct {
	seed  uint64
	rng   *rand.Rand
	rules simRules
	trace func(string)
	sum   simSum

	clock  time.Duration
	events simEvents
	serial uint64
	task   *simTask // whose code runs now, nil: the world's
	healed bool     // nothing fails any more
	failed string

	log   simLog
	parts map[int]*simRecord
	stats map[int]*simStats
	sats  map[simID]*simSat
	order []*simSat // all satellites that there can be

	revision uint64 // of SATELLITES
	changes  []registry.Change
	procs    []*simProc
	born     int
	brokerUp time.Duration // until then it answers nobody
	traits   simTraits
}

type simID = registry.ID

// simTraits are what a seed is about.
type simTraits struct {
	leave, purge, maxAge, refuse bool
	kills, pauses                bool
	lagging                      bool // of watches and readers
	flaky                        int  // percent of exchanges with the broker that fail
	workers                      int
}

// simEvent is something that happens at a time. Those of a process that is
// stopped wait until it goes on; those of a dead one never happen.
type simEvent struct {
	at     time.Duration
	serial uint64
	proc   *simProc
	do     func()
}

type simEvents []*simEvent

func (h simEvents) Len() int { return len(h) }
func (h simEvents) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].serial < h[j].serial
}
func (h simEvents) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *simEvents) Push(x any)   { *h = append(*h, x.(*simEvent)) }
func (h *simEvents) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}

func (s *sim) after(d time.Duration, p *simProc, do func()) {
	s.serial++
	heap.Push(&s.events, &simEvent{s.clock + d, s.serial, p, do})
}

// pass lets time go on until a moment, or until something failed.
func (s *sim) pass(until time.Duration) {
	for s.failed == "" && len(s.events) > 0 && s.events[0].at <= until {
		e := heap.Pop(&s.events).(*simEvent)
		s.clock = e.at
		if p := e.proc; p != nil {
			if p.dead {
				continue
			}
			if p.stoppedTo > s.clock {
				s.after(p.stoppedTo-s.clock, p, e.do)
				continue
			}
		}
		s.sum.events++
		e.do()
	}
	s.clock = max(s.clock, until)
}

func (s *sim) say(format string, args ...any) {
	if s.trace != nil {
		s.trace(fmt.Sprintf("%9.3f ", float64(s.clock)/1e6) + fmt.Sprintf(format, args...))
	}
}

func (s *sim) fail(format string, args ...any) {
	if s.failed == "" {
		s.failed = fmt.Sprintf("after %s: ", s.clock) + fmt.Sprintf(format, args...)
		s.say("FAILED %s", s.failed)
	}
}

func (s *sim) percent(n int) bool { return s.rng.IntN(100) < n }

func (s *sim) millis(most int) time.Duration {
	return time.Duration(s.rng.Int64N(int64(most)*int64(time.Millisecond)) + 1)
}

// simTask is code of a process that waits for things. It is a coroutine: only
// one runs at a time, and it hands over only where it waits.
type simTask struct {
	proc  *simProc
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
}

var errSimKilled = errors.New("killed")

func (s *sim) begin(p *simProc, f func()) {
	t := &simTask{proc: p}
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		defer func() {
			if r := recover(); r != nil && r != errSimKilled { //nolint:errorlint // a panic's value
				panic(r)
			}
		}()
		t.yield = yield
		f()
	})
	p.tasks = append(p.tasks, t)
	s.after(0, p, func() { s.resume(t) })
}

func (s *sim) resume(t *simTask) {
	before := s.task
	s.task = t
	_, more := t.next()
	s.task = before
	if !more {
		for i, other := range t.proc.tasks {
			if other == t {
				t.proc.tasks = append(t.proc.tasks[:i], t.proc.tasks[i+1:]...)
				break
			}
		}
	}
}

// sleep has the running task wait.
func (s *sim) sleep(d time.Duration) {
	t := s.task
	s.after(d, t.proc, func() { s.resume(t) })
	if !t.yield(struct{}{}) {
		panic(errSimKilled)
	}
}

var errSimBroker = errors.New("no answer from the broker")

// fate is what becomes of one exchange with the broker.
type fate int

const (
	fateDone   fate = iota
	fateLost        // the request never arrived
	fateSilent      // it arrived, the answer did not
	fateLate        // it arrives long after it was given up
)

// exchange takes a while, and says what becomes of a request.
func (s *sim) exchange() fate {
	s.sleep(s.millis(4))
	if s.clock < s.brokerUp {
		s.sleep(30 * time.Millisecond)
		return fateLost
	}
	if s.healed || !s.percent(s.traits.flaky) {
		return fateDone
	}
	s.sleep(s.millis(30))
	return fate(1 + s.rng.IntN(3))
}

// now, pause, begin, chance and turn are the world of a worker.
type simWorld struct {
	s *sim
	p *simProc
}

func (w simWorld) now() time.Time { return time.Unix(1_700_000_000, int64(w.s.clock)) }

func (w simWorld) pause(ctx context.Context, d time.Duration) {
	for end := w.s.clock + d; w.s.clock < end && ctx.Err() == nil; {
		w.s.sleep(min(end-w.s.clock, 5*time.Millisecond))
	}
}

func (w simWorld) begin(_ *sync.WaitGroup, f func()) { w.s.begin(w.p, f) }
func (w simWorld) chance(n int64) int64              { return w.s.rng.Int64N(n) }
func (w simWorld) turn(lp *loop)                     { w.p.turn(lp) }

// simLog is RELAY.
type simLog struct {
	base    uint64 // sequence of entries[0]
	first   uint64
	entries []cluster.Entry
}

func (l *simLog) last() uint64 { return l.base + uint64(len(l.entries)) - 1 }

func (l *simLog) read(from, last uint64, most int) []cluster.Entry {
	from = max(from, l.first)
	if from > last {
		return nil
	}
	return l.entries[from-l.base : min(last-l.base+1, from-l.base+uint64(most))]
}

// simTail is the log as a worker reaches it.
type simTail struct{ s *sim }

func (r simTail) Last(context.Context) (uint64, error) {
	if r.s.exchange() != fateDone {
		return 0, errSimBroker
	}
	return r.s.log.last(), nil
}

func (r simTail) State(context.Context) (cluster.LogState, error) {
	if r.s.exchange() != fateDone {
		return cluster.LogState{}, errSimBroker
	}
	return cluster.LogState{First: r.s.log.first, Last: r.s.log.last()}, nil
}

// Read may be answered by a node that lags: it has the newest entries not yet.
func (r simTail) Read(_ context.Context, from uint64, most, _ int) ([]cluster.Entry, uint64, error) {
	s := r.s
	if s.exchange() != fateDone {
		return nil, from, errSimBroker
	}
	last := s.log.last()
	if s.traits.lagging && !s.healed && s.percent(30) {
		last -= min(last-s.log.base, uint64(s.rng.IntN(20)))
	}
	es := s.log.read(from, last, min(most, 1+s.rng.IntN(30)))
	if len(es) == 0 {
		return nil, from, nil
	}
	return es, es[len(es)-1].Seq + 1, nil
}

// simRecord is a partition in PARTITIONS.
type simRecord struct {
	owner    string
	epoch    uint64
	revision uint64
	state    []byte
}

// put is a compare-and-set.
func (r *simRecord) put(expect uint64, owner string, epoch uint64, state []byte, holds simSnapshot) bool {
	if r.revision != expect {
		return false
	}
	r.owner, r.epoch, r.state = owner, epoch, state
	r.revision++
	holds.keep()
	return true
}

// simStats is a partition in STATS.
type simStats struct {
	record   registry.TrafficRecord
	revision uint64
}

// simStore is SATELLITES and STATS as a worker reaches them.
type simStore struct {
	s *sim
	p *simProc
}

func (st simStore) WaitRevision(ctx context.Context, revision uint64) error {
	for !st.s.rules.noWaitRevision && st.p.known < revision {
		st.s.sleep(2 * time.Millisecond)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func (st simStore) LoadTraffic(_ context.Context, p int) (registry.TrafficRecord, uint64, error) {
	if st.s.exchange() != fateDone {
		return registry.TrafficRecord{}, 0, errSimBroker
	}
	x := st.s.stats[p]
	return x.record, x.revision, nil
}

func (st simStore) SaveTraffic(_ context.Context, r registry.TrafficRecord, revision uint64) (uint64, error) {
	s, x := st.s, st.s.stats[r.Partition]
	s.checkRecord(&r)
	put := func() bool {
		if x.revision != revision {
			return false
		}
		x.record, x.revision = r, revision+1
		return true
	}
	switch s.exchange() {
	case fateDone:
		if !put() {
			return 0, cluster.ErrWrongRevision
		}
		return revision + 1, nil
	case fateSilent:
		put()
	case fateLate:
		s.after(s.millis(300), nil, func() { put() })
	}
	return 0, errSimBroker
}
