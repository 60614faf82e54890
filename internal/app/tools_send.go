package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/co2relay/co2relay/satellite"
)

const sendUsage = `Usage: co2relay send [--relay URL] [--json] [flags] DATA
       co2relay send [--relay URL] [--json] [flags] -

Relays one message to every registered satellite, and prints the host id that it
was sent under. DATA is JSON; text that is not JSON is sent as a string. With -
it is read from standard input. To send, it is a satellite for a moment: it
registers, relays and deregisters. If the satellite of --port is registered
already, it stays so, and is owed what it was; it has to register again, which a
satellite does when it starts.

Exit codes: 0 the relay has the message on disk; 1 it was not relayed, or it is
unknown whether it was (the error says which); 2 wrong use.`

// sent is what the command has done. As JSON it is for programs: members may be
// added, and keep their names.
type sent struct {
	ID    string `json:"host_id"`          // the sender's
	Stays bool   `json:"stays_registered"` // as it was registered before
}

// SendCommand is 'co2relay send'.
func SendCommand(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	f := newFlagSet("send", sendUsage)
	var t toolFlags
	t.bindTo(f, "error")
	dedup := f.String("dedup-id", "", "makes it safe to send the same again within two minutes from the same --port")
	text := f.Bool("text", false, "send DATA as a string even if it is JSON")
	timeout := f.Duration("timeout", 30*time.Second, "time for all of it")
	asJSON := f.Bool("json", false, "one JSON object, for programs")
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
	client, err := satellite.NewClient(t.relay)
	if err != nil {
		return fail(stderr, "send", err)
	}
	defer client.Close()
	if err := reachable(ctx, client); err != nil {
		fmt.Fprintf(stderr, "co2relay send: the relay at %s cannot be reached, trying again for %s (--timeout): %s\n", client, *timeout, adviceToReach(err))
	}
	done, err := t.send(ctx, client, satellite.Message{Data: data, DedupID: *dedup}, stderr)
	switch {
	case err != nil:
	case *asJSON:
		err = writeJSON(stdout, done, "  ")
	default:
		fmt.Fprintln(stdout, "relayed as", done.ID)
	}
	if err != nil {
		return fail(stderr, "send", err)
	}
	return ExitOK
}

// reachable calls the relay once, so that a person is told at once if nothing
// is there. Sending itself goes on trying: a relay may be starting.
func reachable(ctx context.Context, client *satellite.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := client.Call(ctx, "ping")
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
func (t *toolFlags) send(ctx context.Context, client *satellite.Client, m satellite.Message, stderr io.Writer) (sent, error) {
	g, err := t.guest(client, stderr, func(*satellite.Config) {})
	if err != nil {
		return sent{}, err
	}
	if err := g.start(ctx); err != nil {
		return sent{}, err
	}
	defer func() {
		if err := g.Close(); err != nil { // the message's fate is what the caller asks for
			fmt.Fprintf(stderr, "co2relay send: not deregistered: %v\n", err)
		}
	}()
	done := sent{g.ID(), g.tookOver()}
	if done.Stays {
		fmt.Fprintf(stderr, "co2relay send: %s\n", g.warning())
	}
	return done, g.RelayMessage(ctx, m)
}
