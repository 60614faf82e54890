package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/co2relay/co2relay/internal/freeport"
)

// newcomer does what the README says, and then has a satellite of the examples
// on this machine and one in a container talk with each other, both ways. Once
// the images are there that takes 13 to 30 seconds.
func (s *stack) newcomer() {
	s.t.Helper()
	start := time.Now()
	s.compose("up", "-d", "--build")
	s.compose("--profile", "demo", "up", "-d", "alice")
	alice := s.containers("alice")[0]

	ctx, cancel := context.WithDeadline(context.Background(), began.Add(limit))
	defer cancel()
	port := fmt.Sprint(freeport.Port(s.t))
	s.t.Cleanup(func() { _ = os.Remove("../notify_pass." + port) }) // the example keeps it for its next start
	python := exec.CommandContext(ctx, "python3", "examples/python3/satellite.py", fmt.Sprintf("http://localhost:%d", s.port), port)
	python.Dir = ".."
	speak, heard := s.talker(python)
	attach := exec.CommandContext(ctx, "docker", "attach", "--sig-proxy=false", alice)
	say, _ := s.talker(attach)
	// Who registers first may speak before the other hears: hence again and again.
	s.eventually("alice, in a container, hears Python, on this machine", func() bool {
		fmt.Fprintln(speak, "from Python")
		logs, _ := s.try("docker", "logs", alice)
		return strings.Contains(logs, `"data":"from Python"`)
	})
	s.eventually("Python, on this machine, hears alice, in a container", func() bool {
		fmt.Fprintln(say, `"from alice"`)
		return strings.Contains(heard.String(), "'from alice'")
	})
	took := time.Since(start)
	speak.Close()
	if err := python.Wait(); err != nil {
		s.t.Errorf("the Python satellite: %v", err)
	}
	_ = attach.Process.Kill()
	_ = attach.Wait()
	s.compose("--profile", "demo", "rm", "-sf", "alice")
	table.add(note(fmt.Sprintf("from up --build to a Python satellite here and one in a container that hear each other in %s", took.Round(100*time.Millisecond))))
	if took > time.Minute {
		s.t.Errorf("the first exchange took %s, want a minute at most (on a machine that has nothing else to do)", took)
	}
}

// talker starts a command that reads lines and prints what it hears.
func (s *stack) talker(cmd *exec.Cmd) (io.WriteCloser, *heard) {
	s.t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	h := new(heard)
	cmd.Stdout, cmd.Stderr = h, h
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start %s: %v", cmd, err)
	}
	s.t.Cleanup(func() { _ = cmd.Process.Kill() })
	return in, h
}

// heard is what a command printed so far.
type heard struct {
	mu   sync.Mutex
	text strings.Builder
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(p)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.String()
}

// tool runs an operator's command as the guide says.
func (s *stack) tool(stdin string, args ...string) string {
	s.t.Helper()
	command := append(slices.Clone(composeCommand), append([]string{"run", "--rm", "-T", "tool"}, args...)...)
	out, err := s.feed(stdin, command[0], command[1:]...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// accounts holds promise 6 against all that was done to the cluster so far.
func (s *stack) accounts() {
	s.t.Helper()
	s.eventually("the accounts balance", func() bool {
		_, err := s.try(composeCommand[0], append(slices.Clone(composeCommand[1:]), "run", "--rm", "-T", "tool", "status", "--check")...)
		return err == nil
	})
}

// lags wants one figure for each partition, over all delivery workers, by the
// port that Prometheus asks.
func (s *stack) lags() {
	s.t.Helper()
	s.eventually("the workers export the lag of 32 partitions", func() bool {
		n := 0
		for _, id := range s.containers("delivery") {
			resp, err := direct.Get("http://" + s.address(id) + ":2004/metrics")
			if err != nil {
				return false
			}
			lines := bufio.NewScanner(resp.Body)
			for lines.Scan() {
				if strings.HasPrefix(lines.Text(), "co2_delivery_lag_messages{") {
					n++
				}
			}
			resp.Body.Close()
		}
		return n == 32
	})
}

// registered is one registration in a dump; the time is that of the cluster.
var (
	registered = regexp.MustCompile(`(?s)<satellite .*?</satellite>`)
	since      = regexp.MustCompile(` registered="[^"]*"`)
)

// registrations are those of some satellites, of all that a dump has. Others may be in
// it that ended without deregistering.
func registrations(dump string, ids []string) (its []string, all int) {
	for _, r := range registered.FindAllString(since.ReplaceAllString(dump, ""), -1) {
		all++
		if slices.ContainsFunc(ids, func(id string) bool { return strings.HasPrefix(r, `<satellite id="`+id+`"`) }) {
			its = append(its, r)
		}
	}
	slices.Sort(its)
	return its, all
}

// dumpRestore carries the registrations from the cluster to a relay in one
// process on this machine, run by the image's own binary, and back.
func (s *stack) dumpRestore(t *testing.T, f *traffic) {
	t.Helper()
	binary := s.binary(t)
	dump := s.tool("", "dump", "-")
	ids := slices.Clone(f.ids)
	for _, s := range f.senders {
		ids = append(ids, s.id)
	}
	want, _ := registrations(dump, ids)
	if len(want) != receivers+senders || !strings.Contains(dump, "<notify_pass>") {
		t.Fatalf("got %d registrations in the dump, want those of the %d satellites here, with their passwords", len(want), receivers+senders)
	}

	data := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	serve := exec.CommandContext(ctx, binary, "serve", "--data", data, "--listen", "127.0.0.1:0", "--admin", "", "--min-free", "1MiB", "--log-level", "warn")
	serve.Cancel = func() error { return serve.Process.Signal(os.Interrupt) }
	serve.WaitDelay = 20 * time.Second
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = serve.Wait()
	}()
	s.eventually("serve answers", func() bool {
		_, err := s.try(binary, "status", "--data", data)
		return err == nil
	})
	if out, err := s.feed(dump, binary, "restore", "-", "--data", data); err != nil {
		t.Fatalf("restore into serve: %v %s", err, out)
	}
	back := s.run(binary, "dump", "-", "--data", data)
	got, all := registrations(back, ids)
	if !slices.Equal(got, want) {
		t.Errorf("serve dumps %q, want what was restored: %q", got, want)
	}

	s.tool("", "kick", f.ids[0])
	out := s.tool(back, "restore", "-")
	if wanted := fmt.Sprintf("1 registered, %d were registered already", all-1); !strings.Contains(out, wanted) {
		t.Errorf("restore into the cluster: got %q, want %q", out, wanted)
	}
	f.start()
	f.flows(100)
	f.noFailures("after dump, restore into serve, and back")
}
