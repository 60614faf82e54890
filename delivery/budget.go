package delivery

// budget shares out a loop's connections, whichever sender opens them. Where
// they are all in use, a new one takes the place of the one unused for longest;
// if all carry a call, the next call waits. A quarter is kept for satellites
// whose last call succeeded, so that those that hang can't take everything.
type budget struct {
	limit    int
	open     int
	doubtful int         // of open: no call on them has succeeded yet, nor had the satellite's last one
	evict    func() bool // closes the connection unused for longest; false: there is none

	proven, doubted waitList
}

// place is a connection's share of a budget.
type place struct{ held, doubtful bool }

// take gives a place to the lane's call, or has the call wait for one.
func (b *budget) take(p *place, l *lane) bool {
	doubtful := !l.everWorked
	if l.waits = !b.room(doubtful); l.waits {
		if doubtful {
			b.doubted.add(l)
		} else {
			b.proven.add(l)
		}
		return false
	}
	*p = place{held: true, doubtful: doubtful}
	b.open++
	if doubtful {
		b.doubtful++
	}
	return true
}

func (b *budget) room(doubtful bool) bool {
	if doubtful && b.doubtful >= b.limit-b.limit/4 {
		return false
	}
	return b.open < b.limit || b.evict()
}

func (b *budget) give(p *place) {
	if p.held {
		b.prove(p)
		b.open--
		p.held = false
	}
}

// prove takes note of a call on the connection that succeeded.
func (b *budget) prove(p *place) {
	if p.doubtful {
		b.doubtful--
		p.doubtful = false
	}
}

// next is the call that has waited longest of those that there is room for,
// nil if there is none.
func (b *budget) next() *lane {
	first, second := &b.proven, &b.doubted
	if p, d := first.first(), second.first(); p == nil || d != nil && d.started < p.started {
		first, second = second, first
	}
	for _, calls := range []*waitList{first, second} {
		if l := calls.first(); l != nil && b.room(calls == &b.doubted) {
			calls.pop()
			return l
		}
	}
	return nil
}

// waitList holds calls that wait for a connection, the first come first. One
// that was given up meanwhile is left out when its turn comes.
type waitList []waitingCall

type waitingCall struct {
	lane  *lane
	epoch uint32
}

func (q *waitList) add(l *lane) {
	q.first() // all wait equally long at most, so this alone keeps it short
	*q = append(*q, waitingCall{l, l.epoch})
}

func (q *waitList) first() *lane {
	for len(*q) > 0 {
		if w := (*q)[0]; w.lane.epoch == w.epoch {
			return w.lane
		}
		q.pop()
	}
	return nil
}

func (q *waitList) pop() {
	(*q)[0] = waitingCall{}
	*q = (*q)[1:]
}
