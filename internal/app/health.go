package app

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const healthUsage = `Usage: co2relay health [flags]

Asks the process whose admin port is --admin whether it is ready. Exit code 0: it
is; 1: it is not, or does not answer. For the health checks of containers, which
have no shell.`

func healthCommand(ctx context.Context, args []string, std streams) int {
	admin, timeout := "127.0.0.1:2004", 5*time.Second
	f := newFlagSet("health", healthUsage)
	f.StringVar(&admin, "admin", admin, "admin address of the process")
	f.DurationVar(&timeout, "timeout", timeout, "time for its answer")
	if err := f.parse(args); err != nil {
		return usageFault(std, f, err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := askReady(ctx, admin, std.out); err != nil {
		fmt.Fprintln(std.err, "co2relay health:", err)
		return ExitError
	}
	return ExitOK
}

// askReady prints what /readyz says; an error is a process that is not ready.
func askReady(ctx context.Context, admin string, out io.Writer) error {
	host, port, err := net.SplitHostPort(admin)
	if err != nil {
		return fmt.Errorf("--admin: %q is not an address like 127.0.0.1:2004", admin)
	}
	if host == "" || host == "0.0.0.0" || host == "::" {
		host = "127.0.0.1"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return fmt.Errorf("no whole answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", strings.TrimSpace(string(body)))
	}
	fmt.Fprint(out, string(body))
	return nil
}
