package frontend

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/co2relay/co2relay/registry"
)

// maxSenders bounds the senders that a limiter remembers; one takes about 100
// bytes. Beyond it some sender is forgotten, and so may relay a burst anew:
// nobody is refused for want of memory.
const maxSenders = 1 << 17

// limiter bounds the relay calls of each sender (--rate-limit, --rate-burst) by
// a token bucket for its host id. It knows the calls of this frontend only:
// behind n frontends a sender that uses them all may relay n times as much.
// What it refuses was never accepted, and what was accepted it does not touch.
type limiter struct {
	rate, burst float64 // calls a second, and at once
	most        int     // senders remembered
	now         func() time.Time

	mu    sync.Mutex
	by    map[registry.ID]*tokens
	swept time.Time
}

type tokens struct {
	left float64
	at   time.Time
}

// newLimiter gives nil, which lets everything through, for a rate of 0.
func newLimiter(rate float64, burst int) *limiter {
	if rate <= 0 {
		return nil
	}
	b := float64(burst)
	if burst == 0 {
		b = math.Max(1, math.Ceil(rate))
	}
	return &limiter{rate: rate, burst: b, most: maxSenders, now: time.Now, by: make(map[registry.ID]*tokens)}
}

// validateRate reports what is wrong with the two flags.
func validateRate(rate float64, burst int) error {
	var errs []error
	if math.IsNaN(rate) || rate < 0 || rate > 1e6 {
		errs = append(errs, fmt.Errorf("--rate-limit: %g is not between 0 and 1000000", rate))
	}
	if burst < 0 || burst > 1e6 {
		errs = append(errs, fmt.Errorf("--rate-burst: %d is not between 0 and 1000000", burst))
	}
	if burst > 0 && rate == 0 {
		errs = append(errs, errors.New("--rate-burst: works together with --rate-limit only"))
	}
	return errors.Join(errs...)
}

// allow takes a token of the sender. Where it has none, it tells after what
// time there will be one.
func (l *limiter) allow(id registry.ID) (wait time.Duration, ok bool) {
	if l == nil {
		return 0, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	t := l.by[id]
	if t == nil {
		l.makeRoom(now)
		t = &tokens{left: l.burst, at: now}
		l.by[id] = t
	}
	t.refill(l, now)
	if t.left < 1 {
		return time.Duration((1 - t.left) / l.rate * float64(time.Second)), false
	}
	t.left--
	return 0, true
}

// refill adds what has come since the last look. A clock that was set back
// takes nothing away.
func (t *tokens) refill(l *limiter, now time.Time) {
	if d := now.Sub(t.at).Seconds(); d > 0 {
		t.left = math.Min(l.burst, t.left+l.rate*d)
	}
	t.at = now
}

// makeRoom forgets senders whose bucket is full again, at most once a second,
// and if that did not help, any one.
func (l *limiter) makeRoom(now time.Time) {
	if len(l.by) < l.most {
		return
	}
	if now.Sub(l.swept) >= time.Second {
		l.swept = now
		for id, t := range l.by {
			if t.left+l.rate*now.Sub(t.at).Seconds() >= l.burst {
				delete(l.by, id)
			}
		}
	}
	for id := range l.by {
		if len(l.by) < l.most {
			return
		}
		delete(l.by, id)
	}
}

// limitRate is nil, or the Fault that a sender gets that relays too much. The
// wait in it is rounded up.
func (f *Frontend) limitRate(id registry.ID) error {
	wait, ok := f.limiter.allow(id)
	if ok {
		return nil
	}
	seconds := math.Ceil(wait.Seconds()*10) / 10
	return &refusal{"rate_exceeded", registryFault("rate exceeded: '%s' may relay %g times a second here, and %g times at once; this message was not accepted, send it again in %.1f seconds",
		id, f.limiter.rate, f.limiter.burst, seconds)}
}
