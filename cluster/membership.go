package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Times of the membership. A lease ends by its member's own clock a second before anybody else may take it for dead.
const (
	leaseEvery       = time.Second            // between renewals, and between polls
	leaseValid       = 3 * time.Second        // from before a renewal was sent
	leaseRetry       = 250 * time.Millisecond // after a renewal that failed
	stallAfter       = 3 * time.Second        // without Progress: the lease is not renewed
	deadAfter        = 4 * time.Second        // of answered polls without a renewal
	longestSilence   = leaseEvery * 3 / 2     // that one poll may add; what the observer slept or was cut off does not count
	unownedPatience  = 3 * time.Second        // until an unowned partition goes to the next in order
	memberTry        = 2 * time.Second        // for one exchange with the broker
	releasePatience  = 500 * time.Millisecond // for what a holder has under way
	leavePatience    = 3 * time.Second        // for writing down what a leaving member releases
	noLapse          = time.Hour
	memberSubject    = "co2.member."
	kindWorkerJoined = "worker_joined"
	kindWorkerLeft   = "worker_left"
	kindMoved        = "partition_moved"
)

// Holder does the work of the partitions that its Member owns. All its methods are called from one goroutine and must not
// block, except Release.
type Holder interface {
	// Claimed begins an ownership. state is what the last owner saved, nil if there was none.
	Claimed(p int, epoch uint64, state []byte)
	// Release ends one in order: what is under way may finish until ctx ends (500 ms), then it is aborted. It returns the
	// last state, or nil if that is what was saved last, and touches nothing of p afterwards.
	Release(ctx context.Context, p int) (state []byte)
	// Lost ends one at once: the lease lapsed, or somebody else claimed. Nothing may be saved.
	Lost(p int)
}

// Drainer is a Holder that wants to know all partitions that are about to be released, before the first Release: it stops
// beginning new work in them. All of these Releases then share one 500 ms, instead of having one each.
type Drainer interface {
	Drain(ps []int)
}

// JoinOptions say as what to join.
type JoinOptions struct {
	Role string // "delivery" or "pinger"; each role shares the partitions out by itself
	Name string // shown to people; need not be unique
	// Sole says that no other member of this role can exist, because the data directory is locked by this process and its
	// broker can be reached from nowhere else. What others left is then taken over at once, without waiting for leases to
	// end.
	Sole bool
}

// Member is one process's part in a role: a lease in WORKERS, and the partitions that it owns in PARTITIONS.
type Member struct {
	clus     *Cluster
	role, id string
	name     string
	sole     bool
	h        Holder
	log      hclog.Logger
	clock    clock
	try      time.Duration // for one exchange with the broker
	workers  *Bucket
	parts    *Bucket

	until    atomic.Int64  // end of the lease by clock, 0 without one
	progress atomic.Uint64 // raised by Progress
	changed  atomic.Bool   // what is owned has changed since the lease was written

	mu       sync.Mutex          // guards what follows
	term     uint64              // raised when the lease lapses; what was claimed in an earlier one is not owned
	renewed  time.Duration       // when the last successful renewal was sent
	revision uint64              // that it was given
	lapsing  bool                // the holder is being told of a lapse: the lease must not come back before
	owned    map[int]*holding    //
	had      map[int]uint64      // epochs of partitions lost by a lapse, to be claimed again
	lost     []int               // found lost by Save, the holder is not told yet
	released map[int]releasedOne // by the holder, but not yet in the bucket

	saving   sync.Mutex // one writer of records at a time; guards holding.revision and holding.unsure
	renewing sync.Mutex // one renewal at a time; guards left
	left     bool       // the lease is ended for good

	wake     chan struct{} // of serve
	poll     chan struct{} // of watch
	renewNow chan struct{} // of keepLease
	grants   chan grant
	releases chan release
}

// holding is one ownership.
type holding struct {
	p        int
	epoch    uint64
	revision uint64 // of the record
	unsure   bool   // a write has an unknown outcome: revision may be older than the record's
	state    []byte // saved last
}

type releasedOne struct {
	holding *holding
	state   []byte
}

// grant hands partitions over that were claimed in the bucket.
type grant struct {
	term     uint64
	holdings []*holding
}

// release asks serve to have partitions released by the holder.
type release struct {
	ps   []int
	done chan struct{}
}

// Join makes a member; Run begins its membership.
func (c *Cluster) Join(o JoinOptions, h Holder, log hclog.Logger) *Member {
	return newMember(c, o, h, log, systemClock{})
}

func newMember(c *Cluster, o JoinOptions, h Holder, log hclog.Logger, clk clock) *Member {
	m := &Member{
		clus: c, role: o.Role, name: o.Name, sole: o.Sole, h: h, clock: clk, try: memberTry,
		workers: c.Bucket(BucketWorkers), parts: c.Bucket(BucketPartitions),
		owned: make(map[int]*holding), had: make(map[int]uint64), released: make(map[int]releasedOne),
		wake: make(chan struct{}, 1), poll: make(chan struct{}, 1), renewNow: make(chan struct{}, 1),
		grants: make(chan grant), releases: make(chan release),
	}
	m.id = memberID(o.Name)
	m.log = log.With("member", m.id)
	return m
}

// memberID makes a name an identity that no other process has, not even this one's predecessor or a twin started under the
// same name: a lease and an ownership must never seem to be one's own that are not. It is also a valid part of a key.
func memberID(name string) string {
	var nonce [4]byte
	_, _ = rand.Read(nonce[:]) // never fails, by its documentation
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '_'
	}, name)
	if name == "" {
		name = "worker"
	}
	return name + "-" + hex.EncodeToString(nonce[:])
}

// ID is the member's identity: its name and a random part. Owners in PartitionRecord and workers in events are such.
func (m *Member) ID() string { return m.id }

// Alive tells whether the lease is good by this process's own clock. It is to be asked before each call to a satellite: a
// process that slept wakes up with false. It costs a reading of the clock.
func (m *Member) Alive() bool {
	until := m.until.Load()
	return until > 0 && int64(m.clock.soon()) < until
}

// Progress says that the holder's loops turn. It must be called at least once a second while Run runs, owning or not:
// without it for 3 s, the lease is not renewed, and others take over.
func (m *Member) Progress() { m.progress.Add(1) }

// Run keeps the lease, claims and releases until ctx ends; then it releases everything and ends the lease. For that it
// waits 3 s at most for a broker that does not answer. It returns nil. It can be called once.
func (m *Member) Run(ctx context.Context) error {
	lease, end := context.WithCancel(context.WithoutCancel(ctx)) // the lease holds until everything is released
	defer end()
	var leasing, watching sync.WaitGroup
	leasing.Go(func() { m.keepLease(lease) })
	watching.Go(func() { newWatcher(m).run(ctx) })
	m.serve(ctx)
	watching.Wait()
	m.leave()
	end()
	leasing.Wait()
	m.until.Store(0)
	return nil
}

// serve is the goroutine that calls the holder. It talks to nobody else, so that a broker that does not answer cannot keep
// it from saying that a lease has lapsed.
func (m *Member) serve(ctx context.Context) {
	for {
		m.catchUp()
		lapse, stop := m.clock.after(m.untilLapse())
		select {
		case <-ctx.Done():
			stop()
			return
		case <-lapse:
		case <-m.wake:
		case g := <-m.grants:
			m.take(g)
		case r := <-m.releases:
			m.release(r.ps)
			close(r.done)
		}
		stop()
	}
}

// catchUp tells the holder what it has lost. What comes after it in serve may begin new ownerships of the same partitions.
func (m *Member) catchUp() {
	m.mu.Lock()
	lost := m.lost
	m.lost = nil
	m.mu.Unlock()
	for _, p := range lost {
		m.h.Lost(p)
	}
	m.settleLapse()
}

// settleLapse ends all ownerships if the lease has lapsed. Only when the holder knows of every one may a renewal, which may
// be there already, make the member alive again: otherwise a worker that slept could go on with what is another's by now.
func (m *Member) settleLapse() {
	m.mu.Lock()
	now := m.clock.now()
	until := time.Duration(m.until.Load())
	if until == 0 || now < until {
		m.mu.Unlock()
		return
	}
	m.until.Store(0)
	m.lapsing = true
	m.term++
	owned := m.owned
	m.owned = make(map[int]*holding)
	for p, h := range owned {
		m.had[p] = h.epoch
	}
	m.mu.Unlock()
	m.log.Warn("lease lapsed, everything owned is given up", "late", (now - until).String(), "partitions", len(owned))
	for p := range owned {
		m.h.Lost(p)
	}
	m.mu.Lock()
	m.lapsing = false
	m.extend()
	m.mu.Unlock()
	signal(m.poll)
}

// extend makes the last renewal count, if it still does. The caller holds mu.
func (m *Member) extend() {
	if m.renewed > 0 && m.clock.now() < m.renewed+leaseValid {
		m.until.Store(int64(m.renewed + leaseValid))
	}
}

func (m *Member) untilLapse() time.Duration {
	until := time.Duration(m.until.Load())
	if until == 0 {
		return noLapse
	}
	return max(until-m.clock.now(), 0)
}

// take begins ownerships, unless the lease under which they were claimed has lapsed since.
func (m *Member) take(g grant) {
	m.catchUp()
	m.mu.Lock()
	if g.term != m.term || !m.Alive() {
		for _, h := range g.holdings {
			m.had[h.p] = h.epoch
		}
		m.mu.Unlock()
		return
	}
	for _, h := range g.holdings {
		m.owned[h.p] = h
		delete(m.had, h.p)
	}
	m.mu.Unlock()
	for _, h := range g.holdings {
		m.h.Claimed(h.p, h.epoch, h.state)
	}
}

// release ends ownerships in order. What the holder hands back waits in released until it is in the bucket.
func (m *Member) release(ps []int) {
	m.catchUp()
	ps = m.stillOwned(ps)
	drainer, together := m.h.(Drainer)
	if !together {
		for _, p := range ps {
			m.releaseOne(context.Background(), p)
		}
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), releasePatience)
	defer cancel()
	drainer.Drain(ps)
	for _, p := range ps {
		m.releaseOne(ctx, p)
	}
}

func (m *Member) releaseOne(ctx context.Context, p int) {
	ctx, cancel := context.WithTimeout(ctx, releasePatience)
	defer cancel()
	state := m.h.Release(ctx, p)
	m.mu.Lock()
	defer m.mu.Unlock()
	if h := m.owned[p]; h != nil {
		delete(m.owned, p)
		m.released[p] = releasedOne{h, state}
	}
	// It may have been found lost meanwhile, but it has ended already.
	m.lost = slices.DeleteFunc(m.lost, func(q int) bool { return q == p })
}

func (m *Member) stillOwned(ps []int) []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	var owned []int
	for _, p := range ps {
		if m.owned[p] != nil {
			owned = append(owned, p)
		}
	}
	return owned
}

// leave releases everything and ends the lease.
func (m *Member) leave() {
	var all []int
	for p := range Partitions {
		all = append(all, p)
	}
	m.release(all)
	ctx, cancel := context.WithTimeout(context.Background(), leavePatience)
	defer cancel()
	for !m.writeReleased(ctx) && sleep(ctx, apiPause) {
	}
	if err := m.endLease(ctx); err != nil {
		m.log.Warn("ending the lease failed, others will wait for it to lapse", "error", err)
		return
	}
	m.nudge()
	m.log.Info("left")
}

// signal leaves a token in c, unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
