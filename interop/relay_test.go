package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/co2relay/co2relay/satellite"
)

// patience bounds every wait; nothing here should come near it.
const patience = time.Minute

// The relay of all tests, and the command that it is.
var (
	relayURL string
	binary   string
)

func TestMain(m *testing.M) {
	code, err := withRelay(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		code = 1
	}
	os.Exit(code)
}

// withRelay builds the command, runs 'co2relay serve' as a process of its own
// and the tests beside it, and expects it to end in good order.
func withRelay(run func() int) (code int, err error) {
	dir, err := os.MkdirTemp("", "co2relay-interop")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "co2relay")
	if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", binary, "../cmd/co2relay").CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build co2relay: %w\n%s", err, out)
	}
	serve := exec.Command(binary, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", filepath.Join(dir, "data"),
		"--min-free", "1MiB", "--log-json", "--ping-interval", "2s", "--ping-timeout", "1s")
	stderr, err := serve.StderrPipe()
	if err != nil {
		return 1, err
	}
	if err := serve.Start(); err != nil {
		return 1, fmt.Errorf("start co2relay serve: %w", err)
	}
	log := newTranscript(stderr)
	ended := make(chan error, 1)
	go func() { <-log.done; ended <- serve.Wait() }()
	if relayURL, err = listening(log, ended); err == nil {
		code = run()
	}
	_ = serve.Process.Signal(syscall.SIGTERM)
	if e := <-ended; e != nil && err == nil {
		err = fmt.Errorf("co2relay serve after SIGTERM: %w", e)
	}
	if err != nil || os.Getenv("CO2_SHOW_LOG") != "" {
		fmt.Fprintln(os.Stderr, log.String())
	}
	return code, err
}

// listening waits for the log line that says where the relay serves.
func listening(log *transcript, ended chan error) (string, error) {
	deadline := time.After(patience)
	for {
		changed := log.changed()
		if line, ok := log.find(`"ready"`); ok {
			var ready struct{ Listen string }
			if err := json.Unmarshal([]byte(line), &ready); err != nil {
				return "", fmt.Errorf("read co2relay serve's log: %w: %s", err, line)
			}
			return "http://" + ready.Listen + "/RPC2", nil
		}
		select {
		case err := <-ended:
			ended <- err
			return "", fmt.Errorf("co2relay serve ended at once: %w", err)
		case <-deadline:
			return "", fmt.Errorf("co2relay serve is not ready after %s", patience)
		case <-changed:
		}
	}
}

// transcript collects the lines that a process writes.
type transcript struct {
	done  chan struct{} // closed at the end of the output
	mu    sync.Mutex
	lines []string
	more  chan struct{} // closed by the next line, and at the end
}

func newTranscript(r interface{ Read([]byte) (int, error) }) *transcript {
	t := &transcript{done: make(chan struct{}), more: make(chan struct{})}
	go func() {
		for in := bufio.NewReader(r); ; {
			line, err := in.ReadString('\n')
			t.mu.Lock()
			if line != "" {
				t.lines = append(t.lines, strings.TrimSuffix(line, "\n"))
			}
			close(t.more)
			t.more = make(chan struct{})
			t.mu.Unlock()
			if err != nil {
				close(t.done)
				return
			}
		}
	}()
	return t
}

// changed returns a channel that is closed with the next line, or at the end.
// Ask for it before find, so that no line comes in between.
func (t *transcript) changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.more
}

func (t *transcript) find(part string) (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, line := range t.lines {
		if strings.Contains(line, part) {
			return line, true
		}
	}
	return "", false
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "\n")
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// process is a peer that runs beside the test.
type process struct {
	*transcript // standard output and error
	cmd         *exec.Cmd
	in          interface {
		Write([]byte) (int, error)
		Close() error
	}
}

// startProcess starts a peer, which is killed when the test ends.
func startProcess(t *testing.T, env []string, argv ...string) *process {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(peerEnv(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its children go with it
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", argv[0], err)
	}
	w.Close()
	p := &process{transcript: newTranscript(out), cmd: cmd, in: in}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		<-p.done
		out.Close()
		if t.Failed() {
			t.Logf("output of %s:\n%s", strings.Join(argv, " "), p)
		}
	})
	return p
}

// waitLine waits for a line that contains part.
func (p *process) waitLine(t *testing.T, part string) string {
	t.Helper()
	ctx := testContext(t)
	for {
		changed := p.changed()
		if line, ok := p.find(part); ok {
			return line
		}
		select {
		case <-changed:
		case <-p.done:
			if line, ok := p.find(part); ok {
				return line
			}
			t.Fatalf("got no line with %q before the peer ended", part)
		case <-ctx.Done():
			t.Fatalf("got no line with %q", part)
		}
	}
}

// peerEnv is the environment without proxies, in a locale of UTF-8.
func peerEnv() []string {
	env := []string{"LC_ALL=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1"}
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if l := strings.ToLower(name); !strings.HasSuffix(l, "_proxy") && !strings.HasPrefix(l, "lc_") && !strings.HasPrefix(l, "co2_") {
			env = append(env, kv)
		}
	}
	return env
}

// newClient is a client of the relay.
func newClient(t *testing.T) *satellite.Client {
	t.Helper()
	c, err := satellite.NewClient(relayURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// startSatellite starts a satellite of ours that hands on what mine accepts.
func startSatellite(t *testing.T, mine func(satellite.Notification) bool) (*satellite.Satellite, chan satellite.Notification) {
	t.Helper()
	got := make(chan satellite.Notification, 100)
	s, err := satellite.New(satellite.Config{Relay: relayURL, Listen: "127.0.0.1:0", Nick: t.Name(),
		Handler: func(_ context.Context, n satellite.Notification) error {
			if mine(n) {
				got <- n
			}
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close satellite: %v", err)
		}
	})
	return s, got
}

func next(t *testing.T, got chan satellite.Notification) satellite.Notification {
	t.Helper()
	select {
	case n := <-got:
		return n
	case <-testContext(t).Done():
		t.Fatal("got no notification")
		return satellite.Notification{}
	}
}
