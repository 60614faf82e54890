package app

import (
	"context"
	"errors"
	"fmt"
)

const setupUsage = `Usage: co2relay setup --nats URL,... [flags]

Makes the streams of the relay in a NATS cluster where they are missing, sets
--max-sats if it is given, prints what is in force, and ends. It waits for the
cluster. frontend, delivery and pinger make streams as well if their users may;
where each has the least rights, run this before.`

func setupCommand(ctx context.Context, args []string, std streams) int {
	cfg := DefaultConfig()
	cfg.roles, cfg.Admin = 0, ""
	f := newFlagSet("setup", setupUsage)
	cfg.bind(f)
	err := f.parse(args)
	if err == nil && f.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if err = errors.Join(err, cfg.Validate()); err != nil {
		return usageFault(std, f, err)
	}
	cfg.Admin = ""
	r := &relay{cfg: cfg, log: cfg.logger(std.err)}
	err = r.openBroker(ctx)
	if r.clus != nil {
		defer r.clus.Close()
	}
	if err != nil {
		return fail(std.err, "setup", err)
	}
	fmt.Fprintf(std.out, "streams are ready: %d satellites at most, messages are kept %s and up to %d bytes, %d replicas\n",
		r.layout.MaxSats, r.layout.Retention, r.layout.RetentionBytes, r.layout.Replicas)
	return ExitOK
}
