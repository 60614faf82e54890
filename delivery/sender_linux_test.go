package delivery

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/co2relay/co2relay/registry"
)

// A process may sleep between the opening of a connection and its first call.
func TestACallWhoseLeaseEndsWhileItConnectsIsNotSent(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	addr := ln.Addr().(*net.TCPAddr).AddrPort()
	w, lp := benchWorker(t, nil, nil)
	defer lp.sender.close()
	alive := true
	lp.alive = func() bool { return alive }
	l := lp.addLane(lp.parts[0], &registry.Satellite{ID: registry.MakeID(addr), Addr: netip.AddrPortFrom(addr.Addr(), addr.Port())}, 0)
	w.ring.add(newMessages(benchEntries(1, 1)))
	lp.seen = 1
	lp.enqueue(l)
	lp.readClock()
	lp.start()
	if l.state != calling {
		t.Fatalf("lane is %d, want it to call", l.state)
	}
	alive = false
	lp.sender.poll(true)
	if l.state != parked || l.tries != 0 || l.next != 1 || l.conn != nil {
		t.Errorf("state %d, %d failures, next %d, want it to rest without a failure", l.state, l.tries, l.next)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(conn); len(b) > 0 || errors.Is(err, net.ErrClosed) {
		t.Errorf("the satellite got %d bytes (%v), want none", len(b), err)
	}
}
