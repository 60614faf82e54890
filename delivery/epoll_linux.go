package delivery

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/co2relay/co2relay/internal/caller"
)

// epollSender makes the calls of one loop over plain HTTP. It owns its
// connections and its epoll instance; nothing waits for an answer but the
// kernel. A call costs one write, one read and a share of one epoll_wait.
type epollSender struct {
	lp    *loop
	net   *netSender // for https
	ep    int
	file  *os.File // ep, as Go's own poller sees it
	raw   syscall.RawConn
	event int // eventfd that ends a blocking poll
	ready []unix.EpollEvent
	have  int                // of ready
	wait  func(uintptr) bool // fills ready; made once
	conns []*conn            // by descriptor
	stamp int32

	unused connList

	out  []byte // scratch for a request
	in   []byte // scratch for an answer
	good []byte // the last whole answer that was received and kept its connection
}

const (
	copyLimit = 16 << 10 // a request up to here is copied together for one write
	inBuffer  = 64 << 10
	maxEvents = 128
)

func newSender(lp *loop) (sender, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	event, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(ep)
		return nil, fmt.Errorf("create eventfd: %w", err)
	}
	s := &epollSender{
		lp: lp, net: newNetSender(lp), ep: ep, event: event,
		ready: make([]unix.EpollEvent, maxEvents), in: make([]byte, inBuffer), out: make([]byte, 0, copyLimit),
	}
	lp.budget.evict = s.evict
	s.wait = func(fd uintptr) bool {
		s.have, _ = unix.EpollWait(int(fd), s.ready, 0)
		return s.have > 0
	}
	err = unix.SetNonblock(ep, true)
	if err == nil {
		err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, event, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(event)})
	}
	if err == nil {
		// The epoll instance is itself polled by Go's poller, so that a waiting
		// loop is a parked goroutine and holds neither a thread nor a processor.
		s.file = os.NewFile(uintptr(ep), "epoll")
		s.raw, err = s.file.SyscallConn()
	}
	if err != nil {
		unix.Close(event)
		unix.Close(ep)
		return nil, fmt.Errorf("set up epoll: %w", err)
	}
	return s, nil
}

func (s *epollSender) wake() {
	one := [8]byte{1}
	_, _ = unix.Write(s.event, one[:])
}

func (s *epollSender) close() {
	for _, c := range s.conns {
		if c != nil {
			s.drop(c)
		}
	}
	s.net.close()
	s.lp.closeMail()
	s.file.Close()
	unix.Close(s.event)
}

// poll handles the events that there are.
func (s *epollSender) poll(block bool) {
	if block {
		if s.raw.Read(s.wait) != nil { // it looks once before it waits
			return
		}
	} else if !s.wait(uintptr(s.ep)) {
		return
	}
	s.lp.readClock()
	for i := range s.have {
		e := &s.ready[i]
		if int(e.Fd) == s.event {
			var count [8]byte
			_, _ = unix.Read(s.event, count[:])
			continue
		}
		if c := s.conns[e.Fd]; c != nil && c.stamp == e.Pad {
			s.handle(c, e.Events)
		}
	}
}

// call begins a call on the lane's connection, or on a new one.
func (s *epollSender) call(l *lane, m *message) {
	if l.sat.Scheme == caller.SchemeHTTPS {
		s.net.call(l, m)
		return
	}
	c := l.conn
	if c == nil {
		s.dial(l, l.loop6, false)
		return
	}
	s.unused.remove(c)
	c.busy, c.reused = true, true
	s.write(c)
}

func (s *epollSender) abort(l *lane) {
	s.net.abort(l)
	if l.conn != nil {
		s.drop(l.conn)
	}
}

func (s *epollSender) idle(l *lane) {
	s.net.idle(l)
	if l.conn != nil && !l.conn.busy {
		s.drop(l.conn)
	}
}

func (s *epollSender) sweep(now int64) {
	s.net.sweep(now)
	for c := s.unused.oldest; c != nil && now-c.usedAt > int64(s.lp.cfg.IdleTimeout); c = s.unused.oldest {
		s.drop(c)
	}
}

// evict closes the connection unused for longest, of https satellites only when
// there is no other: those cost more to open again.
func (s *epollSender) evict() bool {
	if s.unused.oldest == nil {
		return s.net.evict()
	}
	s.drop(s.unused.oldest)
	return true
}

// dial opens a connection for a lane's call, when there is room for one.
func (s *epollSender) dial(l *lane, twin, triedTwin bool) {
	var held place
	if !s.lp.budget.take(&held, l) {
		return
	}
	addr := l.sat.Addr
	if twin {
		addr, _ = caller.Loopback6(addr)
	}
	fd, err := connect(addr)
	if err != nil {
		s.lp.budget.give(&held)
		s.fail(l, "connect", err)
		return
	}
	s.stamp++
	c := &conn{fd: fd, stamp: s.stamp, lane: l, place: held, connecting: true, busy: true, twin: twin, triedTwin: triedTwin}
	for fd >= len(s.conns) {
		s.conns = append(s.conns, make([]*conn, max(64, len(s.conns)))...)
	}
	s.conns[fd] = c
	l.conn = c
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(fd), Pad: c.stamp}
	if err := unix.EpollCtl(s.ep, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		s.drop(c)
		s.fail(l, "connect", err)
	}
}

// drop closes a connection.
func (s *epollSender) drop(c *conn) {
	if s.conns[c.fd] != c {
		return
	}
	s.conns[c.fd] = nil
	unix.Close(c.fd)
	s.lp.budget.give(&c.place)
	if !c.busy {
		s.unused.remove(c)
	}
	if c.lane.conn == c {
		c.lane.conn = nil
	}
}

func (s *epollSender) fail(l *lane, reason string, err error) {
	s.lp.settle(l, outcome{verdict: caller.Failed, reason: reason, err: err})
}

// failConn ends a call whose connection is of no more use. A connection that
// the satellite may have closed while it was unused proves nothing, so that
// call is made once more, at once, on a new one.
func (s *epollSender) failConn(c *conn, reason string, err error) {
	l := c.lane
	s.drop(c)
	if l.state != calling {
		return
	}
	if c.reused && !c.parser.Started() && !l.retriedOnce {
		l.retriedOnce = true
		if s.lp.mayCall(l) {
			s.dial(l, c.twin, false)
		}
		return
	}
	s.fail(l, reason, err)
}

func (s *epollSender) handle(c *conn, events uint32) {
	const down = unix.EPOLLERR | unix.EPOLLHUP
	if c.connecting {
		if events&(unix.EPOLLOUT|down) == 0 {
			return
		}
		if !s.connected(c) {
			return
		}
	} else if len(c.pending) > 0 && events&unix.EPOLLOUT != 0 && !s.flush(c) {
		return
	}
	if events&(unix.EPOLLRDHUP|down) != 0 {
		c.half = true
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|down) != 0 {
		s.read(c)
	}
}

// connected ends the opening of a connection and writes the call that waits
// for it. It returns false when the connection is gone.
func (s *epollSender) connected(c *conn) bool {
	code, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = syscall.Errno(code)
	}
	if err == nil {
		c.connecting = false
		return s.lp.mayCall(c.lane) && s.write(c)
	}
	l := c.lane
	s.drop(c)
	refused := errors.Is(err, unix.ECONNREFUSED)
	if _, ok := caller.Loopback6(l.sat.Addr); ok && refused && !c.triedTwin {
		s.dial(l, !c.twin, true)
		return false
	}
	reason := "connect"
	if refused {
		reason = "refused"
	}
	s.fail(l, reason, fmt.Errorf("connect to %s: %w", l.sat.Addr, err))
	return false
}

// write sends the lane's message. A small one is copied together for a single
// write; of a large one nothing but the head and the tail is copied.
func (s *epollSender) write(c *conn) bool {
	l := c.lane
	if c.parser.Started() {
		c.parser.Reset()
	}
	target := caller.Target{Addr: l.sat.Addr, Close: l.oneAtATime}
	tail := appendTail(s.in[:0], l.sat.NotifyPass) // s.in is free until the answer comes
	length := len(l.msg.body) + len(tail)
	head := caller.AppendRequest(s.out[:0], target, length)
	if len(head)+length > copyLimit {
		c.pending = append(c.pending[:0], append([]byte(nil), head...), l.msg.body, append([]byte(nil), tail...))
		return s.flush(c)
	}
	whole := append(append(head, l.msg.body...), tail...)
	s.out = whole[:0]
	n, err := write(c.fd, whole)
	switch {
	case err == nil && n == len(whole):
		return true
	case err == nil || errors.Is(err, unix.EAGAIN):
		c.pending = append(c.pending[:0], append([]byte(nil), whole[max(n, 0):]...))
		return true
	default:
		s.failConn(c, "write", fmt.Errorf("write to %s: %w", l.sat.Addr, err))
		return false
	}
}

// flush writes what is left of a request, as far as the kernel takes it.
func (s *epollSender) flush(c *conn) bool {
	for len(c.pending) > 0 {
		n, err := unix.Writev(c.fd, c.pending)
		if errors.Is(err, unix.EAGAIN) {
			return true
		}
		if err != nil {
			s.failConn(c, "write", fmt.Errorf("write to %s: %w", c.lane.sat.Addr, err))
			return false
		}
		for n > 0 && n >= len(c.pending[0]) {
			n -= len(c.pending[0])
			c.pending[0] = nil
			c.pending = c.pending[1:]
		}
		if n > 0 {
			c.pending[0] = c.pending[0][n:]
		}
	}
	return true
}

// read takes what has come: a piece of an answer, or the connection's end.
func (s *epollSender) read(c *conn) {
	for {
		n, err := read(c.fd, s.in)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			s.failConn(c, "closed", fmt.Errorf("read from %s: %w", c.lane.sat.Addr, err))
			return
		case !c.busy: // bytes that nobody asked for, or the end of an unused connection
			s.drop(c)
			return
		case n == 0:
			s.ended(c)
			return
		}
		if !c.parser.Started() && !c.half && bytes.Equal(s.in[:n], s.good) {
			s.received(c)
			return
		}
		done, perr := c.parser.Feed(s.in[:n])
		if perr != nil {
			s.failConn(c, "not_http", perr)
			return
		}
		if done {
			s.answered(c, s.in[:n])
			return
		}
		if n < len(s.in) && !c.half {
			return
		}
	}
}

// ended handles the end of a connection during a call.
func (s *epollSender) ended(c *conn) {
	done, err := c.parser.EOF()
	switch {
	case done:
		s.answered(c, nil)
	case c.parser.Started():
		s.failConn(c, "truncated", err)
	default:
		s.failConn(c, "closed", fmt.Errorf("%s closed the connection without an answer", c.lane.sat.Addr))
	}
}

// received ends a call that was answered to the letter as one that was read
// and judged before. Satellites of a kind answer alike, so most answers need
// no more than a comparison.
func (s *epollSender) received(c *conn) {
	s.settle(c, outcome{verdict: caller.Received, loop6: c.twin}, c.lane.oneAtATime || len(c.pending) > 0)
}

// answered ends a call: the answer is judged, the connection is kept or closed,
// and the lane goes on. last is the piece of the answer that came last.
func (s *epollSender) answered(c *conn, last []byte) {
	l, a := c.lane, c.parser.Answer()
	v, reason := a.Verdict()
	o := outcome{verdict: v, reason: reason, retryAfter: a.RetryAfter, loop6: c.twin}
	if v == caller.Failed {
		o.err = statusError(l.sat.Addr, a.Status)
	}
	closing := a.Close || c.half || l.oneAtATime || len(c.pending) > 0
	if v == caller.Received && !closing && c.parser.Whole() {
		s.good = append(s.good[:0], last...)
	}
	s.settle(c, o, closing)
}

// settle keeps or closes the connection of a call that has ended, and tells
// the loop.
func (s *epollSender) settle(c *conn, o outcome, closing bool) {
	l := c.lane
	if closing || o.verdict == caller.Failed {
		s.drop(c)
	} else {
		s.lp.budget.prove(&c.place)
		c.busy = false
		c.usedAt = s.lp.now
		s.unused.add(c)
	}
	s.lp.settle(l, o)
}
