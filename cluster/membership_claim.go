package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// claim reads the records of partitions and takes those that were released or whose owner is dead, by compare-and-set, and
// hands them to the holder.
func (w *watcher) claim(ctx context.Context, ps []int) {
	if len(ps) == 0 {
		return
	}
	m := w.m
	m.mu.Lock()
	term := m.term
	m.mu.Unlock()
	records, err := w.records(ctx, ps)
	if err != nil {
		w.failing = true
		m.log.Warn("reading partitions failed, trying again", "error", err)
	}
	// A member that wakes up renews its lease before it claims again. So a record is judged by leases that are newer than
	// it: an older view may still call dead or unknown whoever has just claimed.
	if w.othersOwn(records) && !w.look(ctx) {
		return
	}
	var writes []*recordWrite
	before := make(map[int]PartitionRecord)
	for _, r := range records {
		if !w.claimable(r) {
			m.mu.Lock()
			delete(m.had, r.Partition)
			m.mu.Unlock()
			continue
		}
		before[r.Partition] = r
		r.Owner, r.Last, r.Epoch = m.id, r.Owner, r.Epoch+1
		writes = append(writes, &recordWrite{record: r})
	}
	if len(writes) == 0 || !m.Alive() {
		return
	}
	g := grant{term: term}
	for _, x := range w.put(ctx, writes) {
		g.holdings = append(g.holdings, &holding{
			p: x.record.Partition, epoch: x.record.Epoch, revision: x.record.Revision, state: x.record.State,
		})
	}
	if len(g.holdings) == 0 {
		return
	}
	select {
	case m.grants <- g:
	case <-ctx.Done():
		return // the end of the lease frees them
	}
	m.log.Info("partitions claimed", "count", len(g.holdings))
	m.publishOwned()
	for _, h := range g.holdings {
		w.tellMove(before[h.p])
	}
}

func (w *watcher) othersOwn(records []PartitionRecord) bool {
	return slices.ContainsFunc(records, func(r PartitionRecord) bool { return r.Owner != "" && r.Owner != w.m.id })
}

// claimable tells whether a record's owner has released it, is dead, or is this member in an earlier term.
func (w *watcher) claimable(r PartitionRecord) bool {
	if r.Owner == "" || r.Owner == w.m.id {
		return true
	}
	s := w.seen[r.Owner]
	return s == nil || s.dead // a lease is there before the first claim, and goes when its member has left or is dead
}

// put claims all of them at once, or if somebody was faster with one of them each by itself. It returns those that worked.
func (w *watcher) put(ctx context.Context, writes []*recordWrite) []*recordWrite {
	err := w.m.putRecords(ctx, writes)
	if err == nil {
		return writes
	}
	var claimed []*recordWrite
	if errors.Is(err, ErrWrongRevision) && len(writes) > 1 {
		for _, x := range writes {
			if err = w.m.putRecords(ctx, []*recordWrite{x}); err == nil {
				claimed = append(claimed, x)
			} else if !errors.Is(err, ErrWrongRevision) {
				break // the next poll shows what became of it
			}
		}
	}
	if err != nil && !errors.Is(err, ErrWrongRevision) && ctx.Err() == nil {
		w.m.log.Warn("claiming partitions failed, trying again", "error", err)
	}
	return claimed
}

// records reads the records of partitions, some at a time. Those that it could not read are left out, with the last error.
func (w *watcher) records(ctx context.Context, ps []int) ([]PartitionRecord, error) {
	read := make([]*PartitionRecord, len(ps))
	var g errgroup.Group
	g.SetLimit(8)
	for i, p := range ps {
		g.Go(func() error {
			r, err := w.m.record(ctx, p)
			if err == nil {
				read[i] = &r
			}
			return err
		})
	}
	err := g.Wait()
	var records []PartitionRecord
	for _, r := range read {
		if r != nil {
			records = append(records, *r)
		}
	}
	return records, err
}

// tellMove emits an event for a partition that another had before. A restart, under the same name or of a sole member,
// moves nothing.
func (w *watcher) tellMove(before PartitionRecord) {
	from, reason := before.Owner, "it is dead"
	if from == "" {
		from, reason = before.Last, "it released it"
	}
	if from == "" || w.m.sole || nameOf(from) == nameOf(w.m.id) {
		return
	}
	w.m.emit(Event{Kind: kindMoved, Partition: before.Partition, Reason: fmt.Sprintf("from %s, %s", from, reason)})
}

// nameOf takes the random part off a member's identity.
func nameOf(id string) string {
	if i := strings.LastIndexByte(id, '-'); i >= 0 {
		return id[:i]
	}
	return id
}
