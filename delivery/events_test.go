package delivery

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// eventBook is an event log with a clock of the test's own.
type eventBook struct {
	*eventLog
	at   time.Time
	told []string
	full bool // the queue: what is told is lost
}

func newEventBook() *eventBook {
	b := &eventBook{eventLog: newEventLog(nil, "test"), at: time.Unix(1_000_000, 0)}
	b.now = func() time.Time { return b.at }
	b.tell = func(ev eventOf, done func(bool)) {
		if done != nil {
			done(!b.full)
		}
		if b.full {
			return
		}
		b.told = append(b.told, fmt.Sprintf("%s %d at %s", ev.kind, ev.count, b.at.Sub(time.Unix(1_000_000, 0))))
	}
	return b
}

// pass lets time go by second by second, as the worker does.
func (b *eventBook) pass(d time.Duration, each func()) {
	for end := b.at.Add(d); b.at.Before(end); {
		b.at = b.at.Add(time.Second)
		if each != nil {
			each()
		}
		b.flush(false)
	}
}

func (b *eventBook) want(t *testing.T, what string, want ...string) {
	t.Helper()
	if !slices.Equal(b.told, want) {
		t.Errorf("%s: got %q, want %q", what, b.told, want)
	}
	b.told = nil
}

func TestOneThatRefusesEverythingIsALineAMinute(t *testing.T) {
	t.Parallel()
	b := newEventBook()
	seq := uint64(0)
	b.pass(2*time.Minute, func() { seq++; b.add(eventOf{kind: "refused", sat: "a", first: seq, last: seq, count: 1}) })
	b.want(t, "refusals", "refused 1 at 1s", "refused 60 at 1m1s")
	b.flush(true)
	b.want(t, "at the end", "refused 59 at 2m0s")
}

func TestOneThatStaysParkedIsToldOfLessAndLess(t *testing.T) {
	t.Parallel()
	b := newEventBook()
	b.pass(20*time.Minute, func() {
		if b.at.Second()%10 == 0 {
			b.add(eventOf{kind: "parked", sat: "a", count: 1})
		}
	})
	if n := len(b.told); n < 4 || n > 5 {
		t.Errorf("in 20 minutes: got %q, want one after about 0, 1, 3, 7 and 15 minutes", b.told)
	}
	b.told = nil
	b.add(eventOf{kind: "resumed", sat: "a"})
	b.want(t, "it resumes", "resumed 0 at 20m0s")
	b.add(eventOf{kind: "parked", sat: "a", count: 1})
	b.pass(time.Minute, nil)
	if len(b.told) != 1 {
		t.Errorf("it parks again: got %q, want to be told within a minute", b.told)
	}
}

func TestTheLastToldOfAFlappingSatelliteIsHowItIs(t *testing.T) {
	t.Parallel()
	b := newEventBook()
	for range 3 {
		b.add(eventOf{kind: "parked", sat: "a", count: 1})
		b.add(eventOf{kind: "resumed", sat: "a"})
		b.at = b.at.Add(time.Second)
	}
	b.pass(5*time.Minute, nil)
	b.want(t, "it flaps and is well", "parked 1 at 0s", "resumed 0 at 0s", "resumed 0 at 1m0s")
	if len(b.states)+len(b.recent) != 0 {
		t.Errorf("remembers %d satellites, want none after a quiet time", len(b.states)+len(b.recent))
	}
}

func TestAStateThatFoundNoRoomIsToldInTheEnd(t *testing.T) {
	t.Parallel()
	b := newEventBook()
	b.add(eventOf{kind: "parked", sat: "a", count: 1})
	b.want(t, "it parks", "parked 1 at 0s")
	b.full = true
	b.add(eventOf{kind: "resumed", sat: "a"})
	b.pass(3*time.Second, nil)
	b.want(t, "no room")
	b.full = false
	b.pass(5*time.Minute, nil)
	b.want(t, "room again", "resumed 0 at 4s")
	b.full = true
	b.add(eventOf{kind: "parked", sat: "b", count: 1})
	b.full = false
	b.add(eventOf{kind: "resumed", sat: "b"})
	b.pass(5*time.Minute, nil)
	b.want(t, "overtaken by the contrary", "resumed 0 at 5m3s")
}
