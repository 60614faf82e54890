package app

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
)

const kickUsage = `Usage: co2relay kick HOST_ID [--data DIR | --nats URL,...]

Deregisters a satellite. What it is still owed is dropped. It may register again
at any time, and is then a new one. The event 'deregistered' says that an
operator did it.`

const skipUsage = `Usage: co2relay skip HOST_ID [--to MSG_ID|end] [--data DIR | --nats URL,...]

Gives up what a satellite is owed, up to a message: for one that comes back after
a long time, or that one message stops. --to names the first message that it
still gets; with 'end' everything that is in the log now is skipped. What is
skipped counts as expired, and is an event 'gap' with the reason operator. When
the command ends, the new position is on disk. A satellite that is past the
message already is left alone.`

// hostID is the one argument of kick and skip.
type hostID struct{ id registry.ID }

func (h *hostID) check(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want one argument, the satellite's HOST_ID, and got %d", len(args))
	}
	var err error
	h.id, _, err = registry.ParseID(args[0])
	return err
}

// find gives the satellite as the broker's leader knows it.
func (h *hostID) find(ctx context.Context, d *desk) (*registry.Satellite, error) {
	sat, err := d.reg.LookupLeader(ctx, h.id)
	if errors.Is(err, registry.ErrUnknown) {
		return nil, fmt.Errorf("no satellite is registered as %s; 'co2relay satellites' lists who is", h.id)
	}
	return sat, err
}

func kickCommand(ctx context.Context, args []string, std streams) int {
	var h hostID
	return deskCommand{
		name: "kick", usage: kickUsage, check: h.check, bind: func(*flagSet) {},
		run: func(ctx context.Context, d *desk, std streams) (int, error) {
			sat, err := h.find(ctx, d)
			if err != nil {
				return ExitError, err
			}
			owed := int64(0)
			if f, err := d.reg.Figures(ctx, sat.ID); err == nil {
				owed = f.Owed
			}
			err = d.reg.DeregisterGeneration(ctx, sat.ID, sat.Generation)
			if errors.Is(err, registry.ErrUnknown) {
				return ExitError, fmt.Errorf("%s has deregistered by itself meanwhile", sat.ID)
			}
			if err != nil {
				return ExitError, err
			}
			d.emit(ctx, cluster.Event{
				Kind: cluster.EventDeregistered, Satellite: string(sat.ID), Nick: sat.Nick, Partition: sat.ID.Partition(),
				Generation: sat.Generation, Reason: "operator",
			})
			fmt.Fprintf(std.out, "deregistered %s; %d messages that it was owed are dropped\n", sat.ID, owed)
			return ExitOK, nil
		},
	}.main(ctx, args, std)
}

func skipCommand(ctx context.Context, args []string, std streams) int {
	var h hostID
	var to string
	var first uint64 // the first message that it still gets; 0: end
	return deskCommand{
		name: "skip", usage: skipUsage,
		bind: func(f *flagSet) {
			f.StringVar(&to, "to", "end", "msg_id of the first message that it still gets, or end")
		},
		check: func(args []string) error {
			err := h.check(args)
			if to != "end" {
				var bad error
				if first, bad = strconv.ParseUint(to, 10, 64); bad != nil || first == 0 {
					err = errors.Join(err, fmt.Errorf("--to: %q is neither a msg_id nor end", to))
				}
			}
			return err
		},
		run: func(ctx context.Context, d *desk, std streams) (int, error) {
			sat, err := h.find(ctx, d)
			if err != nil {
				return ExitError, err
			}
			last, err := d.clus.Log().Last(ctx)
			if err != nil {
				return ExitError, err
			}
			if first > last+1 {
				return ExitError, fmt.Errorf("the log ends at %d, so --to %d is no message yet", last, first)
			}
			if first > 0 {
				last = first - 1
			}
			return ExitOK, skip(ctx, d, sat, last, std)
		},
	}.main(ctx, args, std)
}

// skip asks the owner of the satellite's partition.
func skip(ctx context.Context, d *desk, sat *registry.Satellite, to uint64, std streams) error {
	q := cluster.Question{Kind: cluster.QuestionSkip, Satellite: string(sat.ID), Generation: sat.Generation, To: to}
	a, err := d.clus.Ask(ctx, sat.ID.Partition(), q)
	if err != nil {
		return err
	}
	if a.First == 0 {
		fmt.Fprintf(std.out, "%s is at %d already, nothing is skipped\n", sat.ID, a.Position)
		return nil
	}
	fmt.Fprintf(std.out, "skipped %d messages, %d to %d; %s goes on after %d\n", a.Count, a.First, a.Last, sat.ID, a.Position)
	if a.Position < to {
		return fmt.Errorf("its worker has read the log only up to %d, and not up to %d; skip again in a moment", a.Position, to)
	}
	return nil
}
