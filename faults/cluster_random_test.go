package faults

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/co2relay/co2relay/satellite/satellitetest"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random steps; 0: another one each time")

// walk is a cluster, what a reader of the promises expects of it, and a source
// of chance.
type walk struct {
	t     *testing.T
	p     *plant
	rng   *rand.Rand
	sats  []*walker
	said  []*saying
	heals []heal // what broken things wait for
	step  int
	node  bool // a broker is down or catching up
	count map[string]int
}

// walker is a satellite and what the model knows of it.
type walker struct {
	*receiver
	registered   bool
	registration int // how often it has registered
	left         time.Time
	down         bool
}

// saying is a relayed message and who was registered then, with their
// registrations.
type saying struct {
	message
	outcome  outcome
	at       time.Time
	audience map[*walker]int
}

type outcome int

const (
	accepted outcome = iota
	refused
	inDoubt
)

type heal struct {
	at   int
	what func()
}

// Invariant: after any sequence of registering, deregistering, relaying,
// killing, stopping and pausing, each satellite has every message that was
// answered 'OK' while it was registered, unless it left, in order, and none that
// was refused or that was relayed while it was away.
func TestRandomSteps(t *testing.T) {
	steps := 1000
	if testing.Short() {
		steps = 150
	}
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("repeat by: go test ./faults -run TestRandomSteps -seed %d", seed)
	p := startPlant(t, plantOptions{frontends: 2, workers: 3, pingers: 2, pingerFlags: []string{"--ping-interval", "1s"}})
	w := &walk{t: t, p: p, rng: rand.New(rand.NewPCG(seed, 3)), count: make(map[string]int)}
	for range 30 {
		r := &receiver{got: make(map[message]time.Time)}
		r.sat = satellitetest.Start(t, satellitetest.Options{Keep: satellitetest.KeepNone, OnNotify: r.notify})
		w.sats = append(w.sats, &walker{receiver: r})
	}
	began := time.Now()
	for w.step = range steps {
		w.mend(w.step)
		w.one()
		time.Sleep(time.Duration(w.rng.IntN(20)) * time.Millisecond)
	}
	w.mend(steps + 1000)
	p.whole()
	p.waitReady()
	for _, s := range w.sats {
		if s.down {
			s.sat.SetBehaviour(satellitetest.Behaviour{})
		}
	}
	deadline := time.Now().Add(90 * time.Second)
	for len(w.owed()) > 0 && time.Now().Before(deadline) {
		time.Sleep(100 * time.Millisecond)
	}
	p.allRun()
	w.judge(steps, seed, time.Since(began))
}

func (w *walk) mend(step int) {
	var later []heal
	for _, h := range w.heals {
		if h.at <= step {
			h.what()
		} else {
			later = append(later, h)
		}
	}
	w.heals = later
}

func (w *walk) soon(what func()) {
	w.heals = append(w.heals, heal{w.step + 5 + w.rng.IntN(25), what})
}

// one does one step.
func (w *walk) one() {
	s := w.sats[w.rng.IntN(len(w.sats))]
	switch n := w.rng.IntN(1000); {
	case n < 170:
		w.register(s)
	case n < 260:
		w.deregister(s)
	case n < 860:
		w.relay(s, 1+w.rng.IntN(12))
	case n < 930:
		w.toggle(s)
	case n < 965:
		w.breakOne(w.p.workers)
	case n < 980:
		w.breakOne(w.p.frontends)
	case n < 990:
		w.breakOne(w.p.pingers)
	default:
		w.breakNode()
	}
}

// insist repeats what may be repeated until it succeeds, at any frontend.
func (w *walk) insist(what string, try func(ctx context.Context, url string) error) {
	w.t.Helper()
	var last error
	for began := time.Now(); time.Since(began) < time.Minute; {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		last = try(ctx, w.frontend().url())
		cancel()
		if last == nil {
			w.count[what]++
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.t.Fatalf("step %d: %s for a minute: %v", w.step, what, last)
}

func (w *walk) frontend() *role {
	up := w.up(w.p.frontends)
	return up[w.rng.IntN(len(up))]
}

func (w *walk) up(roles []*role) (up []*role) {
	for _, r := range roles {
		if r.running() && !r.broken {
			up = append(up, r)
		}
	}
	return up
}

func (w *walk) register(s *walker) {
	w.insist("register", func(ctx context.Context, url string) error {
		_, err := s.sat.Register(ctx, url, "")
		return err
	})
	if !s.registered {
		s.registered = true
		s.registration++
	}
}

func (w *walk) deregister(s *walker) {
	if !s.registered {
		return
	}
	tried := false
	w.insist("deregister", func(ctx context.Context, url string) error {
		err := s.sat.Deregister(ctx, url, s.sat.ID())
		if err != nil && tried && strings.Contains(err.Error(), "exceptions.KeyError:") {
			return nil // an earlier try did it
		}
		tried = true
		return err
	})
	s.registered, s.left = false, time.Now()
}

// relay relays some messages at the same time.
func (w *walk) relay(s *walker, n int) {
	for i := w.rng.IntN(len(w.sats)); !s.registered; i++ {
		if s = w.sats[i%len(w.sats)]; i > 2*len(w.sats) {
			return
		}
	}
	audience := make(map[*walker]int)
	for _, x := range w.sats {
		if x.registered && x != s {
			audience[x] = x.registration
		}
	}
	var all sync.WaitGroup
	for range n {
		m := &saying{message: message{0, len(w.said)}, at: time.Now(), audience: audience}
		w.said = append(w.said, m)
		url := w.frontend().url()
		all.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			data := fmt.Sprintf("faults:%d:%d:%d:end", m.talker, m.n, m.at.UnixNano())
			m.outcome = w.judgeRelay(s.sat.Relay(ctx, url, s.sat.ID(), data, ""))
		})
	}
	all.Wait()
	w.count["relay"] += n
}

func (w *walk) judgeRelay(err error) outcome {
	switch {
	case err == nil:
		return accepted
	case strings.Contains(err.Error(), "was not accepted"):
		return refused
	case strings.Contains(err.Error(), "fault") && !strings.Contains(err.Error(), "may have been accepted"):
		w.t.Errorf("step %d: relay for a registered satellite: %v", w.step, err)
		return refused
	}
	return inDoubt
}

func (w *walk) toggle(s *walker) {
	if s.down = !s.down; s.down {
		s.sat.SetBehaviour(satellitetest.Behaviour{Mode: satellitetest.Down})
	} else {
		s.sat.SetBehaviour(satellitetest.Behaviour{})
	}
	w.count["satellite down or up"]++
}

// breakOne kills, stops or pauses one of several processes, but leaves one.
func (w *walk) breakOne(roles []*role) {
	up := w.up(roles)
	if len(up) < 2 {
		return
	}
	r := up[w.rng.IntN(len(up))]
	r.broken = true
	mended := func() {
		if r.kind == "frontend" {
			eventually(w.t, r.name+" is ready", r.ready)
		} else {
			eventually(w.t, r.name+" has begun", r.begun)
		}
		r.broken = false
	}
	switch w.rng.IntN(3) {
	case 0:
		w.count["kill "+r.kind]++
		r.kill()
		w.soon(func() { r.start(); mended() })
	case 1:
		w.count["stop "+r.kind]++
		r.stop()
		w.soon(func() { r.start(); mended() })
	default:
		w.count["pause "+r.kind]++
		r.pause()
		w.soon(func() { r.resume(); mended() })
	}
}

// breakNode kills a broker, one at a time.
func (w *walk) breakNode() {
	if w.node {
		return
	}
	w.node = true
	n := w.p.nodes[w.rng.IntN(len(w.p.nodes))]
	n.kill()
	w.count["kill broker"]++
	w.soon(func() {
		n.start()
		eventually(w.t, n.name+" is healthy", n.healthy)
		w.node = false
	})
}

// owed are the messages that satellites still must get.
func (w *walk) owed() (owed []string) {
	for _, m := range w.said {
		if m.outcome != accepted {
			continue
		}
		for s, registration := range m.audience {
			if s.registered && s.registration == registration && !s.has(m.message) {
				owed = append(owed, fmt.Sprintf("message %d, relayed at %s, by %s", m.n, m.at.Format(time.TimeOnly), s.sat.ID()))
			}
		}
	}
	return owed
}

// straysFor is how long after its deregistration a satellite may still be
// called: a worker that another will replace has not heard of it yet.
const straysFor = takeOver

func (w *walk) judge(steps int, seed uint64, took time.Duration) {
	lost := w.owed()
	c := tally{satellites: len(w.sats), lost: len(lost)}
	strays := 0
	for _, m := range w.said {
		if m.outcome == accepted {
			c.accepted++
		} else {
			c.refused++
		}
	}
	order := make(map[message]uint64)
	for _, s := range w.sats {
		c.receiver(s.receiver, order, time.Time{}, time.Now(), time.Time{})
		for _, x := range s.receipts() {
			m := w.said[x.n]
			_, meant := m.audience[s]
			switch {
			case m.outcome == refused:
				w.t.Errorf("message %d: refused, but %s got it", m.n, s.sat.ID())
			case m.outcome == accepted && !meant && x.at.Sub(m.at) < straysFor:
				strays++
			case m.outcome == accepted && !meant:
				w.t.Errorf("message %d: %s got it, which was not registered then", m.n, s.sat.ID())
			}
		}
	}
	for _, x := range lost[:min(len(lost), 20)] {
		w.t.Errorf("lost: %s", x)
	}
	w.t.Logf("steps: %v", w.count)
	c.report(w.t, fmt.Sprintf("%d random steps", steps), "seed %d, %s; %d calls after deregistering", seed, took.Round(time.Second), strays)
}
