package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// record is a stored message of any stream, on its way to whoever follows it.
type record struct {
	subject string
	seq     uint64
	time    time.Time
	header  nats.Header
	data    []byte
}

// follower hands out a stream from a position on, in order, and heals itself. A consumer is only a hint: it can go blind
// for 10 to 16 s when its node of the broker dies (seen), without anybody being told. So once a second the position is
// compared with the stream's last sequence; behind for a second without progress, the consumer is replaced, and until the
// new one delivers the follower reads by itself.
type follower struct {
	c      *Cluster
	stream string
	next   uint64 // the position: everything before it was handed out

	// read gets records from a position on without a consumer; none means that there is nothing. It is asked of the
	// leader where that matters.
	read func(ctx context.Context, from uint64) ([]record, error)
	// hole is asked before records are skipped; an error makes the follower start again from the hole. nil: holes are
	// normal.
	hole func(ctx context.Context, from, to uint64) error
	// hand gets records in order; none when only the position moved. The slice is the follower's.
	hand func(records []record)

	maxBlind time.Duration // longer without an answer of the stream is errBlind; 0: never

	target   uint64        // the last sequence at the start: all that stood then is handed out when next is beyond it
	position atomic.Uint64 // next, for watchEnd
	batch    []record
	rewound  int       // answers in a row that show an end before the position
	answered time.Time // when the stream last told its end, by the wall clock: a machine may have slept
}

const (
	checkEvery   = time.Second
	healPause    = 100 * time.Millisecond
	openPatience = 250 * time.Millisecond // before reading without a consumer
	maxRewound   = 5
)

// errBlind: the stream did not answer for longer than it keeps what is needed to catch up.
var errBlind = errors.New("out of touch for too long")

// run follows until ctx ends (nil), or the position is worth nothing any more (ErrRewound, errBlind).
func (f *follower) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	f.answered = time.Now().Round(0)
	f.position.Store(f.next)
	ends := f.watchEnd(ctx)
	defer func() {
		cancel()
		for range ends {
		}
	}()
	for ctx.Err() == nil {
		reconnected := f.c.bulkUp.wait()
		k := f.open(ctx, ends)
		if k == nil {
			break
		}
		err := f.drain(ctx, k, ends, reconnected)
		k.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// end is one answer to the question where the stream ends.
type end struct {
	last     uint64
	position uint64 // of the follower when it was asked: in lively traffic it is beyond last when the answer comes
	known    bool   // the stream answered
}

// watchEnd asks once a second for the stream's last sequence, beside everything else, since an answer can take long. The
// channel is closed when ctx has ended and nothing runs any more.
func (f *follower) watchEnd(ctx context.Context) <-chan end {
	ends := make(chan end)
	go func() {
		defer close(ends)
		for {
			position := f.position.Load()
			try, cancel := context.WithTimeout(ctx, consumerTry)
			info, err := f.c.streamInfoOnce(try, f.stream)
			cancel()
			e := end{position: position, known: err == nil}
			if e.known {
				e.last = info.State.LastSeq
			}
			select {
			case ends <- e:
			case <-ctx.Done():
				return
			}
			if !sleep(ctx, checkEvery) {
				return
			}
		}
	}()
	return ends
}

// open makes a consumer, as often as it takes. Meanwhile, after a moment of patience, it reads without one.
func (f *follower) open(ctx context.Context, ends <-chan end) *consumer {
	opening, cancel := context.WithCancel(ctx)
	defer cancel()
	opened := f.openBeside(opening)
	abandon := func() {
		cancel()
		if k := <-opened; k != nil {
			k.close()
		}
	}
	wait := time.NewTimer(openPatience)
	defer wait.Stop()
	for {
		select {
		case k := <-opened:
			return k
		case <-ctx.Done():
			abandon()
			return nil
		case <-ends:
		case <-wait.C:
			pause := healPause
			if n, err := f.readOn(ctx); err == nil && n > 0 {
				pause = 0
			}
			wait.Reset(pause)
		}
	}
}

// openBeside delivers one consumer, or nil when ctx ends.
func (f *follower) openBeside(ctx context.Context) <-chan *consumer {
	opened := make(chan *consumer, 1)
	from := f.next
	go func() {
		for warned := false; ; {
			k, err := f.c.openConsumer(ctx, f.stream, from)
			if err == nil {
				opened <- k
				return
			}
			if !warned && ctx.Err() == nil {
				warned = true
				f.c.log.Warn("cannot follow stream, trying on", "stream", f.stream, "error", err)
			}
			if !sleep(ctx, healPause) {
				opened <- nil
				return
			}
		}
	}()
	return opened
}

// drain hands out what k delivers until k must be replaced.
func (f *follower) drain(ctx context.Context, k *consumer, ends <-chan end, reconnected <-chan struct{}) error {
	var msgs []*nats.Msg
	var was uint64 // the position at the last check
	if k.idle {
		f.passTarget(ctx)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-reconnected:
			return nil // the server behind the new connection may not know the consumer
		case <-k.wake:
			msgs = k.take(msgs)
			if err := f.deliver(ctx, k, msgs); err != nil {
				f.c.log.Debug("consumer is replaced", "stream", f.stream, "next", f.next, "error", err)
				return nil
			}
			clear(msgs)
		case e := <-ends:
			blind, err := f.check(ctx, e, was)
			if err != nil || blind {
				return err
			}
			was = f.next
		}
	}
}

// errBroken: the consumer lost messages or skips some that are there.
var errBroken = errors.New("consumer is not complete")

// deliver hands out the messages of k as one batch. It ends early with an error when one is missing.
func (f *follower) deliver(ctx context.Context, k *consumer, msgs []*nats.Msg) error {
	f.batch = f.batch[:0]
	next := f.next
	var failed error
	caughtUp := false
	for _, m := range msgs {
		if k.control(m) {
			continue
		}
		meta, err := m.Metadata()
		if err != nil || meta.Sequence.Consumer != k.last+1 {
			failed = fmt.Errorf("message %d of the consumer is missing: %w", k.last+1, errBroken)
			break
		}
		k.last = meta.Sequence.Consumer
		seq := meta.Sequence.Stream
		if seq < next {
			continue // read without the consumer already
		}
		if seq > next && f.hole != nil && next > 0 {
			if failed = f.hole(ctx, next, seq); failed != nil {
				break
			}
		}
		f.batch = append(f.batch, record{subject: m.Subject, seq: seq, time: meta.Timestamp, header: m.Header, data: m.Data})
		next = seq + 1
		caughtUp = meta.NumPending == 0
	}
	f.pass(next)
	k.answer()
	if failed == nil && caughtUp {
		f.passTarget(ctx)
	}
	return failed
}

// passTarget moves the position beyond what stood at the start if the last messages of that are gone. A consumer never
// says so; the leader does.
func (f *follower) passTarget(ctx context.Context) {
	if f.next > f.target {
		return
	}
	if n, err := f.readOn(ctx); err == nil && n == 0 {
		f.batch = f.batch[:0]
		f.pass(f.target + 1)
	}
}

// pass hands out f.batch and moves the position.
func (f *follower) pass(next uint64) {
	if next == f.next {
		return
	}
	f.next = next
	f.position.Store(next)
	f.hand(f.batch)
	clear(f.batch)
}

// check compares the position with the stream's end. was is the position at the check before.
func (f *follower) check(ctx context.Context, e end, was uint64) (blind bool, err error) {
	if !e.known {
		return false, nil
	}
	if since := time.Now().Round(0).Sub(f.answered); f.maxBlind > 0 && since > f.maxBlind {
		return false, fmt.Errorf("follow stream %s: %w: %s", f.stream, errBlind, since)
	}
	f.answered = time.Now().Round(0)
	if e.last+1 < e.position {
		if f.rewound++; f.rewound >= maxRewound {
			return false, fmt.Errorf("follow stream %s from %d: it ends at %d: %w", f.stream, f.next, e.last, ErrRewound)
		}
		return false, nil
	}
	f.rewound = 0
	if f.next != was || f.next > e.last {
		return false, nil
	}
	// Behind for a second. Messages that the consumer will never deliver because they are gone are no reason to replace it.
	stuck := f.next
	n, err := f.readOn(ctx)
	if err == nil && n == 0 {
		f.batch = f.batch[:0]
		f.pass(e.last + 1)
		return false, nil
	}
	f.c.log.Warn("consumer is blind, replacing it", "stream", f.stream, "position", stuck, "end", e.last)
	return true, nil
}

// readOn reads once without the consumer and hands out what there is.
func (f *follower) readOn(ctx context.Context) (int, error) {
	try, cancel := context.WithTimeout(ctx, consumerTry)
	defer cancel()
	records, err := f.read(try, f.next)
	if err != nil || len(records) == 0 {
		return 0, err
	}
	f.batch = append(f.batch[:0], records...)
	f.pass(records[len(records)-1].seq + 1)
	return len(records), nil
}
