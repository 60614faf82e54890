package cluster

import (
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// A node that does not run was never left. It must not be chosen for ever
// because the others were (seen: a process that never came back).
func TestADeadNodeIsNotChosenBeforeOneThatWasLeft(t *testing.T) {
	t.Parallel()
	servers := []nats.Server{{URL: &url.URL{Scheme: "nats", Host: "dead"}}, {URL: &url.URL{Scheme: "nats", Host: "first"}}, {URL: &url.URL{Scheme: "nats", Host: "second"}}}
	c := &Cluster{}
	if got, _ := c.choose(servers, nats.ServerInfo{}); got != nil {
		t.Errorf("with none left: got %s, want nats.go's own choice", got.URL)
	}
	c.left.Store("nats://first", time.Now().Add(-2*time.Second))
	c.left.Store("nats://second", time.Now().Add(-time.Second))
	if got, _ := c.choose(servers, nats.ServerInfo{}); got == nil || got.URL.Host != "dead" {
		t.Errorf("first: got %v, want the one that was not left", got)
	}
	servers[0].Reconnects = 1
	if got, _ := c.choose(servers, nats.ServerInfo{}); got == nil || got.URL.Host != "first" {
		t.Errorf("after a failure: got %v, want the one that was left longest ago", got)
	}
	servers[1].Reconnects, servers[2].Reconnects = 1, 1
	if got, _ := c.choose(servers, nats.ServerInfo{}); got != nil {
		t.Errorf("after failures of all: got %s, want nats.go's own choice", got.URL)
	}
}

func TestSilenceIsCountedFromTheFirstRequestWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	var s silence
	long := time.Now().Add(-silentFor)
	s.note(long, context.DeadlineExceeded)
	if got := s.lasting(); got != 0 {
		t.Errorf("after one: got %s, want 0: one may be lost", got)
	}
	s.note(time.Now().Add(time.Hour), context.DeadlineExceeded) // it was given no time
	s.note(time.Now(), context.Canceled)
	if got := s.lasting(); got != 0 {
		t.Errorf("after one and two that say nothing: got %s, want 0", got)
	}
	s.note(time.Now(), nats.ErrNoResponders)
	if got := s.lasting(); got < silentFor {
		t.Errorf("after two: got %s, want at least %s", got, silentFor)
	}
	s.note(time.Now(), nil)
	if got := s.lasting(); got != 0 {
		t.Errorf("after an answer: got %s, want 0", got)
	}
}
