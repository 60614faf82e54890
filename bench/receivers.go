package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/co2relay/co2relay/satellite/satellitetest"
)

// receiversMain is a process of satellites. It prints their addresses as one
// line of JSON and then answers each line of its input: "received" by how many
// notify calls came, "latency" by how long they took since the last such line,
// "pings" and "connections" by how many of them came.
func receiversMain(args []string) error {
	f := flag.NewFlagSet("receivers", flag.ContinueOnError)
	n := f.Int("n", 1, "")
	hanging := f.Int("hanging", 0, "")
	closing := f.Int("closing", 0, "")
	listen := f.String("listen", "127.0.0.1:0", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	lat := &latencies{}
	opts := satellitetest.Options{Listen: *listen, Keep: satellitetest.KeepNone, OnNotify: lat.notify}
	fleet, err := satellitetest.OpenFleet(*n, opts)
	// Connections of an earlier workload keep their ports for a minute.
	for end := time.Now().Add(70 * time.Second); errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(end); {
		time.Sleep(time.Second)
		fleet, err = satellitetest.OpenFleet(*n, opts)
	}
	if err != nil {
		return err
	}
	var addrs []string
	for i, s := range fleet {
		addrs = append(addrs, s.Addr().String())
		switch {
		case i >= *n-*hanging:
			s.SetNotify(satellitetest.Behaviour{Mode: satellitetest.Hang})
		case i >= *n-*hanging-*closing:
			s.SetNotify(satellitetest.Behaviour{Close: true})
		}
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(addrs); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var answer any
		switch in.Text() {
		case "received":
			answer = fleet.Stats().Notifies
		case "pings":
			answer = fleet.Stats().Pings
		case "connections":
			answer = fleet.Stats().Connections
		case "latency":
			answer = lat.take()
		case "down":
			fleet.SetBehaviour(satellitetest.Behaviour{Mode: satellitetest.Down})
		case "up":
			fleet.SetBehaviour(satellitetest.Behaviour{})
		}
		if err := out.Encode(answer); err != nil {
			return err
		}
	}
	return in.Err()
}

// latencies are the times from the "at=" of a message to its notify.
type latencies struct {
	mu  sync.Mutex
	all []time.Duration
}

const mostLatencies = 4 << 20

func (l *latencies) notify(_ uint64, body []byte) {
	_, rest, found := bytes.Cut(body, []byte(stampOpen))
	if !found || len(rest) < stampDigits {
		return
	}
	sent, err := strconv.ParseInt(string(rest[:stampDigits]), 10, 64)
	if err != nil {
		return
	}
	d := time.Duration(time.Now().UnixNano() - sent)
	l.mu.Lock()
	if len(l.all) < mostLatencies {
		l.all = append(l.all, d)
	}
	l.mu.Unlock()
}

// quantiles of a number of durations.
type quantiles struct {
	N              int
	P50, P99, P999 time.Duration
}

func quantilesOf(all []time.Duration) quantiles {
	if len(all) == 0 {
		return quantiles{}
	}
	slices.Sort(all)
	at := func(q float64) time.Duration { return all[min(len(all)-1, int(q*float64(len(all))))] }
	return quantiles{len(all), at(0.5), at(0.99), at(0.999)}
}

func (l *latencies) take() quantiles {
	l.mu.Lock()
	all := l.all
	l.all = nil
	l.mu.Unlock()
	return quantilesOf(all)
}
