// Package pinger pings every satellite: each one once an interval, a failing
// one sooner, a new one at once. It keeps their figures, says in events who
// cannot be reached and why, and tells the delivery worker who answers.
//
// Pingers share the satellites out by partition, as delivery workers do. All
// state of a pinger is under one lock (Pinger.mu), which is never held over
// I/O; what a ping leads to is decided in one place (settle).
package pinger

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/internal/caller"
	"github.com/co2relay/co2relay/internal/xmlrpc"
	"github.com/co2relay/co2relay/registry"
)

const role = "pinger"

// Pinger pings the satellites of the partitions that it owns.
type Pinger struct {
	cfg    Config
	log    hclog.Logger
	clus   *cluster.Cluster
	reg    *registry.Registry
	client caller.Client
	body   []byte // of every ping
	met    *metrics
	member *cluster.Member
	ctx    context.Context // of pings and loads; ends when Run has released everything
	wake   chan struct{}   // of schedule
	tasks  sync.WaitGroup

	mu         sync.Mutex // guards what follows, and every part and target
	inbox      []arrival
	subscribed bool // the standing satellites have come

	upTo  uint64 // revision of the registrations in sats
	sats  [cluster.Partitions]map[registry.ID]*registry.Satellite
	parts [cluster.Partitions]*part // nil: not owned
	owned int                       // satellites of parts
	// steady and failing are the targets that wait for their next ping. Those
	// that fail may take half of the places only: a ping that times out holds
	// its place for seconds.
	steady, failing queue
	busy, busyFail  int // pings under way; those of them that came from failing

	// giveUp says that figures could not be saved while several partitions are
	// released: the others do not wait for the broker too. It belongs to the
	// member's goroutine.
	giveUp bool
}

// arrival is a batch of changes as the registry handed it over.
type arrival struct {
	changes  []registry.Change
	upTo     uint64
	standing bool // these satellites stood when the pinger started
}

// New makes a pinger; it does no I/O. metrics may be nil.
func New(cfg Config, log hclog.Logger, clus *cluster.Cluster, reg *registry.Registry, reger prometheus.Registerer) (*Pinger, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	p := &Pinger{
		cfg: cfg, log: log, clus: clus, reg: reg,
		client: caller.Client{Timeout: cfg.Timeout, TLS: cfg.TLS},
		body:   xmlrpc.AppendCall(nil, "ping"),
		wake:   make(chan struct{}, 1),
	}
	for i := range p.sats {
		p.sats[i] = make(map[registry.ID]*registry.Satellite)
	}
	var err error
	if p.met, err = newMetrics(p, reger); err != nil {
		return nil, err
	}
	return p, nil
}

// Run pings until ctx ends, then writes the figures down and releases what it
// owns. It returns nil on cancel, and can be called once.
func (p *Pinger) Run(ctx context.Context) error {
	select {
	case <-p.reg.Ready():
	case <-ctx.Done():
		return nil
	}
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	p.ctx = own
	options := cluster.JoinOptions{Role: role, Name: p.cfg.Name, Sole: p.cfg.Sole}
	p.member = p.clus.Join(options, p, p.log.Named("member"))

	unsubscribe := p.reg.Subscribe(func(changes []registry.Change, upTo uint64) {
		p.mu.Lock()
		p.inbox = append(p.inbox, arrival{changes, upTo, !p.subscribed})
		p.subscribed = true // the first call brings what stands
		p.mu.Unlock()
		p.signal()
	})
	defer unsubscribe()
	unhint, err := p.clus.OnHint(role, p.onHint)
	if err != nil {
		return fmt.Errorf("listen for hints: %w", err)
	}
	defer unhint()
	p.tasks.Go(func() { p.schedule(own) })
	p.tasks.Go(func() { p.saveLoop(own) })
	err = p.member.Run(ctx)
	stop()
	p.tasks.Wait()
	return err
}

func (p *Pinger) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// onHint pings a satellite that registered at once. Where the registration is
// not known yet, it is pinged when that arrives.
func (p *Pinger) onHint(n int, h cluster.Hint) {
	if h.Kind != cluster.HintRegistered || n < 0 || n >= cluster.Partitions {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if part := p.parts[n]; part != nil {
		if t := part.targets[registry.ID(h.Satellite)]; t != nil && t.sat.Revision >= h.Revision {
			p.pingNow(t, time.Now())
		}
	}
}
