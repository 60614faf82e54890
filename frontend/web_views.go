package frontend

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// viewsCost is the time that all pages with a question of their own may take
	// in each slot: one part in a hundred. Where there is more to render, what
	// waited longest comes first, and the rest comes later.
	viewsCost = time.Duration(slotSeconds) * time.Second / 100
	// viewsDebt bounds what one that took long costs the next slots: something
	// moves each 20 seconds, also on a machine that is busy with other things.
	viewsDebt = 4 * viewsCost
)

// views are the pages that somebody looks at and that differ by what was asked
// for: a search in the table of satellites, one satellite. Who asks for the same
// shares what was rendered.
type views struct {
	mu    sync.Mutex
	byKey map[string]*view
	some  chan struct{} // closed while there are any
}

// view is one such page.
type view struct {
	feed   *feed
	render func(context.Context) ([]byte, error)
	count  int
	at     time.Time // when it was rendered
}

func newViews() *views { return &views{byKey: make(map[string]*view), some: make(chan struct{})} }

// enter gives the feed of a view, which is rendered until as many have left.
func (v *views) enter(key string, render func(context.Context) ([]byte, error)) (*feed, func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	w := v.byKey[key]
	if w == nil {
		if len(v.byKey) == 0 {
			close(v.some)
		}
		w = &view{feed: newFeed(), render: render, at: time.Now()} // the page is new already
		v.byKey[key] = w
	}
	w.count++
	return w.feed, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if w.count--; w.count > 0 {
			return
		}
		if delete(v.byKey, key); len(v.byKey) == 0 {
			v.some = make(chan struct{})
		}
	}
}

func (v *views) watched() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.some
}

// oldest gives the view that was rendered longest ago, before a time; nil if
// there is none.
func (v *views) oldest(before time.Time) *view {
	v.mu.Lock()
	defer v.mu.Unlock()
	var first *view
	for _, w := range v.byKey {
		if w.at.Before(before) && (first == nil || w.at.Before(first.at)) {
			first = w
		}
	}
	if first != nil {
		first.at = time.Now()
	}
	return first
}

// runViews renders what is looked at after each slot, as far as viewsCost goes.
// What was spent beyond it is taken off the next slots.
func (f *Frontend) runViews(ctx context.Context) {
	var spent time.Duration
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-f.views.watched():
		}
		f.afterSlot(ctx, f.history.wait())
		spent = max(spent-viewsCost, 0)
		for began := time.Now(); spent < viewsCost && ctx.Err() == nil; {
			w := f.views.oldest(began)
			if w == nil {
				break
			}
			at := time.Now()
			f.renderView(ctx, w)
			spent = min(spent+time.Since(at), viewsDebt)
		}
	}
}

func (f *Frontend) renderView(ctx context.Context, w *view) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	event, err := w.render(ctx)
	if err != nil {
		f.log.Error("live page failed", "error", err)
		return
	}
	w.feed.send(event)
}

// serveView streams what changes on a page; its path is the page's, after /live.
func (f *Frontend) serveView(w http.ResponseWriter, r *http.Request) {
	key := ""
	var render func(context.Context) ([]byte, error)
	id, isOne := strings.CutPrefix(r.URL.Path, "/live/satellites/")
	switch {
	case isOne:
		found, sat := f.lookupText(id)
		if sat == nil {
			f.notFound(w, "No such satellite", "No satellite is registered under this id; it may have deregistered.")
			return
		}
		key = string(found)
		render = func(ctx context.Context) ([]byte, error) { return f.satelliteEvent(ctx, found) }
	case r.URL.Path == "/live/system":
		key = r.URL.Path
		render = func(ctx context.Context) ([]byte, error) {
			return f.partsEvent("system", f.systemOf(ctx), "state")
		}
	default:
		q := readQuery(r.URL.Query())
		key = q.link()
		render = func(ctx context.Context) ([]byte, error) {
			return f.partsEvent("satellites", f.tableOf(ctx, q), "filters", "table")
		}
	}
	feed, leave := f.views.enter(key, render)
	defer leave()
	f.serveLive(w, r, feed)
}
