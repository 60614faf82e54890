package delivery

import (
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
	"github.com/co2relay/co2relay/registry"
	"github.com/co2relay/co2relay/satellite/satellitetest"
)

func TestEverySatelliteButTheSenderGetsEveryMessageInOrder(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.worker()
	fleet := satellitetest.StartFleet(t, 10, satellitetest.Options{NotifyPass: "p&lt;&amp;&gt;w", Keep: satellitetest.KeepBodies})
	var ids []registry.ID
	for _, s := range fleet {
		ids = append(ids, b.register(s, "p<&>w").ID)
	}
	b.publish(ids[0], 100)
	b.publish(ids[1], 50)
	b.wantAll(fleet[0], 50)
	b.wantAll(fleet[1], 100)
	for _, s := range fleet[2:] {
		b.wantAll(s, 150)
	}
	b.noRepeats(fleet...)
	body := fleet[2].Received()[0].Body
	contains(t, body, "<methodName>notify</methodName>")
	contains(t, body, "<name>host_id</name><value><string>"+string(ids[0])+"</string></value>")
	contains(t, body, "<name>notify_pass</name><value><string>p&lt;&amp;&gt;w</string>")
	total := uint64(50 + 100 + 8*150)
	b.balance(registry.Totals{Recipients: total, Delivered: total})
}

func TestASatelliteIsOwedWhatCameAfterItRegistered(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	first := satellitetest.Start(t, satellitetest.Options{})
	sender := b.registerAt(mustAddr("127.0.0.1:9"), "").ID
	b.register(first, "")
	b.publish(sender, 5) // before any worker runs
	second := satellitetest.Start(t, satellitetest.Options{})
	b.register(second, "")
	b.publish(sender, 7)
	b.worker()
	b.wantAll(first, 12)
	b.wantAll(second, 7)
	third := satellitetest.Start(t, satellitetest.Options{})
	b.register(third, "")
	b.publish(sender, 3)
	b.wantAll(third, 3)
	b.wantAll(first, 15)
}

func TestADeadSatelliteCatchesUpInOrderWhenItReturns(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	w, _ := b.worker()
	dead, alive := satellitetest.Start(t, satellitetest.Options{}), satellitetest.Start(t, satellitetest.Options{})
	dead.SetBehaviour(satellitetest.Behaviour{Mode: satellitetest.Down})
	sender := b.registerAt(mustAddr("127.0.0.1:9"), "").ID
	id := b.register(dead, "").ID
	b.register(alive, "")
	b.publish(sender, 600)
	b.wantAll(alive, 600)
	b.eventually("it costs one entry of a checkpoint", func() bool {
		records, err := b.clus.PartitionRecords(t.Context(), "delivery")
		if err != nil {
			t.Fatal(err)
		}
		lanes := 0
		for _, r := range records {
			c, err := decodeCheckpoint(r.State)
			if err != nil {
				t.Fatal(err)
			}
			lanes += len(c.lanes)
		}
		return lanes == 1
	})
	dead.SetBehaviour(satellitetest.Behaviour{})
	b.clus.Hint(id.Partition(), cluster.Hint{Kind: cluster.HintAlive, Satellite: string(id)})
	b.wantAll(dead, 600)
	b.noRepeats(dead, alive)
	if got := w.loops[0].met.repeats.Load() + w.loops[len(w.loops)-1].met.repeats.Load(); got != 0 {
		t.Errorf("counted %d repeats, want 0", got)
	}
}

func TestHangingSatellitesKeepNobodyFromCatchingUp(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.cfg.NotifyTimeout, b.cfg.Behind, b.cfg.Loops, b.cfg.RingBytes = time.Hour, 1, 1, 1
	hanging := satellitetest.StartFleet(t, 4, satellitetest.Options{Behaviour: satellitetest.Behaviour{Mode: satellitetest.Hang}})
	for _, s := range hanging {
		b.register(s, "")
	}
	well := satellitetest.Start(t, satellitetest.Options{})
	b.register(well, "")
	sender := b.registerAt(mustAddr("127.0.0.1:9"), "").ID
	b.publish(sender, 200) // before any worker runs, so that all are behind
	b.worker()
	b.wantAll(well, 200)
	b.noRepeats(well)
}

func TestEverySickSatelliteIsServedAsTheRuleSays(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name      string
		behaviour satellitetest.Behaviour
		refused   bool // else it is retried until it answers well
	}{
		{"fault", satellitetest.Behaviour{Mode: satellitetest.Fault}, true},
		{"redirect", satellitetest.Behaviour{Status: 302, Mode: satellitetest.Garbage}, true},
		{"not found", satellitetest.Behaviour{Status: 404, Mode: satellitetest.Garbage}, true},
		{"server error", satellitetest.Behaviour{Status: 500, Mode: satellitetest.Garbage}, false},
		{"busy", satellitetest.Behaviour{Status: 503, Mode: satellitetest.Garbage, RetryAfter: "0"}, false},
		{"truncated", satellitetest.Behaviour{Mode: satellitetest.Truncate}, false},
		{"no answer", satellitetest.Behaviour{Mode: satellitetest.Drop}, false},
		{"hanging", satellitetest.Behaviour{Mode: satellitetest.Hang}, false},
		{"refusing", satellitetest.Behaviour{Mode: satellitetest.Down}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			if c.behaviour.Mode == satellitetest.Hang {
				b.cfg.NotifyTimeout = 2 * time.Second
			}
			b.worker()
			sick, well := satellitetest.Start(t, satellitetest.Options{}), satellitetest.Start(t, satellitetest.Options{})
			sick.SetBehaviour(c.behaviour)
			sender := b.registerAt(mustAddr("127.0.0.1:9"), "").ID
			id := b.register(sick, "").ID
			b.register(well, "")
			b.publish(sender, 20)
			b.wantAll(well, 20)
			if c.refused {
				b.balance(registry.Totals{Recipients: 40, Delivered: 20, Refused: 20})
				return
			}
			b.eventually("its lane is parked", func() bool {
				f, err := b.reg.Figures(t.Context(), id)
				return err == nil && f.Traffic.State == registry.StateParked && f.Traffic.LastError != "" && f.Owed == 20
			})
			sick.SetBehaviour(satellitetest.Behaviour{})
			b.wantAll(sick, 20)
			b.balance(registry.Totals{Recipients: 40, Delivered: 40})
		})
	}
}

func TestOddButHonestSatellitesAreServed(t *testing.T) {
	t.Parallel()
	for name, behaviour := range map[string]satellitetest.Behaviour{
		"closes each connection":  {Close: true},
		"http 1.0 without length": {HTTP10: true, NoLength: true},
		"chunked":                 {Chunked: true},
		"line feeds only":         {LFOnly: true},
		"slow":                    {Delay: 20 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.worker()
			odd := satellitetest.Start(t, satellitetest.Options{Behaviour: behaviour})
			sender := b.registerAt(mustAddr("127.0.0.1:9"), "").ID
			b.register(odd, "")
			b.publish(sender, 40)
			b.wantAll(odd, 40)
			b.noRepeats(odd)
		})
	}
}

func TestAClosedIdleConnectionIsNoFailure(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	w, _ := b.worker()
	s := satellitetest.Start(t, satellitetest.Options{})
	sender := b.registerAt(mustAddr("127.0.0.1:9"), "").ID
	b.register(s, "")
	for i := range 20 {
		b.publish(sender, 1)
		b.wantAll(s, i+1)
		b.eventually("its answer has arrived", func() bool {
			delivered := uint64(0)
			for _, lp := range w.loops {
				delivered += lp.met.delivered.Load()
			}
			return delivered == uint64(i+1)
		})
		s.CloseConnections()
	}
	b.noRepeats(s)
	failed := map[string]uint64{}
	for _, lp := range w.loops {
		lp.met.failed.addTo(failed)
	}
	if len(failed) != 0 {
		t.Errorf("got failures %v, want none", failed)
	}
}

func TestAStoppedWorkerRepeatsNothing(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.cfg.stopPatience = time.Minute // all answer, however busy this machine is
	fleet := satellitetest.StartFleet(t, 20, satellitetest.Options{Behaviour: satellitetest.Behaviour{Delay: time.Millisecond}})
	sender := b.registerAt(mustAddr("127.0.0.1:9"), "").ID
	for _, s := range fleet {
		b.register(s, "")
	}
	const rounds, each = 4, 200
	for range rounds {
		_, stop := b.worker()
		b.publish(sender, each)
		stop()
	}
	b.worker()
	for _, s := range fleet {
		b.wantAll(s, rounds*each)
	}
	b.noRepeats(fleet...)
	total := uint64(len(fleet) * rounds * each)
	b.balance(registry.Totals{Recipients: total, Delivered: total})
}

func TestDeregisteringDropsWhatIsOwed(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.worker()
	dead := satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Mode: satellitetest.Down}})
	sender := b.registerAt(mustAddr("127.0.0.1:9"), "").ID
	id := b.register(dead, "").ID
	b.publish(sender, 30)
	b.balance(registry.Totals{Recipients: 30})
	if err := b.reg.Deregister(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	b.balance(registry.Totals{Recipients: 30, Dropped: 30})
	dead.SetBehaviour(satellitetest.Behaviour{})
	b.register(dead, "")
	b.publish(sender, 4)
	b.wantAll(dead, 4)
	b.balance(registry.Totals{Recipients: 34, Delivered: 4, Dropped: 30})
}

func TestAPurgedPartOfTheLogIsAGap(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.cfg.RingBytes, b.cfg.CacheBytes = 1, 1 // so that a lane behind has to read the log
	b.worker()
	s := satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Mode: satellitetest.Down}})
	sender := b.registerAt(mustAddr("127.0.0.1:9"), "").ID
	b.register(s, "")
	b.publish(sender, 2000)
	b.balance(registry.Totals{Recipients: 2000})
	last, err := b.clus.Log().Last(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.clus.Log().PurgeTo(t.Context(), last-9); err != nil {
		t.Fatal(err)
	}
	s.SetBehaviour(satellitetest.Behaviour{})
	b.eventually("the last message arrives", func() bool { return s.Stats().LastMsgID == last })
	got := s.Stats().Distinct // a block that was in memory already is no gap
	if got < 10 || got > 2*blockMessages {
		t.Errorf("got %d messages, want the last 10 and no more than a block before them", got)
	}
	b.wantAll(s, int(got))
	b.balance(registry.Totals{Recipients: 2000, Delivered: got, Expired: 2000 - got})
}

func TestSendCountsAreExactAfterRestarts(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	s := satellitetest.Start(t, satellitetest.Options{})
	id := b.register(s, "").ID
	other := b.registerAt(mustAddr("127.0.0.1:9"), "").ID
	for range 3 {
		_, stop := b.worker()
		b.publish(id, 20)
		b.publish(other, 10)
		stop()
		b.publish(id, 5) // while nobody delivers
	}
	b.worker()
	b.wantAll(s, 30)
	b.eventually("its figures are exact", func() bool {
		f, err := b.reg.Figures(t.Context(), id)
		return err == nil && f.Traffic.Sent == 75 && f.Traffic.Received == 30 && f.Traffic.Own == 75 && f.Owed == 0
	})
}

func TestAWorkerStopsSoonWithoutABroker(t *testing.T) {
	t.Parallel()
	srv := clustertest.StartServer(t, t.TempDir())
	b := newBedOn(t, clustertest.Connect(t, srv))
	_, stop := b.worker()
	s := satellitetest.Start(t, satellitetest.Options{})
	sender := b.registerAt(mustAddr("127.0.0.1:9"), "").ID
	b.register(s, "")
	b.publish(sender, 10)
	b.wantAll(s, 10)
	srv.Close()
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	select {
	case <-stopped:
	case <-time.After(time.Minute): // a try for each partition would take a quarter of an hour
		t.Error("the worker has not stopped within a minute")
	}
}
