package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// perProcess keeps a process of receivers below the limit of descriptors: each
// satellite has a listener and a connection.
const perProcess = 4000

// fleet is all receivers, in as many processes as they need.
type fleet struct {
	mu      sync.Mutex // one question at a time
	procs   []*receivers
	addrs   []string
	healthy []string // those of addrs that answer
}

type receivers struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func openFleet(ctx context.Context, w workload) (*fleet, error) {
	f := &fleet{}
	for left := w.Satellites; left > 0; {
		n := min(left, perProcess)
		left -= n
		hanging, closing := int(w.Hanging*float64(n)), int(w.Closing*float64(n))
		addrs, err := f.add(ctx, "-n", strconv.Itoa(n), "-hanging", strconv.Itoa(hanging), "-closing", strconv.Itoa(closing))
		if err != nil {
			f.close()
			return nil, err
		}
		f.addrs, f.healthy = append(f.addrs, addrs...), append(f.healthy, addrs[:n-hanging]...)
	}
	return f, nil
}

// How a wide fleet is laid out.
const (
	widePerProcess = 12_000 // satellites, with a connection each
	wideIPs        = 250
	leastPorts     = 8
)

// openWide simulates any number of satellites in a network of our own: every
// port of a process is as many satellites as there are addresses.
func openWide(ctx context.Context, satellites int) (*fleet, error) {
	f := &fleet{}
	procs := (satellites + widePerProcess - 1) / widePerProcess
	each := max(leastPorts, (satellites+wideIPs-1)/wideIPs/procs+1)
	var ports []string
	for range procs {
		addrs, err := f.add(ctx, "-n", strconv.Itoa(each), "-listen", "0.0.0.0:0")
		if err != nil {
			f.close()
			return nil, err
		}
		for _, a := range addrs {
			ports = append(ports, portOf(a))
		}
	}
	for i := range satellites {
		f.addrs = append(f.addrs, testIP(i/len(ports)).String()+":"+ports[i%len(ports)])
	}
	f.healthy = f.addrs
	return f, nil
}

// add starts a process of receivers and returns where they listen.
func (f *fleet) add(ctx context.Context, args ...string) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{"receivers"}, args...)...)
	cmd.Stderr = os.Stderr
	endWithParent(cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &receivers{cmd: cmd, in: in, out: json.NewDecoder(out)}
	f.procs = append(f.procs, r)
	var addrs []string
	if err := r.out.Decode(&addrs); err != nil {
		return nil, fmt.Errorf("start receivers: %w", err)
	}
	return addrs, nil
}

// ask sends a line to every process of receivers and hands each answer to take.
func (f *fleet) ask(line string, answer any, take func()) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.procs {
		if _, err := io.WriteString(r.in, line+"\n"); err != nil {
			return err
		}
		if err := r.out.Decode(answer); err != nil {
			return err
		}
		take()
	}
	return nil
}

func (f *fleet) received() (uint64, error) { return f.sum("received") }

func (f *fleet) sum(what string) (total uint64, err error) {
	var n uint64
	err = f.ask(what, &n, func() { total += n })
	return total, err
}

// latency is the slowest process's, since quantiles can't be added.
func (f *fleet) latency() (worst quantiles, err error) {
	var q quantiles
	err = f.ask("latency", &q, func() {
		if q.P99 >= worst.P99 {
			worst = q
		}
	})
	return worst, err
}

func (f *fleet) processes() (all []*process) {
	for _, r := range f.procs {
		all = append(all, &process{cmd: r.cmd})
	}
	return all
}

func (f *fleet) set(what string) error {
	var nothing any
	return f.ask(what, &nothing, func() {})
}

func (f *fleet) close() {
	for _, r := range f.procs {
		r.in.Close()
		_ = r.cmd.Wait()
	}
}

// waitReceived waits until so many notify calls have come.
func (f *fleet) waitReceived(ctx context.Context, want uint64, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		got, err := f.received()
		if err != nil || got >= want {
			return err
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return errors.Join(ctx.Err(), fmt.Errorf("%d of %d notify calls within %s", got, want, patience))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func portOf(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
