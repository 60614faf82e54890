package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/delivery"
	"github.com/co2relay/co2relay/frontend"
	"github.com/co2relay/co2relay/pinger"
	"github.com/co2relay/co2relay/registry"
)

// Serve runs the process's roles until ctx ends; it returns nil after a stop
// in good order. opened, if not nil, is told the address once satellites can
// call.
func Serve(ctx context.Context, cfg Config, log hclog.Logger, opened func(net.Addr)) error {
	r := &relay{cfg: cfg, log: log, metrics: prometheus.NewRegistry(), failed: make(chan error, 8)}
	r.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	admin, err := startAdmin(ctx, cfg.Admin, r.ready, r.metrics)
	if err != nil {
		return err
	}
	err = r.start(ctx, opened)
	if err == nil {
		select {
		case <-ctx.Done():
			log.Info("stopping")
		case err = <-r.failed:
		}
	}
	r.open.Store(false)
	r.stop()
	if stopErr := admin.stop(); err == nil {
		err = stopErr
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil
	}
	if err == nil {
		log.Info("stopped")
	}
	return err
}

// relay is one process with its roles.
type relay struct {
	cfg     Config
	log     hclog.Logger
	metrics *prometheus.Registry
	server  *cluster.Server // nil with a broker of others
	layout  cluster.Layout  // as in force
	clus    *cluster.Cluster
	reg     *registry.Registry
	open    atomic.Bool // started, and not stopping
	parts   []*part     // in the order in which they started
	failed  chan error

	draining func() bool // nil without a frontend
}

// part is a loop of the relay with its own stop, so that the order of stopping
// is ours and not chance.
type part struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
}

// start brings everything up, satellites' port last.
func (r *relay) start(ctx context.Context, opened func(net.Addr)) error {
	began := time.Now()
	if err := r.openBroker(ctx); err != nil {
		return err
	}
	r.metrics.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "co2_events_dropped_total", Help: "Events that found no room or no broker.",
	}, func() float64 { return float64(r.clus.EventsDropped()) }))
	r.reg = registry.New(r.clus, r.log.Named("registry"))
	if !r.cfg.roles.has(roleFrontend) {
		r.reg.LeaveSweeping() // frontends do it: who registers may free seats
	}
	r.run("registry", r.reg.Run)
	select {
	case <-r.reg.Ready():
	case err := <-r.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := r.startWorkers(); err != nil {
		return err
	}
	r.startSampler(began)
	var addr net.Addr
	if r.cfg.roles.has(roleFrontend) {
		var err error
		if addr, err = r.startFrontend(ctx); err != nil {
			return err
		}
	}
	r.open.Store(true)
	r.log.Info("ready", append(r.about(addr), "satellites", r.reg.Len(), "took", time.Since(began).Round(time.Millisecond).String())...)
	if opened != nil {
		opened(addr)
	}
	return nil
}

// about is where this process can be found, for its log.
func (r *relay) about(addr net.Addr) []any {
	about := []any{"admin", r.cfg.Admin}
	if addr != nil {
		about = append(about, "listen", addr.String())
	}
	if r.server != nil {
		return append(about, "data", r.cfg.Broker.Data)
	}
	return append(about, "nats", cluster.Options{URLs: r.cfg.Broker.URLs}.Where())
}

func (r *relay) startFrontend(ctx context.Context) (net.Addr, error) {
	front, err := frontend.New(r.cfg.Frontend, r.log.Named("frontend"), r.reg, r.clus, r.metrics)
	if err != nil {
		return nil, err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", r.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("open the port for satellites, choose another by --listen: %w", err)
	}
	r.draining = front.Draining
	r.run("frontend", func(ctx context.Context) error { return front.Serve(ctx, ln) })
	return ln.Addr(), nil
}

// openBroker connects to the broker, embedded or not, and sees to its streams.
func (r *relay) openBroker(ctx context.Context) error {
	options, err := r.cfg.Broker.options(r.cfg.Name)
	if err != nil {
		return err
	}
	if len(r.cfg.Broker.URLs) == 0 {
		if options.Server, err = r.startServer(ctx); err != nil {
			return err
		}
	}
	if r.clus, err = cluster.Connect(ctx, options, r.log); err != nil {
		return err
	}
	layout, err := r.clus.Setup(ctx, cluster.Layout{
		Retention: r.cfg.Retention, RetentionBytes: r.cfg.RetentionBytes, Replicas: r.cfg.Broker.Replicas, MaxSats: r.cfg.MaxSats,
	})
	if err != nil {
		return err
	}
	r.layout = layout
	if layout.Retention != r.cfg.Retention || layout.RetentionBytes != r.cfg.RetentionBytes {
		r.log.Warn("the log keeps the limits that it was made with", "retention", layout.Retention.String(), "retention_bytes", layout.RetentionBytes)
	}
	return nil
}

// options are those for a broker of others.
func (b Broker) options(name string) (cluster.Options, error) {
	o := cluster.Options{
		URLs: b.URLs, CredsFile: b.Creds, User: b.User, Password: b.Password,
		CAFile: b.CA, CertFile: b.Cert, KeyFile: b.Key, Name: "co2relay " + name,
	}
	if b.Secret != "" {
		text, err := os.ReadFile(b.Secret)
		if err != nil {
			return o, fmt.Errorf("read the password for the broker (--nats-password-file): %w", err)
		}
		o.Password = strings.TrimSpace(string(text))
	}
	return o, nil
}

// startServer starts the embedded broker, with room for the log's limit and a
// fifth more: checkpoints must still fit when the log is full.
func (r *relay) startServer(ctx context.Context) (*cluster.Server, error) {
	server, err := cluster.StartServer(ctx, cluster.ServerConfig{
		Dir: r.cfg.Broker.Data, Listen: r.cfg.Broker.NATSListen, MaxStore: r.cfg.RetentionBytes/5*6 + storeSlack,
	}, r.log)
	if err != nil {
		return nil, err
	}
	r.server = server
	r.run("disk", func(ctx context.Context) error { return server.WatchDisk(ctx, uint64(r.cfg.Broker.MinFree)) })
	return server, nil
}

// storeSlack is room for registrations, figures and events beside the log.
const storeSlack = 1 << 30

func (r *relay) startWorkers() error {
	d, p := r.cfg.Delivery, r.cfg.Pinger
	// With a broker that others can reach, others can join, and what is left
	// over may be theirs.
	sole := r.server != nil && r.cfg.Broker.NATSListen == ""
	d.Name, d.Sole = r.cfg.Name, sole
	p.Name, p.Sole = r.cfg.Name, sole
	trust, err := trustOf(r.cfg.SatelliteCA)
	if err != nil {
		return err
	}
	d.TLS, p.TLS = trust, trust
	if r.cfg.roles.has(roleDelivery) {
		worker, err := delivery.New(d, r.log.Named("delivery"), r.clus, r.reg, r.metrics)
		if err != nil {
			return err
		}
		r.run("delivery", worker.Run)
	}
	if r.cfg.roles.has(rolePinger) {
		ping, err := pinger.New(p, r.log.Named("pinger"), r.clus, r.reg, r.metrics)
		if err != nil {
			return err
		}
		r.run("pinger", ping.Run)
	}
	return nil
}

func (r *relay) startSampler(began time.Time) {
	s := &sampler{clus: r.clus, metrics: r.metrics, log: r.log.Named("sampler"), about: cluster.Sample{
		Process: r.cfg.Name, Roles: r.cfg.roles.names(), Release: Version(), Started: began.UTC().Truncate(time.Millisecond),
	}}
	r.run("sampler", s.run)
}

// trustOf reads the certificates that https satellites are checked against; nil
// stands for the system's.
func trustOf(file string) (*tls.Config, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the satellites' certificates (--satellite-ca): %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read the satellites' certificates (--satellite-ca): %s has none in PEM form", file)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}, nil
}

// run starts a part. A part that ends by itself ends the relay.
func (r *relay) run(name string, loop func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &part{name: name, cancel: cancel, done: make(chan struct{})}
	r.parts = append(r.parts, p)
	go func() {
		defer close(p.done)
		err := loop(ctx)
		if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
			return
		}
		if err == nil {
			err = errors.New("ended unexpectedly")
		}
		select {
		case r.failed <- fmt.Errorf("%s: %w", name, err):
		default:
		}
	}()
}

// stop ends the parts in the reverse of their order: calls come in no more,
// what is published is finished, lanes are written down, then the broker goes.
func (r *relay) stop() {
	for i := len(r.parts) - 1; i >= 0; i-- {
		p := r.parts[i]
		p.cancel()
		<-p.done
	}
	if r.clus != nil {
		r.clus.Close()
	}
	if r.server != nil {
		r.server.Close()
	}
}

// ready is what /readyz answers.
func (r *relay) ready() error {
	if !r.open.Load() {
		return errors.New("starting or stopping")
	}
	if r.draining != nil && r.draining() {
		return errors.New("draining")
	}
	return r.clus.Ready()
}
