package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
	"github.com/co2relay/co2relay/internal/freeport"
)

// nodes are three brokers that form a NATS cluster, as operators run it.
type nodes struct {
	t       *testing.T
	options []*server.Options
	running []*server.Server
}

func startNodes(t *testing.T) *nodes {
	t.Helper()
	n := newNodes(t)
	for i := range n.options {
		n.start(i)
	}
	return n
}

func newNodes(t *testing.T) *nodes {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: three brokers take long")
	}
	n := &nodes{t: t, running: make([]*server.Server, 3)}
	var routes []*url.URL
	for i := range 3 {
		port := freeport.Port(t)
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
		n.options = append(n.options, &server.Options{
			ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: freeport.Port(t), JetStream: true, StoreDir: t.TempDir(), SyncAlways: true,
			JetStreamMaxStore: 4 << 30, NoSigs: true, NoLog: true, Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: port},
		})
	}
	for i := range n.options {
		n.options[i].Routes = routes
	}
	t.Cleanup(func() {
		for i := range n.running {
			n.stop(i)
		}
	})
	return n
}

func (n *nodes) start(i int) {
	s, err := server.NewServer(n.options[i].Clone())
	if err != nil {
		n.t.Fatalf("start node %d: %v", i, err)
	}
	s.Start()
	n.running[i] = s
}

func (n *nodes) stop(i int) {
	if s := n.running[i]; s != nil {
		s.Shutdown()
		s.WaitForShutdown()
		n.running[i] = nil
	}
}

func (n *nodes) connect() *cluster.Cluster {
	n.t.Helper()
	c := n.dial()
	if err := setUp(c, testContext(n.t)); err != nil {
		n.t.Fatalf("set up: %v", err)
	}
	return c
}

func setUp(c *cluster.Cluster, ctx context.Context) error {
	_, err := c.Setup(ctx, cluster.Layout{RetentionBytes: 64 << 20, Replicas: 3, MaxSats: 100})
	return err
}

func (n *nodes) dial() *cluster.Cluster {
	n.t.Helper()
	var urls []string
	for _, o := range n.options {
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", o.Port))
	}
	c, err := cluster.Connect(testContext(n.t), cluster.Options{URLs: urls}, clustertest.Logger(n.t))
	if err != nil {
		n.t.Fatalf("connect: %v", err)
	}
	n.t.Cleanup(c.Close)
	return c
}

// The broker has no place for three copies, as also happens while nodes that
// start get to know each other: that is no reason to give up.
func TestSetupWaitsForPlace(t *testing.T) {
	t.Parallel()
	n := newNodes(t)
	enough := n.options[2].JetStreamMaxStore
	n.options[2].JetStreamMaxStore = 1 << 20
	for i := range n.options {
		n.start(i)
	}
	c := n.dial()
	eventually(t, "a leader of all", func() bool { return c.API(testContext(t), "INFO", nil, &struct{}{}) == nil })
	// When its time is over it tells what it waits for, if it had an answer by then.
	for told := false; !told; {
		short, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		err := setUp(c, short)
		cancel()
		if !errors.Is(err, cluster.ErrUnavailable) || t.Context().Err() != nil {
			t.Fatalf("set up with room on two of three nodes: got %v, want ErrUnavailable", err)
		}
		told = strings.Contains(err.Error(), "no suitable peers")
	}
	done := make(chan error, 1)
	go func() { done <- setUp(c, testContext(t)) }()
	n.stop(2)
	n.options[2].JetStreamMaxStore = enough
	n.start(2)
	if err := <-done; err != nil {
		t.Errorf("set up when the third has room: %v", err)
	}
}

// leader tells which node leads a stream.
func (n *nodes) leader(c *cluster.Cluster, stream string) (leader int) {
	n.t.Helper()
	eventually(n.t, "a leader of "+stream, func() bool {
		var info struct {
			Cluster struct {
				Leader string `json:"leader"`
			} `json:"cluster"`
		}
		if err := c.API(testContext(n.t), "STREAM.INFO."+stream, nil, &info); err != nil {
			n.t.Logf("ask for the leader, trying again: %v", err)
		}
		leader = slices.IndexFunc(n.options, func(o *server.Options) bool { return o.ServerName == info.Cluster.Leader })
		return leader >= 0
	})
	return leader
}

func TestThreeNodesKeepTheRules(t *testing.T) {
	t.Parallel()
	n := startNodes(t)
	one, other := n.connect(), n.connect()
	ctx, first := testContext(t), startOf(t, one)

	batch := one.Log().NewBatch(ctx, cluster.Message{Body: "x"}, cluster.Message{Body: "y"}, cluster.Message{Body: "z"})
	if err := batch.Send(ctx); err != nil {
		t.Fatalf("send batch: %v", err)
	}
	if err := errors.Join(batch.Settle()...); err != nil {
		t.Errorf("repeat of a batch: got %v, want success for all", err)
	}
	var wg sync.WaitGroup
	for _, c := range []*cluster.Cluster{one, other} {
		wg.Go(func() { publishMany(t, c, 0, 100) })
	}
	wg.Wait()
	if got := len(logged(t, one, first)); got != 203 {
		t.Errorf("entries: got %d, want 203", got)
	}

	var won, lost, taken, full atomic.Int32
	for i := range 130 {
		c := []*cluster.Cluster{one, other}[i%2]
		wg.Go(func() {
			switch _, err := c.Bucket(cluster.BucketPartitions).Put(ctx, "k", nil, 0); {
			case err == nil:
				won.Add(1)
			case errors.Is(err, cluster.ErrWrongRevision):
				lost.Add(1)
			default:
				t.Errorf("put: %v", err)
			}
			switch _, err := c.TakeSeat(ctx, fmt.Sprint(i)); {
			case err == nil:
				taken.Add(1)
			case errors.Is(err, cluster.ErrFull):
				full.Add(1)
			default:
				t.Errorf("take a seat: %v", err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || lost.Load() != 129 || taken.Load() != 100 || full.Load() != 30 {
		t.Errorf("got %d winners, %d losers, %d seats, %d refused; want 1, 129, 100, 30", won.Load(), lost.Load(), taken.Load(), full.Load())
	}
}

// Invariant: when the log's leader dies everything accepted is in the log once, and readers see all of it.
func TestLeaderOfThreeNodesDies(t *testing.T) {
	t.Parallel()
	n := startNodes(t)
	c := n.connect()
	first := startOf(t, c)
	k := follow(t, c, first)
	m := mirrorOf(t, c.Bucket(cluster.BucketSatellites))
	stop := make(chan struct{})
	var mu sync.Mutex
	accepted, doubt := map[string]bool{}, 0
	var wg sync.WaitGroup
	end := sync.OnceFunc(func() { close(stop); wg.Wait() })
	t.Cleanup(end)
	for s := range 10 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
				body := strconv.Itoa(s) + "-" + strconv.Itoa(i)
				err := c.Log().Publish(ctx, cluster.Message{Sender: "a", Body: body})
				cancel()
				mu.Lock()
				if err == nil {
					accepted[body] = true
				} else if doubt++; !errors.Is(err, cluster.ErrMaybeAccepted) && !errors.Is(err, cluster.ErrUnavailable) {
					t.Errorf("publish: %v", err)
				}
				mu.Unlock()
			}
		})
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(accepted) }
	eventually(t, "messages", func() bool { return count() > 200 })
	for range 2 {
		dead, was, killed := n.leader(c, cluster.RelayStream), count(), time.Now()
		n.stop(dead)
		eventually(t, "publishing goes on", func() bool { return count() > was+100 })
		t.Logf("node %d stopped, 100 messages more after %s", dead, time.Since(killed).Round(time.Millisecond))
		rev, err := c.Bucket(cluster.BucketSatellites).PutAny(testContext(t), "k", nil)
		for err != nil {
			t.Logf("put: %v", err)
			rev, err = c.Bucket(cluster.BucketSatellites).PutAny(testContext(t), "k", nil)
		}
		eventually(t, "the bucket's follower", m.reached(rev))
		n.start(dead)
		eventually(t, "the node's return", func() bool { return n.running[dead].JetStreamEnabled() && n.running[dead].JetStreamIsCurrent() })
	}
	end()
	entries := logged(t, c, first)
	eventually(t, "the follower", k.has(len(entries)))
	got, lost, repeated := bodies(entries), 0, 0
	for body := range accepted {
		if got[body] == 0 {
			lost++
		}
	}
	for _, times := range got {
		repeated += times - 1
	}
	t.Logf("%d accepted, %d in doubt or refused, %d logged: %d lost, %d repeated", len(accepted), doubt, len(entries), lost, repeated)
	if lost != 0 || repeated != 0 || k.count() != len(entries) {
		t.Errorf("got %d lost, %d repeated, %d followed of %d, want none and all", lost, repeated, k.count(), len(entries))
	}
}

func TestMissingPermissionIsADefiniteRefusal(t *testing.T) {
	t.Parallel()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true, JetStreamMaxStore: 4 << 30,
		Users: []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"co2.relay"}}}}},
	})
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	c, err := cluster.Connect(testContext(t), cluster.Options{URLs: []string{s.ClientURL()}, User: "u", Password: "p"}, clustertest.Logger(t))
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(c.Close)
	if _, err := c.Setup(testContext(t), clustertest.Layout); err != nil {
		t.Fatalf("set up: %v", err)
	}
	for range 2 {
		err := c.Log().Publish(testContext(t), cluster.Message{Body: "x"})
		if err == nil || errors.Is(err, cluster.ErrMaybeAccepted) {
			t.Errorf("publish without permission: got %v, want a definite refusal", err)
		}
	}
}
