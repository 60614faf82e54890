package frontend

import (
	"cmp"
	"context"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/co2relay/co2relay/registry"
)

// roster is all satellites with their figures, as of one moment. It is made at
// most once a second, whatever the number of browsers.
type roster struct {
	rows   []row
	sorted map[string][]int // rows in the order of a column
}

// row is one satellite. Its figures are shared with the registry's cache.
type row struct {
	sat     *registry.Satellite
	known   bool              // its figures were ever read
	traffic *registry.Traffic // nil: none yet
	ping    *registry.Ping    // nil: none yet
	owed    int64
	state   registry.State
	trip    float64 // milliseconds, -1: none
	seen    time.Time
}

// satellitesNow gives the roster. Beside an error some or all of it is as it was
// last read.
func (f *Frontend) satellitesNow(ctx context.Context) (*roster, error) {
	r, err := f.roster.Get(ctx)
	if r == nil {
		r = f.rosterOf(new(registry.Snapshot))
	}
	return r, err
}

func (f *Frontend) loadRoster(ctx context.Context) (*roster, error) {
	snapshot, err := f.reg.Snapshot(ctx)
	return f.rosterOf(snapshot), err
}

func (f *Frontend) rosterOf(snapshot *registry.Snapshot) *roster {
	all := f.reg.All()
	r := &roster{rows: make([]row, len(all)), sorted: make(map[string][]int)}
	for i, sat := range all {
		w := row{sat: sat, known: snapshot.Known(sat), trip: -1}
		w.traffic, w.ping, w.owed = snapshot.Find(sat)
		if t := w.traffic; t != nil {
			w.state, w.seen = t.State, t.ReceivedAt
			if t.SentAt.After(w.seen) {
				w.seen = t.SentAt
			}
		}
		if p := w.ping; p != nil {
			w.trip, _ = pingTimes(p)
			if w.trip >= 0 && p.At.After(w.seen) {
				w.seen = p.At
			}
		}
		r.rows[i] = w
	}
	return r
}

// columns are the orders in which the satellites can be shown, all ascending.
var columns = map[string]func(a, b *row) int{
	"nick":     func(a, b *row) int { return cmp.Compare(strings.ToLower(a.sat.Nick), strings.ToLower(b.sat.Nick)) },
	"state":    func(a, b *row) int { return cmp.Compare(a.state, b.state) },
	"trip":     func(a, b *row) int { return cmp.Compare(a.trip, b.trip) },
	"sent":     func(a, b *row) int { return cmp.Compare(a.sent(), b.sent()) },
	"received": func(a, b *row) int { return cmp.Compare(a.received(), b.received()) },
	"owed":     func(a, b *row) int { return cmp.Compare(a.owed, b.owed) },
	"seen":     func(a, b *row) int { return a.seen.Compare(b.seen) },
	"since":    func(a, b *row) int { return a.sat.Created.Compare(b.sat.Created) },
}

func (r *row) sent() uint64 {
	if r.traffic == nil {
		return 0
	}
	return r.traffic.Sent
}

func (r *row) received() uint64 {
	if r.traffic == nil {
		return 0
	}
	return r.traffic.Received + r.traffic.Refused
}

// order gives the rows in the order of a column; equal ones by id. The roster
// keeps it: the caller must hold f.rosterMu.
func (r *roster) order(column string) []int {
	if o, found := r.sorted[column]; found {
		return o
	}
	o := make([]int, len(r.rows))
	for i := range o {
		o[i] = i
	}
	compare := columns[column]
	slices.SortFunc(o, func(i, j int) int {
		a, b := &r.rows[i], &r.rows[j]
		if c := compare(a, b); c != 0 {
			return c
		}
		return strings.Compare(string(a.sat.ID), string(b.sat.ID))
	})
	r.sorted[column] = o
	return o
}

// rosterQuery is what a person asked for; anything that makes no sense is the
// default.
type rosterQuery struct {
	Text, State, Sort string
	Down              bool // descending
	Page              int
}

func readQuery(v url.Values) rosterQuery {
	q := rosterQuery{Text: strings.TrimSpace(v.Get("q")), State: v.Get("state"), Sort: v.Get("sort"), Down: v.Get("dir") == "down"}
	if len(q.Text) > 200 {
		q.Text = strings.ToValidUTF8(q.Text[:200], "")
	}
	if columns[q.Sort] == nil {
		q.Sort = "nick"
	}
	switch q.State {
	case "live", "behind", "parked":
	default:
		q.State = ""
	}
	q.Page, _ = strconv.Atoi(v.Get("page"))
	q.Page = max(q.Page, 1)
	return q
}

// link is the address of the page with another page, order or state.
func (q rosterQuery) link() string {
	v := url.Values{}
	set := func(name, value, normal string) {
		if value != normal {
			v.Set(name, value)
		}
	}
	set("q", q.Text, "")
	set("state", q.State, "")
	set("sort", q.Sort, "nick")
	if q.Down {
		v.Set("dir", "down")
	}
	set("page", strconv.Itoa(q.Page), "1")
	if len(v) == 0 {
		return "/satellites"
	}
	return "/satellites?" + v.Encode()
}

func (q *rosterQuery) passes(r *row, lower string) bool {
	switch q.State {
	case "live":
		if !r.known || r.state != registry.StateIdle && r.state != registry.StateLive {
			return false
		}
	case "behind":
		if r.state != registry.StateBehind {
			return false
		}
	case "parked":
		if r.state != registry.StateParked {
			return false
		}
	}
	return lower == "" || strings.Contains(string(r.sat.ID), lower) || strings.Contains(strings.ToLower(r.sat.Nick), lower)
}

// heading is a column's head with its link and its order for screen readers.
type heading struct {
	Name, Link, Order, Mark, Class string
}

var headings = []struct{ column, name, class string }{
	{"nick", "Satellite", ""}, {"state", "State", ""}, {"owed", "Backlog", "n"}, {"trip", "Round trip", "n"},
	{"seen", "Last seen", ""}, {"sent", "Sent", "n"}, {"received", "Received", "n"}, {"since", "Registered", ""},
}

func (q rosterQuery) headings() []heading {
	var all []heading
	for _, h := range headings {
		to := q
		to.Page, to.Sort, to.Down = 1, h.column, h.column != "nick"
		view := heading{Name: h.name, Order: "none", Class: h.class}
		if q.Sort == h.column {
			to.Down = !q.Down
			view.Order, view.Mark = "ascending", "↑"
			if q.Down {
				view.Order, view.Mark = "descending", "↓"
			}
		}
		view.Link = to.link()
		all = append(all, view)
	}
	return all
}

// filterLink is one of the links above the table.
type filterLink struct {
	Name, Link, Class string
	Count             int
	Current           bool
}

func (q rosterQuery) filters(counts map[string]int) []filterLink {
	var all []filterLink
	for _, s := range []struct{ state, name string }{{"", "all"}, {"live", "live"}, {"behind", "catching up"}, {"parked", "not reached"}} {
		to := q
		to.State, to.Page = s.state, 1
		all = append(all, filterLink{s.name, to.link(), s.state, counts[s.state], q.State == s.state})
	}
	return all
}

// rowView is a satellite as the table shows it. Nick is a stranger's text.
type rowView struct {
	satelliteView
	Seen  time.Time
	Spark template.HTML
}

// tableView is the table of satellites as a query asks for it.
type tableView struct {
	Query                  rosterQuery
	Live                   string
	Headings               []heading
	Filters                []filterLink
	Total, Found, From, To int
	Page, Pages            int
	Prev, Next             string
	Satellites             []rowView
	Unread                 bool
}

func (f *Frontend) tableOf(ctx context.Context, q rosterQuery) *tableView {
	all, err := f.satellitesNow(ctx)
	rows, counts := f.search(all, &q)
	v := &tableView{
		Query: q, Live: "/live" + q.link(), Headings: q.headings(), Filters: q.filters(counts),
		Total: len(all.rows), Found: len(rows), Unread: err != nil,
	}
	v.Pages = max((len(rows)+perPage-1)/perPage, 1)
	v.Page = min(q.Page, v.Pages)
	first := (v.Page - 1) * perPage
	rows = rows[first:min(first+perPage, len(rows))]
	v.From, v.To = min(first+1, v.Found), first+len(rows)
	for _, i := range rows {
		v.Satellites = append(v.Satellites, all.rows[i].view())
	}
	q.Page = v.Page - 1
	v.Prev = q.link()
	q.Page = v.Page + 1
	v.Next = q.link()
	return v
}

func (f *Frontend) satellitesPage(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
	defer cancel()
	f.page(w, http.StatusOK, "satellites", struct {
		frame
		*tableView
	}{f.frame("satellites"), f.tableOf(ctx, readQuery(r.URL.Query()))})
}

// search gives the rows that a query asks for, in its order, and how many
// there are of each state.
func (f *Frontend) search(all *roster, q *rosterQuery) ([]int, map[string]int) {
	f.rosterMu.Lock()
	order := all.order(q.Sort)
	f.rosterMu.Unlock()
	lower := strings.ToLower(q.Text)
	counts := make(map[string]int)
	found := make([]int, 0, len(order))
	any := *q
	any.State = ""
	for k := range order {
		i := order[k]
		if q.Down {
			i = order[len(order)-1-k]
		}
		x := &all.rows[i]
		if !any.passes(x, lower) {
			continue
		}
		counts[""]++
		if x.known {
			counts[stateClass(x.state)]++
		}
		if q.passes(x, "") {
			found = append(found, i)
		}
	}
	return found, counts
}

func (r *row) view() rowView {
	v := rowView{
		satelliteView: satelliteView{
			ID: string(r.sat.ID), Nick: r.sat.Nick, Known: r.known,
			RoundTrip: roundTripText(r.trip), Sent: r.sent(), Received: r.received(), Owed: r.owed, Created: r.sat.Created,
		},
		Seen: r.seen,
	}
	v.State, v.StateText = stateOf(r.state, r.known)
	if r.ping != nil {
		v.Spark = sparkline(&r.ping.Recent, 64, 18)
	}
	return v
}
