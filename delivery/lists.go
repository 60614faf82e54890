package delivery

// queue is a first-in-first-out queue of lanes in a ring buffer.
type queue struct {
	lanes []*lane
	head  int
	n     int
}

func (q *queue) len() int { return q.n }

func (q *queue) push(l *lane) {
	if q.n == len(q.lanes) {
		grown := make([]*lane, max(64, 2*len(q.lanes)))
		for i := range q.n {
			grown[i] = q.lanes[(q.head+i)%len(q.lanes)]
		}
		q.lanes, q.head = grown, 0
	}
	q.lanes[(q.head+q.n)%len(q.lanes)] = l
	q.n++
}

func (q *queue) pop() *lane {
	if q.n == 0 {
		return nil
	}
	l := q.lanes[q.head]
	q.lanes[q.head] = nil
	q.head = (q.head + 1) % len(q.lanes)
	q.n--
	return l
}

// callList holds the calls under way by the time that they began. As all have
// the same time-out, only the oldest ever needs a look.
type callList struct {
	oldest, newest *lane
	young          int // calls of lanes at the head that began lately
	oldestYoung    *lane
}

func (c *callList) add(l *lane) {
	l.prevCall, l.nextCall = c.newest, nil
	if c.newest != nil {
		c.newest.nextCall = l
	} else {
		c.oldest = l
	}
	c.newest = l
	if l.young = !l.behind; l.young {
		c.young++
	}
	if c.oldestYoung == nil {
		c.oldestYoung = l
	}
}

// age takes note of the calls that began before since.
func (c *callList) age(since int64) {
	for l := c.oldestYoung; l != nil && l.started < since; l = l.nextCall {
		c.grown(l)
		c.oldestYoung = l.nextCall
	}
}

func (c *callList) grown(l *lane) {
	if l.young {
		l.young = false
		c.young--
	}
}

func (c *callList) remove(l *lane) {
	c.grown(l)
	if c.oldestYoung == l {
		c.oldestYoung = l.nextCall
	}
	if l.prevCall != nil {
		l.prevCall.nextCall = l.nextCall
	} else {
		c.oldest = l.nextCall
	}
	if l.nextCall != nil {
		l.nextCall.prevCall = l.prevCall
	} else {
		c.newest = l.prevCall
	}
	l.prevCall, l.nextCall = nil, nil
}

// retryHeap holds the parked lanes, the one whose pause ends first on top.
type retryHeap []*lane

func (h *retryHeap) add(l *lane) {
	l.retryPos = len(*h)
	*h = append(*h, l)
	h.up(l.retryPos)
}

func (h *retryHeap) remove(l *lane) {
	i := l.retryPos
	if i < 0 {
		return
	}
	last := len(*h) - 1
	h.swap(i, last)
	*h = (*h)[:last]
	l.retryPos = -1
	if i < last {
		h.down(i)
		h.up(i)
	}
}

func (h retryHeap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].retryPos, h[j].retryPos = i, j
}

func (h retryHeap) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if h[parent].retryAt <= h[i].retryAt {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h retryHeap) down(i int) {
	for {
		least, left, right := i, 2*i+1, 2*i+2
		if left < len(h) && h[left].retryAt < h[least].retryAt {
			least = left
		}
		if right < len(h) && h[right].retryAt < h[least].retryAt {
			least = right
		}
		if least == i {
			return
		}
		h.swap(i, least)
		i = least
	}
}
