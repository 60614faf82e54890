package frontend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/internal/recent"
	"github.com/co2relay/co2relay/internal/xmlrpc"
	"github.com/co2relay/co2relay/registry"
)

// netHTTPSlop is what net/http reads of a header beyond MaxHeaderBytes.
const netHTTPSlop = 4 << 10

// askEvery is how often, at most, strangers' questions cost the broker one.
const askEvery = time.Second

// descriptorShare is which part of the descriptor limit connections of clients
// may take, unless --max-conns says otherwise: calls to satellites have 80% of
// it, and the broker's files need the rest.
const descriptorShare = 6

// Frontend answers HTTP. It keeps no state beside caches.
type Frontend struct {
	cfg     Config
	limits  xmlrpc.Limits
	log     hclog.Logger
	reg     *registry.Registry
	clus    *cluster.Cluster
	metrics *metrics
	trusted *proxies
	// certificate is nil for plain HTTP.
	certificate *certificate
	origins     map[string]bool
	hosts       map[string]bool // their names

	methods map[string]*entry
	names   []string // of all methods, sorted
	table   []method
	props   properties
	pages   *pages

	lookups *rateLimit
	comers  comers
	settle  time.Duration // as the constant, which tests replace
	limiter *limiter      // nil: none
	budget  *budget
	buffers buffers
	idList  idList
	maxSats *recent.Value[int]
	state   *recent.Value[figures]

	history      *history
	overview     *feed
	flowFeed     *feed
	views        *views
	flow         flow
	rosterMu     sync.Mutex // guards what a roster sorts later
	roster       *recent.Value[*roster]
	clusterState *recent.Value[clusterState]
	viewers      atomic.Int64
	stopping     chan struct{} // closed when Serve is asked to stop

	draining atomic.Bool
}

// New makes a frontend. It does no I/O beyond reading what the host is. The
// error says what is wrong with the configuration, or that the metrics are
// registered already. Without a registerer nobody sees the metrics.
func New(cfg Config, log hclog.Logger, reg *registry.Registry, clus *cluster.Cluster, registerer prometheus.Registerer) (*Frontend, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("frontend configuration: %w", err)
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = descriptorLimit() / descriptorShare
	}
	f := &Frontend{
		cfg:     cfg,
		limits:  cfg.limits(),
		log:     log,
		reg:     reg,
		clus:    clus,
		origins: make(map[string]bool),
		hosts:   make(map[string]bool),
		table:   methodTable(),
		props:   readProperties(),
		lookups: newRateLimit(),
		settle:  settle,
		limiter: newLimiter(cfg.RateLimit, cfg.RateBurst),
		budget:  newBudget(cfg.BodyBudget),

		history: newHistory(), overview: newFeed(), flowFeed: newFeed(), views: newViews(), stopping: make(chan struct{}),
	}
	if registerer == nil {
		registerer = prometheus.NewRegistry()
	}
	f.maxSats = recent.New(askEvery, reg.MaxSats)
	f.state = recent.New(askEvery, f.loadFigures)
	f.clusterState = recent.New(askEvery, f.loadClusterState)
	f.roster = recent.New(askEvery, f.loadRoster)
	f.maxSats.Patience, f.state.Patience, f.clusterState.Patience, f.roster.Patience = lookupTimeout, pagePatience, pagePatience, pagePatience
	f.roster.Rest = 10                                 // it costs the processor something, too
	f.trusted, _ = newProxies(cfg.TrustedProxies, log) // Validate has read them
	for _, o := range cfg.Origins {
		origin, _ := parseOrigin(o)
		f.origins[origin] = true
		if u, err := url.Parse(origin); err == nil {
			f.hosts[u.Hostname()] = true
		}
	}
	var err error
	if cfg.TLSCert != "" {
		if f.certificate, err = openCertificate(cfg.TLSCert, cfg.TLSKey, log); err != nil {
			return nil, err
		}
	}
	if f.methods, f.names, err = index(f.table); err != nil {
		return nil, err
	}
	if f.metrics, err = newMetrics(registerer, families(f.methods)); err != nil {
		return nil, err
	}
	if f.pages, err = parsePages(); err != nil {
		return nil, err
	}
	return f, nil
}

// families gives the families of all methods.
func families(methods map[string]*entry) []string {
	seen := make(map[string]bool)
	var all []string
	for _, e := range methods {
		if !seen[e.family] {
			seen[e.family] = true
			all = append(all, e.family)
		}
	}
	return all
}

// Draining tells whether Serve has been asked to stop: readiness should be
// denied from then on, while requests are still served for the drain delay.
func (f *Frontend) Draining() bool { return f.draining.Load() }

// Serve answers connections of ln until ctx ends. Then it goes on for the
// drain delay, stops accepting, and lets calls in flight finish for the drain
// timeout; what has not finished then is given up: a relay of unknown outcome
// is answered as such. It closes ln, and returns nil when it was stopped by ctx.
func (f *Frontend) Serve(ctx context.Context, ln net.Listener) error {
	life, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	var following sync.WaitGroup
	defer following.Wait()
	defer giveUp()
	following.Go(func() { f.trusted.follow(life) })
	l := newListener(life, ln, f.cfg, f.trusted, f.metrics)
	if f.certificate != nil {
		l.tls = f.certificate.tlsConfig()
	}
	srv := f.server(life)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	if f.cfg.Web {
		watch, unwatch := context.WithCancel(ctx)
		watching := make(chan struct{})
		go func() { defer close(watching); f.runWeb(watch) }()
		defer func() { unwatch(); <-watching }()
	}
	select {
	case err := <-served:
		return fmt.Errorf("serve http on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	f.draining.Store(true)
	close(f.stopping)
	f.log.Info("frontend is draining", "delay", f.cfg.DrainDelay)
	select {
	case err := <-served:
		return fmt.Errorf("serve http on %s: %w", ln.Addr(), err)
	case <-time.After(f.cfg.DrainDelay):
	}
	f.shutDown(srv, l, giveUp)
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve http on %s: %w", ln.Addr(), err)
	}
	return nil
}

func (f *Frontend) server(life context.Context) *http.Server {
	return &http.Server{
		Handler:                      f,
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            f.cfg.HeaderTimeout,
		IdleTimeout:                  f.cfg.IdleTimeout,
		MaxHeaderBytes:               f.cfg.MaxHeader - netHTTPSlop,
		ErrorLog:                     f.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
		BaseContext:                  func(net.Listener) context.Context { return life },
		ConnContext:                  withConn,
	}
}

// shutDown stops a server: first politely, then by giving up the calls' context,
// then by closing what is left.
func (f *Frontend) shutDown(srv *http.Server, l *listener, giveUp func()) {
	polite, cancel := context.WithTimeout(context.Background(), f.cfg.DrainTimeout)
	defer cancel()
	srv.RegisterOnShutdown(l.closeUnused)
	if srv.Shutdown(polite) == nil {
		return
	}
	giveUp()
	last, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := srv.Shutdown(last); err != nil {
		f.log.Warn("connections are closed before their calls were answered", "error", err)
	}
	_ = srv.Close()
}
