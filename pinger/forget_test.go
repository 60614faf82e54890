package pinger

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
	"github.com/co2relay/co2relay/satellite/satellitetest"
)

func (s *site) gone(id registry.ID) bool {
	s.t.Helper()
	_, err := s.reg.LookupLeader(s.t.Context(), id)
	if err != nil && !errors.Is(err, registry.ErrUnknown) {
		s.t.Fatal(err)
	}
	return err != nil
}

func TestASatelliteThatStaysUnreachableIsForgotten(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	never := rarely()
	never.ForgetAfter = 0
	_, stop := s.start(never)
	down := satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Mode: satellitetest.Down}})
	id, other := s.register(down), s.register(satellitetest.Start(t, satellitetest.Options{}))
	since := s.pings(id, "it fails", failed(1)).FailingSince
	s.pings(other, "the other answers", answered(1))
	stop()

	soon := rarely()
	soon.ForgetAfter = time.Second
	s.start(soon) // the time goes on from where the former pinger left it
	eventually(t, "it is forgotten", func() bool { return s.gone(id) })
	e := s.event(id, cluster.EventDeregistered)
	if want := "unreachable since " + since.Format(time.RFC3339); !strings.Contains(e.Reason, want) || e.Generation == 0 || !strings.Contains(e.Reason, "nothing listens") {
		t.Errorf("event: got %+v, want reason %q with the last error", e, want)
	}
	if s.gone(other) {
		t.Error("the satellite that answers is gone, want it registered still")
	}
}

func TestASatelliteThatTakesMessagesIsNotForgotten(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	down := satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Mode: satellitetest.Down}})
	id := s.register(down)
	sat, err := s.reg.LookupLeader(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	took := registry.TrafficRecord{Partition: id.Partition(), Satellites: []registry.Traffic{
		{ID: id, Generation: sat.Generation, Received: 1, ReceivedAt: time.Now().Add(time.Hour)},
	}}
	eventually(t, "it is written that it took a message", func() bool {
		_, err := s.reg.SaveTraffic(t.Context(), took, 0)
		stored, _, readErr := s.reg.LoadTraffic(t.Context(), took.Partition)
		return err == nil || readErr == nil && len(stored.Satellites) == 1
	})
	soon := rarely()
	soon.ForgetAfter = time.Millisecond
	s.start(soon)
	s.pings(id, "it fails several times", failed(3))
	if s.gone(id) {
		t.Error("it is forgotten, want it to stay: it took a message")
	}
}

func TestTimeThatNobodySawDoesNotCount(t *testing.T) {
	t.Parallel()
	now := time.Now()
	p := &Pinger{cfg: Config{Interval: time.Minute, ForgetAfter: time.Hour}}
	for _, c := range []struct {
		name    string
		since   time.Duration
		failing uint32
		want    bool
	}{
		{"answers", 0, 0, false},
		{"not long enough", 59 * time.Minute, 60, false},
		{"long enough", time.Hour, 60, true},
		{"most of it seen", time.Hour, 30, true},
		{"the relay was off, or the clock was set", 1000 * time.Hour, 29, false},
	} {
		f := registry.Ping{Failing: c.failing}
		if c.failing > 0 {
			f.FailingSince = now.Add(-c.since)
		}
		if got := p.overdue(&target{fig: f}, now); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	p.cfg.ForgetAfter = 0
	if p.overdue(&target{fig: registry.Ping{Failing: 1 << 31, FailingSince: now.AddDate(-1, 0, 0)}}, now) {
		t.Error("with 0: got forgotten, want never")
	}
}
