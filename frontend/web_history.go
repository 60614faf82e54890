package frontend

import (
	"context"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/co2relay/co2relay/cluster"
)

const (
	// slotSeconds is the length of a slot: one sample of each process.
	slotSeconds = int64(cluster.SampleEvery / time.Second)
	// hourSlots is how many slots the charts show.
	hourSlots = int64(cluster.SamplesKept / cluster.SampleEvery)
	// settling is how long a slot waits for the samples of all processes
	// before it is shown.
	settling = 800 * time.Millisecond
	// processGone is the age of a last sample beyond which a process is not
	// shown any more.
	processGone = 4 * cluster.SampleEvery
	// eventsShown bounds the events that are kept in memory for the pages.
	eventsShown = 20_000
)

// slot is what all processes did in five seconds.
type slot struct {
	at                                            int64 // Unix seconds / slotSeconds; 0: nothing is known
	accepted, delivered, refused, failed, expired uint64
	idle, live, behind, parked, backlog           uint64
	latency                                       [cluster.LatencyBuckets]uint64
}

func (s *slot) add(x *cluster.Sample) {
	s.accepted += x.Accepted
	s.delivered += x.Delivered
	s.refused += x.Refused
	s.failed += x.Failed
	s.expired += x.Expired
	s.idle += x.Idle
	s.live += x.Live
	s.behind += x.Behind
	s.parked += x.Parked
	s.backlog += x.Backlog
	for i, n := range x.Latency {
		s.latency[i] += n
	}
}

// history is the last hour of all processes' samples, merged, and the latest
// events. Every frontend builds the same from what the broker keeps.
type history struct {
	mu      sync.RWMutex
	ring    [hourSlots + 8]slot
	newest  int64
	openAt  time.Time // when the first sample of the newest slot came
	procs   map[string]cluster.Sample
	events  []cluster.Event // oldest first
	changed chan struct{}   // closed at the next new slot
}

func newHistory() *history {
	return &history{procs: make(map[string]cluster.Sample), changed: make(chan struct{})}
}

// follow keeps the history until ctx ends.
func (f *Frontend) followHistory(ctx context.Context) {
	var wg sync.WaitGroup
	again := func(what string, follow func() error) {
		for ctx.Err() == nil {
			if err := follow(); err != nil && ctx.Err() == nil {
				f.log.Warn(what+" cannot be followed, trying again", "error", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
	wg.Go(func() {
		again("samples", func() error {
			f.history.reset()
			return f.clus.Samples(ctx, time.Now().Add(-cluster.SamplesKept), f.history.sample)
		})
	})
	wg.Go(func() {
		again("events", func() error {
			f.history.forgetEvents()
			return f.clus.Events(ctx, time.Now().Add(-7*24*time.Hour), f.history.event)
		})
	})
	wg.Wait()
}

func (h *history) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.ring[:])
	h.newest = 0
}

func (h *history) sample(x cluster.Sample) {
	at := x.Time.Unix() / slotSeconds
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &h.ring[at%int64(len(h.ring))]
	if at < s.at || at > time.Now().Unix()/slotSeconds+60 {
		return
	}
	if s.at != at {
		*s = slot{at: at}
	}
	s.add(&x)
	if old, known := h.procs[x.Process]; !known || !old.Time.After(x.Time) {
		h.procs[x.Process] = x
	}
	if at <= h.newest {
		return
	}
	h.newest, h.openAt = at, time.Now()
	close(h.changed)
	h.changed = make(chan struct{})
	for name, p := range h.procs {
		if x.Time.Sub(p.Time) > processGone {
			delete(h.procs, name)
		}
	}
}

func (h *history) forgetEvents() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = nil
}

func (h *history) event(e cluster.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.events) >= eventsShown+eventsShown/4 {
		h.events = slices.Clone(h.events[len(h.events)-eventsShown:])
	}
	h.events = append(h.events, e)
}

// recent gives the newest events that pass, newest first.
func (h *history) recent(most int, pass func(*cluster.Event) bool) []cluster.Event {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var found []cluster.Event
	for i := len(h.events) - 1; i >= 0 && len(found) < most; i-- {
		if pass(&h.events[i]) {
			found = append(found, h.events[i])
		}
	}
	return found
}

// processes are those that sent a sample lately, by name.
func (h *history) processes() []cluster.Sample {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var all []cluster.Sample
	for _, p := range h.procs {
		if time.Since(p.Time) <= processGone {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b cluster.Sample) int { return strings.Compare(a.Process, b.Process) })
	return all
}

// wait gives a channel that the next new slot closes.
func (h *history) wait() <-chan struct{} {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.changed
}

// hour gives the slots of the last hour, oldest first, and the time at which
// the last ends. A slot with at 0 is one of which nothing is known.
func (h *history) hour(now time.Time) ([]slot, time.Time) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	last := h.newest
	if time.Since(h.openAt) < settling {
		last--
	}
	if late := now.Unix()/slotSeconds - 1; last < late-2 {
		last = late // samples stopped coming: the charts go on, empty
	}
	all := make([]slot, hourSlots)
	for i := range all {
		at := last - hourSlots + 1 + int64(i)
		if at < 0 {
			continue
		}
		if s := &h.ring[at%int64(len(h.ring))]; s.at == at {
			all[i] = *s
		}
	}
	return all, time.Unix((last+1)*slotSeconds, 0)
}

// merge adds slots up: counts are summed, what stands is that of the last one
// known. known is how many of them were.
func merge(slots []slot) (sum slot, known int) {
	for i := range slots {
		s := &slots[i]
		if s.at == 0 {
			continue
		}
		known++
		sum.at = s.at
		sum.accepted += s.accepted
		sum.delivered += s.delivered
		sum.refused += s.refused
		sum.failed += s.failed
		sum.expired += s.expired
		sum.idle, sum.live, sum.behind, sum.parked, sum.backlog = s.idle, s.live, s.behind, s.parked, s.backlog
		for b, n := range s.latency {
			sum.latency[b] += n
		}
	}
	return sum, known
}

// percentile is cluster.LatencyPercentile in milliseconds, NaN if there were no
// deliveries.
func (s *slot) percentile(p float64) float64 {
	took := cluster.LatencyPercentile(s.latency[:], p)
	if took == 0 {
		return math.NaN()
	}
	return float64(took) / float64(time.Millisecond)
}

// rate is how many messages a second were accepted over the last 15 seconds, in
// words.
func (h *history) rate(now time.Time) string {
	slots, _ := h.hour(now)
	recent, known := merge(slots[len(slots)-3:])
	if known == 0 {
		return "–"
	}
	return rateText(float64(recent.accepted) / (float64(known) * float64(slotSeconds)))
}
