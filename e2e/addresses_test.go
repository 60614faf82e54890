package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The other machine and this one's end of the wire to it.
const (
	otherMachine = "10.203.9.2"
	wireEnd      = "10.203.9.1"
)

// outside has a satellite on another machine: a network namespace with a wire to
// this one. It is known by its own address through the published port and
// HAProxy, and is called there.
func (s *stack) outside(t *testing.T, f *traffic) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a network namespace needs root: a satellite on another machine is NOT TESTED")
	}
	binary := s.binary(t)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", project).Run() })
	for _, args := range []string{
		"netns add " + project,
		"link add co2e2e-here type veth peer name co2e2e-there netns " + project,
		"addr add " + wireEnd + "/30 dev co2e2e-here",
		"link set co2e2e-here up",
		"-n " + project + " addr add " + otherMachine + "/30 dev co2e2e-there",
		"-n " + project + " link set co2e2e-there up",
		"-n " + project + " route add default via " + wireEnd,
	} {
		s.run("ip", strings.Fields(args)...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	far := exec.CommandContext(ctx, "ip", "netns", "exec", project,
		binary, "satellite", "--relay", fmt.Sprintf("http://%s:%d", wireEnd, s.port), "--port", "9001", "--count", "5")
	_, heard := s.talker(far)
	f.start()
	err := far.Wait() // ends by itself with its fifth notification
	f.halt("a satellite on another machine")
	if id := otherMachine + ":9001"; err != nil || !strings.Contains(heard.String(), id) || strings.Count(heard.String(), `"msg_id"`) != 5 {
		t.Errorf("the satellite on another machine: %v, want 5 messages for %s, got %s", err, id, heard)
	}
}

// translated has a satellite whose calls come through an address where nobody
// can call it back: on this machine, listening on the loopback alone. It is told
// so in clear words, and so is the operator.
func (s *stack) translated(t *testing.T) {
	t.Helper()
	binary, relay := s.binary(t), fmt.Sprintf("http://localhost:%d", s.port)
	if out, err := s.try(binary, "check", relay); err != nil {
		t.Errorf("check from this machine: %v\n%s", err, out)
	}
	out, err := s.try(binary, "check", "--bind", "127.0.0.1", relay)
	if err == nil || !strings.Contains(err.Error(), "listens on this machine's loopback only") {
		t.Errorf("check by a satellite on the loopback: got %s %v, want to hear what to do", out, err)
	}
	s.eventually("an event tells the operator of the gateway's address", func() bool {
		return strings.Contains(s.tool("", "events", "--kind", "unreachable"), "looks like a gateway of address translation")
	})
}

// binary is the image's, to be run on this machine.
func (s *stack) binary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "co2relay")
	if err := copyBinary(relayImage, path); err != nil {
		t.Fatal(err)
	}
	return path
}
