package app

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/co2relay/co2relay/satellite/satellitetest"
)

// What deploy/ and the guides say of metrics is held against those of a relay
// to which everything that they tell of has happened. An alert on a metric, or
// on a label's value, that does not exist would never fire.
func TestEveryMetricThatIsWatchedExists(t *testing.T) {
	t.Parallel()
	var admin string
	s := startSite(t, func(cfg *Config) {
		admin = adminOnly(t)
		cfg.Admin = admin
		cfg.Frontend.MaxConnsPerAddr = 8
		cfg.Pinger.Interval = 100 * time.Millisecond
	})
	sender := s.satellite(satellitetest.Behaviour{})
	s.satellite(satellitetest.Behaviour{Mode: satellitetest.Fault})
	s.satellite(satellitetest.Behaviour{}).SetBehaviour(satellitetest.Behaviour{Mode: satellitetest.Down})
	s.relay(sender, 3)
	crowd(t, s.url, 16)

	var wrong []string
	deadline := time.Now().Add(time.Minute)
	for {
		have := scrape(t, admin)
		if wrong = nil; len(have) == 0 {
			t.Fatal("the admin port serves no metrics")
		}
		for _, w := range watched(t) {
			if fault := have.lacks(w); fault != "" {
				wrong = append(wrong, fault)
			}
		}
		if len(wrong) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("watched, but not there:\n%s", strings.Join(wrong, "\n"))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// adminOnly is an address that no other test listens at.
func adminOnly(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skipf("NOT TESTED: no second loopback address here: %v", err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// crowd opens more connections than one address may have, and closes them.
func crowd(t *testing.T, url string, n int) {
	t.Helper()
	addr := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/RPC2")
	for range n {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
}

// exported is the values of the labels of each metric: name, label, value.
type exported map[string]map[string][]string

var labelled = regexp.MustCompile(`(\w+)(!?=~?)"([^"]*)"`)

func scrape(t *testing.T, admin string) exported {
	t.Helper()
	resp, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("read metrics: %s, %v", resp.Status, err)
	}
	have := exported{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, labels, _ := strings.Cut(strings.Fields(line)[0], "{")
		if have[name] == nil {
			have[name] = map[string][]string{}
		}
		for _, l := range labelled.FindAllStringSubmatch(labels, -1) {
			have[name][l[1]] = append(have[name][l[1]], l[3])
		}
	}
	return have
}

// watch is a place that names a metric: its labels, and what they are compared
// with ("" where they are only named).
type watch struct {
	where, name string
	labels      [][2]string
}

// Labels that Prometheus adds by itself.
var added = []string{"job", "role", "instance", "le"}

func (have exported) lacks(w watch) string {
	labels, ok := have[w.name]
	if !ok {
		// A page names a histogram as a whole.
		if labels, ok = have[w.name+"_bucket"]; !ok {
			return fmt.Sprintf("%s: no metric %s", w.where, w.name)
		}
	}
	for _, l := range w.labels {
		values, ok := labels[l[0]]
		switch {
		case slices.Contains(added, l[0]):
		case !ok:
			return fmt.Sprintf("%s: %s has no label %s", w.where, w.name, l[0])
		case l[1] != "" && !slices.Contains(values, l[1]):
			return fmt.Sprintf("%s: %s has no %s %q, but %q", w.where, w.name, l[0], l[1], slices.Compact(slices.Sorted(slices.Values(values))))
		}
	}
	return ""
}

var (
	metric   = regexp.MustCompile(`\b((?:co2|process|go)_[a-z_]+)\b(?:\{([^}]*)\})?`)
	groupBy  = regexp.MustCompile(`\bby \(([^)]*)\)`)
	alertRow = regexp.MustCompile(`- alert: (\w+)\n\s+expr: ((?:.|\n)*?)\n\s+(?:for|labels):`)
)

// watched is every metric that the alerts, the dashboard and the guide name.
func watched(t *testing.T) (all []watch) {
	t.Helper()
	for _, rule := range alertRow.FindAllStringSubmatch(readFile(t, "deploy/alerts.yml"), -1) {
		all = append(all, watchedBy("alert "+rule[1], rule[2])...)
	}
	if len(all) < 9 {
		t.Fatalf("deploy/alerts.yml: got %d metrics in its rules, want one in each", len(all))
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, "deploy/grafana.json")), &board); err != nil || len(board.Panels) < 12 {
		t.Fatalf("deploy/grafana.json: got %d panels, %v", len(board.Panels), err)
	}
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			all = append(all, watchedBy("panel "+panel.Title, target.Expr)...)
		}
	}
	for line := range strings.Lines(readFile(t, "docs/monitoring.md")) {
		all = append(all, watchedBy("docs/monitoring.md", line)...)
	}
	return all
}

func watchedBy(where, text string) (all []watch) {
	for _, m := range metric.FindAllStringSubmatch(text, -1) {
		w := watch{where: where, name: m[1]}
		for _, l := range labelled.FindAllStringSubmatch(m[2], -1) {
			w.labels = append(w.labels, [2]string{l[1], l[3]})
		}
		if len(w.labels) == 0 && m[2] != "" {
			for label := range strings.SplitSeq(m[2], ",") {
				w.labels = append(w.labels, [2]string{label, ""})
			}
		}
		for _, by := range groupBy.FindAllStringSubmatch(text, -1) {
			for label := range strings.SplitSeq(by[1], ",") {
				w.labels = append(w.labels, [2]string{strings.TrimSpace(label), ""})
			}
		}
		all = append(all, w)
	}
	return all
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile("../../" + path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheGuideSaysWhatToDoAtEachAlert(t *testing.T) {
	t.Parallel()
	_, guide, _ := strings.Cut(readFile(t, "docs/operations.md"), "\n## Alerts\n")
	var told, named []string
	for _, m := range regexp.MustCompile(`(?m)^\*\*(\w+)\*\*: `).FindAllStringSubmatch(guide, -1) {
		told = append(told, m[1])
	}
	for _, rule := range alertRow.FindAllStringSubmatch(readFile(t, "deploy/alerts.yml"), -1) {
		named = append(named, rule[1])
	}
	if !slices.Equal(told, named) || len(named) == 0 {
		t.Errorf("docs/operations.md tells of %q, want the alerts of deploy/alerts.yml in their order: %q", told, named)
	}
	if got := strings.Count(readFile(t, "deploy/alerts.yml"), "- alert: "); got != len(named) {
		t.Errorf("deploy/alerts.yml: got %d rules that this test can read, want %d", len(named), got)
	}
}
