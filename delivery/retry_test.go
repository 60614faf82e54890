package delivery

import (
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/internal/caller"
	"github.com/co2relay/co2relay/registry"
	"github.com/co2relay/co2relay/satellite/satellitetest"
)

func TestRetryAfterIsHonouredUntilTheSatelliteRegistersAgain(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	w, _ := b.worker()
	busy := satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Status: 503, Mode: satellitetest.Garbage, RetryAfter: "1800"}})
	sender := b.registerAt(mustAddr("127.0.0.1:9"), "").ID
	id := b.register(busy, "").ID
	b.publish(sender, 3)
	b.eventually("it waits as long as it asked for", func() bool {
		f, err := b.reg.Figures(t.Context(), id)
		return err == nil && f.Traffic.State == registry.StateParked && time.Until(f.Traffic.RetryAt) > 29*time.Minute
	})
	// A sign of life does not override what it asked for, and a registration that
	// this worker has not seen yet is not tried with the password of before.
	standing, _ := b.reg.Lookup(id)
	p := id.Partition()
	for _, hint := range []cluster.Hint{
		{Kind: cluster.HintAlive, Satellite: string(id)},
		{Kind: cluster.HintRegistered, Satellite: string(id), Revision: standing.Revision + 1},
	} {
		w.onHint(p, hint)
		lp := w.loopOf(p)
		waits := ask(lp, func() bool {
			part := lp.parts[p]
			return part == nil || part.lanes[id].state == parked // nil: its lease has lapsed
		})
		if !waits {
			t.Errorf("%+v has it called", hint)
		}
	}
	busy.SetBehaviour(satellitetest.Behaviour{})
	b.clus.Hint(p, cluster.Hint{Kind: cluster.HintRegistered, Satellite: string(id), Revision: standing.Revision})
	b.wantAll(busy, 3)
	if got := busy.Stats().Notifies; got != 4 {
		t.Errorf("got %d calls, want one that was answered 503 and three that were taken", got)
	}
}

func TestPausesGrowToACapWithFullJitter(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	cfg.RetryBase, cfg.RetryCap = time.Second, 30*time.Second
	lp := &loop{cfg: cfg, met: &loopMetrics{}, world: machine{}, emit: func(eventOf) {}}
	for tries, longest := range []time.Duration{1, 2, 4, 8, 16, 30, 30, 30} {
		longest *= time.Second
		var short, long int
		for range 200 {
			l := &lane{sat: &registry.Satellite{ID: "127.0.0.1:1"}, part: &partition{}, retryPos: -1, tries: uint32(tries)}
			lp.park(l, outcome{verdict: caller.Failed, reason: "timeout"})
			pause := time.Duration(l.retryAt - lp.now)
			if pause <= 0 || pause > longest {
				t.Fatalf("after %d failures: got a pause of %s, want at most %s", tries+1, pause, longest)
			}
			if pause < longest/2 {
				short++
			} else {
				long++
			}
		}
		if short < 50 || long < 50 {
			t.Errorf("after %d failures: got %d pauses in the lower half and %d in the upper, want them all over", tries+1, short, long)
		}
	}
}

// What the log's retention takes away is a gap that is told of in full.
func TestRetentionEndsObligationsAsAGap(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.cfg.RingBytes, b.cfg.CacheBytes = 1, 1
	_, stop := b.worker()
	s := satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Mode: satellitetest.Down}})
	sender := b.registerAt(mustAddr("127.0.0.1:9"), "").ID
	id := b.register(s, "").ID
	b.publish(sender, 100)
	b.balance(registry.Totals{Recipients: 100})
	stop() // so that nothing is in memory
	last := b.last()
	if err := b.clus.Log().PurgeTo(t.Context(), last-9); err != nil {
		t.Fatal(err)
	}
	s.SetBehaviour(satellitetest.Behaviour{})
	b.worker()
	b.wantAll(s, 10)
	b.balance(registry.Totals{Recipients: 100, Delivered: 10, Expired: 90})
	b.eventually("the gap's event", func() bool { return len(b.events(cluster.EventGap, id)) == 1 })
	e := b.events(cluster.EventGap, id)[0]
	if e.Reason != "log_retention" || e.Count != 90 || e.First != seqText(last-99) || e.Last != seqText(last-10) {
		t.Errorf("event: got %+v, want a gap of 90 from %d to %d", e, last-99, last-10)
	}
}
