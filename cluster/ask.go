package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Question asks the owner of a partition to do something. It is a request of core NATS: every delivery worker hears it, and
// only the owner answers. An answer may be lost after the deed, so questions must be ones that may be asked twice.
type Question struct {
	Version    int    `json:"v"`
	Kind       string `json:"kind"` // QuestionSkip
	Satellite  string `json:"satellite"`
	Generation uint64 `json:"generation"`
	To         uint64 `json:"to"` // the last message to skip
}

// QuestionSkip asks to give up what a satellite is owed, up to a message.
const QuestionSkip = "skip"

// Answer is what the owner did.
type Answer struct {
	Version  int    `json:"v"`
	Worker   string `json:"worker"`
	Error    string `json:"error,omitempty"` // it was not done, and why
	First    uint64 `json:"first,omitempty"` // of the messages concerned
	Last     uint64 `json:"last,omitempty"`
	Count    uint64 `json:"count"`
	Position uint64 `json:"position"` // of the satellite now: everything up to it is done
}

const (
	askSubjects = "co2.ask."
	// Answers have subjects of their own: so the broker need not remember what each worker may answer to, which it would do
	// for every message of the log that it sends to one.
	answerSubjects = "co2.answer."

	askTry   = 4 * time.Second // the owner writes a checkpoint before it answers
	askPause = 250 * time.Millisecond
)

// ErrNoOwner says that nobody who owns the partition answered.
var ErrNoOwner = errors.New("no delivery worker that owns the partition answered; is one running?")

// Ask asks the owner of a partition until it answers or ctx ends (ErrNoOwner): a partition that is being handed over has no
// owner for a moment. What the owner could not do is an error too.
func (c *Cluster) Ask(ctx context.Context, partition int, q Question) (Answer, error) {
	q.Version = schemaVersion
	body, err := json.Marshal(q)
	if err != nil {
		return Answer{}, fmt.Errorf("encode question: %w", err)
	}
	for {
		a, err := c.askOnce(ctx, partition, body)
		switch {
		case err == nil && a.Error != "":
			return a, fmt.Errorf("%s %s: worker %s: %s", q.Kind, q.Satellite, a.Worker, a.Error)
		case err == nil:
			return a, nil
		case !isSilence(err):
			return a, fmt.Errorf("%s %s: %w", q.Kind, q.Satellite, err)
		case !sleep(ctx, askPause):
			return a, fmt.Errorf("%s %s: partition %d: %w", q.Kind, q.Satellite, partition, ErrNoOwner)
		}
	}
}

func (c *Cluster) askOnce(ctx context.Context, partition int, body []byte) (Answer, error) {
	ctx, cancel := c.try(ctx, askTry)
	defer cancel()
	var a Answer
	reply := answerSubjects + rand.Text()
	sub, err := c.nc.SubscribeSync(reply)
	if err != nil {
		return a, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := c.nc.PublishRequest(askSubjects+strconv.Itoa(partition), reply, body); err != nil {
		return a, err
	}
	m, err := sub.NextMsgWithContext(ctx)
	if err != nil {
		return a, err
	}
	if len(m.Data) == 0 { // the broker's own answer: no worker listens
		return a, nats.ErrNoResponders
	}
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return a, fmt.Errorf("decode answer: %w", err)
	}
	return a, nil
}

// OnAsk calls fn, each time in a goroutine of its own, for every question about any partition, until cancel. With false
// nothing is answered: the partition is another's. cancel ends the contexts of the calls and waits for them.
func (c *Cluster) OnAsk(fn func(ctx context.Context, partition int, q Question) (Answer, bool)) (cancel func(), err error) {
	ctx, end := context.WithCancel(c.stop)
	var mu sync.Mutex
	var calls sync.WaitGroup
	sub, err := c.nc.Subscribe(askSubjects+"*", func(m *nats.Msg) {
		var q Question
		partition, err := strconv.Atoi(strings.TrimPrefix(m.Subject, askSubjects))
		if err != nil || partition < 0 || partition >= Partitions || json.Unmarshal(m.Data, &q) != nil {
			c.log.Debug("question is unreadable", "subject", m.Subject)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		calls.Go(func() {
			if a, mine := fn(ctx, partition, q); mine {
				c.answer(m, a)
			}
		})
	})
	if err != nil {
		end()
		return nil, fmt.Errorf("listen for questions: %w", err)
	}
	return func() {
		_ = sub.Unsubscribe()
		mu.Lock()
		end()
		mu.Unlock()
		calls.Wait()
	}, nil
}

// answer sends a, best effort: who asked asks again.
func (c *Cluster) answer(m *nats.Msg, a Answer) {
	a.Version = schemaVersion
	if b, err := json.Marshal(a); err == nil {
		_ = m.Respond(b)
	}
}
