package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// publishLimit bounds a publish whose context has no deadline. It stays far below the duplicates window of two minutes, so
// that every repeat is recognised.
const publishLimit = 30 * time.Second

// commitEnds is how much longer a publish waits for the end of its commit, which knows whether anything was sent.
const commitEnds = 250 * time.Millisecond

// Publish puts m into the log and returns nil when it is there: on disk, and on a majority of several nodes. When the
// outcome stays unknown until ctx ends it is ErrMaybeAccepted; every other error means that m was not accepted.
// Publishes of concurrent callers share a commit.
func (l *Log) Publish(ctx context.Context, m Message) error {
	if err := l.admit(m); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("publish: %w", unavailable(ctx.Err())) // before anything of it is sent
	}
	ctx, cancel := context.WithTimeout(ctx, publishLimit)
	defer cancel()
	if m.DedupID != "" {
		p := &pending{msg: m, ctx: ctx}
		return wrapPublish(l.commitOne(p, dedupID(m)))
	}
	p := &pending{msg: m, ctx: ctx, done: make(chan error, 1)}
	l.queue.put(p)
	select {
	case err := <-p.done:
		return wrapPublish(err)
	case <-ctx.Done():
	case <-l.c.stop.Done():
	}
	if p.state.CompareAndSwap(waiting, left) {
		return fmt.Errorf("publish: %w", unavailable(ctx.Err()))
	}
	// Its commit is under way, and ends about now if no other caller of the same batch has more time.
	select {
	case err := <-p.done:
		return wrapPublish(err)
	case <-time.After(commitEnds):
		return wrapPublish(ErrMaybeAccepted)
	}
}

func wrapPublish(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("publish: %w", err)
}

// admit refuses what has no chance.
func (l *Log) admit(m Message) error {
	if most := l.c.nc.MaxPayload(); most > 0 && int64(len(m.Body)+len(m.Sender)+headerRoom) > most {
		return fmt.Errorf("%w: %d bytes, the broker takes %d", ErrTooLarge, len(m.Body), most)
	}
	return l.refuse()
}

// errDenied needs an operator: nothing that is published there arrives.
var errDenied = errors.New("the broker's permissions forbid publishing to " + relaySubject)

// refuse tells why nothing can be accepted just now; nil if all seems well.
func (l *Log) refuse() error {
	if l.c.denied.Load() {
		return errDenied
	}
	return l.c.server.refuse()
}

// headerRoom is what the headers of an entry take at most, except the sender's name.
const headerRoom = 256

// pending is a message between Publish and its commit.
type pending struct {
	msg   Message
	ctx   context.Context
	done  chan error // has room for the one outcome
	state atomic.Int32
}

const (
	waiting = iota // in the queue
	taken          // its commit is under way
	left           // the caller went away before that
)

func (l *Log) message(m Message) *nats.Msg {
	return &nats.Msg{Subject: relaySubject, Data: []byte(m.Body), Header: nats.Header{headerSender: {m.Sender}, headerVersion: l.version}}
}

// commitOne publishes a message by itself, and repeats it under the same id while its outcome is unknown.
func (l *Log) commitOne(p *pending, id string) error {
	m := l.message(p.msg)
	m.Header[headerMsgID] = []string{id}
	doubt := false // an earlier try may have been stored
	for pause := apiPause; ; pause = min(2*pause, maxPause) {
		try, cancel := l.c.try(p.ctx, apiTry)
		_, err := l.c.publish(try, m)
		cancel()
		switch o := judge(err, doubt); o {
		case committed:
			return nil
		case refused:
			return refusal(err)
		case unknown:
			doubt = true
		}
		if refusal := l.refuse(); refusal != nil && (!doubt || errors.Is(refusal, errDenied)) {
			return refusal
		}
		if !sleep(p.ctx, pause) {
			return gaveUp(doubt, err)
		}
	}
}

func gaveUp(doubt bool, last error) error {
	if doubt {
		return fmt.Errorf("%w: %w", ErrMaybeAccepted, last)
	}
	return unavailable(last)
}

// outcome is what an answer to a publish says about the message, or the whole batch.
type outcome int

const (
	committed outcome = iota
	refused           // not stored, now or before
	notStored         // this try was not stored, for a passing reason: repeat
	unknown           // no answer: repeat
	seen              // a batch was refused because its first id is known
	inPart            // a batch was stored without its end
)

// judge reads an answer. doubt says that an earlier try may have been stored: then only a refusal that comes after the
// server's check of the message id tells that it was not (stream.go, checkMsgHeadersPreClusteredProposal).
func judge(err error, doubt bool) outcome {
	code := apiCode(err)
	switch {
	case err == nil:
		return committed
	case code == codeDuplicateInBatch:
		return seen
	case isFull(err) || storeFailedWith(err, textTooLarge):
		return refused
	case code == codeStoreFailed: // closing, for example
		return notStored
	case code == codeIDInProcess:
		return unknown
	case code == codeIncompleteBatch || isPassing(err):
		return notStored
	case code != 0:
		if doubt {
			return unknown
		}
		return refused
	case wasNotSent(err):
		return notStored
	case isSilence(err):
		return unknown
	case doubt:
		return unknown
	case errors.Is(err, nats.ErrMaxPayload):
		return refused
	}
	return unknown
}

const textTooLarge = "message too large" // server/store.go

// refusal names a definite refusal for callers.
func refusal(err error) error {
	switch code := apiCode(err); {
	case code == codeTooLarge || code == codeHeaderTooLarge || storeFailedWith(err, textTooLarge) || errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case isFull(err):
		return fmt.Errorf("%w: %w", ErrQueueFull, err)
	case code == codeNoResources || code == codeAccountResources || code == codeStorageResources:
		return fmt.Errorf("%w: the broker's own limit of storage is reached: %w", ErrShortOfDisk, err)
	}
	return fmt.Errorf("refused by the broker: %w", err)
}
