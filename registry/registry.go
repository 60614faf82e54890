package registry

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/internal/recent"
)

// Registry is the registrations and figures of one cluster, as one process
// sees and changes them. All methods may be called at the same time; those
// of the view know nothing before Run has loaded it.
type Registry struct {
	cluster *cluster.Cluster
	log     hclog.Logger
	noSweep bool
	tidy    time.Duration // for giving a seat back
	sats    *cluster.Bucket
	stats   *cluster.Bucket

	view    *view
	ready   chan struct{}
	traffic [cluster.Partitions]*recent.Value[trafficIndex]
	pings   [cluster.Partitions]*recent.Value[pingIndex]
}

// New gives a registry over a cluster whose buckets exist. It does no I/O.
func New(c *cluster.Cluster, log hclog.Logger) *Registry {
	r := &Registry{
		cluster: c,
		log:     log,
		tidy:    tidyTimeout,
		sats:    c.Bucket(cluster.BucketSatellites),
		stats:   c.Bucket(cluster.BucketStats),
		view:    newView(),
		ready:   make(chan struct{}),
	}
	r.openCaches()
	return r
}

// LeaveSweeping leaves the seats to other processes: only those that register
// satellites need the right to free one. It is to be called before Run.
func (r *Registry) LeaveSweeping() { r.noSweep = true }

// Run keeps the view and sweeps seats that no registration names, until the
// context ends; then it returns nil. It is to be called once.
func (r *Registry) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.follow(ctx) })
	if !r.noSweep {
		g.Go(func() error { return r.sweepForEver(ctx) })
	}
	return g.Wait()
}

// follow loads the view and then feeds it from the bucket. What was loaded
// comes again at first, and is left out by its revision.
func (r *Registry) follow(ctx context.Context) error {
	if !r.load(ctx) {
		return nil
	}
	if err := r.sats.Follow(ctx, r.take); err != nil {
		return fmt.Errorf("follow the registrations: %w", err)
	}
	return nil
}

// load fills the view with all registrations that stand, however long the
// broker takes to tell them. It is false when the context ended before.
func (r *Registry) load(ctx context.Context) bool {
	for try := 0; ; try++ {
		items, err := r.sats.List(ctx)
		if err == nil {
			upTo := uint64(0)
			if len(items) > 0 {
				upTo = items[len(items)-1].Revision
			}
			r.take(items, upTo)
			close(r.ready)
			r.log.Info("registrations loaded", "satellites", r.Len(), "revision", upTo)
			return true
		}
		if ctx.Err() == nil {
			r.log.Warn("registrations are loaded later", "error", err)
		}
		if !pause(ctx, try, err) {
			return false
		}
	}
}

// take hands a batch of the bucket to the view. A registration that this
// version cannot read is left out, so that one already known stays: removing
// it would drop what the satellite is owed.
func (r *Registry) take(items []cluster.Item, upTo uint64) {
	changes := make([]Change, 0, len(items))
	for _, item := range items {
		id, _, err := parseKey(item.Key)
		if known, ok := r.view.lookup(id); ok && known.Revision == item.Revision && !item.Deleted {
			continue
		}
		c := Change{ID: id, Revision: item.Revision}
		if err == nil && !item.Deleted {
			if c.Sat, err = decodeValue(item.Key, item.Value, item.Revision); err == nil {
				c.ID = c.Sat.ID // one copy of the text a satellite
			}
		}
		if err != nil {
			r.log.Error("registration is left out", "key", item.Key, "revision", item.Revision, "error", err)
			continue
		}
		changes = append(changes, c)
	}
	r.view.apply(changes, upTo)
}

// Ready is closed when Run has loaded all registrations that stood at its
// start.
func (r *Registry) Ready() <-chan struct{} { return r.ready }

// Lookup gives a satellite from this process's view, which may be behind by a
// millisecond, or by seconds when a broker node dies: ask LookupLeader before
// telling a caller that it is not registered.
func (r *Registry) Lookup(id ID) (*Satellite, bool) { return r.view.lookup(id) }

// LookupLeader gives a satellite as the broker's leader knows it. The error
// is ErrUnknown where none is registered.
func (r *Registry) LookupLeader(ctx context.Context, id ID) (*Satellite, error) {
	sat, _, err := r.read(ctx, id)
	if err != nil {
		return nil, err
	}
	if sat == nil {
		return nil, fmt.Errorf("look up %s: %w", id, ErrUnknown)
	}
	return sat, nil
}

// IDs gives all ids of the view in ascending order of their text. The slice
// is shared with other callers: do not write to it.
func (r *Registry) IDs() []ID { return r.view.ids() }

// Len is the number of satellites in the view.
func (r *Registry) Len() int { return int(r.view.count.Load()) }

// LenAt is the number of satellites in the view that have an address.
func (r *Registry) LenAt(addr netip.Addr) int {
	r.view.mu.Lock()
	defer r.view.mu.Unlock()
	return r.view.at[addr]
}

// MaxSats is the cluster's limit on the number of satellites.
func (r *Registry) MaxSats(ctx context.Context) (int, error) {
	n, err := r.cluster.MaxSats(ctx)
	if err != nil {
		return 0, fmt.Errorf("read max_sats: %w", err)
	}
	return n, nil
}

// Revision is the revision of the bucket up to which the view is complete.
func (r *Registry) Revision() uint64 { return r.view.revision.Load() }

// WaitRevision returns nil once the view is complete up to a revision, or the
// context's error.
func (r *Registry) WaitRevision(ctx context.Context, revision uint64) error {
	return r.view.wait(ctx, revision)
}

// Subscribe hands fn, before it returns, all satellites that stand in the
// view, in order of their revisions, and from then on every change in
// revision order; upTo is the revision up to which that is complete. Changes
// that overtook each other while the view was behind come as the last of them
// only, as the bucket keeps one value a key: a satellite that deregistered
// and came back meanwhile comes as one with a later Generation.
//
// fn is called with the view's lock held: it must only hand over, and must
// not call the registry except for Lookup, Len and Revision. It must not
// write to changes, which others are handed too. No call comes after cancel
// has returned.
func (r *Registry) Subscribe(fn func(changes []Change, upTo uint64)) (cancel func()) {
	return r.view.subscribe(fn)
}
