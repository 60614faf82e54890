package frontend

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
)

// perPage is how many satellites one page shows.
const perPage = 100

const (
	// pageTimeout bounds what a page reads from the broker.
	pageTimeout = 3 * time.Second
	// pagePatience bounds one question of a page, so that it fails for all who
	// ask and not for the one whose page's time is over.
	pagePatience = 2 * time.Second
)

// figures are what the overview shows of the whole relay.
type figures struct {
	Satellites    int
	MaxSatellites int
	Log           cluster.LogState
	Accounts      registry.Accounts
}

// Lost counts what satellites were owed and will never get.
func (f figures) Lost() uint64 { return f.Accounts.Expired + f.Accounts.Dropped }

func (f *Frontend) loadFigures(ctx context.Context) (figures, error) {
	var fig figures
	var errs [3]error
	fig.Log, errs[0] = f.clus.Log().State(ctx)
	fig.Accounts, errs[1] = f.reg.Totals(ctx)
	fig.MaxSatellites, errs[2] = f.maxSats.Get(ctx)
	return fig, errors.Join(errs[:]...)
}

// fact is one line of a list of properties.
type fact struct{ Name, Text string }

type factGroup struct {
	Title string
	Facts []fact
}

// propertyFacts are the properties, in words. Empty ones are left out.
func (f *Frontend) propertyFacts() []fact {
	p := &f.props
	all := []fact{
		{"Version", f.cfg.Version},
		{"Running for", durationText(time.Since(p.started))},
		{"Started", whenText(p.started)},
		{"Maintainer", f.cfg.Maintainer},
		{"Maintainer's e-mail", f.cfg.MaintainerEmail},
		{"Author", f.cfg.Author},
		{"Operating system", p.operatingSystem},
		{"Kernel", p.kernel},
		{"Software platform", p.softwarePlat},
		{"Hardware platform", p.hardwarePlat},
		{"Hardware", p.hardware},
		{"Processor", p.processor},
	}
	var shown []fact
	for _, x := range all {
		if x.Text != "" {
			shown = append(shown, x)
		}
	}
	return shown
}

// methodView is a method as the pages show it.
type methodView struct {
	Name, Takes, Result string
	First, More         string
	MembersTitle        string
	Members             []memberView
	Returns             string
	Faults              []string
	Synonyms            []string
	Types               []string
	Alone               bool // on a page of its own, under a heading that names it
}

type memberView struct{ Name, Kind, Doc string }

func (e *entry) view() methodView {
	v := methodView{
		Name: e.name, Takes: e.takes(), Result: e.result, Returns: e.returns, Faults: e.faults, Synonyms: e.synonyms(),
		MembersTitle: strings.TrimSuffix(e.membersTitle(), ":"),
	}
	v.First, v.More, _ = strings.Cut(e.doc, "\n")
	for _, m := range e.members {
		v.Members = append(v.Members, memberView{m.name, m.kind(), m.doc})
	}
	for _, t := range e.types() {
		v.Types = append(v.Types, strings.Join(t, ", "))
	}
	return v
}

type methodGroup struct {
	Title   string
	Methods []methodView
}

func (f *Frontend) methodsPage(w http.ResponseWriter) {
	var groups []methodGroup
	for i := range f.table {
		m := &f.table[i]
		if len(groups) == 0 || groups[len(groups)-1].Title != m.group {
			groups = append(groups, methodGroup{Title: m.group})
		}
		g := &groups[len(groups)-1]
		g.Methods = append(g.Methods, f.methods[m.names[0]].view())
	}
	f.page(w, http.StatusOK, "methods", struct {
		frame
		Names  []string
		Groups []methodGroup
	}{f.frame("methods"), f.names, groups})
}

// methodPage shows a method with its form; sent and call are of a call that was
// just made by it, nil if there was none.
func (f *Frontend) methodPage(w http.ResponseWriter, name string, sent url.Values, call *callView) {
	e := f.methods[name]
	if e == nil {
		f.notFound(w, "There is no such method", "The relay has no method of this name.")
		return
	}
	view := e.view()
	view.Alone = true
	f.page(w, http.StatusOK, "method", struct {
		frame
		Method methodView
		Fields []fieldView
		Names  []string
		Call   *callView
	}{f.frame("methods"), view, e.fields(sent), f.names, call})
}

// satelliteView is a satellite as the pages show it. Nick is a stranger's text.
type satelliteView struct {
	ID, Nick         string
	Known            bool // else its figures were never read
	State, StateText string
	RoundTrip        string
	Sent, Received   uint64
	Owed             int64
	Created          time.Time
}

// stateTexts say in words what a lane's state means.
var stateTexts = map[registry.State]string{
	registry.StateIdle:   "up to date",
	registry.StateLive:   "receiving",
	registry.StateBehind: "catching up",
	registry.StateParked: "not reached",
}

// stateClass is the colour of a state: who is owed nothing is as well as who is
// just being served.
func stateClass(s registry.State) string {
	if s == registry.StateIdle {
		s = registry.StateLive
	}
	return s.String()
}

// stateOf gives a state's colour and words.
func stateOf(s registry.State, known bool) (class, text string) {
	if !known {
		return "idle", "not known"
	}
	return stateClass(s), stateTexts[s]
}

func viewOf(sat *registry.Satellite, fig *registry.Figures) satelliteView {
	current, _ := pingTimes(&fig.Ping)
	v := satelliteView{
		ID: string(sat.ID), Nick: sat.Nick, Known: fig.Traffic.Generation > 0,
		RoundTrip: roundTripText(current),
		Sent:      fig.Traffic.Sent, Received: fig.Traffic.Received + fig.Traffic.Refused,
		Owed: fig.Owed, Created: sat.Created,
	}
	v.State, v.StateText = stateOf(fig.Traffic.State, v.Known)
	return v
}

// satelliteFacts are all figures of a satellite. Its password is in none.
func satelliteFacts(sat *registry.Satellite, fig *registry.Figures) []factGroup {
	t, p := &fig.Traffic, &fig.Ping
	_, average := pingTimes(p)
	plugins := strings.Join(sat.Plugins, ", ")
	if plugins == "" {
		plugins = "none"
	}
	about := []fact{
		{"Called back at", sat.Scheme + "://" + sat.Addr.String() + "/"},
		{"Registered", whenText(sat.Created)},
		{"Plugins", plugins},
	}
	if sat.TLSName != "" {
		about = append(about, fact{"Certificate's name", sat.TLSName})
	}
	if sat.MaxAge > 0 {
		about = append(about, fact{"Skips messages older than", durationText(sat.MaxAge)})
	}
	delivery := []fact{
		{"Last received", whenText(t.ReceivedAt)},
		{"Last sent", whenText(t.SentAt)},
		{"Refused by it", number10(t.Refused)},
		{"Expired before it took them", number10(t.Expired)},
		{"Done up to message", strconv.FormatUint(t.Position, 10)},
	}
	if t.Attempts > 0 {
		delivery = append(delivery, fact{"Failed attempts", number10(t.Attempts)}, fact{"Next attempt", whenText(t.RetryAt)})
	}
	if t.LastError != "" {
		delivery = append(delivery, fact{"Last error", t.LastError})
	}
	pings := []fact{
		{"Last ping", whenText(p.At)},
		{"Pings", fmt.Sprintf("%s, of which %s failed", number10(p.Count), number10(p.Fails))},
	}
	if p.Count > p.Fails {
		pings = append(pings, fact{"Shortest, average, longest",
			roundTripText(p.Min) + ", " + roundTripText(average) + ", " + roundTripText(p.Max)})
	}
	if p.Failing > 0 {
		pings = append(pings, fact{"Failed in a row", number10(p.Failing)})
	}
	if p.OneAtATime {
		pings = append(pings, fact{"Connections", "one at a time"})
	}
	return []factGroup{{"Satellite", about}, {"Delivery", delivery}, {"Ping", pings}}
}
