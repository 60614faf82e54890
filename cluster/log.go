package cluster

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// Headers of an entry of the log, and of JetStream (server/stream.go, ADR-50 for atomic batches).
const (
	headerSender  = "Co2-Sender"
	headerVersion = "Co2-V"

	headerMsgID       = "Nats-Msg-Id"
	headerExpectID    = "Nats-Expected-Last-Msg-Id"
	headerBatchID     = "Nats-Batch-Id"
	headerBatchSeq    = "Nats-Batch-Sequence"
	headerBatchCommit = "Nats-Batch-Commit"
)

// Message is what a sender relays.
type Message struct {
	Sender  string // the sender's satellite, or what else stands for it
	DedupID string // the sender's own id, which makes repeats one message for 2 minutes; "" if it has none
	Body    string // canonical members of the struct, without msg_id and notify_pass
}

// Entry is a message in the log.
type Entry struct {
	Seq    uint64 // msg_id: rises, and never comes twice
	Time   time.Time
	Sender string
	Body   []byte // shared: do not change
}

// LogState is how full the log is.
type LogState struct {
	First, Last, Messages, Bytes uint64 // Last is the last sequence ever given, also when its entry is gone; First may be Last+1
	MaxBytes                     int64  // 0: no limit
	Origin                       uint64 // the sequence that the log began with when it was made
}

// Log is the stream RELAY: every relayed message once, in the order in which satellites get them.
type Log struct {
	c       *Cluster
	queue   commitQueue
	costs   costs
	version []string // the values of headers that never change, shared by all messages
	id      string   // makes message ids of this process unique
	ids     atomic.Uint64
}

func newLog(c *Cluster) *Log {
	l := &Log{c: c, version: []string{strconv.Itoa(schemaVersion)}}
	b := make([]byte, 9)
	rand.Read(b)
	l.id = base64.RawURLEncoding.EncodeToString(b) + "-"
	l.queue.init()
	c.background(l.commitLoop)
	return l
}

// nextID makes an id that no other process and no earlier call uses.
func (l *Log) nextID() string { return l.id + strconv.FormatUint(l.ids.Add(1), 36) }

// dedupID is the message id of a sender's own id: a hash, because it may hold anything and be of any length.
func dedupID(m Message) string {
	h := sha256.New()
	fmt.Fprintf(h, "%d:%s%s", len(m.Sender), m.Sender, m.DedupID)
	return "d-" + base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:18])
}

// Last is the last sequence of the log, asked of its leader.
func (l *Log) Last(ctx context.Context) (uint64, error) {
	s, err := l.State(ctx)
	return s.Last, err
}

// State tells how full the log is, asked of its leader.
func (l *Log) State(ctx context.Context) (LogState, error) {
	info, err := l.c.streamInfo(ctx, relayStream)
	if err != nil {
		return LogState{}, err
	}
	return LogState{
		First: info.State.FirstSeq, Last: info.State.LastSeq, Messages: info.State.Msgs, Bytes: info.State.Bytes,
		MaxBytes: max(info.Config.MaxBytes, 0), Origin: info.Config.FirstSeq,
	}, nil
}

// PurgeTo removes every entry below seq.
func (l *Log) PurgeTo(ctx context.Context, seq uint64) error {
	if seq <= 1 {
		return nil
	}
	if err := l.c.ask(ctx, "STREAM.PURGE."+relayStream, purgeRequest{Seq: seq}, nil); err != nil {
		return fmt.Errorf("purge log below %d: %w", seq, err)
	}
	return nil
}

type purgeRequest struct {
	Seq uint64 `json:"seq,omitempty"`
}

// healthy proves that the log's store can write: a purge that removes nothing is refused like any write once one failed.
func (l *Log) healthy(ctx context.Context) error {
	return l.c.call(ctx, "STREAM.PURGE."+relayStream, purgeRequest{Seq: 2}, nil)
}

// entry makes an Entry of a message that the broker handed out.
func entry(seq uint64, at time.Time, h nats.Header, body []byte) Entry {
	e := Entry{Seq: seq, Time: at, Body: body}
	if v := h[headerSender]; len(v) > 0 {
		e.Sender = v[0]
	}
	return e
}
