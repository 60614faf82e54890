package delivery

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
)

// fanOut is a worker's loop with its real sender, and satellites on real
// sockets that allocate nothing.
type fanOut struct {
	t    testing.TB
	lp   *loop
	seq  uint64
	body []byte
	sent uint64
}

func newFanOut(t testing.TB, satellites int) *fanOut {
	ctx, cancel := context.WithCancel(t.Context())
	lp := &loop{
		cfg: DefaultConfig(), ring: newRing(32 << 20), alive: func() bool { return true }, emit: func(eventOf) {},
		owned: new(atomic.Int64), world: machine{}, ctx: ctx, met: &loopMetrics{}, zero: time.Now(), parts: make(map[int]*partition), window: mostYoung,
		budget: budget{limit: 10_000},
	}
	s, err := newSender(lp)
	if err != nil {
		t.Fatal(err)
	}
	lp.sender = s
	p := &partition{lanes: make(map[registry.ID]*lane)}
	lp.parts[0] = p
	for range satellites {
		addr := answerAll(t)
		l := lp.addLane(p, &registry.Satellite{ID: registry.ID(addr.String()), Addr: addr, NotifyPass: "secret", Scheme: "http"}, 0)
		lp.enqueue(l)
	}
	done := make(chan struct{})
	go func() { lp.run(); close(done) }()
	t.Cleanup(func() {
		lp.post(func() { lp.stopped = true })
		<-done
		cancel()
	})
	return &fanOut{t: t, lp: lp, body: make([]byte, 512)}
}

// answerAll is a satellite that answers every notify alike.
func answerAll(t testing.TB) netip.AddrPort {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		const body = "<?xml version='1.0'?><methodResponse><params><param><value><int>1</int></value></param></params></methodResponse>"
		answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		end := []byte(notifyTail)
		in, n := make([]byte, 64<<10), 0
		for {
			got, err := c.Read(in[n:])
			if err != nil {
				return
			}
			if n += got; !bytes.HasSuffix(in[:n], end) {
				continue
			}
			n = 0
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}()
	return netip.MustParseAddrPort(ln.Addr().String())
}

// relay takes one message from the log to every satellite, and returns when all
// have answered.
func (f *fanOut) relay() {
	f.seq++
	ms := newMessages([]cluster.Entry{{Seq: f.seq, Sender: "127.0.0.1:1", Body: f.body, Time: time.Unix(1, 0)}})
	f.lp.ring.add(ms)
	f.lp.post(func() { f.lp.appended(ms) })
	for f.sent += uint64(len(f.lp.parts[0].lanes)); f.lp.met.delivered.Load() < f.sent; {
		runtime.Gosched()
	}
}

func TestDeliveryAllocatesNothing(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	const satellites, perMessage = 64, 10
	f := newFanOut(t, satellites)
	f.relay() // connections
	if got := testing.AllocsPerRun(200, f.relay); got > perMessage {
		t.Errorf("a message to %d satellites took %.0f allocations, want the %d of a message at most and none of a delivery", satellites, got, perMessage)
	}
}

func BenchmarkDelivery(b *testing.B) {
	const satellites = 200
	f := newFanOut(b, satellites)
	f.relay()
	b.ReportAllocs()
	for b.Loop() {
		f.relay()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/satellites, "ns/delivery")
}
