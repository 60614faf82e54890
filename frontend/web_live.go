package frontend

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

const (
	// maxViewers bounds the browsers that watch one frontend at the same time.
	maxViewers = 512
	// heartbeat keeps proxies from closing a stream on which nothing happens,
	// and finds out about browsers that went away.
	heartbeat = 15 * time.Second
)

// feed is one stream of server-sent events. What it says is computed once, for
// all who watch, and only while somebody does.
type feed struct {
	mu      sync.Mutex
	viewers int
	begun   chan struct{} // closed when the first viewer comes; made anew when the last goes
	last    []byte        // the event that a newcomer gets at once
	next    chan struct{} // closed when last is replaced
}

func newFeed() *feed {
	return &feed{begun: make(chan struct{}), next: make(chan struct{})}
}

func (d *feed) enter() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.viewers++; d.viewers == 1 {
		close(d.begun)
	}
}

func (d *feed) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.viewers--; d.viewers == 0 {
		d.begun = make(chan struct{})
		d.last = nil
	}
}

// watched gives a channel that is closed while somebody watches.
func (d *feed) watched() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.begun
}

// send replaces the event for all viewers. One who has not taken the last one
// never gets it: a slow browser shows less, and costs no memory.
func (d *feed) send(event []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.viewers == 0 {
		return
	}
	d.last = event
	close(d.next)
	d.next = make(chan struct{})
}

func (d *feed) now() ([]byte, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last, d.next
}

// serverEvent writes an event of the given name; JSON has no line breaks.
func serverEvent(name string, data any) ([]byte, error) {
	body, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("encode live event %s: %w", name, err)
	}
	return fmt.Appendf(nil, "event: %s\ndata: %s\n\n", name, body), nil
}

// serveLive streams a feed to one browser until it goes or the relay stops.
func (f *Frontend) serveLive(w http.ResponseWriter, r *http.Request, d *feed) {
	if n := f.viewers.Add(1); n > maxViewers {
		f.viewers.Add(-1)
		w.Header().Set("Retry-After", "60")
		f.refuse(w, http.StatusServiceUnavailable, "viewers", "as many browsers watch this relay as it serves at the same time; the pages work without")
		return
	}
	defer f.viewers.Add(-1)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	ctl := http.NewResponseController(w)
	write := func(b []byte) bool {
		_ = ctl.SetWriteDeadline(time.Now().Add(f.cfg.BodyTimeout))
		if _, err := w.Write(b); err != nil {
			return false
		}
		return ctl.Flush() == nil
	}
	if r.Method == http.MethodHead || !write([]byte("retry: 3000\n\n")) {
		return
	}
	d.enter()
	defer d.leave()
	f.stream(r.Context(), d, write)
}

// stream writes a feed's events until ctx ends, the relay stops or a write
// fails.
func (f *Frontend) stream(ctx context.Context, d *feed, write func([]byte) bool) {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	event, next := d.now()
	for {
		if event != nil && !write(event) {
			return
		}
		event = nil
		select {
		case <-next:
			event, next = d.now()
		case <-beat.C:
			event = []byte(":\n\n")
		case <-ctx.Done():
			return
		case <-f.stopping:
			return
		}
	}
}

// runWeb keeps what the pages show until ctx ends.
func (f *Frontend) runWeb(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { f.followHistory(ctx) })
	wg.Go(func() { f.runOverview(ctx) })
	wg.Go(func() { f.runFlow(ctx) })
	wg.Go(func() { f.runViews(ctx) })
	wg.Wait()
}

// runOverview renders the moving parts of the overview at each new slot.
func (f *Frontend) runOverview(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.overview.watched():
		}
		changed := f.history.wait()
		if event, err := f.overviewEvent(ctx); err != nil {
			f.log.Error("live overview failed", "error", err)
		} else {
			f.overview.send(event)
		}
		f.afterSlot(ctx, changed)
	}
}

// afterSlot waits until a new slot has settled, or far too long without one.
func (f *Frontend) afterSlot(ctx context.Context, changed <-chan struct{}) {
	select {
	case <-ctx.Done():
		return
	case <-changed:
	case <-time.After(3 * time.Duration(slotSeconds) * time.Second):
	}
	select {
	case <-ctx.Done():
	case <-time.After(settling + 50*time.Millisecond):
	}
}

func (f *Frontend) overviewEvent(ctx context.Context) ([]byte, error) {
	return f.partsEvent("overview", f.overviewOf(ctx), "figures", "span", "charts", "events", "staff")
}

// partsEvent renders the named parts of a page for those who look at it.
func (f *Frontend) partsEvent(page string, data any, names ...string) ([]byte, error) {
	parts := make(map[string]string)
	for _, name := range names {
		var b bytes.Buffer
		if err := f.pages.byName[page].ExecuteTemplate(&b, "live-"+name, data); err != nil {
			return nil, fmt.Errorf("render %s of page %s: %w", name, page, err)
		}
		parts[name] = b.String()
	}
	// The templates have escaped it; once more would make it half as long again.
	var b bytes.Buffer
	b.WriteString("event: parts\ndata: ")
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(parts); err != nil {
		return nil, fmt.Errorf("encode parts of page %s: %w", page, err)
	}
	b.WriteByte('\n') // after Encode's own
	return b.Bytes(), nil
}
