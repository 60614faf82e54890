package delivery

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
)

// simProc is a process with a delivery worker. It is also that worker's
// membership: the rules of cluster.Member, without its polls of leases.
type simProc struct {
	s         *sim
	id        string
	w         *Worker
	ctx       context.Context
	end       context.CancelFunc
	tasks     []*simTask
	dead      bool
	stoppedTo time.Duration // by SIGSTOP
	leaving   bool

	until   time.Duration // end of the lease, 0 without one
	renewed time.Duration // sending of the last renewal
	seenAt  time.Duration // arrival of the last renewal
	lapsing bool
	term    int
	owned   map[int]*simHolding
	pending map[int]bool // released, but not written down
	todo    []func()     // for the holder, one after the other
	serving bool

	from  uint64 // of the log, to be read next
	at    int    // in the changes of registrations
	known uint64 // SATELLITES up to here
	turns map[*loop]bool
}

type simHolding struct {
	epoch, revision uint64
	unsure          bool
	state           []byte
	holds           simSnapshot
}

// spawn starts a process.
func (s *sim) spawn() {
	s.born++
	p := &simProc{
		s: s, id: fmt.Sprintf("worker%d", s.born), owned: make(map[int]*simHolding),
		pending: make(map[int]bool), turns: make(map[*loop]bool),
	}
	s.procs = append(s.procs, p)
	s.say("%s starts", p.id)
	cfg := DefaultConfig()
	cfg.Name, cfg.Loops, cfg.Connections = p.id, 2, 1000
	cfg.NotifyTimeout, cfg.RetryBase, cfg.RetryCap = simTimeout, 10*time.Millisecond, 150*time.Millisecond
	cfg.figuresPatience = time.Hour // of a clock that the seed does not know
	cfg.Behind = 1 + s.rng.IntN(4)
	const message = 500 // bytes, about
	cfg.RingBytes = message * []int{1, 3, 10, 1000}[s.rng.IntN(4)]
	cfg.CacheBytes = message * []int{1, 10, 1000}[s.rng.IntN(3)]
	w, err := New(cfg, hclog.NewNullLogger(), &cluster.Cluster{}, nil, nil)
	if err != nil {
		panic(err)
	}
	p.w = w
	p.ctx, p.end = context.WithCancel(context.Background())
	w.ctx, w.member = p.ctx, p
	w.world, w.relay, w.stats = simWorld{s, p}, simTail{s}, simStore{s, p}
	w.emit, w.tell = func(eventOf) {}, p.tell
	w.sender = func(lp *loop) (sender, error) {
		return &simSender{p: p, lp: lp, calls: make(map[*lane]*simCall)}, nil
	}
	w.blocks.world, w.blocks.log, w.blocks.slots = w.world, w.relay, make(chan struct{}, 1<<10)
	if err := w.open(s.log.last()); err != nil {
		panic(err)
	}
	for _, lp := range w.loops {
		lp.pace = gapPace{20 * time.Millisecond, 200 * time.Millisecond}
		lp.window = 1 + s.rng.IntN(4)
	}
	p.from = s.log.last() + 1
	p.standing()
	p.every(simTick, func() {
		for _, lp := range w.loops {
			lp.readClock()
			lp.post(lp.tick)
		}
	})
	p.every(simRenew, p.renew)
	p.task(simRenew, p.poll)
	p.task(simCheckpoint, p.save)
	p.task(0, p.saveFigures)
	p.task(5*time.Millisecond, p.follow)
	p.every(5*time.Millisecond, p.watch)
}

func (p *simProc) every(d time.Duration, f func()) {
	var next func()
	next = func() {
		f()
		p.s.after(d, p, next)
	}
	p.s.after(p.s.millis(int(d/time.Millisecond)), p, next)
}

// task has a coroutine do f again and again.
func (p *simProc) task(d time.Duration, f func()) {
	p.s.begin(p, func() {
		for {
			f()
			p.s.sleep(d)
		}
	})
}

// kill ends the process; what is under way in the network goes on.
func (p *simProc) kill() {
	s := p.s
	s.say("%s ends", p.id)
	p.dead = true
	for _, t := range slices.Clone(p.tasks) {
		t.stop()
	}
	p.tasks = nil
	p.end()
	s.procs = slices.DeleteFunc(s.procs, func(q *simProc) bool { return q == p })
}

// leave stops the process in good order.
func (p *simProc) leave() {
	if p.leaving {
		return
	}
	p.leaving = true
	p.s.say("%s stops", p.id)
	p.s.begin(p, func() {
		p.w.quiesce()
		p.serve(func() {
			for _, part := range p.holdings() {
				p.release(part)
			}
		})
		p.serve(p.lastly)
	})
}

// lastly ends the lease when everything released is written down.
func (p *simProc) lastly() {
	if len(p.pending) > 0 {
		p.s.sleep(5 * time.Millisecond)
		p.serve(p.lastly)
		return
	}
	p.until, p.seenAt = 0, -simDead
	p.s.after(0, nil, p.kill)
}

// turn does what a loop's goroutine does until it would wait.
func (p *simProc) turn(lp *loop) {
	for range 100_000 {
		lp.readClock()
		lp.readMail()
		wait := lp.start()
		if lp.mail.full.Load() {
			continue
		}
		if wait > 0 {
			lp.silent()
			lp.sender.wake()
		}
		if wait != 0 {
			return
		}
	}
	p.s.fail("%s: a loop never comes to rest", p.id)
}

// The log and the registrations come by and by.

func (p *simProc) follow() {
	s := p.s
	if s.traits.lagging && !s.healed && s.percent(5) {
		s.sleep(s.millis(200))
	}
	if s.clock < s.brokerUp {
		return
	}
	if es := s.log.read(p.from, s.log.last(), 1+s.rng.IntN(20)); len(es) > 0 {
		p.from = p.w.take(es, p.from)
	}
}

// standing hands over all registrations that stand, as far as they are known.
func (p *simProc) standing() {
	s := p.s
	p.at = len(s.changes)
	if s.traits.lagging {
		p.at -= s.rng.IntN(min(p.at, 5) + 1)
	}
	last := make(map[simID]registry.Change)
	for _, c := range s.changes[:p.at] {
		last[c.ID] = c
		p.known = c.Revision
	}
	var all []registry.Change
	for _, c := range s.changes[:p.at] {
		if c.Sat != nil && last[c.ID].Revision == c.Revision {
			all = append(all, c)
		}
	}
	p.w.onChanges(all, p.known)
}

func (p *simProc) watch() {
	s := p.s
	if p.at == len(s.changes) || s.clock < s.brokerUp || s.traits.lagging && !s.healed && s.percent(90) {
		return
	}
	n := 1 + s.rng.IntN(len(s.changes)-p.at)
	fresh := slices.Clone(s.changes[p.at : p.at+n])
	p.at += n
	p.known = fresh[n-1].Revision
	if s.percent(50) { // a bucket keeps one value a key
		last := make(map[simID]uint64)
		for _, c := range fresh {
			last[c.ID] = c.Revision
		}
		fresh = slices.DeleteFunc(fresh, func(c registry.Change) bool { return last[c.ID] != c.Revision })
	}
	p.w.onChanges(fresh, p.known)
}
