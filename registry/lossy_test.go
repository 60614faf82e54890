package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
)

// lossyBroker stands between a connection and a broker's socket. It passes
// everything on, but cuts some connections right after a request that changes
// something, so that the broker carries it out and its answer is lost.
type lossyBroker struct {
	to string // the broker's socket

	mu    sync.Mutex
	rnd   *rand.Rand
	one   int // cut one in so many; 0: none
	cuts  int
	conns map[net.Conn]bool
}

// startLossy listens in a directory of its own for cluster.Options.Dir.
func startLossy(t testing.TB, brokerDir string, seed uint64) (*lossyBroker, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lossy") // not the test's own: a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ln, err := net.Listen("unix", filepath.Join(dir, "nats.sock"))
	if err != nil {
		t.Fatal(err)
	}
	b := &lossyBroker{to: filepath.Join(brokerDir, "nats.sock"), rnd: rand.New(rand.NewPCG(seed, 0)), conns: make(map[net.Conn]bool)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { b.serve(client) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		b.mu.Lock()
		for c := range b.conns {
			_ = c.Close()
		}
		b.mu.Unlock()
		wg.Wait()
	})
	return b, dir
}

func (b *lossyBroker) lose(oneIn int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.one = oneIn
	return b.cuts
}

// cut decides whether the answer to what the client sent just now gets lost.
func (b *lossyBroker) cut(sent []byte) bool {
	if !bytes.Contains(sent, []byte("PUB $KV.SATELLITES.")) && !bytes.Contains(sent, []byte("PUB co2.seat")) && !bytes.Contains(sent, []byte("MSG.DELETE")) {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.one == 0 || b.rnd.IntN(b.one) != 0 {
		return false
	}
	b.cuts++
	return true
}

func (b *lossyBroker) serve(client net.Conn) {
	server, err := net.Dial("unix", b.to)
	if err != nil {
		_ = client.Close()
		return
	}
	b.mu.Lock()
	b.conns[client], b.conns[server] = true, true
	b.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
		_ = server.Close()
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			break
		}
		lost := b.cut(buf[:n])
		if lost {
			_ = client.Close() // before the broker can answer
		}
		if _, err := server.Write(buf[:n]); err != nil || lost {
			break
		}
	}
	_ = client.Close()
	if half, ok := server.(*net.UnixConn); ok {
		_ = half.CloseWrite() // the broker reads what was sent before it sees the end
	}
	wg.Wait()
	b.mu.Lock()
	delete(b.conns, client)
	delete(b.conns, server)
	b.mu.Unlock()
}

// Answers of the broker are lost at every step that changes something.
// Invariants: what was answered stands, the limit holds, and after a sweep
// seats and registrations agree.
func TestLostAnswersLoseNeitherSeatsNorRegistrations(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for lost answers: not with -short")
	}
	const limit, workers, steps = 30, 12, 20
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	dir := t.TempDir()
	l := clustertest.Layout
	l.MaxSats = limit
	sure := New(clustertest.ConnectWith(t, clustertest.StartServer(t, dir), l), clustertest.Logger(t))

	var lossy []*lossyBroker
	var rs []*Registry
	for i := range 4 {
		b, through := startLossy(t, dir, seed+uint64(i))
		c, err := cluster.Connect(t.Context(), cluster.Options{Dir: through}, clustertest.Logger(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		lossy, rs = append(lossy, b), append(rs, New(c, clustertest.Logger(t)))
		b.lose(12)
	}
	var mu sync.Mutex
	stands := make(map[ID]bool) // as answered; absent: not known
	outcomes := make(map[string]int)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(w)))
			for range steps {
				id := testID(w*4 + rnd.IntN(4)) // 48 ids for 30 seats
				in := rnd.IntN(3) > 0
				outcome := step(t, rs[w%len(rs)], id, in)
				mu.Lock()
				outcomes[outcome]++
				delete(stands, id)
				if outcome != "unknown outcome" {
					stands[id] = in && outcome != "full"
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	cuts := 0
	for _, b := range lossy {
		cuts += b.lose(0)
	}
	if n := seats(t, sure); n > limit {
		t.Errorf("got %d seats, want at most %d", n, limit)
	}
	freed := sweepAll(t, sure)
	t.Logf("%v, %d answers lost, %d seats swept", outcomes, cuts, freed)
	checkSeats(t, sure, true)
	sats := standing(t, sure)
	for id, want := range stands {
		if got := sats[id] != nil; got != want {
			t.Errorf("%s: registered %v, want %v as answered", id, got, want)
		}
	}
	if cuts == 0 {
		t.Error("got no answer lost, want some")
	}
}

// step registers or deregisters and names what came of it.
func step(t *testing.T, r *Registry, id ID, in bool) string {
	var err error
	if in {
		_, _, err = r.Register(t.Context(), registration(id))
	} else {
		err = r.Deregister(t.Context(), id)
	}
	switch {
	case err == nil && in:
		return "registered"
	case err == nil:
		return "deregistered"
	case errors.Is(err, ErrFull):
		return "full"
	case errors.Is(err, ErrUnknown):
		return "not there"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, cluster.ErrUnavailable):
		return "unknown outcome"
	}
	t.Errorf("%s: %v", id, err)
	return "unknown outcome"
}
