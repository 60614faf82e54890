package frontend

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
	"github.com/co2relay/co2relay/internal/xmlrpc"
	"github.com/co2relay/co2relay/registry"
)

// page gets a page.
func (c *caller) page(path string) (*http.Response, string) {
	c.r.t.Helper()
	resp, err := c.client.Get("http://relay" + path)
	if err != nil {
		c.r.t.Fatalf("get %s: %v", path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.r.t.Fatalf("read %s: %v", path, err)
	}
	return resp, string(body)
}

const hostileNick = `<script>alert("x")</script><b onmouseover='x'>&amp;` + "\u202e"

func TestEveryPageIsServedSafely(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.Maintainer = "A & B <x>" })
	c := r.from("")
	id := c.register(9000, "nick", hostileNick, "notify_pass", "hush-hush", "plugins", xmlrpc.NewArray(xmlrpc.NewString("<i>plug</i>")))
	sat, _ := r.reg.Lookup(registry.ID(id))
	save(t, r.reg, sat)
	paths := []string{"/", "/flow", "/system", "/satellites?q=%3Cscript%3E&sort=owed&dir=down&state=parked", "/methods", "/methods/", "/satellites", "/satellites/", "/satellites?page=2", "/satellites?page=-1&x=<script>", "/satellites/" + id}
	for name := range everyName {
		paths = append(paths, "/methods/"+name)
	}
	for _, path := range paths {
		resp, body := c.page(path)
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: got %d, want 200", path, resp.StatusCode)
		}
		for name, want := range map[string]string{
			"Content-Type": "text/html; charset=utf-8", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cache-Control": "no-store",
		} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s: header %s is %q, want %q", path, name, got, want)
			}
		}
		if csp := resp.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: content security policy %q, want a strict one", path, csp)
		}
		body = regexp.MustCompile(`<script src="/static/[0-9a-f]+/app\.js" defer></script>`).ReplaceAllString(body, "") // the only one
		body = strings.Replace(body, `href="http://`+id+`/"`, "", 1)                                                    // the satellite's own page
		for _, bad := range []string{"<script", "hush-hush", "<b ", "<i>", "onmouseover='", "ZgotmplZ", "<no value>", "style=", "A & B <x>"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s: the page has %q", path, bad)
			}
		}
		if found := regexp.MustCompile(`(?:src|href|action)="?(?:https?:)?//`).FindString(body); found != "" {
			t.Errorf("%s: the page has an external address: %s", path, found)
		}
	}
	_, body := c.page("/satellites/" + id)
	for _, want := range []string{html.EscapeString("<i>plug</i>"), "not reached", "2.50 ms", "refused"} {
		if !strings.Contains(body, want) {
			t.Errorf("satellite's page lacks %q", want)
		}
	}
}

func TestPagesLinkOnlyToPagesThatExist(t *testing.T) {
	t.Parallel()
	r := start(t, trustLoopback)
	r.from("2001:db8::1").register(9000)
	for port := range perPage + 1 {
		r.from("10.0.0.1").register(1000 + port)
	}
	c := r.from("10.0.0.1")
	seen := map[string]bool{"/": true}
	for queue := []string{"/"}; len(queue) > 0; queue = queue[1:] {
		resp, body := c.page(queue[0])
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: got %d, want 200", queue[0], resp.StatusCode)
		}
		for _, m := range regexp.MustCompile(`(?:href|src)="([^"#]+)`).FindAllStringSubmatch(body, -1) {
			if path := html.UnescapeString(m[1]); !seen[path] && strings.HasPrefix(path, "/") {
				seen[path] = true
				queue = append(queue, path)
			}
		}
	}
	for _, path := range []string{"/satellites?page=2", "/satellites/" + url.PathEscape("[2001:db8::1]:9000"), "/satellites/10.0.0.1:1000", "/methods/web.ping"} {
		if !seen[path] && !seen[strings.NewReplacer("%5B", "[", "%5D", "]").Replace(path)] {
			t.Errorf("no page links to %s", path)
		}
	}
}

func TestUnknownPagesAreNotFound(t *testing.T) {
	t.Parallel()
	c := start(t, nil).from("")
	for _, path := range []string{"/nope", "/methods/nope", "/methods/%3Cscript%3E", "/satellites/10.0.0.1:1", "/satellites/x", "/RPC2", "/static/x/style.css", "/../etc/passwd"} {
		resp, body := c.page(path)
		if resp.StatusCode != http.StatusNotFound || !strings.Contains(body, "<h1>") || strings.Contains(body, "<script>") {
			t.Errorf("%s: got %d, want a page with 404", path, resp.StatusCode)
		}
	}
}

func TestHeadIsAsGetWithoutABody(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	c := r.raw(t).send("HEAD /methods HTTP/1.1\r\nHost: relay\r\n\r\n")
	resp, err := http.ReadResponse(c.br, &http.Request{Method: "HEAD"})
	if err != nil || resp.StatusCode != 200 || resp.ContentLength < 1000 {
		t.Fatalf("got %v (%v), want 200 and the page's length", resp, err)
	}
	if _, body := c.send(post11(pingDoc, "")).answer(); !strings.Contains(body, "pong") {
		t.Errorf("next request on the connection: got %q, want pong", body)
	}
}

func TestAssetsMayBeKeptForEver(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	for path := range r.pages.assets {
		resp, body := r.from("").page(path)
		if resp.StatusCode != 200 || body == "" || !strings.Contains(resp.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: got %d, %d bytes, Cache-Control %q", path, resp.StatusCode, len(body), resp.Header.Get("Cache-Control"))
		}
		if strings.Contains(body, "http://") && !strings.Contains(body, "www.w3.org/2000/svg") || strings.Contains(body, "@import") {
			t.Errorf("%s has an external address", path)
		}
	}
}

func TestTheWebInterfaceCanBeTurnedOff(t *testing.T) {
	t.Parallel()
	c := start(t, func(c *Config) { c.Web = false }).from("")
	for _, path := range []string{"/", "/methods", "/satellites"} {
		if resp, _ := c.page(path); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: got %d, want 404", path, resp.StatusCode)
		}
	}
	c.must("ping")
}

func TestPagesAreServedWithoutABroker(t *testing.T) {
	t.Parallel()
	srv := clustertest.StartServer(t, t.TempDir())
	r := startOn(t, clustertest.ConnectWith(t, srv, clustertest.Layout), nil)
	c := r.from("")
	id := c.register(9000)
	srv.Close()
	for _, path := range []string{"/", "/satellites", "/satellites/" + id, "/methods"} {
		resp, body := c.page(path)
		if resp.StatusCode != 200 || path != "/methods" && !strings.Contains(body, "cannot be read") {
			t.Errorf("%s: got %d, want 200 and a notice", path, resp.StatusCode)
		}
		if strings.Contains(body, "up to date") || strings.HasPrefix(path, "/satellites") && !strings.Contains(body, "not known") {
			t.Errorf("%s: the page says how a satellite is of which nothing was ever read", path)
		}
	}
}

func TestFiguresThatCannotBeReadAreShownAsTheyWere(t *testing.T) {
	t.Parallel()
	srv := clustertest.StartServer(t, t.TempDir())
	r := startOn(t, clustertest.ConnectWith(t, srv, clustertest.Layout), nil)
	c := r.from("")
	id := c.register(9000)
	sat, _ := r.reg.Lookup(registry.ID(id))
	save(t, r.reg, sat)
	paths := []string{"/satellites", "/satellites/" + id}
	for _, path := range paths {
		eventually(t, "the figures are read", func() bool {
			_, body := c.page(path)
			return strings.Contains(body, "not reached") && strings.Contains(body, "2.50 ms")
		})
	}
	srv.Close()
	for _, path := range paths {
		var body string
		eventually(t, "the page says that they are old", func() bool {
			_, body = c.page(path)
			return strings.Contains(body, "cannot be read")
		})
		if !strings.Contains(body, "2.50 ms") || strings.Contains(body, "up to date") {
			t.Errorf("%s: want what was read last", path)
		}
	}
}

// sleeper is a worker that does nothing.
type sleeper struct{}

func (sleeper) Claimed(int, uint64, []byte)         {}
func (sleeper) Release(context.Context, int) []byte { return nil }
func (sleeper) Lost(int)                            {}

func TestTheOverviewNamesWorkersAndNodes(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var working sync.WaitGroup
	defer working.Wait()
	defer cancel()
	member := r.clus.Join(cluster.JoinOptions{Role: "delivery", Name: hostileNick, Sole: true}, sleeper{}, clustertest.Logger(t))
	working.Go(func() { _ = member.Run(ctx) })
	working.Go(func() {
		for ctx.Err() == nil {
			member.Progress() // else its lease ends after 3 seconds
			time.Sleep(100 * time.Millisecond)
		}
	})
	s, err := r.clus.Broker(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the overview shows the worker, its partitions and the node", func() bool {
		_, body := r.from("").page("/")
		return strings.Contains(body, html.EscapeString(hostileNick)) && strings.Contains(body, "32 of 32") && strings.Contains(body, s.Server)
	})
}

func TestTheOverviewGivesAnAddressThatWorks(t *testing.T) {
	t.Parallel()
	issuer := httptest.NewTLSServer(nil) // for its certificate
	defer issuer.Close()
	pair := issuer.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := map[string]*pem.Block{"cert": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, "key": {Type: "PRIVATE KEY", Bytes: key}}
	for name, block := range files {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := start(t, func(c *Config) { c.TLSCert, c.TLSKey = filepath.Join(dir, "cert"), filepath.Join(dir, "key") })
	resp, err := issuer.Client().Get("https://" + r.addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(body), "https://"+r.addr+"/") || strings.Contains(string(body), "http://"+r.addr) {
		t.Error("the overview of a relay with a certificate gives no https address, or another one too")
	}
	if _, body := start(t, nil).from("").page("/"); !strings.Contains(body, "http://relay/") {
		t.Error("the overview of a relay without a certificate gives no http address")
	}
}

func TestEveryKindOfEventHasWords(t *testing.T) {
	t.Parallel()
	kinds := cluster.EventKinds()
	for _, kind := range kinds {
		if eventWords[kind][0] == "" {
			t.Errorf("event %s has no words", kind)
		}
	}
	if len(eventWords) != len(kinds) {
		t.Errorf("got words for %d kinds of events, want %d", len(eventWords), len(kinds))
	}
}

func TestTextsForPeople(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		number10(0): "0", number10(999): "999", number10(1000): "1,000", number10(uint64(1234567)): "1,234,567", number10(-1234): "-1,234",
		shortNumber(9_999_999): "9,999,999", shortNumber(uint64(12_345_678)): "12.35 million", shortNumber(int64(7_000_000_000)): "7 billion",
		sizeText(0): "0 bytes", sizeText(1023): "1023 bytes", sizeText(1536): "1.5 KiB", sizeText(int64(20 << 30)): "20 GiB", sizeText(5 << 50): "5120 TiB",
		roundTripText(-1): "–", roundTripText(0.126): "0.13 ms", roundTripText(123.4): "123 ms",
		durationText(0): "0 seconds", durationText(61 * time.Second): "1 minute 1 second", durationText(49*time.Hour + time.Second): "2 days 1 hour",
		durationText(24*time.Hour + time.Second): "1 day", whenText(time.Time{}): "never", cutText(strings.Repeat("é", 61)): strings.Repeat("é", 60) + "…",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestServeForLooking serves a relay with some satellites until it is
// interrupted, for people who work on the pages: CO2_LOOK=1 go test -run Looking -v.
func TestServeForLooking(t *testing.T) {
	if os.Getenv("CO2_LOOK") == "" {
		t.Skip("only with CO2_LOOK=1: it waits for an interrupt")
	}
	r := start(t, func(c *Config) { trustLoopback(c); c.Maintainer, c.MaintainerEmail = "Ada Lovelace", "ada@example.org" })
	records := map[int]*registry.TrafficRecord{}
	pings := map[int]*registry.PingRecord{}
	nicks := []string{"", "gallery-left", "oscillator of the north room", hostileNick, strings.Repeat("long", 50), "Übermaschine"}
	for i := range 230 {
		nick := nicks[i%len(nicks)]
		id := registry.ID(r.from(fmt.Sprintf("10.20.%d.%d", i/200, i%200+1)).register(9000+i, "nick", nick, "plugins", xmlrpc.NewArray(xmlrpc.NewString("osc"), xmlrpc.NewString("midi"))))
		sat, _ := r.reg.Lookup(id)
		p := id.Partition()
		if records[p] == nil {
			records[p] = &registry.TrafficRecord{Partition: p, ReadTo: sat.Began + 5000, Totals: registry.Totals{Recipients: 52_000, Delivered: 51_000, Refused: 7}}
			pings[p] = &registry.PingRecord{Partition: p}
		}
		state := []registry.State{registry.StateLive, registry.StateIdle, registry.StateLive, registry.StateBehind, registry.StateLive, registry.StateLive, registry.StateParked}[i%7]
		tr := registry.Traffic{ID: id, Generation: sat.Generation, Position: sat.Began + 5000, Sent: uint64(i * 37), Own: uint64(i * 37), Received: 48_111, Refused: uint64(i % 3), SentAt: time.Now().Add(-time.Minute), ReceivedAt: time.Now(), State: state}
		ping := registry.Ping{ID: id, Generation: sat.Generation, Count: 1441, Fails: 2, Current: 0.8 + float64(i%20)*1.7, Min: .4, Max: 130, Sum: 2000, At: time.Now()}
		switch state {
		case registry.StateBehind:
			tr.Position -= 1200
		case registry.StateParked:
			tr.Position, tr.Attempts, tr.RetryAt, tr.LastError = sat.Began, 12, time.Now().Add(40*time.Second), "dial tcp 10.20.0.7:9006: connect: connection refused"
			ping.Current, ping.Failing = -1, 9
		}
		records[p].Satellites = append(records[p].Satellites, tr)
		pings[p].Satellites = append(pings[p].Satellites, ping)
	}
	for p := range records {
		saved(t, p, r.reg.LoadTraffic, r.reg.SaveTraffic, *records[p])
		saved(t, p, r.reg.LoadPing, r.reg.SavePing, *pings[p])
	}
	t.Logf("look at http://%s/", r.addr)
	if path := os.Getenv("CO2_LOOK_ADDR"); path != "" {
		if err := os.WriteFile(path, []byte(r.addr), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	<-interrupted
}
