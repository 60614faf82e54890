package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
)

// watcher polls the leases of a role and does for its member what follows from them: it releases what is another's, claims
// what is its own, and buries the dead.
type watcher struct {
	m       *Member
	seen    map[string]*sighting
	unowned [Partitions]time.Duration // for how long, by answered polls, nobody has owned what is planned for another
	upTo    uint64                    // revision of WORKERS up to which everything was seen
	own     uint64                    // revision of this member's lease as it was seen, 0 if it is not there
	renewed uint64                    // and as it was last written
	polled  time.Duration             // when the last answered poll was sent
	sole    bool                      // what others left is still to be taken over
	failing bool                      // the last poll, or a reading of partitions after it, was not answered
}

// sighting is what this observer knows of another member.
type sighting struct {
	lease    storedLease
	revision uint64        // of the lease when it was last seen renewed
	silent   time.Duration // since then, by answered polls and this observer's clock
	since    time.Duration // up to when silent counts
	dead     bool
}

func newWatcher(m *Member) *watcher {
	return &watcher{m: m, seen: make(map[string]*sighting), sole: m.sole}
}

// run polls each second, sooner after a poll that was not answered, and whenever another member says that something has
// changed.
func (w *watcher) run(ctx context.Context) {
	sub, err := w.m.clus.nc.Subscribe(memberSubject+w.m.role, func(msg *nats.Msg) {
		if string(msg.Data) != w.m.id {
			signal(w.m.poll)
		}
	})
	if err != nil {
		w.m.log.Warn("listening to the other members failed, changes are seen by polls alone", "error", err)
	} else {
		defer func() { _ = sub.Unsubscribe() }() // fails only where the connection has ended
	}
	for ctx.Err() == nil {
		w.turn(ctx)
		wait := leaseEvery
		if w.failing {
			wait = leaseRetry
		}
		next, stop := w.m.clock.after(wait)
		select {
		case <-ctx.Done():
		case <-next:
		case <-w.m.poll:
		}
		stop()
	}
}

// turn is one poll and what follows from it.
func (w *watcher) turn(ctx context.Context) {
	written := w.m.writeReleased(ctx) // what an earlier turn could not
	if !w.look(ctx) || !w.m.Alive() {
		return
	}
	if !written && !w.m.writeReleased(ctx) {
		return
	}
	live, owners := w.live(), w.owners()
	planned := plan(live, owners)
	w.release(ctx, planned)
	w.claim(ctx, w.due(live, owners, planned))
	w.bury(ctx)
}

// look polls. It returns false when the broker did not answer, or its answer is older than this member's lease: then
// nothing follows from it, and no silence is counted.
func (w *watcher) look(ctx context.Context) bool {
	m := w.m
	m.mu.Lock()
	renewed := m.revision
	m.mu.Unlock()
	if renewed < w.renewed { // the bucket was made anew
		w.upTo, w.own = 0, 0
	}
	w.renewed = renewed
	sent := m.clock.now()
	items, err := w.news(ctx)
	for _, item := range items {
		w.sight(item)
	}
	if err != nil {
		if !w.failing && ctx.Err() == nil {
			w.failing = true
			m.log.Warn("reading the leases failed, trying again", "error", err)
		}
		return false
	}
	w.failing = false
	if w.own == 0 || w.own < renewed {
		signal(m.renewNow) // not there yet, or buried: the others must see us first
		return false
	}
	w.countSilence(sent)
	if w.sole {
		w.sole = false
		for _, s := range w.seen {
			s.dead = true
		}
	}
	return true
}

// news reads every lease at first, then those that were written since the last time, one request each. It asks the stream's
// leader for messages instead of following the bucket, because a poll must be either answered as of now or not at all.
func (w *watcher) news(ctx context.Context) (items []Item, err error) {
	ctx, cancel := context.WithTimeout(ctx, w.m.try)
	defer cancel()
	if w.upTo == 0 {
		last, err := w.m.clus.lastOf(ctx, bucketStream(BucketWorkers))
		if err != nil {
			return nil, err
		}
		if items, err = w.m.workers.List(ctx); err == nil {
			clear(w.seen)
			w.upTo = last
		}
		return items, err
	}
	all := bucketSubject(BucketWorkers, leaseKey(w.m.role, ">"))
	for {
		m, err := w.m.clus.getFromLeader(ctx, bucketStream(BucketWorkers), getRequest{Seq: w.upTo + 1, NextFor: all})
		if err != nil || m == nil {
			return items, err
		}
		items = append(items, w.m.workers.item(record{subject: m.Subject, seq: m.Seq, time: m.Time, header: m.header, data: m.Data}))
		w.upTo = m.Seq
	}
}

// sight takes over a lease that was written or deleted.
func (w *watcher) sight(item Item) {
	id, ok := leaseOfKey(w.m.role, item.Key)
	switch {
	case !ok:
	case id == w.m.id && item.Deleted:
		w.own = 0
	case id == w.m.id:
		w.own = item.Revision
	case item.Deleted: // it left in order, or was buried by another
		delete(w.seen, id)
	case w.seen[id] == nil || w.seen[id].revision != item.Revision:
		s := &sighting{revision: item.Revision, since: w.m.clock.now()}
		if err := json.Unmarshal(item.Value, &s.lease); err != nil {
			w.m.log.Warn("a lease is not readable", "worker", id, "error", err) // its member lives, all the same
		}
		w.seen[id] = s
	}
}

// countSilence adds the time between two answered polls to what has been silent over it: leases that were not renewed, and
// partitions that nobody owned. A poll adds longestSilence at most: what this observer slept, or could not see while the
// broker was away, is nobody's silence.
func (w *watcher) countSilence(sent time.Duration) {
	for id, s := range w.seen {
		if sent <= s.since {
			continue // renewed just now
		}
		s.silent += min(sent-s.since, longestSilence)
		s.since = sent
		if s.silent >= deadAfter && !s.dead {
			s.dead = true
			w.m.log.Warn("a member is dead", "worker", id, "silent", s.silent.String())
		}
	}
	if w.polled > 0 {
		for p := range w.unowned {
			w.unowned[p] += min(sent-w.polled, longestSilence)
		}
	}
	w.polled = sent
}

// live is this member and all that are not dead, sorted.
func (w *watcher) live() []string {
	live := []string{w.m.id}
	for id, s := range w.seen {
		if !s.dead {
			live = append(live, id)
		}
	}
	slices.Sort(live)
	return live
}

// owners tells which live member owns each partition, by what it says itself. Of two that say so the later claim is true.
func (w *watcher) owners() map[int]string {
	owners, epochs := make(map[int]string), make(map[int]uint64)
	add := func(p int, epoch uint64, id string) {
		if epoch >= epochs[p] {
			owners[p], epochs[p] = id, epoch
		}
	}
	for id, s := range w.seen {
		if s.dead {
			continue
		}
		for _, o := range s.lease.Owns {
			if o[0] < Partitions {
				add(int(o[0]), o[1], id)
			}
		}
	}
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	for p, epoch := range w.m.had {
		add(p, epoch, w.m.id)
	}
	for p, h := range w.m.owned {
		add(p, h.epoch, w.m.id)
	}
	return owners
}

// release gives up, in order, what is planned for another live member.
func (w *watcher) release(ctx context.Context, planned [Partitions]string) {
	m := w.m
	var ps, had []int
	m.mu.Lock()
	for p := range m.owned {
		if planned[p] != m.id {
			ps = append(ps, p)
		}
	}
	for p := range m.had {
		if planned[p] != m.id {
			had = append(had, p)
		}
	}
	m.mu.Unlock()
	w.giveUp(ctx, had)
	if len(ps) == 0 {
		return
	}
	slices.Sort(ps)
	m.log.Info("releasing partitions to others", "partitions", fmt.Sprint(ps))
	r := release{ps: ps, done: make(chan struct{})}
	select {
	case m.releases <- r:
		<-r.done
	case <-ctx.Done():
		return
	}
	m.writeReleased(ctx)
	m.publishOwned()
}

// giveUp writes a release for what was lost by a lapse and is another's by the plan: until then its record names this
// member, so that nobody may claim it.
func (w *watcher) giveUp(ctx context.Context, ps []int) {
	for _, p := range ps {
		r, err := w.m.record(ctx, p)
		if err == nil && r.Owner == w.m.id {
			r.Owner, r.Last = "", w.m.id
			err = w.m.putRecords(ctx, []*recordWrite{{record: r}})
		}
		if err != nil {
			w.m.log.Warn("giving a partition up failed, trying again", "partition", p, "error", err)
			continue
		}
		w.m.mu.Lock()
		delete(w.m.had, p)
		w.m.mu.Unlock()
		w.m.publishOwned()
	}
}

// due are the partitions that this member should try to claim: those planned for it, and those that the members before it
// in order have left unclaimed for too long.
func (w *watcher) due(live []string, owners map[int]string, planned [Partitions]string) []int {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	var ps []int
	for p := range Partitions {
		owner := owners[p]
		if owner != "" || planned[p] == w.m.id {
			w.unowned[p] = 0
		}
		_, pending := w.m.released[p]
		switch {
		case w.m.owned[p] != nil || pending:
		case planned[p] == w.m.id && (owner == "" || owner == w.m.id):
			ps = append(ps, p)
		case owner == "" && w.unowned[p] >= unownedPatience*time.Duration(turn(live, planned[p], w.m.id, p)):
			ps = append(ps, p)
		}
	}
	return ps
}

// bury deletes the leases of the dead. Whoever succeeds says so; a member that wakes up again renews its lease and joins
// anew.
func (w *watcher) bury(ctx context.Context) {
	for id, s := range w.seen {
		if !s.dead {
			continue
		}
		try, cancel := context.WithTimeout(ctx, w.m.try)
		_, err := w.m.workers.Delete(try, leaseKey(w.m.role, id), s.revision)
		cancel()
		switch {
		case err == nil:
			delete(w.seen, id)
			w.m.emit(Event{Kind: kindWorkerLeft, Worker: id, Reason: fmt.Sprintf("found dead by %s", w.m.id)})
		case !errors.Is(err, ErrWrongRevision) && ctx.Err() == nil:
			w.m.log.Warn("deleting a dead member's lease failed, trying again", "worker", id, "error", err)
		}
	}
}
