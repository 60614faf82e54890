package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/co2relay/co2relay/cluster"
)

const (
	// sweepInterval is the mean time between two sweeps of one process.
	sweepInterval = 20 * time.Second
	// seatGrace is how long a seat may stand without a registration that
	// names it: longer than any registration takes.
	seatGrace = 60 * time.Second
)

// suspects holds, by seat, since when this process has seen it without a
// registration. It is this process's own clock, and only differences of it:
// broker and process may disagree about the time of day.
type suspects map[uint64]time.Time

// sweepForEver frees seats that no registration names, left behind by a
// process that died between its steps. Every process sweeps; that several do
// it at once is harmless.
func (r *Registry) sweepForEver(ctx context.Context) error {
	select {
	case <-r.ready:
	case <-ctx.Done():
		return nil
	}
	seen := make(suspects)
	for {
		if !sleep(ctx, sweepInterval/2+rand.N(sweepInterval)) {
			return nil
		}
		if _, err := r.sweep(ctx, seen, seatGrace); err != nil && ctx.Err() == nil {
			r.log.Warn("seats are swept later", "error", err)
		}
	}
}

// sweep frees every seat that was without a registration for longer than
// grace, and tells how many. What it cannot settle it leaves to the next one.
func (r *Registry) sweep(ctx context.Context, seen suspects, grace time.Duration) (freed int, err error) {
	taken, err := r.cluster.SeatCount(ctx)
	if err != nil {
		return 0, fmt.Errorf("count the seats: %w", err)
	}
	if taken == r.Len() && len(seen) == 0 {
		return 0, nil // the usual case: each satellite has one, and there is no need to read them
	}
	seats, err := r.cluster.Seats(ctx)
	if err != nil {
		return 0, fmt.Errorf("list the seats: %w", err)
	}
	now := time.Now()
	still := make(suspects)
	for _, seat := range seats {
		id, _, err := parseKey(seat.Key)
		if sat, ok := r.Lookup(id); err == nil && ok && sat.Seat == seat.Seq {
			continue
		}
		since, ok := seen[seat.Seq]
		if !ok {
			since = now
		}
		still[seat.Seq] = since
		if now.Sub(since) < grace {
			continue
		}
		done, err := r.settleSeat(ctx, seat)
		if err != nil {
			return freed, err
		}
		if done {
			freed++
			delete(still, seat.Seq)
		}
	}
	clear(seen)
	for seq, since := range still {
		seen[seq] = since
	}
	return freed, nil
}

// settleSeat frees one seat unless the leader knows a registration that names
// it. Where none stands it first puts a marker on the key, at the revision
// that it has read: whoever still carries a put for this seat expects an older
// one, and cannot succeed with it once the seat is free.
func (r *Registry) settleSeat(ctx context.Context, seat cluster.Seat) (bool, error) {
	id, _, err := parseKey(seat.Key)
	if err == nil {
		sat, item, err := r.read(ctx, id)
		switch {
		case errors.Is(err, ErrUnreadable):
			return false, nil // it may name the seat in a way that a later version knows
		case err != nil:
			return false, err
		case sat != nil && sat.Seat == seat.Seq:
			return false, nil
		case sat == nil:
			_, err := r.sats.Delete(ctx, seat.Key, item.Revision)
			if errors.Is(err, cluster.ErrWrongRevision) {
				return false, nil
			}
			if err != nil {
				return false, fmt.Errorf("fence seat %d of %s: %w", seat.Seq, id, err)
			}
		}
	}
	if err := r.cluster.FreeSeat(ctx, seat.Seq); err != nil {
		return false, fmt.Errorf("free seat %d: %w", seat.Seq, err)
	}
	r.log.Info("seat without a registration freed", "seat", seat.Seq, "key", seat.Key)
	return true, nil
}
