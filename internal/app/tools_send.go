package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/co2relay/co2relay/satellite"
)

const sendUsage = `Usage: co2relay send [--relay URL] [flags] DATA
       co2relay send [--relay URL] [flags] -

Relays one message to every registered satellite, and prints the host id that it
was sent under. DATA is JSON; text that is not JSON is sent as a string. With -
it is read from standard input. To send, it is a satellite for a moment: it
registers, relays and deregisters.

Exit codes: 0 the relay has the message on disk; 1 it was not relayed, or it is
unknown whether it was (the error says which); 2 wrong use.`

// SendCommand is 'co2relay send'.
func SendCommand(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	f := newFlagSet("send", sendUsage)
	var t toolFlags
	t.bindTo(f, "error")
	dedup := f.String("dedup-id", "", "makes it safe to send the same again within two minutes from the same --port")
	text := f.Bool("text", false, "send DATA as a string even if it is JSON")
	timeout := f.Duration("timeout", 30*time.Second, "time for all of it")
	err := f.parse(args)
	switch {
	case err == nil && f.NArg() != 1:
		err = fmt.Errorf("want one argument, DATA or -, and got %d", f.NArg())
	case err == nil && *dedup != "" && t.port == 0 && t.forwarded == 0:
		err = errors.New("--dedup-id: works together with --port only, as an id counts for one sender")
	}
	if err = errors.Join(err, t.validate()); err != nil {
		return usageFault(streams{stdin, stdout, stderr}, f, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("not done within --timeout %s", *timeout))
	defer cancel()
	data, err := sendData(f.Arg(0), stdin, *text)
	if err != nil {
		return fail(stderr, "send", err)
	}
	if err := reachable(ctx, t.relay); err != nil {
		fmt.Fprintf(stderr, "co2relay send: the relay at %s cannot be reached, trying again for %s (--timeout): %s\n", t.relay, *timeout, adviceToReach(err))
	}
	id, err := send(ctx, t.config(stderr), satellite.Message{Data: data, DedupID: *dedup})
	if err != nil {
		return fail(stderr, "send", err)
	}
	fmt.Fprintln(stdout, "relayed as", id)
	return ExitOK
}

// reachable calls the relay once, so that a person is told at once if nothing
// is there. Sending itself goes on trying: a relay may be starting.
func reachable(ctx context.Context, url string) error {
	client, err := satellite.NewClient(url)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err = client.Call(ctx, "ping")
	return err
}

// sendData is what the argument means.
func sendData(arg string, stdin io.Reader, text bool) (any, error) {
	if arg == "-" {
		b, err := io.ReadAll(stdin)
		if err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		arg = string(b)
	}
	if !text {
		if data, err := parseJSON(arg); err == nil {
			return data, nil
		}
	}
	return arg, nil
}

// send is a satellite for one message. Deregistering drops only what the
// satellite is owed, nothing that it sent.
func send(ctx context.Context, cfg satellite.Config, m satellite.Message) (id string, err error) {
	s, err := satellite.New(cfg)
	if err != nil {
		return "", err
	}
	if err := s.Start(ctx); err != nil {
		return "", err
	}
	defer func() {
		if e := s.Close(); e != nil { // the message's fate is what the caller asks for
			cfg.Logger.Warn("not deregistered", "error", e)
		}
	}()
	id = s.ID()
	return id, s.RelayMessage(ctx, m)
}
