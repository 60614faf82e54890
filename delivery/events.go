package delivery

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
)

// eventOf is something that happened to a satellite's lane.
type eventOf struct {
	kind        string
	sat         registry.ID
	first, last uint64
	count       uint64
	reason      string
}

// eventPause is the shortest time between two events of one kind for one
// satellite. A satellite that refuses every message is a line a minute. One that
// stays parked is told of after a minute, two, four and so on: a thousand dead
// ones must not push everything else out of the stream.
const (
	eventPause   = time.Minute
	longestPause = time.Hour
)

// eventLog passes the first event of a kind and satellite on at once, and
// gathers what follows within a minute into one. What is gathered is lost if the
// process is killed; so gaps, which must not be, go another way (gap.go).
type eventLog struct {
	clus   *cluster.Cluster
	worker string
	now    func() time.Time
	tell   func(ev eventOf, done func(written bool))
	mu     sync.Mutex
	recent map[eventKey]*gathered
	states map[registry.ID]*stateTold
}

type eventKey struct {
	kind string
	sat  registry.ID
}

type gathered struct {
	event eventOf
	since time.Time
}

// stateTold is what was told of whether a satellite is parked or resumed. The
// two go together: whatever is left out, the last one told is how things are.
type stateTold struct {
	pending         eventOf // kind "": none
	parked, resumed time.Time
	pause           time.Duration // until parked is told again
	last            *telling      // the last one told
}

// telling is an event on its way to the stream.
type telling struct {
	event eventOf
	lost  atomic.Bool // it was not written
}

func newEventLog(clus *cluster.Cluster, worker string) *eventLog {
	e := &eventLog{
		clus: clus, worker: worker, now: time.Now,
		recent: make(map[eventKey]*gathered), states: make(map[registry.ID]*stateTold),
	}
	e.tell = e.publish
	return e
}

func (e *eventLog) add(ev eventOf) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ev.kind == cluster.EventParked || ev.kind == cluster.EventResumed {
		e.addState(ev)
		return
	}
	key := eventKey{ev.kind, ev.sat}
	if g := e.recent[key]; g != nil {
		if g.event.count == 0 {
			g.event = ev
			return
		}
		g.event.last, g.event.reason = ev.last, ev.reason
		g.event.count += ev.count
		return
	}
	e.recent[key] = &gathered{since: e.now()}
	e.tell(ev, nil)
}

// addState tells that a satellite parked or resumed, or keeps it until its time
// comes or the contrary happens.
func (e *eventLog) addState(ev eventOf) {
	s := e.states[ev.sat]
	if s == nil {
		s = &stateTold{pause: eventPause}
		e.states[ev.sat] = s
	}
	if ev.kind == cluster.EventResumed {
		s.pause = eventPause
	}
	if s.pending.kind == ev.kind {
		ev.count += s.pending.count
	}
	s.pending = ev
	e.tellState(s)
}

// tellState tells what is pending if it is time.
func (e *eventLog) tellState(s *stateTold) {
	now := e.now()
	switch s.pending.kind {
	case cluster.EventParked:
		if now.Sub(s.parked) < s.pause {
			return
		}
		if s.parked.After(s.resumed) { // it was parked all the time
			s.pause = min(2*s.pause, longestPause)
		}
		s.parked = now
	case cluster.EventResumed:
		if now.Sub(s.resumed) < eventPause {
			return
		}
		s.resumed = now
	default:
		return
	}
	e.tellPending(s)
}

func (e *eventLog) tellPending(s *stateTold) {
	t := &telling{event: s.pending}
	s.last, s.pending = t, eventOf{}
	e.tell(t.event, func(written bool) { t.lost.Store(!written) })
}

// again has the last one told once more when it was not written: a burst can be
// more than the events' queue holds, and how things are must be told in the end.
func (s *stateTold) again() {
	if s.last == nil || !s.last.lost.Load() {
		return
	}
	if s.pending.kind == "" {
		s.pending = s.last.event
		s.parked, s.resumed = time.Time{}, time.Time{}
	}
	s.last = nil
}

// flush publishes what was gathered for long enough. At the end (all) it
// publishes everything.
func (e *eventLog) flush(all bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	for key, g := range e.recent {
		if !all && now.Sub(g.since) < eventPause {
			continue
		}
		if g.event.count == 0 {
			delete(e.recent, key)
			continue
		}
		e.tell(g.event, nil)
		e.recent[key] = &gathered{since: now}
	}
	for id, s := range e.states {
		s.again()
		switch {
		case all && s.pending.kind != "":
			e.tellPending(s)
		case s.pending.kind != "":
			e.tellState(s)
		case now.Sub(s.parked) >= s.pause && now.Sub(s.resumed) >= eventPause:
			delete(e.states, id)
		}
	}
}

// publish has an event written soon. done, if not nil, is told whether it was.
func (e *eventLog) publish(ev eventOf, done func(written bool)) {
	id := func(seq uint64) string {
		if seq == 0 {
			return ""
		}
		return strconv.FormatUint(seq, 10)
	}
	e.clus.EmitThen(cluster.Event{
		Kind: ev.kind, Satellite: string(ev.sat), Worker: e.worker, Partition: ev.sat.Partition(),
		First: id(ev.first), Last: id(ev.last), Count: ev.count, Reason: ev.reason,
	}, done)
}
