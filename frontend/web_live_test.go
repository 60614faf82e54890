package frontend

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/internal/xmlrpc"
	"github.com/co2relay/co2relay/registry"
)

// submit sends a method's form.
func (c *caller) submit(method string, fields url.Values) (int, string) {
	c.r.t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://relay/methods/"+method, strings.NewReader(fields.Encode()))
	if err != nil {
		c.r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", "http://"+c.r.addr)
	resp, err := c.client.Do(req)
	if err != nil {
		c.r.t.Fatal(err)
	}
	defer resp.Body.Close()
	var b strings.Builder
	if _, err := bufio.NewReader(resp.Body).WriteTo(&b); err != nil {
		c.r.t.Fatal(err)
	}
	return resp.StatusCode, b.String()
}

func TestMethodsCanBeCalledFromTheirPages(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	c := r.from("")
	_, body := c.submit("relay.register", url.Values{
		"m.port": {"9000"}, "m.nick": {"<b>from the page</b>"}, "m.plugins": {"osc, midi"}, "m.notify_pass": {"hush-hush"}, "more": {`{"extra": [1, null, {"a": 0.5}]}`},
	})
	sat, ok := r.reg.Lookup("127.0.0.1:9000")
	if !ok || sat.Nick != "<b>from the page</b>" || strings.Join(sat.Plugins, "+") != "osc+midi" || sat.NotifyPass.Reveal() != "hush-hush" {
		t.Fatalf("got %+v, want what the form said", sat)
	}
	for _, want := range []string{"It answered", "127.0.0.1:9000", "&lt;member&gt;", "&amp;lt;b&amp;gt;", hiddenText, "extra"} {
		if !strings.Contains(body, want) {
			t.Errorf("page lacks %q", want)
		}
	}
	if strings.Contains(body, "hush-hush") || strings.Contains(body, "<b>from") {
		t.Error("page shows the password, or text as it came")
	}
	for _, x := range []struct {
		method string
		fields url.Values
		want   string
	}{
		{"relay.relay", url.Values{"m.host_id": {"127.0.0.1:9000"}, "m.data": {"just words"}}, "OK"},
		{"relay.get_satellite_props", url.Values{"m.host_id": {"127.0.0.1:9000"}}, "ping_count"},
		{"system.methodHelp", url.Values{"m.method_name": {"ping"}}, "Answer a ping"},
		{"test", url.Values{"param": {`{"b": [true, 7]}`}}, "&lt;boolean&gt;1&lt;/boolean&gt;"},
		{"system.multicall", url.Values{"param": {`[{"methodName": "ping", "params": []}]`}}, "pong"},
		{"ping", url.Values{}, "pong"},
		{"call_method", url.Values{"m.method_name": {"system.methodHelp"}, "more": {`{"name": "ping"}`}}, "Answer a ping"},
		{"relay.register", url.Values{"m.port": {"many"}}, "is not a whole number"},
		{"relay.register", url.Values{"m.port": {"9001"}, "more": {"[]"}}, "not a JSON object"},
		{"relay.deregister", url.Values{"m.host_id": {"10.0.0.1:1"}}, "It answered with a fault"},
	} {
		if status, body := c.submit(x.method, x.fields); status != http.StatusOK || !strings.Contains(body, x.want) {
			t.Errorf("%s %v: got %d, want a page with %q:\n%s", x.method, x.fields, status, x.want, body)
		}
	}
	if status, _ := c.submit("no.such", nil); status != http.StatusNotFound {
		t.Errorf("unknown method: got %d, want 404", status)
	}
}

func TestAFormOfTooManyValuesIsNotCalled(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.MaxValues, c.MaxDepth = 1000, 10 })
	c := r.from("")
	ones := "[" + strings.Repeat("1,", 2000) + "1]"
	for name, x := range map[string]struct {
		method string
		fields url.Values
		want   string
	}{
		"any":      {"test", url.Values{"param": {ones}}, "more than 1000 values"},
		"nested":   {"test", url.Values{"param": {"[" + strings.Repeat("[[]],", 600) + "1]"}}, "more than 1000 values"},
		"array":    {"relay.register", url.Values{"m.port": {"1"}, "m.plugins": {ones}}, "more than 1000 values"},
		"words":    {"relay.register", url.Values{"m.port": {"1"}, "m.plugins": {strings.Repeat("a,", 2000)}}, "more than 1000 values"},
		"further":  {"relay.register", url.Values{"m.port": {"1"}, "more": {`{"a": ` + ones + `}`}}, "more than 1000 values"},
		"together": {"relay.relay", url.Values{"m.host_id": {"x"}, "m.data": {ones[:1200] + "1]"}, "more": {`{"a": ` + ones[:1200] + `1]}`}}, "more than 1000 values"},
		"long":     {"test", url.Values{"param": {"[" + strings.Repeat(`"`+strings.Repeat("&", 1000)+`",`, 300) + "1]"}}, "more than 1048576 bytes as XML-RPC"},
		"deep":     {"test", url.Values{"param": {strings.Repeat("[", 50) + strings.Repeat("]", 50)}}, "nests too deeply"},
	} {
		status, body := c.submit(x.method, x.fields)
		if status != http.StatusOK || !strings.Contains(body, "Not called") || !strings.Contains(body, x.want) {
			t.Errorf("%s: got %d, want a page with %q, and no call:\n%.2000s", name, status, x.want, body)
		}
	}
	if _, body := c.submit("test", url.Values{"param": {"[1, 2"}}); !strings.Contains(body, "It answered") {
		t.Error("what is no JSON is not taken for words")
	}
	if _, body := c.submit("test", url.Values{"param": {`{"a_pass": "hush-hush"}`}}); !strings.Contains(body, hiddenText) {
		t.Error("a password among JSON is shown in the request")
	}
}

func TestFormOfAnotherOriginIsRefusedInWords(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	req, _ := http.NewRequest(http.MethodPost, "http://relay/methods/ping", strings.NewReader(""))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", "http://evil.example")
	resp, err := r.from("").client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("got %d, want 403", resp.StatusCode)
	}
}

// events reads server-sent events of one name.
func (c *caller) events(path, name string) <-chan string {
	c.r.t.Helper()
	client := *c.client
	client.Timeout = 0
	req, _ := http.NewRequestWithContext(c.r.t.Context(), http.MethodGet, "http://relay"+path, nil)
	resp, err := client.Do(req)
	if err != nil {
		c.r.t.Fatal(err)
	}
	c.r.t.Cleanup(func() { resp.Body.Close() })
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		c.r.t.Fatalf("content type: got %q, want text/event-stream", got)
	}
	out := make(chan string, 64)
	go func() {
		defer close(out)
		s := bufio.NewScanner(resp.Body)
		s.Buffer(nil, 1<<20)
		event := ""
		for s.Scan() {
			if n, found := strings.CutPrefix(s.Text(), "event: "); found {
				event = n
			} else if d, found := strings.CutPrefix(s.Text(), "data: "); found && event == name {
				out <- d
			}
		}
	}()
	return out
}

func containsAll(s string, parts ...string) bool {
	return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(s, p) })
}

// waitEvent waits for an event with all of some texts.
func waitEvent(t *testing.T, events <-chan string, want ...string) string {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case e, open := <-events:
			if !open {
				t.Fatalf("stream ended before an event with %q", want)
			}
			if containsAll(e, want...) {
				return e
			}
		case <-deadline:
			t.Fatalf("no event with %q", want)
		}
	}
}

func TestOverviewMovesWithTheSamplesOfAllProcesses(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	c := r.from("")
	events := c.events("/live/overview", "parts")
	waitEvent(t, events, "figures")
	ctx, cancel := context.WithCancel(t.Context())
	var putting sync.WaitGroup
	putting.Go(func() { // a slow broker may get only one of the two into a slot in time
		for ctx.Err() == nil {
			at := time.Now().Truncate(cluster.SampleEvery)
			for i, process := range []string{"a", "b"} {
				_ = r.clus.PutSample(ctx, cluster.Sample{
					Time: at, Process: process, Accepted: 100, Delivered: 500, Latency: []uint64{0, 0, 500}, Live: 7, Parked: uint64(i), Partitions: 16,
				})
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Until(at.Add(cluster.SampleEvery))):
			}
		}
	})
	defer putting.Wait()
	defer cancel()
	waitEvent(t, events, "14 live", "40", "200", "1 not reached", "c2")
}

func TestTablesMoveForThoseWhoLook(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	c := r.from("")
	id := c.register(9000, "nick", hostileNick, "notify_pass", "hush-hush")
	c.register(9001, "nick", "plain")
	all, found, one := c.events("/live/satellites", "parts"), c.events("/live/satellites?q=plain&page=7", "parts"), c.events("/live/satellites/"+id, "parts")
	ctx, cancel := context.WithCancel(t.Context())
	var slots sync.WaitGroup
	slots.Go(func() { // a new slot each second instead of each five
		for ctx.Err() == nil {
			r.history.reset()
			r.history.sample(cluster.Sample{Time: time.Now(), Process: "a"})
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	})
	defer slots.Wait()
	defer cancel()
	for name, got := range map[string]string{
		"all": waitEvent(t, all, "1 to 2 of 2"), "found": waitEvent(t, found, "1 to 1 of 1"), "one": waitEvent(t, one, "Called back at"),
	} {
		if strings.Contains(got, "<b ") || strings.Contains(got, "<script") || strings.Contains(got, "hush-hush") {
			t.Errorf("%s: got %s, want strangers' texts escaped and no password", name, got)
		}
	}
	if body := waitEvent(t, found, "plain"); strings.Contains(body, id) {
		t.Errorf("a search's stream has what does not match: %s", body)
	}
	c.must("relay.deregister", xmlrpc.NewStruct(xmlrpc.Field{Name: "host_id", Value: xmlrpc.NewString(id)}))
	waitEvent(t, one, "not registered any more")
	waitEvent(t, all, "1 to 1 of 1")
	if resp, _ := c.page("/live/satellites/10.9.9.9:1"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("stream of an unknown satellite: got %d, want 404", resp.StatusCode)
	}
}

func TestViewsAreSharedAndForgotten(t *testing.T) {
	t.Parallel()
	v := newViews()
	rendered := func(context.Context) ([]byte, error) { return nil, nil }
	a, leaveA := v.enter("x", rendered)
	b, leaveB := v.enter("x", rendered)
	_, leaveC := v.enter("y", rendered)
	if a != b {
		t.Error("two who ask for the same get two feeds")
	}
	later := time.Now().Add(time.Second)
	if first, second := v.oldest(later), v.oldest(later); first == second || first == nil || second == nil {
		t.Errorf("got %v and %v, want one after the other", first, second)
	}
	leaveA()
	leaveC()
	if len(v.byKey) != 1 {
		t.Errorf("got %d views, want the one that is looked at", len(v.byKey))
	}
	leaveB()
	select {
	case <-v.watched():
		t.Error("watched, though all have left")
	default:
	}
}

func TestChartsShowWhatIsKnownAndAnHourAtMost(t *testing.T) {
	t.Parallel()
	for known, want := range map[int]string{0: "the last 5 minutes", 60: "the last 5 minutes", 61: "the last 15 minutes", 181: "the last hour", int(hourSlots): "the last hour"} {
		slots := make([]slot, hourSlots)
		for i := range known {
			slots[len(slots)-1-i].at = 1
		}
		if got := spanFor(slots).Name; got != want {
			t.Errorf("%d slots known: got %q, want %q", known, got, want)
		}
	}
}

var counted = regexp.MustCompile(`"count":[1-9]`)

// relayUntil relays until an event shows it: a feed keeps its last event only,
// so that a slow reader may miss one.
func (c *caller) relayUntil(events <-chan string, id string, shows func(event string) bool) string {
	c.r.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		c.must("relay.relay", str("host_id", id, "data", "the body"))
		again := time.After(3 * time.Second)
		for waiting := true; waiting; {
			select {
			case e, open := <-events:
				if !open {
					c.r.t.Fatal("stream ended before an event showed a message")
				}
				if shows(e) {
					return e
				}
			case <-again:
				waiting = false
			}
		}
	}
	c.r.t.Fatal("no event showed a message")
	return ""
}

func TestFlowShowsWhoSendsAndBodiesOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	for _, bodies := range []bool{false, true} {
		t.Run(fmt.Sprint(bodies), func(t *testing.T) {
			t.Parallel()
			r := start(t, func(c *Config) { c.ShowBodies = bodies })
			c := r.from("")
			id := c.register(9000, "nick", hostileNick, "notify_pass", "hush-hush")
			c.register(9001)
			events := c.events("/live/flow", "flow")
			waitEvent(t, events, "nodes")
			got := c.relayUntil(events, id, func(e string) bool { return counted.MatchString(e) && strings.Contains(e, `"messages":`) })
			if !strings.Contains(got, id) || strings.Contains(got, "the body") != bodies || strings.Contains(got, "hush-hush") || strings.Contains(got, "<script") {
				t.Errorf("got %s, want the sender, and the body only if asked for", got)
			}
			var body string
			eventually(t, "the page has the message", func() bool {
				_, body = c.page("/flow")
				return strings.Contains(body, "<li data-id=")
			})
			if strings.Contains(body, "the body") != bodies || strings.Contains(body, "hush-hush") {
				t.Errorf("page with bodies %v: %s", bodies, body)
			}
		})
	}
}

func TestFlowCountsWhereItMayNotReadTheLog(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	c := r.from("")
	id := c.register(9000)
	r.flow.goBlind()
	r.flow.mu.Lock()
	r.flow.blind = r.flow.blind.Add(time.Hour)
	r.flow.mu.Unlock()
	events := c.events("/live/flow", "flow")
	waitEvent(t, events, "nodes")
	if got := c.relayUntil(events, id, counted.MatchString); strings.Contains(got, "messages") {
		t.Errorf("got %s, want a count and no messages", got)
	}
	if resp, body := c.page("/flow"); resp.StatusCode != http.StatusOK || !strings.Contains(body, "cannot read the log") {
		t.Errorf("page: got %d, want one that says so", resp.StatusCode)
	}
}

func TestViewersGoWhenTheRelayStops(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.DrainTimeout = time.Hour })
	events := r.from("").events("/live/overview", "parts")
	waitEvent(t, events, "figures")
	began := time.Now()
	if err := r.stop(); err != nil {
		t.Errorf("stop: got %v, want nil", err)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("stopping took %s: it waited for a viewer", took)
	}
}

func TestSatellitesAreFoundSortedAndPaged(t *testing.T) {
	t.Parallel()
	r := start(t, trustLoopback)
	records := map[int]*registry.TrafficRecord{}
	for i := range 120 {
		id := registry.ID(r.from("10.0.0.1").register(1000+i, "nick", fmt.Sprintf("Node %03d", i)))
		sat, _ := r.reg.Lookup(id)
		p := id.Partition()
		if records[p] == nil {
			records[p] = &registry.TrafficRecord{Partition: p, ReadTo: sat.Began + 1000}
		}
		state := registry.StateIdle
		if i%40 == 7 {
			state = registry.StateParked
		}
		records[p].Satellites = append(records[p].Satellites, registry.Traffic{ID: id, Generation: sat.Generation, Position: records[p].ReadTo - uint64(i), State: state})
	}
	for _, rec := range records {
		saved(t, rec.Partition, r.reg.LoadTraffic, r.reg.SaveTraffic, *rec)
	}
	c := r.from("10.0.0.1")
	for query, want := range map[string][]string{
		"":                               {"Node 000", "Node 099", "1 to 100 of 120", "page=2"},
		"?page=2":                        {"Node 100", "Node 119", "101 to 120 of 120"},
		"?page=99":                       {"Node 119"},
		"?q=node+00":                     {"Node 007", "1 to 10 of 10"},
		"?q=10.0.0.1:1003":               {"Node 003", "1 to 1 of 1"},
		"?state=parked":                  {"Node 007", "Node 047", "Node 087", "1 to 3 of 3"},
		"?sort=owed&dir=down":            {"Node 119", "Node 020", `aria-sort="descending"`},
		"?q=%3Cscript%3E":                {"No satellite matches", "&lt;script&gt;"},
		"?sort=nonsense&state=x&dir=y":   {"Node 000"},
		"?sort=seen&dir=down&q=node+119": {"Node 119"},
	} {
		// A page does not wait for figures that the broker is slow to give.
		var body string
		eventually(t, fmt.Sprintf("page %q with all of %q", query, want), func() bool {
			var resp *http.Response
			resp, body = c.page("/satellites" + query)
			return resp.StatusCode == http.StatusOK && containsAll(body, want...)
		})
		if query == "?q=node+00" && strings.Contains(body, "Node 010") {
			t.Errorf("%s: page has a satellite that does not match", query)
		}
	}
}

func TestPercentilesOfMergedHistograms(t *testing.T) {
	t.Parallel()
	var s slot
	if p := s.percentile(.5); !math.IsNaN(p) {
		t.Errorf("without deliveries: got %v, want none", p)
	}
	s.latency[4], s.latency[10] = 98, 2 // 0.5 to 1.024 ms, and 32 to 65 ms
	if p := s.percentile(.5); p < .512 || p > 1.024 {
		t.Errorf("half: got %v ms, want within its bucket", p)
	}
	if p := s.percentile(.99); p < 32 || p > 66 {
		t.Errorf("99%%: got %v ms, want within its bucket", p)
	}
}
