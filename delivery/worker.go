package delivery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
)

const (
	tickEvery       = 50 * time.Millisecond
	releasePoll     = 5 * time.Millisecond
	purgeEvery      = 5 * time.Second
	checkpointEvery = 100 * time.Millisecond
	largeState      = 8 << 10 // bytes of a checkpoint, some 700 lanes that are not at the head
	trafficEvery    = time.Second
	restEvery       = 5 * time.Second // of the reading position of partitions where nothing moves
)

// Worker delivers the messages of the log to the satellites of the partitions
// that it owns.
type Worker struct {
	cfg    Config
	log    hclog.Logger
	clus   *cluster.Cluster
	reg    *registry.Registry
	world  world
	relay  tail
	stats  figureStore
	member member
	emit   func(eventOf)
	tell   func(eventOf, func(written bool))
	events *eventLog
	saver  *saver
	census *census
	blocks *blockCache
	ring   *ring
	loops  []*loop
	sender func(lp *loop) (sender, error) // makes a loop's

	ctx context.Context // ends when the worker has stopped serving
	wg  sync.WaitGroup

	mu       sync.Mutex
	sats     [cluster.Partitions]map[registry.ID]*registry.Satellite
	revision uint64 // of SATELLITES, in sats
	serving  [cluster.Partitions]bool
	claims   [cluster.Partitions]context.CancelFunc

	kept [cluster.Partitions]kept // touched by the member's goroutine alone

	read        atomic.Uint64
	owned       atomic.Int64
	checkpoints atomic.Uint64
}

// New makes a worker; it does no I/O.
func New(cfg Config, log hclog.Logger, clus *cluster.Cluster, reg *registry.Registry, metrics prometheus.Registerer) (*Worker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	w := &Worker{
		cfg: cfg, log: log, clus: clus, reg: reg, ring: newRing(cfg.RingBytes),
		world: machine{}, relay: clus.Log(), stats: reg, sender: newSender,
	}
	w.events = newEventLog(clus, cfg.Name)
	w.emit, w.tell = w.events.add, w.events.publish
	w.census = &census{w: w}
	w.saver = &saver{w: w, records: make(map[int]knownRecord)}
	w.blocks = newBlockCache(clus.Log(), cfg.CacheBytes, log.Named("blocks"))
	for p := range w.sats {
		w.sats[p] = make(map[registry.ID]*registry.Satellite)
	}
	if metrics != nil {
		for _, c := range []prometheus.Collector{collector{w}, w.census} {
			if err := metrics.Register(c); err != nil {
				return nil, fmt.Errorf("register delivery metrics: %w", err)
			}
		}
	}
	return w, nil
}

// Run serves until ctx ends, then releases what it owns: calls under way may
// finish, positions are written, and nothing is repeated for satellites that
// answer in time.
func (w *Worker) Run(ctx context.Context) error {
	last, err := w.firstPosition(ctx)
	if err != nil {
		return ignoreCancel(ctx, err)
	}
	serve, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	w.ctx = serve
	if err := w.open(last); err != nil {
		return err
	}
	joined := w.clus.Join(cluster.JoinOptions{Role: "delivery", Name: w.cfg.Name, Sole: w.cfg.Sole}, w, w.log.Named("member"))
	w.member, w.events.worker = joined, joined.ID()
	unsubscribe := w.reg.Subscribe(w.onChanges)
	unhint, err := w.clus.OnHint("delivery", w.onHint)
	if err != nil {
		unsubscribe()
		return fmt.Errorf("listen for hints: %w", err)
	}
	unask, err := w.clus.OnAsk(w.onAsk)
	if err != nil {
		unhint()
		unsubscribe()
		return err
	}
	for _, lp := range w.loops {
		w.wg.Go(lp.run)
	}
	var tasks sync.WaitGroup
	tasks.Go(func() { w.follow(serve, last+1) })
	tasks.Go(func() { w.tick(serve) })
	tasks.Go(func() { w.purge(serve) })
	tasks.Go(func() { w.saver.run(serve) })
	tasks.Go(func() { w.saver.runFigures(serve) })

	membership, leave := context.WithCancel(serve)
	member := make(chan error, 1)
	go func() { member <- w.member.Run(membership) }()
	select {
	case <-ctx.Done():
	case err = <-member:
		member <- err
	}
	w.quiesce()
	leave()
	err = <-member
	unsubscribe()
	unhint()
	unask()
	stop()
	tasks.Wait()
	for _, lp := range w.loops {
		lp.post(func() { lp.stopped = true })
	}
	w.wg.Wait()
	w.blocks.wg.Wait()
	w.events.flush(true)
	return ignoreCancel(ctx, err)
}

func ignoreCancel(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return nil
	}
	return err
}

// firstPosition is the log's end when the worker starts. Lanes that are behind
// it read the log by themselves.
func (w *Worker) firstPosition(ctx context.Context) (uint64, error) {
	for {
		last, err := w.relay.Last(ctx)
		if err == nil {
			return last, nil
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		w.log.Warn("log not reachable, trying again", "error", err)
		w.world.pause(ctx, time.Second)
	}
}

func (w *Worker) open(last uint64) error {
	w.ring.first, w.ring.last = last+1, last
	w.read.Store(last)
	zero := w.world.now()
	var loops []*loop
	for range w.cfg.Loops {
		lp := &loop{
			cfg: w.cfg, ring: w.ring, blocks: w.blocks,
			alive: func() bool { return w.member.Alive() }, emit: w.emit, tell: w.tell, ctx: w.ctx, world: w.world,
			pace:  gapPace{gapGather, eventPause},
			owned: &w.owned, met: &loopMetrics{}, zero: zero, seen: last, parts: make(map[int]*partition), window: mostYoung,
			budget: budget{limit: w.cfg.Connections / w.cfg.Loops},
		}
		s, err := w.sender(lp)
		if err != nil {
			return fmt.Errorf("open delivery loop: %w", err)
		}
		lp.sender = s
		loops = append(loops, lp)
	}
	w.mu.Lock()
	w.loops = loops // metrics may be asked for already
	w.mu.Unlock()
	return nil
}

func (w *Worker) loopOf(p int) *loop { return w.loops[p%len(w.loops)] }

// follow reads the log into the ring and tells the loops.
func (w *Worker) follow(ctx context.Context, from uint64) {
	for ctx.Err() == nil {
		err := w.clus.Log().Follow(ctx, from, func(entries []cluster.Entry) {
			from = w.take(entries, from)
		})
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, cluster.ErrRewound) {
			from = w.rewind(ctx, from)
			continue
		}
		w.log.Warn("following the log failed, trying again", "error", err)
		pause(ctx, blockRetry)
	}
}

// take hands new entries to the loops and returns where to read on.
func (w *Worker) take(entries []cluster.Entry, from uint64) uint64 {
	if len(entries) == 0 {
		return from
	}
	ms := newMessages(entries)
	w.ring.add(ms)
	last := ms[len(ms)-1].seq
	w.read.Store(last)
	for _, lp := range w.loops {
		lp.post(func() { lp.appended(ms) })
	}
	return last + 1
}

// rewind goes back to the log's end after the log itself went back: it was
// restored from a copy. Lanes beyond the end are clamped to it.
func (w *Worker) rewind(ctx context.Context, from uint64) uint64 {
	last, err := w.firstPosition(ctx)
	if err != nil || last >= from {
		return from
	}
	w.log.Error("the log ends before what was delivered already: was it restored from a copy?", "position", from-1, "last", last)
	w.emit(eventOf{kind: "rewound", first: last, last: from - 1, count: from - 1 - last, reason: "the log ends before the position"})
	for _, lp := range w.loops {
		ask(lp, func() bool { return lp.rewind(last) })
	}
	w.blocks.clear()
	w.ring.clear()
	w.ring.first, w.ring.last = last+1, last
	w.read.Store(last)
	return last + 1
}

// tick turns the loops' clocks. The lease is renewed only while all of them
// turn: a loop that is stuck must not hold its satellites.
func (w *Worker) tick(ctx context.Context) {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for turn := 0; ; turn++ {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		stuck := false
		for _, lp := range w.loops {
			if lp.tickDue.Swap(true) {
				stuck = true
				continue
			}
			lp.post(lp.tick)
		}
		if !stuck {
			w.member.Progress()
		}
		if turn%int(time.Second/tickEvery) == 0 {
			w.events.flush(false)
		}
	}
}

// quiesce begins no more calls and gives those under way a moment to end.
func (w *Worker) quiesce() {
	deadline := w.world.now().Add(w.cfg.stopPatience)
	for _, lp := range w.loops {
		ask(lp, func() bool {
			for _, p := range lp.parts {
				p.resting = true
			}
			return true
		})
	}
	for _, lp := range w.loops {
		for w.world.now().Before(deadline) && !ask(lp, func() bool { return lp.calls.oldest == nil }) {
			w.world.pause(w.ctx, releasePoll)
		}
		ask(lp, func() bool {
			for _, p := range lp.parts {
				lp.cut(p)
			}
			return true
		})
	}
}

// stopServing keeps further changes of registrations, and a load that may be
// under way, from a partition.
func (w *Worker) stopServing(p int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.claims[p] != nil {
		w.claims[p]()
		w.claims[p] = nil
	}
	w.serving[p] = false
}

// ask runs f in the loop and waits for its result. It must not be called from
// a loop.
func ask[T any](lp *loop, f func() T) T {
	result := make(chan T, 1)
	lp.post(func() { result <- f() })
	lp.world.turn(lp)
	return <-result
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func wallTime(lp *loop) time.Time { return time.Unix(0, lp.wall).UTC() }
