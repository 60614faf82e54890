package delivery

import (
	"context"
	"sync"
	"time"

	"github.com/co2relay/co2relay/registry"
)

// saver writes checkpoints and figures. One write at a time: where writing
// takes long, the next checkpoint is simply a later one.
type saver struct {
	w         *Worker
	writing   sync.Mutex // from taking checkpoints until they are written: an older one must not come last
	mu        sync.Mutex
	revisions map[int]uint64 // of the traffic records, by partition
}

func (s *saver) setRevision(p int, revision uint64) {
	s.mu.Lock()
	s.revisions[p] = revision
	s.mu.Unlock()
}

func (s *saver) run(ctx context.Context) {
	t := time.NewTicker(checkpointEvery)
	defer t.Stop()
	var figuresAt, restAt time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if !s.w.member.Alive() {
			continue
		}
		rest := time.Since(restAt) >= restEvery
		if rest {
			restAt = time.Now()
		}
		s.checkpoint(ctx, rest)
		if time.Since(figuresAt) >= s.figuresEvery() {
			figuresAt = time.Now()
			s.figures(ctx)
		}
	}
}

// figuresEvery keeps the figures a second fresh up to 10,000 satellites, and
// bounds the bytes written beyond.
func (s *saver) figuresEvery() time.Duration {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	n := 0
	for p := range s.w.sats {
		if s.w.serving[p] {
			n += len(s.w.sats[p])
		}
	}
	return trafficEvery * time.Duration(1+n/10_000)
}

// checkpoint writes the progress of the partitions in which a lane moved; with
// rest also the reading position of the others, which holds back the purge.
func (s *saver) checkpoint(ctx context.Context, rest bool) {
	s.writing.Lock()
	defer s.writing.Unlock()
	states := make(map[int][]byte)
	for _, lp := range s.w.loops {
		for p, state := range ask(lp, func() map[int][]byte { return lp.checkpoints(rest) }) {
			states[p] = state
		}
	}
	if len(states) == 0 {
		return
	}
	lost, err := s.w.member.Save(ctx, states)
	s.w.checkpoints.Add(uint64(len(states) - len(lost)))
	if err != nil && ctx.Err() == nil {
		s.w.log.Warn("writing checkpoints failed, trying again", "partitions", len(states), "error", err)
		for _, lp := range s.w.loops {
			lp.post(func() { lp.unsaved(states) })
		}
	}
}

// checkpointNow writes one partition's progress before it returns, for what was
// asked by somebody who waits for it.
func (s *saver) checkpointNow(ctx context.Context, p int) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	lp := s.w.loopOf(p)
	state, _ := askWithin(ctx, lp, func() []byte {
		part := lp.parts[p]
		if part == nil || part.resting {
			return nil
		}
		c := part.checkpoint(max(lp.seen, part.readTo))
		return c.encode()
	})
	if state == nil {
		return errMoving
	}
	lost, err := s.w.member.Save(ctx, map[int][]byte{p: state})
	if err != nil {
		lp.post(func() { lp.unsaved(map[int][]byte{p: state}) })
		return err
	}
	if len(lost) > 0 {
		return errMoving
	}
	s.w.checkpoints.Add(1)
	return nil
}

func (lp *loop) checkpoints(rest bool) map[int][]byte {
	states := make(map[int][]byte)
	for id, p := range lp.parts {
		if p.resting || lp.now < p.nextSave {
			continue
		}
		if p.dirty || rest && p.savedTo != lp.seen {
			c := p.checkpoint(max(lp.seen, p.readTo))
			states[id] = c.encode()
			p.nextSave = lp.now + int64(pauseAfter(len(states[id])))
		}
	}
	return states
}

// pauseAfter is how long a partition is not written again: a large one less
// often, so that a worker with 100,000 lanes behind writes 2 MB a second and not
// ten. It ends between two of the saver's turns.
func pauseAfter(size int) time.Duration {
	if size < largeState {
		return 0
	}
	return time.Duration(size/largeState)*checkpointEvery + checkpointEvery/2
}

// unsaved has the partitions written again with the next checkpoint.
func (lp *loop) unsaved(states map[int][]byte) {
	for id := range states {
		if p := lp.parts[id]; p != nil {
			p.dirty, p.nextSave = true, 0
		}
	}
}

func (s *saver) figures(ctx context.Context) {
	for _, lp := range s.w.loops {
		records := ask(lp, func() (records []registry.TrafficRecord) {
			for _, p := range lp.parts {
				if p.changed && !p.resting {
					records = append(records, p.record(wallTime(lp), lp.now))
				}
			}
			return records
		})
		s.w.census.note(records)
		s.traffic(ctx, records)
	}
}

// traffic writes figures, and tells whether it could. They may be older than the
// checkpoint or newer: each carries the position that it belongs to.
func (s *saver) traffic(ctx context.Context, records []registry.TrafficRecord) bool {
	written := true
	for _, r := range records {
		s.mu.Lock()
		revision := s.revisions[r.Partition]
		s.mu.Unlock()
		revision, err := s.w.stats.SaveTraffic(ctx, r, revision)
		if err == nil {
			s.setRevision(r.Partition, revision)
			lp := s.w.loopOf(r.Partition)
			lp.post(func() {
				if p := lp.parts[r.Partition]; p != nil && p.epoch == r.Epoch {
					p.stored(&r)
				}
			})
			continue
		}
		written = false
		if ctx.Err() != nil {
			return written
		}
		s.w.log.Warn("writing figures failed, trying again", "partition", r.Partition, "error", err)
		s.retry(ctx, r)
	}
	return written
}

// retry finds out what stands in the way: an outcome that was unknown leaves
// our own record with a later revision. Another's record stays.
func (s *saver) retry(ctx context.Context, r registry.TrafficRecord) {
	stored, revision, err := s.w.stats.LoadTraffic(ctx, r.Partition)
	if err == nil && stored.Epoch <= r.Epoch {
		s.setRevision(r.Partition, revision)
	}
	lp := s.w.loopOf(r.Partition)
	lp.post(func() {
		if p := lp.parts[r.Partition]; p != nil {
			p.changed = true
		}
	})
}
