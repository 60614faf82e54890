package cluster_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
)

func TestOnlyTheOwnerAnswersAQuestion(t *testing.T) {
	t.Parallel()
	s := clustertest.StartServer(t, t.TempDir())
	asker := clustertest.Connect(t, s)
	for _, name := range []string{"even", "odd"} {
		cancel, err := clustertest.Connect(t, s).OnAsk(func(_ context.Context, p int, q cluster.Question) (cluster.Answer, bool) {
			if (p%2 == 0) != (name == "even") {
				return cluster.Answer{}, false
			}
			a := cluster.Answer{Worker: name, Count: q.To, Position: uint64(p)}
			if p == 31 {
				a.Error = "it is not known"
			}
			return a, true
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cancel)
	}
	for p, want := range map[int]string{4: "even", 7: "odd"} {
		a, err := asker.Ask(testContext(t), p, cluster.Question{Kind: cluster.QuestionSkip, To: 1 << 60})
		if err != nil || a.Worker != want || a.Count != 1<<60 || a.Position != uint64(p) {
			t.Errorf("partition %d: got %+v, %v; want an answer of %s", p, a, err, want)
		}
	}
	if _, err := asker.Ask(testContext(t), 31, cluster.Question{}); err == nil || !strings.Contains(err.Error(), "it is not known") {
		t.Errorf("a question that cannot be done: got %v, want the owner's reason", err)
	}
}

func TestAQuestionWithoutAnOwnerSaysSo(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t)
	ctx, cancel := context.WithTimeout(testContext(t), 300*time.Millisecond)
	defer cancel()
	if _, err := c.Ask(ctx, 3, cluster.Question{Kind: cluster.QuestionSkip}); !errors.Is(err, cluster.ErrNoOwner) {
		t.Errorf("got %v, want ErrNoOwner", err)
	}
}

func TestPastEventsEndAtTheEnd(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t)
	if got, err := c.PastEvents(testContext(t), time.Now().Add(-time.Hour)); err != nil || got != nil {
		t.Errorf("no events: got %+v, %v; want none", got, err)
	}
	for _, generation := range []uint64{5, 6} { // two registrations of one id within a minute
		c.Emit(cluster.Event{Kind: cluster.EventDeregistered, Satellite: "127.0.0.1:2", Generation: generation})
	}
	var got []cluster.Event
	eventually(t, "both events", func() bool {
		var err error
		if got, err = c.PastEvents(testContext(t), time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
		return len(got) == 2
	})
	if got[0].Generation != 5 || got[1].Generation != 6 {
		t.Errorf("got %+v, want generations 5 and 6", got)
	}
	if later, err := c.PastEvents(testContext(t), time.Now().Add(time.Minute)); err != nil || later != nil {
		t.Errorf("events from the future: got %+v, %v; want none", later, err)
	}
}

func TestAnEventEmittedJustBeforeCloseIsStored(t *testing.T) {
	t.Parallel()
	s := clustertest.StartServer(t, t.TempDir())
	reader := clustertest.Connect(t, s)
	const n, slow = 20, 20
	want := map[uint64]bool{} // generations
	for generation := uint64(1); len(want) < n; generation++ {
		c := clustertest.Connect(t, s)
		c.Emit(cluster.Event{Kind: cluster.EventDeregistered, Satellite: "127.0.0.1:2", Generation: generation})
		start := time.Now()
		c.Close()
		switch took := time.Since(start); {
		case c.EventsDropped() == 0:
			want[generation] = true
		case took < time.Second: // which is how long Close tries
			t.Fatalf("dropped: got %d after %s, want 0", c.EventsDropped(), took)
		case generation >= n+slow:
			t.Fatalf("stored: got %d of %d events, want more", len(want), generation)
		}
	}
	got, err := reader.PastEvents(testContext(t), time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range got {
		delete(want, e.Generation)
	}
	if len(want) != 0 {
		t.Errorf("got %d events, want %d more", len(got), len(want))
	}
}

func TestTheBrokerTellsOfItsStreams(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t)
	s, err := c.Broker(testContext(t))
	if err != nil || s.Version == "" || len(s.Streams) < 7 || s.Streams[0].Name != "RELAY" || s.Streams[0].Replicas != 1 {
		t.Errorf("got %+v, %v; want a version and the streams, RELAY first", s, err)
	}
	if w, err := c.Workers(testContext(t)); err != nil || len(w) != 0 {
		t.Errorf("workers: got %+v, %v; want none", w, err)
	}
}
