// Package faults breaks a running relay and counts what was lost, repeated or
// out of order. It runs the real binary as a real process.
package faults

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/co2relay/co2relay/internal/freeport"
	"github.com/co2relay/co2relay/satellite/satellitetest"
)

var binary string

func TestMain(m *testing.M) {
	if of := os.Getenv(crowdOf); of != "" {
		if err := runCrowd(of); err != nil {
			fmt.Fprintln(os.Stderr, "crowd:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "co2faults")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "co2relay")
	if out, err := exec.Command("go", "build", "-o", binary, "../cmd/co2relay").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the relay: %v\n%s", err, out)
		return 1
	}
	code := m.Run()
	printTable(os.Stdout)
	return code
}

// relay is a `co2relay serve` that can be killed and started again on the same
// port and data.
type relay struct {
	t     *testing.T
	addr  string
	admin string
	data  string
	flags []string
	cmd   *exec.Cmd
	log   *logBuffer
}

func startRelay(t *testing.T, flags ...string) *relay {
	t.Helper()
	r := &relay{t: t, addr: freeport.Addr(t), admin: freeport.Addr(t), data: t.TempDir(), flags: flags, log: &logBuffer{}}
	r.start()
	t.Cleanup(func() {
		if r.cmd != nil {
			r.stop()
		}
		if t.Failed() {
			t.Logf("the relay's log:\n%s", r.log.String())
		}
	})
	return r
}

func (r *relay) url() string { return "http://" + r.addr + "/RPC2" }

func (r *relay) start() {
	r.t.Helper()
	args := append([]string{"serve", "--listen", r.addr, "--admin", r.admin, "--data", r.data}, r.flags...)
	r.cmd = exec.Command(binary, args...)
	r.cmd.Stdout, r.cmd.Stderr = r.log, r.log
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, "the relay opens its port", func() bool {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
}

// kill is SIGKILL: the process has no chance to write anything down.
func (r *relay) kill() {
	r.t.Helper()
	if err := r.cmd.Process.Kill(); err != nil {
		r.t.Fatal(err)
	}
	_ = r.cmd.Wait()
	r.cmd = nil
}

// stop is SIGTERM, which must end the process with exit code 0 within 10 s.
func (r *relay) stop() {
	r.t.Helper()
	began := time.Now()
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(10*time.Second, func() { _ = r.cmd.Process.Kill() })
	if err := r.cmd.Wait(); err != nil {
		r.t.Errorf("after SIGTERM: %v, %s later", err, time.Since(began).Round(time.Millisecond))
	}
	timer.Stop()
	r.cmd = nil
}

// resident is the process's resident memory in bytes.
func (r *relay) resident() int64 {
	r.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", r.cmd.Process.Pid))
	if err != nil {
		r.t.Skipf("no /proc here: %v", err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		r.t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

func (r *relay) register(s *satellitetest.Satellite) string {
	r.t.Helper()
	id, err := s.Register(r.t.Context(), r.url(), "")
	if err != nil {
		r.t.Fatalf("register: %v", err)
	}
	return id
}

// sender relays numbered messages one after the other and remembers which were
// answered 'OK'.
type sender struct {
	name string
	sat  *satellitetest.Satellite
	id   string
	mu   sync.Mutex
	ok   []string
	errs int
}

func (s *sender) run(ctx context.Context, r *relay, pause time.Duration) {
	for i := 0; ctx.Err() == nil; i++ {
		data := fmt.Sprintf("%s-%06d", s.name, i)
		try, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		err := s.sat.Relay(try, r.url(), s.id, data, "")
		cancel()
		s.mu.Lock()
		if err == nil {
			s.ok = append(s.ok, data)
		} else {
			s.errs++
		}
		s.mu.Unlock()
		if err != nil {
			pause = max(pause, 5*time.Millisecond)
		}
		time.Sleep(pause)
	}
}

func (s *sender) accepted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.ok...)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 60 s: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// logBuffer keeps the end of a process's log.
type logBuffer struct {
	mu  sync.Mutex
	end []byte
}

func (b *logBuffer) Write(p []byte) (int, error) {
	const keep = 64 << 10
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end = append(b.end, p...)
	if len(b.end) > 2*keep {
		b.end = append([]byte(nil), b.end[len(b.end)-keep:]...)
	}
	return len(p), nil
}

// lapsed says whether a lease lapsed: its member could not renew it in time.
func (b *logBuffer) lapsed() bool { return strings.Contains(b.String(), "lease lapsed") }

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.end)
}

var errLost = errors.New("messages are missing")

// verdict checks promises 2 and 3 over all receivers and says what it counted.
func verdict(t *testing.T, sats []*satellitetest.Satellite, senders []*sender) {
	t.Helper()
	want := map[string]string{} // data to its sender
	for _, s := range senders {
		for _, data := range s.accepted() {
			want[data] = s.sat.ID()
		}
	}
	var lost, repeated, disorder, calls int
	order := map[uint64]string{} // msg_id to data: one for all
	for _, sat := range sats {
		seen := map[string]bool{}
		for _, n := range sat.Received() {
			calls++
			data := strings.TrimSuffix(strings.TrimPrefix(n.Data, "<value><string>"), "</string></value>")
			if other, known := order[n.MsgID]; known && other != data {
				t.Errorf("msg_id %d carries %q and %q", n.MsgID, other, data)
			}
			order[n.MsgID] = data
			seen[data] = true
		}
		for data, from := range want {
			if !seen[data] && from != sat.ID() {
				lost++
			}
		}
		st := sat.Stats()
		repeated += int(st.Repeats)
		disorder += int(st.OutOfOrder + st.Overlapping)
	}
	t.Logf("accepted %d, calls %d: lost %d, repeated %d, out of order %d", len(want), calls, lost, repeated, disorder)
	if lost != 0 || disorder != 0 {
		t.Errorf("got lost %d, out of order %d, want 0 and 0: %v", lost, disorder, errLost)
	}
}
