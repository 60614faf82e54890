package delivery

import "sync/atomic"

// ring holds the newest messages of the log in memory. One goroutine appends;
// any number read without a lock, since a slot names the sequence that it holds.
type ring struct {
	slots []atomic.Pointer[message] // a power of two of them
	mask  uint64
	limit int // bytes
	bytes int
	first uint64 // oldest sequence that may still be held
	last  uint64
}

const (
	ringSlots   = 1 << 16 // at most
	leastOfSlot = 256     // bytes of a message: less than any has, so that a full ring has spare slots
)

func newRing(limit int) *ring {
	slots := 1
	for slots < ringSlots && slots < limit/leastOfSlot {
		slots *= 2
	}
	return &ring{slots: make([]atomic.Pointer[message], slots), mask: uint64(slots - 1), limit: limit}
}

// get returns the message, or nil when the ring does not hold it: it is older,
// or not there yet, or was purged before it was read.
func (r *ring) get(seq uint64) *message {
	m := r.slots[seq&r.mask].Load()
	if m == nil || m.seq != seq {
		return nil
	}
	return m
}

// add appends messages in their order and lets the oldest go.
func (r *ring) add(ms []*message) {
	for _, m := range ms {
		if m.seq != r.last+1 {
			r.clear()
			r.first = m.seq
		}
		if m.seq-r.first > r.mask {
			r.drop()
		}
		r.slots[m.seq&r.mask].Store(m)
		r.last = m.seq
		r.bytes += m.size()
		for r.bytes > r.limit && r.first < r.last {
			r.drop()
		}
	}
}

func (r *ring) drop() {
	if m := r.slots[r.first&r.mask].Swap(nil); m != nil {
		r.bytes -= m.size()
	}
	r.first++
}

func (r *ring) clear() {
	for i := range r.slots {
		r.slots[i].Store(nil)
	}
	r.bytes = 0
}
