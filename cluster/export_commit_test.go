package cluster

import "context"

// RepeatedBatch is a batch whose outcome is in doubt: Send tries it, and may be called again, Settle repeats it like Publish
// does and returns what each caller is told.
type RepeatedBatch struct {
	l           *Log
	batch       []*pending
	first, last string
	sent        bool
}

func (l *Log) NewBatch(ctx context.Context, messages ...Message) *RepeatedBatch {
	b := &RepeatedBatch{l: l, first: l.nextID(), last: l.nextID()}
	for _, m := range messages {
		b.batch = append(b.batch, &pending{msg: m, ctx: ctx, done: make(chan error, 1)})
	}
	return b
}

// Send tries once, but for the first time as often as it takes until the batch is stored.
func (b *RepeatedBatch) Send(ctx context.Context) error {
	for doubt := false; ; {
		err := b.l.sendBatch(ctx, b.batch, b.first, b.last)
		if b.sent {
			return err
		}
		switch o := judge(err, doubt); {
		case o == committed, o == seen && doubt:
			b.sent = true
			return nil
		case o == refused, o == seen:
			return err
		case o == unknown:
			doubt = true
		}
		if !sleep(ctx, apiPause) {
			return err
		}
	}
}

// SendFirst stores only the first message, as a write error in the middle of a batch would.
func (b *RepeatedBatch) SendFirst(ctx context.Context) error {
	m := b.l.message(b.batch[0].msg)
	m.Header[headerMsgID] = []string{b.first}
	_, err := b.l.c.publish(ctx, m)
	return err
}

// Confirm asks about the batch, and loses the answer.
func (b *RepeatedBatch) Confirm(ctx context.Context) { _, _ = b.l.confirmBatch(ctx, b.last) }

func (b *RepeatedBatch) Settle() []error {
	b.l.commitBatch(b.batch, b.first, b.last)
	var errs []error
	for _, p := range b.batch {
		errs = append(errs, <-p.done)
	}
	return errs
}

// DropConsumers deletes every consumer of a stream behind its followers' backs.
func (c *Cluster) DropConsumers(ctx context.Context, stream string) (int, error) {
	var names struct {
		Consumers []string `json:"consumers"`
	}
	if err := c.ask(ctx, "CONSUMER.NAMES."+stream, nil, &names); err != nil {
		return 0, err
	}
	for _, name := range names.Consumers {
		if err := c.ask(ctx, "CONSUMER.DELETE."+stream+"."+name, nil, nil); err != nil && apiCode(err) != 10014 {
			return 0, err // 10014: its owner was faster
		}
	}
	return len(names.Consumers), nil
}

// Names of streams, for tests.
const RelayStream = relayStream

// API asks the broker anything.
func (c *Cluster) API(ctx context.Context, subject string, request, answer any) error {
	return c.ask(ctx, subject, request, answer)
}

// Nats gives tests the server itself.
func (s *Server) Refuse() error { return s.refuse() }

// DiskFree is the space left in dir.
func DiskFree(dir string) (uint64, error) { return diskFree(dir) }
