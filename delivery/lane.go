package delivery

import (
	"time"

	"github.com/co2relay/co2relay/registry"
)

// laneState says what a lane waits for.
type laneState uint8

const (
	atHead  laneState = iota // has everything; waits for the next message
	ready                    // in a queue of its loop
	loading                  // waits for a block of the log
	calling                  // a call is under way
	parked                   // its last call failed; waits for its time, or a sign of life
	gone                     // removed; whatever still points here ignores it
)

// lane is one satellite's cursor over the log. It belongs to one loop and is
// touched by no other goroutine. It has no queue of its own: what it is owed is
// the log from next on. There are many: what every delivery touches stands
// together, and what it needs for failures only, behind that.
type lane struct {
	sat  *registry.Satellite
	part *partition
	hash uint64

	next   uint64 // the first sequence that is not done
	state  laneState
	behind bool   // holds one of the places for lanes that catch up
	young  bool   // its call began lately, see callList
	turns  uint16 // messages since it took that place, or since its turn came
	epoch  uint32 // counts calls, so that a late outcome of an aborted one is known
	tries  uint32

	loop6       bool // listens on [::1] only
	oneAtATime  bool // serves one connection at a time: close after each call
	everWorked  bool // its last call succeeded
	retriedOnce bool // this call was repeated on a new connection already
	waits       bool // the call that asked for a connection last has to wait for it

	conn               *conn
	msg                *message
	block              *block // what it reads while behind
	started            int64  // when the call under way began, in the loop's clock
	prevCall, nextCall *lane  // the loop's list of calls under way, oldest first

	counted uint64 // figures count everything up to here: repeats below are not counted again
	fig     figures

	// Figures of the traffic record that is known to be written.
	savedRefused, savedExpired uint64

	retryAt   int64 // in the loop's clock
	notBefore int64 // as its Retry-After asked
	retryPos  int   // in the heap of parked lanes, -1: not there
	lastErr   string

	gap *untold // what it was moved over and nobody was told of yet; nil: nothing
}

// figures count what became of a generation's messages. At any moment
// received + refused + expired + own is the number of messages between began
// and the counted position.
type figures struct {
	received uint64
	refused  uint64
	expired  uint64
	own      uint64 // its own messages, which its position has passed
	sent     uint64 // its own messages, up to the partition's reading position
	sentAt   int64  // Unix nanoseconds
	recvAt   int64
}

// position is the cursor: everything up to it is done.
func (l *lane) position() uint64 { return l.next - 1 }

// pass moves the cursor over messages up to and including last, and counts
// those that no earlier owner has counted.
func (l *lane) pass(last uint64, count *uint64) {
	if first := max(l.next, l.counted+1); last >= first {
		*count += last - first + 1
		l.counted = last
	}
	l.next = last + 1
	l.part.moved()
}

// owed is how many messages up to read it still has to get.
func (l *lane) owed(read uint64) int64 {
	return int64(read-l.counted) - int64(l.fig.sent-l.fig.own)
}

// settleOwn corrects the figures of a lane that passed messages of its own
// without seeing them, because they were purged: it has sent more than it has
// passed as its own and than there is left up to read. Those were counted as
// expired, or by a take-over as received.
func (l *lane) settleOwn(read uint64) {
	left := read - min(l.counted, read)
	if l.fig.sent <= l.fig.own+left {
		return
	}
	lost := l.fig.sent - l.fig.own - left
	for _, count := range []*uint64{&l.fig.expired, &l.fig.received} {
		n := min(lost, *count)
		*count -= n
		l.fig.own += n
		lost -= n
	}
}

// registered is how many messages it was ever to get up to read: all since it
// registered but its own.
func (l *lane) registered(read uint64) uint64 {
	if read <= l.sat.Began {
		return 0
	}
	all := read - l.sat.Began
	return all - min(l.fig.sent, all)
}

func (l *lane) traffic(now time.Time, clock int64) registry.Traffic {
	t := registry.Traffic{
		ID: l.sat.ID, Generation: l.sat.Generation, Position: l.counted,
		Sent: l.fig.sent, SentAt: fromNanos(l.fig.sentAt),
		Received: l.fig.received, Refused: l.fig.refused, Expired: l.fig.expired, Own: l.fig.own,
		ReceivedAt: fromNanos(l.fig.recvAt), Attempts: l.tries, LastError: l.lastErr,
	}
	switch {
	case l.tries > 0:
		t.State = registry.StateParked
		t.RetryAt = now.Add(time.Duration(l.retryAt - clock))
	case l.behind || l.state == loading:
		t.State = registry.StateBehind
	case l.state == atHead:
		t.State = registry.StateIdle
	default:
		t.State = registry.StateLive
	}
	return t
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
