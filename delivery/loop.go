package delivery

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/co2relay/co2relay/internal/caller"
	"github.com/co2relay/co2relay/registry"
)

// sender carries calls to satellites. Its methods are called by the loop that
// owns it, but for wake. What became of a call comes back by loop.settle.
type sender interface {
	call(l *lane, m *message) // begins a call
	abort(l *lane)            // gives up the call under way, and its connection
	idle(l *lane)             // closes the lane's connection when no call is under way
	poll(block bool)          // handles what the network has; block waits for something, or for wake
	sweep(now int64)          // closes connections that were idle for long
	wake()                    // ends a blocking poll; from any goroutine
	close()
}

// outcome is what became of a call.
type outcome struct {
	verdict    caller.Verdict
	reason     string // constant text, a metric's label
	err        error  // nil where an answer came
	retryAfter time.Duration
	loop6      bool
}

// How much a loop does before it looks at the network again, so that a burst
// to thousands of lanes does not keep the answers waiting.
//
// And how many calls of lanes at the head it begins before answers have come,
// and how many in a row for one lane: with few connections in use at a time,
// what the kernel keeps of them is still in the processor's cache when the
// answer comes. That makes a delivery to 10,000 satellites a quarter cheaper
// (docs/benchmarks.md). Satellites that take their time are not waited for.
const (
	startsPerTurn   = 64
	mostYoung       = 64                    // calls without an answer, of lanes at the head
	youngFor        = 4 * time.Millisecond  // a call that has waited so long does not count
	silence         = time.Millisecond      // nor do any when nothing has come for so long
	turnsInARow     = 8                     // messages before a lane at the head lets another one go on
	placePatience   = 20 * time.Millisecond // that a call may hold a place without an answer
	turnsPerPlace   = 64                    // messages before a lane that catches up lets another one have its place
	maxRetryAfter   = time.Hour
	maxMessageSkips = 4096 // own or expired messages passed in one go
)

// loop is an event loop with the lanes of some partitions. All that it holds is
// touched by its own goroutine only; others reach it by post.
type loop struct {
	cfg    Config
	ring   *ring
	blocks *blockCache
	sender sender
	budget budget
	alive  func() bool   // may this worker call at all; from any goroutine
	owned  *atomic.Int64 // partitions of the worker
	world  world
	emit   func(eventOf)
	tell   func(ev eventOf, done func(written bool)) // emits, and says what became of it, from any goroutine
	pace   gapPace
	ctx    context.Context
	met    *loopMetrics
	zero   time.Time // of the loop's clock

	mail     mailbox
	tickDue  atomic.Bool
	stopped  bool
	now      int64 // the loop's clock: nanoseconds since zero, monotonic
	wall     int64 // Unix nanoseconds
	seen     uint64
	parts    map[int]*partition
	live     queue   // lanes at the head with something to do
	catching queue   // lanes behind with something to do
	places   int     // taken by lanes that catch up
	window   int     // young calls that lanes at the head may have
	waiting  []*lane // at the head
	spare    []*lane // the former waiting, to be used again
	calls    callList
	gaps     []*lane // that have a gap
	retries  retryHeap
}

// run turns the loop until stop is posted.
func (lp *loop) run() {
	alarm := time.AfterFunc(time.Hour, func() { lp.post(lp.silent) })
	defer alarm.Stop()
	for !lp.stopped {
		lp.readClock()
		lp.readMail()
		wait := lp.start()
		if wait > 0 {
			alarm.Reset(wait)
		}
		lp.sender.poll(wait != 0 && !lp.mail.full.Load() && !lp.stopped)
	}
	lp.sender.close()
}

// readClock is called when a turn begins and when the network has something:
// often enough for latencies, and cheaper than a look at each call.
func (lp *loop) readClock() {
	t := lp.world.now()
	lp.now, lp.wall = int64(t.Sub(lp.zero)), t.UnixNano()
}

// tick does what depends on time: calls that take too long, lanes whose pause
// is over, idle connections.
func (lp *loop) tick() {
	lp.tickDue.Store(false)
	limit := int64(lp.cfg.NotifyTimeout)
	for l := lp.calls.oldest; l != nil && lp.now-l.started >= limit; l = lp.calls.oldest {
		o := outcome{verdict: caller.Failed, reason: "timeout", err: errTimeout}
		if l.waits {
			o.reason, o.err = "connections", errNoConnection
		}
		lp.sender.abort(l)
		lp.settle(l, o)
	}
	if lp.places >= lp.cfg.Behind {
		lp.freePlaces()
	}
	for len(lp.retries) > 0 && lp.retries[0].retryAt <= lp.now {
		l := lp.retries[0]
		lp.retries.remove(l)
		lp.enqueue(l)
	}
	lp.sender.sweep(lp.now)
	lp.tellGaps()
}

// start begins calls for lanes that are ready, those at the head first, and
// tells how long the loop may wait for the network before it goes on: negative,
// if it has nothing else to do.
func (lp *loop) start() (wait time.Duration) {
	lp.calls.age(lp.now - int64(youngFor))
	for l := lp.budget.next(); l != nil; l = lp.budget.next() {
		if lp.mayCall(l) {
			lp.sender.call(l, l.msg)
		}
	}
	for range startsPerTurn {
		if lp.calls.young >= lp.window {
			break
		}
		l := lp.live.pop()
		if l == nil {
			break
		}
		l.turns = 0
		lp.advance(l)
	}
	for range startsPerTurn {
		if lp.places >= lp.cfg.Behind {
			break
		}
		l := lp.catching.pop()
		if l == nil {
			break
		}
		lp.advance(l)
	}
	switch {
	case lp.catching.len() > 0 && lp.places < lp.cfg.Behind:
		return 0
	case lp.live.len() == 0:
		return -1
	case lp.calls.young < lp.window:
		return 0
	default:
		return silence
	}
}

// silent lets more calls begin: nothing has come since the loop began to wait
// for it, so these satellites take their time.
func (lp *loop) silent() { lp.calls.age(lp.now + 1) }

// enqueue puts a lane that has something to do where its turn will come.
func (lp *loop) enqueue(l *lane) {
	l.state = ready
	if l.next <= lp.seen && lp.ring.get(l.next) == nil {
		lp.catching.push(l)
		return
	}
	lp.live.push(l)
}

// advance moves a lane on: to its next call, or to wherever it has to wait.
func (lp *loop) advance(l *lane) {
	if l.state == gone {
		return
	}
	if l.part.resting || !lp.alive() {
		lp.rest(l)
		return
	}
	for range maxMessageSkips {
		if l.next > lp.seen {
			lp.leavePlace(l)
			l.state, l.block = atHead, nil
			lp.waiting = append(lp.waiting, l)
			return
		}
		m := lp.find(l)
		if m == nil {
			return
		}
		switch {
		case m.hash == l.hash && m.sender == l.sat.ID: // the ids seldom need to be fetched
			l.pass(m.seq, &l.fig.own)
		case l.sat.MaxAge > 0 && lp.wall-m.at > int64(l.sat.MaxAge):
			lp.expire(l, m.seq, reasonMaxAge)
		default:
			lp.call(l, m)
			return
		}
	}
	lp.enqueue(l)
}

func (lp *loop) call(l *lane, m *message) {
	l.state, l.msg, l.started, l.retriedOnce = calling, m, lp.now, false
	lp.calls.add(l)
	l.part.calls++
	lp.sender.call(l, m)
}

// mayCall asks the lease again for a call that is not sent yet because it waited
// for its connection.
func (lp *loop) mayCall(l *lane) bool {
	if lp.alive() {
		return true
	}
	lp.lapsed(l)
	return false
}

// lapsed gives up a call that was not sent before the lease was over: somebody
// else may be calling the satellite.
func (lp *loop) lapsed(l *lane) {
	lp.giveUp(l)
	lp.rest(l)
}

// giveUp ends a lane's call, if one is under way, without an outcome: its
// message stays undone.
func (lp *loop) giveUp(l *lane) {
	if l.state != calling {
		return
	}
	lp.sender.abort(l)
	lp.calls.remove(l)
	l.part.calls--
	l.epoch++
	l.msg, l.state = nil, parked
}

// expire moves a lane over messages that it will never get.
func (lp *loop) expire(l *lane, last uint64, why string) {
	first, before := l.next, l.fig.expired
	l.pass(last, &l.fig.expired)
	lp.met.expired.Add(l.fig.expired - before)
	// It is told also where an earlier owner has counted it: that one may have been killed before it told.
	lp.skipped(l, gap{first, last, last - first + 1, why})
}

// settle is the one place that decides what a call's outcome means for its lane.
func (lp *loop) settle(l *lane, o outcome) {
	if l.state != calling {
		return
	}
	lp.calls.remove(l)
	l.part.calls--
	m := l.msg
	l.msg = nil
	l.epoch++
	if o.verdict == caller.Failed {
		lp.park(l, o)
		return
	}
	l.loop6 = o.loop6
	if l.tries > 0 {
		lp.emit(eventOf{kind: "resumed", sat: l.sat.ID, first: m.seq})
		lp.met.parked.Add(-1)
		l.tries, l.retryAt, l.notBefore, l.lastErr = 0, 0, 0, ""
	}
	l.everWorked = true
	if m.seq > l.counted {
		l.fig.recvAt = lp.wall
	} else {
		lp.met.repeats.Add(1)
	}
	if o.verdict == caller.Refused {
		l.pass(m.seq, &l.fig.refused)
		lp.met.refused.add(o.reason)
		lp.emit(eventOf{kind: "refused", sat: l.sat.ID, first: m.seq, last: m.seq, count: 1, reason: o.reason})
	} else {
		l.pass(m.seq, &l.fig.received)
		lp.met.delivered.Add(1)
	}
	lp.met.latency.observe(lp.wall - m.at)
	lp.next(l)
}

// next lets a lane go on after a call. After a while it lets others have its
// place, if it catches up, or its turn.
func (lp *loop) next(l *lane) {
	l.turns++
	switch {
	case l.behind && l.turns >= turnsPerPlace && lp.catching.len() > 0:
		lp.leavePlace(l)
		l.state, l.block = ready, nil
		lp.catching.push(l)
	case !l.behind && lp.live.len() > 0 && l.next <= lp.seen && (l.turns >= turnsInARow || lp.calls.young >= lp.window):
		l.state = ready
		lp.live.push(l)
	default:
		lp.advance(l)
	}
}

// park has a lane stand still after a failed call: exponential backoff with
// full jitter, but never before the satellite's own Retry-After.
func (lp *loop) park(l *lane, o outcome) {
	l.everWorked = false
	l.lastErr = o.reason
	if o.err != nil {
		l.lastErr = o.err.Error()
	}
	if l.tries == 0 {
		lp.met.parked.Add(1)
	}
	l.tries++
	lp.met.failed.add(o.reason)
	lp.emit(eventOf{kind: "parked", sat: l.sat.ID, first: l.next, count: 1, reason: l.lastErr})
	longest := lp.cfg.RetryBase << min(l.tries-1, 20)
	if longest > lp.cfg.RetryCap || longest <= 0 {
		longest = lp.cfg.RetryCap
	}
	pause := lp.world.chance(int64(longest)) + 1
	l.notBefore = lp.now + int64(min(o.retryAfter, maxRetryAfter))
	l.retryAt = max(lp.now+pause, l.notBefore)
	l.part.moved()
	lp.rest(l)
}

// rest has a lane wait for its time or for a sign of life. A lane of a
// partition that is being released rests for good.
func (lp *loop) rest(l *lane) {
	lp.leavePlace(l)
	l.state, l.block = parked, nil
	if l.tries == 0 && !l.part.resting {
		l.retryAt = lp.now + int64(time.Second) // the lease lapsed: look again soon
	}
	if !l.part.resting {
		lp.retries.add(l)
	}
}

// nudge tries a parked lane at once. Its satellite's own Retry-After stands,
// unless it has registered again.
func (lp *loop) nudge(l *lane, registered bool) {
	if l.state == parked && !l.part.resting && (registered || lp.now >= l.notBefore) {
		lp.retries.remove(l)
		lp.enqueue(l)
	}
}

// appended takes note of new messages, counts their senders' calls, and gives
// the lanes that wait at the head their turn.
func (lp *loop) appended(ms []*message) {
	for _, m := range ms {
		if p := lp.parts[m.part]; p != nil && m.seq > p.readTo {
			countSent(p, m)
		}
	}
	lp.seen = ms[len(ms)-1].seq
	for _, p := range lp.parts {
		if p.readTo < lp.seen {
			p.readTo = lp.seen
			p.changed = p.changed || len(p.lanes) > 0
		}
	}
	woken := lp.waiting
	lp.waiting = lp.spare[:0]
	for _, l := range woken {
		if l.state == atHead {
			l.state = ready
			lp.live.push(l)
		}
	}
	clear(woken)
	lp.spare = woken
}

// rewind clamps everything to the end of a log that went back.
func (lp *loop) rewind(last uint64) bool {
	lp.seen = last
	for _, p := range lp.parts {
		p.readTo = min(p.readTo, last)
		for _, l := range p.lanes {
			gone := l.state == calling && l.msg.seq > last
			if gone {
				lp.giveUp(l)
			}
			l.next, l.counted, l.block = min(l.next, last+1), min(l.counted, last), nil
			if gone {
				lp.enqueue(l)
			}
		}
		p.moved()
	}
	return true
}

// addLane begins a lane at the message after position.
func (lp *loop) addLane(p *partition, sat *registry.Satellite, position uint64) *lane {
	l := &lane{
		sat: sat, part: p, hash: hashID(sat.ID), next: position + 1, counted: position, retryPos: -1,
	}
	p.lanes[sat.ID] = l
	p.moved()
	return l
}

// removeLane ends a lane and everything that it has under way.
func (lp *loop) removeLane(l *lane) {
	lp.giveUp(l)
	lp.sender.idle(l)
	lp.retries.remove(l)
	lp.leavePlace(l)
	if l.tries > 0 {
		lp.met.parked.Add(-1)
	}
	l.epoch++
	l.state, l.block, l.msg = gone, nil, nil
}
