package app

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/co2relay/co2relay/registry"
)

const satellitesUsage = `Usage: co2relay satellites [--state STATE] [--search TEXT] [--sort COLUMN] [--json] [flags]

Lists the registered satellites with their state, what they are owed, and their
last round trip. With --json one object a line, times as RFC 3339. Passwords are
in neither.

Exit codes: 0 listed, also if there are none; 1 the broker could not be read; 2
wrong use.`

// listed is a satellite as the tools show it.
type listed struct {
	ID        string     `json:"host_id"`
	Nick      string     `json:"nick"`
	State     string     `json:"state"`
	Backlog   int64      `json:"backlog"`
	Trip      *float64   `json:"round_trip_ms"` // nil: not pinged, or no answer
	Seen      *time.Time `json:"last_seen"`
	Sent      uint64     `json:"sent"`
	Received  uint64     `json:"received"`
	Refused   uint64     `json:"refused"`
	Expired   uint64     `json:"expired"`
	Since     time.Time  `json:"registered"`
	Plugins   []string   `json:"plugins"`
	Position  string     `json:"position"`
	Attempts  uint32     `json:"attempts"`
	LastError string     `json:"last_error,omitempty"`
}

// listing reads all satellites with their figures.
func listing(ctx context.Context, d *desk) ([]listed, error) {
	sats, err := d.reg.ReadAll(ctx)
	if sats == nil && err != nil {
		return nil, err
	}
	snapshot, figuresErr := d.reg.Snapshot(ctx)
	if figuresErr != nil {
		return nil, figuresErr
	}
	all := make([]listed, len(sats))
	for i, s := range sats {
		all[i] = listedOf(s, snapshot.Figures(s))
	}
	return all, err
}

func listedOf(s *registry.Satellite, f registry.Figures) listed {
	t, p := &f.Traffic, &f.Ping
	x := listed{
		ID: string(s.ID), Nick: s.Nick, State: t.State.String(), Backlog: f.Owed, Sent: t.Sent, Received: t.Received, Refused: t.Refused, Expired: t.Expired,
		Since: s.Created, Plugins: s.Plugins, Position: fmt.Sprint(t.Position), Attempts: t.Attempts, LastError: t.LastError,
	}
	if x.Plugins == nil {
		x.Plugins = []string{}
	}
	seen := t.ReceivedAt
	if t.SentAt.After(seen) {
		seen = t.SentAt
	}
	if p.Count > 0 && p.Current >= 0 {
		x.Trip = &p.Current
		if p.At.After(seen) {
			seen = p.At
		}
	}
	if !seen.IsZero() {
		x.Seen = &seen
	}
	return x
}

// listOrders are the columns that a list can be sorted by. Those of numbers
// begin with the highest.
var listOrders = map[string]func(a, b *listed) int{
	"nick":     func(a, b *listed) int { return cmp.Compare(strings.ToLower(a.Nick), strings.ToLower(b.Nick)) },
	"id":       func(a, b *listed) int { return cmp.Compare(a.ID, b.ID) },
	"state":    func(a, b *listed) int { return cmp.Compare(stateRank[b.State], stateRank[a.State]) },
	"backlog":  func(a, b *listed) int { return cmp.Compare(b.Backlog, a.Backlog) },
	"trip":     func(a, b *listed) int { return cmp.Compare(b.trip(), a.trip()) },
	"sent":     func(a, b *listed) int { return cmp.Compare(b.Sent, a.Sent) },
	"received": func(a, b *listed) int { return cmp.Compare(b.Received, a.Received) },
}

var (
	orderNames = []string{"nick", "id", "state", "backlog", "trip", "sent", "received"}
	stateRank  = map[string]int{"idle": 0, "live": 1, "behind": 2, "parked": 3}
)

func (x *listed) trip() float64 {
	if x.Trip == nil {
		return -1
	}
	return *x.Trip
}

func sortList(all []listed, by string) {
	order := listOrders[by]
	slices.SortFunc(all, func(a, b listed) int { return cmp.Or(order(&a, &b), strings.Compare(a.ID, b.ID)) })
}

func satellitesCommand(ctx context.Context, args []string, std streams) int {
	var state, search, order string
	var asJSON bool
	return deskCommand{
		name: "satellites", usage: satellitesUsage,
		bind: func(f *flagSet) {
			f.StringVar(&state, "state", "", "only those in this state: idle, live, behind (catching up) or parked (not reached)")
			f.StringVar(&search, "search", "", "only those with this text in nick or host id")
			f.StringVar(&order, "sort", "nick", "column to sort by: "+strings.Join(orderNames, ", "))
			f.BoolVar(&asJSON, "json", false, "one JSON object a line")
		},
		check: func(args []string) error {
			if listOrders[order] == nil {
				return fmt.Errorf("--sort: %q is not one of %s", order, strings.Join(orderNames, ", "))
			}
			if _, known := stateRank[state]; state != "" && !known {
				return fmt.Errorf("--state: %q is not one of idle, live, behind, parked", state)
			}
			return noArguments(args)
		},
		run: func(ctx context.Context, d *desk, std streams) (int, error) {
			all, err := listing(ctx, d)
			text := strings.ToLower(search)
			all = slices.DeleteFunc(all, func(x listed) bool {
				return state != "" && x.State != state || text != "" && !strings.Contains(strings.ToLower(x.Nick), text) && !strings.Contains(x.ID, text)
			})
			sortList(all, order)
			if asJSON {
				for i := range all {
					if e := writeJSON(std.out, &all[i], ""); e != nil {
						return ExitError, fmt.Errorf("print satellites: %w", e)
					}
				}
				return ExitOK, err
			}
			if len(all) == 0 && err == nil {
				fmt.Fprintln(std.err, "no satellite is registered, or none is like that")
				return ExitOK, nil
			}
			if e := printList(std.out, all, coloured(std.out)); e != nil {
				return ExitError, fmt.Errorf("print satellites: %w", e)
			}
			return ExitOK, err
		},
	}.main(ctx, args, std)
}

func printList(out io.Writer, all []listed, colours bool) error {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SATELLITE\tHOST ID\tSTATE\tBACKLOG\tROUND TRIP\tLAST SEEN\tSENT\tRECEIVED\tLAST ERROR")
	for i := range all {
		x := &all[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%d\t%d\t%s\n",
			cutCells(printable(x.Nick), 32), x.ID, x.State, x.Backlog, x.tripText(), x.seenText(), x.Sent, x.Received, errorOf(x))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	// Colours after the columns are made: they must not count as width.
	for i, line := range strings.SplitAfter(text.String(), "\n") {
		if colours && i > 0 && i <= len(all) {
			line = paint(line, all[i-1].State)
		}
		if _, err := io.WriteString(out, line); err != nil {
			return err
		}
	}
	return nil
}

func errorOf(x *listed) string {
	if x.State != "parked" {
		return ""
	}
	return cutCells(printable(x.LastError), 60)
}

func (x *listed) tripText() string {
	switch {
	case x.Trip == nil:
		return "-"
	case *x.Trip < 10:
		return fmt.Sprintf("%.2f ms", *x.Trip)
	}
	return fmt.Sprintf("%.0f ms", *x.Trip)
}

func (x *listed) seenText() string {
	if x.Seen == nil {
		return "never"
	}
	d := max(time.Since(*x.Seen), 0)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	}
	return fmt.Sprintf("%d h ago", int(d.Hours()))
}

// cutCells shortens a text to a number of characters.
func cutCells(s string, most int) string {
	r := []rune(s)
	if len(r) <= most {
		return s
	}
	return string(r[:max(most-1, 0)]) + "…"
}

// paint colours a line by a satellite's state.
func paint(line, state string) string {
	code := map[string]string{"behind": "33", "parked": "31"}[state]
	if code == "" {
		return line
	}
	text, newline := strings.CutSuffix(line, "\n")
	line = "\x1b[" + code + "m" + text + "\x1b[0m"
	if newline {
		line += "\n"
	}
	return line
}

// coloured tells whether out is a terminal that may be written in colours
// (https://no-color.org).
func coloured(out io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(out)
}

func isTerminal(out any) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	_, _, err := terminalSize(f)
	return err == nil
}
