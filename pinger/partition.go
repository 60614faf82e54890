package pinger

import (
	"context"
	"errors"
	"time"

	"github.com/co2relay/co2relay/registry"
)

const (
	loadRetry   = time.Second
	drainPoll   = 5 * time.Millisecond
	saveAtLast  = 500 * time.Millisecond // for a partition's figures when it is released
	retrySooner = 300 * time.Millisecond // after a ping that timed out for the first time
)

// part is a partition that this pinger owns.
type part struct {
	id       int
	epoch    uint64
	ctx      context.Context // of its pings
	cancel   context.CancelFunc
	targets  map[registry.ID]*target       // nil until the figures are loaded
	early    map[registry.ID]registry.Ping // figures of satellites that registered later than upTo
	draining bool                          // no new pings
	busy     int                           // pings under way
	book
}

// Claimed begins to ping a partition's satellites, as soon as their figures
// are loaded.
func (p *Pinger) Claimed(n int, epoch uint64, _ []byte) {
	ctx, cancel := context.WithCancel(p.ctx)
	pt := &part{id: n, epoch: epoch, ctx: ctx, cancel: cancel}
	p.mu.Lock()
	p.parts[n] = pt
	p.mu.Unlock()
	p.tasks.Go(func() { p.load(pt) })
}

// load reads the figures that the last owner wrote. Nothing is pinged before,
// so that no figure goes backwards.
func (p *Pinger) load(pt *part) {
	for {
		record, revision, err := p.reg.LoadPing(pt.ctx, pt.id)
		if errors.Is(err, registry.ErrUnreadable) {
			p.log.Error("ping figures are not readable, new ones are not saved", "partition", pt.id, "error", err)
			p.attach(pt, registry.PingRecord{}, 0, true)
			return
		}
		if err == nil {
			p.attach(pt, record, revision, false)
			return
		}
		if pt.ctx.Err() == nil {
			p.log.Warn("loading ping figures failed, trying again", "partition", pt.id, "error", err)
		}
		retry := time.NewTimer(loadRetry)
		select {
		case <-pt.ctx.Done():
			retry.Stop()
			return
		case <-retry.C:
		}
	}
}

// attach makes a target of each satellite. Figures of satellites that this
// process does not know yet wait in early: its view may be behind. Those of
// satellites that are gone are dropped.
func (p *Pinger) attach(pt *part, record registry.PingRecord, revision uint64, readOnly bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.parts[pt.id] != pt {
		return
	}
	pt.revision, pt.readOnly = revision, readOnly
	pt.early = make(map[registry.ID]registry.Ping)
	for _, f := range record.Satellites {
		pt.early[f.ID] = f
	}
	now := time.Now()
	p.takeIn(now) // not into targets, there are none yet
	pt.targets = make(map[registry.ID]*target, len(p.sats[pt.id]))
	for _, sat := range p.sats[pt.id] {
		t := p.addTarget(pt, sat)
		if t.fig.Count == 0 {
			p.plan(t, now)
		} else {
			p.plan(t, now.Add(p.pause(t, now)))
		}
	}
	p.prune(pt)
	p.signal()
}

// addTarget makes a target, with its figures if they were loaded. The caller
// holds mu and plans its first ping.
func (p *Pinger) addTarget(pt *part, sat *registry.Satellite) *target {
	t := &target{part: pt, sat: sat, place: -1, fig: registry.Ping{ID: sat.ID, Generation: sat.Generation, Current: -1}}
	if f, ok := pt.early[sat.ID]; ok {
		if f.Generation == sat.Generation {
			t.fig = f
			if f.Failing > 0 {
				t.said = saidBefore(time.Now())
			}
		}
		delete(pt.early, sat.ID)
	}
	pt.targets[sat.ID] = t
	p.owned++
	return t
}

// Drain begins no more pings in partitions that are about to be released.
func (p *Pinger) Drain(ns []int) {
	p.giveUp = false
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range ns {
		if p.parts[n] != nil {
			p.parts[n].draining = true
		}
	}
}

// Release waits for pings under way, while ctx allows, and writes the figures
// down. They are all there is to hand over: the state is nil.
func (p *Pinger) Release(ctx context.Context, n int) []byte {
	for ctx.Err() == nil && p.pinging(n) {
		wait := time.NewTimer(drainPoll)
		select {
		case <-ctx.Done():
		case <-wait.C:
		}
		wait.Stop()
	}
	pt := p.remove(n)
	if pt == nil || pt.targets == nil || p.giveUp {
		return nil
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveAtLast)
	defer cancel()
	if !p.save(last, pt) {
		p.giveUp = true
	}
	return nil
}

// Lost drops a partition. Pings under way are aborted and count for nothing.
func (p *Pinger) Lost(n int) { p.remove(n) }

func (p *Pinger) pinging(n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.parts[n] != nil && p.parts[n].busy > 0
}

// remove ends the ownership of a partition. Its targets leave the queues when
// their turn comes.
func (p *Pinger) remove(n int) *part {
	p.mu.Lock()
	defer p.mu.Unlock()
	pt := p.parts[n]
	if pt == nil {
		return nil
	}
	pt.cancel()
	p.parts[n] = nil
	p.owned -= len(pt.targets)
	return pt
}

// takeIn brings in the registrations that have changed. The caller holds mu.
func (p *Pinger) takeIn(now time.Time) {
	for _, a := range p.inbox {
		for _, c := range a.changes {
			p.change(c, a.standing, now)
		}
		p.upTo = max(p.upTo, a.upTo)
	}
	if p.inbox == nil {
		return
	}
	p.inbox = nil
	for _, pt := range p.parts {
		if pt != nil && len(pt.early) > 0 {
			p.prune(pt)
		}
	}
}

// prune drops figures whose satellite our view must have had, and has not: it
// deregistered.
func (p *Pinger) prune(pt *part) {
	for id, f := range pt.early {
		if f.Generation <= p.upTo && pt.targets != nil {
			delete(pt.early, id)
			pt.changed = true
		}
	}
	if len(pt.early) == 0 {
		pt.early = nil // a map that was full keeps its memory
	}
}

func (p *Pinger) change(c registry.Change, standing bool, now time.Time) {
	n := c.ID.Partition()
	pt := p.parts[n]
	loaded := pt != nil && pt.targets != nil
	if c.Sat == nil {
		delete(p.sats[n], c.ID)
		if loaded {
			p.drop(pt, c.ID)
		}
		return
	}
	p.sats[n][c.ID] = c.Sat
	if !loaded {
		return
	}
	t := pt.targets[c.ID]
	if t != nil && t.sat.Generation != c.Sat.Generation {
		p.drop(pt, c.ID)
		t = nil
	}
	switch {
	case t == nil:
		t = p.addTarget(pt, c.Sat)
		p.plan(t, now)
	case t.sat.Revision != c.Sat.Revision:
		t.sat = c.Sat
		if !standing {
			p.pingNow(t, now)
		}
	}
}

// drop forgets a satellite that deregistered.
func (p *Pinger) drop(pt *part, id registry.ID) {
	t := pt.targets[id]
	if t == nil {
		return
	}
	t.gone = true
	delete(pt.targets, id)
	p.owned--
	pt.changed = true
}
