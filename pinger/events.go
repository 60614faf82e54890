package pinger

import (
	"time"

	"github.com/co2relay/co2relay/cluster"
)

const (
	kindUnreachable = "unreachable"
	kindReachable   = "reachable"

	eventPause   = time.Minute // between two events of one kind about one satellite, at least
	longestPause = time.Hour   // between two about one that stays unreachable
)

// said is what events have said of a satellite. The first failure is an event
// at once; while it lasts, further ones follow after a minute, two, four … up
// to an hour, so that a thousand dead satellites do not fill the stream.
type said struct {
	unreachable bool // by the last event
	down, up    time.Time
	pause       time.Duration
	failures    uint64 // since the last event about them
}

// saidBefore is what an earlier pinger has said of a satellite that fails.
func saidBefore(now time.Time) *said {
	return &said{unreachable: true, down: now, pause: eventPause}
}

// event is what there is to say after a result, nil if nothing.
func (t *target) event(r result, now time.Time, worker string) *cluster.Event {
	if t.said == nil {
		if r.ok() {
			return nil
		}
		t.said = new(said)
	}
	return t.said.event(t, r, now, worker)
}

func (s *said) event(t *target, r result, now time.Time, worker string) *cluster.Event {
	e := &cluster.Event{
		Time: now.UTC(), Satellite: string(t.sat.ID), Nick: t.sat.Nick, Worker: worker, Partition: t.part.id,
	}
	if r.ok() {
		s.failures = 0
		if !s.unreachable || now.Sub(s.up) < eventPause {
			return nil
		}
		s.unreachable, s.up, s.pause = false, now, 0
		e.Kind, e.Reason = kindReachable, "it answers pings again"
		return e
	}
	s.failures++
	if now.Sub(s.down) < max(s.pause, eventPause) {
		return nil
	}
	s.pause = min(max(2*s.pause, eventPause), longestPause)
	e.Kind, e.Reason, e.Count = kindUnreachable, r.reason, s.failures
	s.unreachable, s.down, s.failures = true, now, 0
	return e
}
