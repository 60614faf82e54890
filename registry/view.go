package registry

import (
	"cmp"
	"context"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// Change is one change of a registration, as the view takes it over.
type Change struct {
	ID       ID
	Sat      *Satellite // nil: deregistered; may name an id that was never seen registered
	Revision uint64     // of the bucket
}

// viewShards is how many parts the view is cut into, so that a lookup waits
// for a writer only in one of them and then only for a map assignment.
const viewShards = 64

// view is one process's copy of all registrations.
type view struct {
	seed   maphash.Seed
	shards [viewShards]struct {
		sync.RWMutex
		sats map[ID]*Satellite
		_    [24]byte // a cache line each: readers of one shard do not slow those of the next
	}
	count    atomic.Int64
	revision atomic.Uint64 // everything up to here is applied

	mu      sync.Mutex         // guards what follows; held while subscribers are called
	at      map[netip.Addr]int // satellites by address
	subs    map[uint64]func([]Change, uint64)
	nextSub uint64
	moved   chan struct{} // closed at the next step of revision; nil: nobody waits

	sorted  []ID // shared with callers, so replaced and never written to
	dirty   []ID // came or went since sorted was made, repeats possible
	rebuild bool // dirty would be too long: make sorted from the shards
}

func newView() *view {
	v := &view{seed: maphash.MakeSeed(), subs: make(map[uint64]func([]Change, uint64)), at: make(map[netip.Addr]int)}
	for i := range v.shards {
		v.shards[i].sats = make(map[ID]*Satellite)
	}
	return v
}

func (v *view) lookup(id ID) (*Satellite, bool) {
	s := &v.shards[maphash.String(v.seed, string(id))%viewShards]
	s.RLock()
	sat, ok := s.sats[id]
	s.RUnlock()
	return sat, ok
}

// put sets or (nil) removes one satellite and tells whether the id came or
// went by that.
func (v *view) put(id ID, sat *Satellite) bool {
	s := &v.shards[maphash.String(v.seed, string(id))%viewShards]
	s.Lock()
	defer s.Unlock()
	old, had := s.sats[id]
	if sat == nil {
		delete(s.sats, id)
	} else {
		s.sats[id] = sat
	}
	switch {
	case had && sat == nil:
		v.count.Add(-1)
		addr := old.Addr.Addr()
		if v.at[addr]--; v.at[addr] == 0 {
			delete(v.at, addr)
		}
	case !had && sat != nil:
		v.count.Add(1)
		v.at[sat.Addr.Addr()]++
	default:
		return false
	}
	return true
}

// apply takes changes over, in revision order, and hands them to the
// subscribers. What the view knows already is left out: a bucket that is read
// anew hands everything out again, and so a change is a repeat when it makes
// no difference, not when its revision is old.
func (v *view) apply(changes []Change, upTo uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.revision.Load()
	fresh := changes[:0]
	rewound := false
	for _, c := range changes {
		known, had := v.lookup(c.ID)
		if c.Sat == nil && !had && c.Revision <= old || c.Sat != nil && had && known.Revision == c.Revision {
			continue
		}
		if v.put(c.ID, c.Sat) {
			v.touch(c.ID)
		}
		fresh = append(fresh, c)
		rewound = rewound || c.Sat != nil && c.Revision <= old
	}
	if !rewound { // a bucket that was restored or made anew counts from below again
		upTo = max(upTo, old)
	}
	if len(fresh) == 0 && upTo == old {
		return
	}
	v.revision.Store(upTo)
	if v.moved != nil {
		close(v.moved)
		v.moved = nil
	}
	for _, fn := range v.subs {
		fn(fresh, upTo)
	}
}

// touch notes that sorted no longer agrees with the shards about an id.
func (v *view) touch(id ID) {
	if v.rebuild {
		return
	}
	if len(v.dirty) > 1000+len(v.sorted)/4 {
		v.dirty, v.rebuild = nil, true
		return
	}
	v.dirty = append(v.dirty, id)
}

// ids gives all ids, sorted. The slice is shared: nobody may write to it.
func (v *view) ids() []ID {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.rebuild:
		v.sorted = make([]ID, 0, v.count.Load())
		v.each(func(s *Satellite) { v.sorted = append(v.sorted, s.ID) })
		slices.Sort(v.sorted)
	case len(v.dirty) > 0:
		v.sorted = v.merge()
	}
	v.dirty, v.rebuild = nil, false
	return v.sorted
}

// merge gives sorted with every dirty id put in or taken out, as the shards
// say: one pass, however many satellites there are.
func (v *view) merge() []ID {
	slices.Sort(v.dirty)
	merged := make([]ID, 0, v.count.Load())
	rest := v.sorted
	for _, id := range slices.Compact(v.dirty) {
		i, had := slices.BinarySearch(rest, id)
		merged = append(merged, rest[:i]...)
		if had {
			i++
		}
		rest = rest[i:]
		if sat, ok := v.lookup(id); ok {
			merged = append(merged, sat.ID)
		}
	}
	return append(merged, rest...)
}

// each calls fn for every satellite, in no order.
func (v *view) each(fn func(*Satellite)) {
	for i := range v.shards {
		s := &v.shards[i]
		s.RLock()
		for _, sat := range s.sats {
			fn(sat)
		}
		s.RUnlock()
	}
}

func (v *view) subscribe(fn func([]Change, uint64)) (cancel func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	standing := make([]Change, 0, v.count.Load())
	v.each(func(s *Satellite) { standing = append(standing, Change{ID: s.ID, Sat: s, Revision: s.Revision}) })
	slices.SortFunc(standing, func(a, b Change) int { return cmp.Compare(a.Revision, b.Revision) })
	fn(standing, v.revision.Load())
	n := v.nextSub
	v.nextSub++
	v.subs[n] = fn
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.subs, n)
	}
}

// wait returns nil once the view has taken over everything up to a revision.
func (v *view) wait(ctx context.Context, revision uint64) error {
	for {
		v.mu.Lock()
		if v.revision.Load() >= revision {
			v.mu.Unlock()
			return nil
		}
		if v.moved == nil {
			v.moved = make(chan struct{})
		}
		moved := v.moved
		v.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
