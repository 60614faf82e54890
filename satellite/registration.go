package satellite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

const (
	deregisterTimeout = 5 * time.Second
	shutdownTimeout   = 10 * time.Second
	minPause          = 250 * time.Millisecond // between attempts to reach the relay
	maxPause          = 15 * time.Second
)

// pause is how long to wait after the n-th failure in a row (from 1): half to
// whole of a time that doubles, so that satellites do not come back all at once.
func pause(n int) time.Duration {
	d := maxPause
	if n < 8 {
		d = min(maxPause, minPause<<(n-1))
	}
	return d/2 + rand.N(d/2)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// registerFirst registers, and waits for a relay that is away until ctx ends.
func (s *Satellite) registerFirst(ctx context.Context) error {
	for n := 1; ; n++ {
		err := s.register(ctx)
		var fault *Fault
		if err == nil || errors.As(err, &fault) || refused(err) {
			return err
		}
		s.log.Warn("relay cannot be reached", "relay", s.client.String(), "attempt", n, "error", err)
		if sleep(ctx, pause(n)) != nil {
			return err // says more than that the time is over
		}
	}
}

// keepRegistered registers, and again whenever the relay has forgotten the
// satellite, until ctx ends.
func (s *Satellite) keepRegistered(ctx context.Context) {
	failures := 0
	wait := time.Duration(0)
	if s.ID() != "" {
		wait = s.cfg.CheckInterval
	}
	for {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-s.forget:
		case <-t.C:
		}
		t.Stop()
		wait = s.cfg.CheckInterval
		if err := s.checkOrRegister(ctx); err != nil {
			failures++
			wait = pause(failures)
			s.log.Warn("not registered at the relay", "relay", s.client.String(), "attempt", failures, "error", err)
		} else {
			failures = 0
		}
	}
}

// checkOrRegister asks the relay for the satellite's registration, and
// registers if there is none, or if the relay may hold another password. The
// question is a read and cheap; registering again may be a write to the relay's
// disk.
func (s *Satellite) checkOrRegister(ctx context.Context) error {
	id := s.ID()
	if id == "" || s.doubted.Load() {
		return s.register(ctx)
	}
	_, err := s.client.call(ctx, "relay.get_satellite_ctime", xmlrpc.NewString(id))
	var fault *Fault
	switch {
	case err == nil:
		return nil
	case errors.As(err, &fault) && fault.Code == xmlrpc.CodeRegistry:
		s.log.Info("relay has forgotten the satellite", "relay", s.client.String(), "host_id", id)
		s.setID("")
		return s.register(ctx)
	}
	return err
}

// register makes the one call, whatever the relay knows already.
func (s *Satellite) register(ctx context.Context) error {
	port := s.cfg.Port
	if port == 0 {
		port = s.listener.Addr().(*net.TCPAddr).Port
	}
	plugins := make([]xmlrpc.Value, len(s.cfg.Plugins))
	for i, p := range s.cfg.Plugins {
		plugins[i] = xmlrpc.NewString(p)
	}
	fields := []xmlrpc.Field{
		{Name: "port", Value: xmlrpc.NewInt(int64(port))},
		{Name: "plugins", Value: xmlrpc.NewArray(plugins...)},
		{Name: "notify_pass", Value: xmlrpc.NewString(s.cfg.NotifyPass)},
	}
	add := func(name string, v xmlrpc.Value, set bool) {
		if set {
			fields = append(fields, xmlrpc.Field{Name: name, Value: v})
		}
	}
	add("nick", xmlrpc.NewString(s.cfg.Nick), s.cfg.Nick != "")
	add("register_pass", xmlrpc.NewString(s.cfg.RegisterPass), s.cfg.RegisterPass != "")
	add("max_age", xmlrpc.NewDouble(s.cfg.MaxAge.Seconds()), s.cfg.MaxAge > 0)
	add("scheme", xmlrpc.NewString("https"), s.cfg.TLS != nil)
	add("tls_name", xmlrpc.NewString(s.cfg.TLSName), s.cfg.TLSName != "")

	ctx, cancel := graced(ctx, deregisterTimeout)
	defer cancel()
	v, err := s.client.call(ctx, "relay.register", xmlrpc.NewStruct(fields...))
	if err != nil {
		return fmt.Errorf("register at %s: %w", s.client, err)
	}
	id, ok := v.Str()
	if !ok || id == "" {
		return fmt.Errorf("register at %s: answer is no host id: %.100s", s.client, v.Raw())
	}
	s.doubted.Store(false) // a call with the password of before is repeated with the new one
	s.setID(id)
	s.log.Info("registered", "relay", s.client.String(), "host_id", id)
	return nil
}

// graced is a context that outlives its parent by d: a registration that is cut
// off may stand at the relay, under an id that was not learned in time to
// deregister it.
func graced(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	stop := context.AfterFunc(parent, func() { time.AfterFunc(d, cancel) })
	return ctx, func() { stop(); cancel() }
}

func (s *Satellite) deregister() error {
	id := s.ID()
	if id == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), deregisterTimeout)
	defer cancel()
	_, err := s.client.call(ctx, "relay.deregister",
		xmlrpc.NewStruct(xmlrpc.Field{Name: "host_id", Value: xmlrpc.NewString(id)}))
	var fault *Fault
	if err == nil || errors.As(err, &fault) && strings.Contains(fault.Text, "KeyError") {
		s.log.Info("deregistered", "relay", s.client.String(), "host_id", id)
		return nil
	}
	return fmt.Errorf("deregister %s at %s: %w", id, s.client, err)
}

// setID notes what the satellite is registered as; "" if it is not.
func (s *Satellite) setID(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.id == "" && id != "":
		close(s.registered)
	case s.id != "" && id == "":
		s.registered = make(chan struct{})
	}
	if s.id = id; id != "" {
		s.times++
	}
}

// forgotten notes that the relay does not know the registration of that number,
// and has the satellite register again.
func (s *Satellite) forgotten(number int) {
	s.mu.Lock()
	current := s.times == number && s.id != ""
	s.mu.Unlock()
	if !current {
		return // it has registered again meanwhile
	}
	s.setID("")
	select {
	case s.forget <- struct{}{}:
	default:
	}
}

// waitRegistered returns the host id once there is one, and the number of the
// registration. It fails when the satellite has ended.
func (s *Satellite) waitRegistered(ctx context.Context) (id string, number int, err error) {
	for {
		s.mu.Lock()
		id, number, registered := s.id, s.times, s.registered
		s.mu.Unlock()
		if id != "" {
			return id, number, nil
		}
		select {
		case <-registered:
		case <-s.left:
			return "", 0, errors.New("the satellite has ended")
		case <-ctx.Done():
			return "", 0, fmt.Errorf("wait for registration at %s: %w", s.client, context.Cause(ctx))
		}
	}
}
