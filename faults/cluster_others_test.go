package faults

import (
	"testing"
	"time"
)

// Invariant: a frontend that is killed, or sleeps and wakes up, loses nothing
// that it answered 'OK' and costs others nothing; its own callers go on through
// another. What it says was not accepted never arrives.
func TestFrontendKilledAndAsleep(t *testing.T) {
	p := startPlant(t, plantOptions{frontends: 2, workers: 2, pingers: 1})
	tr := p.startTraffic(trafficOptions{satellites: 40, talkers: 4, pause: 50 * time.Millisecond, try: 2 * time.Second})
	tr.flows(100)

	killed := time.Now()
	p.frontends[1].kill()
	tr.flows(200)
	restarted := time.Now()
	p.frontends[1].start()
	eventually(t, "the frontend is ready again", p.frontends[1].ready)
	tr.flows(100)

	asleep := time.Now()
	p.frontends[0].pause()
	tr.flows(200)
	time.Sleep(time.Until(asleep.Add(6 * time.Second)))
	awake := time.Now()
	p.frontends[0].resume()
	tr.flows(200)
	end := time.Now()
	tr.finish()

	for _, x := range []struct {
		fault    string
		from, to time.Time
	}{{"frontend killed", killed, restarted}, {"frontend started again", restarted, asleep}, {"frontend asleep", asleep, awake}, {"frontend awake", awake, end}} {
		c := tr.count(tr.receivers, x.from, x.to)
		c.report(t, x.fault, "longest until 'OK' %s", c.answer.Round(time.Millisecond))
		if c.repeated != 0 || c.pause > takeOver {
			t.Errorf("%s: got %d repeated, a pause of %s; want 0, at most %s", x.fault, c.repeated, c.pause, takeOver)
		}
	}
}

// Invariant: when a pinger is killed, or sleeps beyond its lease and wakes up,
// another pings its satellites within 10 s, and messages do not notice.
func TestPingerKilledAndAsleep(t *testing.T) {
	p := startPlant(t, plantOptions{frontends: 1, workers: 1, pingers: 2, pingerFlags: []string{"--ping-interval", "1s"}})
	tr := p.startTraffic(trafficOptions{satellites: 40, talkers: 2, pause: 50 * time.Millisecond})
	tr.flows(50)
	pinged := func() time.Duration {
		t.Helper()
		began := time.Now()
		pings := make([]uint64, len(tr.receivers))
		for i, r := range tr.receivers {
			pings[i] = r.sat.Stats().Pings
		}
		for i, r := range tr.receivers {
			eventually(t, "satellite "+r.sat.ID()+" is pinged", func() bool { return r.sat.Stats().Pings > pings[i] })
		}
		return time.Since(began)
	}
	check := func(fault string, from time.Time, took time.Duration) func() {
		to := time.Now()
		return func() {
			c := tr.count(tr.receivers, from, to)
			c.report(t, fault, "every satellite was pinged within %s", took.Round(10*time.Millisecond))
			if c.repeated != 0 || took > takeOver+2*time.Second {
				t.Errorf("%s: got %d repeated, %s until all were pinged; want 0, at most %s and a round", fault, c.repeated, took, takeOver)
			}
		}
	}
	pinged()
	var judge []func()
	killed := time.Now()
	p.pingers[0].kill()
	judge = append(judge, check("pinger killed", killed, pinged()))
	p.pingers[0].start()
	eventually(t, "two share the pings", func() bool { return p.balanced("pinger", p.pingers) })
	asleep := time.Now()
	p.pingers[1].pause()
	judge = append(judge, check("pinger asleep", asleep, pinged()))
	eventually(t, "the other has all", func() bool {
		owners, err := p.owners("pinger")
		for _, owner := range owners {
			if owner == p.pingers[1].name {
				return false
			}
		}
		return err == nil
	})
	awake := time.Now()
	p.pingers[1].resume()
	eventually(t, "two share the pings again", func() bool { return p.balanced("pinger", p.pingers) })
	judge = append(judge, check("pinger awake", awake, pinged()))
	tr.finish()
	for _, f := range judge {
		f()
	}
}
