package main

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/co2relay/co2relay/internal/freeport"
)

// relayProcess is a running relay: `co2relay serve`, or the original's design.
type relayProcess struct {
	*process
	addr string
	dir  string
	run  func(ctx context.Context) (*process, error)
}

func startRelay(ctx context.Context, o options, args ...string) (*relayProcess, error) {
	dir, err := os.MkdirTemp("", "co2bench-data")
	if err != nil {
		return nil, err
	}
	addr, err := freeport.FindAddr()
	if err != nil {
		return nil, err
	}
	admin := o.admin
	if admin == "" {
		if admin, err = freeport.FindAddr(); err != nil {
			return nil, err
		}
	}
	args = append([]string{"serve", "--listen", addr, "--admin", admin, "--data", dir, "--log-level", "warn", "--max-conns-per-addr", "10000"}, args...)
	p := &relayProcess{addr: addr, dir: dir, run: func(ctx context.Context) (*process, error) {
		return startProcess(ctx, admin, o.binary, args...)
	}}
	if _, err := p.start(ctx); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return p, nil
}

// start starts the process and returns how long it took until its port opened,
// which it does when it is ready to serve.
func (p *relayProcess) start(ctx context.Context) (took time.Duration, err error) {
	began := time.Now()
	if p.process, err = p.run(ctx); err != nil {
		return 0, err
	}
	if _, err := waitOpen(p.addr); err != nil {
		return 0, errors.Join(err, p.end(syscall.SIGKILL))
	}
	return time.Since(began), nil
}

func (p *relayProcess) stop() {
	_ = p.end(syscall.SIGTERM)
	os.RemoveAll(p.dir)
}
