package cluster

import (
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// FakeClock stands still until Advance. A member has three loops, each of which always waits on its clock when it has
// nothing to do: so the clock knows when the member has done all that follows from the time that it is.
type FakeClock struct {
	mu      sync.Mutex
	changed *sync.Cond
	time    time.Duration
	waiting map[chan time.Time]time.Duration
}

const loopsOfMember = 3

func NewFakeClock() *FakeClock {
	c := &FakeClock{time: time.Hour, waiting: make(map[chan time.Time]time.Duration)}
	c.changed = sync.NewCond(&c.mu)
	return c
}

func (c *FakeClock) now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.time
}

func (c *FakeClock) soon() time.Duration { return c.now() }

func (c *FakeClock) after(d time.Duration) (<-chan time.Time, func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fired := make(chan time.Time, 1)
	if d <= 0 {
		fired <- time.Time{}
		return fired, func() {}
	}
	c.waiting[fired] = c.time + d
	c.changed.Broadcast()
	return fired, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.waiting, fired)
	}
}

// Advance moves the clock on, and fires what is due.
func (c *FakeClock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.time += d
	for fired, at := range c.waiting {
		if at <= c.time {
			delete(c.waiting, fired)
			fired <- time.Time{}
		}
	}
}

// Sleep moves the clock on while the process is stopped: nothing fires until the next Advance.
func (c *FakeClock) Sleep(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.time += d
}

// Settle waits until all loops of the member wait.
func (c *FakeClock) Settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.waiting) < loopsOfMember {
		c.changed.Wait()
	}
}

// JoinWithClock is Join by another clock, and with another patience for one exchange with the broker, in real time.
func (c *Cluster) JoinWithClock(o JoinOptions, h Holder, log hclog.Logger, clk *FakeClock, try time.Duration) *Member {
	m := newMember(c, o, h, log, clk)
	m.try = try
	return m
}

// Plan, PartitionKey, LeaseKey and EncodeRecord show what they are called after.
func Plan(live []string, owners map[int]string) [Partitions]string { return plan(live, owners) }
func PartitionKey(role string, p int) string                       { return partitionKey(role, p) }
func LeaseKey(role, id string) string                              { return leaseKey(role, id) }
func EncodeRecord(r PartitionRecord) ([]byte, error)               { return r.encode() }
