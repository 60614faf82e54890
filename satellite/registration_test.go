package satellite_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/co2relay/co2relay/internal/xmlrpc"
	"github.com/co2relay/co2relay/satellite"
)

// A relay that was restored from a dump without passwords knows the satellite,
// but not its password.
func TestRegistersAgainWhenTheRelayHasAnotherPassword(t *testing.T) {
	t.Parallel()
	r := startFakeRelay(t)
	handler, got := collect()
	s := start(t, r, satellite.Config{Handler: handler, CheckInterval: 10 * time.Millisecond})
	id := s.ID()
	r.mu.Lock()
	r.sats[id] = xmlrpc.NewStruct()
	r.mu.Unlock()
	notify := func() string {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.notifyOne(id, xmlrpc.NewStruct(), 5)
	}
	if answer := notify(); !strings.HasPrefix(answer, "status 503") {
		t.Errorf("got %s, want status 503", answer)
	}
	waitUntil(t, "the relay has its password", func() bool { return strings.Contains(notify(), "OK") })
	if n := next(t, got); n.MsgID != "5" || r.count("relay.register") != 2 {
		t.Errorf("got message %q after %d registrations, want 5 after 2", n.MsgID, r.count("relay.register"))
	}
}

func TestRegistersAgainWhenForgotten(t *testing.T) {
	t.Parallel()
	t.Run("seen by its own check", func(t *testing.T) {
		t.Parallel()
		r := startFakeRelay(t)
		s := start(t, r, satellite.Config{CheckInterval: 10 * time.Millisecond})
		id := s.ID()
		r.forgetAll()
		waitUntil(t, "the relay knows the satellite again", func() bool { return r.knows(id) })
	})
	t.Run("seen by a fault of relay.relay", func(t *testing.T) {
		t.Parallel()
		r := startFakeRelay(t)
		s := start(t, r, satellite.Config{CheckInterval: time.Hour})
		r.forgetAll()
		if err := s.Relay(testContext(t), 1); err != nil {
			t.Errorf("relay: got %v, want a registration and then success", err)
		}
		if n := r.count("relay.register"); n != 2 {
			t.Errorf("got %d registrations, want 2", n)
		}
	})
}

func TestRegistersAgainWhenItsAddressChanged(t *testing.T) {
	t.Parallel()
	for times, want := range map[int]bool{1: true, 100: false} {
		r := startFakeRelay(t)
		s := start(t, r, satellite.Config{CheckInterval: time.Hour})
		r.forgetAll() // the check that follows finds nothing under the old address
		r.setFail(func(method string, n int) *failure {
			if method == "relay.relay" && n <= times {
				r.sats = map[string]xmlrpc.Value{}
				return &failure{fault: registryFault("'x' can relay from its own address only")}
			}
			return nil
		})
		err := s.Relay(testContext(t), 1)
		var fault *satellite.Fault
		if (err == nil) != want || err != nil && !errors.As(err, &fault) {
			t.Errorf("refused %d times: got %v, want success %v", times, err, want)
		}
	}
}

func TestRunWaitsForARelayThatIsAwayAndDeregistersAtTheEnd(t *testing.T) {
	t.Parallel()
	r := startFakeRelay(t)
	r.setFail(func(method string, n int) *failure {
		switch {
		case method == "relay.register" && n == 1:
			return &failure{hangUp: true}
		case method == "relay.register" && n == 2:
			return &failure{fault: registryFault("full")}
		}
		return nil
	})
	s, err := satellite.New(satellite.Config{Relay: r.srv.URL, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	waitUntil(t, "the satellite is registered", func() bool { return s.ID() != "" })
	id := s.ID()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("run: got %v, want nil", err)
	}
	if r.knows(id) {
		t.Error("still registered after Run")
	}
}

func TestStartFailsWithTheRelaysFault(t *testing.T) {
	t.Parallel()
	r := startFakeRelay(t)
	r.setFail(func(string, int) *failure { return &failure{fault: registryFault("full")} })
	s, err := satellite.New(satellite.Config{Relay: r.srv.URL, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	var fault *satellite.Fault
	if err := s.Start(testContext(t)); !errors.As(err, &fault) || fault.Code != 1 {
		t.Errorf("got %v, want the relay's fault", err)
	}
}

func TestStayKnownKeepsTheRegistrationAndTheMessages(t *testing.T) {
	t.Parallel()
	r := startFakeRelay(t)
	began := make(chan bool)
	s, err := satellite.New(satellite.Config{Relay: r.srv.URL, Listen: "127.0.0.1:0", StayKnown: true,
		Handler: func(ctx context.Context, _ satellite.Notification) error {
			began <- true
			<-ctx.Done()
			return fmt.Errorf("interrupted: %w", ctx.Err())
		}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	id, answer := s.ID(), make(chan string)
	go func() { answer <- r.notifyOne(id, xmlrpc.NewStruct(), 5) }()
	<-began
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if got := <-answer; !strings.HasPrefix(got, "status 503") {
		t.Errorf("interrupted notify: got %s, want status 503", got)
	}
	if !r.knows(id) {
		t.Error("deregistered in spite of StayKnown")
	}
}
