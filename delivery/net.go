package delivery

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/co2relay/co2relay/internal/caller"
)

// netSender makes calls by Go's own network package, a goroutine for each call
// under way. It serves satellites that registered https, and everything on
// systems without epoll.
type netSender struct {
	lp   *loop
	wg   sync.WaitGroup
	used map[*lane]*netConn // lanes with a connection or a call under way
}

// netConn is a lane's connection. While a call is under way it belongs to the
// call's goroutine, else to the loop.
type netConn struct {
	place  place
	conn   net.Conn // nil before the first call has opened it
	cancel context.CancelFunc
	busy   bool
	usedAt int64
}

func newNetSender(lp *loop) *netSender {
	return &netSender{lp: lp, used: make(map[*lane]*netConn)}
}

func (s *netSender) call(l *lane, m *message) {
	nc := s.used[l]
	if nc == nil {
		nc = &netConn{}
		if !s.lp.budget.take(&nc.place, l) {
			return
		}
		s.used[l] = nc
	}
	nc.busy = true
	ctx, cancel := context.WithTimeout(s.lp.ctx, s.lp.cfg.NotifyTimeout)
	nc.cancel = cancel
	target := caller.Target{Addr: l.sat.Addr, Scheme: l.sat.Scheme, TLSName: l.sat.TLSName, Close: l.oneAtATime}
	tail := appendTail(nil, l.sat.NotifyPass)
	request := caller.AppendRequest(nil, target, len(m.body)+len(tail))
	request = append(append(request, m.body...), tail...)
	conn, epoch := nc.conn, l.epoch
	nc.conn = nil
	s.wg.Go(func() {
		defer cancel()
		conn, o := s.exchange(ctx, target, request, conn)
		s.lp.post(func() { s.done(l, nc, epoch, conn, o) })
	})
}

// exchange makes one call, on conn if there is one. A failure of a connection
// that was used before is no failure of the satellite's, once.
func (s *netSender) exchange(ctx context.Context, t caller.Target, request []byte, conn net.Conn) (net.Conn, outcome) {
	if conn != nil {
		var p caller.Parser
		err := s.once(ctx, conn, request, &p)
		if err == nil {
			return s.judge(conn, t, &p)
		}
		conn.Close()
		if p.Started() || ctx.Err() != nil {
			return nil, failure(err)
		}
	}
	conn, err := caller.Dial(ctx, t, s.lp.cfg.TLS)
	if err != nil {
		return nil, failure(err)
	}
	if !s.lp.alive() { // opening it took its time
		conn.Close()
		return nil, outcome{verdict: caller.Failed, err: errLapsed}
	}
	var p caller.Parser
	if err := s.once(ctx, conn, request, &p); err != nil {
		conn.Close()
		return nil, failure(err)
	}
	return s.judge(conn, t, &p)
}

func (s *netSender) once(ctx context.Context, conn net.Conn, request []byte, p *caller.Parser) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	return caller.Exchange(conn, request, p)
}

func (s *netSender) judge(conn net.Conn, t caller.Target, p *caller.Parser) (net.Conn, outcome) {
	a := p.Answer()
	v, reason := a.Verdict()
	o := outcome{verdict: v, reason: reason, retryAfter: a.RetryAfter}
	if v == caller.Failed {
		o.err = statusError(t.Addr, a.Status)
	}
	if a.Close || t.Close || v == caller.Failed {
		conn.Close()
		conn = nil
	}
	return conn, o
}

// failure names an error's kind for the metrics.
func failure(err error) outcome {
	o := outcome{verdict: caller.Failed, reason: "closed", err: err}
	var op *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		o.reason, o.err = "timeout", errTimeout
	case errors.Is(err, syscall.ECONNREFUSED):
		o.reason = "refused"
	case errors.Is(err, caller.ErrTruncated):
		o.reason = "truncated"
	case errors.Is(err, caller.ErrNotHTTP), errors.Is(err, caller.ErrHead), errors.Is(err, caller.ErrChunk):
		o.reason = "not_http"
	case errors.As(err, &op) && op.Op == "dial":
		o.reason = "connect"
	}
	return o
}

// done takes a call's end back into the loop.
func (s *netSender) done(l *lane, nc *netConn, epoch uint32, conn net.Conn, o outcome) {
	nc.busy, nc.conn, nc.usedAt = false, conn, s.lp.now
	late := s.used[l] != nc || l.epoch != epoch || l.state != calling
	if late || conn == nil {
		s.forget(l, nc)
	} else {
		s.lp.budget.prove(&nc.place)
	}
	switch {
	case late:
	case errors.Is(o.err, errLapsed):
		s.lp.lapsed(l)
	default:
		s.lp.settle(l, o)
	}
}

func (s *netSender) forget(l *lane, nc *netConn) {
	if nc.conn != nil {
		nc.conn.Close()
		nc.conn = nil
	}
	s.lp.budget.give(&nc.place)
	if s.used[l] == nc {
		delete(s.used, l)
	}
}

// abort cuts the call off; its goroutine ends by itself and its outcome is
// not looked at.
func (s *netSender) abort(l *lane) {
	if nc := s.used[l]; nc != nil && nc.busy {
		nc.cancel()
		delete(s.used, l)
	}
}

func (s *netSender) idle(l *lane) {
	if nc := s.used[l]; nc != nil && !nc.busy {
		s.forget(l, nc)
	}
}

// evict closes the connection unused for longest.
func (s *netSender) evict() bool {
	var oldest *lane
	for l, nc := range s.used {
		if !nc.busy && (oldest == nil || nc.usedAt < s.used[oldest].usedAt) {
			oldest = l
		}
	}
	if oldest == nil {
		return false
	}
	s.forget(oldest, s.used[oldest])
	return true
}

func (s *netSender) sweep(now int64) {
	for l, nc := range s.used {
		if !nc.busy && now-nc.usedAt > int64(s.lp.cfg.IdleTimeout) {
			s.forget(l, nc)
		}
	}
}

func (s *netSender) close() {
	for l, nc := range s.used {
		if nc.busy {
			nc.cancel()
		} else {
			s.forget(l, nc)
		}
	}
	s.wg.Wait()
	s.lp.readMail() // the outcomes of what was cut off: they close their connections
}
