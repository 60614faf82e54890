package browser

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

const patience = 40 * time.Second

// chromium is a running browser. It is spoken to in the DevTools protocol over
// a pair of pipes: messages are JSON, each ended by a zero byte.
type chromium struct {
	cmd *exec.Cmd
	in  *os.File

	mu      sync.Mutex
	next    int
	waiting map[int]chan answer
	pages   map[string]*page // by session
	closed  chan struct{}
}

type answer struct {
	Result json.RawMessage
	Err    error
}

// findChromium gives the browser's path. Without one the test is skipped, or
// fails where peers are required.
func findChromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CO2_REQUIRE_PEERS") == "1" {
		t.Fatal("no chromium here, and CO2_REQUIRE_PEERS=1: run interop/install-peers.sh")
	}
	t.Skip("NOT TESTED: the pages in a browser, as there is no chromium here (interop/install-peers.sh installs it)")
	return ""
}

func startChromium(t *testing.T) *chromium {
	t.Helper()
	path := findChromium(t)
	toChild, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, fromChild, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &chromium{in: in, waiting: make(map[int]chan answer), pages: make(map[string]*page), closed: make(chan struct{})}
	c.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), path, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
		"--disable-dev-shm-usage", "--no-first-run", "--disable-extensions", "--disable-background-networking", "--hide-scrollbars",
		"--force-color-profile=srgb", "--user-data-dir="+t.TempDir(), "about:blank")
	c.cmd.ExtraFiles = []*os.File{toChild, fromChild} // its descriptors 3 and 4
	if err := c.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	toChild.Close()
	fromChild.Close()
	go c.read(out)
	t.Cleanup(func() {
		_, _ = c.call("", "Browser.close", nil)
		ended := make(chan struct{})
		go func() { _ = c.cmd.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = c.cmd.Process.Kill()
			<-ended
		}
		in.Close()
		out.Close()
	})
	return c
}

func (c *chromium) read(out *os.File) {
	defer close(c.closed)
	r := bufio.NewReaderSize(out, 1<<20)
	for {
		text, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var m struct {
			ID        int
			SessionID string `json:"sessionId"`
			Method    string
			Params    json.RawMessage
			Result    json.RawMessage
			Error     *struct{ Message string }
		}
		if json.Unmarshal(text[:len(text)-1], &m) != nil {
			continue
		}
		c.mu.Lock()
		wait, p := c.waiting[m.ID], c.pages[m.SessionID]
		delete(c.waiting, m.ID)
		c.mu.Unlock()
		switch {
		case m.ID != 0 && wait != nil:
			a := answer{Result: m.Result}
			if m.Error != nil {
				a.Err = errors.New(m.Error.Message)
			}
			wait <- a
		case p != nil:
			p.event(m.Method, m.Params)
		}
	}
}

func (c *chromium) call(session, method string, params any) (json.RawMessage, error) {
	if params == nil {
		params = struct{}{}
	}
	c.mu.Lock()
	c.next++
	id := c.next
	wait := make(chan answer, 1)
	c.waiting[id] = wait
	m := map[string]any{"id": id, "method": method, "params": params}
	if session != "" {
		m["sessionId"] = session
	}
	b, err := json.Marshal(m)
	if err == nil {
		_, err = c.in.Write(append(b, 0))
	}
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case a := <-wait:
		return a.Result, a.Err
	case <-c.closed:
		return nil, errors.New("chromium has ended")
	case <-time.After(patience):
		return nil, fmt.Errorf("%s: no answer within %s", method, patience)
	}
}

// page is one tab.
type page struct {
	t       *testing.T
	c       *chromium
	session string

	mu       sync.Mutex
	loaded   chan struct{} // closed at the next load event
	problems []string      // what the console said, and what was thrown
}

type object = map[string]any

func (c *chromium) open(t *testing.T) *page {
	t.Helper()
	var target struct{ TargetID string }
	var attached struct{ SessionID string }
	must := func(raw json.RawMessage, err error, into any) {
		t.Helper()
		if err == nil {
			err = json.Unmarshal(raw, into)
		}
		if err != nil {
			t.Fatalf("open a tab: %v", err)
		}
	}
	raw, err := c.call("", "Target.createTarget", object{"url": "about:blank"})
	must(raw, err, &target)
	raw, err = c.call("", "Target.attachToTarget", object{"targetId": target.TargetID, "flatten": true})
	must(raw, err, &attached)
	p := &page{t: t, c: c, session: attached.SessionID, loaded: make(chan struct{})}
	c.mu.Lock()
	c.pages[p.session] = p
	c.mu.Unlock()
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		p.do(domain+".enable", nil)
	}
	t.Cleanup(func() { _, _ = c.call("", "Target.closeTarget", object{"targetId": target.TargetID}) })
	return p
}

func (p *page) do(method string, params any) json.RawMessage {
	p.t.Helper()
	raw, err := p.c.call(p.session, method, params)
	if err != nil {
		p.t.Fatalf("%s: %v", method, err)
	}
	return raw
}

func (p *page) event(method string, params json.RawMessage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch method {
	case "Page.loadEventFired":
		close(p.loaded)
		p.loaded = make(chan struct{})
	case "Runtime.exceptionThrown":
		p.problems = append(p.problems, string(params))
	case "Runtime.consoleAPICalled":
		p.problems = append(p.problems, "console: "+string(params))
	case "Log.entryAdded":
		var log struct{ Entry struct{ Level string } }
		if json.Unmarshal(params, &log) == nil && log.Entry.Level == "verbose" {
			return // advice on style
		}
		p.problems = append(p.problems, "log: "+string(params))
	}
}

// during does something that loads a page, and waits for it.
func (p *page) during(do func()) {
	p.t.Helper()
	p.mu.Lock()
	loaded := p.loaded
	p.mu.Unlock()
	do()
	select {
	case <-loaded:
	case <-time.After(patience):
		p.t.Fatal("the page did not load")
	}
}

func (p *page) goTo(url string) {
	p.t.Helper()
	p.during(func() { p.do("Page.navigate", object{"url": url}) })
}

// eval evaluates an expression, promises awaited.
func (p *page) eval(expression string, into any) {
	p.t.Helper()
	raw := p.do("Runtime.evaluate", object{"expression": expression, "returnByValue": true, "awaitPromise": true})
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	if err := json.Unmarshal(raw, &r); err != nil || r.ExceptionDetails != nil {
		p.t.Fatalf("evaluate %s: %v %s", expression, err, r.ExceptionDetails)
	}
	if into != nil {
		if err := json.Unmarshal(r.Result.Value, into); err != nil {
			p.t.Fatalf("evaluate %s: got %s: %v", expression, raw, err)
		}
	}
}

// until waits for an expression to be true.
func (p *page) until(what, expression string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		ok := false
		p.eval("!!("+expression+")", &ok)
		if ok {
			return
		}
		if time.Now().After(deadline) {
			p.screenshot("failed")
			p.t.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// click clicks on the middle of the first element that a selector finds, as a
// mouse does.
func (p *page) click(selector string) {
	p.t.Helper()
	quoted, _ := json.Marshal(selector)
	var at struct{ X, Y float64 }
	p.eval(fmt.Sprintf(`(() => { const e = document.querySelector(%s); if (!e) throw "nothing is "+%s; e.scrollIntoView({block: "center", behavior: "instant"});
		const r = e.getClientRects()[0]; return {X: r.x + r.width/2, Y: r.y + r.height/2}; })()`, quoted, quoted), &at)
	for _, kind := range []string{"mousePressed", "mouseReleased"} {
		p.do("Input.dispatchMouseEvent", object{"type": kind, "x": at.X, "y": at.Y, "button": "left", "clickCount": 1})
	}
}

// fill types a text into a control.
func (p *page) fill(selector, text string) {
	p.t.Helper()
	quoted, _ := json.Marshal(selector)
	p.eval(fmt.Sprintf(`(() => { const e = document.querySelector(%s); e.focus(); e.select && e.select(); return true })()`, quoted), nil)
	p.do("Input.insertText", object{"text": text})
}

func (p *page) key(key string, code int) {
	p.t.Helper()
	for _, kind := range []string{"keyDown", "keyUp"} {
		event := object{"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
		if key == "Enter" && kind == "keyDown" {
			event["text"] = "\r"
		}
		p.do("Input.dispatchKeyEvent", event)
	}
}

func (p *page) size(width, height int, mobile bool) {
	p.t.Helper()
	scale := 1
	if mobile {
		scale = 2
	}
	p.do("Emulation.setDeviceMetricsOverride", object{"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile})
}

func (p *page) dark(on bool) {
	p.t.Helper()
	value := "light"
	if on {
		value = "dark"
	}
	p.do("Emulation.setEmulatedMedia", object{"features": []object{{"name": "prefers-color-scheme", "value": value}}})
}

func (p *page) scripts(on bool) {
	p.t.Helper()
	p.do("Emulation.setScriptExecutionDisabled", object{"value": !on})
}

// quiet fails if the console said anything since the last call.
func (p *page) quiet(where string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, problem := range p.problems {
		p.t.Errorf("%s: the browser complains: %s", where, problem)
	}
	p.problems = nil
}

// screenshot writes what is in the window to out/screens.
func (p *page) screenshot(name string) {
	p.t.Helper()
	raw := p.do("Page.captureScreenshot", object{"format": "png"})
	var shot struct{ Data string }
	var b []byte
	err := json.Unmarshal(raw, &shot)
	if err == nil {
		b, err = base64.StdEncoding.DecodeString(shot.Data)
	}
	dir := filepath.Join("..", "out", "screens")
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), b, 0o644)
	}
	if err != nil {
		p.t.Errorf("screenshot %s: %v", name, err)
	}
}
