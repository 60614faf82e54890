// Package app puts the roles together: configuration, start, drain and stop.
// It is the only place that reads flags and the environment.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// command is one word after co2relay.
type command struct {
	name, does string
	run        func(ctx context.Context, args []string, std streams) int
}

// streams are a command's standard input, output and error.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

func commands() []command {
	return []command{
		{"serve", "run the whole relay in this process, the broker included", roleCommand("serve", serveUsage, "2004", allRoles)},
		{"frontend", "take the calls of satellites and browsers, for a NATS cluster", roleCommand("frontend", frontendUsage, "2004", roleFrontend)},
		{"delivery", "call the satellites, for a NATS cluster", roleCommand("delivery", deliveryUsage, "2005", roleDelivery)},
		{"pinger", "ping the satellites, for a NATS cluster", roleCommand("pinger", pingerUsage, "2006", rolePinger)},
		{"setup", "make the streams of a NATS cluster, and set its limits", setupCommand},
		{"health", "ask whether a process is ready", healthCommand},
		{"top", "show live, in the terminal, what the relay does", topCommand},
		{"status", "show how the relay is; with --check, whether its accounts balance", statusCommand},
		{"satellites", "list the registered satellites", satellitesCommand},
		{"explain", "say why a message has or has not reached a satellite", explainCommand},
		{"events", "show what happened to satellites and workers", eventsCommand},
		{"kick", "deregister a satellite", kickCommand},
		{"skip", "give up what a satellite is owed", skipCommand},
		{"dump", "write the registrations to an XML file", dumpCommand},
		{"restore", "register the satellites of such a file", restoreCommand},
		{"satellite", "be a satellite: print each notification, relay each line of standard input", toolCommand(SatelliteCommand)},
		{"send", "relay one message", toolCommand(SendCommand)},
		{"check", "find out whether a relay can be reached and can call back", toolCommand(CheckCommand)},
		{"completion", "print a script for bash, zsh or fish", completionCommand},
		{"version", "print the version", versionCommand},
	}
}

// Main runs the command that args name and returns the process's exit code.
func Main(ctx context.Context, args []string, in io.Reader, out, stderr io.Writer) int {
	std := streams{in, out, stderr}
	if len(args) == 0 {
		printUsage(stderr)
		return ExitUsage
	}
	switch args[0] {
	case "help", "--help", "-h":
		if len(args) < 2 {
			printUsage(out)
			return ExitOK
		}
		args = []string{args[1], "--help"}
	case "--version":
		args = []string{"version"}
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(ctx, args[1:], std)
		}
	}
	fmt.Fprintf(stderr, "co2relay: there is no command %q; 'co2relay help' lists them\n", args[0])
	return ExitUsage
}

func printUsage(w io.Writer) {
	fmt.Fprint(w, "co2relay passes what one satellite says on to all others, over XML-RPC.\n\nUsage: co2relay COMMAND [flags]\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.does)
	}
	fmt.Fprint(w, "\n'co2relay COMMAND --help' shows a command's flags. A first relay: co2relay serve\n"+
		"Exit codes: 0 done, 1 failed, 2 wrong use.\n")
}

func toolCommand(f func(context.Context, []string, io.Reader, io.Writer, io.Writer) int) func(context.Context, []string, streams) int {
	return func(ctx context.Context, args []string, std streams) int {
		return f(ctx, args, std.in, std.out, std.err)
	}
}

func versionCommand(_ context.Context, _ []string, std streams) int {
	fmt.Fprintln(std.out, "co2relay", Version())
	return ExitOK
}

// usageFault reports what is wrong with a command line, everything at once.
func usageFault(std streams, f *flagSet, err error) int {
	if errors.Is(err, pflag.ErrHelp) {
		f.printHelp(std.out)
		return ExitOK
	}
	for _, line := range strings.Split(err.Error(), "\n") {
		fmt.Fprintf(std.err, "co2relay %s: %s\n", f.Name(), line)
	}
	fmt.Fprintf(std.err, "'co2relay %s --help' shows every flag.\n", f.Name())
	return ExitUsage
}
