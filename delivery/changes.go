package delivery

import (
	"context"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
)

// onChanges takes registrations in and hands those of served partitions to
// their loops. The registry calls it with its lock held.
func (w *Worker) onChanges(changes []registry.Change, upTo uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.revision = upTo
	for _, c := range changes {
		p := c.ID.Partition()
		if c.Sat == nil {
			delete(w.sats[p], c.ID)
		} else {
			w.sats[p][c.ID] = c.Sat
		}
	}
	for _, lp := range w.loops {
		lp.post(func() { lp.apply(w, changes, upTo) })
	}
}

// satellites is a copy of what is registered in a partition now.
func (w *Worker) satellites(p int) map[registry.ID]*registry.Satellite {
	w.mu.Lock()
	defer w.mu.Unlock()
	sats := make(map[registry.ID]*registry.Satellite, len(w.sats[p]))
	for id, sat := range w.sats[p] {
		sats[id] = sat
	}
	return sats
}

// apply carries changed registrations into the loop's lanes.
func (lp *loop) apply(w *Worker, changes []registry.Change, upTo uint64) {
	for _, c := range changes {
		if p := lp.parts[c.ID.Partition()]; p != nil && c.Revision > p.revision {
			lp.change(w, p, c)
		}
	}
	for _, p := range lp.parts {
		p.revision = max(p.revision, upTo)
	}
}

func (lp *loop) change(w *Worker, p *partition, c registry.Change) {
	l := p.lanes[c.ID]
	if l != nil && c.Sat != nil && l.sat.Generation == c.Sat.Generation {
		l.sat = c.Sat
		lp.sender.idle(l)
		lp.nudge(l, true)
		return
	}
	if l != nil {
		lp.lastGap(l)
		lp.removeLane(l)
		lp.met.dropped.Add(p.forget(l))
	}
	before := p.joining[c.ID]
	delete(p.joining, c.ID)
	if c.Sat == nil || lp.join(p, c.Sat) {
		return
	}
	p.joining[c.ID] = c.Sat
	if before == nil || before.Generation != c.Sat.Generation {
		w.world.begin(&w.wg, func() { w.joinLate(lp, p, c.Sat) })
	}
}

// join begins a new satellite's lane. It has to know which messages since the
// satellite's beginning are its own; it returns false when the ring does not
// hold them all.
func (lp *loop) join(p *partition, sat *registry.Satellite) bool {
	var own []*message
	for seq := sat.Began + 1; seq <= p.readTo; seq++ {
		m := lp.ring.get(seq)
		if m == nil {
			return false
		}
		if m.sender == sat.ID {
			own = append(own, m)
		}
	}
	l := lp.addLane(p, sat, sat.Began)
	for _, m := range own {
		countSent(p, m)
	}
	lp.enqueue(l)
	return true
}

// joinLate begins the lane of a satellite whose registration became known here
// long after it was made: what it sent meanwhile is read from the log. Until
// then the partition's checkpoints have it at its beginning.
func (w *Worker) joinLate(lp *loop, p *partition, sat *registry.Satellite) {
	sats := map[registry.ID]*registry.Satellite{sat.ID: sat}
	for w.ctx.Err() == nil {
		c := &claim{id: p.id}
		end := ask(lp, func() uint64 { return p.readTo }) // what comes after it the loop counts
		err := w.replay(w.ctx, c, sats, end)
		if err != nil {
			w.log.Warn("reading back for a new satellite failed, trying again", "satellite", sat.ID, "error", err)
			w.world.pause(w.ctx, blockRetry)
			continue
		}
		joined := make(chan bool, 1)
		lp.post(func() { joined <- lp.joinReplayed(c, p, sat.ID, sat.Generation) })
		w.world.turn(lp)
		select {
		case ok := <-joined:
			if ok {
				return
			}
		case <-w.ctx.Done():
		}
	}
}

// joinReplayed is true when there is nothing more to do: the lane began, or
// the satellite or the partition went away meanwhile.
func (lp *loop) joinReplayed(c *claim, p *partition, id registry.ID, generation uint64) bool {
	sat := p.joining[id]
	if lp.parts[p.id] != p || sat == nil || sat.Generation != generation {
		return true
	}
	var rest []*message
	for seq := c.readTo + 1; seq <= p.readTo; seq++ {
		m := lp.ring.get(seq)
		if m == nil {
			return false
		}
		rest = append(rest, m)
	}
	delete(p.joining, id)
	l := lp.addLane(p, sat, sat.Began)
	if t := c.sent[sat.ID]; t != nil {
		l.fig.sent, l.fig.sentAt = t.sent, t.sentAt
	}
	for _, m := range rest {
		if m.sender == sat.ID {
			countSent(p, m)
		}
	}
	lp.enqueue(l)
	return true
}

// onHint takes a sign from a pinger or a frontend to the lane that it is about.
func (w *Worker) onHint(p int, h cluster.Hint) {
	if p < 0 || p >= cluster.Partitions {
		return
	}
	lp := w.loopOf(p)
	lp.post(func() {
		part := lp.parts[p]
		if part == nil {
			return
		}
		l := part.lanes[registry.ID(h.Satellite)]
		if l == nil {
			return
		}
		switch h.Kind {
		case cluster.HintAlive:
			lp.nudge(l, false)
		case cluster.HintRegistered:
			// A hint may overtake the registration. A call by the one of before would
			// go with its password; the change itself nudges the lane when it comes.
			if l.sat.Revision >= h.Revision {
				lp.nudge(l, true)
			}
		case cluster.HintCloseIdle:
			lp.sender.idle(l)
		case cluster.HintOneAtATime:
			l.oneAtATime = true
			lp.sender.idle(l)
		}
	})
}

// Release ends a partition in good order: calls under way may finish within
// the context's time, the others are given up undelivered. The figures are
// written beside what follows.
func (w *Worker) Release(ctx context.Context, p int) []byte {
	w.stopServing(p)
	w.kept[p] = kept{} // what is handed back is newer
	lp := w.loopOf(p)
	ask(lp, func() bool { return lp.rests(p) })
	for !ask(lp, func() bool { return lp.idleNow(p) }) && ctx.Err() == nil {
		w.world.pause(ctx, releasePoll)
	}
	type final struct {
		state  []byte
		record *registry.TrafficRecord
	}
	f := ask(lp, func() (f final) {
		if part := lp.parts[p]; part != nil {
			lp.cut(part)
			point := part.checkpoint(max(lp.seen, part.readTo))
			record := part.record(wallTime(lp), lp.now)
			f.state, f.record = point.encode(), &record
			lp.detach(part)
		}
		return f
	})
	if f.record != nil {
		// Nobody serves these satellites until the checkpoint is written, so it does
		// not wait for the figures: the next owner counts what it does not find.
		revision := w.saver.disown(p)
		w.world.begin(&w.wg, func() { w.saver.last(context.WithoutCancel(ctx), *f.record, revision) })
	}
	return f.state
}

// Lost drops a partition at once: somebody else may be calling its satellites.
func (w *Worker) Lost(p int) {
	w.stopServing(p)
	lp := w.loopOf(p)
	k := ask(lp, func() (k kept) {
		if part := lp.parts[p]; part != nil {
			lp.cut(part)
			point := part.checkpoint(max(lp.seen, part.readTo))
			k = kept{part.epoch, point.encode()}
			lp.detach(part)
		}
		return k
	})
	if k.epoch > 0 {
		w.kept[p] = k
	}
}

// kept is how far a partition was when it was lost. Where this worker is also
// the next to own it, which the epoch shows, it goes on from there instead of
// from the last checkpoint, which a broker that was away has not taken: so an
// outage repeats only what was in flight.
type kept struct {
	epoch uint64 // 0: nothing is kept
	state []byte
}

// Drain begins no more calls for partitions that are about to be released, so
// that their calls under way end in the same half second.
func (w *Worker) Drain(ps []int) {
	for _, p := range ps {
		lp := w.loopOf(p)
		ask(lp, func() bool { return lp.rests(p) })
	}
}

// rests begins no more calls for a partition.
func (lp *loop) rests(p int) bool {
	if part := lp.parts[p]; part != nil {
		part.resting = true
	}
	return true
}

func (lp *loop) idleNow(p int) bool {
	part := lp.parts[p]
	return part == nil || part.calls == 0
}

// cut gives up the calls that are still under way; their messages stay undone.
func (lp *loop) cut(part *partition) {
	part.resting = true
	for _, l := range part.lanes {
		lp.giveUp(l)
	}
}

// detach takes a partition's lanes out of the loop.
func (lp *loop) detach(part *partition) {
	for _, l := range part.lanes {
		lp.removeLane(l)
	}
	delete(lp.parts, part.id)
	lp.owned.Add(-1)
}
