package main

import (
	"context"
	_ "embed"
	"os"
	"os/exec"

	"github.com/co2relay/co2relay/internal/freeport"
)

//go:embed original.py
var originalProgram string

// startOriginal runs the original's design on the same machine and work.
func startOriginal(ctx context.Context, _ options, _ ...string) (*relayProcess, error) {
	dir, err := os.MkdirTemp("", "co2bench-original")
	if err != nil {
		return nil, err
	}
	addr, err := freeport.FindAddr()
	if err != nil {
		return nil, err
	}
	p := &relayProcess{addr: addr, dir: dir, run: func(ctx context.Context) (*process, error) {
		return startProcess(ctx, "", "python3", "-c", originalProgram, addr)
	}}
	if _, err := p.start(ctx); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return p, nil
}

// hasPython says whether the original's design can run here.
func hasPython() bool {
	_, err := exec.LookPath("python3")
	return err == nil
}
