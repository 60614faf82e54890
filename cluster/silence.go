package cluster

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// A node of the broker that is cut off from the others keeps its clients. It answers their pings, and if it led a stream it
// even answers about it for ten seconds more, but nothing that takes a majority ever comes back (seen: relays in doubt
// until the wire was whole again). nats.go goes on to another node only when a connection breaks. So who hears nothing for
// silentFor breaks it.

const (
	silentFor    = 3 * time.Second
	silentMost   = 7 * time.Second // an election takes up to 6 s (seen)
	leftFor      = time.Minute     // a node that was silent is the last choice
	silenceEvery = time.Second
	silenceLeast = 500 * time.Millisecond // a request that was given less time says nothing
	missedEchoes = 4
)

// silence is how long one kind of request has had no answer.
type silence struct {
	mu    sync.Mutex
	since time.Time // when the first of those was sent; zero: the last one was answered
	count int
	heard time.Time // the last answer
}

// note takes the outcome of a request. Refusals say nothing: one that was a leader refuses by itself, repeats above all.
func (s *silence) note(sent time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch code := apiCode(err); {
	case err == nil:
		s.since, s.count, s.heard = time.Time{}, 0, time.Now()
	case errors.Is(err, nats.ErrNoResponders), code == codeIDInProcess, code == codeDuplicateInBatch,
		(errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout)) && time.Since(sent) >= silenceLeast:
		if s.count++; s.since.IsZero() {
			s.since = sent
		}
	}
}

// lasting tells for how long there has been none.
func (s *silence) lasting() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count < 2 {
		return 0
	}
	return time.Since(s.since)
}

func (s *silence) answeredWithin(d time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.heard) < d
}

func (s *silence) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since, s.count = time.Time{}, 0
}

// watchSilence moves the connections to other nodes as long as theirs answer nothing. Both of them are needed, and they may
// be at different nodes: an echo from one to the other shows whether these hear each other.
func (c *Cluster) watchSilence() {
	inbox := c.bulk.NewInbox()
	var echoed atomic.Bool
	sub, err := c.bulk.Subscribe(inbox, func(*nats.Msg) { echoed.Store(true) })
	if err != nil {
		c.log.Warn("listening to echoes of the broker failed", "error", err)
		return
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only where the connection has ended
	missed := 0
	for sleep(c.stop, silenceEvery) {
		if len(c.nc.Servers()) < 2 || !c.nc.IsConnected() || !c.bulk.IsConnected() {
			missed = 0
			continue
		}
		if missed++; echoed.Swap(false) {
			missed = 0
		}
		switch {
		case c.isSilent():
			c.leave(c.nc, c.bulk)
		case missed >= missedEchoes && c.writes.answeredWithin(silentFor):
			c.leave(c.bulk)
		case missed >= missedEchoes:
			c.leave(c.nc, c.bulk) // one of the two is cut off, so there is a third that is not
		default:
			_ = c.nc.Publish(inbox, nil) // an echo that is not sent is missed
			continue
		}
		missed = 0
	}
}

// isSilent tells whether the node has to be left. While a stream elects a leader, nobody's writes to it are answered: that is
// no reason to leave a node that reaches the leader of all. Whoever still answers as the stream's leader while writes have no
// answer is cut off.
func (c *Cluster) isSilent() bool {
	lasting := max(c.writes.lasting(), c.calls.lasting())
	if lasting < silentFor {
		return false
	}
	if lasting >= silentMost {
		return true
	}
	try, cancel := context.WithTimeout(c.stop, silenceLeast)
	defer cancel()
	if _, err := c.streamInfoOnce(try, relayStream); err == nil {
		return c.writes.lasting() >= silentFor
	}
	try, cancel = context.WithTimeout(c.stop, silenceLeast)
	defer cancel()
	return c.call(try, "INFO", nil, nil) != nil
}

// leave breaks connections; each takes a node that was not left lately.
func (c *Cluster) leave(conns ...*nats.Conn) {
	for _, nc := range conns {
		c.left.Store(nc.ConnectedUrl(), time.Now())
		c.log.Warn("a node of the broker is silent, going to another", "connection", nc.Opts.Name, "server", nc.ConnectedServerName())
	}
	for _, nc := range conns {
		if err := nc.ForceReconnect(); err != nil && c.stop.Err() == nil {
			c.log.Warn("leaving a node of the broker failed", "error", err)
		}
	}
	c.writes.reset()
	c.calls.reset()
}

// choose is asked by nats.go which node to try next: one that was never left, or else left longest ago. nil leaves that to
// nats.go: where nothing was left lately, or no try at any of them has been free of failure since.
func (c *Cluster) choose(servers []nats.Server, _ nats.ServerInfo) (*nats.Server, time.Duration) {
	var best *nats.Server
	var bestLeft time.Time
	known := false
	for i := range servers {
		s := &servers[i]
		var at time.Time
		if v, ok := c.left.Load(s.URL.String()); ok && time.Since(v.(time.Time)) < leftFor {
			at, known = v.(time.Time), true
		}
		if s.Reconnects == 0 && (best == nil || at.Before(bestLeft)) { // a dead node has failed tries, and was never left
			best, bestLeft = s, at
		}
	}
	if !known {
		return nil, 0
	}
	return best, 0
}
