package frontend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/internal/xmlrpc"
	"github.com/co2relay/co2relay/registry"
)

// The live flow looks at the end of the log twice a second and shows the last
// few messages of what came: however much is relayed, it costs the same.
const (
	flowEvery    = 500 * time.Millisecond
	flowMessages = 16        // of one look
	flowBytes    = 256 << 10 // of one look
	flowListed   = 20        // in the list of last messages
	flowNodes    = 27        // in the picture, and one for all others
	flowBody     = 300       // characters of a body
)

// flowMessage is one message in the picture. Nick and Text are strangers'.
type flowMessage struct {
	ID     string    `json:"id"`
	Sender string    `json:"sender"`
	Nick   string    `json:"nick"`
	Time   time.Time `json:"time"`
	Bytes  int       `json:"bytes"`
	Text   string    `json:"text,omitempty"` // only with --show-bodies
}

// flowNode is a satellite in the picture, or all that have no place there.
type flowNode struct {
	ID, Nick, State string
	X, Y            float64
	TextX, TextY    float64
	Anchor          string
	Others          int
}

// flowView is what the page shows before anything moves.
type flowView struct {
	Nodes    []flowNode
	Labels   bool
	Messages []flowMessage
	Rate     string // messages a second, of late
	Total    int
	Bodies   bool
	Unread   bool
	Blind    bool // the broker does not let this frontend read the log
}

// flow remembers who spoke lately, so that speakers have a place in the picture.
type flow struct {
	mu       sync.Mutex
	speakers []string  // latest first
	blind    time.Time // until when the log's messages are not asked for
	blindFor time.Duration
}

const (
	flowPatience = 2 * time.Second
	flowBlind    = 5 * time.Second // after a first failure, and twice as long after each further one
	flowBlindCap = time.Minute
)

// isBlind tells whether the log's messages could not be read lately: a broker
// may forbid it to frontends, as deploy/nats.conf does, and then answers
// nothing.
func (s *flow) isBlind() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.blind)
}

func (s *flow) goBlind() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blindFor = min(max(2*s.blindFor, flowBlind), flowBlindCap)
	s.blind = time.Now().Add(s.blindFor)
}

// sees notes that the log's messages can be read.
func (s *flow) sees() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blindFor = 0
}

func (s *flow) spoke(messages []flowMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range messages {
		s.speakers = slices.DeleteFunc(s.speakers, func(id string) bool { return id == m.Sender })
		s.speakers = slices.Insert(s.speakers, 0, m.Sender)
	}
	s.speakers = s.speakers[:min(len(s.speakers), flowNodes/2)]
}

func (s *flow) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.speakers)
}

// lastMessages reads the last few messages after a sequence, and tells the last
// sequence of the log.
func (f *Frontend) lastMessages(ctx context.Context, after uint64, most int) ([]flowMessage, uint64, error) {
	last, err := f.clus.Log().Last(ctx)
	if err != nil || last <= after {
		return nil, last, err
	}
	if f.flow.isBlind() {
		return nil, last, nil
	}
	from := max(after+1, last-min(last, uint64(most))+1)
	patient, cancel := context.WithTimeout(ctx, flowPatience)
	defer cancel()
	entries, _, err := f.clus.Log().Read(patient, from, most, flowBytes)
	if err != nil && ctx.Err() == nil {
		f.flow.goBlind()
		f.log.Warn("live flow shows only how much is relayed: the log cannot be read; its broker may not allow it to frontends", "error", err)
		return nil, last, nil
	}
	if err != nil {
		return nil, last, fmt.Errorf("read the log's end: %w", err)
	}
	f.flow.sees()
	messages := make([]flowMessage, 0, len(entries))
	for i := range entries {
		messages = append(messages, f.flowMessageOf(&entries[i]))
	}
	return messages, last, nil
}

func (f *Frontend) flowMessageOf(e *cluster.Entry) flowMessage {
	m := flowMessage{ID: strconv.FormatUint(e.Seq, 10), Sender: e.Sender, Nick: e.Sender, Time: e.Time.UTC(), Bytes: len(e.Body)}
	if _, sat := f.lookupText(e.Sender); sat != nil {
		m.Nick = sat.Nick
	}
	if f.cfg.ShowBodies {
		if data, found := xmlrpc.StructOf(string(e.Body)).Member(memberData); found {
			m.Text = valueText(data, flowBody)
		}
	}
	return m
}

// runFlow watches the end of the log while somebody looks at the flow.
func (f *Frontend) runFlow(ctx context.Context) {
	for {
		watched := f.flowFeed.watched()
		select {
		case <-ctx.Done():
			return
		case <-watched:
		}
		f.watchFlow(ctx, watched)
	}
}

func (f *Frontend) watchFlow(ctx context.Context, watched <-chan struct{}) {
	tick := time.NewTicker(flowEvery)
	defer tick.Stop()
	seen := uint64(0)
	nodes := ""
	for turn := 0; f.flowFeed.watched() == watched; turn++ {
		event, last, err := f.flowEvent(ctx, seen, turn, &nodes)
		switch {
		case err != nil && ctx.Err() == nil:
			f.log.Debug("live flow waits for the broker", "error", err)
		case event != nil:
			f.flowFeed.send(event)
		}
		seen = max(seen, last)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// flowEvent is what happened since the last look; nil if nothing did.
func (f *Frontend) flowEvent(ctx context.Context, seen uint64, turn int, nodes *string) ([]byte, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	event := struct {
		Count    uint64        `json:"count"`
		Messages []flowMessage `json:"messages,omitempty"`
		Nodes    string        `json:"nodes,omitempty"` // the picture's satellites, as they are drawn
	}{}
	messages, last, err := f.lastMessages(ctx, seen, flowMessages)
	if err != nil {
		return nil, seen, err
	}
	if seen > 0 && last > seen { // the first look is only to know where the log ends
		event.Count, event.Messages = last-seen, messages
		f.flow.spoke(messages)
	}
	if turn%4 == 0 {
		drawn, err := f.drawNodes(ctx)
		if err != nil {
			return nil, last, err
		}
		if drawn != *nodes || turn%20 == 0 {
			event.Nodes, *nodes = drawn, drawn
		}
	}
	if event.Count == 0 && event.Nodes == "" {
		return nil, last, nil
	}
	b, err := serverEvent("flow", event)
	return b, last, err
}

func (f *Frontend) drawNodes(ctx context.Context) (string, error) {
	all, _ := f.satellitesNow(ctx) // where they cannot be read, as they were
	var b bytes.Buffer
	view := f.flowOf(all)
	if err := f.pages.byName["flow"].ExecuteTemplate(&b, "live-nodes", view); err != nil {
		return "", fmt.Errorf("render nodes: %w", err)
	}
	return b.String(), nil
}

// flowOf gives the satellites in the picture their places: those that spoke
// lately, some that are not reached, and then others as far as there is room.
func (f *Frontend) flowOf(all *roster) *flowView {
	view := &flowView{Total: len(all.rows), Bodies: f.cfg.ShowBodies}
	chosen := make(map[registry.ID]bool)
	rank := make(map[string]bool)
	for _, id := range f.flow.all() {
		rank[id] = true
	}
	f.rosterMu.Lock()
	order := all.order("nick")
	f.rosterMu.Unlock()
	parked := 0
	for _, i := range order {
		r := &all.rows[i]
		switch {
		case rank[string(r.sat.ID)]:
			chosen[r.sat.ID] = true
		case r.state == registry.StateParked && parked < 6:
			parked++
			chosen[r.sat.ID] = true
		}
	}
	for _, i := range order {
		if len(chosen) >= flowNodes {
			break
		}
		chosen[all.rows[i].sat.ID] = true
	}
	for _, i := range order {
		if r := &all.rows[i]; chosen[r.sat.ID] {
			view.Nodes = append(view.Nodes, flowNode{ID: string(r.sat.ID), Nick: r.sat.Nick, State: r.state.String()})
		}
	}
	if others := view.Total - len(view.Nodes); others > 0 {
		view.Nodes = append(view.Nodes, flowNode{ID: "others", Nick: number10(others) + " more", State: "others", Others: others})
	}
	view.Labels = len(view.Nodes) <= 28
	place(view.Nodes)
	return view
}

// place puts the nodes on an ellipse around the relay at 500, 300; many of them
// by turns on an outer and an inner one.
func place(nodes []flowNode) {
	for i := range nodes {
		n := &nodes[i]
		angle := 2*math.Pi*float64(i)/float64(len(nodes)) - math.Pi/2
		rx, ry := 370.0, 235.0
		if len(nodes) > 28 && i%2 == 1 {
			rx, ry = 285, 175
		}
		cos, sin := math.Cos(angle), math.Sin(angle)
		n.X, n.Y = math.Round(500+rx*cos), math.Round(300+ry*sin)
		n.TextX, n.TextY, n.Anchor = n.X+18*cos, n.Y+24*sin+5, "middle"
		switch {
		case cos > .1:
			n.Anchor, n.TextX = "start", n.X+16
		case cos < -.1:
			n.Anchor, n.TextX = "end", n.X-16
		}
		n.TextX, n.TextY = math.Round(n.TextX), math.Round(n.TextY)
	}
}

func (f *Frontend) flowPage(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
	defer cancel()
	all, err := f.satellitesNow(ctx)
	messages, _, readErr := f.lastMessages(ctx, 0, flowListed)
	f.flow.spoke(messages)
	view := f.flowOf(all)
	slices.Reverse(messages)
	view.Blind, view.Rate = f.flow.isBlind(), f.history.rate(time.Now())
	view.Messages, view.Unread = messages, errors.Join(err, readErr) != nil
	f.page(w, http.StatusOK, "flow", struct {
		frame
		*flowView
	}{f.frame("flow"), view})
}

// valueText writes a value for people, much like JSON, at most so many bytes.
func valueText(v xmlrpc.Value, most int) string {
	var b strings.Builder
	writeValue(&b, v, most)
	s := b.String()
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

func writeValue(b *strings.Builder, v xmlrpc.Value, most int) {
	if b.Len() > most {
		return
	}
	switch v.Kind() {
	case xmlrpc.Struct:
		sep := "{"
		for name, m := range v.Members() {
			if b.Len() > most {
				return
			}
			b.WriteString(sep + name + ": ")
			writeValue(b, m, most)
			sep = ", "
		}
		if sep == "{" {
			b.WriteString("{")
		}
		b.WriteString("}")
	case xmlrpc.Array:
		b.WriteString("[")
		sep := ""
		for e := range v.Elements() {
			if b.Len() > most {
				return
			}
			b.WriteString(sep)
			writeValue(b, e, most)
			sep = ", "
		}
		b.WriteString("]")
	case xmlrpc.Base64:
		b.WriteString("(binary)")
	case xmlrpc.String:
		s, _ := v.Str()
		b.WriteString(s[:min(len(s), most+8)])
	default:
		fmt.Fprint(b, v.Any())
	}
}
