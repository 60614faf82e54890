package delivery

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
)

// saver writes checkpoints and figures, each one at a time: where writing takes
// long, the next one is simply a later one. Neither waits for the other.
type saver struct {
	w       *Worker
	writing sync.Mutex // from taking checkpoints until they are written: an older one must not come last
	mu      sync.Mutex
	records map[int]knownRecord // the traffic records of partitions that are owned
}

// knownRecord is the revision that an ownership knows of its partition's traffic
// record.
type knownRecord struct{ epoch, revision uint64 }

// own begins an ownership's figures. The caller sees to it that those of several
// begin in their order.
func (s *saver) own(p int, epoch, revision uint64) {
	s.mu.Lock()
	s.records[p] = knownRecord{epoch, revision}
	s.mu.Unlock()
}

// disown ends them, so that nothing older is written over the last ones.
func (s *saver) disown(p int) (revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	revision = s.records[p].revision
	delete(s.records, p)
	return revision
}

// revision is what an ownership knows, unless it is over.
func (s *saver) revision(p int, epoch uint64) (revision uint64, owned bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.records[p]
	return r.revision, ok && r.epoch == epoch
}

// setRevision notes what an ownership has learned, unless it is over.
func (s *saver) setRevision(p int, epoch, revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.records[p]; ok && r.epoch == epoch {
		s.records[p] = knownRecord{epoch, revision}
	}
}

// run writes checkpoints.
func (s *saver) run(ctx context.Context) {
	t := time.NewTicker(checkpointEvery)
	defer t.Stop()
	var restAt time.Time
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
	}
}

// runFigures writes figures. They have a goroutine of their own because they are
// one write a partition: a dozen of them would keep a checkpoint waiting, and so
// have more repeated after a failure than promise 3 says.
func (s *saver) runFigures(ctx context.Context) {
	for ctx.Err() == nil {
		next := time.Now().Add(s.figuresEvery())
		if s.w.member.Alive() {
			s.figures(ctx)
		}
		pause(ctx, time.Until(next))
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

// traffic writes figures. They may be older than the checkpoint or newer: each
// carries the position that it belongs to. Those of an ownership that is over by
// now are left out: they must not replace what was written since.
func (s *saver) traffic(ctx context.Context, records []registry.TrafficRecord) {
	for _, r := range records {
		revision, owned := s.revision(r.Partition, r.Epoch)
		if !owned {
			continue
		}
		revision, err := s.w.stats.SaveTraffic(ctx, r, revision)
		if err == nil {
			s.setRevision(r.Partition, r.Epoch, revision)
			lp := s.w.loopOf(r.Partition)
			lp.post(func() {
				if p := lp.parts[r.Partition]; p != nil && p.epoch == r.Epoch {
					p.stored(&r)
				}
			})
			continue
		}
		if ctx.Err() != nil {
			return
		}
		s.w.log.Warn("writing figures failed, trying again", "partition", r.Partition, "error", err)
		s.retry(ctx, r)
	}
}

// last writes an ownership's last figures. Without them the next owner counts
// from the log.
func (s *saver) last(ctx context.Context, r registry.TrafficRecord, revision uint64) {
	ctx, cancel := context.WithTimeout(ctx, s.w.cfg.figuresPatience)
	defer cancel()
	_, err := s.w.stats.SaveTraffic(ctx, r, revision)
	if errors.Is(err, cluster.ErrWrongRevision) {
		// Those that were on their way when the partition was released came first.
		if now, ok := s.replaceable(ctx, r); ok {
			_, err = s.w.stats.SaveTraffic(ctx, r, now)
		}
	}
	if err != nil {
		s.w.log.Info("writing the last figures failed, the next owner counts from the log", "partition", r.Partition, "error", err)
	}
}

// retry finds out what stands in the way: an outcome that was unknown leaves
// our own record with a later revision. Another's record stays.
func (s *saver) retry(ctx context.Context, r registry.TrafficRecord) {
	if revision, ok := s.replaceable(ctx, r); ok {
		s.setRevision(r.Partition, r.Epoch, revision)
	}
	lp := s.w.loopOf(r.Partition)
	lp.post(func() {
		if p := lp.parts[r.Partition]; p != nil {
			p.changed = true
		}
	})
}

// replaceable reads back the revision of the record that r may take the place of;
// not ok: none was read, or it is a later ownership's.
func (s *saver) replaceable(ctx context.Context, r registry.TrafficRecord) (revision uint64, ok bool) {
	stored, revision, err := s.w.stats.LoadTraffic(ctx, r.Partition)
	return revision, err == nil && stored.Epoch <= r.Epoch
}
