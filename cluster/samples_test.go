package cluster_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
)

func TestSamplesOfTheLastHourAndNewOnesReachEveryFollower(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t)
	at := time.Now().UTC().Truncate(cluster.SampleEvery)
	put := func(process string, at time.Time, delivered uint64) {
		t.Helper()
		s := cluster.Sample{Time: at, Process: process, Delivered: delivered, Latency: []uint64{0, delivered}}
		if err := c.PutSample(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	put("a.b *>", at, 1)
	put("other", at, 2)
	put("other", at, 3) // a repeat for the same time
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan cluster.Sample, 8)
	ended := make(chan error, 1)
	go func() {
		ended <- c.Samples(ctx, time.Now().Add(-cluster.SamplesKept), func(s cluster.Sample) { got <- s })
	}()
	want := func(process string, delivered uint64) cluster.Sample {
		t.Helper()
		select {
		case s := <-got:
			if s.Process != process || s.Delivered != delivered || !slices.Equal(s.Latency, []uint64{0, delivered}) {
				t.Errorf("got sample %+v, want of %q with %d delivered", s, process, delivered)
			}
			return s
		case <-time.After(time.Minute):
			t.Fatalf("no sample of %s", process)
			return cluster.Sample{}
		}
	}
	want("a.b *>", 1)
	want("other", 2)
	put("late", at.Add(-2*time.Hour), 4)
	if s := want("late", 4); time.Since(s.Time).Abs() > time.Minute {
		t.Errorf("a wrong clock: got time %s, want the broker's", s.Time)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("got %v, want nil", err)
	}
}
