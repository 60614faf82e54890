package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/co2relay/co2relay/satellite/satellitetest"
)

// TestCluster goes through an operator's life with one cluster, one thing after
// the other: what a later step finds is what the earlier ones left.
func TestCluster(t *testing.T) {
	s := newStack(t)
	var f *traffic
	step := func(name string, fn func(t *testing.T)) {
		if t.Failed() {
			return
		}
		t.Run(name, func(t *testing.T) {
			s.t = t
			if f != nil {
				f.t = t
			}
			fn(t)
		})
		s.t = t
	}
	step("image", func(*testing.T) { table.add(note("the image has " + s.imageSize())) })
	step("newcomer", func(*testing.T) { s.newcomer() })
	step("down", func(*testing.T) { s.compose("down", "-v") })
	step("up", func(st *testing.T) {
		start := time.Now()
		s.up()
		up := time.Since(start)
		f = newTraffic(t, s.url())
		f.t = st
		s.firstMessage(f)
		table.add(note(fmt.Sprintf("from nothing to healthy in %s, to the first delivered message in %s", up.Round(100*time.Millisecond), time.Since(start).Round(100*time.Millisecond))))
	})
	step("satellites", func(*testing.T) { s.satellitesInside(f) })
	step("outside", func(st *testing.T) { s.outside(st, f) })
	step("translated", func(st *testing.T) { s.translated(st) })
	step("scale", func(*testing.T) { s.scale(f) })
	step("permissions", func(*testing.T) { s.noViolations() })
	step("lags", func(*testing.T) { s.lags() })
	for _, service := range []string{"frontend", "delivery", "pinger", "haproxy", "nats"} {
		step("kill/"+service, func(*testing.T) { s.kill(f, service) })
	}
	for _, service := range []string{"frontend", "delivery", "pinger", "haproxy", "nats"} {
		step("kill9/"+service, func(*testing.T) { s.kill9(f, service) })
	}
	for _, service := range []string{"delivery", "nats"} {
		step("partition/"+service, func(*testing.T) { s.partition(f, service) })
	}
	for _, service := range []string{"frontend", "delivery", "pinger", "haproxy", "nats"} {
		step("roll/"+service, func(*testing.T) { s.roll(f, service) })
	}
	step("permissions", func(*testing.T) { s.noViolations() })
	step("downup", func(*testing.T) { s.downUp(f) })
	step("dump", func(st *testing.T) { s.dumpRestore(st, f) })
	step("accounts", func(*testing.T) { s.accounts() })
}

func (s *stack) imageSize() string {
	size, err := strconv.Atoi(strings.TrimSpace(s.run("docker", "image", "inspect", "-f", "{{.Size}}", relayImage)))
	if err != nil {
		s.t.Fatal(err)
	}
	if size > 25_000_000 {
		s.t.Errorf("the image has %d bytes, want 25 MB at most", size)
	}
	return fmt.Sprintf("%.1f MB", float64(size)/1e6)
}

func (s *stack) firstMessage(f *traffic) {
	s.t.Helper()
	f.start()
	f.flows(1)
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	if err := f.fleet.WaitAll(ctx, func(st satellitetest.Stats) bool { return st.Notifies > 0 }); err != nil {
		s.t.Fatalf("the first message: %v", err)
	}
	f.flows(200)
	f.halt("nothing")
}

// satellitesInside starts the profile demo: its satellites register under their
// own addresses of the containers' network and are notified there.
func (s *stack) satellitesInside(f *traffic) {
	s.t.Helper()
	s.compose("--profile", "demo", "up", "-d", "--no-build", "--no-deps", "alice", "bob")
	s.eventually("alice and bob print a message", func() bool {
		f.start()
		f.flows(1)
		f.halt("satellites inside and outside")
		for _, name := range []string{"alice", "bob"} {
			ids := s.containers(name)
			if len(ids) != 1 || !strings.Contains(s.run("docker", "logs", ids[0]), `"msg_id"`) {
				return false
			}
		}
		return true
	})
	s.compose("--profile", "demo", "rm", "-sf", "alice", "bob")
}

// scale adds delivery workers under traffic and takes them away again.
func (s *stack) scale(f *traffic) {
	s.t.Helper()
	f.start()
	f.flows(100)
	s.compose("up", "-d", "--no-build", "--no-deps", "--no-recreate", "--scale", "delivery=4", "delivery")
	s.healthy()
	f.flows(300)
	s.compose("up", "-d", "--no-build", "--no-deps", "--no-recreate", "--scale", "delivery=2", "delivery")
	f.flows(300)
	f.noFailures("--scale delivery=4, then 2")
}

func (f *traffic) noFailures(what string) {
	f.t.Helper()
	if n := f.halt(what); n > 0 {
		f.t.Errorf("%s: got %d failed calls, want none: %v", what, n, few(f.failures()))
	}
}

// noViolations holds deploy/nats.conf against what the roles have done so far.
func (s *stack) noViolations() {
	s.t.Helper()
	for _, service := range []string{"frontend", "delivery", "pinger"} {
		for _, id := range s.containers(service) {
			out, _ := exec.Command("docker", "logs", id).CombinedOutput()
			for line := range strings.Lines(string(out)) {
				if strings.Contains(strings.ToLower(line), "permissions violation") {
					s.t.Errorf("%s lacks a permission in deploy/nats.conf: %s", service, line)
					break
				}
			}
		}
	}
}

// victim is a container of the service; of NATS, the leader of the log.
func (s *stack) victim(service string) string {
	s.t.Helper()
	if service == "nats" {
		service = s.leader()
	}
	ids := s.containers(service)
	if len(ids) == 0 {
		s.t.Fatalf("%s has no container", service)
	}
	return ids[0]
}

// kill is docker kill, which counts as a stop by hand: the engine does not start
// the container again. The cluster goes on without it, but for HAProxy, which
// there is one of.
func (s *stack) kill(f *traffic, service string) {
	s.t.Helper()
	f.start()
	f.flows(100)
	id := s.victim(service)
	s.run("docker", "kill", id)
	if service == "haproxy" {
		time.Sleep(time.Second)
		s.run("docker", "start", id)
	}
	f.flows(500)
	s.run("docker", "start", id)
	s.healthy()
	f.flows(100)
	f.halt("docker kill " + service)
}

// kill9 kills the process behind the engine's back; the restart policy brings
// the container back.
func (s *stack) kill9(f *traffic, service string) {
	s.t.Helper()
	f.start()
	f.flows(100)
	id := s.victim(service)
	pid := strings.TrimSpace(s.run("docker", "inspect", "-f", "{{.State.Pid}}", id))
	s.run("kill", "-9", pid)
	f.flows(300)
	s.eventually("the engine has started it again", func() bool {
		now := strings.TrimSpace(s.run("docker", "inspect", "-f", "{{.State.Pid}}", id))
		return now != pid && now != "0"
	})
	s.healthy()
	f.flows(100)
	f.halt("kill -9 " + service)
}

// partition takes a container off the network and puts it back.
func (s *stack) partition(f *traffic, service string) {
	s.t.Helper()
	f.start()
	f.flows(100)
	alias := service
	if service == "nats" {
		alias = s.leader()
	}
	id := s.victim(alias)
	s.run("docker", "network", "disconnect", s.network(), id)
	f.flows(500)
	time.Sleep(3 * time.Second)
	s.run("docker", "network", "connect", "--alias", alias, s.network(), id)
	s.healthy()
	f.flows(100)
	f.halt("partition of " + service)
}

// roll replaces a service's containers one by one, and no call may fail.
func (s *stack) roll(f *traffic, service string) {
	s.t.Helper()
	f.start()
	f.flows(100)
	s.run("deploy/roll", service)
	f.flows(200)
	f.noFailures("deploy/roll " + service)
}

// downUp removes every container. Registrations and what is owed are there again
// afterwards: nobody registers anew.
func (s *stack) downUp(f *traffic) {
	s.t.Helper()
	down := f.fleet[0]
	down.SetBehaviour(satellitetest.Behaviour{Mode: satellitetest.Down})
	f.start()
	f.flows(200)
	f.stop()
	f.running.Wait()
	s.compose("stop")
	for _, end := range strings.Fields(s.run("sh", "-c", `docker ps -aq --filter label=com.docker.compose.project=`+project+
		` | xargs docker inspect -f '{{index .Config.Labels "com.docker.compose.service"}}={{.State.ExitCode}}'`)) {
		if !strings.HasSuffix(end, "=0") {
			s.t.Errorf("stopped: got exit code %s, want 0 of all", end)
		}
	}
	s.compose("down")
	s.up()
	f.url = s.url()
	if missing := f.missing(); missing == 0 {
		s.t.Error("the satellite that was down has everything: nothing was owed over the stop")
	}
	down.SetBehaviour(satellitetest.Behaviour{})
	f.halt("down and up, one satellite behind")
	f.start()
	f.flows(200)
	f.noFailures("after down and up, nobody registers anew")
}
