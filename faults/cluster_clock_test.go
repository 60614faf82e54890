package faults

import (
	"os/exec"
	"testing"
	"time"
)

// Invariant: it does not matter what a process's clock says: a worker that lives
// ten days ahead of the others shares with them, takes over what a killed one
// leaves, and when it is killed itself the others notice as soon as ever.
//
// A Linux time namespace sets the clocks by which leases are kept and judged
// (CLOCK_BOOTTIME, CLOCK_MONOTONIC). What a step of such a clock does, which no
// system makes, and what a sleeping machine does, is tested in cluster
// (membership_test.go, with a clock that the test sets), and for a worker as a
// whole in delivery's simulation. The wall clock decides nothing: it is shown to
// people, and the broker's own ends messages by their age.
func TestWorkerWhoseClockIsTenDaysAhead(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: a short run leaves clocks to the tests of cluster and delivery")
	}
	ahead := []string{"unshare", "--time", "--fork", "--kill-child", "--boottime", "864000", "--monotonic", "864000"}
	if out, err := exec.Command(ahead[0], append(ahead[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: no time namespaces here: %v: %s", err, out)
	}
	p := startPlant(t, plantOptions{frontends: 1, workers: 2, pingers: 1})
	p.under = ahead
	far := p.addWorker()
	p.under = nil
	p.waitReady()
	tr := p.startTraffic(trafficOptions{satellites: 60, talkers: 4, pause: 100 * time.Millisecond})
	tr.flows(60)
	var judge []func()
	for _, x := range []struct {
		fault  string
		victim *role
	}{{"worker killed beside one ten days ahead", p.workers[0]}, {"worker ten days ahead killed", far}} {
		its, _ := tr.of(p.ownedBy("delivery", x.victim))
		killed := time.Now()
		x.victim.kill()
		eventually(t, "the others own everything", func() bool { return p.balanced("delivery", p.workers) })
		tr.flows(60)
		taken := time.Now()
		judge = append(judge, func() {
			c := tr.count(its, killed, taken)
			age := c.oldestBefore(killed)
			c.report(t, x.fault, "%d repeats of one satellite at most, the oldest %s before the kill", c.mostRepeated, age)
			if c.pause > takeOver || age > checkpointSpan+checkpointSlack {
				t.Errorf("got a pause of %s, repeats up to %s old; want at most %s, %s", c.pause, age, takeOver, checkpointSpan)
			}
		})
	}
	tr.finish()
	for _, f := range judge {
		f()
	}
}
