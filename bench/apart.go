package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"time"
)

// testNet is the addresses of a network of bench's own. One address has no more
// than 65,535 ports, and every loopback address is one to the relay.
const testNet = "10.76.0.0/15"

// testIP is the address number i of testNet.
func testIP(i int) netip.Addr {
	ip := netip.MustParsePrefix(testNet).Addr().As4()
	n := int(ip[2])<<8 + i + 1
	return netip.AddrFrom4([4]byte{ip[0], ip[1] + byte(n>>16), byte(n >> 8), byte(n)})
}

// runApart measures in a process whose network is its own.
func runApart(ctx context.Context, o options, what string, answer any) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "apart", what, o.length.String(), o.binary, o.broker, o.admin)
	cmd.Stderr = os.Stderr
	if err := apart(cmd); err != nil {
		return err
	}
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("run with a network of its own (this needs user namespaces): %w", err)
	}
	return json.Unmarshal(out, answer)
}

func apartMain(args []string) error {
	if err := plumb(); err != nil {
		return err
	}
	length, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	o := options{length: length, binary: args[2], broker: args[3], admin: args[4]}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var answer any
	all := workloads()
	if i := slices.IndexFunc(all, func(w workload) bool { return w.Name == args[0] }); i >= 0 {
		answer, err = all[i].measure(ctx, o, all[i])
	} else {
		answer, err = runPlant(ctx, o, args[0])
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(answer)
}
