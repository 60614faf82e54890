package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	settleTime    = time.Second // for connections and caches, before anything is measured
	fewestSamples = 2           // messages in a measurement of latency
	calm          = 300 * time.Millisecond
)

// measureFanOut runs the floor, the relay, and the floor again, since a machine
// shared with others drifts. The floor calls only those who answer.
func measureFanOut(ctx context.Context, o options, w workload) (r result, err error) {
	f, err := openFleet(ctx, w)
	if err != nil {
		return r, err
	}
	defer f.close()
	progress("%s: floor", w.Name)
	before, err := runFloor(ctx, f.healthy, w, o.length/2)
	if err != nil {
		return r, err
	}
	progress("%s: relay", w.Name)
	if r, err = fanOut(ctx, o, f, w); err != nil {
		return r, err
	}
	progress("%s: floor again", w.Name)
	after, err := runFloor(ctx, f.healthy, w, o.length/2)
	r.FloorRate, r.FloorCPU = (before.Rate+after.Rate)/2, (before.CPU+after.CPU)/2
	return r, err
}

// fanOut measures while senders keep the relay as busy as it can be without
// letting its backlog grow, and then the latency at half of that rate; or both
// at the workload's rate.
func fanOut(ctx context.Context, o options, f *fleet, w workload) (r result, err error) {
	p, err := w.start(ctx, o)
	if err != nil {
		return r, err
	}
	defer p.stop()
	ids, err := registerAll(p.addr, f.addrs)
	if err != nil {
		return r, fmt.Errorf("register: %w", err)
	}
	base, err := f.received()
	if err != nil {
		return r, err
	}
	var got atomic.Uint64
	watch, stopWatch := context.WithCancel(ctx)
	watched := make(chan error, 1)
	go func() { watched <- f.watch(watch, base, &got) }()
	err = fanOutBoth(ctx, o, f, w, p, ids, &got, &r)
	stopWatch()
	return r, errors.Join(err, <-watched)
}

func fanOutBoth(ctx context.Context, o options, f *fleet, w workload, p *relayProcess, ids []string, got *atomic.Uint64, r *result) error {
	length := o.length
	if p.admin == "" && w.Hanging > 0 {
		length = max(length, 12*time.Second) // the original's design needs as long for a single message
	}
	l := startLoad(ctx, p.addr, ids, w, w.pace(got))
	time.Sleep(settleTime)
	err := p.sample(f, l, got, r, length)
	if err := errors.Join(err, l.end()); err != nil || w.Rate > 0 {
		return err
	}
	w.Rate = r.Deliveries / 2
	if w.Rate*length.Seconds() < fewestSamples*w.receivers() {
		return nil
	}
	progress("%s: latency at %.0f deliveries/s", w.Name, w.Rate)
	drain(ctx, got)
	l = startLoad(ctx, p.addr, ids, w, w.pace(got))
	time.Sleep(settleTime)
	var half result
	err = p.sample(f, l, got, &half, length)
	r.P50, r.P99, r.P999 = half.P50, half.P99, half.P999
	return errors.Join(err, l.end())
}

// watch keeps got up to date: how many notify calls came since base.
func (f *fleet) watch(ctx context.Context, base uint64, got *atomic.Uint64) error {
	for ctx.Err() == nil {
		n, err := f.received()
		if err != nil {
			return err
		}
		got.Store(n - base)
		time.Sleep(2 * time.Millisecond)
	}
	return nil
}

// drain waits until what was accepted is delivered.
func drain(ctx context.Context, got *atomic.Uint64) {
	for last, since := got.Load(), time.Now(); time.Since(since) < calm && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		if n := got.Load(); n != last {
			last, since = n, time.Now()
		}
	}
}

// receivers are how many satellites get a message and answer.
func (w workload) receivers() float64 { return float64(w.Satellites)*(1-w.Hanging) - 1 }

// pace lets senders go on while few messages wait for each satellite, or as
// the rate says.
func (w workload) pace(got *atomic.Uint64) func(uint64) bool {
	receivers := w.receivers()
	if w.Rate > 0 {
		began := time.Now()
		return func(sent uint64) bool { return float64(sent)*receivers < w.Rate*time.Since(began).Seconds() }
	}
	ahead := max(min(32*receivers, 200_000), 2*receivers, 2000)
	return func(sent uint64) bool { return float64(sent)*receivers < float64(got.Load())+ahead }
}

// sample measures what the relay does and uses during length.
func (p *relayProcess) sample(f *fleet, l *load, got *atomic.Uint64, r *result, length time.Duration) error {
	if _, err := f.latency(); err != nil { // forget those of the beginning
		return err
	}
	l.takeTimes()
	n0, a0, began := got.Load(), l.accepted.Load(), time.Now()
	before, err := p.meter()
	if err != nil {
		return err
	}
	alone, err := p.usage(f)
	if err != nil {
		return err
	}
	await(length)
	n, a, took := float64(got.Load()-n0), float64(l.accepted.Load()-a0), time.Since(began).Seconds()
	after, err := p.meter()
	if err != nil {
		return err
	}
	shared, err := p.usage(f)
	if err != nil {
		return err
	}
	if n == 0 || a == 0 {
		return errors.New("nothing was delivered")
	}
	used, times := after.since(before), l.takeTimes()
	r.Deliveries, r.CPU, r.Allocations = n/took, float64(used.cpu.Microseconds())/n, used.mallocs/n
	r.Others = shared.othersSince(alone)
	r.Accepted, r.AcceptP50, r.AcceptP99 = a/took, times.P50, times.P99
	r.Written = float64(used.written) / a
	q, err := f.latency()
	if l.paced {
		r.P50, r.P99, r.P999 = q.P50, q.P99, q.P999
	}
	return err
}
