package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	maxReadBytes = 512 << 10 // a batched read holds a lock that publishes need
	maxReadBatch = 1000
	readPatience = 300 * time.Millisecond
	readTries    = 3 // before the patience doubles

	headerSeq     = "Nats-Sequence"
	headerLastSeq = "Nats-Last-Sequence"
	headerTime    = "Nats-Time-Stamp"
	headerStatus  = "Status"
)

// errReadTorn: messages of a batched read are missing although it came to its end.
var errReadTorn = errors.New("part of the answer is missing")

// Read reads up to limit entries from sequence from on, or fewer: about maxBytes, at most 512 KiB. The entries ascend and
// may have holes where the log was purged; each hole has been confirmed by the log's leader. next is where to go on; no
// entries means that this node of the broker has nothing at or after from (compare with Last). A lost answer is an error:
// repeat.
func (l *Log) Read(ctx context.Context, from uint64, limit, maxBytes int) ([]Entry, uint64, error) {
	from = max(from, 1)
	entries, err := l.readDirect(ctx, from, limit, maxBytes)
	if err == nil {
		entries, err = l.confirmHoles(ctx, from, entries)
	}
	if err != nil {
		return nil, from, fmt.Errorf("read log from %d: %w", from, err)
	}
	if len(entries) == 0 {
		return nil, from, nil
	}
	return entries, entries[len(entries)-1].Seq + 1, nil
}

// readDirect makes a batched direct get. The broker lets any node answer that has the log, by chance, even one that is cut
// off from the rest, whose answer never comes. With one of three cut off, four tries in a row went there once in 80 reads,
// and a take-over makes 32: so there are many short ones before those that a slow broker needs, 8.7 s in all.
func (l *Log) readDirect(ctx context.Context, from uint64, limit, maxBytes int) ([]Entry, error) {
	for try := 0; ; try++ {
		patience := readPatience << (try / readTries)
		entries, err := l.readDirectOnce(ctx, from, limit, maxBytes, patience)
		if !errors.Is(err, nats.ErrTimeout) || patience >= apiTry {
			return entries, err
		}
	}
}

// readDirectOnce gives up when nothing has come for patience. Only the end-of-batch marker ends a read.
func (l *Log) readDirectOnce(ctx context.Context, from uint64, limit, maxBytes int, patience time.Duration) ([]Entry, error) {
	if limit <= 0 || limit > maxReadBatch {
		limit = maxReadBatch
	}
	if maxBytes <= 0 || maxBytes > maxReadBytes {
		maxBytes = maxReadBytes
	}
	request, err := json.Marshal(getRequest{Seq: from, Batch: limit, MaxBytes: maxBytes})
	if err != nil {
		return nil, err
	}
	answers := make(chan *nats.Msg, limit+4)
	inbox := l.c.bulk.NewInbox()
	sub, err := l.c.bulk.ChanSubscribe(inbox, answers)
	if err != nil {
		return nil, unavailable(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := l.c.bulk.PublishRequest(apiPrefix+"DIRECT.GET."+relayStream, inbox, request); err != nil {
		return nil, unavailable(err)
	}
	return collect(ctx, answers, limit, patience)
}

func collect(ctx context.Context, answers <-chan *nats.Msg, limit int, patience time.Duration) ([]Entry, error) {
	wait := time.NewTimer(patience)
	defer wait.Stop()
	var entries []Entry
	var last uint64
	for {
		select {
		case m := <-answers:
			e, end, err := readAnswer(m, last)
			if err != nil || end {
				return entries, err
			}
			if entries == nil {
				entries = make([]Entry, 0, min(limit, 64))
				wait.Reset(apiTry)
			}
			entries, last = append(entries, e), e.Seq
		case <-wait.C:
			return nil, unavailable(nats.ErrTimeout)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// readAnswer reads one message of a batched read: an entry, or its end. Each names the one before it, so that a missing
// one shows.
func readAnswer(m *nats.Msg, last uint64) (e Entry, end bool, err error) {
	switch status := m.Header.Get(headerStatus); status {
	case "":
	case "204":
		if number(m.Header, headerLastSeq) != last {
			return e, true, errReadTorn
		}
		return e, true, nil
	case "404":
		return e, true, nil
	case "503":
		return e, true, unavailable(nats.ErrNoResponders)
	default:
		return e, true, fmt.Errorf("broker answers %s %s", status, m.Header.Get("Description"))
	}
	if number(m.Header, headerLastSeq) != last {
		return e, true, errReadTorn
	}
	seq := number(m.Header, headerSeq)
	at, err := time.Parse(time.RFC3339Nano, m.Header.Get(headerTime))
	if seq == 0 || err != nil {
		return e, true, fmt.Errorf("answer without sequence or time: %w", errReadTorn)
	}
	return entry(seq, at, m.Header, m.Data), false, nil
}

func number(h nats.Header, name string) uint64 {
	n, _ := strconv.ParseUint(h.Get(name), 10, 64)
	return n
}

// confirmHoles cuts entries before a hole that the log's leader does not know. Copies of the log on other nodes are
// complete as far as they go, but a hole becomes a gap for satellites, so it is worth asking.
func (l *Log) confirmHoles(ctx context.Context, from uint64, entries []Entry) ([]Entry, error) {
	expect := from
	for i, e := range entries {
		if e.Seq != expect {
			if err := l.confirmHole(ctx, expect, e.Seq); err != nil {
				if i > 0 {
					return entries[:i], nil
				}
				return nil, err
			}
		}
		expect = e.Seq + 1
	}
	return entries, nil
}

// confirmHole asks the leader whether nothing is left from sequence from up to (without) to.
func (l *Log) confirmHole(ctx context.Context, from, to uint64) error {
	try, cancel := l.c.try(ctx, apiTry)
	defer cancel()
	m, err := l.c.getWith(try, l.c.call, relayStream, getRequest{Seq: from, NextFor: ">"})
	if err != nil {
		return err
	}
	if m != nil && m.Seq < to {
		return fmt.Errorf("entries from %d are missing on this node, the leader has %d: %w", from, m.Seq, errReadTorn)
	}
	return nil
}

// Follow hands out every entry from sequence from on, in order, in batches as they come, until ctx ends (nil). Entries
// are missing only where the log was purged. It heals itself when the broker changes under it. ErrRewound: the log ends
// before the position, so it was restored from a copy or made anew; the caller decides where to go on.
func (l *Log) Follow(ctx context.Context, from uint64, fn func([]Entry)) error {
	f := &follower{c: l.c, stream: relayStream, next: max(from, 1), hole: l.confirmHole}
	f.read = l.readSurely
	f.hand = func(records []record) {
		if len(records) == 0 {
			return
		}
		entries := make([]Entry, len(records))
		for i, r := range records {
			entries[i] = entry(r.seq, r.time, r.header, r.data)
		}
		fn(entries)
	}
	return f.run(ctx)
}

// readSurely reads like Read, but nothing means that the leader has nothing.
func (l *Log) readSurely(ctx context.Context, from uint64) ([]record, error) {
	entries, _, err := l.Read(ctx, from, 0, 0)
	if err != nil || len(entries) == 0 {
		return l.c.readNext(ctx, relayStream, from)
	}
	records := make([]record, len(entries))
	for i, e := range entries {
		records[i] = record{seq: e.Seq, time: e.Time, header: nats.Header{headerSender: {e.Sender}}, data: e.Body}
	}
	return records, nil
}

// readNext reads the next stored message at or after from, at the leader; none means that there is none.
func (c *Cluster) readNext(ctx context.Context, stream string, from uint64) ([]record, error) {
	m, err := c.getWith(ctx, c.call, stream, getRequest{Seq: max(from, 1), NextFor: ">"})
	if err != nil || m == nil {
		return nil, err
	}
	return []record{{subject: m.Subject, seq: m.Seq, time: m.Time, header: m.header, data: m.Data}}, nil
}
