package delivery

import (
	"net/netip"
	"slices"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
)

// setUp decides what a seed is about. A trait that all seeds had would hide
// what goes wrong without it.
func (s *sim) setUp() {
	x := &s.traits
	x.leave, x.purge, x.maxAge, x.refuse = s.percent(50), s.percent(25), s.percent(10), s.percent(50)
	x.kills, x.pauses, x.lagging = s.percent(70), s.percent(50), s.percent(50)
	x.flaky = []int{0, 0, 5, 30}[s.rng.IntN(4)]
	x.workers = 1 + s.rng.IntN(3)
	s.log = simLog{base: 1000, first: 1000}
	s.parts, s.stats = make(map[int]*simRecord), make(map[int]*simStats)
	for _, part := range simParts {
		s.parts[part], s.stats[part] = &simRecord{}, &simStats{record: registry.TrafficRecord{Partition: part}}
	}
	for n, id := range simIDs() {
		sat := &simSat{id: id, num: n}
		s.sats[id] = sat
		s.order = append(s.order, sat)
	}
	s.revision = 100
}

// run lets things go wrong for a while, then nothing more, until everything is
// delivered and counted.
func (s *sim) run() {
	s.say("%+v", s.traits)
	s.publish()
	for range 1 + s.rng.IntN(4) {
		s.register(s.order[s.rng.IntN(len(s.order))])
	}
	s.pass(20 * time.Millisecond)
	for range s.traits.workers {
		s.spawn()
	}
	var chaos func()
	chaos = func() {
		if !s.healed {
			s.act()
			s.after(s.millis(20), nil, chaos)
		}
	}
	s.after(0, nil, chaos)
	s.pass(simChaos)
	s.heal()
	end := s.clock + simHealed
	for s.failed == "" && s.unfinished() != "" && s.clock < end {
		s.pass(s.clock + 100*time.Millisecond)
	}
	if why := s.unfinished(); why != "" {
		s.fail("not within %s after the last failure: %s", simHealed, why)
	}
	if s.failed == "" {
		s.pass(s.clock + 2*simTimeout)
		s.settledDown()
	}
	for _, p := range slices.Clone(s.procs) {
		p.kill()
	}
}

func (s *sim) heal() {
	s.say("nothing fails any more")
	s.healed = true
	s.brokerUp = 0
	for _, sat := range s.order {
		sat.mood = well
	}
	for _, p := range s.procs {
		p.stoppedTo = min(p.stoppedTo, s.clock+100*time.Millisecond)
	}
	if !slices.ContainsFunc(s.procs, func(p *simProc) bool { return !p.leaving }) {
		s.spawn()
	}
	s.publish()
}

// act is one random deed.
func (s *sim) act() {
	sat := s.order[s.rng.IntN(len(s.order))]
	var p *simProc
	if len(s.procs) > 0 {
		p = s.procs[s.rng.IntN(len(s.procs))]
	}
	switch n := s.rng.IntN(100); {
	case n < 45:
		s.publish()
	case n < 55:
		s.register(sat)
	case n < 60:
		if s.traits.leave && sat.now != nil {
			s.deregister(sat)
		}
	case n < 75:
		sat.mood = []mood{well, well, well, down, hangs, sick, slow}[s.rng.IntN(7)]
	case n < 78:
		if s.traits.kills && p != nil {
			s.sum.kills++
			p.kill()
		}
	case n < 80:
		if p != nil {
			p.leave()
		}
	case n < 83:
		if s.traits.pauses && p != nil {
			p.stoppedTo = s.clock + s.millis(1200)
			s.say("%s is stopped until %s", p.id, p.stoppedTo)
		}
	case n < 84:
		if s.traits.flaky > 0 {
			s.brokerUp = s.clock + s.millis(800)
			s.say("no broker until %s", s.brokerUp)
		}
	case n < 87:
		if s.traits.purge {
			s.purge()
		}
	case n < 94:
		for len(s.procs) < s.traits.workers {
			s.spawn()
		}
	default:
		for _, p := range s.procs {
			s.after(s.millis(5), p, func() {
				p.w.onHint(sat.id.Partition(), cluster.Hint{Kind: cluster.HintAlive, Satellite: string(sat.id)})
			})
		}
	}
}

// planned is who should have a partition; it changes now and then.
func (s *sim) planned(part int) *simProc {
	if len(s.procs) == 0 {
		return nil
	}
	return s.procs[(part+int(s.clock/(700*time.Millisecond)))%len(s.procs)]
}

func (s *sim) publish() {
	for range 1 + s.rng.IntN(6) {
		sender := simID("192.0.2.1:1")
		if s.percent(60) {
			sender = s.order[s.rng.IntN(len(s.order))].id
		}
		s.log.entries = append(s.log.entries, cluster.Entry{
			Seq: s.log.last() + 1, Time: simWorld{s: s}.now(), Sender: string(sender), Body: make([]byte, s.rng.IntN(200)),
		})
		s.say("%d is published by %s", s.log.last(), sender)
	}
}

// purge ends a part of the log, whoever needs it.
func (s *sim) purge() {
	s.log.first += s.rng.Uint64N(s.log.last() + 2 - s.log.first)
	s.say("the log begins at %d", s.log.first)
}

// register takes the log's end first and writes the registration then, as the
// registry does.
func (s *sim) register(sat *simSat) {
	began := s.log.last()
	s.after(s.millis(10), nil, func() {
		now := registry.Satellite{ID: sat.id, Addr: netip.MustParseAddrPort(string(sat.id)), Scheme: "http", Began: began}
		if s.traits.maxAge {
			now.MaxAge = 300 * time.Millisecond
		}
		s.revision++
		now.Revision = s.revision
		if sat.now == nil {
			now.Generation = s.revision
			sat.gens = append(sat.gens, &simGen{s: s, sat: sat, generation: now.Generation, began: began, contig: began})
			if s.log.last() > began {
				s.sum.late++
			}
		} else {
			now.Generation, now.Began = sat.now.Generation, sat.now.Began
		}
		sat.now = &now
		s.changes = append(s.changes, registry.Change{ID: sat.id, Sat: &now, Revision: s.revision})
		s.say("%s is registered: generation %d, revision %d, began %d", sat.id, now.Generation, now.Revision, now.Began)
		for _, p := range s.procs {
			if s.percent(50) {
				s.after(s.millis(5), p, func() {
					p.w.onHint(sat.id.Partition(), cluster.Hint{Kind: cluster.HintRegistered, Satellite: string(sat.id)})
				})
			}
		}
	})
}

func (s *sim) deregister(sat *simSat) {
	s.revision++
	sat.now = nil
	sat.gens[len(sat.gens)-1].ended = true
	s.changes = append(s.changes, registry.Change{ID: sat.id, Revision: s.revision})
	s.say("%s is deregistered, revision %d", sat.id, s.revision)
}
