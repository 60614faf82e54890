package faults

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/satellite/satellitetest"
)

// message is a relayed message by its talker and number.
type message struct{ talker, n int }

// receipt is one notify call.
type receipt struct {
	message
	id       uint64
	sent, at time.Time
	again    bool // not the first with this message
}

// receiver judges what one satellite gets as it comes.
type receiver struct {
	sat *satellitetest.Satellite
	mu  sync.Mutex
	got map[message]time.Time // first receipt
	all []receipt
}

func (r *receiver) notify(id uint64, body []byte) {
	now := time.Now()
	_, text, found := bytes.Cut(body, []byte("faults:"))
	text, _, closed := bytes.Cut(text, []byte(":end"))
	fields := bytes.Split(text, []byte{':'})
	if !found || !closed || len(fields) != 3 {
		return
	}
	var numbers [3]int64
	for i, f := range fields {
		numbers[i], _ = strconv.ParseInt(string(f), 10, 64)
	}
	m := message{int(numbers[0]), int(numbers[1])}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, again := r.got[m]
	if !again {
		r.got[m] = now
	}
	r.all = append(r.all, receipt{m, id, time.Unix(0, numbers[2]), now, again})
}

func (r *receiver) receipts() []receipt {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

func (r *receiver) has(m message) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.got[m]
	return ok
}

// hasSince tells whether it got a message that was sent after a time.
func (r *receiver) hasSince(t time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.all, func(x receipt) bool { return x.sent.After(t) })
}

// talker relays numbered messages in one satellite's name, through one frontend
// after the other when a call fails, as behind a load balancer.
type talker struct {
	n     int
	sat   *satellitetest.Satellite
	urls  []string
	pause time.Duration
	try   time.Duration // for one call
	mu    sync.Mutex
	ok    []relayed
	fails []failure
	last  error // of the last that failed
}

// relayed is a message that was answered 'OK'.
type relayed struct {
	message
	sent, answered time.Time
}

func (s *talker) run(ctx context.Context) {
	at := s.n
	for i := 0; ctx.Err() == nil; i++ {
		began := time.Now()
		try, cancel := context.WithTimeout(context.Background(), s.try)
		data := fmt.Sprintf("faults:%d:%d:%d:end", s.n, i, began.UnixNano())
		err := s.sat.Relay(try, s.urls[at%len(s.urls)], s.sat.ID(), data, "")
		cancel()
		s.mu.Lock()
		if err == nil {
			s.ok = append(s.ok, relayed{message{s.n, i}, began, time.Now()})
		} else {
			at++
			s.fails = append(s.fails, failure{message{s.n, i}, began, strings.Contains(err.Error(), "was not accepted")})
			s.last = err
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(s.pause - time.Since(began)):
		}
	}
}

func (s *talker) accepted() []relayed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ok)
}

// failure is a call that was not answered 'OK'. What the answer calls not
// accepted must never arrive; what has no such answer may.
type failure struct {
	message
	sent     time.Time
	definite bool
}

// traffic is steady: talkers relay, satellites receive, everything is counted.
type traffic struct {
	t         *testing.T
	receivers []*receiver
	talkers   []*talker
	cancel    context.CancelFunc
	running   sync.WaitGroup
	began     time.Time
	ended     time.Time
}

// trafficOptions: each of the talkers, which are satellites too, relays a
// message every pause.
type trafficOptions struct {
	satellites, talkers int
	pause, try          time.Duration
	delay               time.Duration // of every answer, so that calls are in flight
}

func (p *plant) startTraffic(o trafficOptions) *traffic {
	p.t.Helper()
	if o.try == 0 {
		o.try = 20 * time.Second
	}
	tr := &traffic{t: p.t}
	var urls []string
	for _, f := range p.frontends {
		urls = append(urls, f.url())
	}
	for range o.satellites {
		r := &receiver{got: make(map[message]time.Time)}
		r.sat = satellitetest.Start(p.t, satellitetest.Options{Keep: satellitetest.KeepNone, OnNotify: r.notify, Behaviour: satellitetest.Behaviour{Delay: o.delay}})
		tr.receivers = append(tr.receivers, r)
	}
	tr.register(urls)
	ctx, cancel := context.WithCancel(context.Background())
	tr.cancel = cancel
	p.t.Cleanup(func() { cancel(); tr.running.Wait() })
	tr.began = time.Now()
	for i := range o.talkers {
		s := &talker{n: i, sat: tr.receivers[i].sat, urls: urls, pause: o.pause, try: o.try}
		tr.talkers = append(tr.talkers, s)
		tr.running.Go(func() { s.run(ctx) })
	}
	tr.flows(50)
	return tr
}

func (tr *traffic) register(urls []string) {
	tr.t.Helper()
	var wg sync.WaitGroup
	todo := make(chan *receiver)
	for range 16 {
		wg.Go(func() {
			for r := range todo {
				id, err := r.sat.Register(tr.t.Context(), urls[0], "")
				if err != nil || id != r.sat.ID() {
					tr.t.Errorf("register %s: got %q, %v", r.sat.ID(), id, err)
				}
			}
		})
	}
	for _, r := range tr.receivers {
		todo <- r
	}
	close(todo)
	wg.Wait()
}

func (tr *traffic) accepted() (n int) {
	for _, s := range tr.talkers {
		n += len(s.accepted())
	}
	return n
}

// flows waits until so many more messages were accepted.
func (tr *traffic) flows(more int) {
	tr.t.Helper()
	before := tr.accepted()
	eventually(tr.t, fmt.Sprintf("%d more messages are accepted", more), func() bool { return tr.accepted() >= before+more })
}

// settle waits until every satellite has a message that was relayed from now on.
// What a take-over repeats comes before it, in the log's order.
func (tr *traffic) settle() {
	tr.t.Helper()
	since := time.Now()
	for _, r := range tr.receivers {
		eventually(tr.t, r.sat.ID()+" has what is relayed now", func() bool { return r.hasSince(since) })
	}
}

// of are the receivers whose partition is in owned.
func (tr *traffic) of(owned func(partition int) bool) (in, out []*receiver) {
	for _, r := range tr.receivers {
		if owned(cluster.PartitionOf(r.sat.ID())) {
			in = append(in, r)
		} else {
			out = append(out, r)
		}
	}
	return in, out
}

// tally is what a test counted.
type tally struct {
	satellites, accepted, refused, calls int
	lost, repeated, disorder             int
	wrong                                int           // one message under two msg_ids
	denied                               int           // delivered although it was called not accepted
	mostRepeated                         int           // repeats of one satellite
	pause                                time.Duration // longest between two first receipts of a satellite
	wait                                 time.Duration // longest from relay to first receipt
	answer                               time.Duration // longest until 'OK'
	repeats                              []repeat
}

// repeat is a message that a satellite got again.
type repeat struct {
	sat       *receiver
	first, at time.Time
}

// finish ends the talking, waits until every satellite has every accepted
// message, and counts.
func (tr *traffic) finish() tally {
	tr.t.Helper()
	tr.ended = time.Now()
	tr.cancel()
	tr.running.Wait()
	deadline := time.Now().Add(60 * time.Second)
	for !tr.complete() && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
	for _, s := range tr.talkers {
		if s.last != nil {
			tr.t.Logf("talker %d: %d calls failed, the last with: %v", s.n, len(s.fails), s.last)
		}
	}
	return tr.count(tr.receivers, tr.began, time.Now())
}

func (tr *traffic) complete() bool {
	for _, r := range tr.receivers {
		for _, s := range tr.talkers {
			if s.sat != r.sat && slices.ContainsFunc(s.accepted(), func(m relayed) bool { return !r.has(m.message) }) {
				return false
			}
		}
	}
	return true
}

// count counts what some satellites got of the messages relayed, and of the
// calls that came, in a span of time. It is for the time after finish.
func (tr *traffic) count(receivers []*receiver, from, to time.Time) tally {
	within := func(at time.Time) bool { return !at.Before(from) && at.Before(to) }
	c := tally{satellites: len(receivers)}
	for _, s := range tr.talkers {
		for _, f := range s.fails {
			if !within(f.sent) {
				continue
			}
			c.refused++
			if f.definite && slices.ContainsFunc(receivers, func(r *receiver) bool { return r.has(f.message) }) {
				c.denied++
			}
		}
		for _, m := range s.accepted() {
			if !within(m.sent) {
				continue
			}
			c.accepted++
			c.answer = max(c.answer, m.answered.Sub(m.sent))
			for _, r := range receivers {
				if s.sat != r.sat && !r.has(m.message) {
					c.lost++
				}
			}
		}
	}
	order := make(map[message]uint64) // one msg_id for all
	for _, r := range receivers {
		c.receiver(r, order, from, to, tr.ended)
	}
	return c
}

func (c *tally) receiver(r *receiver, order map[message]uint64, from, to, ended time.Time) {
	repeated, high, newest := 0, uint64(0), from
	for _, x := range r.receipts() {
		inside := !x.at.Before(from) && x.at.Before(to)
		if id, known := order[x.message]; known && id != x.id {
			c.wrong++
		}
		order[x.message] = x.id
		if inside {
			c.calls++
		}
		if x.again {
			if inside {
				repeated++
				c.repeats = append(c.repeats, repeat{r, r.got[x.message], x.at})
			}
			continue
		}
		if inside && x.id < high {
			c.disorder++
		}
		high = max(high, x.id)
		if inside {
			if x.at.Before(ended) {
				c.pause = max(c.pause, x.at.Sub(newest))
			}
			c.wait = max(c.wait, x.at.Sub(x.sent))
			newest = x.at
		}
	}
	if newest.Before(ended) && to.Before(ended) {
		c.pause = max(c.pause, to.Sub(newest))
	}
	c.repeated += repeated
	c.mostRepeated = max(c.mostRepeated, repeated)
}

// p99 is the 99th percentile of the time from relay to first receipt among the
// messages sent in a span of time.
func p99(receivers []*receiver, from, to time.Time) (time.Duration, int) {
	var all []time.Duration
	for _, r := range receivers {
		for _, x := range r.receipts() {
			if !x.again && x.sent.After(from) && x.sent.Before(to) {
				all = append(all, x.at.Sub(x.sent))
			}
		}
	}
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return all[len(all)*99/100], len(all)
}
