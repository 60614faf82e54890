package frontend

import (
	"context"
	"net/http"
	"net/netip"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/co2relay/co2relay/cluster/clustertest"
	"github.com/co2relay/co2relay/internal/xmlrpc"
	"github.com/co2relay/co2relay/registry"
)

// peakHeap watches the heap until stop is called, which gives by how many bytes
// it grew at most. Meanwhile garbage is collected early: else there may be as
// much of it as of what other tests have left in memory.
func peakHeap() (stop func() uint64) {
	usual := debug.SetGCPercent(10)
	read := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	runtime.GC()
	base := read()
	peak := base
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				peak = max(peak, read())
			}
		}
	})
	return func() uint64 {
		close(done)
		wg.Wait()
		debug.SetGCPercent(usual)
		return peak - base
	}
}

// TestABurstOfLargeMulticallsStaysWithinTheBudget is not parallel to others, for
// it looks at the memory of the whole process.
func TestABurstOfLargeMulticallsStaysWithinTheBudget(t *testing.T) {
	r := start(t, func(c *Config) { c.BodyTimeout = time.Hour })   // the last one's answer waits for all others to be read
	const satellites, callers, parts = 2000, 100, 50               // 154 KB a list, 7.7 MB an answer
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // else each has 15 seconds
	defer cancel()
	var g errgroup.Group
	g.SetLimit(64)
	for i := range satellites {
		g.Go(func() error {
			a := netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 255, 255, 255, 255, 255, 255, 255, 255, 0x11, 0x11, 0x11 + byte(i>>8), byte(i)})
			_, _, err := r.reg.Register(ctx, registry.Registration{Addr: netip.AddrPortFrom(a, 9000)})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all are seen", func() bool { return r.reg.Len() == satellites })
	list := r.from("").must("relay.get_satellites")

	calls := make([]xmlrpc.Value, parts)
	for i := range calls {
		calls[i] = str("methodName", "relay.get_satellites")
	}
	doc := string(xmlrpc.AppendCall(nil, "system.multicall", xmlrpc.NewArray(calls...)))
	peak := peakHeap()
	conns := make([]*raw, callers)
	for i := range conns {
		conns[i] = r.raw(t)
		conns[i].send(post11(doc, "Connection: close\r\n"))
	}
	for _, c := range conns { // none is read further before all have begun
		if _, err := c.br.Peek(1); err != nil {
			t.Fatalf("no answer: %v", err)
		}
	}
	if grown := peak(); grown > 128<<20 {
		t.Errorf("the heap grew by %d MiB for answers that nobody reads, want 128 at most", grown>>20)
	}
	whole, none := xmlrpc.NewArray(list).Raw(), faultValue(errBusy).Raw()
	lists := func(v xmlrpc.Value) int {
		n, got := 0, 0
		for e := range v.Elements() {
			n++
			if e.Raw() == whole {
				got++
			} else if e.Raw() != none {
				t.Errorf("got %.300s, want the list, or that there is no room", e.Raw())
			}
		}
		if n != parts || int64(len(v.Raw())) > r.cfg.MaxAnswer {
			t.Errorf("got %d results in %d bytes, want %d", n, len(v.Raw()), parts)
		}
		return got
	}
	got := 0
	for _, c := range conns {
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		resp, body := c.answer()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("got %d %q, want 200", resp.StatusCode, body)
		}
		v, _ := parseAnswer(t, []byte(body))
		got += lists(v)
	}
	if got == 0 {
		t.Error("nobody got a list, want that the budget is used")
	}
	eventually(t, "the budget is whole again", func() bool { return wholePool(&r.budget.answers) })
	if got := lists(r.from("").must("system.multicall", xmlrpc.NewArray(calls...))); got != parts {
		t.Errorf("got %d lists when nobody else asks, want %d", got, parts)
	}
}

func wholePool(p *pool) bool {
	if !p.all.TryAcquire(p.size) {
		return false
	}
	p.all.Release(p.size)
	return true
}

// hoard takes the whole budget for answers.
func hoard(t *testing.T, r *relayUnderTest) (release func()) {
	t.Helper()
	var gives []func()
	for _, a := range []string{"192.0.2.1", "192.0.2.2"} {
		give, err := r.budget.answers.takeNow(netip.MustParseAddr(a), r.budget.answers.size/2)
		if err != nil {
			t.Fatal(err)
		}
		gives = append(gives, give)
	}
	return func() {
		for _, give := range gives {
			give()
		}
	}
}

func TestAMulticallThatFindsNoRoomStillTellsWhatWasMade(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	c := r.from("")
	id := c.register(9000)
	defer hoard(t, r)()
	big := str("methodName", "test", "params", xmlrpc.NewArray(xmlrpc.NewString(strings.Repeat("x", 20<<10))))
	relay := str("methodName", "relay.relay", "params", xmlrpc.NewArray(str("host_id", id, "data", 1)))
	got := c.must("system.multicall", xmlrpc.NewArray(relay, big, relay, big, relay))
	want := xmlrpc.NewArray(xmlrpc.NewArray(answerOK), noRoom, xmlrpc.NewArray(answerOK), noRoom, xmlrpc.NewArray(answerOK))
	if got.Raw() != want.Raw() {
		t.Errorf("got %s, want %s", got.Raw(), want.Raw())
	}
	if n := len(logged(t, r.clus)); n != 3 {
		t.Errorf("log has %d messages, want 3", n)
	}
}

func TestALargeAnswerWaitsForItsShare(t *testing.T) {
	t.Parallel()
	clus := clustertest.Start(t)
	doc := string(xmlrpc.AppendCall(nil, "test", xmlrpc.NewString(strings.Repeat("x", 30<<10))))
	r := startOn(t, clus, nil)
	defer hoard(t, r)()
	if resp, body := r.raw(t).send(post11(doc, "")).answer(); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("while all is taken: got %d %q, want 503 after a wait", resp.StatusCode, body)
	}
	r = startOn(t, clus, nil, func(f *Frontend) { f.budget.answers.wait = time.Hour })
	release := hoard(t, r)
	c := r.raw(t).send(post11(doc, ""))
	eventually(t, "the call waits", func() bool {
		r.budget.answers.mu.Lock()
		defer r.budget.answers.mu.Unlock()
		return len(r.budget.answers.by) == 3
	})
	release()
	if resp, _ := c.answer(); resp.StatusCode != http.StatusOK {
		t.Errorf("when there is room: got %d, want 200", resp.StatusCode)
	}
}

func TestAShareGrowsOnlyIntoWhatIsFree(t *testing.T) {
	t.Parallel()
	b := newBudget(8 << 20)
	a, other := b.answer(netip.MustParseAddr("10.0.0.1")), b.answer(netip.MustParseAddr("10.0.0.2"))
	if err := a.reserve(context.Background(), 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := other.reserve(context.Background(), 3<<19); err != nil { // half of the pool of 3 MiB
		t.Fatal(err)
	}
	if err := a.reserve(context.Background(), 3<<19); err != nil {
		t.Errorf("grow into what is free: got %v, want nil", err)
	}
	// Nothing is free, and nobody waits for what would never come.
	if err := a.reserve(context.Background(), 2<<20); err != errBusy { //nolint:errorlint // the very one
		t.Errorf("grow beyond that: got %v, want errBusy", err)
	}
	if err := a.reserve(context.Background(), 1<<20); err != nil {
		t.Errorf("what it has: got %v, want nil", err)
	}
	a.release()
	other.release()
	if !wholePool(&b.answers) || len(b.answers.by) != 0 {
		t.Error("the pool is not whole after both gave back")
	}
}
