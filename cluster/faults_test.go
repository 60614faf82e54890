package cluster_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"encoding/json"
	"path/filepath"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
	"github.com/co2relay/co2relay/internal/freeport"
)

// breaker is a network that fails: it forwards connections, and cuts them all on demand, swallowing what the server has
// answered shortly before.
type breaker struct {
	ln    net.Listener
	to    string
	mu    sync.Mutex
	conns map[net.Conn]*atomic.Bool // client's end; true: answers are swallowed
}

func newBreaker(t testing.TB, to string) *breaker {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &breaker{ln: ln, to: to, conns: map[net.Conn]*atomic.Bool{}}
	go b.serve()
	t.Cleanup(func() { ln.Close(); b.cut(0) })
	return b
}

func (b *breaker) serve() {
	for {
		client, err := b.ln.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", b.to)
		if err != nil {
			client.Close()
			continue
		}
		deaf := new(atomic.Bool)
		b.mu.Lock()
		b.conns[client] = deaf
		b.mu.Unlock()
		go func() { _, _ = io.Copy(server, client); server.Close(); client.Close() }()
		go func() { b.answers(client, server, deaf); server.Close(); client.Close() }()
	}
}

func (b *breaker) answers(client, server net.Conn, deaf *atomic.Bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		if deaf.Load() {
			continue
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

// cut swallows answers for a while and then ends all connections.
func (b *breaker) cut(after time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, deaf := range b.conns {
		deaf.Store(true)
	}
	time.Sleep(after)
	for c := range b.conns {
		c.Close()
		delete(b.conns, c)
	}
}

// Invariant: over a network that loses answers, every message that was accepted is in the log, none is twice in it, and a
// sender's messages stand in its order.
func TestLostAnswersNeitherLoseNorRepeatMessages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := cluster.StartServer(testContext(t), cluster.ServerConfig{Dir: dir, Listen: freeport.Addr(t), MaxStore: 4 << 30}, clustertest.Logger(t))
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(s.Close)
	var creds struct{ User, Password string }
	raw, _ := os.ReadFile(filepath.Join(dir, "nats-credentials.json"))
	if err := json.Unmarshal(raw, &creds); err != nil {
		t.Fatal(err)
	}
	network := newBreaker(t, s.Addr())
	far, err := cluster.Connect(testContext(t), cluster.Options{
		URLs: []string{"nats://" + network.ln.Addr().String()}, User: creds.User, Password: creds.Password,
	}, clustertest.Logger(t))
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(far.Close)
	near := clustertest.Connect(t, s)
	first := startOf(t, near)
	seen := follow(t, far, first)

	const senders = 30
	stop := make(chan struct{})
	var accepted [senders][]int
	var doubtful atomic.Int64
	var wg sync.WaitGroup
	end := sync.OnceFunc(func() { close(stop); wg.Wait() })
	t.Cleanup(end)
	for sender := range senders {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				m := cluster.Message{Sender: strconv.Itoa(sender), Body: strconv.Itoa(i)}
				if sender%10 == 0 {
					m.DedupID = m.Body
				}
				switch err := far.Log().Publish(context.Background(), m); {
				case err == nil:
					accepted[sender] = append(accepted[sender], i)
				case errors.Is(err, cluster.ErrMaybeAccepted):
					doubtful.Add(1)
				default:
					t.Errorf("publish: %v", err)
				}
			}
		})
	}
	const cuts = 8
	for range cuts {
		eventually(t, "a connection", func() bool { return far.Ready() == nil })
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond) // the moment of the cut is what varies
		network.cut(time.Duration(rand.IntN(15)) * time.Millisecond)
	}
	end()
	entries := logged(t, near, first)
	lost, repeated, disordered := 0, 0, 0
	at := map[string]map[string]int{}
	last := map[string]int{}
	for _, e := range entries {
		if at[e.Sender] == nil {
			at[e.Sender] = map[string]int{}
		}
		n, _ := strconv.Atoi(string(e.Body))
		if at[e.Sender][string(e.Body)]++; at[e.Sender][string(e.Body)] > 1 {
			repeated++
		} else if was, ok := last[e.Sender]; ok && n < was {
			disordered++
		}
		last[e.Sender] = n
	}
	total := 0
	for sender, list := range accepted {
		for _, i := range list {
			total++
			if at[strconv.Itoa(sender)][strconv.Itoa(i)] == 0 {
				lost++
			}
		}
	}
	t.Logf("%d cuts, %d accepted, %d in doubt, %d logged: %d lost, %d repeated, %d out of order", cuts, total, doubtful.Load(), len(entries), lost, repeated, disordered)
	if lost != 0 || repeated != 0 || disordered != 0 || doubtful.Load() != 0 {
		t.Errorf("got %d lost, %d repeated, %d out of order, %d in doubt, want none", lost, repeated, disordered, doubtful.Load())
	}
	eventually(t, "the follower behind the same network", seen.has(len(entries)))
	if seen.count() != len(entries) {
		t.Errorf("follower: got %d entries, want %d", seen.count(), len(entries))
	}
}
