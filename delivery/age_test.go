package delivery

import (
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
	"github.com/co2relay/co2relay/satellite/satellitetest"
)

// Issue: what ends an obligation. A satellite's own max_age does, and it shows.
func TestMaxAgeEndsObligationsAsAGap(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.cfg.RetryCap = 50 * time.Millisecond
	b.worker()
	s := satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Mode: satellitetest.Down}})
	sender := b.registerAt(mustAddr("127.0.0.1:9"), "").ID
	const age = 5 * time.Second
	sat, _, err := b.reg.Register(t.Context(), registry.Registration{Addr: s.Addr(), MaxAge: age})
	if err != nil {
		t.Fatal(err)
	}
	b.publish(sender, 20)
	first, last := b.last()-19, b.last()
	b.balance(registry.Totals{Recipients: 20, Expired: 20}) // it goes while the satellite is down
	b.eventually("the gap's event", func() bool { return len(b.events(cluster.EventGap, sat.ID)) == 1 })
	e := b.events(cluster.EventGap, sat.ID)[0]
	if e.Reason != "max_age" || e.First != seqText(first) {
		t.Errorf("event: got %+v, want reason max_age from %d", e, first)
	}
	if e.Count == 20 && e.Last != seqText(last) {
		t.Errorf("event: got %+v, want last %d", e, last)
	}
	if got := s.Stats().Distinct; got != 0 {
		t.Errorf("got %d messages, want none", got)
	}
	// What follows may take longer than that.
	again, _, err := b.reg.Register(t.Context(), registry.Registration{Addr: s.Addr(), MaxAge: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.reg.WaitRevision(t.Context(), again.Revision); err != nil {
		t.Fatal(err)
	}
	s.SetBehaviour(satellitetest.Behaviour{})
	b.publish(sender, 3)
	b.wantAll(s, 3)
	b.balance(registry.Totals{Recipients: 23, Delivered: 3, Expired: 20})
}
