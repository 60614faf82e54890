package faults

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// Invariant: when the broker that holds a reader's consumer is killed, and the
// reader is connected to another, so that nobody tells it, it is not blind for
// longer than about 3 s.
func TestNodeOfTheReadersConsumerIsKilled(t *testing.T) {
	p := startPlant(t, plantOptions{frontends: 1, workers: 1, pingers: 1})
	tr := p.startTraffic(trafficOptions{satellites: 20, talkers: 2, pause: 50 * time.Millisecond})
	tr.flows(50)
	victim := p.placeReader()
	if victim == nil {
		t.Skip("SKIPPED: no placement of leaders and consumer tells the fault from others; run it again")
	}
	tr.flows(50)
	killed := time.Now()
	victim.kill()
	tr.flows(300)
	end := time.Now()
	tr.finish()
	c := tr.count(tr.receivers, killed, end)
	c.report(t, "node of the reader's consumer killed", "longest until 'OK' %s", c.answer.Round(time.Millisecond))
	// A slow machine takes its time as well; a reader that waits for its consumer
	// is blind for 10 to 16 s.
	if c.pause > 6*time.Second {
		t.Errorf("longest pause: got %s, want about 3s, and 6s at most", c.pause)
	}
}

// placeReader starts the worker anew until the consumer by which it reads the
// log is at a node that neither leads what matters nor has the worker's
// connection. It returns that node.
func (p *plant) placeReader() *node {
	p.t.Helper()
	for range 20 {
		leads := map[string]bool{p.leader("RELAY").name: true, p.leader("KV_WORKERS").name: true}
		for _, n := range p.nodes {
			var stream streamState // a node tells of its own consumers only
			eventually(p.t, n.name+" tells of the log", func() bool {
				var err error
				stream, err = n.stream("RELAY")
				return err == nil
			})
			reads := slices.ContainsFunc(stream.Consumers, func(c consumerState) bool { return strings.HasPrefix(c.Name, "co2-") })
			if reads && !leads[n.name] && !p.connectedTo("delivery0")[n.name] {
				return n
			}
		}
		p.workers[0].stop()
		p.workers[0].start()
		p.waitReady()
	}
	return nil
}

// connectedTo tells at which nodes a process has connections.
func (p *plant) connectedTo(process string) map[string]bool {
	p.t.Helper()
	at := make(map[string]bool)
	for _, n := range p.nodes {
		var answer struct {
			Connections []struct {
				Name string `json:"name"`
			} `json:"connections"`
		}
		eventually(p.t, n.name+" tells of its connections", func() bool {
			resp, err := shortly.Get("http://" + n.monitor + "/connz?limit=1000")
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			return json.NewDecoder(resp.Body).Decode(&answer) == nil
		})
		for _, c := range answer.Connections {
			if strings.HasPrefix(c.Name, "co2relay "+process) {
				at[n.name] = true
			}
		}
	}
	return at
}
