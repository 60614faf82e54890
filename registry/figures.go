package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/internal/recent"
)

// figuresFresh is for how long a record read for Figures or Totals serves
// further calls.
const figuresFresh = 500 * time.Millisecond

// Figures is what is known of one satellite's present generation.
type Figures struct {
	Traffic Traffic // its LastError is a stranger's text
	Ping    Ping    // Current is -1 if it was not pinged yet
	// Owed counts the messages that it has still to be notified of, of those
	// that the delivery worker had read when it wrote the record.
	Owed int64
}

// Accounts is promise 6: over all messages and the satellites they were due
// to, Recipients = Delivered + Refused + Expired + Dropped + Owed.
type Accounts struct {
	Totals
	Owed uint64
	// Satellites is the number of those that Owed was summed over.
	Satellites int
}

// Balance is Recipients less everything that became of them: 0 when the
// accounts balance.
func (a Accounts) Balance() int64 {
	return int64(a.Recipients - a.Delivered - a.Refused - a.Expired - a.Dropped - a.Owed)
}

// LoadTraffic reads a partition's record and its revision from the leader;
// revision 0 and an empty record if there is none. The error is ErrUnreadable
// for a record of another schema.
func (r *Registry) LoadTraffic(ctx context.Context, p int) (TrafficRecord, uint64, error) {
	rec, rev, err := loadRecord(ctx, r.stats, statsKey("delivery", p), decodeTraffic)
	rec.Partition = p
	return rec, rev, err
}

// SaveTraffic writes a partition's record by compare-and-set and gives its
// new revision. The error is cluster.ErrWrongRevision when somebody else has
// written since rev was read.
func (r *Registry) SaveTraffic(ctx context.Context, rec TrafficRecord, rev uint64) (uint64, error) {
	b, err := encodeTraffic(&rec)
	if err != nil {
		return 0, err
	}
	return r.save(ctx, statsKey("delivery", rec.Partition), b, rev)
}

// LoadPing reads a partition's record as LoadTraffic does.
func (r *Registry) LoadPing(ctx context.Context, p int) (PingRecord, uint64, error) {
	rec, rev, err := loadRecord(ctx, r.stats, statsKey("pinger", p), decodePing)
	rec.Partition = p
	return rec, rev, err
}

// SavePing writes a partition's record as SaveTraffic does.
func (r *Registry) SavePing(ctx context.Context, rec PingRecord, rev uint64) (uint64, error) {
	b, err := encodePing(&rec)
	if err != nil {
		return 0, err
	}
	return r.save(ctx, statsKey("pinger", rec.Partition), b, rev)
}

// statsKey is the key of a record in the bucket STATS: "delivery.07".
func statsKey(role string, p int) string { return fmt.Sprintf("%s.%02d", role, p) }

func (r *Registry) save(ctx context.Context, key string, b []byte, rev uint64) (uint64, error) {
	rev, err := r.stats.Put(ctx, key, b, rev)
	if err != nil {
		return 0, fmt.Errorf("save figures %s: %w", key, err)
	}
	return rev, nil
}

// loadRecord reads one record; a missing or deleted one is zero, with the revision
// that a put has to expect.
func loadRecord[R any](ctx context.Context, b *cluster.Bucket, key string, decode func([]byte) (R, error)) (R, uint64, error) {
	var none R
	item, err := b.Get(ctx, key)
	if errors.Is(err, cluster.ErrNotFound) {
		return none, 0, nil
	}
	if err != nil {
		return none, 0, fmt.Errorf("load figures %s: %w", key, err)
	}
	if item.Deleted {
		return none, item.Revision, nil
	}
	rec, err := decode(item.Value)
	if err != nil {
		return none, item.Revision, fmt.Errorf("load figures %s: %w", key, err)
	}
	return rec, item.Revision, nil
}

// Figures gives a satellite's figures as last written by the delivery worker
// and the pinger, at most half a second older than that. Figures of an older
// generation count as none. The error is ErrUnknown for an id that is not
// registered. Beside another one come the figures as they were last read, zero
// if they never were.
func (r *Registry) Figures(ctx context.Context, id ID) (Figures, error) {
	sat, ok := r.Lookup(id)
	if !ok {
		var err error
		if sat, err = r.LookupLeader(ctx, id); err != nil {
			return Figures{}, err
		}
	}
	p := id.Partition()
	traffic, err := r.traffic[p].Get(ctx)
	pings, pingsErr := r.pings[p].Get(ctx)
	if err = errors.Join(err, pingsErr); err != nil && traffic.byID == nil {
		return Figures{}, err
	}
	return figuresOf(sat, &traffic, &pings), err
}

// Totals sums the accounts of all partitions, each as its delivery worker
// wrote them, at most half a second ago. Within a record the sum is of one
// moment, so it balances at any time, whatever moment each record is of.
func (r *Registry) Totals(ctx context.Context) (Accounts, error) {
	var sum Accounts
	for _, c := range r.traffic {
		x, err := c.Get(ctx)
		if err != nil {
			return Accounts{}, err
		}
		sum.Add(x.totals)
		sum.Owed += x.owed
		sum.Satellites += len(x.byID)
	}
	return sum, nil
}

// trafficIndex and pingIndex are records as Figures looks things up in them; byID
// is nil until one was read.
type trafficIndex struct {
	readTo uint64
	totals Totals
	owed   uint64
	byID   map[ID]*Traffic
}

type pingIndex struct {
	byID map[ID]*Ping
}

func (r *Registry) openCaches() {
	for p := range cluster.Partitions {
		r.traffic[p] = recent.New(figuresFresh, lastRead(func(ctx context.Context) (trafficIndex, error) {
			rec, _, err := r.LoadTraffic(ctx, p)
			return indexTraffic(&rec), err
		}))
		r.pings[p] = recent.New(figuresFresh, lastRead(func(ctx context.Context) (pingIndex, error) {
			rec, _, err := r.LoadPing(ctx, p)
			return indexPing(&rec), err
		}))
	}
}

// lastRead gives what was read last beside an error.
func lastRead[T any](read func(context.Context) (T, error)) func(context.Context) (T, error) {
	var last T // guarded by the turn of a recent.Value
	return func(ctx context.Context) (T, error) {
		x, err := read(ctx)
		if err == nil {
			last = x
		}
		return last, err
	}
}

func indexTraffic(rec *TrafficRecord) trafficIndex {
	x := trafficIndex{readTo: rec.ReadTo, totals: rec.Totals, byID: make(map[ID]*Traffic, len(rec.Satellites))}
	for i := range rec.Satellites {
		t := &rec.Satellites[i]
		x.byID[t.ID] = t
		x.owed += uint64(t.Owed(rec.ReadTo))
	}
	return x
}

func indexPing(rec *PingRecord) pingIndex {
	x := pingIndex{byID: make(map[ID]*Ping, len(rec.Satellites))}
	for i := range rec.Satellites {
		x.byID[rec.Satellites[i].ID] = &rec.Satellites[i]
	}
	return x
}
