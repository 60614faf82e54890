package app

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/co2relay/co2relay/satellite"
)

// toolFlags are the flags that make the tools a satellite.
type toolFlags struct {
	relay        string
	bind         string
	port         int
	forwarded    int
	nick         string
	registerPass string
	logLevel     string
}

func (t *toolFlags) bindTo(f *flagSet, logLevel string) {
	f.StringVar(&t.relay, "relay", "http://127.0.0.1:2003", "the relay's URL")
	f.StringVar(&t.bind, "bind", "", "address to listen on for the relay's calls; empty: all")
	f.IntVar(&t.port, "port", 0, "port to listen on for the relay's calls; 0: a free one")
	f.IntVar(&t.forwarded, "forwarded-port", 0, "port to register, if the relay reaches --port under another number; 0: --port")
	f.StringVar(&t.nick, "nick", "", "name that the relay shows; empty: the host id")
	f.StringVar(&t.registerPass, "register-pass", "", "secret that the relay's operator set for registering (better given as CO2_REGISTER_PASS: other users see arguments)")
	f.StringVar(&t.logLevel, "log-level", logLevel, "what is told on standard error: trace, debug, info, warn, error or off")
}

func (t *toolFlags) validate() error {
	var errs []error
	if _, err := satellite.NewClient(t.relay); err != nil {
		errs = append(errs, fmt.Errorf("--relay: %w", err))
	}
	for name, port := range map[string]int{"--port": t.port, "--forwarded-port": t.forwarded} {
		if port < 0 || port > 65535 {
			errs = append(errs, fmt.Errorf("%s: %d is not within 0 to 65535", name, port))
		}
	}
	if t.bind != "" && net.ParseIP(t.bind) == nil {
		errs = append(errs, fmt.Errorf("--bind: %q is not an IP address", t.bind))
	}
	if hclog.LevelFromString(t.logLevel) == hclog.NoLevel {
		errs = append(errs, fmt.Errorf("--log-level: %q is not one of trace, debug, info, warn, error, off", t.logLevel))
	}
	return errors.Join(errs...)
}

// config is the satellite that the flags describe.
func (t *toolFlags) config(stderr io.Writer) satellite.Config {
	return satellite.Config{
		Relay:        t.relay,
		Listen:       net.JoinHostPort(t.bind, strconv.Itoa(t.port)),
		Port:         t.forwarded,
		Nick:         t.nick,
		RegisterPass: t.registerPass,
		Logger: hclog.New(&hclog.LoggerOptions{
			Name: "satellite", Level: hclog.LevelFromString(t.logLevel), Output: stderr, TimeFormat: time.RFC3339,
		}),
	}
}

// fail reports why a tool gives up.
func fail(stderr io.Writer, name string, err error) int {
	fmt.Fprintf(stderr, "co2relay %s: %v\n", name, err)
	return ExitError
}
