package pinger

import (
	"container/heap"
	"context"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/co2relay/co2relay/registry"
)

const (
	firstBackoff = time.Second
	longestWait  = 500 * time.Millisecond // the member wants to see progress
	leaseRetry   = 100 * time.Millisecond // until the lease is looked at again
)

// target is a satellite that this pinger pings. No goroutine belongs to it: it
// waits in a queue or has one ping under way.
type target struct {
	part  *part
	sat   *registry.Satellite
	fig   registry.Ping
	said  *said     // nil: it never failed
	at    time.Time // of the next ping, while queued
	began time.Time // of the last ping
	place int       // in its queue, -1: in none
	in    *queue

	pinging bool
	gone    bool // deregistered, or a new generation took its place
	// closing says that the last ping timed out and that the delivery worker
	// was asked to close its idle connection: if the next ping succeeds, that
	// was the reason.
	closing bool
}

// queue is a heap by time.
type queue []*target

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

func (q *queue) Push(x any) {
	t := x.(*target)
	t.place, t.in = len(*q), q
	*q = append(*q, t)
}

func (q *queue) Pop() any {
	old := *q
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	t.place, t.in = -1, nil
	return t
}

// next is the target whose turn it is, nil if none is due; otherwise wait is
// how long none will be.
func (q *queue) next(now time.Time) (t *target, wait time.Duration) {
	for len(*q) > 0 {
		t = (*q)[0]
		if !t.live() {
			heap.Pop(q)
			continue
		}
		if wait = t.at.Sub(now); wait > 0 {
			return nil, wait
		}
		return t, 0
	}
	return nil, longestWait
}

// live tells whether the target's partition is still owned and served.
func (t *target) live() bool {
	return !t.gone && !t.part.draining && t.part.ctx.Err() == nil
}

// plan queues a target for a time. The caller holds mu, as everywhere here.
func (p *Pinger) plan(t *target, at time.Time) {
	t.at = at
	q := &p.steady
	if t.fig.Failing > 0 || t.closing {
		q = &p.failing
	}
	if t.place >= 0 {
		if t.in == q {
			heap.Fix(q, t.place)
			return
		}
		heap.Remove(t.in, t.place)
	}
	heap.Push(q, t)
}

// pingNow pings a target at once, unless that is being done or was just done.
func (p *Pinger) pingNow(t *target, now time.Time) {
	if t.pinging || t.gone || now.Sub(t.began) < p.cfg.pingedLately {
		return
	}
	p.plan(t, now)
	p.signal()
}

// schedule starts the pings that are due, until ctx ends.
func (p *Pinger) schedule(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		p.member.Progress()
		timer.Reset(p.startDue(time.Now()))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.wake:
		}
	}
}

// startDue starts what is due and gives the time until there may be more. The
// lease is looked at before each ping: a process that slept must not ping what
// is another's by now.
func (p *Pinger) startDue(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.takeIn(now)
	wait := longestWait
	for p.busy < p.cfg.Concurrency {
		t, w := p.steady.next(now)
		wait = min(wait, w)
		if t == nil && p.busyFail < p.cfg.Concurrency/2 {
			t, w = p.failing.next(now)
			wait = min(wait, w)
		}
		if t == nil {
			break
		}
		if !p.member.Alive() {
			return leaseRetry
		}
		p.start(t, now)
		wait = longestWait
	}
	return max(wait, time.Millisecond)
}

func (p *Pinger) start(t *target, now time.Time) {
	fromFailing := t.in == &p.failing
	heap.Pop(t.in)
	t.pinging, t.began = true, now
	p.busy++
	t.part.busy++
	if fromFailing {
		p.busyFail++
	}
	sat, ctx := t.sat, t.part.ctx
	p.tasks.Go(func() {
		r := p.ping(ctx, sat)
		p.settle(t, sat.ID, r, fromFailing)
	})
}

// pause is how long to wait from now until the next ping: one that answers is
// pinged at its own moment of each interval, so that all pings are spread
// evenly however the pingers start; one that fails, sooner.
func (p *Pinger) pause(t *target, now time.Time) time.Duration {
	if b := p.backoff(t.fig.Failing); b > 0 {
		return b
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(t.sat.ID))
	offset := time.Duration(h.Sum64()>>1) % p.cfg.Interval
	return p.cfg.Interval - (time.Duration(now.UnixNano())-offset)%p.cfg.Interval
}

// backoff is 1 s, 2 s, 4 s, … by the number of failures in a row, each up to a
// tenth less, so that what failed together is not repeated together. It is 0
// when the interval itself is not longer.
func (p *Pinger) backoff(failing uint32) time.Duration {
	if failing == 0 || failing > 30 {
		return 0
	}
	b := firstBackoff << (failing - 1)
	if b >= p.cfg.Interval {
		return 0
	}
	return b - rand.N(b/10)
}
