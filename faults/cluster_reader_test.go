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
	if c.pause > 4*time.Second {
		t.Errorf("longest pause: got %s, want about 3s at most", c.pause)
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
			stream, err := n.stream("RELAY") // a node tells of its own consumers only
			if err != nil {
				p.t.Fatal(err)
			}
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
		resp, err := shortly.Get("http://" + n.monitor + "/connz?limit=1000")
		if err != nil {
			p.t.Fatal(err)
		}
		var answer struct {
			Connections []struct {
				Name string `json:"name"`
			} `json:"connections"`
		}
		err = json.NewDecoder(resp.Body).Decode(&answer)
		resp.Body.Close()
		if err != nil {
			p.t.Fatal(err)
		}
		for _, c := range answer.Connections {
			if strings.HasPrefix(c.Name, "co2relay "+process) {
				at[n.name] = true
			}
		}
	}
	return at
}
