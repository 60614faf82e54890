package main

import (
	"context"
	"syscall"
	"time"
)

// measureRegistered measures what registrations cost when nothing happens, and
// how soon a killed relay serves again. The satellites answer their pings.
func measureRegistered(ctx context.Context, o options, w workload) (r result, err error) {
	f, err := openWide(ctx, w.Satellites)
	if err != nil {
		return r, err
	}
	defer f.close()
	p, err := startRelay(ctx, o, "--max-sats", "200000", "--ping-interval", "24h")
	if err != nil {
		return r, err
	}
	defer p.stop()
	empty, err := p.resident()
	if err != nil {
		return r, err
	}
	progress("%s: registering %d", w.Name, w.Satellites)
	if _, err := registerAll(p.addr, f.addrs); err != nil {
		return r, err
	}
	progress("%s: killing and restarting the relay", w.Name)
	if err := p.end(syscall.SIGKILL); err != nil {
		return r, err
	}
	if r.Ready, err = p.start(ctx); err != nil {
		return r, err
	}
	await(10 * time.Second) // until it has come to rest
	full, err := p.resident()
	r.Memory = float64(full-empty) / float64(w.Satellites)
	return r, err
}
