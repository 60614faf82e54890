package delivery

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/internal/caller"
	"github.com/co2relay/co2relay/registry"
	"github.com/co2relay/co2relay/satellite/satellitetest"
)

// benchBody is the members of a message of 0.5 KB.
var benchBody = []byte(members("127.0.0.1:1", strings.Repeat("x", 512)))

// benchBytes is about what one delivery of it writes.
const benchBytes = 1000

// lasting is the membership of a worker whose lease never ends.
type lasting struct{}

func (lasting) Run(ctx context.Context) error { <-ctx.Done(); return nil }
func (lasting) Alive() bool                   { return true }
func (lasting) Progress()                     {}
func (lasting) Save(context.Context, map[int][]byte) ([]int, error) {
	return nil, nil
}

// atOnce is a sender whose satellites answer as soon as the loop looks at the
// network, so that a benchmark sees the loop's own work.
type atOnce struct {
	lp    *loop
	calls []*lane
}

func (s *atOnce) call(l *lane, _ *message) { s.calls = append(s.calls, l) }
func (s *atOnce) abort(*lane)              {}
func (s *atOnce) idle(*lane)               {}
func (s *atOnce) sweep(int64)              {}
func (s *atOnce) wake()                    {}
func (s *atOnce) close()                   {}

func (s *atOnce) poll(bool) {
	n := len(s.calls)
	for _, l := range s.calls[:n] {
		s.lp.settle(l, outcome{verdict: caller.Received})
	}
	s.calls = s.calls[:copy(s.calls, s.calls[n:])]
}

// benchWorker is a worker of one loop with a partition of these satellites,
// without a broker. Calls makes its sender; nil: the real one.
func benchWorker(b testing.TB, addrs []string, calls func(lp *loop) (sender, error)) (*Worker, *loop) {
	b.Helper()
	cfg := DefaultConfig()
	cfg.Loops, cfg.Connections = 1, 10_000
	w, err := New(cfg, hclog.NewNullLogger(), &cluster.Cluster{}, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	w.ctx, w.member, w.emit = b.Context(), lasting{}, func(eventOf) {}
	if calls != nil {
		w.sender = calls
	}
	if err := w.open(0); err != nil {
		b.Fatal(err)
	}
	lp := w.loops[0]
	p := &partition{lanes: map[registry.ID]*lane{}, joining: map[registry.ID]*registry.Satellite{}}
	lp.parts[0] = p
	for _, a := range addrs {
		addr := mustAddr(a)
		l := lp.addLane(p, &registry.Satellite{ID: registry.MakeID(addr), Addr: addr, NotifyPass: "secret"}, 0)
		lp.enqueue(l)
	}
	return w, lp
}

func benchAddrs(n int) []string {
	addrs := make([]string, n)
	for i := range addrs {
		addrs[i] = fmt.Sprintf("192.0.2.%d:%d", i%250+1, 10_000+i/250)
	}
	return addrs
}

func benchEntries(from uint64, n int) []cluster.Entry {
	es := make([]cluster.Entry, n)
	for i := range es {
		es[i] = cluster.Entry{Seq: from + uint64(i), Sender: "127.0.0.1:1", Body: benchBody, Time: time.Now()}
	}
	return es
}

// turn lets a loop without a goroutine of its own come to rest.
func turn(lp *loop) {
	for busy := true; busy || lp.mail.full.Load(); {
		lp.readClock()
		lp.readMail()
		busy = lp.start() == 0
		lp.sender.poll(false)
		busy = busy || len(lp.sender.(*atOnce).calls) > 0
	}
}

func newAtOnce(lp *loop) (sender, error) { return &atOnce{lp: lp}, nil }

// BenchmarkLanes is what a loop does for a delivery, the calls themselves left
// out; an operation is a delivery.
func BenchmarkLanes(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("satellites=%d", n), func(b *testing.B) {
			w, lp := benchWorker(b, benchAddrs(n), newAtOnce)
			turn(lp)
			next := uint64(1)
			b.SetBytes(benchBytes)
			b.ReportAllocs()
			b.ResetTimer()
			for done := 0; done < b.N; done += n {
				next = w.take(benchEntries(next, 1), next)
				turn(lp)
			}
			if got, want := lp.met.delivered.Load(), (next-1)*uint64(n); got != want {
				b.Fatalf("got %d deliveries, want %d", got, want)
			}
		})
	}
}

// BenchmarkNewMessage is what a worker does with a message once, however many
// get it.
func BenchmarkNewMessage(b *testing.B) {
	e := benchEntries(1, 1)[0]
	r := newRing(32 << 20)
	b.SetBytes(int64(len(benchBody)))
	b.ReportAllocs()
	for b.Loop() {
		e.Seq++
		r.add([]*message{newMessage(e)})
	}
}

// BenchmarkCheckpoint is the progress of a partition of which every tenth
// satellite is behind.
func BenchmarkCheckpoint(b *testing.B) {
	for _, n := range []int{30, 3000} {
		b.Run(fmt.Sprintf("satellites=%d", n), func(b *testing.B) {
			_, lp := benchWorker(b, benchAddrs(n), newAtOnce)
			p, i := lp.parts[0], 0
			for _, l := range p.lanes {
				if l.next = 1001; i%10 == 0 {
					l.next = 500
				}
				i++
			}
			b.ReportAllocs()
			for b.Loop() {
				c := p.checkpoint(1000)
				b.SetBytes(int64(len(c.encode())))
			}
		})
	}
}

// BenchmarkSender is a delivery over a real connection, the loop's work
// included; the satellites are in the same process, and part of the figure.
func BenchmarkSender(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("satellites=%d", n), func(b *testing.B) {
			var addrs []string
			for _, s := range satellitetest.StartFleet(b, n, satellitetest.Options{Keep: satellitetest.KeepNone}) {
				addrs = append(addrs, s.ID())
			}
			w, lp := benchWorker(b, addrs, nil)
			w.wg.Go(lp.run)
			defer func() {
				lp.post(func() { lp.stopped = true })
				w.wg.Wait()
			}()
			next := uint64(1)
			deliver := func(most int) {
				next = w.take(benchEntries(next, most), next)
				for lp.met.delivered.Load() < (next-1)*uint64(n) {
					time.Sleep(20 * time.Microsecond)
				}
			}
			deliver(1) // opens the connections
			b.SetBytes(benchBytes)
			b.ReportAllocs()
			b.ResetTimer()
			for done := 0; done < b.N; {
				together := min(64, (b.N-done+n-1)/n)
				deliver(together)
				done += together * n
			}
		})
	}
}
