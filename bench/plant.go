package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/co2relay/co2relay/internal/freeport"
)

// plant is a running installation.
type plant struct {
	spec  plantSpec
	dir   string
	urls  []string
	front string // where satellites call
	procs map[string][]*process
}

// runPlant measures the installation of that name while it is kept busy.
func runPlant(ctx context.Context, o options, name string) (r plantResult, err error) {
	i := slices.IndexFunc(plantSpecs(), func(s plantSpec) bool { return s.Name == name })
	if i < 0 {
		return r, fmt.Errorf("no workload %q", name)
	}
	s := plantSpecs()[i]
	f, err := openWide(ctx, s.Satellites)
	if err != nil {
		return r, err
	}
	defer f.close()
	progress("%s: starting", s.Name)
	p, err := startPlant(ctx, o, s)
	defer p.stop()
	if err != nil {
		return r, err
	}
	progress("%s: registering", s.Name)
	ids, err := registerAll(p.front, f.addrs)
	if err != nil {
		return r, fmt.Errorf("register: %w", err)
	}
	base, err := f.received()
	if err != nil {
		return r, err
	}
	w := workload{Satellites: s.Satellites, Size: 512, Senders: s.Senders}
	var got atomic.Uint64
	watch, stopWatch := context.WithCancel(ctx)
	watched := make(chan error, 1)
	go func() { watched <- f.watch(watch, base, &got) }()
	l := startLoad(ctx, p.front, ids, w, w.pace(&got))
	// Every satellite has its connection after a few messages.
	for deadline := time.Now().Add(30 * time.Second); got.Load() < uint64(2*s.Satellites) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(settleTime)
	progress("%s: measuring", s.Name)
	r, err = p.sample(f, &got, o.length)
	err = errors.Join(err, l.end())
	stopWatch()
	return r, errors.Join(err, <-watched)
}

func startPlant(ctx context.Context, o options, s plantSpec) (p *plant, err error) {
	p = &plant{spec: s, procs: make(map[string][]*process)}
	if p.dir, err = os.MkdirTemp("", "co2bench-plant"); err != nil {
		return p, err
	}
	if err := p.startBrokers(ctx, o); err != nil {
		return p, err
	}
	if p.front, err = freeport.FindAddr(); err != nil {
		return p, err
	}
	roles := []string{roleFrontend, rolePinger}
	for range s.Workers {
		roles = append(roles, roleDelivery)
	}
	for _, role := range roles {
		if err := p.startRole(ctx, o, role); err != nil {
			return p, err
		}
	}
	return p, p.waitReady(ctx)
}

const brokerConfig = `
server_name: n%d
listen: "%s"
jetstream { store_dir: "%s", max_file_store: 8GB, sync_interval: always }
`

const clusterConfig = `
cluster { name: bench, listen: "%s", routes: [%s] }
`

func (p *plant) startBrokers(ctx context.Context, o options) error {
	var clients, routes []string
	for range p.spec.Brokers {
		client, err := freeport.FindAddr()
		if err != nil {
			return err
		}
		route, err := freeport.FindAddr()
		if err != nil {
			return err
		}
		clients, routes = append(clients, client), append(routes, route)
		p.urls = append(p.urls, "nats://"+client)
	}
	for i, client := range clients {
		file := filepath.Join(p.dir, fmt.Sprintf("n%d.conf", i))
		text := fmt.Sprintf(brokerConfig, i, client, filepath.Join(p.dir, fmt.Sprint("n", i)))
		if len(clients) > 1 {
			text += fmt.Sprintf(clusterConfig, routes[i], `"nats://`+strings.Join(routes, `", "nats://`)+`"`)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
		broker, err := startProcess(ctx, "", o.broker, "-c", file, "-l", file+".log")
		if err != nil {
			return err
		}
		p.procs[roleBroker] = append(p.procs[roleBroker], broker)
	}
	for _, client := range clients {
		if _, err := waitOpen(client); err != nil {
			return err
		}
	}
	return nil
}

func (p *plant) startRole(ctx context.Context, o options, role string) error {
	admin, err := freeport.FindAddr()
	if err != nil {
		return err
	}
	args := []string{
		role, "--nats", strings.Join(p.urls, ","), "--replicas", fmt.Sprint(p.spec.Brokers), "--max-sats", "200000",
		"--name", fmt.Sprint(role, len(p.procs[role])), "--admin", admin, "--log-level", "error",
	}
	switch role {
	case roleFrontend:
		args = append(args, "--listen", p.front, "--max-conns-per-addr", "10000", "--idle-timeout", "10m")
	case rolePinger:
		args = append(args, "--ping-interval", p.spec.Ping.String())
	}
	proc, err := startProcess(ctx, admin, o.binary, args...)
	if err == nil {
		p.procs[role] = append(p.procs[role], proc)
	}
	return err
}

// waitReady waits until all processes are, and the workers have shared the
// satellites out.
func (p *plant) waitReady(ctx context.Context) error {
	for deadline := time.Now().Add(time.Minute); ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		ready := true
		for _, role := range []string{roleFrontend, rolePinger, roleDelivery} {
			for _, proc := range p.procs[role] {
				ready = ready && proc.ready()
			}
		}
		for _, worker := range p.procs[roleDelivery] {
			const partitions = 32
			n, err := worker.metric("co2_delivery_partitions")
			ready = ready && err == nil && n >= float64(partitions/p.spec.Workers)
		}
		if ready {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("the processes did not get ready within a minute")
		}
	}
	return ctx.Err()
}

func (p *process) ready() bool {
	resp, err := http.Get("http://" + p.admin + "/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (p *plant) stop() {
	for _, role := range []string{roleFrontend, rolePinger, roleDelivery, roleBroker} {
		for _, proc := range p.procs[role] {
			_ = proc.cmd.Process.Signal(syscall.SIGTERM)
		}
		for _, proc := range p.procs[role] {
			_ = proc.cmd.Wait()
		}
	}
	os.RemoveAll(p.dir)
}

// plantReading is everything that is counted, at a moment.
type plantReading struct {
	at                          time.Time
	got, checkpoints, pings, in float64
	cpu                         map[string]float64
	brokers                     []float64
}

func (p *plant) read(f *fleet, got *atomic.Uint64) (x plantReading, err error) {
	x = plantReading{at: time.Now(), got: float64(got.Load()), cpu: make(map[string]float64)}
	for _, role := range plantRoles {
		for _, proc := range p.procs[role] {
			used, err := proc.cpu()
			if err != nil {
				return x, err
			}
			x.cpu[role] += float64(used.Microseconds())
			if role == roleBroker {
				x.brokers = append(x.brokers, float64(used.Microseconds()))
			}
		}
	}
	for _, worker := range p.procs[roleDelivery] {
		n, err := worker.metric("co2_delivery_checkpoints_total")
		if err != nil {
			return x, err
		}
		x.checkpoints += n
	}
	pings, err1 := f.sum("pings")
	in, err2 := f.sum("connections")
	x.pings, x.in = float64(pings), float64(in)
	return x, errors.Join(err1, err2)
}

func (p *plant) sample(f *fleet, got *atomic.Uint64, length time.Duration) (r plantResult, err error) {
	a, err := p.read(f, got)
	if err != nil {
		return r, err
	}
	await(length)
	b, err := p.read(f, got)
	if err != nil {
		return r, err
	}
	took := b.at.Sub(a.at).Seconds()
	r = plantResult{
		// By its deliveries: a message to 100,000 takes longer than a measurement.
		Spec: p.spec, Messages: (b.got - a.got) / took / float64(p.spec.Satellites-1), Deliveries: (b.got - a.got) / took,
		Checkpoints: (b.checkpoints - a.checkpoints) / took, Pings: (b.pings - a.pings) / took,
		Connections: (b.in - a.in - (b.pings - a.pings)) / took, // a ping has one of its own
		CPU:         make(map[string]float64), Memory: make(map[string]float64),
	}
	for role, procs := range p.procs {
		r.CPU[role] = (b.cpu[role] - a.cpu[role]) / took
		for _, proc := range procs {
			n, err := proc.resident()
			if err != nil {
				return r, err
			}
			r.Memory[role] += float64(n)
		}
	}
	for i := range b.brokers {
		r.Leader = max(r.Leader, (b.brokers[i]-a.brokers[i])/took)
	}
	if r.Deliveries == 0 {
		return r, errors.New("nothing was delivered")
	}
	return r, nil
}
