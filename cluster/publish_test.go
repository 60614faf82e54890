package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
)

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// logged reads the whole log from first on. A node of several may lag behind, and answer that there is nothing more.
func logged(t testing.TB, c *cluster.Cluster, first uint64) []cluster.Entry {
	t.Helper()
	var all []cluster.Entry
	for next := first; ; {
		var entries []cluster.Entry
		var after uint64
		eventually(t, "an answer from the log", func() (answered bool) {
			var err error
			var last uint64
			if entries, after, err = c.Log().Read(testContext(t), next, 500, 0); err == nil && len(entries) == 0 {
				last, err = c.Log().Last(testContext(t))
			}
			if err != nil {
				t.Logf("read log, trying again: %v", err) // as Read asks its callers to: the connection may have broken
			}
			return err == nil && (len(entries) > 0 || next > last)
		})
		if len(entries) == 0 {
			return all
		}
		all, next = append(all, entries...), after
	}
}

func startOf(t testing.TB, c *cluster.Cluster) uint64 {
	t.Helper()
	last, err := c.Log().Last(testContext(t))
	if err != nil {
		t.Fatalf("ask for the log's end: %v", err)
	}
	return last + 1
}

// bodies counts how often each body is in the log.
func bodies(entries []cluster.Entry) map[string]int {
	count := map[string]int{}
	for _, e := range entries {
		count[string(e.Body)]++
	}
	return count
}

func TestConcurrentPublishesAreEachLoggedOnceAndInTheirSendersOrder(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t)
	ctx, first := testContext(t), startOf(t, c)
	const senders, each = 40, 50
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				m := cluster.Message{Sender: strconv.Itoa(s), Body: fmt.Sprintf("%d", i)}
				if i%10 == 9 {
					m.DedupID = m.Body
				}
				if err := c.Log().Publish(ctx, m); err != nil {
					t.Errorf("publish: %v", err)
				}
			}
		})
	}
	wg.Wait()
	next := map[string]int{}
	entries := logged(t, c, first)
	for i, e := range entries {
		if want := first + uint64(i); e.Seq != want {
			t.Fatalf("sequence: got %d, want %d", e.Seq, want)
		}
		if want := strconv.Itoa(next[e.Sender]); string(e.Body) != want {
			t.Fatalf("message of %s: got %s, want %s", e.Sender, e.Body, want)
		}
		next[e.Sender]++
		if age := time.Since(e.Time); age < -time.Minute || age > time.Hour {
			t.Fatalf("time of an entry: got %s ago", age)
		}
	}
	if got, want := len(entries), senders*each; got != want {
		t.Errorf("entries: got %d, want %d", got, want)
	}
}

func TestBodyAndSenderComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t)
	first := startOf(t, c)
	want := cluster.Message{Sender: "[2001:db8::1]:4711", Body: "<member><name>ü\r\n\x00\xff</name></member>" + strings.Repeat("x", 100000)}
	if err := c.Log().Publish(testContext(t), want); err != nil {
		t.Fatalf("publish: %v", err)
	}
	got := logged(t, c, first)
	if len(got) != 1 || got[0].Sender != want.Sender || string(got[0].Body) != want.Body {
		t.Errorf("entries: got %.200v, want one as published", got)
	}
}

func TestRepeatOfABatchThatWasStoredIsRecognised(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t)
	ctx, first := testContext(t), startOf(t, c)
	b := c.Log().NewBatch(ctx, cluster.Message{Body: "1"}, cluster.Message{Body: "2"}, cluster.Message{Body: "3"})
	if err := b.Send(ctx); err != nil {
		t.Fatalf("send batch: %v", err)
	}
	if err := b.Send(ctx); err == nil {
		t.Errorf("send batch again: got no error, want it refused as duplicate")
	}
	if err := errors.Join(b.Settle()...); err != nil {
		t.Errorf("repeat: got %v, want success for all", err)
	}
	if got := bodies(logged(t, c, first)); len(got) != 3 || got["1"] != 1 || got["2"] != 1 || got["3"] != 1 {
		t.Errorf("log: got %v, want each once", got)
	}
}

func TestBatchThatWasCutShortIsNeverReportedWhole(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t)
	for lost := range 3 { // answers to the question whether it is whole
		ctx, first := testContext(t), startOf(t, c)
		b := c.Log().NewBatch(ctx, cluster.Message{Body: "1"}, cluster.Message{Body: "2"}, cluster.Message{Body: "3"})
		if err := b.SendFirst(ctx); err != nil {
			t.Fatalf("send first: %v", err)
		}
		for range lost {
			b.Confirm(ctx)
		}
		errs := b.Settle()
		if errs[0] != nil || !errors.Is(errs[1], cluster.ErrMaybeAccepted) || errs[2] != nil {
			t.Errorf("outcome after %d lost answers: got %v, want success, doubt, success", lost, errs)
		}
		if got := bodies(logged(t, c, first)); got["1"] != 1 || got["3"] != 1 || len(got) != 2 {
			t.Errorf("log after %d lost answers: got %v, want the first and the last, once", lost, got)
		}
	}
}

func TestDedupIDMakesRepeatsOneMessage(t *testing.T) {
	t.Parallel()
	s := clustertest.StartServer(t, t.TempDir())
	one, other := clustertest.Connect(t, s), clustertest.Connect(t, s)
	ctx, first := testContext(t), startOf(t, one)
	publish := func(c *cluster.Cluster, sender, id, body string) {
		t.Helper()
		if err := c.Log().Publish(ctx, cluster.Message{Sender: sender, DedupID: id, Body: body}); err != nil {
			t.Fatalf("publish: %v", err)
		}
	}
	publish(one, "a", "id", "first")
	publish(other, "a", "id", "repeat over another frontend")
	publish(other, "b", "id", "the same id of another sender")
	publish(one, "a", "i", "another id")
	got := bodies(logged(t, one, first))
	if len(got) != 3 || got["first"] != 1 || got["repeat over another frontend"] != 0 {
		t.Errorf("log: got %v, want three messages without the repeat", got)
	}
}

func TestFullLogRefusesClearlyAndLosesNothing(t *testing.T) {
	t.Parallel()
	c := clustertest.ConnectWith(t, clustertest.StartServer(t, t.TempDir()), cluster.Layout{RetentionBytes: 200 << 10})
	ctx, first := testContext(t), startOf(t, c)
	var mu sync.Mutex
	accepted, full := 0, 0
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 30 {
				err := c.Log().Publish(ctx, cluster.Message{Sender: "a", Body: strings.Repeat("x", 1000)})
				mu.Lock()
				switch {
				case err == nil:
					accepted++
				case errors.Is(err, cluster.ErrQueueFull) && !errors.Is(err, cluster.ErrMaybeAccepted):
					full++
				default:
					t.Errorf("publish: got %v, want queue full", err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if got := len(logged(t, c, first)); got != accepted || full == 0 || accepted < 100 {
		t.Errorf("log: got %d entries, want the %d accepted (%d refused)", got, accepted, full)
	}
	state, err := c.Log().State(ctx)
	if err != nil || state.MaxBytes != 200<<10 || state.Bytes == 0 || state.Messages != uint64(accepted) {
		t.Errorf("state: got %+v, %v", state, err)
	}
	if err := c.Log().PurgeTo(ctx, state.Last-10); err != nil {
		t.Fatalf("purge: %v", err)
	}
	if err := c.Log().Publish(ctx, cluster.Message{Body: "room again"}); err != nil {
		t.Errorf("publish after purge: %v", err)
	}
}

func TestMessageBeyondTheBrokersLimitIsTooLarge(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t)
	ctx := testContext(t)
	for _, size := range []int{1 << 20, 1<<20 - 100, 5 << 20} {
		if err := c.Log().Publish(ctx, cluster.Message{Body: strings.Repeat("x", size)}); !errors.Is(err, cluster.ErrTooLarge) {
			t.Errorf("publish %d bytes: got %v, want %v", size, err, cluster.ErrTooLarge)
		}
	}
	if err := c.Log().Publish(ctx, cluster.Message{Body: strings.Repeat("x", 1<<20-1000)}); err != nil {
		t.Errorf("publish just below the limit: %v", err)
	}
}

func TestCallerThatGoesAwayHarmsNobodyElse(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t)
	ctx, first := testContext(t), startOf(t, c)
	var wg sync.WaitGroup
	var mu sync.Mutex
	accepted := map[string]bool{}
	for i := range 300 {
		wg.Go(func() {
			mine := ctx
			if i%3 == 0 {
				var cancel context.CancelFunc
				mine, cancel = context.WithTimeout(ctx, time.Duration(i)*20*time.Microsecond)
				defer cancel()
			}
			err := c.Log().Publish(mine, cluster.Message{Body: strconv.Itoa(i)})
			if i%3 != 0 && err != nil {
				t.Errorf("publish: %v", err)
			}
			if err == nil {
				mu.Lock()
				accepted[strconv.Itoa(i)] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	got := bodies(logged(t, c, first))
	for body := range accepted {
		if got[body] != 1 {
			t.Errorf("accepted message %s: got it %d times, want once", body, got[body])
		}
	}
	for body, n := range got {
		if n != 1 {
			t.Errorf("message %s: got it %d times, want once", body, n)
		}
	}
}

func TestPublishSaysWhetherTheMessageMayHaveBeenAccepted(t *testing.T) {
	t.Parallel()
	s := clustertest.StartServer(t, t.TempDir())
	c := clustertest.Connect(t, s)
	s.Close()
	ctx, cancel := context.WithTimeout(testContext(t), 300*time.Millisecond)
	defer cancel()
	for _, m := range []cluster.Message{{Body: "a"}, {Body: "a", DedupID: "1"}} {
		err := c.Log().Publish(ctx, m)
		if err == nil {
			t.Errorf("publish without a broker: got no error")
		}
	}
	err := c.Log().Publish(ctx, cluster.Message{Body: "b"})
	if !errors.Is(err, cluster.ErrUnavailable) || errors.Is(err, cluster.ErrMaybeAccepted) {
		t.Errorf("publish without a broker: got %v, want %v and no doubt", err, cluster.ErrUnavailable)
	}
}
