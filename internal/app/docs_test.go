package app

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/co2relay/co2relay/cluster"
)

func TestEveryKindOfEventHasAnExampleThatIsOne(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i, block := range strings.Split(string(page), "```json\n")[1:] {
		example, _, _ := strings.Cut(block, "\n```")
		d := json.NewDecoder(strings.NewReader(example))
		d.DisallowUnknownFields()
		var e cluster.Event
		if err := d.Decode(&e); err != nil || e.Version != 1 || e.Time.IsZero() || !slices.Contains(cluster.EventKinds(), e.Kind) {
			t.Errorf("example %d: got %+v, %v; want an event of a known kind", i+1, e, err)
		}
		seen[e.Kind] = true
		if again, err := json.Marshal(e); err != nil || string(again) != example {
			t.Errorf("example %d: got %s, want it as the relay writes it: %s", i+1, example, again)
		}
	}
	for _, kind := range cluster.EventKinds() {
		if !seen[kind] {
			t.Errorf("kind %s has no example in docs/events.md", kind)
		}
	}
}
