package faults

import (
	"testing"
	"time"
)

// Invariant: with nothing broken, separate processes on three brokers deliver
// every message once, in order.
func TestClusterWithoutFaults(t *testing.T) {
	p := startPlant(t, plantOptions{frontends: 1, workers: 2, pingers: 1})
	tr := p.startTraffic(trafficOptions{satellites: 20, talkers: 2, pause: 20 * time.Millisecond})
	tr.flows(200)
	c := tr.finish()
	c.report(t, "none", "longest from relay to notify %s", c.wait.Round(time.Millisecond))
	if c.repeated != 0 || c.refused != 0 {
		t.Errorf("got %d repeated, %d refused, want none", c.repeated, c.refused)
	}
}
