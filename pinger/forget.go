package pinger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
)

const forgetTimeout = 5 * time.Second

// overdue tells whether a satellite has failed all its pings for --forget-after.
//
// Time on the clock alone does not count: while the relay was off nobody could
// see whether the satellite was there, and a clock may be set. So at least half
// of the pings of that time must have been made. The caller holds mu.
func (p *Pinger) overdue(t *target, now time.Time) bool {
	f := &t.fig
	if p.cfg.ForgetAfter <= 0 || f.Failing == 0 || f.FailingSince.IsZero() || now.Sub(f.FailingSince) < p.cfg.ForgetAfter {
		return false
	}
	return time.Duration(f.Failing) >= p.cfg.ForgetAfter/2/p.cfg.Interval
}

// forget deregisters a satellite that is overdue, unless it took a message since
// its pings began to fail: then the time counts from there. Only this
// generation ends: if it registers anew meanwhile, that stands.
func (p *Pinger) forget(t *target, sat *registry.Satellite, since time.Time, last string) {
	ctx, cancel := context.WithTimeout(t.part.ctx, forgetTimeout)
	defer cancel()
	figures, err := p.reg.Figures(ctx, sat.ID)
	if err == nil {
		if got := figures.Traffic.ReceivedAt; got.After(since) {
			since = got
		}
		if time.Since(since) < p.cfg.ForgetAfter || !p.member.Alive() {
			return
		}
		err = p.reg.DeregisterGeneration(ctx, sat.ID, sat.Generation)
	}
	switch {
	case errors.Is(err, registry.ErrUnknown):
		return
	case err != nil:
		if t.part.ctx.Err() == nil {
			p.log.Warn("forgetting a satellite failed, trying again after the next ping", "satellite", string(sat.ID), "error", err)
		}
		return
	}
	p.log.Info("satellite is forgotten", "satellite", string(sat.ID), "unreachable_since", since.UTC().Format(time.RFC3339))
	p.clus.Emit(cluster.Event{
		Kind: cluster.EventDeregistered, Satellite: string(sat.ID), Nick: sat.Nick, Worker: p.member.ID(),
		Partition: sat.ID.Partition(), Generation: sat.Generation,
		Reason: fmt.Sprintf("unreachable since %s, longer than --forget-after %s: %s", since.UTC().Format(time.RFC3339), p.cfg.ForgetAfter, last),
	})
}
