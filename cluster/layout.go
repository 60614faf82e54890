package cluster

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Streams and subjects. Buckets are streams too: KV_<name>, with subjects $KV.<name>.<key>, readable by every NATS tool.
const (
	relayStream   = "RELAY"
	relaySubject  = "co2.relay"
	seatsStream   = "SEATS"
	seatSubject   = "co2.seat"
	eventsStream  = "EVENTS"
	eventSubjects = "co2.event."

	BucketSatellites = "SATELLITES" // registrations
	BucketWorkers    = "WORKERS"    // leases
	BucketPartitions = "PARTITIONS" // owner and progress of each partition
	BucketStats      = "STATS"      // figures
)

// Defaults of a log that is made without saying more.
const (
	DefaultRetention      = 24 * time.Hour
	DefaultRetentionBytes = 1 << 30
	DefaultMaxSats        = 10000
)

// Layout is what an operator chooses about the streams. It takes effect when they are made; afterwards they are only
// opened, never changed, except MaxSats.
type Layout struct {
	Retention      time.Duration // age at which the log drops a message; 0 is DefaultRetention
	RetentionBytes int64         // size of the log; 0 is DefaultRetentionBytes
	Replicas       int           // copies of each stream; 0 is 1
	MaxSats        int           // seats; 0 adopts what is in force, DefaultMaxSats when new
}

func (l Layout) withDefaults() Layout {
	if l.Retention <= 0 {
		l.Retention = DefaultRetention
	}
	if l.RetentionBytes <= 0 {
		l.RetentionBytes = DefaultRetentionBytes
	}
	if l.Replicas <= 0 {
		l.Replicas = 1
	}
	return l
}

// Setup makes the streams that are absent, opens the others, and tells the layout in force. It repeats until the broker's
// leaders answer or ctx ends: a broker that accepts connections may still be electing them. A user who may not make streams
// waits until somebody else has made them.
func (c *Cluster) Setup(ctx context.Context, l Layout) (Layout, error) {
	wanted := l.MaxSats
	if wanted < 0 {
		return Layout{}, fmt.Errorf("set up streams: --max-sats: %d is negative", wanted)
	}
	l = l.withDefaults()
	if l.MaxSats == 0 {
		l.MaxSats = DefaultMaxSats
	}
	infos := map[string]*jetstream.StreamInfo{}
	for _, cfg := range streams(l) {
		info, err := c.openStream(ctx, cfg)
		if err != nil {
			return Layout{}, fmt.Errorf("set up stream %s: %w", cfg.Name, err)
		}
		infos[cfg.Name] = info
	}
	if c.server != nil {
		c.server.stageInMemory()
	}
	relay, seats := infos[relayStream].Config, infos[seatsStream].Config
	if wanted != 0 && seats.MaxMsgs != int64(wanted) {
		if err := c.setMaxSats(ctx, seats, wanted); err != nil {
			return Layout{}, err
		}
		seats.MaxMsgs = int64(wanted)
	}
	return Layout{
		Retention: relay.MaxAge, RetentionBytes: max(relay.MaxBytes, 0), Replicas: relay.Replicas, MaxSats: int(seats.MaxMsgs),
	}, nil
}

// openStream returns the stream as it is, made from cfg if it was absent.
func (c *Cluster) openStream(ctx context.Context, cfg jetstream.StreamConfig) (*jetstream.StreamInfo, error) {
	for warned := false; ; {
		info := new(jetstream.StreamInfo)
		create := "STREAM.CREATE." + cfg.Name
		err := c.ask(ctx, "STREAM.INFO."+cfg.Name, nil, info)
		if apiCode(err) == codeStreamNotFound {
			if !c.forbidden(create) {
				err = c.askUnlessForbidden(ctx, create, cfg, info)
			}
			if c.forbidden(create) {
				err = fmt.Errorf("%w: it is not there, and this user may not make it: run 'co2relay setup' as one who may", ErrUnavailable)
			}
		}
		if apiCode(err) == codeNoPeers {
			err = fmt.Errorf("%w: too few of the broker's nodes are up, or have room, for %d copies: %w", ErrUnavailable, cfg.Replicas, err)
		}
		switch {
		case err == nil:
			return info, checkSchema(info.Config)
		case apiCode(err) == codeStreamExists: // somebody else was faster, with other settings: theirs are in force
		case !errors.Is(err, ErrUnavailable):
			return nil, err
		case ctx.Err() != nil:
			return nil, err
		case !warned:
			warned = true
			c.log.Warn("waiting for the streams", "stream", cfg.Name, "error", err)
		}
		if !sleep(ctx, apiPause) {
			return nil, unavailable(err)
		}
	}
}

// forbidden tells whether the broker's permissions were seen to forbid a request.
func (c *Cluster) forbidden(request string) bool {
	_, is := c.forbid.Load(apiPrefix + request)
	return is
}

// askUnlessForbidden is ask, but gives up once permissions forbid it: nobody will answer.
func (c *Cluster) askUnlessForbidden(ctx context.Context, subject string, request, answer any) error {
	for pause := apiPause; ; pause = min(2*pause, time.Second) {
		try, cancel := c.try(ctx, apiTry)
		err := c.call(try, subject, request, answer)
		cancel()
		if !isSilence(err) && !isPassing(err) || c.forbidden(subject) {
			return err
		}
		if !sleep(ctx, pause) {
			return unavailable(err)
		}
	}
}

// checkSchema refuses a stream that a later version made in a way that this one does not know. Versions N and N+1 run
// together.
func checkSchema(cfg jetstream.StreamConfig) error {
	v, err := strconv.Atoi(cfg.Metadata[schemaVersionMetadata])
	if err != nil {
		return fmt.Errorf("stream %s has no schema version: it is not the relay's; use another NATS account, or delete it", cfg.Name)
	}
	if v > schemaVersion+1 {
		return fmt.Errorf("stream %s has schema version %d, this program knows up to %d: use a newer one", cfg.Name, v, schemaVersion+1)
	}
	return nil
}

// setMaxSats is the one change of a stream that Setup makes. Lowering the limit evicts nobody: DiscardNew only refuses.
func (c *Cluster) setMaxSats(ctx context.Context, cfg jetstream.StreamConfig, n int) error {
	was := cfg.MaxMsgs
	cfg.MaxMsgs = int64(n)
	if err := c.ask(ctx, "STREAM.UPDATE."+seatsStream, cfg, nil); err != nil {
		return fmt.Errorf("set --max-sats to %d: %w", n, err)
	}
	c.log.Info("limit of satellites changed", "was", was, "is", n)
	return nil
}

// streams is the table of the design, in the order in which they are made.
func streams(l Layout) []jetstream.StreamConfig {
	relay := stream(relayStream, relaySubject, l)
	relay.Description = "relayed messages, one entry each"
	relay.FirstSeq = uint64(time.Now().UnixMicro()) // so that msg_id rises even if the log is made anew
	relay.MaxAge, relay.MaxBytes = l.Retention, l.RetentionBytes
	relay.AllowDirect, relay.AllowAtomicPublish = true, true

	seats := stream(seatsStream, seatSubject, l)
	seats.Description = "one entry for each registered satellite"
	seats.MaxMsgs = int64(l.MaxSats)

	events := stream(eventsStream, eventSubjects+">", l)
	events.Description = "what operators watch"
	events.MaxAge, events.Discard = 7*24*time.Hour, jetstream.DiscardOld
	events.MaxBytes = max(l.RetentionBytes/100, 1<<20)

	partitions, stats := bucket(BucketPartitions, l), bucket(BucketStats, l)
	partitions.AllowAtomicPublish, stats.AllowAtomicPublish = true, true
	return []jetstream.StreamConfig{relay, seats, events, bucket(BucketSatellites, l), bucket(BucketWorkers, l), partitions, stats, samples(l)}
}

func stream(name, subject string, l Layout) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: name, Subjects: []string{subject}, Replicas: l.Replicas,
		Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew, Duplicates: 2 * time.Minute,
		MaxMsgs: -1, MaxBytes: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1, MaxConsumers: -1,
		Metadata: map[string]string{schemaVersionMetadata: strconv.Itoa(schemaVersion)},
	}
}

// bucket is a key-value bucket without direct get: in a cluster 6.5% of those answered stale.
func bucket(name string, l Layout) jetstream.StreamConfig {
	cfg := stream(bucketStream(name), bucketSubject(name, ">"), l)
	cfg.MaxMsgsPerSubject = 1
	cfg.AllowRollup, cfg.DenyDelete, cfg.AllowMsgTTL = true, true, true
	return cfg
}

func bucketStream(name string) string       { return "KV_" + name }
func bucketSubject(name, key string) string { return "$KV." + name + "." + key }
