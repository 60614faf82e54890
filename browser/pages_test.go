package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/internal/app"
	"github.com/co2relay/co2relay/registry"
	"github.com/co2relay/co2relay/satellite/satellitetest"
)

// hostile is a nick that would do harm, were it not escaped everywhere.
const hostile = `<script>document.title="broken in"</script><img src=x onerror="document.title='broken in'">` + "\u202e"

// relay is a whole relay in this process.
type relay struct {
	url, data string
}

func startRelay(t *testing.T, change func(*app.Config)) *relay {
	t.Helper()
	cfg := app.DefaultConfig()
	cfg.Listen, cfg.Admin, cfg.Broker.Data, cfg.Broker.MinFree, cfg.Name = "127.0.0.1:0", "", filepath.Join(t.TempDir(), "data"), 1<<20, "browser test"
	cfg.Pinger.Interval, cfg.Frontend.MaxConnsPerAddr, cfg.Delivery.RetryCap = 2*time.Second, 5000, 2*time.Second
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	opened, ended := make(chan net.Addr, 1), make(chan error, 1)
	go func() { ended <- app.Serve(ctx, cfg, hclog.NewNullLogger(), func(a net.Addr) { opened <- a }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	select {
	case a := <-opened:
		return &relay{"http://" + a.String(), cfg.Broker.Data}
	case err := <-ended:
		ended <- nil
		t.Fatalf("serve ended at once: %v", err)
		return nil
	}
}

// crowd is 200 satellites under traffic, of which 3 are down and one has a
// hostile nick. It gives the hostile one's id.
func (r *relay) crowd(t *testing.T) string {
	t.Helper()
	fleet := satellitetest.StartFleet(t, 200, satellitetest.Options{Keep: satellitetest.KeepNone})
	ids := make([]string, len(fleet))
	for i, s := range fleet {
		nick := fmt.Sprintf("satellite %03d", i)
		if i == 50 {
			nick = hostile
		}
		var err error
		if ids[i], err = s.Register(t.Context(), r.url, nick); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range []int{20, 90, 150} {
		fleet[i].SetBehaviour(satellitetest.Behaviour{Mode: satellitetest.Down})
	}
	ctx, cancel := context.WithCancel(context.Background())
	var sending sync.WaitGroup
	sending.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			i := n * 37 % len(fleet)
			if n%5 == 0 {
				i = 50
			}
			if err := fleet[i].Relay(ctx, r.url, ids[i], "a body <b>with</b> tags", ""); err != nil && ctx.Err() == nil {
				t.Errorf("relay: %v", err)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(40 * time.Millisecond):
			}
		}
	})
	t.Cleanup(func() { cancel(); sending.Wait() })
	return ids[50]
}

// sound checks what must be true of every page.
const sound = `(() => {
	const bad = [];
	const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
	if (wide > 0) {
		const worst = [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll, pre")).slice(0, 3);
		bad.push("it overflows by " + wide + " px: " + worst.map(e => e.tagName + "." + e.className).join(", "));
	}
	if (document.querySelectorAll("h1").length !== 1) bad.push("not one h1");
	if (!document.documentElement.lang) bad.push("no language");
	if (document.title === "broken in" || !document.title) bad.push("title " + document.title);
	const name = e => (e.getAttribute("aria-label") || [...(e.labels || [])].map(l => l.textContent).join(" ") || e.textContent || "").trim();
	for (const e of document.querySelectorAll("a, button, input:not([type=hidden]), select, textarea"))
		if (e.tagName === "INPUT" || e.tagName === "TEXTAREA" || e.tagName === "SELECT" ? !(e.getAttribute("aria-label") || e.labels.length) : !name(e) && !e.querySelector("title")) bad.push("no label: " + e.outerHTML.slice(0, 120));
	for (const e of document.querySelectorAll("img")) if (!e.hasAttribute("alt")) bad.push("no alt: " + e.outerHTML);
	for (const e of document.querySelectorAll("svg")) if (!e.hasAttribute("aria-hidden") && !(e.getAttribute("role") && e.getAttribute("aria-label"))) bad.push("picture without a name: " + e.outerHTML.slice(0, 120));
	const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
	if (new Set(ids).size !== ids.length) bad.push("ids twice: " + ids.filter((id, i) => ids.indexOf(id) !== i));
	for (const e of document.querySelectorAll("main [onclick], main [onerror], main script, main [style]:not(circle)")) bad.push("strange: " + e.outerHTML.slice(0, 120));
	// Contrast by WCAG 2: 4.5, and 3 for large text.
	const rgb = s => { const m = s.match(/[\d.]+/g).map(Number); return m.length > 3 ? m : [...m, 1]; };
	const lum = c => { const f = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; return .2126 * f(c[0]) + .7152 * f(c[1]) + .0722 * f(c[2]); };
	const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] > .5) return c; } return [255, 255, 255, 1]; };
	const seen = new Set();
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walk.nextNode()) {
		const e = walk.currentNode.parentElement;
		if (!walk.currentNode.textContent.trim() || !e || e.closest("svg, .hidden, .skip, option, script") || !e.getClientRects().length) continue;
		const st = getComputedStyle(e), a = lum(rgb(st.color)), b = lum(behind(e));
		const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05), large = parseFloat(st.fontSize) >= 24 || parseFloat(st.fontSize) >= 18.66 && st.fontWeight >= 700;
		const key = e.tagName + "." + e.className;
		if (ratio < (large ? 3 : 4.5) && !seen.has(key)) { seen.add(key); bad.push("contrast " + ratio.toFixed(2) + " of " + key + ": " + walk.currentNode.textContent.trim().slice(0, 40)); }
	}
	return bad;
})()`

func (p *page) sound(where string) {
	p.t.Helper()
	var bad []string
	p.eval(sound, &bad)
	for _, b := range bad {
		p.t.Errorf("%s: %s", where, b)
	}
	p.quiet(where)
}

func TestEveryPageIsSoundInEveryLight(t *testing.T) {
	c := startChromium(t)
	r := startRelay(t, nil)
	id := r.crowd(t)
	p := c.open(t)
	p.goTo(r.url + "/")
	p.until("samples have come", `document.querySelector("#chart-out .line") && /3 not reached/.test(document.body.textContent)`)
	paths := []struct{ name, path string }{
		{"overview", "/"}, {"satellites", "/satellites"}, {"satellites-down", "/satellites?state=parked&sort=owed&dir=down"}, {"satellite", "/satellites/" + id},
		{"flow", "/flow"}, {"methods", "/methods"}, {"method", "/methods/relay.register"}, {"method-any", "/methods/test"}, {"system", "/system"}, {"not-found", "/nowhere"},
	}
	for _, look := range []struct {
		name          string
		width, height int
		dark, mobile  bool
		scripts       bool
	}{
		{"light", 1280, 900, false, false, true}, {"dark", 1280, 900, true, false, true}, {"phone", 360, 780, false, true, true},
		{"phone-dark", 320, 640, true, true, true}, {"wall", 2560, 1440, true, false, true}, {"without-scripts", 1024, 768, false, false, false},
	} {
		p.size(look.width, look.height, look.mobile)
		p.dark(look.dark)
		p.scripts(look.scripts)
		for _, x := range paths {
			p.goTo(r.url + x.path)
			if x.name == "flow" && look.scripts {
				p.until("a message flies", `document.querySelector("#sparks circle")`)
			}
			if x.name == "not-found" { // of which the browser says so
				p.mu.Lock()
				p.problems = nil
				p.mu.Unlock()
			}
			p.sound(look.name + " " + x.path)
			p.screenshot(look.name + "-" + x.name)
		}
	}
}

func TestAPersonFindsTheWayThroughThePages(t *testing.T) {
	c := startChromium(t)
	r := startRelay(t, func(cfg *app.Config) { cfg.Frontend.ShowBodies = true })
	id := r.crowd(t)
	for _, scripts := range []bool{true, false} {
		t.Run(fmt.Sprintf("scripts %v", scripts), func(t *testing.T) {
			p := c.open(t)
			p.size(1280, 900, false)
			p.scripts(scripts)
			p.goTo(r.url + "/")
			if scripts {
				p.until("the page is live", `document.querySelector("#pulse.on")`)
				var was string
				p.eval(`document.querySelector("[data-part=figures] .lesser").textContent`, &was)
				quoted, _ := json.Marshal(was)
				p.until("the figures move", `document.querySelector("[data-part=figures] .lesser").textContent !== `+string(quoted))
			}
			// Every page by its link.
			for _, x := range []struct{ link, heading string }{
				{"/satellites", "Satellites"}, {"/flow", "Live flow"}, {"/methods", "Methods"}, {"/system", "System"}, {"/", "Overview"},
			} {
				p.during(func() { p.click(`nav a[href="` + x.link + `"]`) })
				p.until(x.heading, `document.querySelector("h1").textContent === "`+x.heading+`" && document.querySelector("nav [aria-current=page]")`)
				p.sound(x.heading)
			}
			if scripts {
				p.staysLive(r.url)
			}
			// The hostile satellite: searched for, opened, its text is text.
			p.during(func() { p.click(`nav a[href="/satellites"]`) })
			p.fill("#q", "<script>")
			p.during(func() { p.key("Enter", 13) })
			p.until("one is found", `document.querySelectorAll("tbody tr").length === 1`)
			p.during(func() { p.click("tbody th a") })
			p.until("its page", `document.querySelector("h1").textContent.startsWith("<script>")`)
			p.until("its events", `/registered/.test(document.querySelector(".events").textContent)`)
			p.until("its own page's link", `document.querySelector('a[href="http://`+id+`/"]')`)
			p.sound("hostile satellite")
			// Sorting by the backlog brings those that are down to the top.
			p.during(func() { p.click(`nav a[href="/satellites"]`) })
			p.during(func() { p.click(`thead th:nth-child(3) a`) })
			p.until("sorted", `document.querySelector("th[aria-sort=descending]") && document.querySelector("tbody .state.parked")`)
			p.during(func() { p.click(`.pager a[rel=next]`) })
			p.until("the second page", `/101 to 200 of 200/.test(document.querySelector(".pager").textContent)`)
			// A call by a form.
			p.during(func() { p.click(`nav a[href="/methods"]`) })
			p.during(func() { p.click(`.index a[href="/methods/relay.get_satellite_props"]`) })
			p.fill("#f0", id)
			p.during(func() { p.click("form.call button") })
			p.until("the answer", `/It answered/.test(document.querySelector("#outcome").textContent) && document.body.textContent.includes("ping_count")`)
			p.sound("answer")
			p.screenshot(fmt.Sprintf("answer-%v", scripts))
			p.fill("#f0", "nobody")
			p.during(func() { p.click("form.call button") })
			p.until("the fault", `/fault/.test(document.querySelector("#outcome").textContent)`)
			p.quiet("fault")
			if !scripts {
				return
			}
			p.goTo(r.url + "/flow")
			p.until("a body is shown", `[...document.querySelectorAll("#messages q")].some(q => q.textContent === "a body <b>with</b> tags")`)
			p.click("#pause")
			p.until("it pauses", `document.querySelector("#pause").getAttribute("aria-pressed") === "true"`)
			// The keyboard: the first stop skips to the content.
			p.goTo(r.url + "/")
			p.key("Tab", 9)
			p.until("skip link", `document.activeElement.className === "skip" && document.activeElement.getBoundingClientRect().left >= 0`)
			p.sound("keyboard")
		})
	}
}

// staysLive looks at the table, a search in it, and one satellite's page until
// each has moved by itself.
func (p *page) staysLive(url string) {
	p.t.Helper()
	for _, path := range []string{"/satellites", "/satellites?q=satellite+00&sort=received&dir=down"} {
		p.goTo(url + path)
		p.eval(`window.was = document.querySelector("[data-part=table]").textContent`, nil)
		p.until("the table moves: "+path, `document.querySelector("#pulse.on") && document.querySelector("[data-part=table]").textContent !== window.was`)
		p.sound(path + " after it moved")
	}
	p.until("the search still holds", `document.querySelectorAll("tbody tr").length === 10 && document.querySelector("th[aria-sort=descending]")`)
	p.during(func() { p.click("tbody th a") })
	p.eval(`window.was = document.querySelector("[data-part=details]").textContent`, nil)
	p.until("a satellite's page moves", `document.querySelector("[data-part=details]").textContent !== window.was`)
	p.sound("satellite after it moved")
	p.goTo(url + "/system")
	p.eval(`window.was = document.querySelector("[data-part=state]").textContent`, nil)
	p.until("the system page moves", `document.querySelector("[data-part=state]").textContent !== window.was`)
	p.sound("system after it moved")
}

func TestTenThousandSatellitesInABrowser(t *testing.T) {
	c := startChromium(t)
	r := startRelay(t, func(cfg *app.Config) {
		// Each satellite has its own moment of every interval: of an hour's, some
		// of those that never existed would be pinged each second.
		cfg.Pinger.Interval = 10 * 365 * 24 * time.Hour
		// A registration that is repeated for want of an answer takes a seat more
		// for a while.
		cfg.MaxSats = 10_100
	})
	r.register(t, 10_000)
	p := c.open(t)
	p.size(1280, 900, false)
	p.goTo(r.url + "/satellites")
	p.until("all are counted", `/of 10,000/.test(document.querySelector(".pager").textContent)`)
	p.sound("10,000 satellites")
	p.screenshot("10000-satellites")
	var took float64
	p.eval(`(async () => { await fetch("/satellites"); const t = performance.now(); const a = await fetch("/satellites"); await a.text(); return performance.now() - t })()`, &took)
	t.Logf("first page of 10,000 satellites, as the browser sees it: %.1f ms", took)
	p.goTo(r.url + "/flow")
	p.until("the picture", `document.querySelector(".node.others")`)
	p.sound("flow of 10,000 satellites")
}

// register puts satellites into the registry that never existed.
func (r *relay) register(t *testing.T, n int) {
	t.Helper()
	clus, err := cluster.Connect(t.Context(), cluster.Options{Dir: r.data}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer clus.Close()
	reg := registry.New(clus, hclog.NewNullLogger())
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // else each has 15 seconds
	defer cancel()
	var g errgroup.Group
	g.SetLimit(64)
	for i := range n {
		g.Go(func() error {
			_, _, err := reg.Register(ctx, registry.Registration{
				Addr: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(i+20000)), Nick: fmt.Sprintf("one of many %05d", i),
			})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}
