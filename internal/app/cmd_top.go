package app

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/co2relay/co2relay/cluster"
)

const topUsage = `Usage: co2relay top [--sort COLUMN] [--once] [flags]

Shows in the terminal, live, what the relay does: messages a second, latency,
satellites with their states and backlogs. Where the output is no terminal, or
with --once, it is shown once.

Keys: q ends it, s sorts by the next column, arrows, Page Up and Page Down move
through the satellites.

Exit codes: 0 ended by q, a signal or --once; 1 the broker could not be read; 2
wrong use.`

const (
	topFrame  = time.Second
	topReload = 2 * time.Second // of the satellites
	topSlots  = 60              // five minutes of samples
	topStep   = int64(cluster.SampleEvery / time.Second)
	topGone   = 4 * cluster.SampleEvery // age of a last sample beyond which a process is not counted
)

// top is what the command shows.
type top struct {
	d     *desk
	order string
	from  int // first satellite shown

	mu    sync.Mutex
	slots map[int64]*cluster.Sample // by Unix seconds, summed over processes
	procs map[string]cluster.Sample
	sats  []listed
	max   int
	fault error // of load
	blind error // of follow
}

func newTop() *top {
	return &top{order: "state", slots: make(map[int64]*cluster.Sample), procs: make(map[string]cluster.Sample)}
}

func topCommand(ctx context.Context, args []string, std streams) int {
	t := newTop()
	once, endless := false, true
	return deskCommand{
		name: "top", usage: topUsage, endless: &endless,
		bind: func(f *flagSet) {
			f.StringVar(&t.order, "sort", t.order, "column to sort by: "+strings.Join(orderNames, ", "))
			f.BoolVar(&once, "once", false, "show it once, as text")
		},
		check: func(args []string) error {
			if listOrders[t.order] == nil {
				return fmt.Errorf("--sort: %q is not one of %s", t.order, strings.Join(orderNames, ", "))
			}
			return noArguments(args)
		},
		run: func(ctx context.Context, d *desk, std streams) (int, error) {
			t.d = d
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			var reading sync.WaitGroup
			defer reading.Wait()
			defer cancel()
			reading.Go(func() { t.follow(ctx) })
			if err := t.load(ctx); err != nil {
				return ExitError, err
			}
			out, _ := std.out.(*os.File)
			in, _ := std.in.(*os.File)
			if once || !isTerminal(std.out) || !isTerminal(std.in) {
				select { // for the samples
				case <-ctx.Done():
				case <-time.After(300 * time.Millisecond):
				}
				_, err := io.WriteString(std.out, t.frame(160, len(t.sats)+12, false))
				return ExitOK, err
			}
			reading.Go(func() { t.reload(ctx) })
			return ExitOK, t.show(ctx, in, out)
		},
	}.main(ctx, args, std)
}

// follow takes the samples in until ctx ends. After a failure it takes all of
// them anew, so that none counts twice.
func (t *top) follow(ctx context.Context) {
	for {
		err := t.d.clus.Samples(ctx, time.Now().Add(-5*time.Minute), t.sample)
		t.mu.Lock()
		t.blind = err
		clear(t.slots)
		clear(t.procs)
		t.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(topReload):
		}
	}
}

func (t *top) sample(s cluster.Sample) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.blind = nil
	at := s.Time.Unix()
	sum := t.slots[at]
	if sum == nil {
		sum = &cluster.Sample{Time: s.Time, Latency: make([]uint64, cluster.LatencyBuckets)}
		t.slots[at] = sum
	}
	sum.Accepted += s.Accepted
	sum.Delivered += s.Delivered
	sum.Failed += s.Failed
	for i, n := range s.Latency {
		sum.Latency[i] += n
	}
	t.procs[s.Process] = s
	for k := range t.slots {
		if at-k > topSlots*topStep {
			delete(t.slots, k)
		}
	}
}

func (t *top) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	sats, err := listing(ctx, t.d)
	if sats == nil && err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.fault = err
		return err
	}
	most, _ := t.d.reg.MaxSats(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sats, t.max, t.fault = sats, most, nil
	return nil
}

func (t *top) reload(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(topReload):
		}
		_ = t.load(ctx) // shown with the next frame
	}
}

// show draws on the terminal's second screen until q or the end of ctx.
func (t *top) show(ctx context.Context, in, out *os.File) error {
	restore, err := rawKeys(in)
	if err != nil {
		return err
	}
	defer restore()
	if _, err := io.WriteString(out, "\x1b[?1049h\x1b[?25l"); err != nil {
		return fmt.Errorf("draw: %w", err)
	}
	defer func() { _, _ = io.WriteString(out, "\x1b[?25h\x1b[?1049l") }()
	keys := make(chan string)
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	reading.Go(func() { readKeys(ctx, in, keys) })
	defer reading.Wait()
	defer cancel()
	resized := make(chan os.Signal, 1)
	defer onResize(resized)()
	tick := time.NewTicker(topFrame)
	defer tick.Stop()
	colours := coloured(out)
	for {
		columns, rows, err := terminalSize(out)
		if err != nil {
			return err
		}
		text := strings.ReplaceAll(strings.TrimSuffix(t.frame(columns, rows, colours), "\n"), "\n", "\x1b[K\n") // the terminal adds the carriage returns
		if _, err := io.WriteString(out, "\x1b[H"+text+"\x1b[K\x1b[J"); err != nil {
			return fmt.Errorf("draw: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-resized:
		case key := <-keys:
			if t.key(key, rows) {
				return nil
			}
		}
	}
}

func readKeys(ctx context.Context, in *os.File, keys chan<- string) {
	b := make([]byte, 16)
	for ctx.Err() == nil {
		n, err := in.Read(b)
		if n == 0 || err != nil { // nothing was pressed within 0.1 s: the file says so by EOF
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
			continue
		}
		select {
		case keys <- string(b[:n]):
		case <-ctx.Done():
		}
	}
}

// key does what a key says; true ends the command.
func (t *top) key(key string, rows int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	page := max(rows-topHead-1, 1)
	switch key {
	case "q", "Q", "\x1b":
		return true
	case "s":
		for i, name := range orderNames {
			if name == t.order {
				t.order = orderNames[(i+1)%len(orderNames)]
				break
			}
		}
		t.from = 0
	case "\x1b[A", "k":
		t.from--
	case "\x1b[B", "j":
		t.from++
	case "\x1b[5~":
		t.from -= page
	case "\x1b[6~", " ":
		t.from += page
	}
	return false
}

const (
	topHead    = 7  // lines above the satellites
	topFigures = 82 // columns beside a satellite's nick
)

// frame is the whole picture, of at most so many rows.
func (t *top) frame(columns, rows int, colours bool) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	bold := func(s string) string {
		if !colours {
			return s
		}
		return "\x1b[1m" + s + "\x1b[0m"
	}
	at := time.Now()
	maps.DeleteFunc(t.procs, func(_ string, s cluster.Sample) bool { return at.Sub(s.Time) > topGone })
	now, minute, in, out := t.rates(at)
	states := map[string]int{}
	backlog := int64(0)
	for i := range t.sats {
		states[t.sats[i].State]++
		backlog += t.sats[i].Backlog
	}
	var b strings.Builder
	line := func(s string) { b.WriteString(cutLine(s, columns) + "\n") }
	line(bold("co2relay top") + "  " + at.UTC().Format("15:04:05") + " UTC   by " + t.order + "   q ends, s sorts, arrows move")
	line(fmt.Sprintf("in   %8s/s %s", perSecond(now.Accepted, now.Seconds), in))
	line(fmt.Sprintf("out  %8s/s %s", perSecond(now.Delivered, now.Seconds), out))
	line(fmt.Sprintf("latency %s, 99%% %s   failed calls %s/s   processes %d", milli(cluster.LatencyPercentile(minute.Latency, .5)),
		milli(cluster.LatencyPercentile(minute.Latency, .99)), perSecond(now.Failed, now.Seconds), len(t.procs)))
	line(fmt.Sprintf("satellites %d of %d: %d live, %d catching up, %d not reached   backlog %d",
		len(t.sats), t.max, states["idle"]+states["live"], states["behind"], states["parked"], backlog))
	if err := cmp.Or(t.fault, t.blind); err != nil {
		line("cannot read: " + printable(err.Error()))
	} else {
		line("")
	}
	sortList(t.sats, t.order)
	room := max(rows-topHead-1, 1)
	t.from = max(min(t.from, len(t.sats)-room), 0)
	// Where there is little room, nicks are cut before figures are.
	nick := max(min(columns-topFigures, 28), 9)
	line(bold(fmt.Sprintf("%-*s %-21s %-7s %9s %10s %10s %9s %9s", nick, "SATELLITE", "HOST ID", "STATE", "BACKLOG", "ROUND TRIP", "LAST SEEN", "SENT", "RECEIVED")))
	for _, x := range t.sats[t.from:min(t.from+room, len(t.sats))] {
		text := cutLine(fmt.Sprintf("%-*s %-21s %-7s %9d %10s %10s %9d %9d  %s",
			nick, cutCells(printable(x.Nick), nick), x.ID, x.State, x.Backlog, x.tripText(), x.seenText(), x.Sent, x.Received, errorOf(&x)), columns)
		if colours {
			text = paint(text, x.State)
		}
		b.WriteString(text + "\n")
	}
	return b.String()
}

// rates are the sums of the last 15 seconds and of the last minute, and the
// last minutes as little pictures. They end with the last sample, or, where
// samples stopped coming, with the time.
func (t *top) rates(when time.Time) (now, minute cluster.Sample, in, out string) {
	var last int64
	for at := range t.slots {
		last = max(last, at)
	}
	if when.Sub(time.Unix(last, 0)) > topGone {
		last = when.Truncate(cluster.SampleEvery).Unix()
	}
	minute.Latency = make([]uint64, cluster.LatencyBuckets)
	var ins, outs []uint64
	for at := last - (topSlots/2-1)*topStep; at <= last; at += topStep {
		s := t.slots[at]
		if s == nil {
			ins, outs = append(ins, 0), append(outs, 0)
			continue
		}
		ins, outs = append(ins, s.Accepted), append(outs, s.Delivered)
		if at > last-12*topStep {
			for i, n := range s.Latency {
				minute.Latency[i] += n
			}
		}
		if at > last-3*topStep {
			now.Accepted += s.Accepted
			now.Delivered += s.Delivered
			now.Failed += s.Failed
			now.Seconds += float64(topStep)
		}
	}
	return now, minute, blocks(ins), blocks(outs)
}

// blocks draws numbers as bars of eight heights.
func blocks(values []uint64) string {
	most := uint64(1)
	for _, v := range values {
		most = max(most, v)
	}
	bars := []rune("▁▂▃▄▅▆▇█")
	var b strings.Builder
	for _, v := range values {
		if v == 0 {
			b.WriteByte(' ')
			continue
		}
		b.WriteRune(bars[min(int(v*8/(most+1)), 7)])
	}
	return b.String()
}

func perSecond(n uint64, seconds float64) string {
	if seconds == 0 {
		return "-"
	}
	v := float64(n) / seconds
	if v > 0 && v < 10 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func milli(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3g ms", float64(d)/float64(time.Millisecond))
}

// cutLine shortens a line to the terminal's width; escape sequences take none.
func cutLine(s string, columns int) string {
	width, escape := 0, false
	for i, r := range s {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		default:
			if width++; width > columns {
				if strings.Contains(s, "\x1b") {
					return s[:i] + "\x1b[0m"
				}
				return s[:i]
			}
		}
	}
	return s
}
