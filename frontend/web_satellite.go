package frontend

import (
	"context"
	"fmt"
	"html/template"
	"net/http"
	"strings"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
)

// sparkline draws the last round trips of a satellite; those that got no
// answer are marks at the bottom.
func sparkline(recent *[registry.RecentPings]uint32, width, height float64) template.HTML {
	first, top := len(recent), uint32(1)
	for i := len(recent) - 1; i >= 0 && recent[i] != 0; i-- {
		first = i
		if recent[i] != registry.RecentFailed {
			top = max(top, recent[i])
		}
	}
	if first == len(recent) {
		return ""
	}
	var line, marks strings.Builder
	step := (width - 4) / float64(len(recent)-1)
	open := false
	for i := first; i < len(recent); i++ {
		x := 2 + float64(i)*step
		if recent[i] == registry.RecentFailed {
			marks.WriteString("M" + short(x) + " " + short(height-5) + "v3")
			open = false
			continue
		}
		y := height - 3 - float64(recent[i])/float64(top)*(height-6)
		if open {
			line.WriteString("L" + short(x) + " " + short(y))
		} else {
			line.WriteString("M" + short(x) + " " + short(y) + "h.01")
		}
		open = true
	}
	return template.HTML(fmt.Sprintf( //nolint:gosec // made of numbers
		`<svg class="spark" viewBox="0 0 %[1]s %[2]s" width="%[1]s" height="%[2]s" aria-hidden="true" focusable="false"><path class="line" d="%[3]s"/><path class="miss" d="%[4]s"/></svg>`,
		short(width), short(height), line.String(), marks.String()))
}

// lookupText finds a satellite by an id's text; nil if none is registered.
func (f *Frontend) lookupText(text string) (registry.ID, *registry.Satellite) {
	if text == "" {
		return "", nil
	}
	id, _, err := registry.ParseID(text)
	if err != nil {
		return "", nil
	}
	sat, _ := f.reg.Lookup(id)
	return id, sat
}

// oneView is what the page of one satellite shows.
type oneView struct {
	Satellite satelliteView
	OwnPage   string
	Live      string
	Spark     template.HTML
	Gone      bool // it deregistered while somebody looked at it
	Unread    bool
	LastError string
	Groups    []factGroup
	Events    []eventView
}

func (f *Frontend) oneOf(ctx context.Context, sat *registry.Satellite) *oneView {
	id := string(sat.ID)
	fig, err := f.reg.Figures(ctx, sat.ID)
	events := f.eventViews(f.history.recent(100, func(e *cluster.Event) bool { return e.Satellite == id }))
	for i := range events {
		if e := &events[i]; e.Nick == sat.Nick { // whose they are is the page's heading
			e.Nick, e.Registered = "", false
		}
	}
	return &oneView{
		Satellite: viewOf(sat, &fig), OwnPage: ownPage(sat), Live: "/live/satellites/" + id,
		Spark: sparkline(&fig.Ping.Recent, 110, 28), Unread: err != nil,
		LastError: fig.Traffic.LastError, Groups: satelliteFacts(sat, &fig), Events: events,
	}
}

func (f *Frontend) satellitePage(w http.ResponseWriter, r *http.Request, text string) {
	ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
	defer cancel()
	_, sat := f.lookupText(text)
	if sat == nil {
		f.notFound(w, "No such satellite", "No satellite is registered under this id; it may have deregistered.")
		return
	}
	f.page(w, http.StatusOK, "satellite", struct {
		frame
		*oneView
	}{f.frame("satellites"), f.oneOf(ctx, sat)})
}

// satelliteEvent is what changes on a satellite's page.
func (f *Frontend) satelliteEvent(ctx context.Context, id registry.ID) ([]byte, error) {
	sat, known := f.reg.Lookup(id)
	if !known {
		return f.partsEvent("satellite", &oneView{Gone: true}, "state")
	}
	return f.partsEvent("satellite", f.oneOf(ctx, sat), "state", "details")
}

// ownPage is where a satellite may have a page of its own, "" if it cannot be
// told. The scheme is one of two, and the address is the registry's.
func ownPage(sat *registry.Satellite) string {
	if sat.Scheme != "http" && sat.Scheme != "https" {
		return ""
	}
	return sat.Scheme + "://" + sat.Addr.String() + "/"
}
