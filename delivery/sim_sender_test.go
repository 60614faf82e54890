package delivery

import "github.com/co2relay/co2relay/internal/caller"

// simSender carries calls in the simulation.
type simSender struct {
	p     *simProc
	lp    *loop
	calls map[*lane]*simCall
}

func (n *simSender) call(l *lane, m *message) {
	c := n.p.s.called(n.p, l, m)
	n.calls[l] = c
	s := n.p.s
	c.answer = func(o outcome) {
		if n.calls[l] != c || c.cut {
			return
		}
		delete(n.calls, l)
		n.lp.readClock()
		s.settled(c, o)
		n.lp.settle(l, o)
		n.wake()
	}
	s.travel(c)
}

func (n *simSender) abort(l *lane) {
	if c := n.calls[l]; c != nil {
		c.cut = true
		delete(n.calls, l)
	}
}

func (n *simSender) idle(*lane)  {}
func (n *simSender) poll(bool)   {}
func (n *simSender) sweep(int64) {}
func (n *simSender) close()      {}

// wake has the loop turn soon: it may be busy with something else.
func (n *simSender) wake() {
	if n.p.turns[n.lp] {
		return
	}
	n.p.turns[n.lp] = true
	n.p.s.after(n.p.s.millis(2), n.p, func() {
		n.p.turns[n.lp] = false
		n.p.turn(n.lp)
	})
}

var simRefused = outcome{verdict: caller.Refused, reason: "fault"}
