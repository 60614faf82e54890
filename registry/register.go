package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/co2relay/co2relay/cluster"
)

const (
	// settleTimeout bounds a registration or deregistration whose caller set
	// no deadline of its own.
	settleTimeout = 15 * time.Second
	// tidyTimeout bounds giving a seat back after the caller's own time is
	// over. What fails is left to the sweeper.
	tidyTimeout = 2 * time.Second
	// fullPatience is the time between the two looks for an id that was
	// refused a seat.
	fullPatience = 100 * time.Millisecond
)

// errLost says that somebody else changed the key first: start again from
// the read.
var errLost = errors.New("somebody else was first")

// Register puts a registration into the bucket and tells whether it began a
// new generation. Registering an id again replaces what the satellite says of
// itself, keeps Began, Generation, Created and Seat, and never fails for
// being full. An identical repeat writes nothing.
//
// The errors are ErrFull, ErrInvalid, ErrBadAddress, and otherwise that the
// broker did not answer until the context ended (or for 15 s, if it has no
// deadline): then the satellite may or may not be registered, and may simply
// register again.
//
// The order of steps is the protocol that keeps max_sats exact: the key's
// revision is read from the leader, a seat is taken, the value is put with
// THAT revision expected. A seat without a registration is given back here
// or, when this process dies in between, by the sweeper.
func (r *Registry) Register(ctx context.Context, reg Registration) (*Satellite, bool, error) {
	reg, id, err := reg.normal()
	if err != nil {
		return nil, false, fmt.Errorf("register %s: %w", reg.Addr, err)
	}
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	for try := 0; ; try++ {
		sat, isNew, err := r.registerOnce(ctx, id, reg)
		switch {
		case err == nil:
			return sat, isNew, nil
		case isFinal(err) || ctx.Err() != nil:
			return nil, false, fmt.Errorf("register %s: %w", id, err)
		}
		if !errors.Is(err, errLost) {
			r.log.Debug("registration is tried again", "host_id", string(id), "error", err)
		}
		if !pause(ctx, try, err) {
			return nil, false, fmt.Errorf("register %s: %w", id, err)
		}
	}
}

// isFinal tells the errors that trying again cannot mend.
func isFinal(err error) bool {
	return errors.Is(err, ErrFull) || errors.Is(err, ErrInvalid) || errors.Is(err, ErrUnreadable) || errors.Is(err, ErrUnknown)
}

// registerOnce is one pass of the protocol. Any error that is not final means
// that nothing is known to have been registered, and that a new pass from the
// read is right.
func (r *Registry) registerOnce(ctx context.Context, id ID, reg Registration) (*Satellite, bool, error) {
	old, item, err := r.read(ctx, id)
	if err != nil {
		return nil, false, err
	}
	if old != nil {
		sat, err := r.replace(ctx, reg, old, item)
		return sat, false, err
	}
	// Before the put: a message that enters the log after it has a later
	// sequence than this, so nothing is missed.
	began, err := r.cluster.Log().Last(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("read the log's end: %w", err)
	}
	seat, err := r.cluster.TakeSeat(ctx, id.Key())
	if errors.Is(err, cluster.ErrFull) {
		return r.registerFull(ctx, id, reg)
	}
	if err != nil {
		return nil, false, fmt.Errorf("take a seat: %w", err)
	}
	sat := reg.satellite(id)
	sat.Began, sat.Seat = began, seat
	sat.Created = time.Now().UTC().Truncate(time.Millisecond)
	if err := r.putFirst(ctx, sat, item.Revision); err != nil {
		return nil, false, err
	}
	return sat, true, nil
}

// registerFull decides when no seat was left. The id may have been registered
// since it was read, perhaps with the last seat: then it is no newcomer. A
// client that calls again because its first call takes long is one whose
// first call may hold that seat and be about to put: hence the second look.
func (r *Registry) registerFull(ctx context.Context, id ID, reg Registration) (*Satellite, bool, error) {
	for look := 0; ; look++ {
		old, item, err := r.read(ctx, id)
		if err != nil {
			return nil, false, err
		}
		if old != nil {
			sat, err := r.replace(ctx, reg, old, item)
			return sat, false, err
		}
		if look == 1 || !sleep(ctx, fullPatience) {
			return nil, false, ErrFull
		}
	}
}

// putFirst puts a new generation under the seat that it has taken. An error
// means that this seat's registration does not stand; the seat is given back
// where that is certain.
func (r *Registry) putFirst(ctx context.Context, sat *Satellite, expect uint64) error {
	b, err := encodeValue(sat, nil)
	if err != nil {
		r.freeSeat(ctx, sat.ID, sat.Seat)
		return err
	}
	unsure := false // a put of ours went out and no answer came
	for try := 0; ; try++ {
		revision, err := r.sats.Put(ctx, sat.ID.Key(), b, expect)
		if err == nil {
			sat.Revision, sat.Generation = revision, revision
			return nil
		}
		if !errors.Is(err, cluster.ErrWrongRevision) {
			unsure = true
		} else if !unsure {
			r.freeSeat(ctx, sat.ID, sat.Seat)
			return errLost
		}
		// The put may stand already, or may yet arrive. It can only succeed
		// while the key is at the revision that it expects; repeating it is
		// harmless, and the key tells by its seat whose value it holds. An
		// older revision than expected is the answer of a leader that does
		// not know yet that it was replaced, and proves nothing.
		standing, item, readErr := r.read(ctx, sat.ID)
		switch {
		case readErr != nil:
		case standing != nil && standing.Seat == sat.Seat:
			*sat = *standing
			return nil
		case item.Revision > expect:
			r.freeSeat(ctx, sat.ID, sat.Seat)
			return errLost
		}
		if !pause(ctx, try, err) {
			// The seat stays taken: freeing it while the put may yet arrive
			// would let one satellite too many in. The sweeper settles it.
			return fmt.Errorf("put the registration: %w", err)
		}
	}
}

// replace registers again an id that stands.
func (r *Registry) replace(ctx context.Context, reg Registration, old *Satellite, item cluster.Item) (*Satellite, error) {
	sat := reg.satellite(old.ID)
	sat.Began, sat.Generation, sat.Created, sat.Seat = old.Began, old.Generation, old.Created, old.Seat
	if sameValue(sat, old) {
		return old, nil
	}
	b, err := encodeValue(sat, item.Value)
	if err != nil {
		return nil, err
	}
	sat.Revision, err = r.sats.Put(ctx, sat.ID.Key(), b, item.Revision)
	if errors.Is(err, cluster.ErrWrongRevision) {
		return nil, errLost
	}
	if err != nil {
		return nil, fmt.Errorf("put the registration again: %w", err)
	}
	return sat, nil
}

// sameValue tells whether a re-registration says nothing new.
func sameValue(a, b *Satellite) bool {
	x, errX := encodeValue(a, nil)
	y, errY := encodeValue(b, nil)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// satellite gives a new value for a normal registration.
func (reg Registration) satellite(id ID) *Satellite {
	return &Satellite{
		ID: id, Addr: reg.Addr, Nick: reg.Nick, Plugins: reg.Plugins, NotifyPass: reg.NotifyPass,
		MaxAge: reg.MaxAge, Scheme: reg.Scheme, TLSName: reg.TLSName,
	}
}

// Deregister ends a satellite's registration and gives its seat back. What it
// was still owed is dropped. The errors are ErrUnknown, and otherwise that the
// broker did not answer until the context ended (or for 15 s): then it may or
// may not be registered still.
func (r *Registry) Deregister(ctx context.Context, id ID) error {
	return r.DeregisterGeneration(ctx, id, 0)
}

// DeregisterGeneration is Deregister for one generation only, by
// compare-and-set: one that has ended meanwhile is ErrUnknown, also when the id
// is registered anew. 0 stands for any generation.
func (r *Registry) DeregisterGeneration(ctx context.Context, id ID, generation uint64) error {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	marked := uint64(0) // the seat of a registration that a delete of ours may have ended
	for try := 0; ; try++ {
		sat, item, err := r.read(ctx, id)
		if err == nil {
			another := sat != nil && generation != 0 && sat.Generation != generation
			if marked == 0 && (sat == nil || another) {
				return fmt.Errorf("deregister %s: %w", id, ErrUnknown)
			}
			if sat == nil || (marked != 0 && sat.Seat != marked) {
				r.freeSeat(ctx, id, marked)
				return nil
			}
			if _, err = r.sats.Delete(ctx, id.Key(), item.Revision); err == nil {
				r.freeSeat(ctx, id, sat.Seat)
				return nil
			}
			if !errors.Is(err, cluster.ErrWrongRevision) {
				marked = sat.Seat
			}
		}
		if isFinal(err) || !pause(ctx, try, err) {
			return fmt.Errorf("deregister %s: %w", id, err)
		}
	}
}

// read asks the leader for a key. The satellite is nil where none is
// registered; the item's revision is what a put has to expect.
func (r *Registry) read(ctx context.Context, id ID) (*Satellite, cluster.Item, error) {
	item, err := r.sats.Get(ctx, id.Key())
	if errors.Is(err, cluster.ErrNotFound) {
		return nil, cluster.Item{}, nil
	}
	if err != nil {
		return nil, cluster.Item{}, fmt.Errorf("read registration %s: %w", id, err)
	}
	if item.Deleted {
		return nil, item, nil
	}
	sat, err := decodeValue(item.Key, item.Value, item.Revision)
	if err != nil {
		return nil, cluster.Item{}, err
	}
	return sat, item, nil
}

// freeSeat gives a seat back, also when the caller's time is over.
func (r *Registry) freeSeat(ctx context.Context, id ID, seat uint64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.tidy)
	defer cancel()
	if err := r.cluster.FreeSeat(ctx, seat); err != nil {
		r.log.Warn("seat is left to the sweeper", "host_id", string(id), "seat", seat, "error", err)
	}
}

func withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, settleTimeout)
}

// pause waits before another try: between nothing and 2 ms at first, later up
// to 32 ms when others were first (which a few more tries settle), and up to
// half a second when the broker does not answer. It returns false when the
// context ended.
func pause(ctx context.Context, try int, why error) bool {
	limit := 32 * time.Millisecond
	if !errors.Is(why, errLost) && !errors.Is(why, cluster.ErrWrongRevision) {
		limit = 500 * time.Millisecond
	}
	limit = min(2*time.Millisecond<<min(try, 8), limit)
	return sleep(ctx, rand.N(limit))
}

// sleep waits and returns false when the context ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
