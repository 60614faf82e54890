package registry

import (
	"math"
	"time"
)

// State is what a lane of the delivery worker is doing.
type State uint8

// The states of a lane. The numbers are stored; new ones go to the end.
const (
	StateIdle   State = iota // nothing is owed
	StateLive                // at the head of the log
	StateBehind              // catching up
	StateParked              // failing, waits for its next attempt
)

// String gives the state's name as props_raw and the pages show it.
func (s State) String() string {
	switch s {
	case StateIdle:
		return "idle"
	case StateLive:
		return "live"
	case StateBehind:
		return "behind"
	case StateParked:
		return "parked"
	}
	return "unknown"
}

// Traffic is one satellite's send and receive figures, as of a position in
// the log. Everything counts within one generation.
type Traffic struct {
	ID         ID
	Generation uint64
	// Position is the last sequence of RELAY that is done for this satellite.
	// Received, Refused, Expired and Own belong to it: at a take-over they
	// are advanced from here and never counted twice.
	Position uint64
	// Sent counts its relay calls up to the record's ReadTo, SentAt is the
	// time of the last of them (the broker's clock).
	Sent   uint64
	SentAt time.Time
	// Received counts the notify calls that were answered, except those
	// answered by a refusal, which count in Refused only.
	Received, Refused uint64
	// Expired counts messages that a gap took away.
	Expired uint64
	// Own counts messages of its own that its position has passed.
	Own        uint64
	ReceivedAt time.Time
	State      State
	Attempts   uint32    // failed ones in a row, of the message it waits for
	RetryAt    time.Time // of the next attempt, while parked
	LastError  string    // at most MaxLastError bytes are kept
}

// MaxLastError bounds Traffic.LastError in bytes.
const MaxLastError = 100

// Owed counts the messages in (Position, readTo] that are not the satellite's
// own: those that it has still to be notified of.
func (t *Traffic) Owed(readTo uint64) int64 {
	owed := int64(readTo-t.Position) - int64(t.Sent-t.Own)
	return max(owed, 0)
}

// Totals counts pairs of message and recipient, over all satellites that a
// partition ever had, deregistered ones included.
type Totals struct {
	Recipients uint64 // satellites that a message read was due to
	Delivered  uint64
	Refused    uint64
	Expired    uint64
	Dropped    uint64 // owed when the satellite deregistered
}

// Add adds another partition's totals.
func (t *Totals) Add(u Totals) {
	t.Recipients += u.Recipients
	t.Delivered += u.Delivered
	t.Refused += u.Refused
	t.Expired += u.Expired
	t.Dropped += u.Dropped
}

// TrafficRecord is what the delivery worker that owns a partition writes of
// it: one consistent snapshot.
type TrafficRecord struct {
	Partition  int
	Epoch      uint64 // of the ownership under which it was written
	ReadTo     uint64 // last sequence of RELAY counted in Sent and Recipients
	Totals     Totals
	Satellites []Traffic
}

// Ping is one satellite's ping figures. Times are round trips in milliseconds.
type Ping struct {
	ID         ID
	Generation uint64
	Count      uint64 // pings sent, failed ones included
	Fails      uint64
	// Current is the last round trip, -1 if it was not pinged or the last
	// one failed. Min, Max and Sum are over the answered ones,
	// Count - Fails of them.
	Current, Min, Max, Sum float64
	At                     time.Time // of the last ping
	// OneAtATime remembers that the satellite serves no second connection
	// while one stands, so that calls to it ask for close.
	OneAtATime bool
	Failing    uint32 // failures in a row
	// FailingSince is when the first of them was; zero if the last ping was
	// answered.
	FailingSince time.Time
	// Recent are the last round trips, the newest at the end, in units of
	// RecentUnit; 0: there was none yet, RecentFailed: no answer.
	Recent [RecentPings]uint32
}

const (
	// RecentPings is how many of the last round trips are kept.
	RecentPings = 16
	// RecentUnit is the unit of Ping.Recent.
	RecentUnit = 10 * time.Microsecond
	// RecentFailed stands in Ping.Recent for a ping without an answer.
	RecentFailed = math.MaxUint32
)

// Remember adds a round trip to Recent.
func (p *Ping) Remember(took time.Duration) {
	p.remember(uint32(min(max(took/RecentUnit, 1), RecentFailed-1)))
}

// RememberFailed adds a ping without an answer to Recent.
func (p *Ping) RememberFailed() { p.remember(RecentFailed) }

func (p *Ping) remember(n uint32) {
	copy(p.Recent[:], p.Recent[1:])
	p.Recent[RecentPings-1] = n
}

// PingRecord is what the pinger that owns a partition writes of it.
type PingRecord struct {
	Partition  int
	Epoch      uint64
	Satellites []Ping
}
