package app

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/co2relay/co2relay/delivery"
	"github.com/co2relay/co2relay/frontend"
	"github.com/co2relay/co2relay/pinger"
)

// roles is the set of roles of one process.
type roles uint8

const (
	roleFrontend roles = 1 << iota
	roleDelivery
	rolePinger
	allRoles = roleFrontend | roleDelivery | rolePinger
)

func (r roles) has(one roles) bool { return r&one != 0 }

// Broker says which broker to use: the embedded one, unless URLs are given.
type Broker struct {
	URLs       []string
	Creds      string
	User       string
	Password   string
	Secret     string // file with the password
	CA         string
	Cert, Key  string
	Replicas   int
	NATSListen string // of the embedded one
	Data       string // of the embedded one
	MinFree    int64  // of the embedded one
}

// Config is everything that a process of the relay can be told.
type Config struct {
	Name           string // this process among others
	Listen         string
	Admin          string
	Broker         Broker
	MaxSats        int // 0: adopt the one in force
	Retention      time.Duration
	RetentionBytes int64
	SatelliteCA    string // file with certificates that https satellites are checked against; "": the system's
	LogLevel       string
	LogJSON        bool
	Frontend       frontend.Config
	Delivery       delivery.Config
	Pinger         pinger.Config

	roles roles
}

// DefaultConfig is what a newcomer's `co2relay serve` runs with.
func DefaultConfig() Config {
	c := Config{
		Name: processName(), Listen: ":2003", Admin: "127.0.0.1:2004",
		Broker:    Broker{Data: "./co2-data", MinFree: 256 << 20, Replicas: 1},
		Retention: 24 * time.Hour, RetentionBytes: 1 << 30, LogLevel: "info",
		Frontend: frontend.DefaultConfig(), Delivery: delivery.DefaultConfig(), Pinger: pinger.DefaultConfig(),
		roles: allRoles,
	}
	c.Frontend.Version = Version()
	return c
}

// Validate reports every fault at once, each by its flag's name.
func (c Config) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	address := func(flag, addr string, may bool) {
		if addr == "" && may {
			return
		}
		if _, err := net.ResolveTCPAddr("tcp", addr); err != nil {
			fault("--%s: %q is not an address like :2003 or 127.0.0.1:2003", flag, addr)
		}
	}
	if c.roles.has(roleFrontend) {
		address("listen", c.Listen, false)
		errs = append(errs, c.Frontend.Validate())
	}
	if c.roles.has(roleDelivery) {
		errs = append(errs, c.Delivery.Validate())
	}
	if c.roles.has(rolePinger) {
		errs = append(errs, c.Pinger.Validate())
	}
	address("admin", c.Admin, true)
	address("nats-listen", c.Broker.NATSListen, true)
	if c.roles != allRoles && len(c.Broker.URLs) == 0 {
		fault("--nats: name the NATS servers of the cluster, for example nats://nats1:4222,nats://nats2:4222")
	}
	if len(c.Broker.URLs) > 0 && c.Broker.NATSListen != "" {
		fault("--nats-listen: is for the embedded broker, and --nats names another one; leave one of them out")
	}
	if c.Broker.Data == "" && len(c.Broker.URLs) == 0 {
		fault("--data: name a directory")
	}
	errs = append(errs, c.Broker.validate())
	if n := c.Broker.Replicas; n < 1 || n > 5 || n%2 == 0 {
		fault("--replicas: %d is not 1, 3 or 5", n)
	}
	if c.MaxSats < 0 {
		fault("--max-sats: must not be negative")
	}
	if c.Retention < time.Minute {
		fault("--retention: %s is too short, use at least 1m", c.Retention)
	}
	if c.RetentionBytes < 8<<20 {
		fault("--retention-bytes: %d is too small, use at least 8MiB", c.RetentionBytes)
	}
	if hclog.LevelFromString(c.LogLevel) == hclog.NoLevel {
		fault("--log-level: %q is not one of trace, debug, info, warn, error, off", c.LogLevel)
	}
	return errors.Join(errs...)
}

// validate looks at the flags of bindTo. An address that cannot be read is not
// shown, as it may hold a password; nats.go would show it in its error.
func (b *Broker) validate() error {
	var errs []error
	for i, u := range b.URLs {
		if !strings.Contains(u, "://") {
			u = "nats://" + u
		}
		if _, err := url.Parse(u); err != nil {
			errs = append(errs, fmt.Errorf("--nats: address %d is not like nats://nats1:4222 or nats://user:password@nats1:4222, "+
				"with what is no letter or digit in user and password as %%40 and the like", i+1))
		}
	}
	if (b.Cert == "") != (b.Key == "") {
		errs = append(errs, errors.New("--nats-cert: goes together with --nats-key"))
	}
	if b.Password != "" && b.Secret != "" {
		errs = append(errs, errors.New("--nats-password-file: goes instead of --nats-password; leave one of them out"))
	}
	return errors.Join(errs...)
}

// bind makes the flags of the process's roles.
func (c *Config) bind(f *flagSet) {
	if c.roles.has(roleFrontend) {
		f.StringVar(&c.Listen, "listen", c.Listen, "address for satellites and browsers")
	}
	f.StringVar(&c.Admin, "admin", c.Admin, "address of /healthz, /readyz, /metrics and /debug/pprof; empty: none")
	if c.roles == allRoles {
		c.bindEmbedded(f)
	}
	c.bindBroker(f)
	if c.roles.has(roleDelivery) || c.roles.has(rolePinger) {
		f.StringVar(&c.SatelliteCA, "satellite-ca", c.SatelliteCA, "file with the certificates that https satellites' are checked against; empty: the system's")
	}
	if c.roles.has(roleDelivery) {
		c.bindDelivery(f)
	}
	if c.roles.has(rolePinger) {
		c.bindPinger(f)
	}
	if c.roles.has(roleFrontend) {
		c.bindFrontend(f)
	}
	f.StringVar(&c.Name, "name", c.Name, "name of this process among others, in events and in the broker's monitoring")
	f.StringVar(&c.LogLevel, "log-level", c.LogLevel, "trace, debug, info, warn, error or off")
	f.BoolVar(&c.LogJSON, "log-json", c.LogJSON, "log one JSON object a line")
}

func (c *Config) bindEmbedded(f *flagSet) {
	b := &c.Broker
	f.StringVar(&b.Data, "data", b.Data, "directory for everything that must survive; used by one process at a time")
	f.sizeVar(&b.MinFree, "min-free", "free disk space below which relays are refused")
	f.StringVar(&b.NATSListen, "nats-listen", b.NATSListen, "address for NATS clients, with credentials that are made in --data; empty: none")
}

func (c *Config) bindBroker(f *flagSet) {
	b := &c.Broker
	usage := "NATS servers of the cluster, for example nats://nats1:4222,nats://nats2:4222"
	if c.roles == allRoles {
		usage += "; empty: the embedded broker"
	}
	b.bindTo(f, usage)
	f.IntVar(&b.Replicas, "replicas", b.Replicas, "copies of every stream that is made: 1, 3 or 5")
	f.IntVar(&c.MaxSats, "max-sats", c.MaxSats, "satellites that may be registered at the same time; 0 keeps what is in force, 10000 at first")
	f.DurationVar(&c.Retention, "retention", c.Retention, "age at which a message leaves the log, delivered or not (takes effect when the log is made)")
	f.sizeVar(&c.RetentionBytes, "retention-bytes", "size of the log; the oldest messages leave when it is three quarters full (takes effect when the log is made)")
}

// bindTo makes the flags that say how to reach a broker of others.
func (b *Broker) bindTo(f *flagSet, usage string) {
	f.StringSliceVar(&b.URLs, "nats", b.URLs, usage)
	f.StringVar(&b.Creds, "nats-creds", b.Creds, "file with NATS credentials (JWT and key)")
	f.StringVar(&b.User, "nats-user", b.User, "user at the NATS servers")
	f.StringVar(&b.Password, "nats-password", b.Password, "its password; better given as CO2_NATS_PASSWORD than on the command line")
	f.StringVar(&b.Secret, "nats-password-file", b.Secret, "file with its password")
	f.StringVar(&b.CA, "nats-ca", b.CA, "file with the certificates that the NATS servers' are checked against; empty: the system's")
	f.StringVar(&b.Cert, "nats-cert", b.Cert, "file with this process's certificate for the NATS servers")
	f.StringVar(&b.Key, "nats-key", b.Key, "file with its key")
}

func (c *Config) bindDelivery(f *flagSet) {
	d := &c.Delivery
	f.DurationVar(&d.NotifyTimeout, "notify-timeout", d.NotifyTimeout, "time for one notify call")
	f.DurationVar(&d.RetryBase, "retry-base", d.RetryBase, "longest pause after a first failed call; it doubles with each further one")
	f.DurationVar(&d.RetryCap, "retry-cap", d.RetryCap, "longest pause after any number of failed calls")
	f.DurationVar(&d.IdleTimeout, "notify-idle-timeout", d.IdleTimeout, "time that an unused connection to a satellite is kept")
	f.IntVar(&d.Connections, "connections", d.Connections, "open connections to satellites")
	f.IntVar(&d.Loops, "loops", d.Loops, "event loops, each on one core")
	f.IntVar(&d.Behind, "behind", d.Behind, "satellites of one loop that catch up at the same time")
	f.IntVar(&d.RingBytes, "ring-bytes", d.RingBytes, "memory in bytes for the newest messages")
	f.IntVar(&d.CacheBytes, "cache-bytes", d.CacheBytes, "memory in bytes for older messages that satellites behind are reading")
}

func (c *Config) bindPinger(f *flagSet) {
	p := &c.Pinger
	f.DurationVar(&p.Interval, "ping-interval", p.Interval, "time between two pings of a satellite")
	f.DurationVar(&p.Timeout, "ping-timeout", p.Timeout, "time for one ping")
	f.IntVar(&p.Concurrency, "ping-concurrency", p.Concurrency, "pings under way at the same time")
	f.daysVar(&p.ForgetAfter, "forget-after", "time after which a satellite that could not be reached is deregistered, for example 7d; 0: never")
}

func (c *Config) bindFrontend(f *flagSet) {
	fe := &c.Frontend
	f.BoolVar(&fe.AnySender, "any-sender", fe.AnySender, "let a relay call come from another address than its host_id's")
	f.StringSliceVar(&fe.TrustedProxies, "trusted-proxies", fe.TrustedProxies, "networks, addresses or host names of load balancers whose PROXY protocol header is believed, for example 10.0.0.0/8,haproxy")
	f.StringVar(&fe.TLSCert, "tls-cert", fe.TLSCert, "file with the certificate to serve https with, read anew when it changes; empty: plain http")
	f.StringVar(&fe.TLSKey, "tls-key", fe.TLSKey, "file with its key")
	f.StringSliceVar(&fe.Origins, "origins", fe.Origins, "further origins whose web pages may call the relay")
	f.StringVar(&fe.RegisterPass, "register-pass", fe.RegisterPass, "secret that satellites must give as register_pass; empty: none")
	f.Float64Var(&fe.RateLimit, "rate-limit", fe.RateLimit, "relay calls a second of one satellite, counted by each frontend for itself; 0: no limit")
	f.IntVar(&fe.RateBurst, "rate-burst", fe.RateBurst, "relay calls of one satellite at once; 0: as many as --rate-limit")
	f.DurationVar(&fe.PublishTimeout, "publish-timeout", fe.PublishTimeout, "time after which a relay call of unknown outcome is answered 'may have been accepted'")
	f.DurationVar(&fe.DrainDelay, "drain-delay", fe.DrainDelay, "time to go on serving, not ready, after a stop signal")
	f.DurationVar(&fe.DrainTimeout, "drain-timeout", fe.DrainTimeout, "time for calls under way to finish then")
	f.BoolVar(&fe.Web, "web", fe.Web, "answer browsers with the web interface")
	f.BoolVar(&fe.ShowBodies, "show-bodies", fe.ShowBodies, "let the web interface show what is relayed to everybody who can open it")
	f.sizeVar(&fe.MaxBody, "max-body", "size of a call")
	f.sizeVar(&fe.MaxInflated, "max-inflated", "size of a compressed call when inflated")
	f.IntVar(&fe.MaxDepth, "max-depth", fe.MaxDepth, "nesting of arrays and structs in a call")
	f.IntVar(&fe.MaxValues, "max-values", fe.MaxValues, "number of values in a call")
	f.IntVar(&fe.MaxName, "max-name", fe.MaxName, "bytes of a member's name")
	f.sizeVar(&fe.MaxAnswer, "max-answer", "size of an answer")
	f.sizeVar(&fe.BodyBudget, "body-budget", "memory for the bodies of all calls together")
	f.IntVar(&fe.MaxHeader, "max-header", fe.MaxHeader, "bytes of a request's headers")
	f.DurationVar(&fe.HeaderTimeout, "header-timeout", fe.HeaderTimeout, "time for a request's headers")
	f.DurationVar(&fe.BodyTimeout, "body-timeout", fe.BodyTimeout, "time for a request's body")
	f.DurationVar(&fe.IdleTimeout, "idle-timeout", fe.IdleTimeout, "time that an unused connection is kept")
	f.IntVar(&fe.MaxConns, "max-conns", fe.MaxConns, "connections of all clients; 0: as the limit of open files allows")
	f.IntVar(&fe.MaxSatsPerAddr, "max-sats-per-addr", fe.MaxSatsPerAddr, "satellites that one address may register; 0: as many as there is room for")
	f.IntVar(&fe.MaxConnsPerAddr, "max-conns-per-addr", fe.MaxConnsPerAddr, "connections of one address")
	f.StringVar(&fe.Author, "author", fe.Author, "shown as co2_author")
	f.StringVar(&fe.Maintainer, "maintainer", fe.Maintainer, "who runs this relay, shown in its properties")
	f.StringVar(&fe.MaintainerEmail, "maintainer-email", fe.MaintainerEmail, "how to reach them")
}

func (c Config) logger(w io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name: "co2relay", Level: hclog.LevelFromString(c.LogLevel), Output: w, JSONFormat: c.LogJSON,
	})
}

// processName tells this process from others.
func processName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "host"
	}
	return fmt.Sprintf("%s-%d", host, os.Getpid())
}
