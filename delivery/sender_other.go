//go:build !linux

package delivery

// conn is a connection of the epoll sender's, which is not here.
type conn struct{}

// plainSender waits for its loop's mail; every call is a netSender's.
type plainSender struct {
	*netSender
	signal chan struct{}
}

func newSender(lp *loop) (sender, error) {
	s := &plainSender{netSender: newNetSender(lp), signal: make(chan struct{}, 1)}
	lp.budget.evict = s.evict
	return s, nil
}

func (s *plainSender) poll(block bool) {
	if block {
		<-s.signal
	}
}

func (s *plainSender) close() {
	s.netSender.close()
	s.lp.closeMail()
}

func (s *plainSender) wake() {
	select {
	case s.signal <- struct{}{}:
	default:
	}
}
