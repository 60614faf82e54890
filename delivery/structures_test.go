package delivery

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/co2relay/co2relay/cluster"
)

func entries(from, to uint64, size int) []cluster.Entry {
	var es []cluster.Entry
	for seq := from; seq <= to; seq++ {
		es = append(es, cluster.Entry{Seq: seq, Sender: "127.0.0.1:1", Body: make([]byte, size)})
	}
	return es
}

func TestRingKeepsTheNewestWithinItsBudget(t *testing.T) {
	t.Parallel()
	one := newMessage(entries(1000, 1000, 100)[0]).size()
	r := newRing(10 * one)
	r.first, r.last = 1000, 999
	r.add(newMessages(entries(1000, 1024, 100)))
	for seq := uint64(995); seq <= 1026; seq++ {
		m := r.get(seq)
		if held := m != nil; held != (seq >= 1015 && seq <= 1024) {
			t.Errorf("sequence %d: held %v", seq, held)
		}
		if m != nil && m.seq != seq {
			t.Errorf("sequence %d: got %d", seq, m.seq)
		}
	}
	r.add(newMessages(entries(2000, 2001, 100))) // after a hole
	if r.get(1024) != nil || r.get(2000) == nil || r.get(2001) == nil || r.bytes != 2*one {
		t.Errorf("after a hole: 1024 %v, 2000 %v, bytes %d, want %d", r.get(1024), r.get(2000), r.bytes, 2*one)
	}
}

func TestRingNeverHoldsMoreThanItsSlots(t *testing.T) {
	t.Parallel()
	r := newRing(1 << 40)
	r.first, r.last = 1, 0
	r.add(newMessages(entries(1, ringSlots+10, 0)))
	if r.get(10) != nil || r.get(11) == nil || r.get(ringSlots+10) == nil {
		t.Errorf("10: %v, 11: %v, last: %v", r.get(10) != nil, r.get(11) != nil, r.get(ringSlots+10) != nil)
	}
}

func TestRetryHeapYieldsTheEarliest(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	var h retryHeap
	var all []*lane
	for range 500 {
		l := &lane{retryAt: r.Int64N(1000), retryPos: -1}
		all = append(all, l)
		h.add(l)
	}
	var want []int64
	for i, l := range all {
		if i%3 == 0 {
			h.remove(l)
			h.remove(l) // twice is once
			continue
		}
		want = append(want, l.retryAt)
	}
	slices.Sort(want)
	var got []int64
	for len(h) > 0 {
		got = append(got, h[0].retryAt)
		h.remove(h[0])
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestQueueIsFirstInFirstOut(t *testing.T) {
	t.Parallel()
	var q queue
	next, out := uint64(0), uint64(0)
	r := rand.New(rand.NewPCG(5, 6))
	for range 10_000 {
		if r.IntN(5) < 3 {
			q.push(&lane{next: next})
			next++
		} else if l := q.pop(); l != nil {
			if l.next != out {
				t.Fatalf("got %d, want %d", l.next, out)
			}
			out++
		}
	}
	if got := q.len(); got != int(next-out) {
		t.Errorf("length %d, want %d", got, next-out)
	}
}

func TestCallListIsOrderedByAge(t *testing.T) {
	t.Parallel()
	var c callList
	lanes := []*lane{{next: 0}, {next: 1}, {next: 2}, {next: 3}}
	for _, l := range lanes {
		c.add(l)
	}
	c.remove(lanes[0])
	c.remove(lanes[2])
	c.add(lanes[0])
	var got []uint64
	for l := c.oldest; l != nil; l = l.nextCall {
		got = append(got, l.next)
	}
	if want := []uint64{1, 3, 0}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// memoryLog is a log with a hole at its front and, where asked, a lagging copy.
type memoryLog struct {
	mu    sync.Mutex
	first uint64
	last  uint64
	reads int
	empty int // so many reads are answered by a copy that has nothing yet
	fail  int // so many reads fail
}

func (m *memoryLog) Read(_ context.Context, from uint64, most, _ int) ([]cluster.Entry, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	if m.fail > 0 {
		m.fail--
		return nil, from, errors.New("no answer")
	}
	from = max(from, m.first)
	if m.empty > 0 || from > m.last {
		m.empty--
		return nil, from, nil
	}
	es := entries(from, min(m.last, from+uint64(most)-1), 10)
	return es, es[len(es)-1].Seq + 1, nil
}

func (m *memoryLog) State(context.Context) (cluster.LogState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return cluster.LogState{First: m.first, Last: m.last}, nil
}

func getBlock(t *testing.T, c *blockCache, seq uint64) *block {
	t.Helper()
	for {
		ready := make(chan struct{})
		if b := c.get(t.Context(), seq, func() { close(ready) }); b != nil {
			return b
		}
		<-ready
	}
}

func TestLanesBehindShareOneRead(t *testing.T) {
	t.Parallel()
	log := &memoryLog{first: 1, last: 10_000}
	c := newBlockCache(log, 1<<30, hclog.NewNullLogger())
	var wg sync.WaitGroup
	for lane := range uint64(1000) {
		wg.Go(func() {
			for seq := 1 + lane%7; seq <= 10_000; {
				b := getBlock(t, c, seq)
				for ; seq < b.to; seq++ {
					if m := b.at(seq); m == nil || m.seq != seq {
						t.Errorf("sequence %d: got %v", seq, m)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if most := 20 * 10; log.reads > most {
		t.Errorf("a thousand lanes needed %d reads, want at most %d", log.reads, most)
	}
}

func TestABlockKnowsAHoleFromALaggingCopy(t *testing.T) {
	t.Parallel()
	log := &memoryLog{first: 500, last: 600, fail: 1}
	c := newBlockCache(log, 1<<30, hclog.NewNullLogger())
	if b := getBlock(t, c, 400); b.from != 400 || b.at(400).seq != 500 {
		t.Errorf("hole: block from %d, first message %d, want 400 and 500", b.from, b.at(400).seq)
	}
	log = &memoryLog{first: 500, last: 600, empty: 2}
	c = newBlockCache(log, 1<<30, hclog.NewNullLogger())
	if b := getBlock(t, c, 550); b.at(550) == nil || b.at(550).seq != 550 {
		t.Error("a copy that lags made a hole of what the leader has")
	}
	log = &memoryLog{first: 601, last: 600} // everything is purged
	c = newBlockCache(log, 1<<30, hclog.NewNullLogger())
	if b := getBlock(t, c, 550); b.at(550) != nil || b.to != 601 {
		t.Errorf("all purged: block to %d, message %v, want 601 and none", b.to, b.at(550))
	}
}

func TestTheCacheStaysWithinItsBudget(t *testing.T) {
	t.Parallel()
	c := newBlockCache(&memoryLog{first: 1, last: 100_000}, 1<<20, hclog.NewNullLogger())
	for seq := uint64(1); seq <= 100_000; seq += 100 {
		getBlock(t, c, seq)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bytes > 1<<20 || len(c.blocks) == 0 {
		t.Errorf("%d bytes in %d blocks, want at most %d", c.bytes, len(c.blocks), 1<<20)
	}
}

func TestUnionReadsNothingTwice(t *testing.T) {
	t.Parallel()
	got := union([]span{{10, 20}, {5, 4}, {1, 3}, {21, 30}, {15, 18}, {40, 50}})
	want := []span{{1, 3}, {10, 30}, {40, 50}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
