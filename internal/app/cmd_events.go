package app

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
)

const eventsUsage = `Usage: co2relay events [--follow] [--since 1h] [--kind KIND,...] [--satellite HOST_ID]
                      [--json] [--data DIR | --nats URL,...]

Shows what happened to satellites and workers, a line each, oldest first; with
--json one JSON object a line (docs/events.md). Events are kept for 7 days, or as
long as a hundredth of --retention-bytes holds them.`

// eventFilter is which events to show.
type eventFilter struct {
	since     time.Duration
	kinds     []string
	satellite string
	follow    bool
	asJSON    bool
}

func (e *eventFilter) bind(f *flagSet) {
	f.BoolVarP(&e.follow, "follow", "f", false, "go on with new events until stopped")
	f.daysVar(&e.since, "since", "how far back to begin, for example 30m or 2d")
	f.StringSliceVar(&e.kinds, "kind", nil, "only these kinds: "+strings.Join(cluster.EventKinds(), ", "))
	f.StringVar(&e.satellite, "satellite", "", "only those about this satellite")
	f.BoolVar(&e.asJSON, "json", false, "JSON, for programs")
}

func (e *eventFilter) check(args []string) error {
	if err := noArguments(args); err != nil {
		return err
	}
	for _, kind := range e.kinds {
		if !slices.Contains(cluster.EventKinds(), kind) {
			return fmt.Errorf("--kind: there is no kind %q; there are %s", kind, strings.Join(cluster.EventKinds(), ", "))
		}
	}
	if e.satellite != "" {
		id, _, err := registry.ParseID(e.satellite)
		if err != nil {
			return fmt.Errorf("--satellite: %w", err)
		}
		e.satellite = string(id)
	}
	return nil
}

func (e *eventFilter) wants(ev cluster.Event) bool {
	return (len(e.kinds) == 0 || slices.Contains(e.kinds, ev.Kind)) && (e.satellite == "" || e.satellite == ev.Satellite)
}

func eventsCommand(ctx context.Context, args []string, std streams) int {
	e := eventFilter{since: time.Hour}
	return deskCommand{
		name: "events", usage: eventsUsage, bind: e.bind, check: e.check, endless: &e.follow,
		run: func(ctx context.Context, d *desk, std streams) (int, error) {
			return ExitOK, e.run(ctx, d, std.out)
		},
	}.main(ctx, args, std)
}

func (e *eventFilter) run(ctx context.Context, d *desk, out io.Writer) error {
	since := time.Now().Add(-e.since)
	if !e.follow {
		all, err := d.clus.PastEvents(ctx, since)
		for _, ev := range all {
			if err := e.show(out, ev); err != nil {
				return err
			}
		}
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error
	err := d.clus.Events(ctx, since, func(ev cluster.Event) {
		if failed == nil {
			if failed = e.show(out, ev); failed != nil {
				cancel()
			}
		}
	})
	if failed != nil {
		return failed
	}
	return err
}

// show writes one event.
func (e *eventFilter) show(out io.Writer, ev cluster.Event) error {
	if !e.wants(ev) {
		return nil
	}
	if e.asJSON {
		return writeJSON(out, ev, "")
	}
	_, err := fmt.Fprintln(out, eventLine(ev))
	return err
}

// eventLine is an event for people. What strangers can put into it (nick,
// reason) can't move the cursor of a terminal.
func eventLine(ev cluster.Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %-15s", ev.Time.UTC().Format("2006-01-02T15:04:05Z"), ev.Kind)
	part := func(format string, args ...any) { fmt.Fprintf(&b, "  "+format, args...) }
	if ev.Satellite != "" {
		part("%s", ev.Satellite)
	}
	if ev.Nick != "" && ev.Nick != ev.Satellite {
		part("%s", strconv.Quote(ev.Nick))
	}
	switch {
	case ev.Last != "" && ev.Last != ev.First:
		part("%d messages, %s to %s", ev.Count, ev.First, ev.Last)
	case ev.First != "":
		part("from %s", ev.First)
	}
	if ev.Satellite == "" {
		if ev.Worker != "" {
			part("%s", ev.Worker)
		}
		if ev.Kind == cluster.EventMoved {
			part("partition %d", ev.Partition)
		}
	}
	if ev.Reason != "" {
		part("%s", printable(ev.Reason))
	}
	return b.String()
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '.'
	}, s)
}
