package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Invariant: when the broker that leads the log is killed, nothing answered 'OK'
// is lost or repeated, and service goes on by itself, also when it returns.
func TestLeaderOfTheLogIsKilledAndRestarted(t *testing.T) {
	p := startPlant(t, plantOptions{frontends: 2, workers: 2, pingers: 1})
	tr := p.startTraffic(trafficOptions{satellites: 60, talkers: 4, pause: 50 * time.Millisecond})
	tr.flows(100)
	rounds := 2
	if testing.Short() {
		rounds = 1
	}
	var judge []func()
	for i := range rounds {
		leader := p.leader("RELAY")
		killed := time.Now()
		watched := p.watchElections(leader)
		leader.kill()
		tr.flows(200)
		elected := watched()
		returns := time.Now()
		leader.start()
		p.whole()
		tr.flows(200)
		back := time.Now()
		judge = append(judge, func() {
			c := tr.count(tr.receivers, killed, returns)
			c.report(t, fmt.Sprintf("leader of the log killed (%d)", i+1), "leaders elected after %s; longest until 'OK' %s, from relay to notify %s",
				elected, c.answer.Round(time.Millisecond), c.wait.Round(time.Millisecond))
			if most := orElected(takeOver, elected); c.pause > most {
				t.Errorf("longest pause: got %s, leaders elected after %s; want at most %s", c.pause, elected, most)
			}
			c = tr.count(tr.receivers, returns, back)
			c.report(t, fmt.Sprintf("and restarted (%d)", i+1), "longest until 'OK' %s", c.answer.Round(time.Millisecond))
			if c.pause > takeOver {
				t.Errorf("longest pause: got %s, want at most %s", c.pause, takeOver)
			}
		})
	}
	tr.finish()
	for _, f := range judge {
		f()
	}
	p.allRun()
}

// allRun checks that no role has ended.
func (p *plant) allRun() {
	p.t.Helper()
	for _, r := range p.roles() {
		if !r.running() {
			p.t.Errorf("%s has ended: %v", r.name, r.status)
		}
	}
}

// Invariant: with every broker down, each role waits, says so and does not end;
// when they return everything goes on by itself, and nothing is lost. Only what
// the workers had in flight or finished since their last checkpoint is repeated,
// by whoever takes over, and nothing once that is over.
func TestAllBrokersDown(t *testing.T) {
	down := time.Minute
	if testing.Short() {
		down = 20 * time.Second
	}
	p := startPlant(t, plantOptions{frontends: 1, workers: 2, pingers: 1})
	tr := p.startTraffic(trafficOptions{satellites: 60, talkers: 4, pause: 100 * time.Millisecond})
	tr.flows(100)
	killed := time.Now()
	for _, n := range p.nodes {
		n.kill()
	}
	p.workers[1].stop() // in order and soon, though it has partitions that it cannot hand over
	p.workers[1].start()
	for _, r := range p.roles() {
		eventually(t, r.name+" says that it is not ready", func() bool { return r.running() && !r.ready() })
		eventually(t, r.name+" says why", func() bool { return strings.Contains(r.log.String(), "lost the broker, reconnecting") })
	}
	late := p.addWorker() // it has never seen the broker
	time.Sleep(time.Until(killed.Add(down)))
	p.allRun()
	if !strings.Contains(late.log.String(), "waiting for the broker") {
		t.Errorf("%s does not say that it waits", late.name)
	}
	returned := time.Now()
	watched := p.watchElections(nil)
	for _, n := range p.nodes {
		n.start()
	}
	tr.flows(1)
	accepting := time.Since(returned)
	tr.flows(100)
	p.waitReady()
	elected := watched()
	tr.settle()
	again := time.Now()
	tr.flows(100)
	end := time.Now()
	tr.finish()
	p.allRun()
	c := tr.count(tr.receivers, killed, again)
	age := c.oldestBefore(killed)
	c.report(t, fmt.Sprintf("all brokers down for %s", down), "leaders elected %s, first 'OK' %s after their start; %d repeats of one satellite at most, the oldest %s before the kill",
		elected, accepting.Round(10*time.Millisecond), c.mostRepeated, age)
	if age > checkpointSpan+checkpointSlack {
		t.Errorf("oldest repeat: got %s before the kill, want at most %s", age, checkpointSpan)
	}
	if most := down + orElected(2*takeOver, elected); c.pause > most {
		t.Errorf("longest pause: got %s, leaders elected after %s; want at most %s", c.pause, elected, most)
	}
	c = tr.count(tr.receivers, again, end)
	c.report(t, "and afterwards", "")
	if c.repeated != 0 {
		t.Errorf("repeats afterwards: got %d, want 0", c.repeated)
	}
}
