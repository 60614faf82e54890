package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Group commit. What callers publish while a commit is under way gathers and becomes the next one: an atomic batch, which
// the server writes with one sync however many messages it has. Under little load messages are published one by one.
//
// A batch is stored as a whole or not at all (nats-server, processJetStreamAtomicBatchMsg), so it needs no id for each of
// its messages: its first and its last carry one. A repeat of a batch that was stored is refused for the first one's id
// before anything else about it is judged. That it was stored as a whole then shows when the last one's id is known as
// well: on a single node a write error can end a batch in the middle, and a later start of the server completes it. And
// since the server remembers ids a moment before it has synced a batch, the log must prove afterwards that no write of it
// has failed.

const (
	maxBatch      = 256                  // messages; the server's limit is 1000
	maxBatchLen   = 1 << 20              // bytes of bodies
	batchPace     = 2 * time.Millisecond // from the beginning of a batch to that of the next commit, at least
	maxPause      = apiMost
	maxIncomplete = 2 // batches in a row that could not be staged, until messages are published one by one
)

// commitQueue gathers what waits for a commit.
type commitQueue struct {
	mu   sync.Mutex
	list []*pending
	wake chan struct{} // has a token when list may have something
}

func (q *commitQueue) init() { q.wake = make(chan struct{}, 1) }

func (q *commitQueue) put(p *pending) {
	q.mu.Lock()
	q.list = append(q.list, p)
	q.mu.Unlock()
	q.signal()
}

func (q *commitQueue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take appends to batch what waits, as much as one batch may have.
func (q *commitQueue) take(batch []*pending) []*pending {
	q.mu.Lock()
	defer q.mu.Unlock()
	size, n := 0, 0
	for ; n < len(q.list) && len(batch) < maxBatch; n++ {
		p := q.list[n]
		if len(batch) > 0 && size+len(p.msg.Body) > maxBatchLen {
			break
		}
		if p.state.CompareAndSwap(waiting, taken) {
			size += len(p.msg.Body)
			batch = append(batch, p)
		}
	}
	q.list = slices.Delete(q.list, 0, n)
	if len(q.list) > 0 {
		q.signal()
	}
	return batch
}

// commitLoop makes one commit after the other. A log takes in messages one by one anyway, so a second one in flight gains
// nothing but smaller batches. Staging a batch takes a single node 0.7 ms of CPU time however few messages it has: with
// senders who fill batches of five that was half of all that accepting cost, hence the pace.
func (l *Log) commitLoop() {
	var batch []*pending
	var next time.Time // when the next commit may begin
	for {
		select {
		case <-l.c.stop.Done():
			return
		case <-l.queue.wake:
		}
		time.Sleep(time.Until(next))
		batch = l.queue.take(batch[:0])
		switch {
		case len(batch) == 0:
		case l.costs.together(len(batch)):
			start := time.Now()
			next = start.Add(batchPace)
			if l.commitBatch(batch, l.nextID(), l.nextID()) {
				l.costs.note(&l.costs.batch, time.Since(start))
			}
		default:
			start := time.Now()
			l.commitEach(batch)
			l.costs.note(&l.costs.single, time.Since(start)/time.Duration(len(batch)))
		}
		clear(batch)
	}
}

// costs are what commits took lately. A batch costs about as much as three single messages when the server stages it in
// memory, and as much as fifty when it does so on a busy disk.
type costs struct {
	mu            sync.Mutex
	single, batch time.Duration // running means; 0: not known
}

// together tells whether n messages are better published as a batch.
func (c *costs) together(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n < 3 {
		return false
	}
	if c.single == 0 || c.batch <= time.Duration(n)*c.single {
		return true
	}
	c.batch -= c.batch / 16 // what was expensive lately is tried again soon
	return false
}

func (c *costs) note(mean *time.Duration, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if *mean == 0 {
		*mean = took
	}
	*mean += (min(took, 4**mean) - *mean) / 8 // one hiccup of the disk says little
}

func settle(batch []*pending, err error) {
	for _, p := range batch {
		p.done <- err
	}
}

// commitBatch stores the batch under the ids of its first message and its last. It repeats it while its outcome is unknown
// and a caller still waits, and tells whether the first try was all it took.
func (l *Log) commitBatch(batch []*pending, first, last string) (smooth bool) {
	ctx, cancel := l.untilAllLeft(batch)
	defer cancel()
	doubt := false // an earlier try may have been stored
	incomplete := 0
	for pause := apiPause; ; pause = min(2*pause, maxPause) {
		err := l.sendBatch(ctx, batch, first, last)
		o := judge(err, doubt)
		switch {
		case o == seen:
			o, err = l.confirmBatch(ctx, last)
		case apiCode(err) == codeIncompleteBatch:
			incomplete++
		}
		switch o {
		case committed:
			settle(batch, nil)
			return pause == apiPause
		case inPart:
			l.settlePart(batch, last)
			return false
		case refused:
			// One message may be the reason, or the room left is too little for all of them but enough for some.
			l.commitEach(batch)
			return false
		case unknown:
			doubt = true
		}
		if !doubt && incomplete >= maxIncomplete {
			l.commitEach(batch)
			return false
		}
		if refusal := l.refuse(); refusal != nil && (!doubt || errors.Is(refusal, errDenied)) {
			settle(batch, refusal)
			return false
		}
		if !sleep(ctx, pause) {
			settle(batch, gaveUp(doubt, err))
			return false
		}
	}
}

// untilAllLeft ends when the last of the callers has gone.
func (l *Log) untilAllLeft(batch []*pending) (context.Context, context.CancelFunc) {
	var latest time.Time
	for _, p := range batch {
		if at, ok := p.ctx.Deadline(); ok && at.After(latest) {
			latest = at
		}
	}
	return context.WithDeadline(l.c.stop, latest)
}

// sendBatch sends the batch under a batch id of its own, so that what is left of an earlier try cannot mix with it.
func (l *Log) sendBatch(ctx context.Context, batch []*pending, first, last string) error {
	id := []string{l.nextID()}
	end := len(batch) - 1
	for i, p := range batch {
		m := l.message(p.msg)
		m.Header[headerBatchID] = id
		m.Header[headerBatchSeq] = []string{strconv.Itoa(i + 1)}
		switch i {
		case 0:
			m.Header[headerMsgID] = []string{first}
		case end:
			m.Header[headerMsgID] = []string{last}
			m.Header[headerBatchCommit] = []string{"1"}
			return l.sendCommit(ctx, m)
		}
		if err := l.c.nc.PublishMsg(m); err != nil {
			return fmt.Errorf("%w: %w", errNotSent, err) // without its last message nothing of it is stored
		}
	}
	return nil
}

func (l *Log) sendCommit(ctx context.Context, m *nats.Msg) error {
	ctx, cancel := l.c.try(ctx, apiTry)
	defer cancel()
	_, err := l.c.publish(ctx, m)
	return err
}

// confirmBatch finds out about a batch whose first id is known to the server, by its last one. It publishes that on a
// condition that is never met, and that the server judges after the id (stream.go, processJetStreamMsgWithBatch): so it
// stores nothing, and after a lost answer the next one is as true. Were the last message stored here, a batch without its
// middle would seem whole from then on.
func (l *Log) confirmBatch(ctx context.Context, last string) (outcome, error) {
	ctx, cancel := l.c.try(ctx, apiTry)
	defer cancel()
	ack, err := l.c.publish(ctx, &nats.Msg{Subject: relaySubject, Header: nats.Header{
		headerMsgID: {last}, headerExpectID: {l.nextID()},
	}})
	o := inPart
	switch {
	case apiCode(err) == codeWrongLastID:
		err = nil
	case ack.Duplicate:
		o = committed
	}
	if err == nil {
		err = l.healthy(ctx)
	}
	if err != nil {
		return unknown, err
	}
	return o, nil
}

// settlePart answers a batch that a write error cut short: its first message is in the log, its last is not. The last can
// still be stored, because it has an id.
func (l *Log) settlePart(batch []*pending, last string) {
	l.c.log.Warn("a batch of messages was stored in part", "messages", len(batch))
	end := len(batch) - 1
	settle(batch[:1], nil)
	settle(batch[1:end], ErrMaybeAccepted)
	err := l.commitOne(batch[end], last)
	if err != nil {
		err = gaveUp(true, err)
	}
	settle(batch[end:], err)
}

// commitEach publishes every message by itself. Nothing of them was stored, so new ids are right.
func (l *Log) commitEach(batch []*pending) {
	if len(batch) == 1 {
		settle(batch, l.commitOne(batch[0], l.nextID()))
		return
	}
	var all sync.WaitGroup
	for _, p := range batch {
		all.Go(func() { p.done <- l.commitOne(p, l.nextID()) })
	}
	all.Wait()
}
