package faults

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is one program of a cluster test. It is known by its id alone: what
// others run on this machine is never touched.
type process struct {
	t       *testing.T
	name    string
	program string
	args    []string
	log     *logBuffer
	cmd     *exec.Cmd
	exited  chan struct{} // closed when the process has ended
	status  error         // of the end, once exited is closed
}

func newProcess(t *testing.T, name, program string, args ...string) *process {
	p := &process{t: t, name: name, program: program, args: args, log: &logBuffer{}}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			log := p.log.String()
			t.Logf("the end of the log of %s:\n%s", name, log[max(0, len(log)-8<<10):])
		}
	})
	return p
}

func (p *process) start() {
	p.t.Helper()
	if p.running() {
		p.t.Fatalf("%s runs already", p.name)
	}
	cmd := exec.Command(p.program, p.args...)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	exited := make(chan struct{})
	p.cmd, p.exited = cmd, exited
	go func() {
		p.status = cmd.Wait()
		close(exited)
	}()
}

func (p *process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// kill is SIGKILL; it works on a paused process, too.
func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	if p.running() {
		_ = p.cmd.Process.Kill()
	}
	<-p.exited
	p.cmd = nil
}

// stop is SIGTERM, which must end the process with exit code 0 within 10 s. It
// returns how long that took.
func (p *process) stop() time.Duration {
	p.t.Helper()
	began := time.Now()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.exited:
		if p.status != nil {
			p.t.Errorf("%s after SIGTERM: %v, want exit code 0", p.name, p.status)
		}
	case <-time.After(10 * time.Second):
		p.t.Errorf("%s has not stopped 10 s after SIGTERM", p.name)
	}
	p.kill()
	return time.Since(began)
}

func (p *process) pause()  { p.t.Helper(); p.signal(syscall.SIGSTOP) }
func (p *process) resume() { p.t.Helper(); p.signal(syscall.SIGCONT) }

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if !p.running() {
		p.t.Fatalf("%s has ended: %v", p.name, p.status)
	}
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("signal %s: %v", p.name, err)
	}
}

// natsServer is the real nats-server of the version in go.mod, built once.
var natsServer = sync.OnceValues(func() (string, error) {
	program := filepath.Join(filepath.Dir(binary), "nats-server")
	out, err := exec.Command("go", "build", "-o", program, "github.com/nats-io/nats-server/v2").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build nats-server: %w\n%s", err, out)
	}
	return program, nil
})

// node is one broker of a cluster.
type node struct {
	*process
	client, route, monitor string // addresses
	advertise              string // where the others reach route; "" is route itself
	dir                    string
}

func (n *node) url() string { return "nats://" + n.client }

const nodeConfig = `
server_name: %s
listen: "%s"
http: "%s"
jetstream { store_dir: "%s", max_file_store: 4GB, max_memory_store: 256MB, sync_interval: always }
cluster { name: co2, listen: "%s", %s routes: [%s] }
`

// configure writes the file that an operator would; routes are where the nodes
// reach each other.
func (n *node) configure(routes string) {
	n.t.Helper()
	advertise := ""
	if n.advertise != "" {
		advertise = fmt.Sprintf("advertise: %q,", n.advertise)
	}
	text := fmt.Sprintf(nodeConfig, n.name, n.client, n.monitor, n.dir, n.route, advertise, routes)
	if err := os.WriteFile(n.args[1], []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// healthy says that the node's streams have caught up with their leaders.
func (n *node) healthy() bool {
	resp, err := shortly.Get("http://" + n.monitor + "/healthz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

var shortly = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}
