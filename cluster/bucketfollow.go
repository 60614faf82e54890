package cluster

import (
	"context"
	"errors"
	"time"
)

// maxBucketBlind is how long a follower may be out of touch: markers of deleted keys live 24 h, and a deletion whose marker
// has gone would be missed.
const maxBucketBlind = markerLife / 2

// Follow hands out what stands in the bucket, then every change, in the order of revisions, until ctx ends (nil). upTo is
// the revision up to which everything was handed out; the first call with upTo at or beyond the bucket's last revision at
// the start completes the load. items may be empty when only upTo moves. It heals itself when the broker changes under it;
// should it have been out of touch for so long that deletions may be missed, it hands out everything again, and keys that
// vanished as deleted.
func (b *Bucket) Follow(ctx context.Context, fn func(items []Item, upTo uint64)) error {
	known := keySet{}
	for reload := false; ; reload = true {
		err := b.followOnce(ctx, known, reload, fn)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the caller has ended it
		}
		if !errors.Is(err, ErrRewound) && !errors.Is(err, errBlind) {
			return err
		}
		b.c.log.Warn("bucket is read anew", "bucket", b.name, "error", err)
	}
}

type keySet map[string]struct{}

func (b *Bucket) followOnce(ctx context.Context, known keySet, reload bool, fn func([]Item, uint64)) error {
	f := &follower{c: b.c, stream: bucketStream(b.name), next: 1, maxBlind: maxBucketBlind}
	f.read = func(ctx context.Context, from uint64) ([]record, error) { return b.c.readNext(ctx, f.stream, from) }
	var err error
	if f.target, err = b.c.lastOf(ctx, f.stream); err != nil {
		return err
	}
	seen := keySet{}
	f.hand = func(records []record) {
		items := make([]Item, len(records), len(records)+1)
		for i, r := range records {
			items[i] = b.item(r)
			if reload {
				seen[items[i].Key] = struct{}{}
			}
			known.note(items[i])
		}
		if reload && f.next > f.target {
			items = append(items, known.vanished(seen, f.next-1)...)
			reload, seen = false, nil
		}
		fn(items, f.next-1)
	}
	if f.target == 0 {
		f.hand(nil)
	}
	return f.run(ctx)
}

func (k keySet) note(i Item) {
	if i.Deleted {
		delete(k, i.Key)
	} else {
		k[i.Key] = struct{}{}
	}
}

// vanished makes deletions of the keys that a reload did not see.
func (k keySet) vanished(seen keySet, revision uint64) []Item {
	var items []Item
	for key := range k {
		if _, ok := seen[key]; !ok {
			items = append(items, Item{Key: key, Revision: revision, Created: time.Now(), Deleted: true})
			delete(k, key)
		}
	}
	return items
}

// lastOf asks for a stream's last sequence for as long as it takes.
func (c *Cluster) lastOf(ctx context.Context, stream string) (uint64, error) {
	for {
		info, err := c.streamInfo(ctx, stream)
		if err == nil {
			return info.State.LastSeq, nil
		}
		if !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
			return 0, err
		}
		c.log.Warn("waiting for the broker", "stream", stream, "error", err)
	}
}

// List gives what stands in the bucket, markers left out, in the order of revisions. A key that is written while it reads
// moves to the bucket's end, so it has read everything only when the bucket ends where the reading did.
func (b *Bucket) List(ctx context.Context) ([]Item, error) {
	ctx, cancel := context.WithTimeout(ctx, listLimit)
	defer cancel()
	target, err := b.c.lastOf(ctx, bucketStream(b.name))
	if err != nil {
		return nil, err
	}
	var all []Item
	done := false
	err = b.Follow(ctx, func(items []Item, upTo uint64) {
		if done {
			return
		}
		all = append(all, items...)
		if upTo < target {
			return
		}
		if last, err := b.c.lastOf(ctx, bucketStream(b.name)); err != nil || last > upTo {
			target = last
			return
		}
		done = true
		cancel()
	})
	if err != nil {
		return nil, err
	}
	if !done {
		return nil, unavailable(ctx.Err())
	}
	return latest(all), nil
}

const listLimit = 30 * time.Second

// latest keeps what stands of several items of a key: the bucket may have changed while it was read.
func latest(all []Item) []Item {
	last := make(map[string]uint64, len(all))
	for _, i := range all {
		last[i.Key] = i.Revision
	}
	kept := all[:0]
	for _, i := range all {
		if last[i.Key] == i.Revision && !i.Deleted {
			kept = append(kept, i)
		}
	}
	return kept
}
