package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/delivery"
	"github.com/co2relay/co2relay/registry"
)

const explainUsage = `Usage: co2relay explain MSG_ID HOST_ID [--json] [--data DIR | --nats URL,...]

Says why a message has or has not reached a satellite. MSG_ID is the member
msg_id of a notification, HOST_ID the satellite's id.`

// Verdicts of explain. They are the JSON member "verdict".
const (
	verdictDelivered  = "delivered"
	verdictRefused    = "refused"
	verdictExpired    = "expired"
	verdictOwed       = "owed"
	verdictOwn        = "own"
	verdictLater      = "registered_later"
	verdictLeft       = "deregistered"
	verdictUnknownSat = "unknown_satellite"
	verdictNotYet     = "unknown_message"
	verdictNever      = "never_in_the_log"
)

// explanation is what the command answers.
type explanation struct {
	Version   int    `json:"v"`
	Verdict   string `json:"verdict"`
	Text      string `json:"text"`
	Message   string `json:"msg_id"`
	Satellite string `json:"satellite"`
	// Certain is false where an event gathers several messages, so that it may
	// be about others only.
	Certain  bool       `json:"certain"`
	Relayed  *time.Time `json:"relayed,omitempty"` // when the message entered the log, if it is still there
	Sender   string     `json:"sender,omitempty"`
	Position string     `json:"position,omitempty"` // of the satellite: everything up to it is done
	At       *time.Time `json:"at,omitempty"`       // when that position was written down
	Worker   string     `json:"worker,omitempty"`   // that owns the satellite's partition
	Notes    []string   `json:"notes"`

	Error   string     `json:"error,omitempty"` // of the last call, while it is owed
	Tries   uint32     `json:"tries,omitempty"`
	RetryAt *time.Time `json:"retry_at,omitempty"`

	msg    uint64
	events []cluster.Event // about the satellite, oldest first
}

func explainCommand(ctx context.Context, args []string, std streams) int {
	var h hostID
	var asJSON bool
	e := &explanation{Version: 1, Certain: true, Notes: []string{}}
	return deskCommand{
		name: "explain", usage: explainUsage,
		bind: func(f *flagSet) { f.BoolVar(&asJSON, "json", false, "one JSON object, for programs") },
		check: func(args []string) (err error) {
			if len(args) != 2 {
				return fmt.Errorf("want two arguments, MSG_ID and HOST_ID, and got %d", len(args))
			}
			if e.msg, err = strconv.ParseUint(args[0], 10, 64); err != nil {
				err = fmt.Errorf("%q is not a msg_id, which is a whole number", args[0])
			}
			return errors.Join(err, h.check(args[1:]))
		},
		run: func(ctx context.Context, d *desk, std streams) (int, error) {
			e.Message, e.Satellite = decimal(e.msg), string(h.id)
			if err := e.find(ctx, d, h.id); err != nil {
				return ExitError, err
			}
			if !asJSON {
				return ExitOK, e.print(std.out)
			}
			return ExitOK, writeJSON(std.out, e, "  ")
		},
	}.main(ctx, args, std)
}

func (e *explanation) print(out io.Writer) error {
	fmt.Fprintf(out, "%s: %s\n", e.Verdict, printable(e.Text))
	if e.Relayed != nil {
		fmt.Fprintf(out, "  relayed by %s at %s\n", e.Sender, stamp(*e.Relayed))
	}
	if e.At != nil {
		fmt.Fprintf(out, "  position %s, written at %s by %s\n", e.Position, stamp(*e.At), orNone(e.Worker))
	}
	for _, note := range e.Notes {
		if _, err := fmt.Fprintf(out, "  %s\n", printable(note)); err != nil {
			return err
		}
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func (e *explanation) is(verdict, format string, args ...any) {
	e.Verdict, e.Text = verdict, fmt.Sprintf(format, args...)
}

func (e *explanation) note(format string, args ...any) {
	e.Notes = append(e.Notes, fmt.Sprintf(format, args...))
}

// find fills the explanation in.
func (e *explanation) find(ctx context.Context, d *desk, id registry.ID) error {
	state, err := d.clus.Log().State(ctx)
	if err != nil {
		return err
	}
	switch {
	case e.msg > state.Last:
		e.is(verdictNotYet, "no message has this msg_id yet: the log ends at %d", state.Last)
		return nil
	case e.msg < max(state.Origin, 1):
		e.is(verdictNever, "no message of this log has this msg_id: it began with %d", max(state.Origin, 1))
		return nil
	}
	if err := e.findMessage(ctx, d); err != nil {
		return err
	}
	all, err := d.clus.PastEvents(ctx, time.Time{})
	if err != nil {
		return err
	}
	for _, ev := range all {
		if ev.Satellite == string(id) {
			e.events = append(e.events, ev)
		}
	}
	sat, err := d.reg.LookupLeader(ctx, id)
	switch {
	case errors.Is(err, registry.ErrUnknown):
		e.explainGone(id)
		return nil
	case err != nil:
		return err
	case e.msg <= sat.Began:
		e.is(verdictLater, "%s registered after this message, at %s, and is owed those from %d on", id, stamp(sat.Created), sat.Began+1)
		if left := e.lastLeft(); left != nil {
			e.note("an earlier registration of this id ended at %s: %s", stamp(left.Time), orNone(left.Reason))
		}
		return nil
	case e.Sender == string(id):
		e.is(verdictOwn, "%s sent it itself, and is not notified of its own messages", id)
		return nil
	}
	return e.explainPosition(ctx, d, sat)
}

func (e *explanation) findMessage(ctx context.Context, d *desk) error {
	entries, _, err := d.clus.Log().Read(ctx, e.msg, 1, 0)
	if err != nil {
		return err
	}
	if len(entries) > 0 && entries[0].Seq == e.msg {
		at := entries[0].Time.UTC()
		e.Relayed, e.Sender = &at, entries[0].Sender
	} else {
		e.note("the message has left the log by age or size, so that its sender and time are not known any more")
	}
	return nil
}

// lastLeft is the latest event that says that the satellite was deregistered.
func (e *explanation) lastLeft() (left *cluster.Event) {
	for i := range e.events {
		if e.events[i].Kind == cluster.EventDeregistered {
			left = &e.events[i]
		}
	}
	return left
}

// explainGone is for a satellite that is not registered.
func (e *explanation) explainGone(id registry.ID) {
	left := e.lastLeft()
	switch {
	case left == nil:
		e.is(verdictUnknownSat, "no satellite is registered as %s, and no event of the last 7 days tells of one", id)
	case e.Relayed != nil && left.Time.Before(*e.Relayed):
		e.is(verdictLeft, "%s was deregistered before this message, at %s", id, stamp(left.Time))
	default:
		e.Certain = false
		e.is(verdictLeft, "%s was deregistered at %s; if it was owed the message then, it was dropped", id, stamp(left.Time))
	}
	if left != nil && left.Reason != "" {
		e.note("why it was deregistered: %s", left.Reason)
	}
	if ev := e.covering(cluster.EventRefused, cluster.EventGap); ev != nil {
		e.note("an event %s at %s is about messages %s to %s: %s", ev.Kind, stamp(ev.Time), ev.First, ev.Last, ev.Reason)
	}
}

// covering is the latest event of some kinds among whose messages this one is.
func (e *explanation) covering(kinds ...string) (found *cluster.Event) {
	for i := range e.events {
		ev := &e.events[i]
		first, _ := strconv.ParseUint(ev.First, 10, 64)
		last, _ := strconv.ParseUint(ev.Last, 10, 64)
		for _, kind := range kinds {
			if ev.Kind == kind && first <= e.msg && e.msg <= last {
				found = ev
			}
		}
	}
	return found
}

// explainPosition compares the message with the satellite's position.
func (e *explanation) explainPosition(ctx context.Context, d *desk, sat *registry.Satellite) error {
	records, err := d.clus.PartitionRecords(ctx, "delivery")
	if err != nil {
		return err
	}
	position := sat.Began
	for _, r := range records {
		if r.Partition != sat.ID.Partition() {
			continue
		}
		progress, err := delivery.Position(r.State, sat)
		if err != nil {
			return err
		}
		at := r.Written.UTC()
		e.At, e.Worker = &at, r.Owner
		position = max(position, progress.Position)
	}
	if e.Worker == "" {
		e.note("no delivery worker owns the satellite's partition %d at the moment", sat.ID.Partition())
	}
	record, _, err := d.reg.LoadTraffic(ctx, sat.ID.Partition())
	if err != nil {
		return err
	}
	traffic := registry.Traffic{Position: sat.Began}
	for _, t := range record.Satellites {
		if t.ID == sat.ID && t.Generation == sat.Generation {
			traffic = t
		}
	}
	// Figures are written after the checkpoint and may be further.
	position = max(position, traffic.Position)
	e.Position = decimal(position)
	if e.msg <= position {
		e.explainDone(sat, &traffic)
		return nil
	}
	e.explainOwed(sat, &traffic, position)
	return nil
}

// explainDone is for a message that the satellite's position has passed.
func (e *explanation) explainDone(sat *registry.Satellite, t *registry.Traffic) {
	if ev := e.covering(cluster.EventRefused, cluster.EventGap); ev != nil {
		first, _ := strconv.ParseUint(ev.First, 10, 64)
		last, _ := strconv.ParseUint(ev.Last, 10, 64)
		if e.Certain = ev.Count == last-first+1; !e.Certain {
			e.note("the event is about %d of the messages %s to %s; this one may be another, which was delivered", ev.Count, ev.First, ev.Last)
		}
		if ev.Kind == cluster.EventRefused {
			e.is(verdictRefused, "%s received it and refused it: %s (event of %s)", sat.ID, ev.Reason, stamp(ev.Time))
		} else {
			e.is(verdictExpired, "%s never got it: %s (event of %s)", sat.ID, gapReason(ev.Reason), stamp(ev.Time))
		}
		return
	}
	untold := t.Refused + t.Expired - min(e.told(), t.Refused+t.Expired)
	switch counted := e.msg <= t.Position; {
	case counted && t.Received+t.Expired == 0 && t.Refused > 0:
		e.is(verdictRefused, "%s received it and refused it, as all of its messages so far", sat.ID)
	case counted && t.Received+t.Refused == 0 && t.Expired > 0:
		e.is(verdictExpired, "%s never got it, as none of its messages so far", sat.ID)
	case untold > 0:
		e.Certain = false
		e.is(verdictDelivered, "the position of %s is past it, and no event says that it was refused or expired", sat.ID)
		e.note("%d of its messages were refused or expired without an event yet: an event gathers a minute, and is kept for 7 days", untold)
	default:
		e.is(verdictDelivered, "%s received it: its position is past it", sat.ID)
	}
	if e.Relayed == nil && t.Own > 0 {
		e.Certain = false
		e.note("if the satellite sent it itself, it was passed over")
	}
}

// told is how many refused and expired messages the events tell of.
func (e *explanation) told() (n uint64) {
	for _, ev := range e.events {
		if ev.Kind == cluster.EventRefused || ev.Kind == cluster.EventGap {
			n += ev.Count
		}
	}
	return n
}

func gapReason(reason string) string {
	switch reason {
	case "max_age":
		return "it was older than the satellite's own max_age"
	case "log_retention":
		return "it left the log by age or size before the satellite could be reached"
	case "operator":
		return "an operator skipped it"
	}
	return reason
}

// explainOwed is for a message that the satellite has still to get.
func (e *explanation) explainOwed(sat *registry.Satellite, t *registry.Traffic, position uint64) {
	if e.Relayed == nil {
		e.is(verdictExpired, "it left the log by age or size before %s got it; the gap is recorded when its turn comes", sat.ID)
		return
	}
	e.is(verdictOwed, "%s has still to get it, after the %d messages before it", sat.ID, e.msg-position-1)
	if age := time.Since(*e.Relayed); sat.MaxAge > 0 && age > sat.MaxAge {
		e.note("it is older than the satellite's max_age of %s, and will expire", sat.MaxAge)
	}
	if t.State != registry.StateParked {
		e.note("its lane is %s", t.State)
		return
	}
	at := t.RetryAt.UTC()
	e.Error, e.Tries, e.RetryAt = t.LastError, t.Attempts, &at
	e.note("the last of %d calls in a row failed: %s", t.Attempts, orNone(t.LastError))
	e.note("next call at %s, or as soon as it answers a ping or registers again", stamp(at))
}
