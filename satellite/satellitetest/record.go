package satellitetest

import (
	"bytes"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Notify is one notify call as it arrived.
type Notify struct {
	MsgID      uint64    // the relay's msg_id; 0 if it was missing or not a decimal number
	At         time.Time // when the whole call had arrived
	Settled    bool      // the answer told the relay that it need not repeat the call
	Sender     string    // host_id, as escaped in the call; "" unless bodies are kept
	NotifyPass string    // as escaped in the call; "" unless bodies are kept
	Data       string    // the value of the member data, "<value>" to "</value>"; "" unless bodies are kept
	Body       string    // the call's whole document; "" unless bodies are kept
}

// Stats counts what a satellite got. Only settled calls count as Distinct,
// Repeats or OutOfOrder: to repeat another one is the relay's duty.
type Stats struct {
	Notifies    uint64 // notify calls read whole
	Failed      uint64 // those of them that the satellite did not settle (hang, drop, 5xx, ...)
	Distinct    uint64 // different msg_ids
	Repeats     uint64 // notify calls whose msg_id had been settled before
	OutOfOrder  uint64 // first-time notify calls with a msg_id below one settled before
	Overlapping uint64 // notify calls that came while another one was unanswered
	NoMsgID     uint64 // notify calls without a decimal msg_id
	WrongPass   uint64 // notify calls with another notify_pass than Options.NotifyPass
	Pings       uint64
	Other       uint64 // calls of other methods, answered by a fault
	Malformed   uint64 // requests that were no POST with a Content-Length
	Connections uint64 // accepted
	LastMsgID   uint64 // the highest settled
}

// Add returns the sums of both; LastMsgID is the higher one.
func (s Stats) Add(o Stats) Stats {
	s.Notifies += o.Notifies
	s.Failed += o.Failed
	s.Distinct += o.Distinct
	s.Repeats += o.Repeats
	s.OutOfOrder += o.OutOfOrder
	s.Overlapping += o.Overlapping
	s.NoMsgID += o.NoMsgID
	s.WrongPass += o.WrongPass
	s.Pings += o.Pings
	s.Other += o.Other
	s.Malformed += o.Malformed
	s.Connections += o.Connections
	s.LastMsgID = max(s.LastMsgID, o.LastMsgID)
	return s
}

// arrival is what is kept of every notify: 24 bytes, since a benchmark brings
// millions of them.
type arrival struct {
	id      uint64
	at      int64 // nanoseconds since the satellite started
	settled bool
}

// record is everything that a satellite got, in order of arrival.
type record struct {
	mu       sync.Mutex
	start    time.Time
	keep     Keep
	pass     string
	stats    Stats
	arrivals []arrival
	calls    []Notify        // with KeepBodies, instead of arrivals
	rising   []uint64        // settled ids that were above all before them: sorted
	late     map[uint64]bool // settled ids that came out of order
	open     int             // notify calls not answered yet
}

// notify records a call that has arrived whole; done is called once it is
// answered or given up.
func (r *record) notify(body []byte, settled bool) (id uint64) {
	var n Notify
	now := time.Now()
	id, ok := msgID(body)
	if r.keep == KeepBodies {
		n = Notify{MsgID: id, At: now, Settled: settled, Body: string(body)}
		n.Sender = textOf(memberOf(body, "host_id"))
		n.NotifyPass = textOf(memberOf(body, "notify_pass"))
		n.Data = string(memberOf(body, "data"))
	}
	wrong := r.pass != "" && textOf(memberOf(body, "notify_pass")) != r.pass

	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Notifies++
	if !ok {
		r.stats.NoMsgID++
	}
	if wrong {
		r.stats.WrongPass++
	}
	if r.open++; r.open > 1 {
		r.stats.Overlapping++
	}
	switch r.keep {
	case KeepBodies:
		r.calls = append(r.calls, n)
	case KeepIDs:
		r.arrivals = append(r.arrivals, arrival{id, int64(now.Sub(r.start)), settled})
	}
	if settled {
		r.settle(id)
	} else {
		r.stats.Failed++
	}
	return id
}

// settle files id as seen, repeated or out of order.
func (r *record) settle(id uint64) {
	if len(r.rising) == 0 || id > r.rising[len(r.rising)-1] {
		r.rising = append(r.rising, id)
		r.stats.Distinct++
		r.stats.LastMsgID = id
		return
	}
	if _, found := slices.BinarySearch(r.rising, id); found || r.late[id] {
		r.stats.Repeats++
		return
	}
	if r.late == nil {
		r.late = make(map[uint64]bool)
	}
	r.late[id] = true
	r.stats.Distinct++
	r.stats.OutOfOrder++
}

func (r *record) done() {
	r.mu.Lock()
	r.open--
	r.mu.Unlock()
}

func (r *record) count(what *uint64) {
	r.mu.Lock()
	*what++
	r.mu.Unlock()
}

func (r *record) received() []Notify {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keep == KeepBodies {
		return slices.Clone(r.calls)
	}
	all := make([]Notify, len(r.arrivals))
	for i, a := range r.arrivals {
		all[i] = Notify{MsgID: a.id, At: r.start.Add(time.Duration(a.at)), Settled: a.settled}
	}
	return all
}

// ids returns the different settled ids in order of first arrival, as far as
// they rose; those out of order follow, sorted.
func (r *record) ids() []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := slices.Clone(r.rising)
	for id := range r.late {
		all = append(all, id)
	}
	slices.Sort(all[len(r.rising):])
	return all
}

func (r *record) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	connections := r.stats.Connections
	r.stats = Stats{Connections: connections}
	r.arrivals, r.calls, r.rising, r.late = nil, nil, nil, nil
}

// msgID reads the member msg_id of a notify call.
func msgID(body []byte) (uint64, bool) {
	id, err := strconv.ParseUint(textOf(memberOf(body, "msg_id")), 10, 64)
	return id, err == nil
}

// memberOf returns the value ("<value>" to "</value>") of the named member of
// the call's struct. It relies on the relay's canonical form: '<' opens a tag,
// always, and no tag has attributes or closes itself.
func memberOf(body []byte, name string) []byte {
	tag := []byte("<name>" + name + "</name>")
	i := bytes.Index(body, tag)
	if i < 0 {
		return nil
	}
	if last := bytes.LastIndex(body, tag); last != i { // the data has such a member too
		if i = topLevel(body, tag); i < 0 {
			return nil
		}
	}
	return firstValue(body[i+len(tag):])
}

// topLevel finds tag inside exactly one struct.
func topLevel(body, tag []byte) int {
	depth := 0
	for i := 0; i < len(body); i++ {
		if body[i] != '<' {
			continue
		}
		switch rest := body[i:]; {
		case bytes.HasPrefix(rest, []byte("<struct>")):
			depth++
		case bytes.HasPrefix(rest, []byte("</struct>")):
			depth--
		case depth == 1 && bytes.HasPrefix(rest, tag):
			return i
		}
	}
	return -1
}

// firstValue returns the value at the start of b, with all that it holds.
func firstValue(b []byte) []byte {
	start, depth := -1, 0
	for i := 0; i < len(b); i++ {
		if b[i] != '<' {
			continue
		}
		switch rest := b[i:]; {
		case bytes.HasPrefix(rest, []byte("<value>")):
			if depth == 0 {
				start = i
			}
			depth++
		case bytes.HasPrefix(rest, []byte("</value>")):
			if depth--; depth == 0 {
				return b[start : i+len("</value>")]
			}
		case depth == 0:
			return nil // something else begins before a value does
		}
	}
	return nil
}

// textOf returns what stands between the tags of a scalar value.
func textOf(value []byte) string {
	i := bytes.LastIndexByte(bytes.TrimSuffix(bytes.TrimSuffix(value, []byte("</value>")), []byte("</string>")), '>')
	if i < 0 {
		return ""
	}
	text, _, _ := bytes.Cut(value[i+1:], []byte("<"))
	return string(text)
}
