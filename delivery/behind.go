package delivery

// How lanes that are behind the ring find their messages, and take turns at it.

// find returns the lane's next message, from the ring or from a block of the
// log. It returns nil when the lane has to wait, and for a hole after it has
// moved the lane over it.
func (lp *loop) find(l *lane) *message {
	if m := lp.ring.get(l.next); m != nil {
		lp.leavePlace(l)
		l.block = nil
		return m
	}
	if !lp.takePlace(l) {
		l.state, l.block = ready, nil
		lp.catching.push(l)
		return nil
	}
	for l.next <= lp.seen {
		if !lp.haveBlock(l) {
			return nil
		}
		m := l.block.at(l.next)
		if m != nil && m.seq == l.next {
			return m
		}
		last := l.block.to - 1
		if m != nil {
			last = m.seq - 1
		}
		lp.expire(l, min(last, lp.seen), reasonRetention)
	}
	lp.enqueue(l)
	return nil
}

// haveBlock sees to it that the lane has the block with its next message, or
// has it wait for one. Half through a block the next one is read ahead.
func (lp *loop) haveBlock(l *lane) bool {
	if b := l.block; b != nil && l.next >= b.from && l.next < b.to {
		if l.next == b.from+(b.to-b.from)/2 && b.to <= lp.seen && lp.ring.get(b.to) == nil {
			lp.blocks.get(lp.ctx, b.to, nil)
		}
		return true
	}
	l.block = lp.blocks.get(lp.ctx, l.next, func() {
		lp.post(func() {
			if l.state == loading {
				lp.enqueue(l)
			}
		})
	})
	if l.block == nil {
		l.state = loading
		lp.leavePlace(l)
		return false
	}
	return true
}

func (lp *loop) takePlace(l *lane) bool {
	if l.behind {
		return true
	}
	if lp.places >= lp.cfg.Behind {
		return false
	}
	lp.places++
	l.behind, l.turns = true, 0
	return true
}

// freePlaces takes the places of lanes that wait for an answer: satellites that
// hang must not keep others from catching up, nor blocks in memory beyond what
// the cache may hold. They get a place again with the answer.
func (lp *loop) freePlaces() {
	for l := lp.calls.oldest; l != nil && lp.now-l.started >= int64(placePatience); l = l.nextCall {
		lp.leavePlace(l)
		l.block = nil
	}
}

func (lp *loop) leavePlace(l *lane) {
	if l.behind {
		lp.places--
		l.behind = false
	}
}
