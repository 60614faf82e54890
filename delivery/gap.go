package delivery

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/internal/wire"
)

// Reasons of gaps.
const (
	reasonRetention = "log_retention"
	reasonMaxAge    = "max_age"
	reasonOperator  = "operator"
)

const gapGather = time.Second // a lane goes over a gap message by message or block by block, all at once

// gap is what a lane was moved over and nobody was told of yet. It stands in
// the checkpoint until its event is written: a position beyond it would hide it
// from whoever takes over the satellites of a killed worker.
type gap struct {
	first, last, count uint64 // count 0: nothing
	reason             string
}

// add joins what the lane was moved over next.
func (g *gap) add(o gap) {
	if g.count == 0 {
		g.first = o.first
	}
	g.last, g.reason = o.last, o.reason
	g.count += o.count
}

// less takes away what was told of: it is always the first part.
func (g *gap) less(told gap) {
	if told.last >= g.last {
		*g = gap{}
		return
	}
	g.first = told.last + 1
	g.count -= min(told.count, g.count)
}

func (g *gap) encode(b []byte) []byte {
	b = binary.AppendUvarint(b, g.first)
	b = binary.AppendUvarint(b, g.last)
	b = binary.AppendUvarint(b, g.count)
	b = binary.AppendUvarint(b, uint64(len(g.reason)))
	return append(b, g.reason...)
}

func readGap(r *wire.Reader) gap {
	return gap{r.Uint(), r.Uint(), r.Uint(), string(r.Take(r.Uint()))}
}

// untold is a lane's gap on its way into an event.
type untold struct {
	gap
	telling bool  // an event is under way
	dueAt   int64 // of the next, in the loop's clock
}

// gapPace says when gaps are told: a first one once it was gathered, what
// follows after a pause.
type gapPace struct{ gather, pause time.Duration }

// skipped notes that a lane was moved over messages that it will never get.
func (lp *loop) skipped(l *lane, g gap) {
	if l.gap == nil {
		l.gap = &untold{dueAt: lp.now + int64(lp.pace.gather)}
		lp.gaps = append(lp.gaps, l)
	}
	l.gap.add(g)
	l.part.dirty = true
}

// tellGaps has events written of the gaps whose time has come.
func (lp *loop) tellGaps() {
	lp.gaps = slices.DeleteFunc(lp.gaps, func(l *lane) bool {
		u := l.gap
		over := l.state == gone || u.count == 0 && !u.telling && lp.now >= u.dueAt
		switch {
		case over:
			l.gap = nil
		case u.count > 0 && !u.telling && lp.now >= u.dueAt:
			u.telling = true
			told := u.gap
			lp.tell(l.gapEvent(told), func(written bool) {
				lp.post(func() { lp.told(l, told, written) })
			})
		}
		return over
	})
}

// told takes the outcome of an event. What was not written is told again.
func (lp *loop) told(l *lane, told gap, written bool) {
	if l.gap == nil {
		return // the lane is gone
	}
	l.gap.telling = false
	l.gap.dueAt = lp.now + int64(lp.pace.gather)
	if written {
		l.gap.less(told)
		l.gap.dueAt = lp.now + int64(lp.pace.pause)
		l.part.dirty = true
	}
}

func (l *lane) gapEvent(g gap) eventOf {
	return eventOf{kind: cluster.EventGap, sat: l.sat.ID, first: g.first, last: g.last, count: g.count, reason: g.reason}
}

// lastGap is what is left to be told of a lane that ends for good.
func (lp *loop) lastGap(l *lane) {
	if l.gap != nil && l.gap.count > 0 && !l.gap.telling {
		lp.tell(l.gapEvent(l.gap.gap), func(bool) {})
	}
}
