package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
)

// brokerFlags are those of the tools that ask the broker itself: by the data
// directory of a running serve, or by the addresses of a NATS cluster.
type brokerFlags struct {
	broker   Broker
	timeout  time.Duration
	logLevel string
}

func (b *brokerFlags) bindTo(f *flagSet) {
	f.StringVar(&b.broker.Data, "data", "./co2-data", "data directory of the running serve, on this machine and of the same user")
	b.broker.bindTo(f, "NATS servers of the cluster, for example nats://nats1:4222,nats://nats2:4222; empty: the broker in --data")
	f.DurationVar(&b.timeout, "timeout", 10*time.Second, "time to wait for the broker, and for an answer")
	f.StringVar(&b.logLevel, "log-level", "error", "what is told on standard error: trace, debug, info, warn, error or off")
}

func (b *brokerFlags) validate() error {
	var errs []error
	if b.broker.Data == "" && len(b.broker.URLs) == 0 {
		errs = append(errs, errors.New("--data: name the data directory of a running serve, or give --nats"))
	}
	errs = append(errs, b.broker.validate())
	if b.timeout <= 0 {
		errs = append(errs, fmt.Errorf("--timeout: %s is not a positive time", b.timeout))
	}
	if hclog.LevelFromString(b.logLevel) == hclog.NoLevel {
		errs = append(errs, fmt.Errorf("--log-level: %q is not one of trace, debug, info, warn, error, off", b.logLevel))
	}
	return errors.Join(errs...)
}

// desk is a tool's connection to the broker. Its registry has no view: it asks.
type desk struct {
	clus *cluster.Cluster
	reg  *registry.Registry
}

// open connects. It waits --timeout for a cluster, which may be changing its
// leader, but not for a serve that does not run.
func (b *brokerFlags) open(ctx context.Context, name string, stderr io.Writer) (*desk, error) {
	options, err := b.broker.options(name)
	if err != nil {
		return nil, err
	}
	if len(options.URLs) == 0 {
		options = cluster.Options{Dir: b.broker.Data, Name: options.Name}
		if _, err := os.Stat(filepath.Clean(b.broker.Data)); err != nil {
			return nil, fmt.Errorf("there is no data directory of a relay here, name it by --data or give --nats: %w", err)
		}
	}
	log := hclog.New(&hclog.LoggerOptions{Name: "co2relay", Level: hclog.LevelFromString(b.logLevel), Output: stderr, TimeFormat: time.RFC3339})
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	clus, err := cluster.Connect(ctx, options, log)
	if err != nil {
		if options.Dir != "" {
			err = fmt.Errorf("no relay serves from --data %s: %w", options.Dir, err)
		} else {
			err = fmt.Errorf("%w; check --nats (do its servers run, at these addresses?) and, if they ask for it, user, password and certificates", err)
		}
		return nil, err
	}
	return &desk{clus, registry.New(clus, log)}, nil
}

// emit publishes an event and waits until it is stored, so that no number of them
// is too much for the queue. What ctx cuts off is left to close.
func (d *desk) emit(ctx context.Context, e cluster.Event) {
	ended := make(chan struct{})
	d.clus.EmitThen(e, func(bool) { close(ended) })
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// close sends what is still to be sent; the error is what could not be.
func (d *desk) close() error {
	d.clus.Close()
	if n := d.clus.EventsDropped(); n > 0 {
		return fmt.Errorf("%d events could not be stored", n)
	}
	return nil
}

// deskCommand makes a command of a function that works at the broker. bind makes
// the command's own flags, and check looks at them and the arguments.
type deskCommand struct {
	name, usage string
	bind        func(f *flagSet)
	check       func(args []string) error
	run         func(ctx context.Context, d *desk, std streams) (exit int, err error)
	endless     *bool // if set, --timeout does not bound the run; nil: never
}

func (c deskCommand) main(ctx context.Context, args []string, std streams) int {
	f := newFlagSet(c.name, c.usage)
	var b brokerFlags
	c.bind(f)
	b.bindTo(f)
	err := f.parse(args)
	if err == nil {
		err = c.check(f.Args())
	}
	if err = errors.Join(err, b.validate()); err != nil {
		return usageFault(std, f, err)
	}
	d, err := b.open(ctx, c.name, std.err)
	if err != nil {
		return fail(std.err, c.name, err)
	}
	if c.endless == nil || !*c.endless {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, b.timeout)
		defer cancel()
	}
	exit, err := c.run(ctx, d, std)
	if err = errors.Join(err, d.close()); err != nil {
		return fail(std.err, c.name, err)
	}
	return exit
}

func noArguments(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	return nil
}
