package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Samples: what each process did, every SampleEvery, for charts. They are a stream and not a bucket, because a bucket holds
// the last value of a key only, and an hour of them in one value would be written anew every 5 s. One subject a process,
// entries of some 300 bytes that leave after an hour by age: 10 processes keep about 2 MB. Every frontend follows the
// stream from an hour ago on and adds up what it finds, so that all show the same.
const (
	samplesStream  = "SAMPLES"
	sampleSubjects = "co2.sample."
	samplesBytes   = 32 << 20

	// SampleEvery is the time between two samples of a process. A sample's Time is a multiple of it.
	SampleEvery = 5 * time.Second
	// SamplesKept is how long samples are kept.
	SamplesKept = time.Hour
)

// LatencyBuckets is the length of a full Sample.Latency: bucket i counts what took at most 64 µs << i, the last everything
// beyond. Histograms of processes are merged by adding them up.
const LatencyBuckets = 22

// LatencyBound is the upper bound of a bucket of Sample.Latency.
func LatencyBound(i int) time.Duration { return 64 * time.Microsecond << i }

// LatencyPercentile gives the time within which a part p of what is counted in buckets took; 0 if nothing is. Buckets are
// powers of two: within one the value is interpolated on their logarithmic scale.
func LatencyPercentile(buckets []uint64, p float64) time.Duration {
	var total uint64
	for _, n := range buckets {
		total += n
	}
	rank, below := p*float64(total), 0.0
	for i, n := range buckets {
		if n > 0 && below+float64(n) >= rank {
			return time.Duration(float64(LatencyBound(i)) / 2 * math.Exp2((rank-below)/float64(n)))
		}
		below += float64(n)
	}
	return 0
}

// Sample is what one process did in the time up to Time. Counts are of that time alone, so that a process that starts anew
// needs no care.
type Sample struct {
	Version int       `json:"v"`
	Time    time.Time `json:"time"`
	Process string    `json:"process"` // its name among others
	Roles   []string  `json:"roles"`
	Release string    `json:"release"` // the program's version
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"` // that the counts are of

	Accepted  uint64   `json:"in,omitempty"`
	Delivered uint64   `json:"out,omitempty"`
	Refused   uint64   `json:"refused,omitempty"`
	Failed    uint64   `json:"failed,omitempty"` // calls that will be repeated
	Expired   uint64   `json:"expired,omitempty"`
	Latency   []uint64 `json:"latency,omitempty"` // from the log's entry to the satellite's answer; trailing zeros are left out

	// What stands at Time, of the partitions that this process owns as a delivery worker.
	Idle       uint64 `json:"idle,omitempty"`
	Live       uint64 `json:"live,omitempty"`
	Behind     uint64 `json:"behind,omitempty"`
	Parked     uint64 `json:"parked,omitempty"`
	Backlog    uint64 `json:"backlog,omitempty"` // messages owed to satellites, over all of them
	Partitions int    `json:"partitions,omitempty"`

	CPU         float64 `json:"cpu,omitempty"`    // cores used
	Memory      uint64  `json:"memory,omitempty"` // resident bytes
	Connections int     `json:"connections,omitempty"`
}

func samples(l Layout) jetstream.StreamConfig {
	cfg := stream(samplesStream, sampleSubjects+">", l)
	cfg.Description = "what each process did, every 5 s, for charts"
	cfg.MaxAge, cfg.MaxBytes, cfg.Discard = SamplesKept, samplesBytes, jetstream.DiscardOld
	return cfg
}

// PutSample stores a sample. It is tried once: the next one comes soon. A repeat for the same process and Time is dropped.
func (c *Cluster) PutSample(ctx context.Context, s Sample) error {
	s.Version = schemaVersion
	body, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode sample of %s: %w", s.Process, err)
	}
	name := sampleName(s.Process)
	m := &nats.Msg{Subject: sampleSubjects + name, Data: body, Header: nats.Header{
		headerMsgID: {fmt.Sprintf("s-%s-%d", name, s.Time.Unix())},
	}}
	ctx, cancel := c.try(ctx, writeTry)
	defer cancel()
	if _, err := c.publish(ctx, m); err != nil {
		return fmt.Errorf("put sample of %s: %w", s.Process, err)
	}
	return nil
}

// sampleName makes a process's name a part of a subject.
func sampleName(process string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, process)
}

// Samples calls fn, from one goroutine, with the samples stored since a time and then with each new one, in the order in
// which they were stored, until ctx ends (nil). Samples that this version cannot read are left out. A clock that is wrong
// by more than a minute is replaced by the broker's.
func (c *Cluster) Samples(ctx context.Context, since time.Time, fn func(Sample)) error {
	f := &follower{c: c, stream: samplesStream}
	f.read = func(ctx context.Context, from uint64) ([]record, error) { return c.readNext(ctx, samplesStream, from) }
	f.hand = func(records []record) {
		for _, r := range records {
			var s Sample
			if json.Unmarshal(r.data, &s) != nil || s.Version > schemaVersion+1 || len(s.Latency) > LatencyBuckets {
				continue
			}
			if off := s.Time.Sub(r.time); !r.time.IsZero() && (off > time.Minute || off < -time.Minute) {
				s.Time = r.time.Round(SampleEvery)
			}
			fn(s)
		}
	}
	var err error
	if f.next, err = c.firstSince(ctx, samplesStream, since); err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the caller has ended it
		}
		return fmt.Errorf("follow samples: %w", err)
	}
	return f.run(ctx)
}
