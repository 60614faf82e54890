package cluster_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
)

// crew is the members of one test and what they own. It fails the test when two of them own a partition at the same time
// while both leases are good, each by its own clock.
type crew struct {
	t    *testing.T
	try  time.Duration // of its members, for one exchange with the broker; 0 is patience
	mu   sync.Mutex
	all  []*hand
	next int
}

// patience is for a broker that answers, however slow the machine is. An exchange that fails is repeated when the member's
// clock has moved on, and a test that waits for it without moving the clock waits in vain.
const patience = 5 * time.Second

// hand is a member with a holder that writes down what it is told.
type hand struct {
	crew   *crew
	name   string
	member *cluster.Member
	clock  *cluster.FakeClock
	clus   *cluster.Cluster
	cancel context.CancelFunc
	done   chan struct{}

	// guarded by crew.mu
	stuck    bool // makes no progress
	owned    map[int]uint64
	state    map[int]string
	claims   int
	releases int
	losses   int
}

func (h *hand) Claimed(p int, epoch uint64, state []byte) {
	h.crew.mu.Lock()
	defer h.crew.mu.Unlock()
	// A member that falls asleep on its way here is told of what may be another's by now. It is not alive then, so it does
	// nothing with it.
	alive := h.member.Alive()
	for _, other := range h.crew.all {
		if _, owns := other.owned[p]; owns && other != h && alive && other.member.Alive() {
			h.crew.t.Errorf("%s owns partition %d while %s does and is alive", h.name, p, other.name)
		}
	}
	h.owned[p] = epoch
	h.state[p] = string(state)
	h.claims++
}

func (h *hand) Release(_ context.Context, p int) []byte {
	h.crew.mu.Lock()
	defer h.crew.mu.Unlock()
	if _, owns := h.owned[p]; !owns {
		h.crew.t.Errorf("%s is told to release partition %d, which it does not own", h.name, p)
	}
	delete(h.owned, p)
	h.releases++
	return fmt.Appendf(nil, "%s released %d", h.name, p)
}

func (h *hand) Lost(p int) {
	h.crew.mu.Lock()
	defer h.crew.mu.Unlock()
	if _, owns := h.owned[p]; !owns {
		h.crew.t.Errorf("%s is told that it lost partition %d, which it does not own", h.name, p)
	}
	delete(h.owned, p)
	h.losses++
}

// prepare makes a member that start will run.
func (c *crew) prepare(clus *cluster.Cluster, o cluster.JoinOptions) *hand {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	h := &hand{
		crew: c, name: fmt.Sprintf("w%d", c.next), clus: clus, clock: cluster.NewFakeClock(), done: make(chan struct{}),
		owned: make(map[int]uint64), state: make(map[int]string),
	}
	o.Role, o.Name = "delivery", h.name
	h.member = clus.JoinWithClock(o, h, clustertest.Logger(c.t), h.clock, cmp.Or(c.try, patience))
	c.all = append(c.all, h)
	return h
}

func (h *hand) start() *hand {
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	go func() {
		defer close(h.done)
		if err := h.member.Run(ctx); err != nil {
			h.crew.t.Errorf("%s: %v", h.name, err)
		}
	}()
	h.crew.t.Cleanup(h.stop)
	return h
}

func (c *crew) join(clus *cluster.Cluster) *hand {
	return c.prepare(clus, cluster.JoinOptions{}).start()
}

// stop leaves in order.
func (h *hand) stop() {
	h.cancel()
	for {
		select {
		case <-h.done:
			return
		case <-time.After(10 * time.Millisecond):
			h.clock.Advance(100 * time.Millisecond) // nothing in leaving waits for it; a loop may
		}
	}
}

// kill takes its connection away and never turns its loops again, which is all that others see of a killed process.
func (h *hand) kill() { h.clus.Close() }

// step is what time passes in.
const step = 250 * time.Millisecond

// pass lets time pass for some members, as seen by each one's clock, in steps of 250 ms. The others are as good as stopped.
func (c *crew) pass(d time.Duration, hands ...*hand) {
	for ; d > 0; d -= step {
		for _, h := range hands {
			c.mu.Lock()
			if !h.stuck {
				h.member.Progress()
			}
			c.mu.Unlock()
			h.clock.Settle()
			h.clock.Advance(step)
		}
		for _, h := range hands {
			h.clock.Settle()
		}
	}
}

// until lets time pass until ok, or a minute of it has.
func (c *crew) until(what string, ok func() bool, hands ...*hand) time.Duration {
	c.t.Helper()
	var passed time.Duration
	for ; passed < time.Minute; passed += step {
		if ok() {
			return passed
		}
		c.pass(step, hands...)
	}
	c.t.Fatalf("%s: not within a minute; %s", what, c)
	return 0
}

func (h *hand) count() int {
	h.crew.mu.Lock()
	defer h.crew.mu.Unlock()
	return len(h.owned)
}

func (h *hand) lost() int {
	h.crew.mu.Lock()
	defer h.crew.mu.Unlock()
	return h.losses
}

func (h *hand) ownership() map[int]uint64 {
	h.crew.mu.Lock()
	defer h.crew.mu.Unlock()
	owned := make(map[int]uint64)
	for p, epoch := range h.owned {
		owned[p] = epoch
	}
	return owned
}

// own is a condition: these many partitions, whoever else owns others.
func own(h *hand, n int) func() bool { return func() bool { return h.count() == n } }

// shared is the condition that all partitions are owned, and none of these members has more than its share.
func shared(hands ...*hand) func() bool {
	return func() bool {
		total, most := 0, (cluster.Partitions+len(hands)-1)/len(hands)
		for _, h := range hands {
			n := h.count()
			if n > most {
				return false
			}
			total += n
		}
		return total == cluster.Partitions
	}
}

func (c *crew) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var lines []string
	for _, h := range c.all {
		var ps []int
		for p := range h.owned {
			ps = append(ps, p)
		}
		slices.Sort(ps)
		lines = append(lines, fmt.Sprintf("%s alive=%v owns %v", h.name, h.member.Alive(), ps))
	}
	return fmt.Sprint(lines)
}
