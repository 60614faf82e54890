package app

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/co2relay/co2relay/satellite/satellitetest"
)

// terminal is a pseudo-terminal: what is written to inner can be read at outer.
type terminal struct {
	outer, inner *os.File
	mu           sync.Mutex
	screen       strings.Builder
}

func openTerminal(t *testing.T) *terminal {
	t.Helper()
	outer, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("NOT TESTED: no pseudo-terminals here: %v", err)
	}
	number, err := unix.IoctlGetInt(int(outer.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(outer.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	inner, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("NOT TESTED: no pseudo-terminals here: %v", err)
	}
	x := &terminal{outer: outer, inner: inner}
	x.size(t, 100, 20)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 4096)
		for {
			n, err := outer.Read(b)
			if err != nil {
				return
			}
			x.mu.Lock()
			x.screen.Write(b[:n])
			x.mu.Unlock()
		}
	}()
	t.Cleanup(func() { inner.Close(); <-ended; outer.Close() })
	return x
}

func (x *terminal) size(t *testing.T, columns, rows uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(x.inner.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		t.Fatal(err)
	}
}

// wait forgets the screen and waits for a frame that passes.
func (x *terminal) wait(t *testing.T, what string, pass func(frame string) bool) {
	t.Helper()
	x.mu.Lock()
	x.screen.Reset()
	x.mu.Unlock()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		x.mu.Lock()
		frames := strings.Split(x.screen.String(), "\x1b[H")
		x.mu.Unlock()
		if len(frames) > 2 && pass(frames[len(frames)-2]) { // the last may be half there
			return
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	t.Fatalf("no frame with %s: %q", what, x.screen.String())
}

func TestTopDrawsOnATerminalOfAnySize(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil)
	fleet := satellitetest.StartFleet(t, 30, satellitetest.Options{})
	for i, f := range fleet {
		if _, err := f.Register(t.Context(), s.url, fmt.Sprintf("node %02d", i)); err != nil {
			t.Fatal(err)
		}
	}
	x := openTerminal(t)
	before, err := unix.IoctlGetTermios(int(x.inner.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan int, 1)
	go func() {
		ended <- topCommand(t.Context(), []string{"--data", s.data, "--sort", "nick"}, streams{x.inner, x.inner, x.inner})
	}()
	fits := func(columns, rows int) func(string) bool {
		return func(frame string) bool {
			lines := strings.Split(frame, "\r\n")
			for _, l := range lines {
				l = strings.NewReplacer("\x1b[K", "", "\x1b[J", "", "\x1b[1m", "", "\x1b[0m", "").Replace(l)
				if len([]rune(l)) > columns {
					return false
				}
			}
			return len(lines) <= rows && len(lines) >= rows-1 && strings.Contains(frame, "node 00")
		}
	}
	x.wait(t, "20 lines of 100", fits(100, 20))
	x.size(t, 50, 12)
	x.wait(t, "12 lines of 50", fits(50, 12))
	press := func(keys string) {
		if _, err := x.outer.WriteString(keys); err != nil {
			t.Fatal(err)
		}
	}
	press("\x1b[6~")
	x.wait(t, "the next page", func(f string) bool { return !strings.Contains(f, "node 00") && strings.Contains(f, "node 05") })
	press("s")
	x.wait(t, "another order", func(f string) bool { return strings.Contains(f, "by id") })
	press("q")
	select {
	case code := <-ended:
		if code != ExitOK {
			t.Errorf("got %d, want %d", code, ExitOK)
		}
	case <-time.After(time.Minute):
		t.Fatal("q does not end it")
	}
	if after, err := unix.IoctlGetTermios(int(x.inner.Fd()), unix.TCGETS); err != nil || *after != *before {
		t.Errorf("terminal's settings: got %+v, %v, want them as before, %+v", after, err, before)
	}
}
