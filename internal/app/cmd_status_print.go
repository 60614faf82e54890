package app

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// print writes the status for people.
func (s *status) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(label, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", label, fmt.Sprintf(format, args...))
	}
	b := &s.Broker
	where := b.Server
	if b.Cluster != "" {
		where += " of cluster " + b.Cluster
	}
	line("broker", "nats-server %s, %s, %.1f ms away", b.Version, where, b.RoundTrip)
	for _, x := range b.Streams {
		if x.Replicas > 1 {
			line("", "stream %s: %d copies, leader %s", x.Name, x.Replicas, orNone(x.Leader))
		}
	}
	limit := ""
	if s.Log.MaxBytes > 0 {
		limit = fmt.Sprintf(" of %s (%d%%)", bytesText(uint64(s.Log.MaxBytes)), s.Log.Bytes*100/uint64(s.Log.MaxBytes))
	}
	line("log", "%d messages, %s%s, msg_id %s to %s", s.Log.Messages, bytesText(s.Log.Bytes), limit, s.Log.First, s.Log.Last)
	x := &s.Satellites
	line("satellites", "%d of %d: %d idle, %d live, %d catching up, %d not reached, %d new; %d do not answer pings",
		x.Registered, x.Max, x.Idle, x.Live, x.Behind, x.Parked, x.New, x.Unreachable)
	a := &s.Accounts
	line("accounts", "%d messages accepted, %d not counted yet", a.Messages, a.Unread)
	verdict := "balanced"
	if !a.Balances {
		verdict = fmt.Sprintf("NOT BALANCED, off by %d", a.Balance)
	}
	line("", "recipients %d = delivered %d + refused %d + expired %d + dropped %d + owed %d: %s",
		a.Recipients, a.Delivered, a.Refused, a.Expired, a.Dropped, a.Owed, verdict)
	for _, fault := range a.Faults {
		line("", "%s", fault)
	}
	label := "workers"
	for _, worker := range s.Workers {
		line(label, "%s %s: %d partitions (%s), seen %.1f s ago", worker.Role, worker.ID, len(worker.Partitions),
			orNone(ranges(worker.Partitions)), max(s.Time.Sub(worker.Renewed), 0).Round(100*time.Millisecond).Seconds())
		label = ""
	}
	if len(s.Workers) == 0 {
		line(label, "none")
	}
	label = "notes"
	for _, note := range s.Notes {
		line(label, "%s", note)
		label = ""
	}
	return w.Flush()
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// ranges writes numbers shortly: 0-3,7.
func ranges(ns []int) string {
	ns = slices.Sorted(slices.Values(ns))
	var parts []string
	for i := 0; i < len(ns); {
		j := i
		for j+1 < len(ns) && ns[j+1] == ns[j]+1 {
			j++
		}
		part := strconv.Itoa(ns[i])
		if j > i {
			part += "-" + strconv.Itoa(ns[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	return strings.Join(parts, ",")
}

func bytesText(n uint64) string {
	for _, u := range units[:3] {
		if n >= uint64(u.n) {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.n), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }
