package main

import (
	"context"
	"time"
)

// measureCatchUp lets one satellite miss 100,000 messages and return. Its floor
// is one connection's: the bare loop to one receiver.
func measureCatchUp(ctx context.Context, o options, w workload) (r result, err error) {
	const messages = 100_000
	f, err := openFleet(ctx, w)
	if err != nil {
		return r, err
	}
	defer f.close()
	progress("%s: floor", w.Name)
	floor, err := runFloor(ctx, f.addrs, w, o.length)
	if err != nil {
		return r, err
	}
	p, err := startRelay(ctx, o, "--ping-interval", "1s")
	if err != nil {
		return r, err
	}
	defer p.stop()
	c, err := dialRelay(p.addr, "")
	if err != nil {
		return r, err
	}
	defer c.conn.Close()
	if _, err := register(c, portOf(f.addrs[0])); err != nil {
		return r, err
	}
	from, err := register(c, "9") // the discard port: a sender that nobody can call
	if err != nil {
		return r, err
	}
	if err := f.set("down"); err != nil {
		return r, err
	}
	base, err := f.received()
	if err != nil {
		return r, err
	}
	progress("%s: %d messages while it is down", w.Name, messages)
	l := startLoad(ctx, p.addr, []string{from}, w, func(sent uint64) bool { return sent < messages })
	for l.accepted.Load() < messages && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	if err := l.end(); err != nil {
		return r, err
	}
	progress("%s: catching up", w.Name)
	if err := f.set("up"); err != nil {
		return r, err
	}
	if err := f.waitReceived(ctx, base+1, time.Minute); err != nil {
		return r, err
	}
	began := time.Now()
	first, err := f.received()
	if err != nil {
		return r, err
	}
	c0, err := p.cpu()
	if err != nil {
		return r, err
	}
	if err := f.waitReceived(ctx, base+messages, 5*time.Minute); err != nil {
		return r, err
	}
	n := float64(base + messages - first)
	c1, err := p.cpu()
	r.Deliveries, r.CPU = n/time.Since(began).Seconds(), float64((c1-c0).Microseconds())/n
	r.FloorRate, r.FloorCPU = floor.Rate, floor.CPU
	return r, err
}
