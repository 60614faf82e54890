package frontend

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
	"github.com/co2relay/co2relay/internal/xmlrpc"
	"github.com/co2relay/co2relay/registry"
)

// logged reads the whole log.
func logged(t *testing.T, c *cluster.Cluster) []cluster.Entry {
	t.Helper()
	var all []cluster.Entry
	for next := uint64(1); ; {
		got, n, err := c.Log().Read(context.Background(), next, 1000, 512<<10)
		if err != nil {
			t.Fatalf("read log: %v", err)
		}
		if len(got) == 0 {
			return all
		}
		all, next = append(all, got...), n
	}
}

func TestRegisterGivesTheCallersAddressAndItsPort(t *testing.T) {
	t.Parallel()
	r := start(t, trustLoopback)
	for address, want := range map[string]string{
		"10.1.2.3": "10.1.2.3:9000", "127.0.0.5": "127.0.0.1:9000", "::1": "127.0.0.1:9000",
		"2001:db8::7": "[2001:db8::7]:9000", "::ffff:10.9.9.9": "10.9.9.9:9000",
	} {
		if got := r.from(address).register(9000, "nick", "n"); got != want {
			t.Errorf("register from %s: got id %q, want %q", address, got, want)
		}
	}
	if got, _ := r.from("10.1.2.3").must("relay.get_num_satellites").Int(); got != 4 {
		t.Errorf("satellites: got %d, want 4: both loopbacks are one", got)
	}
}

func TestRegisterChecksItsMembers(t *testing.T) {
	t.Parallel()
	c := start(t, nil).from("")
	for _, p := range []xmlrpc.Value{
		str(), str("port", "9000"), str("port", 0), str("port", 65536), str("port", -1), str("port", 9000.0), xmlrpc.NewInt(9000), xmlrpc.NewString("9000"),
		str("port", 9000, "nick", 1), str("port", 9000, "notify_pass", 1), str("port", 9000, "plugins", "a"),
		str("port", 9000, "plugins", xmlrpc.NewArray(xmlrpc.NewInt(1))), str("port", 9000, "max_age", "1"), str("port", 9000, "max_age", -1),
		str("port", 9000, "scheme", "ftp"), str("port", 9000, "tls_name", "a.example"), str("port", 9000, "nick", strings.Repeat("n", 300)),
		str("port", 9000, "scheme", strings.Repeat("s", 5000)), str("port", 9000, "scheme", "https", "tls_name", "a.example\n"),
		str("port", 9000, "scheme", "https", "tls_name", strings.Repeat("n", 5000)),
		str("port", 9000, "notify_pass", strings.Repeat("secret", 5000)),
	} {
		text := c.mustFault(xmlrpc.CodeWrongParams, "", "relay.register", p)
		if len(text) > 500 || strings.Contains(text, "secret") {
			t.Errorf("fault: got %q, want it short and without the password", text)
		}
	}
	c.mustFault(xmlrpc.CodeWrongParams, "struct", "relay.register")
	if got, _ := c.must("relay.get_num_satellites").Int(); got != 0 {
		t.Errorf("satellites: got %d, want 0", got)
	}
}

func TestRegisterAgainReplacesAndKeeps(t *testing.T) {
	t.Parallel()
	c := start(t, nil).from("")
	id := c.register(9000)
	first := c.must("relay.get_satellite_props", str("host_id", id))
	if nick, _ := first.Member("nick"); nick.Raw() != xmlrpc.NewString(id).Raw() {
		t.Errorf("nick: got %s, want the host id by default", nick.Raw())
	}
	if again := c.register(9000, "nick", "new", "plugins", xmlrpc.NewArray(xmlrpc.NewString("p"))); again != id {
		t.Errorf("id: got %q, want %q again", again, id)
	}
	second := c.must("relay.get_satellite_props_raw", str("host_id", id))
	if nick, _ := second.Member("nick"); nick.Raw() != xmlrpc.NewString("new").Raw() {
		t.Errorf("nick: got %s, want the new one", nick.Raw())
	}
	if plugins, _ := second.Member("plugins"); plugins.Raw() != xmlrpc.NewArray(xmlrpc.NewString("p")).Raw() {
		t.Errorf("plugins: got %s, want the new ones", plugins.Raw())
	}
}

func TestAFullRelayRefusesNewcomersOnly(t *testing.T) {
	t.Parallel()
	clus := clustertest.ConnectWith(t, clustertest.StartServer(t, t.TempDir()), cluster.Layout{MaxSats: 2, RetentionBytes: 1 << 20})
	c := startOn(t, clus, nil).from("")
	c.register(9001)
	c.register(9002)
	c.mustFault(xmlrpc.CodeRegistry, co2Error+"the relay is full", "relay.register", str("port", 9003))
	c.register(9001, "nick", "again")
	if got, _ := c.must("relay.get_max_satellites").Int(); got != 2 {
		t.Errorf("max satellites: got %d, want 2", got)
	}
	c.must("relay.deregister", str("host_id", "127.0.0.1:9002"))
	c.register(9003)
}

func TestAnAddressMayHaveSoManySatellites(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { trustLoopback(c); c.MaxSatsPerAddr = 3 })
	c := r.from("192.0.2.1")
	var wg sync.WaitGroup
	var refused atomic.Int32
	for i := range 20 { // at the same time
		wg.Go(func() {
			if _, fault := c.call("relay.register", str("port", 9001+i)); fault != nil {
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	ids := slices.Collect(c.must("relay.get_satellites").Elements())
	if len(ids) != 3 || refused.Load() != 17 {
		t.Fatalf("of 20, %d are registered and %d refused, want 3 and 17", len(ids), refused.Load())
	}
	id, _ := ids[0].Str()
	port := int(netip.MustParseAddrPort(id).Port())
	c.mustFault(xmlrpc.CodeRegistry, "--max-sats-per-addr", "relay.register", str("port", 9100))
	c.register(port, "nick", "again")
	r.from("192.0.2.2").register(9100)
	c.must("relay.deregister", str("host_id", id))
	c.register(9100)
}

// A view that is behind must not let an address have more.
func TestARegistrationThatTheViewLacksIsCounted(t *testing.T) {
	t.Parallel()
	clus := clustertest.Start(t)
	blind := startWith(t, clus, registry.New(clus, clustertest.Logger(t)), func(c *Config) { c.MaxSatsPerAddr = 3 },
		func(f *Frontend) { f.settle = time.Millisecond })
	c := blind.from("")
	for port := 9001; port <= 9003; port++ {
		c.register(port)
	}
	c.mustFault(xmlrpc.CodeRegistry, "--max-sats-per-addr", "relay.register", str("port", 9004))
	c.register(9002, "nick", "again")
	blind.comers.mu.Lock()
	blind.comers.all[0].until = time.Now().Add(-time.Second)
	blind.comers.mu.Unlock()
	c.register(9004) // one was counted for long enough
}

func TestRegisterPassIsAskedForAndNeverStored(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.RegisterPass = "open sesame" })
	c := r.from("")
	c.mustFault(xmlrpc.CodeRegistry, co2Error+"member register_pass", "relay.register", str("port", 9000))
	c.mustFault(xmlrpc.CodeRegistry, co2Error+"member register_pass", "relay.register", str("port", 9000, "register_pass", "wrong"))
	id := c.register(9000, "register_pass", "open sesame", "notify_pass", "hush")
	c.must("relay.relay", str("host_id", id, "data", 1))
	for _, method := range []string{"relay.get_satellite_props", "relay.get_satellite_props_raw"} {
		if got := c.must(method, str("host_id", id)).Raw(); strings.Contains(got, "sesame") || strings.Contains(got, "hush") {
			t.Errorf("%s shows a password: %s", method, got)
		}
	}
}

func TestDeregisterFaultsAsThePythonRelayDid(t *testing.T) {
	t.Parallel()
	r := start(t, trustLoopback)
	here, there := r.from("10.0.0.1"), r.from("10.0.0.2")
	id := here.register(9000)
	for text, want := range map[string]string{
		"10.0.0.9:1": "exceptions.KeyError:'10.0.0.9:1'", "it's": `exceptions.KeyError:'it\'s'`, "": "exceptions.KeyError:''",
	} {
		if got := here.mustFault(xmlrpc.CodeRegistry, keyError, "relay.deregister", str("host_id", text)); got != want {
			t.Errorf("unknown id %q: got %q, want %q", text, got, want)
		}
	}
	there.mustFault(xmlrpc.CodeRegistry, co2Error+"'10.0.0.1:9000' can be deregistered from its own address only", "relay.deregister", str("host_id", id))
	if got, _ := here.must("relay.deregister", str("host_id", id)).Str(); got != "OK" {
		t.Errorf("deregister: got %q, want OK", got)
	}
	here.mustFault(xmlrpc.CodeRegistry, keyError, "relay.deregister", str("host_id", id))
	if got, _ := here.must("relay.get_num_satellites").Int(); got != 0 {
		t.Errorf("satellites: got %d, want 0", got)
	}
}

func TestRelayStoresTheMembersAndDropsTheRelaysOwn(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	c := r.from("")
	id := c.register(9000, "notify_pass", "mine")
	data := str("z", " a <&> \r\n", "a", xmlrpc.NewArray(xmlrpc.NewNil(), xmlrpc.NewDouble(0.5)))
	got, _ := c.must("relay.relay", str("further", 1, "msg_id", "77", "host_id", id, "notify_pass", "mine", "data", data, "last", true)).Str()
	if got != "OK" {
		t.Errorf("relay: got %q, want OK", got)
	}
	entries := logged(t, r.clus)
	if len(entries) != 1 {
		t.Fatalf("log has %d messages, want 1", len(entries))
	}
	want := str("further", 1, "host_id", id, "data", data, "last", true).Raw()
	if got := xmlrpc.StructOf(string(entries[0].Body)).Raw(); got != want {
		t.Errorf("stored struct: got %s, want %s", got, want)
	}
	if entries[0].Sender != id {
		t.Errorf("sender: got %q, want %q", entries[0].Sender, id)
	}
}

func TestRelayGivesTheSendersIDInNormalForm(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	c := r.from("")
	id := c.register(9000)
	c.must("relay.relay", str("host_id", "[::1]:9000", "data", 1))
	if got, want := string(logged(t, r.clus)[0].Body), id; !strings.Contains(got, "<string>"+want+"</string>") {
		t.Errorf("stored: got %s, want host_id %s", got, want)
	}
}

func TestRelayChecksTheSender(t *testing.T) {
	t.Parallel()
	r := start(t, trustLoopback)
	here, there := r.from("10.0.0.1"), r.from("10.0.0.2")
	id := here.register(9000)
	here.mustFault(xmlrpc.CodeWrongParams, "host_id", "relay.relay", str("data", 1))
	here.mustFault(xmlrpc.CodeWrongParams, "data", "relay.relay", str("host_id", id))
	here.mustFault(xmlrpc.CodeWrongParams, "host_id", "relay.relay", str("host_id", 1, "data", 1))
	here.mustFault(xmlrpc.CodeWrongParams, "dedup_id", "relay.relay", str("host_id", id, "data", 1, "dedup_id", 5))
	here.mustFault(xmlrpc.CodeWrongParams, "struct", "relay.relay", xmlrpc.NewString(id))
	here.mustFault(xmlrpc.CodeWrongParams, "struct", "relay.relay")
	here.mustFault(xmlrpc.CodeRegistry, co2Error+"'10.0.0.1:9999' is not registered", "relay.relay", str("host_id", "10.0.0.1:9999", "data", 1))
	here.mustFault(xmlrpc.CodeRegistry, co2Error+"'fred' is not registered", "relay.relay", str("host_id", "fred", "data", 1))
	there.mustFault(xmlrpc.CodeRegistry, co2Error+"'10.0.0.1:9000' can relay from its own address only", "relay.relay", str("host_id", id, "data", 1))
	if got := logged(t, r.clus); len(got) != 0 {
		t.Errorf("log has %d messages, want none", len(got))
	}
}

func TestAnySenderLetsOthersRelayForASatellite(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { trustLoopback(c); c.AnySender = true })
	id := r.from("10.0.0.1").register(9000)
	there := r.from("10.0.0.2")
	there.must("relay.relay", str("host_id", id, "data", 1))
	there.mustFault(xmlrpc.CodeRegistry, "not registered", "relay.relay", str("host_id", "10.0.0.2:1", "data", 1))
	there.mustFault(xmlrpc.CodeRegistry, "own address", "relay.deregister", str("host_id", id))
}

func TestARepeatWithTheSameDedupIDIsOneMessage(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	c := r.from("")
	a, b := c.register(9000), c.register(9001)
	for range 3 {
		c.must("relay.relay", str("host_id", a, "data", 1, "dedup_id", "x"))
	}
	c.must("relay.relay", str("host_id", b, "data", 1, "dedup_id", "x"))
	if got := logged(t, r.clus); len(got) != 2 {
		t.Errorf("log has %d messages, want 2: one for each sender", len(got))
	}
}

func TestASatelliteOfAnotherFrontendIsFoundAtTheLeader(t *testing.T) {
	t.Parallel()
	clus := clustertest.Start(t)
	id := startOn(t, clus, nil).from("").register(9000)
	// A registry that never runs knows nothing: as one whose watch is behind.
	var clock atomic.Int64 // of the look-ups' rate
	blind := startWith(t, clus, registry.New(clus, clustertest.Logger(t)), nil,
		func(f *Frontend) { f.lookups.now = func() time.Time { return time.Unix(clock.Load(), 0) } })
	c := blind.from("")
	c.must("relay.relay", str("host_id", id, "data", 1))
	c.must("relay.get_satellite_props", str("host_id", id))
	c.must("relay.get_satellite_ctime", str("host_id", id))
	const asked = 3 * int(lookupBurst)
	limited := 0
	for range asked {
		if _, fault := c.call("relay.get_satellite_ctime", str("host_id", "10.1.1.1:1")); strings.Contains(fault.Text, "wait a second") {
			limited++
		}
	}
	if want := asked - (int(lookupBurst) - 3); limited != want {
		t.Errorf("%d look-ups of an unknown id were refused for their rate, want %d", limited, want)
	}
	c.mustFault(xmlrpc.CodeRegistry, "wait a second", "relay.deregister", str("host_id", id))
	clock.Add(1)
	c.must("relay.deregister", str("host_id", id))
}

func TestAMessageBeyondTheBrokersLimitIsRefusedClearly(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.MaxBody, c.MaxInflated = 4<<20, 4<<20 })
	c := r.from("")
	id := c.register(9000)
	c.mustFault(xmlrpc.CodeRegistry, co2Error+"message too large", "relay.relay", str("host_id", id, "data", strings.Repeat("x", 1<<20)))
	c.must("relay.relay", str("host_id", id, "data", strings.Repeat("x", 1<<19)))
}

func TestAFullQueueIsSaid(t *testing.T) {
	t.Parallel()
	clus := clustertest.ConnectWith(t, clustertest.StartServer(t, t.TempDir()), cluster.Layout{RetentionBytes: 1 << 20})
	c := startOn(t, clus, nil).from("")
	id := c.register(9000)
	p := str("host_id", id, "data", strings.Repeat("x", 100<<10))
	for range 20 {
		if _, fault := c.call("relay.relay", p); fault != nil {
			if fault.Code != xmlrpc.CodeRegistry || !strings.HasPrefix(fault.Text, co2Error+"queue full") {
				t.Errorf("got %v, want queue full", fault)
			}
			return
		}
	}
	t.Error("20 messages of 100 KiB were accepted by a log of 1 MiB, want queue full")
}

func TestAShortDiskIsSaid(t *testing.T) {
	t.Parallel()
	srv := clustertest.StartServer(t, t.TempDir())
	clus := clustertest.ConnectWith(t, srv, clustertest.Layout)
	c := startOn(t, clus, nil).from("")
	id := c.register(9000)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.WatchDisk(ctx, 1<<62) })
	defer wg.Wait()
	defer cancel()
	eventually(t, "relay.relay refuses for want of disk", func() bool {
		_, fault := c.call("relay.relay", str("host_id", id, "data", 1))
		return fault != nil && fault.Code == xmlrpc.CodeRegistry && strings.HasPrefix(fault.Text, co2Error+"relay short of disk")
	})
}

func TestABrokerThatIsGoneIsAFaultInTime(t *testing.T) {
	t.Parallel()
	srv := clustertest.StartServer(t, t.TempDir())
	clus := clustertest.ConnectWith(t, srv, clustertest.Layout)
	id := startOn(t, clus, nil).from("").register(9000)
	r := startOn(t, clus, func(c *Config) { c.PublishTimeout = time.Second })
	c := r.from("")
	srv.Close()
	text := c.mustFault(xmlrpc.CodeRegistry, co2Error, "relay.relay", str("host_id", id, "data", 1))
	if !strings.Contains(text, "may have been accepted") && !strings.Contains(text, "was not accepted") {
		t.Errorf("got %q, want it to say whether the message was accepted", text)
	}
	// One whose sender has to be looked up was not accepted for sure.
	failed := r.metric("co2_frontend_relays_total failed")
	c.mustFault(xmlrpc.CodeRegistry, co2Error+"the message was not accepted", "relay.relay", str("host_id", "127.0.0.1:9999", "data", 1))
	if got := r.metric("co2_frontend_relays_total failed"); got != failed+1 {
		t.Errorf("failed relays: got %g, want %g", got, failed+1)
	}
	c.mustFault(xmlrpc.CodeRegistry, co2Error, "relay.register", str("port", 9001))
	c.must("ping")
}

func TestAFaultSaysWhyAMessageWasNotAccepted(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	for _, x := range []struct {
		err           error
		words, result string
	}{
		{cluster.ErrStore, "a write to the disk", "store_failed"},
		{cluster.ErrUnavailable, "could not reach its broker", "failed"},
		{errors.New("the broker's permissions forbid publishing"), "sending it again will not help", "denied"},
	} {
		fault := asFault(r.relayFault(fmt.Errorf("publish: %w", x.err), 1))
		if fault.Code != xmlrpc.CodeRegistry || !strings.Contains(fault.Text, "was not accepted") || !strings.Contains(fault.Text, x.words) {
			t.Errorf("%v: got %v, want code 1 and %q", x.err, fault, x.words)
		}
		if r.metric("co2_frontend_relays_total "+x.result) != 1 {
			t.Errorf("%v: not counted as %s", x.err, x.result)
		}
	}
}

func TestRegisteringTellsTheOthers(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	hints := make(chan cluster.Hint, 10)
	cancel, err := r.clus.OnHint("test", func(p int, h cluster.Hint) {
		if p == registry.ID(h.Satellite).Partition() {
			hints <- h
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer cancel()
	ctx, stop := context.WithCancel(context.Background())
	events := make(chan cluster.Event, 10)
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.clus.Events(ctx, time.Now().Add(-time.Minute), func(e cluster.Event) { events <- e }) })
	defer wg.Wait()
	defer stop()
	c := r.from("")
	id := c.register(9000, "nick", "n", "notify_pass", "hush")
	c.must("relay.deregister", str("host_id", id))
	select {
	case h := <-hints:
		if h.Kind != cluster.HintRegistered || h.Satellite != id {
			t.Errorf("hint: got %+v, want registered %s", h, id)
		}
	case <-time.After(time.Minute):
		t.Error("no hint came")
	}
	for _, kind := range []string{"registered", "deregistered"} {
		select {
		case e := <-events:
			if e.Kind != kind || e.Satellite != id || e.Nick != "n" {
				t.Errorf("event: got %+v, want %s of %s", e, kind, id)
			}
		case <-time.After(time.Minute):
			t.Errorf("no event %s came", kind)
		}
	}
}
