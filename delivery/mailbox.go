package delivery

import (
	"sync"
	"sync/atomic"
)

// mailbox takes work from other goroutines to the loop.
type mailbox struct {
	mu     sync.Mutex
	work   []func()
	full   atomic.Bool
	closed bool
}

// post has f run by the loop's goroutine. A loop that has stopped drops it.
func (lp *loop) post(f func()) {
	lp.mail.mu.Lock()
	defer lp.mail.mu.Unlock()
	if lp.mail.closed {
		return
	}
	lp.mail.work = append(lp.mail.work, f)
	if !lp.mail.full.Swap(true) {
		lp.sender.wake()
	}
}

// closeMail takes no more mail. After it nobody wakes the sender any more.
func (lp *loop) closeMail() {
	lp.mail.mu.Lock()
	lp.mail.closed = true
	lp.mail.mu.Unlock()
}

func (lp *loop) readMail() {
	if !lp.mail.full.Load() {
		return
	}
	lp.mail.mu.Lock()
	work := lp.mail.work
	lp.mail.work = nil
	lp.mail.full.Store(false)
	lp.mail.mu.Unlock()
	for _, f := range work {
		f()
	}
}
