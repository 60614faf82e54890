package interop

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/co2relay/co2relay/internal/freeport"
	"github.com/co2relay/co2relay/satellite"
)

func TestExamplesPrintRelayAndDeregister(t *testing.T) {
	t.Parallel()
	all := map[string][]string{ // the command without the relay's URL and the port
		"perl RPC-XML": {"perl", "../examples/perl/satellite.pl"},
	}
	for _, p := range pythons(t) {
		if p.name == "python 2.7" {
			all[p.name] = []string{p.path, "../examples/python2/satellite.py"}
		} else {
			all[p.name] = []string{p.path, "../examples/python3/satellite.py"}
		}
	}
	for _, p := range peers(t) {
		argv, ok := all[p.name]
		if !ok {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			p.need(t)
			useExample(t, argv...)
		})
	}
	t.Run("go", func(t *testing.T) {
		t.Parallel()
		exe := filepath.Join(t.TempDir(), "example")
		if out, err := exec.CommandContext(testContext(t), "go", "build", "-o", exe, "../examples/go").CombinedOutput(); err != nil {
			t.Fatalf("build the example: %v\n%s", err, out)
		}
		useExample(t, exe)
	})
}

func useExample(t *testing.T, argv ...string) {
	port := fmt.Sprint(freeport.Port(t))
	id := "127.0.0.1:" + port
	us, got := startSatellite(t, func(n satellite.Notification) bool { return n.Sender == id })
	if len(argv) > 1 {
		script, err := filepath.Abs(argv[1])
		if err != nil {
			t.Fatal(err)
		}
		argv[1] = script
	}
	dir := t.TempDir() // for the password that it keeps
	p := startProcess(t, nil, append([]string{"env", "-C", dir}, append(argv, strings.TrimSuffix(relayURL, "/RPC2"), port)...)...)
	waitKnown(t, id, true)
	if err := us.Relay(testContext(t), text); err != nil {
		t.Fatal(err)
	}
	line := p.waitLine(t, us.ID()+": ")
	if want := us.ID() + ": " + text; strings.ReplaceAll(line, "'", "") != want { // Python's repr puts quotes around it
		t.Errorf("got %q, want %q", line, want)
	}
	if _, err := fmt.Fprintln(p.in, text); err != nil {
		t.Fatal(err)
	}
	if n := next(t, got); n.Data != text {
		t.Errorf("relayed: got %#v, want %q", n.Data, text)
	}
	if err := p.in.Close(); err != nil {
		t.Fatal(err)
	}
	waitKnown(t, id, false)
	select {
	case <-p.done:
	case <-testContext(t).Done():
		t.Fatal("did not end with its input")
	}
}
