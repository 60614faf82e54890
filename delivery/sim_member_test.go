package delivery

import (
	"context"
	"errors"
	"time"
)

// The worker's membership in the simulation: leases, claims and checkpoints.

func (p *simProc) Run(context.Context) error { return errors.New("not in a simulation") }
func (p *simProc) Progress()                 {}

func (p *simProc) Alive() bool {
	return p.s.rules.noLease || p.until > 0 && p.s.clock < p.until
}

func (p *simProc) renew() {
	s := p.s
	sent := s.clock
	if sent < s.brokerUp || !s.healed && s.percent(s.traits.flaky) || p.leaving && len(p.owned)+len(p.pending) == 0 {
		return
	}
	arrive := s.millis(5)
	s.after(arrive, nil, func() { p.seenAt = max(p.seenAt, s.clock) })
	s.after(arrive+s.millis(5), p, func() {
		p.renewed = max(p.renewed, sent)
		if !p.lapsing && (p.until == 0 || s.clock < p.until) {
			p.extend()
		}
	})
}

func (p *simProc) extend() {
	if end := p.renewed + simLease; p.s.clock < end && end > p.until {
		p.until = end
		p.s.after(end-p.s.clock, p, p.lapse)
	}
}

// lapse gives up everything when the lease is over.
func (p *simProc) lapse() {
	if p.until == 0 || p.s.clock < p.until || p.lapsing {
		return
	}
	p.lapsing = true
	p.s.say("%s: the lease lapsed", p.id)
	p.serve(func() {
		p.until = 0
		p.term++
		owned := p.holdings()
		clear(p.owned)
		for _, part := range owned {
			p.w.Lost(part)
		}
		p.lapsing = false
		p.extend()
	})
}

// serve calls the holder, never twice at the same time.
func (p *simProc) serve(f func()) {
	p.todo = append(p.todo, f)
	if p.serving {
		return
	}
	p.serving = true
	p.s.begin(p, func() {
		for len(p.todo) > 0 {
			f := p.todo[0]
			p.todo = p.todo[1:]
			f()
		}
		p.serving = false
	})
}

// wait calls the holder and waits for it.
func (p *simProc) wait(f func()) {
	done := false
	p.serve(func() {
		f()
		done = true
	})
	for !done {
		p.s.sleep(time.Millisecond)
	}
}

func (p *simProc) holdings() []int {
	var parts []int
	for _, part := range simParts {
		if p.owned[part] != nil {
			parts = append(parts, part)
		}
	}
	return parts
}

// poll claims what is free and releases what is planned for another.
func (p *simProc) poll() {
	s := p.s
	if p.leaving || !p.Alive() || s.clock < s.brokerUp {
		return
	}
	for _, part := range simParts {
		planned := s.planned(part)
		switch {
		case p.owned[part] != nil && planned != nil && planned != p && planned.Alive():
			p.wait(func() { p.release(part) })
		case p.owned[part] == nil && !p.pending[part] && (planned == nil || planned == p || s.percent(5)):
			p.claim(part)
		}
	}
}

func (p *simProc) claim(part int) {
	s, r := p.s, p.s.parts[part]
	term := p.term
	if s.exchange() != fateDone {
		return
	}
	seen := *r
	if seen.owner != "" && seen.owner != p.id && !s.isDead(seen.owner) {
		return
	}
	if s.exchange() != fateDone || !p.Alive() {
		return
	}
	fate := s.exchange()
	put := func() bool {
		ok := r.put(seen.revision, p.id, seen.epoch+1, seen.state, nil)
		if ok {
			s.sum.moves++
			s.say("%s claims partition %d, epoch %d, was %q", p.id, part, r.epoch, seen.owner)
		}
		return ok
	}
	switch fate {
	case fateLost:
		return
	case fateSilent:
		put()
		return
	case fateLate:
		s.after(s.millis(100), nil, func() { put() })
		return
	}
	if !put() {
		return
	}
	p.wait(func() {
		if p.term != term || !p.Alive() || p.leaving || p.owned[part] != nil {
			return
		}
		p.owned[part] = &simHolding{epoch: seen.epoch + 1, revision: seen.revision + 1, state: seen.state}
		p.w.Claimed(part, seen.epoch+1, seen.state)
	})
}

// isDead is judged by what arrived of its renewals.
func (s *sim) isDead(id string) bool {
	for _, p := range s.procs {
		if p.id == id {
			return s.clock-p.seenAt >= simDead
		}
	}
	return true
}

func (p *simProc) release(part int) {
	h := p.owned[part]
	if h == nil {
		return
	}
	p.s.say("%s releases partition %d", p.id, part)
	ctx, cancel := context.WithCancel(context.Background())
	p.s.after(simRelease, p, cancel)
	p.w.Drain([]int{part})
	state := p.w.Release(ctx, part)
	holds := p.s.snapshot(p, part, h.epoch)
	cancel()
	if p.owned[part] != h {
		return
	}
	delete(p.owned, part)
	if state == nil {
		state, holds = h.state, h.holds
	}
	p.pending[part] = true
	p.s.begin(p, func() {
		for {
			if done, _ := p.write(part, h, state, holds, ""); done {
				delete(p.pending, part)
				return
			}
			p.s.sleep(10 * time.Millisecond)
		}
	})
}

// write is one compare-and-set of a record, with what has to be found out
// first. It is done when the record is written, or found to be another's.
func (p *simProc) write(part int, h *simHolding, state []byte, holds simSnapshot, owner string) (done, lost bool) {
	s, r := p.s, p.s.parts[part]
	for range 2 {
		if h.unsure {
			if s.exchange() != fateDone {
				return false, false
			}
			if r.owner != p.id || r.epoch != h.epoch {
				return true, true
			}
			h.revision, h.unsure = r.revision, false
		}
		expect := h.revision
		put := func() bool {
			if s.rules.noCompare {
				expect = r.revision
			}
			return r.put(expect, owner, h.epoch, state, holds)
		}
		switch s.exchange() {
		case fateDone:
			if put() {
				h.revision, h.state, h.holds = r.revision, state, holds
				return true, false
			}
			h.unsure = true
			continue
		case fateSilent:
			put()
		case fateLate:
			s.after(s.millis(300), nil, func() { put() })
		}
		h.unsure = true
		return false, false
	}
	return false, false
}

// Save is cluster.Member's.
func (p *simProc) Save(_ context.Context, states map[int][]byte) (lost []int, err error) {
	holds := make(map[int]simSnapshot)
	for part := range states {
		if h := p.owned[part]; h != nil {
			holds[part] = p.s.snapshot(p, part, h.epoch)
		}
	}
	for _, part := range simParts {
		state, h := states[part], p.owned[part]
		switch {
		case state == nil:
			continue
		case h == nil:
			lost = append(lost, part)
			continue
		}
		done, gone := p.write(part, h, state, holds[part], p.id)
		switch {
		case !done:
			err = errSimBroker
		case gone:
			lost = append(lost, part)
			if p.owned[part] == h {
				delete(p.owned, part)
				p.serve(func() { p.w.Lost(part) })
			}
		}
	}
	return lost, err
}

// save is a turn of saver.run.
func (p *simProc) save() {
	if p.Alive() {
		p.w.saver.checkpoint(p.ctx, p.s.percent(10))
	}
}

// saveFigures is a turn of saver.runFigures, at any moment of a checkpoint's.
func (p *simProc) saveFigures() {
	p.s.sleep(p.s.millis(2 * int(simFigures/time.Millisecond)))
	if p.Alive() {
		p.w.saver.figures(p.ctx)
	}
}
