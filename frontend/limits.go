package frontend

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// freeBody is the size in bytes up to which a body is not paid for: net/http
// holds as much for every connection, whose number is bounded.
const freeBody = 4 << 10

// smallBody is the size in bytes up to which a body is paid from a share of
// the budget of its own, so that large calls cannot keep small ones waiting.
const smallBody = 16 << 10

// budgetWait is how long a call waits for its share of the budget.
const budgetWait = 5 * time.Second

// budget bounds the bytes that all calls together hold in memory: bodies from
// before they are read until their call is answered, and large answers until
// they are written. Whoever waits is served in order.
type budget struct {
	small   pool
	large   pool
	answers pool
}

// newBudget divides total bytes: 1/8 for small bodies, 4/8 for others, 3/8
// for answers.
func newBudget(total int64) *budget {
	return &budget{small: newPool(total / 8), large: newPool(total / 2), answers: newPool(total / 8 * 3)}
}

// body asks for what a body costs, on behalf of a caller. The error is the
// context's, or that budgetWait was not enough; else release must be called once.
func (b *budget) body(ctx context.Context, from netip.Addr, n int64) (release func(), err error) {
	switch {
	case n <= 2*freeBody:
		return func() {}, nil
	case n <= 2*smallBody:
		return b.small.take(ctx, from, n)
	}
	return b.large.take(ctx, from, n)
}

// pool is one part of the budget. No address may hold more than half of it:
// else one client that sends slowly would shut out all others.
type pool struct {
	size int64
	all  *semaphore.Weighted
	mu   *sync.Mutex
	by   map[netip.Addr]*share
}

type share struct {
	sem   *semaphore.Weighted
	users int
}

func newPool(size int64) pool {
	return pool{size: size, all: semaphore.NewWeighted(size), mu: new(sync.Mutex), by: make(map[netip.Addr]*share)}
}

func (p *pool) take(ctx context.Context, from netip.Addr, n int64) (release func(), err error) {
	n = min(n, p.size/2)
	ctx, cancel := context.WithTimeout(ctx, budgetWait)
	defer cancel()
	s := p.join(from)
	if err := s.sem.Acquire(ctx, n); err != nil {
		p.leave(from, s)
		return nil, err
	}
	if err := p.all.Acquire(ctx, n); err != nil {
		s.sem.Release(n)
		p.leave(from, s)
		return nil, err
	}
	return func() {
		p.all.Release(n)
		s.sem.Release(n)
		p.leave(from, s)
	}, nil
}

func (p *pool) join(from netip.Addr) *share {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.by[from]
	if s == nil {
		s = &share{sem: semaphore.NewWeighted(p.size / 2)}
		p.by[from] = s
	}
	s.users++
	return s
}

func (p *pool) leave(from netip.Addr, s *share) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.users--; s.users == 0 {
		delete(p.by, from)
	}
}

// Look-ups at the leader cost the broker a request each, and a stranger can
// cause one by naming an id that nobody has: so many a second and address, and
// so many at once.
const (
	lookupRate  = 20.0
	lookupBurst = 40.0
	// maxBuckets bounds the addresses remembered.
	maxBuckets = 8192
)

// rateLimit is a token bucket for each address.
type rateLimit struct {
	mu  sync.Mutex
	now func() time.Time
	by  map[netip.Addr]*bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

func newRateLimit() *rateLimit {
	return &rateLimit{now: time.Now, by: make(map[netip.Addr]*bucket)}
}

// allow takes a token of the address, if it has one.
func (l *rateLimit) allow(from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	b := l.by[from]
	if b == nil {
		if len(l.by) >= maxBuckets && !l.sweepLocked(now) {
			return false
		}
		b = &bucket{tokens: lookupBurst, at: now}
		l.by[from] = b
	}
	b.tokens = min(lookupBurst, b.tokens+lookupRate*now.Sub(b.at).Seconds())
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// sweepLocked forgets the addresses whose bucket is full again, and says
// whether that made room.
func (l *rateLimit) sweepLocked(now time.Time) bool {
	for a, b := range l.by {
		if b.tokens+lookupRate*now.Sub(b.at).Seconds() >= lookupBurst {
			delete(l.by, a)
		}
	}
	return len(l.by) < maxBuckets
}
