package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/co2relay/co2relay/internal/freeport"
)

// project is the name of the compose project, and the label by which everything
// is found and removed. There is one at a time.
const project = "co2e2e"

// limit is the time for all tests once the images are there; what has not ended
// by then fails.
const limit = 40 * time.Minute

var (
	began  time.Time
	images []string // environment that names them
	only   *os.File // the lock that alone holds

	composeCommand = []string{"docker-compose"}
)

func TestMain(m *testing.M) {
	if os.Getenv("CO2_E2E") == "" {
		fmt.Println("e2e: SKIPPED: these tests build images and start a cluster; `make e2e` runs them")
		os.Exit(0)
	}
	if out, err := exec.Command("docker", "info").CombinedOutput(); err != nil {
		fmt.Printf("e2e: SKIPPED: NO DOCKER ENGINE ANSWERS HERE: the compose file, its images and deploy/roll are NOT TESTED (%v: %.200s)\n", err, out)
		if os.Getenv("CO2_REQUIRE_ENGINE") != "" {
			os.Exit(1)
		}
		os.Exit(0)
	}
	if _, err := exec.LookPath(composeCommand[0]); err != nil {
		composeCommand = []string{"docker", "compose"}
	}
	if err := alone(); err != nil {
		fmt.Println("e2e: FAIL:", err)
		os.Exit(1)
	}
	if err := makeImages(); err != nil {
		fmt.Println("e2e: FAIL:", err)
		os.Exit(1)
	}
	began = time.Now()
	time.AfterFunc(limit, func() {
		removeAll()
		table.print()
		fmt.Printf("e2e: FAIL: not done after %s\n", limit)
		os.Exit(1)
	})
	clean()
	code := m.Run()
	left := clean()
	table.print()
	if left != "" {
		fmt.Println("e2e: FAIL: left behind:", left)
		code = 1
	}
	os.Exit(code)
}

// alone takes a lock until this process ends: two runs at once would remove each
// other's containers.
func alone() error {
	path := filepath.Join(os.TempDir(), project+".lock")
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open the lock against a second run: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another run of these tests is under way on this machine (it holds %s): wait for its end: %w", path, err)
	}
	only = lock
	return nil
}

// stack is the cluster under test.
type stack struct {
	t     *testing.T
	env   []string
	files []string // compose files besides the tree's own
	port  int      // published
}

func newStack(t *testing.T, env ...string) *stack {
	t.Helper()
	removeAll() // what an earlier test left
	s := &stack{t: t, port: freeport.Port(t)}
	s.env = append(append(os.Environ(), images...), fmt.Sprintf("CO2_PUBLISH=%d", s.port), "COMPOSE="+strings.Join(composeCommand, " "))
	s.env = append(s.env, env...)
	return s
}

// run runs a command in the tree's root and gives its standard output.
func (s *stack) run(name string, args ...string) string {
	s.t.Helper()
	out, err := s.try(name, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *stack) try(name string, args ...string) (string, error) {
	return s.feed("", name, args...)
}

// feed runs a command with something to read.
func (s *stack) feed(stdin, name string, args ...string) (string, error) {
	ctx, cancel := context.WithDeadline(context.Background(), began.Add(limit))
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr strings.Builder
	cmd.Dir, cmd.Env, cmd.Stderr = "..", s.env, &stderr
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out), nil
}

func (s *stack) compose(args ...string) string {
	s.t.Helper()
	command := slices.Clone(composeCommand)
	if len(s.files) > 0 {
		command = append(command, "-f", "docker-compose.yml")
		for _, f := range s.files {
			command = append(command, "-f", f)
		}
	}
	return s.run(command[0], append(command[1:], args...)...)
}

// up starts everything and waits until all of it is healthy.
func (s *stack) up() {
	s.t.Helper()
	s.compose("up", "-d", "--no-build")
	s.healthy()
}

// healthy waits until every container is, and the broker has a leader of each of its
// streams: an election goes on for some seconds after the log's, and a step that
// begins meanwhile is two faults at once.
func (s *stack) healthy() {
	s.t.Helper()
	s.eventually("all containers are healthy", func() bool {
		for _, service := range append([]string{"frontend", "delivery", "pinger", "haproxy"}, nodes...) {
			ids := s.containers(service)
			for _, id := range ids {
				if strings.TrimSpace(s.run("docker", "inspect", "-f", "{{.State.Health.Status}}", id)) != "healthy" {
					return false
				}
			}
			if len(ids) == 0 {
				return false
			}
		}
		return true
	})
	s.eventually("every stream has a leader", func() bool {
		for _, node := range nodes {
			for _, id := range s.containers(node) {
				leaders := streamLeaders(s.address(id))
				if len(leaders) == 0 {
					return false
				}
				for _, leader := range leaders {
					if leader == "" {
						return false
					}
				}
			}
		}
		return true
	})
}

// containers are a service's that run.
func (s *stack) containers(service string) []string {
	s.t.Helper()
	return strings.Fields(s.run("docker", "ps", "-q", "--filter", "label=com.docker.compose.project="+project,
		"--filter", "label=com.docker.compose.service="+service))
}

func (s *stack) network() string { return project + "_relay" }

// url is the relay behind its published port, by the address that this machine
// has on the containers' network: satellites here are called back at it.
func (s *stack) url() string {
	s.t.Helper()
	gateway := strings.TrimSpace(s.run("docker", "inspect", "-f", "{{(index .NetworkSettings.Networks \""+s.network()+"\").Gateway}}", s.containers("haproxy")[0]))
	return "http://" + net.JoinHostPort(gateway, strconv.Itoa(s.port)) + "/RPC2"
}

// address is a container's on the cluster's network.
func (s *stack) address(id string) string {
	s.t.Helper()
	return strings.TrimSpace(s.run("docker", "inspect", "-f", "{{(index .NetworkSettings.Networks \""+s.network()+"\").IPAddress}}", id))
}

// leader is the service of the NATS node that leads the log.
func (s *stack) leader() string {
	s.t.Helper()
	leader := ""
	s.eventually("the log has a leader", func() bool {
		for _, node := range nodes {
			for _, id := range s.containers(node) {
				if leader = streamLeaders(s.address(id))["RELAY"]; leader != "" {
					return true
				}
			}
		}
		return false
	})
	return leader
}

// nodes are the services of the NATS nodes.
var nodes = []string{"nats-1", "nats-2", "nats-3"}

// direct asks containers, which no proxy of this machine's reaches.
var direct = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}

// streamLeaders are the streams of a NATS node and who leads each, "" where it knows of
// nobody; none if it does not answer.
func streamLeaders(address string) map[string]string {
	resp, err := direct.Get("http://" + address + ":8222/jsz?accounts=true&streams=true")
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var answer struct {
		Accounts []struct {
			Streams []struct {
				Name    string
				Cluster struct{ Leader string }
			} `json:"stream_detail"`
		} `json:"account_details"`
	}
	if json.NewDecoder(resp.Body).Decode(&answer) != nil {
		return nil
	}
	leaders := make(map[string]string)
	for _, account := range answer.Accounts {
		for _, stream := range account.Streams {
			leaders[stream.Name] = stream.Cluster.Leader
		}
	}
	return leaders
}

func (s *stack) eventually(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(120 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			s.t.Fatalf("not within 120 s: %s\n%s", what, s.logs())
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// logs is the end of what the cluster's containers said.
func (s *stack) logs() string {
	out, err := s.try(composeCommand[0], append(slices.Clone(composeCommand[1:]), "logs", "--no-color", "--tail", "15")...)
	if err != nil {
		return err.Error()
	}
	return out
}
