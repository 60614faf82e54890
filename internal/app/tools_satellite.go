package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/co2relay/co2relay/satellite"
)

const satelliteUsage = `Usage: co2relay satellite [--relay URL] [--port N] [flags]

Is a satellite. Each notification is printed as one line of JSON:

  {"msg_id":"1700000000000001","host_id":"10.0.0.7:7001","data":{"scene":"dusk"}}

host_id is the sender's; further members of the sender's stand under "members"
(but for dedup_id, which only guards against repeats).
Times are written as RFC 3339, binary data as base64. Each line of JSON on
standard input is relayed as data, in order.

Runs until SIGINT or SIGTERM, then deregisters. The end of standard input does
not end it, unless --exit-on-eof is set.

Exit codes: 0 ended in good order; 1 it could not listen, print or deregister,
or a line could not be relayed (the others were); 2 wrong use.`

// satelliteTool is one run of the command.
type satelliteTool struct {
	sat    *satellite.Satellite
	stdout io.Writer
	stderr io.Writer
	count  int
	got    int // notifications printed; only the handler touches it
	stop   context.CancelCauseFunc
	failed atomic.Bool
}

// errEnough ends the command in good order.
var errEnough = errors.New("done")

// SatelliteCommand is 'co2relay satellite'.
func SatelliteCommand(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	f := newFlagSet("satellite", satelliteUsage)
	var t toolFlags
	t.bindTo(f, "info")
	plugins := f.StringSlice("plugins", nil, "names of what it offers, shown by the relay")
	pass := f.String("notify-pass", "", "password that the relay has to show; empty: a random one (better given as CO2_NOTIFY_PASS)")
	maxAge := f.Duration("max-age", 0, "skip messages that waited longer; 0: none")
	stay := f.Bool("stay", false, "do not deregister at the end: what comes is kept until the satellite is back on the same --port")
	count := f.Int("count", 0, "end after so many notifications; 0: never")
	exitOnEOF := f.Bool("exit-on-eof", false, "end when standard input does")
	err := f.parse(args)
	if err == nil && f.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if err = errors.Join(err, t.validate()); err != nil {
		return usageFault(streams{stdin, stdout, stderr}, f, err)
	}

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	tool := &satelliteTool{stdout: stdout, stderr: stderr, count: *count, stop: stop}
	cfg := t.config(stderr)
	cfg.Plugins, cfg.NotifyPass, cfg.MaxAge, cfg.StayKnown = *plugins, *pass, *maxAge, *stay
	cfg.Handler = tool.print
	if tool.sat, err = satellite.New(cfg); err != nil {
		return fail(stderr, "satellite", err)
	}
	go func() { // standard input cannot be interrupted: it may outlive the command
		tool.relayLines(ctx, stdin)
		if *exitOnEOF {
			stop(errEnough)
		}
	}()
	err = tool.sat.Run(ctx)
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, errEnough) && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	if err != nil {
		return fail(stderr, "satellite", err)
	}
	if tool.failed.Load() {
		return ExitError
	}
	return ExitOK
}

// printed is one notification as a line of JSON.
type printed struct {
	MsgID   string           `json:"msg_id"`
	Sender  string           `json:"host_id"`
	Data    any              `json:"data"`
	Members satellite.Struct `json:"members,omitempty"`
}

// print is the handler. What cannot be printed stays owed.
func (t *satelliteTool) print(_ context.Context, n satellite.Notification) error {
	if t.count > 0 && t.got == t.count {
		return satellite.Later(0)
	}
	members := slices.DeleteFunc(n.Members, func(m satellite.Member) bool { return m.Name == "dedup_id" })
	line, err := encodeJSON(printed{n.MsgID, n.Sender, n.Data, members}, "")
	if err != nil {
		return fmt.Errorf("print message %s: %w", n.MsgID, err)
	}
	if _, err := t.stdout.Write(line); err != nil {
		t.stop(fmt.Errorf("print message %s: %w", n.MsgID, err))
		return satellite.Later(0)
	}
	if t.got++; t.got == t.count {
		t.stop(errEnough)
	}
	return nil
}

// relayLines relays each line until the input ends.
func (t *satelliteTool) relayLines(ctx context.Context, stdin io.Reader) {
	in := bufio.NewReader(stdin)
	for number := 1; ctx.Err() == nil; number++ {
		line, err := in.ReadString('\n')
		if strings.TrimSpace(line) != "" {
			if err := t.relayLine(ctx, line); err != nil && ctx.Err() == nil {
				t.failed.Store(true)
				fmt.Fprintf(t.stderr, "co2relay satellite: line %d of standard input: %v\n", number, err)
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				t.failed.Store(true)
				fmt.Fprintf(t.stderr, "co2relay satellite: read standard input: %v\n", err)
			}
			return
		}
	}
}

func (t *satelliteTool) relayLine(ctx context.Context, line string) error {
	data, err := parseJSON(line)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return t.sat.Relay(ctx, data)
}
