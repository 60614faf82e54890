package delivery

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/co2relay/co2relay/internal/caller"
	"github.com/co2relay/co2relay/registry"
	"github.com/co2relay/co2relay/satellite/satellitetest"
)

// scarce is a bed whose workers may open 8 connections, which stay open, and
// whose calls never time out while the test lasts. It serves both schemes.
type scarce struct {
	*bed
	server *tls.Config // of satellites
	sender registry.ID
}

func newScarce(t *testing.T) *scarce {
	srv := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
	t.Cleanup(srv.Close)
	s := &scarce{bed: newBed(t), server: &tls.Config{Certificates: srv.TLS.Certificates}}
	s.cfg.Loops, s.cfg.Connections, s.cfg.IdleTimeout = 1, 8, time.Hour
	s.cfg.TLS = &tls.Config{RootCAs: srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
	s.worker()
	s.sender = s.registerAt(mustAddr("127.0.0.1:9"), "").ID
	return s
}

// fleet registers n satellites.
func (s *scarce) fleet(n int, scheme string, b satellitetest.Behaviour) []*satellitetest.Satellite {
	s.t.Helper()
	sats := make([]*satellitetest.Satellite, n)
	for i := range sats {
		o := satellitetest.Options{Behaviour: b}
		if scheme == caller.SchemeHTTPS {
			o.TLS = s.server
		}
		sats[i] = satellitetest.Start(s.t, o)
		_, _, err := s.reg.Register(s.t.Context(), registry.Registration{Addr: sats[i].Addr(), Scheme: scheme})
		if err != nil {
			s.t.Fatal(err)
		}
	}
	return sats
}

// proven is a fleet whose satellites have shown that they answer.
func (s *scarce) proven(n int, scheme string) []*satellitetest.Satellite {
	s.t.Helper()
	sats := s.fleet(n, scheme, satellitetest.Behaviour{})
	s.publish(s.sender, 1)
	for _, sat := range sats {
		s.wantAll(sat, 1)
	}
	return sats
}

func bothSchemes(t *testing.T, test func(t *testing.T, scheme string)) {
	t.Parallel()
	for _, scheme := range []string{"http", caller.SchemeHTTPS} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			test(t, scheme)
		})
	}
}

func TestMoreSatellitesThanConnectionsAreServed(t *testing.T) {
	bothSchemes(t, func(t *testing.T, scheme string) {
		s := newScarce(t)
		sats := s.fleet(30, scheme, satellitetest.Behaviour{})
		sats = append(sats, s.fleet(3, "http", satellitetest.Behaviour{})...)
		s.publish(s.sender, 30)
		for _, sat := range sats {
			s.wantAll(sat, 30)
		}
		s.noRepeats(sats...)
	})
}

func TestThoseThatHangLeaveConnectionsToTheOthers(t *testing.T) {
	bothSchemes(t, func(t *testing.T, scheme string) {
		s := newScarce(t)
		well := s.proven(20, scheme)
		s.fleet(20, scheme, satellitetest.Behaviour{Mode: satellitetest.Hang})
		s.publish(s.sender, 50)
		for _, sat := range well {
			s.wantAll(sat, 51)
		}
	})
}

func TestANewSatelliteFindsAConnectionBesideBusyOnes(t *testing.T) {
	bothSchemes(t, func(t *testing.T, scheme string) {
		s := newScarce(t)
		old := s.proven(8, scheme) // every connection is open now
		young := s.fleet(1, scheme, satellitetest.Behaviour{})
		s.publish(s.sender, 5)
		s.wantAll(young[0], 5)
		for _, sat := range old {
			s.wantAll(sat, 6)
		}
	})
}

func TestWaitingCallsThatWereGivenUpAreForgotten(t *testing.T) {
	t.Parallel()
	b := budget{limit: 1, evict: func() bool { return false }}
	var held place
	b.take(&held, &lane{everWorked: true})
	l := &lane{everWorked: true}
	for range 1000 {
		b.take(&place{}, l)
		l.epoch++ // its call timed out
	}
	if n := len(b.proven); n > 1 {
		t.Errorf("%d calls wait, want those that nobody waits for forgotten", n)
	}
	last := &lane{everWorked: true}
	b.take(&place{}, last)
	if got := b.next(); got != nil {
		t.Errorf("got %p, want none while the connection is in use", got)
	}
	b.give(&held)
	if got := b.next(); got != last {
		t.Errorf("got %p, want the one call that still waits", got)
	}
	if got := b.next(); got != nil || b.open != 0 {
		t.Errorf("got %p with %d connections open, want none", got, b.open)
	}
}

func TestALogThatWentBackTakesItsCallsAlong(t *testing.T) {
	t.Parallel()
	w, lp := benchWorker(t, benchAddrs(2), newAtOnce)
	w.ring.add(newMessages(benchEntries(1, 10)))
	ms := make([]*message, 10)
	for i := range ms {
		ms[i] = w.ring.get(uint64(i + 1))
	}
	turn(lp)
	lp.appended(ms)
	lp.start() // message 1 is under way
	for _, l := range lp.parts[0].lanes {
		if l.state != calling {
			t.Fatalf("lane is %d, want it to call", l.state)
		}
	}
	lp.rewind(0)
	for _, l := range lp.parts[0].lanes {
		if l.state == calling || l.next != 1 || l.fig.received != 0 || l.part.calls != 0 {
			t.Errorf("lane %s: state %d, next %d, received %d, %d calls, want it to wait for message 1 anew", l.sat.ID, l.state, l.next, l.fig.received, l.part.calls)
		}
	}
}

func TestALaneThatHangsHoldsNoBlock(t *testing.T) {
	t.Parallel()
	w, lp := benchWorker(t, benchAddrs(1), newAtOnce)
	turn(lp)
	lp.seen = 10
	w.blocks.insert(&block{from: 1, to: 11, msgs: newMessages(benchEntries(1, 10))})
	for _, l := range lp.parts[0].lanes {
		lp.enqueue(l)
		lp.start()
		if l.state != calling || l.block == nil {
			t.Fatalf("lane is %d with block %p, want it to catch up", l.state, l.block)
		}
		l.started -= int64(placePatience)
		lp.freePlaces()
		if l.block != nil || l.behind {
			t.Error("it holds its block while it waits for an answer")
		}
		turn(lp)
		if l.next != 11 {
			t.Errorf("next is %d, want all ten delivered in the end", l.next)
		}
	}
}
