package delivery

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/co2relay/co2relay/internal/caller"
	"github.com/co2relay/co2relay/registry"
)

// simParts are the partitions that have satellites. They are of different loops.
var simParts = []int{0, 1}

const simPerPart = 3 // satellites

// simIDs are the satellites' ids, the same in all seeds.
var simIDs = sync.OnceValue(func() []simID {
	var ids []simID
	for _, part := range simParts {
		for n, found := 1, 0; found < simPerPart; n++ {
			id := registry.MakeID(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 80))
			if id.Partition() == part {
				ids = append(ids, id)
				found++
			}
		}
	}
	return ids
})

// simSat is a satellite: what it does, and what it ought to get.
type simSat struct {
	id    simID
	num   int
	now   *registry.Satellite // its registration
	gens  []*simGen
	calls []*simCall // that may still reach it
	mood  mood
}

type mood int

const (
	well  mood = iota
	down       // refuses connections
	hangs      // never answers
	sick       // answers 500 at times
	slow
)

// simGen is one registration's time, from its first to its end, and what the
// model knows of it.
type simGen struct {
	s          *sim
	sat        *simSat
	generation uint64
	began      uint64
	ended      bool
	marks      []uint8 // by sequence from began+1
	contig     uint64  // everything up to here is done
	first      uint64  // highest sequence received
	cursor     uint64  // of the owner that had an answer last
	proc       *simProc
	epoch      uint64
	durable    uint64 // what the written checkpoints hold
}

const (
	markArrived  uint8 = 1 << iota
	markAnswered       // received or refused, and its worker knew it
	markGap
	markTold // the gap's event was written
)

func (g *simGen) mark(seq uint64, m uint8) {
	for i := seq - g.began - 1; uint64(len(g.marks)) <= i; {
		g.marks = append(g.marks, 0)
	}
	g.marks[seq-g.began-1] |= m
}

func (g *simGen) has(seq uint64, m uint8) bool {
	i := seq - g.began - 1
	return i < uint64(len(g.marks)) && g.marks[i]&m != 0
}

// advance moves contig on, to what is not done or to limit.
func (g *simGen) advance(limit uint64) {
	for g.contig < limit && (g.has(g.contig+1, markAnswered|markGap) || g.s.sender(g.contig+1) == g.sat.id) {
		g.contig++
	}
}

func (s *sim) sender(seq uint64) simID { return simID(s.log.entries[seq-s.log.base].Sender) }

// refuses tells what a satellite will not have; it says so each time.
func (s *sim) refuses(sat *simSat, seq uint64) bool {
	return s.traits.refuse && (seq*2654435761+uint64(sat.num)*40503)>>4%5 == 0
}

func (s *sim) gen(id simID, generation uint64) *simGen {
	sat := s.sats[id]
	for i := len(sat.gens) - 1; i >= 0; i-- {
		if sat.gens[i].generation == generation {
			return sat.gens[i]
		}
	}
	return nil
}

// simCall is a notify call under way.
type simCall struct {
	sat    *simSat
	gen    *simGen
	proc   *simProc
	epoch  uint64
	seq    uint64
	cut    bool // its worker gave it up
	over   bool // it will not reach the satellite any more
	answer func(outcome)
}

// called checks what may be checked when a call begins.
func (s *sim) called(p *simProc, l *lane, m *message) *simCall {
	g := s.gen(l.sat.ID, l.sat.Generation)
	if l.gap != nil && l.gap.count > 0 {
		s.passed(p, l.sat, l.gap.gap)
	}
	c := &simCall{sat: g.sat, gen: g, proc: p, epoch: l.part.epoch, seq: m.seq}
	s.say("%s calls %d of %s with %d", p.id, g.generation, g.sat.id, m.seq)
	s.sum.deliveries++
	r := s.parts[l.sat.ID.Partition()]
	switch {
	case p.stoppedTo > s.clock || p.dead:
		s.fail("%s calls %s, but it is stopped or dead", p.id, g.sat.id)
	case r.owner != p.id || r.epoch != c.epoch:
		s.fail("%s calls %s in epoch %d, but %q owns it in epoch %d", p.id, g.sat.id, c.epoch, r.owner, r.epoch)
	case m.seq <= g.began:
		s.fail("%s gets %d, which is older than its registration at %d", g.sat.id, m.seq, g.began)
	case m.sender == g.sat.id:
		s.fail("%s gets its own message %d", g.sat.id, m.seq)
	case g.proc == p && g.epoch == c.epoch && m.seq <= g.cursor:
		s.fail("%s gets %d again from the same owner, which had an answer up to %d", g.sat.id, m.seq, g.cursor)
	case m.seq <= g.durable:
		s.fail("%s gets %d again, although a checkpoint was written at %d", g.sat.id, m.seq, g.durable)
	}
	if g.advance(m.seq - 1); g.contig < m.seq-1 {
		s.fail("%s gets %d, but never had %d", g.sat.id, m.seq, g.contig+1)
	}
	if g.has(m.seq, markArrived) {
		s.sum.repeats++
	}
	for _, o := range g.sat.calls {
		if o.cut || o.over {
			continue
		}
		if o.proc == p || !o.proc.dead && o.proc.until > 0 && s.clock < o.proc.until {
			s.fail("%s gets %d while the call with %d by %s is under way", g.sat.id, m.seq, o.seq, o.proc.id)
		}
		s.sum.overlaps++
	}
	g.sat.calls = append(g.sat.calls, c)
	return c
}

// travel lets a call reach its satellite, and an answer come back, or not.
func (s *sim) travel(c *simCall) {
	way, back := s.millis(2), s.millis(3)
	end := func() {
		c.over = true
		for i, o := range c.sat.calls {
			if o == c {
				c.sat.calls = append(c.sat.calls[:i], c.sat.calls[i+1:]...)
				break
			}
		}
	}
	state := c.sat.mood
	switch {
	case state == down:
		s.after(way, c.proc, func() { c.answer(outcome{verdict: caller.Failed, reason: "refused"}) })
		s.after(way, nil, end)
		return
	case state == hangs:
		way, back = s.millis(300), s.millis(1000)
	case state == slow:
		back = s.millis(60)
	case s.percent(3):
		way, back = s.millis(200), s.millis(100)
	}
	s.after(way, nil, func() {
		if c.cut && s.percent(50) {
			end()
			return
		}
		s.arrived(c)
		s.after(back, nil, end)
		if state == hangs {
			return
		}
		o := outcome{verdict: caller.Received}
		switch {
		case state == sick && s.percent(50):
			o = outcome{verdict: caller.Failed, reason: "status"}
		case s.refuses(c.sat, c.seq):
			o = simRefused
		}
		if s.percent(2) && !s.healed {
			return // the answer is lost
		}
		s.after(back, c.proc, func() { c.answer(o) })
	})
}

func (s *sim) arrived(c *simCall) {
	g := c.gen
	if g.has(c.seq, markArrived) {
		return
	}
	g.mark(c.seq, markArrived)
	// The one call of promise 3 is counted apart: one that was given up, or
	// whose worker has lost the satellite since. So is a message that had been
	// given up as a gap, and that the next owner still had in memory.
	owner := s.parts[g.sat.id.Partition()]
	if c.seq < g.first && !c.cut && !g.has(c.seq, markGap) && owner.owner == c.proc.id && owner.epoch == c.epoch {
		s.fail("%s receives %d for the first time after %d", g.sat.id, c.seq, g.first)
	}
	g.first = max(g.first, c.seq)
}

// settled notes an answer that reached its worker.
func (s *sim) settled(c *simCall, o outcome) {
	c.over = true
	s.say("%s has answer %v of %s to %d", c.proc.id, o.verdict, c.sat.id, c.seq)
	if o.verdict == caller.Failed {
		return
	}
	c.gen.mark(c.seq, markAnswered)
	c.gen.cursor, c.gen.proc, c.gen.epoch = c.seq, c.proc, c.epoch
}

// tell takes a gap's event, which is written after a while, if its worker lives
// and the broker answers.
func (p *simProc) tell(e eventOf, done func(written bool)) {
	s := p.s
	s.say("%s: gap of %s from %d to %d, %d counted, %s", p.id, e.sat, e.first, e.last, e.count, e.reason)
	s.sum.gaps++
	l := p.w.loopOf(e.sat.Partition()).parts[e.sat.Partition()].lanes[e.sat]
	g := s.passed(p, l.sat, gap{e.first, e.last, e.count, e.reason})
	fails := !s.healed && s.percent(20)
	s.after(s.millis(30), p, func() {
		if !fails {
			for seq := e.first; seq <= e.last; seq++ {
				g.mark(seq, markTold)
			}
		}
		s.after(s.millis(5), p, func() { done(!fails) })
	})
}

// passed notes a gap, which has to be true.
func (s *sim) passed(p *simProc, sat *registry.Satellite, x gap) *simGen {
	g := s.gen(sat.ID, sat.Generation)
	if x.reason == reasonRetention && x.last >= s.log.first {
		s.fail("gap of %s to %d, but the log begins at %d", sat.ID, x.last, s.log.first)
	}
	for seq := x.first; seq <= x.last; seq++ {
		at := s.log.entries[seq-s.log.base].Time
		if x.reason == reasonMaxAge && (simWorld{s, p}).now().Sub(at) <= sat.MaxAge {
			s.fail("%d is not too old for %s", seq, sat.ID)
		}
		g.mark(seq, markGap)
	}
	return g
}

// silent is a message that a satellite never got and that no event tells of, 0
// if there is none.
func (g *simGen) silent(last uint64) uint64 {
	for seq := g.began + 1; seq <= last; seq++ {
		if !g.has(seq, markArrived|markAnswered|markTold) && g.s.sender(seq) != g.sat.id {
			return seq
		}
	}
	return 0
}

// simSnapshot is how far some satellites are, as a checkpoint must have it.
type simSnapshot []simCursor

type simCursor struct {
	gen    *simGen
	cursor uint64
}

func (s *sim) snapshot(p *simProc, part int, epoch uint64) simSnapshot {
	var all simSnapshot
	for _, sat := range s.order {
		if sat.id.Partition() != part {
			continue
		}
		for _, g := range sat.gens {
			if g.proc == p && g.epoch == epoch {
				all = append(all, simCursor{g, g.cursor})
			}
		}
	}
	return all
}

func (all simSnapshot) keep() {
	for _, c := range all {
		c.gen.durable = max(c.gen.durable, c.cursor)
	}
}

// checkRecord checks figures as they are written: they are exact at any time.
func (s *sim) checkRecord(r *registry.TrafficRecord) {
	owed := uint64(0)
	for i := range r.Satellites {
		t := &r.Satellites[i]
		owed += uint64(t.Owed(r.ReadTo))
		g := s.gen(t.ID, t.Generation)
		if g == nil {
			s.fail("figures of %s for a generation %d that never was", t.ID, t.Generation)
			return
		}
		got := fmt.Sprintf("%d received, %d refused, %d expired, %d own, %d sent", t.Received, t.Refused, t.Expired, t.Own, t.Sent)
		if sum := t.Received + t.Refused + t.Expired + t.Own; sum != t.Position-g.began {
			s.fail("figures of %s: %s make %d, want %d from %d to %d", t.ID, got, sum, t.Position-g.began, g.began, t.Position)
		}
		if s.traits.purge {
			continue
		}
		var want registry.Traffic
		for seq := g.began + 1; seq <= max(r.ReadTo, t.Position); seq++ {
			own := s.sender(seq) == t.ID
			if own && seq <= r.ReadTo {
				want.Sent++
			}
			switch {
			case seq > t.Position:
			case own:
				want.Own++
			case s.refuses(g.sat, seq):
				want.Refused++
			default:
				want.Received++
			}
		}
		exact := t.Received == want.Received && t.Refused == want.Refused
		if s.traits.maxAge {
			exact = t.Received <= want.Received && t.Refused <= want.Refused
		}
		if !exact || t.Own != want.Own || t.Sent != want.Sent {
			s.fail("figures of %s: %s at %d of %d, want %d received, %d refused, %d own, %d sent", t.ID, got, t.Position, r.ReadTo,
				want.Received, want.Refused, want.Own, want.Sent)
		}
	}
	x := r.Totals
	if sum := x.Delivered + x.Refused + x.Expired + x.Dropped + owed; x.Recipients != sum {
		s.fail("partition %d does not balance: %+v and %d owed, read to %d: %+v", r.Partition, x, owed, r.ReadTo, r.Satellites)
	}
}

// unfinished tells what is still to be done when everything works.
func (s *sim) unfinished() string {
	last := s.log.last()
	for _, p := range s.procs {
		if p.at < len(s.changes) {
			return p.id + " never knows all registrations"
		}
	}
	for _, sat := range s.order {
		if sat.now == nil {
			continue
		}
		g := sat.gens[len(sat.gens)-1]
		if g.advance(last); g.contig < last {
			return fmt.Sprintf("%s never gets %d of %d", sat.id, g.contig+1, last)
		}
		if seq := g.silent(last); seq > 0 {
			return fmt.Sprintf("no event tells that %s never gets %d", sat.id, seq)
		}
		r := &s.stats[sat.id.Partition()].record
		at := uint64(0)
		for i := range r.Satellites {
			if t := &r.Satellites[i]; t.ID == sat.id && t.Generation == g.generation {
				at = t.Position
			}
		}
		if r.ReadTo != last || at != last {
			return fmt.Sprintf("the figures of %s stay at %d and %d, want %d", sat.id, at, r.ReadTo, last)
		}
	}
	return ""
}

// settledDown checks what must hold when nothing is left to do.
func (s *sim) settledDown() {
	for _, p := range s.procs {
		for _, lp := range p.w.loops {
			parked := int64(0)
			for _, part := range lp.parts {
				for _, l := range part.lanes {
					if l.tries > 0 {
						parked++
					}
					if l.state != atHead {
						s.fail("%s: the lane of %s is in state %d, want %d", p.id, l.sat.ID, l.state, atHead)
					}
				}
			}
			if lp.places != 0 || lp.met.parked.Load() != parked || len(lp.retries) != 0 || lp.calls.oldest != nil {
				s.fail("%s: %d places taken, %d lanes counted as parked, want %d, %d wait to retry", p.id, lp.places, lp.met.parked.Load(), parked, len(lp.retries))
			}
		}
	}
	if s.traits.leave || s.traits.purge {
		return
	}
	for _, part := range simParts {
		want := uint64(0)
		for _, sat := range s.order {
			for _, g := range sat.gens {
				if sat.id.Partition() != part {
					continue
				}
				for seq := g.began + 1; seq <= s.log.last(); seq++ {
					if s.sender(seq) != sat.id {
						want++
					}
				}
			}
		}
		if got := s.stats[part].record.Totals.Recipients; got != want {
			s.fail("partition %d counts %d recipients, want %d", part, got, want)
		}
	}
}
