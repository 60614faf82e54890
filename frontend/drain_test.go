package frontend

import (
	"net"
	"strings"
	"testing"
	"time"
)

func TestDrainServesOnForTheDelayAndFinishesCalls(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.DrainDelay, c.DrainTimeout, c.IdleTimeout = 5*time.Second, time.Minute, time.Hour })
	idle, begun, unused := r.raw(t), r.raw(t), r.raw(t)
	idle.send(post11(pingDoc, "")).answer()
	text := post11(pingDoc+strings.Repeat(" ", freeBody), "")
	begun.send(text[:len(text)-5])
	eventually(t, "the unfinished call has arrived", func() bool { return r.budgetUsers() == 1 })
	if r.Draining() {
		t.Error("draining before it was asked to stop")
	}
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	eventually(t, "the frontend says that it drains", r.Draining)
	if _, body := idle.send(post11(pingDoc, "")).answer(); !strings.Contains(body, "pong") {
		t.Errorf("call during the delay: got %q, want pong", body)
	}
	eventually(t, "new connections are refused", func() bool {
		c, err := net.Dial("tcp", r.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if _, body := begun.send(text[len(text)-5:]).answer(); !strings.Contains(body, "pong") {
		t.Errorf("call in flight: got %q, want pong", body)
	}
	idle.closed()
	unused.closed()
	if err := <-stopped; err != nil {
		t.Errorf("serve: got %v, want nil", err)
	}
}

// budgetUsers counts the calls whose body is paid for.
func (r *relayUnderTest) budgetUsers() int {
	n := 0
	for _, p := range []*pool{&r.budget.small, &r.budget.large} {
		p.mu.Lock()
		for _, s := range p.by {
			n += s.users
		}
		p.mu.Unlock()
	}
	return n
}

func TestDrainGivesUpCallsThatDoNotFinish(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.DrainTimeout = 100 * time.Millisecond; c.BodyTimeout = time.Hour })
	c := r.raw(t)
	c.send("POST / HTTP/1.1\r\nHost: relay\r\nContent-Length: 9999\r\n\r\n<")
	eventually(t, "the unfinished call has arrived", func() bool { return r.budgetUsers() == 1 })
	if err := r.stop(); err != nil {
		t.Errorf("serve: got %v, want nil", err)
	}
	c.closed()
}

func TestServeReportsAListenerThatFails(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := r.Serve(t.Context(), ln); err == nil || !strings.Contains(err.Error(), "serve http on 127.0.0.1") {
		t.Errorf("got %v, want an error that names the address", err)
	}
}
