package frontend

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

// freeBody is the size in bytes up to which a body is not paid for: net/http
// holds as much for every connection, whose number is bounded.
const freeBody = 4 << 10

// smallBody is the size in bytes up to which a body is paid from a share of
// the budget of its own, so that large calls cannot keep small ones waiting.
// An answer up to it is not paid for.
const smallBody = 16 << 10

// budgetWait is how long a call waits for its share of the budget.
const budgetWait = 5 * time.Second

// budget bounds the bytes that all calls together hold in memory: bodies from
// before they are read until their call is answered, and large answers from
// before they are built until they are written. Whoever waits is served in order.
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
	wait time.Duration // budgetWait, which a test replaces
	all  *semaphore.Weighted
	mu   *sync.Mutex
	by   map[netip.Addr]*share
}

type share struct {
	sem   *semaphore.Weighted
	users int
}

func newPool(size int64) pool {
	return pool{size: size, wait: budgetWait, all: semaphore.NewWeighted(size), mu: new(sync.Mutex), by: make(map[netip.Addr]*share)}
}

// take waits for n bytes, and no longer than the pool's wait.
func (p *pool) take(ctx context.Context, from netip.Addr, n int64) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, p.wait)
	defer cancel()
	return p.acquire(from, n, func(s *semaphore.Weighted, n int64) error { return s.Acquire(ctx, n) })
}

// takeNow takes n bytes if they are free.
func (p *pool) takeNow(from netip.Addr, n int64) (release func(), err error) {
	return p.acquire(from, n, func(s *semaphore.Weighted, n int64) error {
		if !s.TryAcquire(n) {
			return errNoneFree
		}
		return nil
	})
}

var errNoneFree = errors.New("nothing of the budget is free")

func (p *pool) acquire(from netip.Addr, n int64, get func(*semaphore.Weighted, int64) error) (release func(), err error) {
	n = min(n, p.size/2)
	s := p.join(from)
	if err := get(s.sem, n); err != nil {
		p.leave(from, s)
		return nil, err
	}
	if err := get(p.all, n); err != nil {
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

// errBusy is that there is no room for an answer. As a whole call's outcome it
// is told by a status; beside others, and on a page, by this Fault.
var errBusy = &xmlrpc.Fault{Code: xmlrpc.CodeInternal, Text: "the relay holds as many answers in memory as it takes; try again"}

// answer is a call's share of the budget for answers. It is taken before what
// it is for is built: a call that waits for it holds next to nothing.
type answer struct {
	pool    *pool
	from    netip.Addr
	taken   int64
	refused bool
	gives   []func()
}

// answer is for a call of an address; release is to be called once.
func (b *budget) answer(from netip.Addr) *answer { return &answer{pool: &b.answers, from: from} }

// reserve makes the share hold n bytes in all. At first it waits for its turn;
// a share that grows is refused at once, as others wait for what it holds, and
// so is one that was refused before. The error is errBusy.
func (a *answer) reserve(ctx context.Context, n int64) error {
	if n <= max(a.taken, smallBody) {
		return nil
	}
	var give func()
	err := errNoneFree
	switch {
	case a.refused:
	case a.taken == 0:
		give, err = a.pool.take(ctx, a.from, n)
	default:
		n = max(n, a.taken+smallBody) // in steps, for those that grow by little
		give, err = a.pool.takeNow(a.from, n-a.taken)
	}
	if err != nil {
		a.refused = true
		return errBusy
	}
	a.taken, a.gives = n, append(a.gives, give)
	return nil
}

func (a *answer) release() {
	for _, give := range a.gives {
		give()
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
