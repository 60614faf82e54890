package frontend

import (
	"context"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/co2relay/co2relay/cluster"
)

// overviewView is what the overview shows, the parts that move included.
type overviewView struct {
	Figures       *figures // nil: the broker cannot be read
	Known         bool     // there are samples
	In, Out       string   // per second, over the last 15 seconds
	Half, Nearly  string   // latency: the middle one, and the 99th of a hundred, over the last minute
	Live          uint64
	Behind        uint64
	Parked        uint64
	Segments      []segment
	Span          string // what the charts show
	Charts        []chart
	Events        []eventView
	Processes     int
	DeliveryCount int
	Roles         []roleView   // none: not to be read
	Nodes         []brokerNode // none: not to be read
}

// segment is a piece of the bar of states, in hundredths.
type segment struct {
	Class    string
	X, Width float64
}

func (f *Frontend) overviewOf(ctx context.Context) *overviewView {
	v := &overviewView{In: "–", Out: "–", Half: "–", Nearly: "–"}
	if fig, err := f.state.Get(ctx); err == nil {
		fig.Satellites = f.reg.Len()
		v.Figures = &fig
		v.Roles, v.Nodes = f.staffOf(ctx)
	} else if ctx.Err() == nil {
		f.log.Warn("overview without figures", "error", err)
	}
	now := time.Now()
	slots, _ := f.history.hour(now)
	if recent, known := merge(slots[len(slots)-3:]); known > 0 {
		v.Known = true
		seconds := float64(known) * float64(slotSeconds)
		v.In, v.Out = rateText(float64(recent.accepted)/seconds), rateText(float64(recent.delivered)/seconds)
		v.Live, v.Behind, v.Parked = recent.idle+recent.live, recent.behind, recent.parked
	}
	minute, _ := merge(slots[len(slots)-12:])
	if p := minute.percentile(.5); !math.IsNaN(p) {
		v.Half, v.Nearly = milliText(p), milliText(minute.percentile(.99))
	}
	v.Segments = segments(v.Live, v.Behind, v.Parked)
	v.Charts = f.history.charts(now)
	v.Span = "The" + strings.TrimPrefix(v.Charts[0].Span.Name, "the")
	v.Events = f.eventViews(f.history.recent(8, func(*cluster.Event) bool { return true }))
	for _, p := range f.history.processes() {
		v.Processes++
		if p.Partitions > 0 {
			v.DeliveryCount++
		}
	}
	return v
}

// staffOf says who does the work: the workers of each role, and the broker's nodes.
func (f *Frontend) staffOf(ctx context.Context) ([]roleView, []brokerNode) {
	s, err := f.clusterState.Get(ctx)
	if err != nil {
		return nil, nil
	}
	return rolesOf(&s), nodesOf(&s.broker)
}

func segments(live, behind, parked uint64) []segment {
	total := float64(live + behind + parked)
	if total == 0 {
		return nil
	}
	var all []segment
	x := 0.0
	for _, s := range []struct {
		class string
		n     uint64
	}{{"live", live}, {"behind", behind}, {"parked", parked}} {
		if s.n == 0 {
			continue
		}
		w := max(float64(s.n)/total*100, 1.5) // even one of 10,000 is to be seen
		all = append(all, segment{s.class, x, w})
		x += w
	}
	for i := range all { // what was rounded up comes off all
		all[i].X, all[i].Width = all[i].X*100/x, all[i].Width*100/x
	}
	return all
}

func (f *Frontend) overviewPage(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
	defer cancel()
	f.page(w, http.StatusOK, "overview", struct {
		frame
		*overviewView
		URL string
	}{f.frame("overview"), f.overviewOf(ctx), f.scheme() + r.Host + "/"})
}

// eventView is an event in words. Nick and Reason are strangers' texts.
type eventView struct {
	Time       time.Time
	Kind       string
	Class      string // how it is coloured
	Satellite  string
	Nick       string
	Registered bool // there is a page to link to
	Text       string
}

// eventWords say in words what an event's kind means, and which state's colour
// it has.
var eventWords = map[string][2]string{
	"registered":      {"registered", "live"},
	"deregistered":    {"deregistered", "idle"},
	"parked":          {"not reached", "parked"},
	"resumed":         {"reached again", "live"},
	"refused":         {"refused a message", "behind"},
	"gap":             {"missed messages", "parked"},
	"unreachable":     {"answers no ping", "parked"},
	"reachable":       {"answers pings again", "live"},
	"rewound":         {"log begins anew", "parked"},
	"worker_joined":   {"worker joined", "live"},
	"worker_left":     {"worker left", "behind"},
	"partition_moved": {"partition moved", "idle"},
}

func (f *Frontend) eventViews(events []cluster.Event) []eventView {
	views := make([]eventView, len(events))
	for i, e := range events {
		words, known := eventWords[e.Kind]
		if !known {
			words = [2]string{strings.ReplaceAll(e.Kind, "_", " "), "idle"}
		}
		v := eventView{Time: e.Time, Kind: words[0], Class: words[1], Satellite: e.Satellite, Nick: e.Nick}
		if id, sat := f.lookupText(e.Satellite); sat != nil {
			v.Registered = true
			v.Satellite = string(id)
			if v.Nick == "" {
				v.Nick = sat.Nick
			}
		}
		if v.Nick == "" {
			v.Nick = e.Satellite
		}
		v.Text = eventText(&e)
		views[i] = v
	}
	return views
}

// eventText says what an event has beside its kind and satellite.
func eventText(e *cluster.Event) string {
	var parts []string
	if e.Worker != "" && e.Satellite == "" {
		parts = append(parts, e.Worker)
	}
	if e.Kind == "partition_moved" {
		parts = append(parts, "partition "+number10(e.Partition))
	}
	if e.Reason != "" {
		parts = append(parts, e.Reason)
	}
	if e.Count > 1 {
		parts = append(parts, number10(e.Count)+" times")
	}
	if e.Kind == "gap" && e.First != "" {
		parts = append(parts, "messages "+e.First+" to "+e.Last)
	}
	return strings.Join(parts, " · ")
}
