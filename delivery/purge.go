package delivery

import (
	"context"
	"time"

	"github.com/co2relay/co2relay/cluster"
)

// The log is purged from purgeAbove of its size down to purgeTo, by the owner
// of partition 0, but never beyond what some partition has not read yet: what
// is refused for want of space must be the last resort, and what everybody has
// must not fill the log.
const (
	purgeAbove = 0.75
	purgeTo    = 0.70
)

func (w *Worker) purge(ctx context.Context) {
	t := time.NewTicker(purgeEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		w.mu.Lock()
		first := w.serving[0]
		w.mu.Unlock()
		if !first || !w.member.Alive() {
			continue
		}
		if err := w.purgeOnce(ctx); err != nil && ctx.Err() == nil {
			w.log.Warn("purging the log failed, trying again", "error", err)
		}
	}
}

func (w *Worker) purgeOnce(ctx context.Context) error {
	state, err := w.clus.Log().State(ctx)
	if err != nil || state.MaxBytes <= 0 || state.Messages == 0 {
		return err
	}
	limit := float64(state.MaxBytes)
	if float64(state.Bytes) <= purgeAbove*limit {
		return nil
	}
	// Messages differ in size; what this takes too few, the next round takes.
	share := 1 - purgeTo*limit/float64(state.Bytes)
	to := state.First + uint64(share*float64(state.Last-state.First+1))
	lowest, err := w.lowestRead(ctx)
	if err != nil {
		return err
	}
	if to = min(to, lowest+1); to <= state.First {
		return nil
	}
	w.log.Info("purging the log", "bytes", state.Bytes, "limit", state.MaxBytes, "first", state.First, "to", to)
	return w.clus.Log().PurgeTo(ctx, to)
}

// lowestRead is the lowest reading position of all partitions; 0 while one of
// them has none.
func (w *Worker) lowestRead(ctx context.Context) (uint64, error) {
	records, err := w.clus.PartitionRecords(ctx, "delivery")
	if err != nil || len(records) < cluster.Partitions {
		return 0, err
	}
	lowest := ^uint64(0)
	for _, r := range records {
		c, err := decodeCheckpoint(r.State)
		if err != nil {
			return 0, err
		}
		lowest = min(lowest, c.read)
	}
	return lowest, nil
}
