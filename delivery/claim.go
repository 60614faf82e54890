package delivery

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/co2relay/co2relay/registry"
)

// claim is a partition on its way into a loop: what its last owner left, and
// what the log says beyond that.
type claim struct {
	id     int
	epoch  uint64
	from   checkpoint
	marks  map[uint64]laneMark
	record registry.TrafficRecord
	stored uint64 // its revision
	traf   map[registry.ID]*registry.Traffic
	sent   map[registry.ID]*tally // own messages found by reading the log again
	readTo uint64                 // up to here

	replayed map[registry.ID]uint64 // the generations for which it was read
}

// tally is what a replay found out about one sender.
type tally struct {
	sent   uint64 // its messages after the record's reading position
	sentAt int64
	own    uint64 // its messages between its counted position and its checkpoint
}

// Claimed begins to serve a partition. Loading happens beside the loops.
func (w *Worker) Claimed(p int, epoch uint64, state []byte) {
	if k := w.kept[p]; k.epoch > 0 && k.epoch+1 == epoch {
		state = k.state
		w.kept[p].epoch = epoch // until it is loaded, nothing newer is known
	}
	ctx, cancel := context.WithCancel(w.ctx)
	w.mu.Lock()
	w.claims[p] = cancel
	w.mu.Unlock()
	w.world.begin(&w.wg, func() {
		defer cancel()
		for ctx.Err() == nil {
			err := w.load(ctx, p, epoch, state)
			if err == nil || ctx.Err() != nil {
				return
			}
			w.log.Warn("loading a partition failed, trying again", "partition", p, "error", err)
			w.world.pause(ctx, time.Second)
		}
	})
}

// load brings a partition into its loop.
func (w *Worker) load(ctx context.Context, p int, epoch uint64, state []byte) error {
	from, err := decodeCheckpoint(state)
	if err != nil {
		return fmt.Errorf("read partition %d's checkpoint: %w", p, err)
	}
	// A registration that the last owner knew must be known here too: otherwise
	// its lane would be taken for a new one, or for one that is gone.
	if err := w.stats.WaitRevision(ctx, from.revision); err != nil {
		return err
	}
	record, revision, err := w.stats.LoadTraffic(ctx, p)
	if err != nil {
		return err
	}
	c := &claim{id: p, epoch: epoch, from: from, marks: from.marks(), record: record, stored: revision}
	c.traf = make(map[registry.ID]*registry.Traffic, len(record.Satellites))
	for i := range record.Satellites {
		c.traf[record.Satellites[i].ID] = &record.Satellites[i]
	}
	for {
		// The satellites first: what begins beyond the end is new since then.
		sats := w.satellites(p)
		end, err := w.relay.Last(ctx)
		if err != nil {
			return err
		}
		if err := w.replay(ctx, c, sats, end); err != nil {
			return err
		}
		attached, err := w.attach(ctx, c)
		if err != nil || attached {
			return err
		}
	}
}

// start is where a satellite's lane goes on. A satellite that the checkpoint
// does not know yet begins at its own beginning, so it misses nothing after
// its 'OK', however late anybody's watch is.
func (c *claim) start(sat *registry.Satellite) (position uint64, known bool, m laneMark) {
	if sat.Generation > c.from.revision {
		return sat.Began, false, m
	}
	m, listed := c.marks[hashID(sat.ID)]
	if !listed {
		m.position = c.from.read
	}
	return max(m.position, sat.Began), true, m
}

// counted is up to where the record's figures of a satellite count.
func (c *claim) counted(sat *registry.Satellite) uint64 {
	if t := c.traf[sat.ID]; t != nil && t.Generation == sat.Generation {
		return t.Position
	}
	return sat.Began
}

// sentTo is up to where the record counts a satellite's own messages.
func (c *claim) sentTo(sat *registry.Satellite) uint64 {
	if t := c.traf[sat.ID]; t != nil && t.Generation == sat.Generation {
		return c.record.ReadTo
	}
	return sat.Began
}

type span struct{ first, last uint64 }

// replay reads the parts of the log again that the record's figures do not
// count yet, up to end, and tallies who sent what. The figures of a message are
// thus counted once, whoever counted them.
func (w *Worker) replay(ctx context.Context, c *claim, sats map[registry.ID]*registry.Satellite, end uint64) error {
	var spans []span
	for _, sat := range sats {
		spans = append(spans, span{c.sentTo(sat) + 1, end})
		if position, _, _ := c.start(sat); position > c.counted(sat) {
			spans = append(spans, span{c.counted(sat) + 1, position})
		}
	}
	c.sent = make(map[registry.ID]*tally)
	c.replayed = make(map[registry.ID]uint64, len(sats))
	for id, sat := range sats {
		c.replayed[id] = sat.Generation
	}
	c.readTo = end
	for _, s := range union(spans) {
		if err := w.replaySpan(ctx, c, sats, s); err != nil {
			return err
		}
	}
	return nil
}

func (w *Worker) replaySpan(ctx context.Context, c *claim, sats map[registry.ID]*registry.Satellite, s span) error {
	for at := s.first; at <= s.last; {
		entries, next, err := w.relay.Read(ctx, at, blockMessages, blockBytes)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Seq > s.last {
				break
			}
			sat := sats[registry.ID(e.Sender)]
			if sat == nil || e.Seq <= sat.Began {
				continue
			}
			t := c.sent[sat.ID]
			if t == nil {
				t = &tally{}
				c.sent[sat.ID] = t
			}
			if e.Seq > c.sentTo(sat) {
				t.sent++
				t.sentAt = e.Time.UnixNano()
			}
			if position, _, _ := c.start(sat); e.Seq > c.counted(sat) && e.Seq <= position {
				t.own++
			}
		}
		w.member.Progress()
		if len(entries) > 0 {
			at = max(next, at+1)
			continue
		}
		// Either all that is left was purged, or the node that answered lags.
		state, err := w.relay.State(ctx)
		if err != nil {
			return err
		}
		if state.First <= at {
			w.world.pause(ctx, blockRetry)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		at = state.First
	}
	return nil
}

// union merges spans that overlap or touch, so that nothing is read twice.
func union(spans []span) []span {
	sort.Slice(spans, func(i, j int) bool { return spans[i].first < spans[j].first })
	var out []span
	for _, s := range spans {
		if s.last < s.first {
			continue
		}
		if n := len(out); n > 0 && s.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, s.last)
			continue
		}
		out = append(out, s)
	}
	return out
}

// attach hands the partition to its loop. It returns false when the loop has
// read past what was replayed and can't tally the rest itself.
func (w *Worker) attach(ctx context.Context, c *claim) (bool, error) {
	lp := w.loopOf(c.id)
	result := make(chan bool, 1)
	// Under the lock, so that no change of a registration falls between the
	// list of satellites and the moment from which changes reach the loop.
	w.mu.Lock()
	if ctx.Err() != nil { // released or lost meanwhile
		w.mu.Unlock()
		return false, ctx.Err()
	}
	sats := w.sats[c.id]
	all := slices.SortedFunc(maps.Values(sats), func(a, b *registry.Satellite) int { return cmp.Compare(a.ID, b.ID) })
	revision := w.revision
	w.serving[c.id] = true
	w.saver.own(c.id, c.epoch, c.stored)
	lp.post(func() { result <- lp.attach(c, all, revision) })
	w.mu.Unlock()
	w.world.turn(lp)
	select {
	case ok := <-result:
		return ok, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// attach takes a partition in. Messages that the loop has seen beyond the
// replay are tallied from the ring, if it still holds them all.
func (lp *loop) attach(c *claim, sats []*registry.Satellite, revision uint64) bool {
	for _, sat := range sats {
		if c.replayed[sat.ID] != sat.Generation && sat.Began < c.readTo {
			return false // it became known after the replay, which did not count for it
		}
	}
	var rest []*message
	for seq := c.readTo + 1; seq <= lp.seen; seq++ {
		m := lp.ring.get(seq)
		if m == nil {
			return false
		}
		rest = append(rest, m)
	}
	p := &partition{
		id: c.id, epoch: c.epoch, lanes: make(map[registry.ID]*lane, len(sats)), joining: make(map[registry.ID]*registry.Satellite),
		revision: revision, readTo: max(c.readTo, lp.seen), dirty: true, changed: true,
	}
	p.past = c.past(sats)
	lp.owned.Add(1)
	for _, sat := range sats {
		lp.restore(c, p, sat)
	}
	for _, m := range rest {
		countSent(p, m)
	}
	// Lanes at about the same place follow each other and so share what is read.
	lanes := slices.SortedFunc(maps.Values(p.lanes), func(a, b *lane) int {
		return cmp.Or(cmp.Compare(a.next, b.next), cmp.Compare(a.sat.ID, b.sat.ID))
	})
	for _, l := range lanes {
		lp.enqueue(l)
	}
	lp.parts[c.id] = p
	return true
}

// past is what the record counts for satellites that are gone by now.
func (c *claim) past(sats []*registry.Satellite) registry.Totals {
	here := make(map[registry.ID]uint64, len(sats))
	for _, sat := range sats {
		here[sat.ID] = sat.Generation
	}
	past := c.record.Totals
	for _, t := range c.record.Satellites {
		if here[t.ID] != t.Generation {
			// It left while nobody served the partition: what it was owed is dropped.
			past.Dropped += uint64(t.Owed(c.record.ReadTo))
			continue
		}
		past.Recipients -= t.Received + t.Refused + t.Expired + uint64(t.Owed(c.record.ReadTo))
		past.Delivered -= t.Received
		past.Refused -= t.Refused
		past.Expired -= t.Expired
	}
	return past
}

// restore makes a satellite's lane as its last owner left it.
func (lp *loop) restore(c *claim, p *partition, sat *registry.Satellite) {
	position, known, mark := c.start(sat)
	if c.replayed[sat.ID] == sat.Generation {
		position = min(position, p.readTo) // a log restored from a copy may end earlier
	}
	l := lp.addLane(p, sat, position)
	if t := c.traf[sat.ID]; t != nil && t.Generation == sat.Generation {
		l.fig = figures{
			received: t.Received, refused: t.Refused, expired: t.Expired, own: t.Own,
			sent: t.Sent, sentAt: nanos(t.SentAt), recvAt: nanos(t.ReceivedAt),
		}
		l.lastErr = t.LastError
		l.counted = t.Position
	} else {
		l.counted = sat.Began
	}
	l.savedRefused, l.savedExpired = l.fig.refused, l.fig.expired
	if known && mark.gap.count > 0 {
		lp.skipped(l, mark.gap)
	}
	if known && mark.failing {
		l.tries = 1
		lp.met.parked.Add(1)
	}
	var found *tally
	if c.replayed[sat.ID] == sat.Generation { // else it is of an earlier generation
		found = c.sent[sat.ID]
	}
	if found != nil {
		l.fig.sent += found.sent
		if found.sentAt > 0 {
			l.fig.sentAt = found.sentAt
		}
	}
	if position > l.counted { // settled after the record was written
		n := position - l.counted
		part := func(k uint64) uint64 { // of what is not accounted for yet
			k = min(k, n)
			n -= k
			return k
		}
		if found != nil {
			l.fig.own += part(found.own)
		}
		if mark.figures {
			l.fig.refused += part(mark.refused - min(mark.refused, l.fig.refused))
			l.fig.expired += part(mark.expired - min(mark.expired, l.fig.expired))
		}
		l.fig.received += n
		l.counted = position
	}
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// countSent counts a message for its sender, if that is a lane here.
func countSent(p *partition, m *message) {
	if l := p.lanes[m.sender]; l != nil && m.seq > l.sat.Began {
		l.fig.sent++
		l.fig.sentAt = m.at
	}
}
