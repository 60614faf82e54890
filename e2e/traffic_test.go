package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/co2relay/co2relay/satellite/satellitetest"
)

const (
	receivers   = 12 // so many that no delivery worker has none of them
	senders     = 2
	callTimeout = 15 * time.Second
)

// traffic is senders that relay numbered messages one after the other, and
// receivers that note what comes. All are satellites of this machine, behind the
// published port.
type traffic struct {
	t       *testing.T
	url     string
	fleet   satellitetest.Fleet
	ids     []string // as which the relay knows them
	senders []*sender
	stop    context.CancelFunc
	running sync.WaitGroup

	// What came before start. It is not forgotten: a call that a container made
	// before it was cut off can arrive when its network is back, and is a repeat.
	before satellitetest.Stats
	had    []int // notifications, by receiver
}

type sender struct {
	name string
	sat  *satellitetest.Satellite
	id   string

	mu     sync.Mutex
	next   int
	ok     map[string]bool
	failed []error
	pause  time.Duration // longest between two accepted
	last   time.Time
}

func newTraffic(t *testing.T, url string) *traffic {
	t.Helper()
	f := &traffic{t: t, url: url}
	f.fleet = satellitetest.StartFleet(t, receivers, satellitetest.Options{Listen: "0.0.0.0:0", Keep: satellitetest.KeepBodies, NotifyPass: "known to the receiver alone"})
	for i, sat := range f.fleet {
		f.ids = append(f.ids, f.register(sat, fmt.Sprintf("receiver-%d", i)))
	}
	for i := range senders {
		s := &sender{name: fmt.Sprintf("s%d", i), ok: map[string]bool{}}
		s.sat = satellitetest.Start(t, satellitetest.Options{Listen: "0.0.0.0:0", Keep: satellitetest.KeepNone})
		s.id = f.register(s.sat, s.name)
		f.senders = append(f.senders, s)
	}
	return f
}

func (f *traffic) register(sat *satellitetest.Satellite, nick string) string {
	f.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(f.t.Context(), callTimeout)
		id, err := sat.Register(ctx, f.url, nick)
		cancel()
		if err == nil {
			return id
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("register %s: %v", nick, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// start has the senders relay until halt, which counts what came since.
func (f *traffic) start() {
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	f.before, f.had = f.fleet.Stats(), make([]int, len(f.fleet))
	for i, sat := range f.fleet {
		f.had[i] = len(sat.Received())
	}
	for _, s := range f.senders {
		s.ok, s.failed, s.pause, s.last = map[string]bool{}, nil, 0, time.Now()
		f.running.Go(func() { s.run(ctx, f.url) })
	}
}

func (s *sender) run(ctx context.Context, url string) {
	for ctx.Err() == nil {
		data := fmt.Sprintf("%s-%07d", s.name, s.next)
		s.next++
		err := s.relay(ctx, url, data)
		now := time.Now()
		s.mu.Lock()
		if err == nil {
			s.ok[data] = true
			s.pause, s.last = max(s.pause, now.Sub(s.last)), now
		} else {
			s.failed = append(s.failed, fmt.Errorf("%s: %w", now.Format("15:04:05.000"), err))
		}
		s.mu.Unlock()
		time.Sleep(4 * time.Millisecond)
	}
}

// relay makes one call. A connection that is refused has carried nothing: that
// alone is tried again, as any client may.
func (s *sender) relay(ctx context.Context, url, data string) error {
	try, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	for {
		err := s.sat.Relay(try, url, s.id, data, "")
		if !errors.Is(err, syscall.ECONNREFUSED) || ctx.Err() != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (f *traffic) accepted() (n int) {
	for _, s := range f.senders {
		s.mu.Lock()
		n += len(s.ok)
		s.mu.Unlock()
	}
	return n
}

// flows waits until so many more messages were accepted.
func (f *traffic) flows(more int) {
	f.t.Helper()
	target, deadline := f.accepted()+more, time.Now().Add(60*time.Second)
	for f.accepted() < target {
		if time.Now().After(deadline) {
			f.t.Fatalf("only %d of %d messages were accepted within 60 s; last errors: %v", f.accepted()-target+more, more, few(f.failures()))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// failures are of all calls since start.
func (f *traffic) failures() (all []error) {
	for _, s := range f.senders {
		s.mu.Lock()
		all = append(all, s.failed...)
		s.mu.Unlock()
	}
	return all
}

// few is what is printed of failures, of which there can be thousands.
func few(all []error) []error {
	if len(all) > 6 {
		all = append(all[:6:6], fmt.Errorf("and %d more", len(all)-6))
	}
	return all
}

// halt ends the senders, waits for what is owed, and reports. Nothing that was
// accepted may be lost, and nothing may come out of order.
func (f *traffic) halt(what string) (failed int) {
	f.t.Helper()
	f.stop()
	f.running.Wait()
	deadline := time.Now().Add(60 * time.Second)
	for f.missing() > 0 && time.Now().Before(deadline) {
		time.Sleep(100 * time.Millisecond)
	}
	r := row{what: what, accepted: f.accepted(), lost: f.missing()}
	for _, s := range f.senders {
		r.failed += len(s.failed)
		r.pause = max(r.pause, s.pause)
	}
	stats := f.fleet.Stats()
	r.repeated, r.disorder = int(stats.Repeats-f.before.Repeats), int(stats.OutOfOrder-f.before.OutOfOrder)
	for i := range f.fleet {
		r.silence = max(r.silence, silence(f.received(i)))
	}
	table.add(r)
	f.t.Log(r)
	if r.failed > 0 {
		f.t.Logf("failed calls: %v", few(f.failures()))
	}
	if r.lost != 0 || r.disorder != 0 || r.accepted == 0 {
		f.t.Errorf("%s: got %d lost and %d out of order of %d accepted, want none", what, r.lost, r.disorder, r.accepted)
	}
	if n := stats.WrongPass - f.before.WrongPass; n != 0 {
		f.t.Errorf("%s: got %d notifications with a wrong password, want none", what, n)
	}
	return r.failed
}

// received is what a receiver got since start.
func (f *traffic) received(receiver int) []satellitetest.Notify {
	return f.fleet[receiver].Received()[f.had[receiver]:]
}

// missing counts messages that were accepted and that a receiver does not have.
func (f *traffic) missing() (n int) {
	for i := range f.fleet {
		has := map[string]bool{}
		for _, got := range f.received(i) {
			has[textOf(got.Data)] = true
		}
		for _, s := range f.senders {
			for data := range s.ok {
				if !has[data] {
					n++
				}
			}
		}
	}
	return n
}

// silence is the longest time between two notifications.
func silence(got []satellitetest.Notify) (longest time.Duration) {
	for i := 1; i < len(got); i++ {
		longest = max(longest, got[i].At.Sub(got[i-1].At))
	}
	return longest
}
