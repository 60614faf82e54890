package cluster

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// consumer is one ephemeral push consumer at the broker, and what it has delivered here. It acknowledges nothing and may
// break at any time; the follower that owns it notices and makes another.
type consumer struct {
	c      *Cluster
	stream string
	name   string
	sub    *nats.Subscription
	idle   bool     // the broker had nothing to deliver when it made the consumer
	last   uint64   // consumer sequence of the message that was handed out last: the next one is one higher
	owed   []string // flow control to answer once what came before it was handed out

	mu    sync.Mutex
	queue []*nats.Msg   // delivered, not taken
	wake  chan struct{} // has a token when queue may have something
	// Flow control bounds what is in queue: the broker stops at most 32 MiB ahead of our answers.
}

const (
	consumerHeartbeat = time.Second // the broker's minimum is 100 ms; flow control needs one
	consumerIdle      = 10 * time.Second
	consumerTry       = time.Second
)

// consumerConfig is the part of a consumer's configuration that is used here (server/consumer.go).
type consumerConfig struct {
	Name              string        `json:"name"`
	DeliverSubject    string        `json:"deliver_subject"`
	DeliverPolicy     string        `json:"deliver_policy"`
	StartSeq          uint64        `json:"opt_start_seq,omitempty"`
	AckPolicy         string        `json:"ack_policy"`
	ReplayPolicy      string        `json:"replay_policy"`
	FlowControl       bool          `json:"flow_control"`
	Heartbeat         time.Duration `json:"idle_heartbeat"`
	InactiveThreshold time.Duration `json:"inactive_threshold"`
	MaxDeliver        int           `json:"max_deliver"`
	Replicas          int           `json:"num_replicas"`
	MemoryStorage     bool          `json:"mem_storage"`
}

type consumerRequest struct {
	Stream string         `json:"stream_name"`
	Config consumerConfig `json:"config"`
	Action string         `json:"action"`
}

// openConsumer makes a consumer that delivers the stream from sequence from on. It tries once, for a second.
func (c *Cluster) openConsumer(ctx context.Context, stream string, from uint64) (*consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, consumerTry)
	defer cancel()
	inbox := c.bulk.NewInbox()
	k := &consumer{c: c, stream: stream, name: "co2-" + inbox[strings.LastIndexByte(inbox, '.')+1:], wake: make(chan struct{}, 1)}
	var err error
	if k.sub, err = c.bulk.Subscribe(inbox, k.receive); err != nil {
		return nil, unavailable(err)
	}
	if err = k.sub.SetPendingLimits(-1, -1); err == nil {
		err = c.bulk.FlushWithContext(ctx) // the interest must be there before the consumer is
	}
	var info struct {
		Pending uint64 `json:"num_pending"`
	}
	if err == nil {
		err = c.call(ctx, "CONSUMER.CREATE."+stream+"."+k.name, consumerRequest{Stream: stream, Action: "create", Config: consumerConfig{
			Name: k.name, DeliverSubject: inbox, DeliverPolicy: "by_start_sequence", StartSeq: max(from, 1),
			AckPolicy: "none", ReplayPolicy: "instant", FlowControl: true, Heartbeat: consumerHeartbeat,
			InactiveThreshold: consumerIdle, MaxDeliver: 1, Replicas: 1, MemoryStorage: true,
		}}, &info)
	}
	k.idle = info.Pending == 0
	if err != nil {
		k.close()
		return nil, fmt.Errorf("follow stream %s: %w", stream, err)
	}
	return k, nil
}

// receive is called by the connection for every message. It only stores it.
func (k *consumer) receive(m *nats.Msg) {
	k.mu.Lock()
	k.queue = append(k.queue, m)
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// take gives all that has come and leaves spare, emptied, for what comes.
func (k *consumer) take(spare []*nats.Msg) []*nats.Msg {
	k.mu.Lock()
	defer k.mu.Unlock()
	got := k.queue
	k.queue = spare[:0]
	return got
}

// control notes flow control, and tells whether m was such a message instead of an entry.
func (k *consumer) control(m *nats.Msg) bool {
	if len(m.Data) > 0 || m.Header.Get(headerStatus) != "100" {
		return false
	}
	reply := m.Reply // "FlowControl Request"
	if reply == "" {
		reply = m.Header.Get("Nats-Consumer-Stalled") // a heartbeat: an earlier request or answer was lost
	}
	if reply != "" {
		k.owed = append(k.owed, reply)
	}
	return true
}

// answer lets the broker send on.
func (k *consumer) answer() {
	for _, subject := range k.owed {
		_ = k.c.bulk.Publish(subject, nil)
	}
	k.owed = k.owed[:0]
}

// close ends the subscription and tells the broker, which otherwise finds out after consumerIdle.
func (k *consumer) close() {
	_ = k.sub.Unsubscribe()
	_ = k.c.bulk.Publish(apiPrefix+"CONSUMER.DELETE."+k.stream+"."+k.name, nil)
}
