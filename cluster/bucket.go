package cluster

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Headers of key-value buckets (NATS ADR-8, ADR-43) and of conditional writes.
const (
	headerOperation = "KV-Operation"
	headerMarker    = "Nats-Marker-Reason"
	headerTTL       = "Nats-TTL"
	headerExpect    = "Nats-Expected-Last-Subject-Sequence"

	markerLife = 24 * time.Hour
)

// Bucket is a key-value bucket. Reads are answered by the stream's leader, and so are never older than a write that came
// back before.
type Bucket struct {
	c    *Cluster
	name string
}

// Bucket opens a bucket of the layout: BucketSatellites, BucketWorkers, BucketPartitions, BucketStats.
func (c *Cluster) Bucket(name string) *Bucket { return &Bucket{c: c, name: name} }

// Item is a key's latest value, or that it was deleted.
type Item struct {
	Key      string
	Value    []byte // shared: do not change
	Revision uint64 // the stream's sequence; rises over all keys of the bucket
	Created  time.Time
	Deleted  bool // a marker, kept for 24 h
}

// Get reads a key. ErrNotFound: it was never there or its marker has aged out, so that a Put expects 0. A marker comes
// with Deleted and its revision, which a Put expects.
func (b *Bucket) Get(ctx context.Context, key string) (Item, error) {
	m, err := b.c.getFromLeader(ctx, bucketStream(b.name), getRequest{LastFor: bucketSubject(b.name, key)})
	if err != nil {
		return Item{}, fmt.Errorf("get %s of %s: %w", key, b.name, err)
	}
	if m == nil {
		return Item{}, fmt.Errorf("get %s of %s: %w", key, b.name, ErrNotFound)
	}
	return b.item(record{subject: m.Subject, seq: m.Seq, time: m.Time, header: m.header, data: m.Data}), nil
}

func (b *Bucket) item(r record) Item {
	i := Item{Key: strings.TrimPrefix(r.subject, bucketSubject(b.name, "")), Revision: r.seq, Created: r.time}
	if len(r.header[headerOperation]) > 0 || len(r.header[headerMarker]) > 0 {
		i.Deleted = true
		return i
	}
	i.Value = r.data
	return i
}

// Put writes a key if its revision is expect (0: there is none), and returns the new one. ErrWrongRevision: somebody else
// wrote it. Any other error leaves the outcome unknown: read again.
func (b *Bucket) Put(ctx context.Context, key string, value []byte, expect uint64) (uint64, error) {
	m := b.message(key, value)
	m.Header = nats.Header{headerExpect: {strconv.FormatUint(expect, 10)}}
	return b.write(ctx, "put", key, m)
}

// PutAny writes a key whatever its revision is. An error leaves the outcome unknown.
func (b *Bucket) PutAny(ctx context.Context, key string, value []byte) (uint64, error) {
	return b.write(ctx, "put", key, b.message(key, value))
}

// Delete writes a marker in the place of a key if its revision is expect. The marker lives 24 h. Errors are those of Put.
func (b *Bucket) Delete(ctx context.Context, key string, expect uint64) (uint64, error) {
	m := b.message(key, nil)
	m.Header = nats.Header{
		headerOperation: {"DEL"}, headerTTL: {markerLife.String()}, headerExpect: {strconv.FormatUint(expect, 10)},
	}
	return b.write(ctx, "delete", key, m)
}

func (b *Bucket) message(key string, value []byte) *nats.Msg {
	return &nats.Msg{Subject: bucketSubject(b.name, key), Data: value}
}

// write publishes m. It repeats only what surely had no effect.
func (b *Bucket) write(ctx context.Context, verb, key string, m *nats.Msg) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTotal)
	defer cancel()
	for pause := apiPause; ; pause = min(2*pause, apiMost) {
		seq, err := b.writeOnce(ctx, m)
		if err == nil {
			return seq, nil
		}
		if isWrongSequence(err) {
			err = fmt.Errorf("%w: %w", ErrWrongRevision, err)
		}
		if !wasNotSent(err) && !isPassing(err) || !sleep(ctx, pause) {
			if isSilence(err) {
				err = unavailable(err)
			}
			return 0, fmt.Errorf("%s %s in %s: %w", verb, key, b.name, err)
		}
	}
}

func (b *Bucket) writeOnce(ctx context.Context, m *nats.Msg) (uint64, error) {
	ctx, cancel := b.c.try(ctx, writeTry)
	defer cancel()
	ack, err := b.c.publish(ctx, m)
	return ack.Seq, err
}
