package faults

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"
)

// wire is where a node is reached by the others. It can be cut: what goes to or
// comes from a node is held back, and nobody is told, as when a switch dies.
type wire struct {
	to       *node
	ln       net.Listener
	mu       sync.Mutex
	changed  sync.Cond
	cut      string // the name of the node that is cut off; "" is none
	closed   bool
	conns    map[net.Conn]bool
	carrying sync.WaitGroup
}

func newWire(t *testing.T, to *node) *wire {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{to: to, ln: ln, conns: make(map[net.Conn]bool)}
	w.changed.L = &w.mu
	to.advertise = ln.Addr().String()
	w.carrying.Go(w.accept)
	t.Cleanup(w.close)
	return w
}

func (w *wire) accept() {
	for {
		c, err := w.ln.Accept()
		if err != nil {
			return
		}
		w.carrying.Go(func() { w.carry(c) })
	}
}

func (w *wire) carry(in net.Conn) {
	out, err := net.Dial("tcp", w.to.route)
	if err != nil {
		in.Close()
		return
	}
	w.mu.Lock()
	w.conns[in], w.conns[out] = true, true
	closed := w.closed
	w.mu.Unlock()
	if closed {
		in.Close()
		out.Close()
	}
	from := &caller{}
	var both sync.WaitGroup
	both.Go(func() { w.copy(out, in, from, true) })
	both.Go(func() { w.copy(in, out, from, false) })
	both.Wait()
	w.mu.Lock()
	delete(w.conns, in)
	delete(w.conns, out)
	w.mu.Unlock()
}

// caller is the node at the other end of a connection, which names itself in
// its first lines.
type caller struct{ name string }

func (w *wire) copy(dst, src net.Conn, from *caller, learn bool) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			w.mu.Lock()
			if learn && from.name == "" {
				if _, rest, found := bytes.Cut(buf[:n], []byte(`"server_name":"`)); found {
					name, _, _ := bytes.Cut(rest, []byte(`"`))
					from.name = string(name)
				}
			}
			for w.cut != "" && !w.closed && (w.cut == w.to.name || w.cut == from.name) {
				w.changed.Wait()
			}
			w.mu.Unlock()
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (w *wire) cutOff(name string) {
	w.mu.Lock()
	w.cut = name
	w.mu.Unlock()
	w.changed.Broadcast()
}

func (w *wire) close() {
	w.ln.Close()
	w.mu.Lock()
	w.closed = true
	for c := range w.conns {
		c.Close()
	}
	w.mu.Unlock()
	w.changed.Broadcast()
	w.carrying.Wait()
}

// Invariant: one of three brokers is cut off from the others, while the relay's
// processes still reach it, and some know no other at first: nothing is lost,
// service goes on by itself for all of them soon after the others have elected a
// leader, and so it does when the wire is whole again.
func TestMinorityOfTheBrokersIsCutOff(t *testing.T) {
	var wires []*wire
	p := startPlant(t, plantOptions{frontends: 1, workers: 1, change: func(_ int, n *node) { wires = append(wires, newWire(t, n)) }})
	isolated := p.leader("RELAY")
	p.via = isolated
	p.addFrontend()
	p.addWorker()
	p.addPinger()
	p.waitReady()
	tr := p.startTraffic(trafficOptions{satellites: 60, talkers: 6, pause: 100 * time.Millisecond})
	tr.flows(100)
	for _, r := range p.roles() {
		t.Logf("%s is connected to %v; %s leads the log and is cut off", r.name, p.connectedTo(r.name), isolated.name)
	}
	cut := time.Now()
	watchedCut := p.watchElections(isolated)
	for _, w := range wires {
		w.cutOff(isolated.name)
	}
	time.Sleep(electionMost + takeOver/2)
	tr.flows(100)
	electedCut := watchedCut()
	healed := time.Now()
	watchedHealed := p.watchElections(nil)
	for _, w := range wires {
		w.cutOff("")
	}
	p.whole()
	p.waitReady()
	tr.flows(200)
	electedHealed := watchedHealed()
	end := time.Now()
	tr.finish()
	p.allRun()
	c := tr.count(tr.receivers, cut, healed)
	c.report(t, "leader of the log cut off", "leaders elected after %s; longest until 'OK' %s, from relay to notify %s",
		electedCut, c.answer.Round(time.Millisecond), c.wait.Round(time.Millisecond))
	if most := orElected(electionMost+takeOver/2, electedCut); c.pause > most || c.answer > most {
		t.Errorf("got a pause of %s, %s until 'OK', leaders elected after %s; want at most %s", c.pause, c.answer, electedCut, most)
	}
	c = tr.count(tr.receivers, healed, end)
	c.report(t, "the wire is whole again", "leaders elected after %s; longest until 'OK' %s", electedHealed, c.answer.Round(time.Millisecond))
	if most := orElected(takeOver, electedHealed); c.pause > most {
		t.Errorf("longest pause: got %s, leaders elected after %s; want at most %s", c.pause, electedHealed, most)
	}
}
