package app

import (
	"context"
	"errors"
	"fmt"
)

const serveUsage = `Usage: co2relay serve [flags]

Runs the whole relay in this process, the broker included. Satellites call it by
XML-RPC, browsers find its pages, both on --listen. Everything that must survive
is in --data. With --nats it uses the broker of others instead. SIGTERM ends it
in good order.`

const frontendUsage = `Usage: co2relay frontend --nats URL,... [flags]

Takes the calls of satellites and browsers. It keeps nothing, so any number of
frontends may stand behind a load balancer (see --trusted-proxies).`

const deliveryUsage = `Usage: co2relay delivery --nats URL,... [flags]

Calls the satellites. Any number of these workers share the satellites out among
themselves; what one leaves, by stopping or by dying, the others take over.`

const pingerUsage = `Usage: co2relay pinger --nats URL,... [flags]

Pings the satellites. Any number of pingers share them out among themselves.`

// roleCommand runs a process with the given roles. Roles that may run beside
// each other on one machine have different admin ports.
func roleCommand(name, usage, adminPort string, has roles) func(context.Context, []string, streams) int {
	return func(ctx context.Context, args []string, std streams) int {
		cfg := DefaultConfig()
		cfg.roles, cfg.Admin = has, "127.0.0.1:"+adminPort
		f := newFlagSet(name, usage)
		cfg.bind(f)
		err := f.parse(args)
		if err == nil && f.NArg() > 0 {
			err = fmt.Errorf("unexpected argument %q", f.Arg(0))
		}
		if err = errors.Join(err, cfg.Validate()); err != nil {
			return usageFault(std, f, err)
		}
		log := cfg.logger(std.err)
		paceGC()
		if err := Serve(ctx, cfg, log, nil); err != nil {
			log.Error("stopped", "error", err)
			return ExitError
		}
		return ExitOK
	}
}
