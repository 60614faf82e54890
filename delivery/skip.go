package delivery

import (
	"context"
	"errors"
	"slices"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
)

var (
	errNoLane = errors.New("the satellite is not known here, or has registered anew meanwhile; try again")
	errMoving = errors.New("the partition is being handed over; try again")
)

// onAsk does what an operator asks of a partition's owner. It answers for no
// partition that it does not own.
func (w *Worker) onAsk(ctx context.Context, p int, q cluster.Question) (cluster.Answer, bool) {
	if q.Kind != cluster.QuestionSkip || !w.owns(p) {
		return cluster.Answer{}, false
	}
	a, err := w.skip(ctx, p, q)
	if ctx.Err() != nil {
		return a, false
	}
	if err != nil {
		a.Error = err.Error()
	}
	a.Worker = w.events.worker
	return a, true
}

// owns tells whether calls of a partition's satellites are this worker's now.
func (w *Worker) owns(p int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.serving[p] && w.member.Alive()
}

// skipped is what a skip did to a lane.
type skipped struct {
	first, count uint64
	position     uint64
	err          error
}

// skip moves a satellite's lane up to a message, and answers when the
// checkpoint that says so is written: an answered skip is never undone. To skip
// twice does nothing the second time.
func (w *Worker) skip(ctx context.Context, p int, q cluster.Question) (cluster.Answer, error) {
	lp := w.loopOf(p)
	own, err := w.ownBetween(ctx, lp, p, q)
	if err != nil {
		return cluster.Answer{}, err
	}
	s, ok := askWithin(ctx, lp, func() (s skipped) {
		l := lp.laneOf(p, q)
		if l == nil {
			s.err = errNoLane
			return s
		}
		s.first = l.next
		s.count = lp.skip(l, min(q.To, l.part.readTo), own)
		if s.position = l.position(); s.count > 0 {
			lp.skipped(l, gap{s.first, s.position, s.count, reasonOperator})
			l.gap.dueAt = lp.now
		}
		return s
	})
	if !ok {
		return cluster.Answer{}, ctx.Err()
	}
	if s.err != nil {
		return cluster.Answer{}, s.err
	}
	a := cluster.Answer{Count: s.count, Position: s.position}
	if s.position >= s.first {
		a.First, a.Last = s.first, s.position
		w.log.Info("skipped as an operator asked", "satellite", q.Satellite, "first", a.First, "last", a.Last, "count", a.Count)
	}
	return a, w.saver.checkpointNow(ctx, p)
}

// ownBetween lists the satellite's own messages among those to be skipped: they
// do not expire, for they were never owed to it.
func (w *Worker) ownBetween(ctx context.Context, lp *loop, p int, q cluster.Question) (own []uint64, err error) {
	type span struct {
		from, to uint64
		own      bool
	}
	s, ok := askWithin(ctx, lp, func() (s span) {
		if l := lp.laneOf(p, q); l != nil {
			s = span{l.next, min(q.To, l.part.readTo), l.fig.sent > l.fig.own}
		}
		return s
	})
	if !ok {
		return nil, ctx.Err()
	}
	for at := s.from; s.own && at <= s.to; {
		entries, next, err := w.relay.Read(ctx, at, blockMessages, blockBytes)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.Seq <= s.to && e.Sender == q.Satellite {
				own = append(own, e.Seq)
			}
		}
		if len(entries) == 0 {
			break
		}
		at = max(next, at+1)
	}
	return own, nil
}

// laneOf is the lane that a question is about, nil if it is not here.
func (lp *loop) laneOf(p int, q cluster.Question) *lane {
	part := lp.parts[p]
	if part == nil || part.resting {
		return nil
	}
	l := part.lanes[registry.ID(q.Satellite)]
	if l == nil || q.Generation != 0 && l.sat.Generation != q.Generation {
		return nil
	}
	return l
}

// skip moves a lane over everything up to last, and returns how many messages
// expired by that. A call under way is cut off. own are its own messages in
// between, in order.
func (lp *loop) skip(l *lane, last uint64, own []uint64) (expired uint64) {
	if last < l.next {
		return 0
	}
	lp.giveUp(l)
	first, before := max(l.next, l.counted+1), l.fig.expired
	l.pass(last, &l.fig.expired)
	i, _ := slices.BinarySearch(own, first)
	j, _ := slices.BinarySearch(own, last+1)
	mine := min(uint64(max(j-i, 0)), l.fig.expired-before)
	l.fig.own += mine
	l.fig.expired -= mine
	expired = l.fig.expired - before
	lp.met.expired.Add(expired)
	if l.tries > 0 { // what failed was a message that it need not get any more
		lp.met.parked.Add(-1)
		l.tries, l.retryAt, l.notBefore, l.lastErr = 0, 0, 0, ""
	}
	if l.state == parked {
		lp.retries.remove(l)
		lp.enqueue(l)
	}
	return expired
}

// askWithin is ask for callers that must not wait for a loop that has stopped.
func askWithin[T any](ctx context.Context, lp *loop, f func() T) (result T, ok bool) {
	done := make(chan T, 1)
	lp.post(func() { done <- f() })
	lp.world.turn(lp)
	select {
	case result = <-done:
		return result, true
	case <-ctx.Done():
		return result, false
	}
}
