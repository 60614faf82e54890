package satellite

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Config of a satellite. Only Relay is required.
type Config struct {
	Relay        string        // the relay's URL, like http://host:2003
	Listen       string        // address to serve notify and ping on; "" = ":0", a free port
	Port         int           // port to register, where the world sees another one than Listen's (port forwarding)
	Nick         string        // shown by the relay; "" = the host id
	Plugins      []string      // names of what the satellite offers; shown by the relay
	NotifyPass   string        // the password that the relay shows with each notify; "" = a random one. A call with another is put off, not refused
	RegisterPass string        // where the relay's operator set one
	MaxAge       time.Duration // of messages that wait for the satellite; older ones are skipped. 0 = as long as the relay keeps them
	TLS          *tls.Config   // serve notify over HTTPS
	TLSName      string        // name in the certificate, as the relay calls back to an address

	// Handler is called for every message, one at a time, in order. Its error
	// is answered as a fault, which the relay counts as received and refused; an
	// error made by Later makes the relay repeat the message instead. Its
	// context ends when the satellite stops. nil: messages are received and
	// dropped, as a satellite that only sends may do.
	Handler func(ctx context.Context, n Notification) error

	// OnPing, if not nil, is called for every ping with the caller's address
	// ("ip:port"), from several goroutines.
	OnPing func(from string)

	Remember      int           // msg_ids whose repeats are recognised; 0 = 1024, negative = none
	CheckInterval time.Duration // between looks whether the relay still knows the satellite, and its password; 0 = 30 s
	StayKnown     bool          // do not deregister at the end: the relay keeps what comes until the satellite is back on the same port
	Logger        hclog.Logger  // nil = silent
}

func (c Config) complete() Config {
	if c.Listen == "" {
		c.Listen = ":0"
	}
	if c.NotifyPass == "" {
		c.NotifyPass = rand.Text()
	}
	if c.Remember == 0 {
		c.Remember = 1024
	}
	if c.CheckInterval <= 0 {
		c.CheckInterval = 30 * time.Second
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	return c
}

// Satellite is one satellite. It is made by New and run once, by Run or by
// Start and Close. Its methods may be called from several goroutines.
type Satellite struct {
	cfg    Config
	client *Client
	log    hclog.Logger

	repeatFor time.Duration // the constant; a test's is shorter

	handling chan struct{} // holds a token while Handler runs
	seen     idSet         // guarded by handling
	stay     atomic.Bool   // do not deregister at the end

	// doubted: a call came with another password. It may be a stranger's or the
	// relay's, so the next check registers instead of asking: no call brings a
	// registration forward, however many there are.
	doubted atomic.Bool

	mu         sync.Mutex
	id         string        // host id; "" while not registered
	times      int           // registrations so far: tells one from the next under the same id
	registered chan struct{} // closed while registered
	forget     chan struct{} // a nudge: the relay said that it does not know us
	listener   net.Listener

	left  chan struct{} // closed when the satellite has deregistered, by end
	end   func()
	stop  context.CancelFunc // Start's
	done  chan struct{}      // Start's: closed when all has ended
	ended error              // how; to be read after done
}

// New checks the configuration and makes a satellite. It does no I/O.
func New(cfg Config) (*Satellite, error) {
	client, err := NewClient(cfg.Relay)
	if err != nil {
		return nil, err
	}
	if cfg.Port < 0 || cfg.Port > 65535 {
		return nil, fmt.Errorf("make satellite: port %d is not within 1..65535", cfg.Port)
	}
	for _, text := range append([]string{cfg.Nick, cfg.NotifyPass, cfg.RegisterPass}, cfg.Plugins...) {
		if checkText(text) != nil {
			return nil, errors.New("make satellite: nick, passwords and plugins must be UTF-8 without control characters")
		}
	}
	cfg = cfg.complete()
	left := make(chan struct{})
	s := &Satellite{
		cfg:        cfg,
		client:     client,
		log:        cfg.Logger,
		repeatFor:  repeatFor,
		handling:   make(chan struct{}, 1),
		seen:       idSet{size: cfg.Remember},
		registered: make(chan struct{}),
		forget:     make(chan struct{}, 1),
		left:       left,
		end:        sync.OnceFunc(func() { close(left) }),
	}
	s.stay.Store(cfg.StayKnown)
	return s, nil
}

// Run serves and keeps the satellite registered until ctx ends, then
// deregisters and returns nil. It waits for a relay that is away or refuses,
// for as long as it takes; it fails only if it cannot listen.
func (s *Satellite) Run(ctx context.Context) error {
	srv, err := s.serve(ctx)
	if err != nil {
		return err
	}
	s.keepRegistered(ctx)
	return s.finish(srv)
}

// Start serves, and returns once the satellite is registered; it then stays so
// until Close. Start waits for a relay that is away until ctx ends, and fails
// with a *Fault if the relay refuses. After an error there is nothing to close.
func (s *Satellite) Start(ctx context.Context) error {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	srv, err := s.serve(life)
	if err != nil {
		stop()
		return err
	}
	if err := s.registerFirst(ctx); err != nil {
		stop()
		return errors.Join(err, s.closePort(srv))
	}
	s.stop, s.done = stop, make(chan struct{})
	go func() {
		defer close(s.done)
		s.keepRegistered(life)
		s.ended = s.finish(srv)
	}()
	return nil
}

// Close ends what Start began: it deregisters, lets a Handler that runs come to
// its end (10 s at most; its context is cancelled) and closes the port. Relay
// fails from then on. A further Close returns what the first one did.
func (s *Satellite) Close() error {
	if s.stop == nil {
		return nil // never started
	}
	s.stop()
	<-s.done
	return s.ended
}

// Stay has the satellite not deregister at its end, as Config.StayKnown does: for
// one that finds out only later that its registration is to stand.
func (s *Satellite) Stay() { s.stay.Store(true) }

// ID is the host id that the relay gave the satellite; "" while it is not
// registered.
func (s *Satellite) ID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// Addr is the address that the satellite listens on; nil before Run or Start.
func (s *Satellite) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// finish deregisters while notify is still served, then closes the port.
func (s *Satellite) finish(srv *http.Server) error {
	var err error
	if !s.stay.Load() {
		err = s.deregister()
	}
	s.setID("")
	s.end()
	return errors.Join(err, s.closePort(srv))
}

func (s *Satellite) closePort(srv *http.Server) error {
	defer s.client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		_ = srv.Close() // what is still running was given its time
		return fmt.Errorf("stop satellite: %w", err)
	}
	return nil
}
