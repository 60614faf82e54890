package cluster_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/co2relay/co2relay/cluster"
)

// startDeployed runs one node with deploy/nats.conf, and gives its URL. The
// password of each user is the user's name.
func startDeployed(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	conf, err := os.ReadFile("../deploy/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	write("etc/co2relay/nats.conf", string(conf))
	var passwords strings.Builder
	for _, user := range []string{"setup", "frontend", "delivery", "pinger", "observer", "admin", "sys"} {
		fmt.Fprintf(&passwords, "%s_password: %q\n", user, user)
	}
	write("run/co2relay/nats/passwords.conf", passwords.String())
	write("run/co2relay/nats/routes.conf", "authorization: { user: route, password: \"route\", timeout: 2 }\n")
	t.Setenv("NATS_NAME", "nats-1")
	t.Setenv("NATS_MAX_FILE_STORE", "4GB")
	opts, err := server.ProcessConfigFile(filepath.Join(root, "etc/co2relay/nats.conf"))
	if err != nil {
		t.Fatalf("read deploy/nats.conf: %v", err)
	}
	if !opts.SyncAlways || opts.MaxPayload != 1<<20 {
		t.Errorf("got sync always %v and max_payload %d, want true and 1 MiB", opts.SyncAlways, opts.MaxPayload)
	}
	opts.Cluster, opts.Routes = server.ClusterOpts{}, nil // one node
	opts.Host, opts.Port, opts.HTTPPort = "127.0.0.1", server.RANDOM_PORT, 0
	opts.StoreDir, opts.NoSigs, opts.NoLog = filepath.Join(root, "data"), true, true
	ns, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(10 * time.Second) {
		t.Fatal("nats-server is not ready after 10 s")
	}
	return ns.ClientURL()
}

func connectAs(t *testing.T, url, user string) *cluster.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := cluster.Connect(ctx, cluster.Options{URLs: []string{url}, User: user, Password: user, Name: user}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// The users of deploy/nats.conf may do what their roles do.
func TestEachRoleMayDoItsWork(t *testing.T) {
	url := startDeployed(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()

	delivery := connectAs(t, url, "delivery")
	waited := make(chan error, 1)
	go func() { // who may not make streams waits for them
		_, err := delivery.Setup(ctx, cluster.Layout{})
		waited <- err
	}()
	setup := connectAs(t, url, "setup")
	if _, err := setup.Setup(ctx, cluster.Layout{RetentionBytes: 64 << 20, MaxSats: 7}); err != nil {
		t.Fatalf("setup: %v", err)
	}
	if layout, err := setup.Setup(ctx, cluster.Layout{MaxSats: 9}); err != nil || layout.MaxSats != 9 {
		t.Errorf("setup with another --max-sats: got %d, %v, want 9", layout.MaxSats, err)
	}
	if err := <-waited; err != nil {
		t.Fatalf("delivery waits for the streams: %v", err)
	}

	frontend := connectAs(t, url, "frontend")
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := frontend.Setup(ctx, cluster.Layout{})
	check("frontend opens the streams", err)
	var all sync.WaitGroup
	for range 20 { // enough at a time for a group commit
		all.Go(func() {
			check("frontend publishes", frontend.Log().Publish(ctx, cluster.Message{Sender: "a", Body: "b"}))
		})
	}
	all.Wait()
	seat, err := frontend.TakeSeat(ctx, "k")
	check("frontend takes a seat", err)
	check("frontend frees it", frontend.FreeSeat(ctx, seat))
	_, err = frontend.Seats(ctx)
	check("frontend lists seats", err)
	_, err = frontend.Bucket(cluster.BucketSatellites).Put(ctx, "aa", []byte("x"), 0)
	check("frontend registers", err)
	for _, bucket := range []string{cluster.BucketSatellites, cluster.BucketStats, cluster.BucketWorkers, cluster.BucketPartitions} {
		_, err = frontend.Bucket(bucket).List(ctx)
		check("frontend lists "+bucket, err)
	}

	check("delivery purges", delivery.Log().PurgeTo(ctx, 2))
	last, err := delivery.Log().Last(ctx)
	check("delivery asks for the last message", err)
	entries, _, err := delivery.Log().Read(ctx, last-9, 10, 1<<20)
	check("delivery reads", err)
	if len(entries) != 10 {
		t.Errorf("delivery reads: got %d entries, want 10", len(entries))
	}
	follow, end := context.WithCancel(ctx)
	followed := 0
	check("delivery follows", delivery.Log().Follow(follow, last-9, func(e []cluster.Entry) {
		if followed += len(e); followed >= 10 {
			end()
		}
	}))
	end()
	pinger := connectAs(t, url, "pinger")
	for role, c := range map[string]*cluster.Cluster{"delivery": delivery, "pinger": pinger} {
		_, err := c.Bucket(cluster.BucketSatellites).List(ctx)
		check(role+" lists satellites", err)
		_, err = c.Bucket(cluster.BucketWorkers).PutAny(ctx, role+".w", []byte("{}"))
		check(role+" renews a lease", err)
		_, err = c.Bucket(cluster.BucketPartitions).Put(ctx, role+".00", []byte("{}"), 0)
		check(role+" claims", err)
		_, err = c.Bucket(cluster.BucketStats).Put(ctx, role+".00", []byte("x"), 0)
		check(role+" saves figures", err)
		_, err = c.Bucket(cluster.BucketStats).Get(ctx, role+".00")
		check(role+" loads figures", err)
		_, err = c.Bucket(cluster.BucketWorkers).List(ctx)
		check(role+" lists leases", err)
	}
}

// And they may not do what is others'.
func TestEachRoleMayDoNoMore(t *testing.T) {
	url := startDeployed(t)
	c := connectAs(t, url, "setup")
	if _, err := c.Setup(t.Context(), cluster.Layout{RetentionBytes: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	const (
		satellites = "$JS.API.STREAM.MSG.GET.KV_SATELLITES"
		bodies     = "$JS.API.STREAM.MSG.GET.RELAY"
		direct     = "$JS.API.DIRECT.GET.RELAY"
		remove     = "$JS.API.STREAM.DELETE.RELAY"
		consume    = "$JS.API.CONSUMER.CREATE.RELAY.x"
	)
	for user, subjects := range map[string][]string{
		"setup":    {"co2.relay", satellites, bodies, direct, remove, consume, "$KV.SATELLITES.aa", "$JS.API.STREAM.UPDATE.RELAY"},
		"frontend": {bodies, direct, remove, consume, "$KV.PARTITIONS.delivery.00", "$KV.STATS.delivery.00", "$KV.WORKERS.x", "$JS.API.STREAM.CREATE.X", "$JS.API.STREAM.UPDATE.SEATS", "$JS.API.STREAM.PURGE.KV_SATELLITES"},
		"delivery": {"co2.relay", "co2.seat", "$KV.SATELLITES.aa", "$KV.PARTITIONS.pinger.00", "$KV.STATS.pinger.00", "$KV.WORKERS.pinger.x", remove, "$JS.API.STREAM.MSG.DELETE.RELAY", "co2.ask.0", "_INBOX.admin.x"},
		"pinger":   {"co2.relay", "co2.seat", bodies, direct, consume, remove, "$KV.PARTITIONS.delivery.00", "$KV.STATS.delivery.00", "$JS.API.STREAM.PURGE.RELAY"},
		"observer": {"co2.relay", "co2.event.x", satellites, bodies, direct, consume, "$JS.API.CONSUMER.CREATE.KV_SATELLITES.x", "$JS.API.CONSUMER.CREATE.RELAY", "$JS.API.CONSUMER.MSG.NEXT.KV_SATELLITES.x", remove, "$KV.SATELLITES.aa", "$JS.API.STREAM.PURGE.EVENTS", "$JS.API.STREAM.MSG.DELETE.EVENTS"},
	} {
		if user != "observer" && refused(t, 300*time.Millisecond, url, user, func(nc *nats.Conn) error { return nc.Publish("_INBOX."+user+".x.y", nil) }) {
			t.Errorf("%s may not write to its own inbox, and has to for hearing its node", user)
		}
		for _, subject := range subjects {
			if !refused(t, 5*time.Second, url, user, func(nc *nats.Conn) error { return nc.Publish(subject, []byte("{}")) }) {
				t.Errorf("%s may publish to %s, and should not", user, subject)
			}
		}
		for _, subject := range []string{">", "co2.relay", "$KV.SATELLITES.>", "_INBOX.>", "_INBOX.admin.>", "$JS.API.>"} {
			if !refused(t, 5*time.Second, url, user, func(nc *nats.Conn) error { _, err := nc.SubscribeSync(subject); return err }) {
				t.Errorf("%s may listen to %s, and should not", user, subject)
			}
		}
	}
	for _, subject := range []string{"$JS.API.STREAM.INFO.RELAY", "$JS.API.STREAM.LIST", "$JS.API.CONSUMER.CREATE.EVENTS.x", "$JS.API.STREAM.MSG.GET.EVENTS"} {
		if refused(t, 300*time.Millisecond, url, "observer", func(nc *nats.Conn) error { return nc.Publish(subject, []byte("{}")) }) {
			t.Errorf("observer may not publish to %s, and should", subject)
		}
	}
	if _, err := nats.Connect(url, nats.UserInfo("observer", "wrong")); err == nil {
		t.Error("got in with a wrong password")
	}
	if _, err := nats.Connect(url); err == nil {
		t.Error("got in without a user")
	}
}

// refused tells whether the broker answers what do sends with a violation. The
// answer is there before do's flush is; what may take a moment is its handler.
func refused(t *testing.T, within time.Duration, url, user string, do func(*nats.Conn) error) bool {
	t.Helper()
	violation := make(chan error, 4)
	nc, err := nats.Connect(url, nats.UserInfo(user, user), nats.Timeout(30*time.Second), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		violation <- err
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := do(nc); err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushTimeout(30 * time.Second); err != nil { // violations come before the answer to the ping
		t.Fatal(err)
	}
	select {
	case err := <-violation:
		return strings.Contains(strings.ToLower(err.Error()), "permissions violation")
	case <-time.After(within):
		return false
	}
}
