package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go"
)

// Options say which broker to use: exactly one of Server, Dir and URLs.
type Options struct {
	Server *Server  // the embedded one of this process
	Dir    string   // the embedded one of a running `serve`, by its data directory
	URLs   []string // a NATS cluster: nats://, tls://, ws://, wss://

	// What follows goes with URLs only.
	CredsFile, CAFile, CertFile, KeyFile, User, Password string

	Name string // shown by the broker's monitoring; "" is "co2relay"
}

// Cluster is a connection to the broker. It reconnects for ever; what is called while the broker is away waits or fails
// with ErrUnavailable.
type Cluster struct {
	log     hclog.Logger
	server  *Server // nil unless embedded
	nc      *nats.Conn
	bulk    *nats.Conn // followers and batched reads: a flood there must not delay an answer here
	relay   *Log
	events  *eventQueue
	ready   readiness
	tries   tries
	writes  silence     // of publishes
	calls   silence     // of other requests
	left    sync.Map    // when nodes were left for their silence, by URL
	bulkUp  broadcast   // tells followers of a reconnect
	denied  atomic.Bool // the broker's permissions forbid publishing to the log
	forbid  sync.Map    // subjects that they forbid, as far as this connection has tried
	stop    context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	closing sync.Once
}

const (
	connectTimeout = 2 * time.Second
	maxConnectWait = 5 * time.Second
)

// Connect waits for the broker, says so while it does, and gives up only when ctx ends or an option is wrong.
func Connect(ctx context.Context, o Options, log hclog.Logger) (*Cluster, error) {
	if o.Name == "" {
		o.Name = "co2relay"
	}
	c := &Cluster{log: log.Named("cluster"), server: o.Server}
	c.stop, c.cancel = context.WithCancel(context.Background())
	options, err := c.options(o)
	if err != nil {
		c.cancel()
		return nil, err
	}
	if c.nc, err = c.dial(ctx, o, options, ""); err == nil {
		c.bulk, err = c.dial(ctx, o, options, " (reading)")
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	c.relay = newLog(c)
	c.events = newEventQueue(c)
	c.background(c.watchSilence)
	return c, nil
}

// dial connects once, waiting for the broker as long as ctx allows.
func (c *Cluster) dial(ctx context.Context, o Options, options []nats.Option, suffix string) (*nats.Conn, error) {
	urls := strings.Join(o.URLs, ",")
	if urls == "" {
		urls = "nats://127.0.0.1:4222" // never dialled: Server and Dir have their own way
	}
	options = append(options[:len(options):len(options)], nats.Name(o.Name+suffix))
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, maxConnectWait) {
		nc, err := nats.Connect(urls, options...)
		if err == nil {
			return nc, nil
		}
		c.log.Warn("waiting for the broker", "broker", o.Where(), "retry_in", wait.String(), "error", err)
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to broker %s: %w: %w", o.Where(), ctx.Err(), err)
		case <-time.After(wait):
		}
	}
}

// Where names the broker without its credentials.
func (o Options) Where() string {
	switch {
	case o.Server != nil:
		return "embedded"
	case o.Dir != "":
		return filepath.Join(o.Dir, socketName)
	}
	hosts := make([]string, len(o.URLs))
	for i, u := range o.URLs {
		if at := strings.LastIndexByte(u, '@'); at >= 0 {
			u = u[at+1:]
		}
		hosts[i] = u
	}
	return strings.Join(hosts, ",")
}

func (c *Cluster) options(o Options) ([]nats.Option, error) {
	options := []nats.Option{
		nats.Timeout(connectTimeout),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(200 * time.Millisecond),
		nats.ReconnectJitter(200*time.Millisecond, 500*time.Millisecond),
		nats.ReconnectBufSize(-1), // while disconnected fail at once: whoever publishes repeats, and knows that nothing was sent
		nats.IgnoreAuthErrorAbort(),
		nats.PingInterval(10 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(c.disconnected),
		nats.ReconnectHandler(c.reconnected),
		nats.ErrorHandler(c.asyncError),
	}
	given := 0
	for _, is := range []bool{o.Server != nil, o.Dir != "", len(o.URLs) > 0} {
		if is {
			given++
		}
	}
	if given != 1 {
		return nil, errors.New("connect to broker: give an embedded server, a data directory or URLs, and only one of them")
	}
	switch {
	case o.Server != nil:
		return append(options, nats.InProcessServer(o.Server), nats.IgnoreDiscoveredServers()), nil
	case o.Dir != "":
		return append(options, nats.SetCustomDialer(socketDialer(o.Dir)), nats.SkipHostLookup(), nats.IgnoreDiscoveredServers()), nil
	}
	return append(append(options, o.security()...), nats.ReconnectToServer(c.choose)), nil
}

func (o Options) security() []nats.Option {
	var options []nats.Option
	if o.CredsFile != "" {
		options = append(options, nats.UserCredentials(o.CredsFile))
	}
	if o.CAFile != "" {
		options = append(options, nats.RootCAs(o.CAFile))
	}
	if o.CertFile != "" || o.KeyFile != "" {
		options = append(options, nats.ClientCert(o.CertFile, o.KeyFile))
	}
	if o.User != "" || o.Password != "" {
		options = append(options, nats.UserInfo(o.User, o.Password))
	}
	if userToken(o.User) {
		// The broker can keep users from reading each other's answers.
		options = append(options, nats.CustomInboxPrefix("_INBOX."+o.User))
	}
	return options
}

// userToken tells whether a user's name may stand in a subject.
func userToken(user string) bool {
	return user != "" && !strings.ContainsAny(user, ".*> \t\r\n")
}

// socketDialer reaches the server in a data directory, whatever address nats.go has in mind.
type socketDialer string

func (d socketDialer) Dial(string, string) (net.Conn, error) {
	return dialSocket(string(d), connectTimeout)
}

func (c *Cluster) disconnected(nc *nats.Conn, err error) {
	c.tries.end()
	if c.stop.Err() == nil {
		c.log.Warn("lost the broker, reconnecting", "connection", nc.Opts.Name, "error", err)
	}
}

func (c *Cluster) reconnected(nc *nats.Conn) {
	c.bulkUp.send()
	c.denied.Store(false)
	c.forbid.Clear()
	c.log.Info("reconnected to the broker", "connection", nc.Opts.Name, "server", nc.ConnectedServerName())
}

func (c *Cluster) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	if subject, ok := deniedSubject(err); ok {
		c.forbid.Store(subject, true)
		c.denied.CompareAndSwap(false, subject == relaySubject)
		c.tries.end() // what was sent there is never answered
		if strings.HasPrefix(subject, apiPrefix+"STREAM.CREATE.") {
			return // openStream says it better
		}
	}
	if c.stop.Err() == nil {
		subject := ""
		if sub != nil {
			subject = sub.Subject
		}
		c.log.Warn("broker reported a fault", "subject", subject, "error", err)
	}
}

// deniedSubject is the subject that the broker's permissions forbid publishing to, as its error quotes it.
func deniedSubject(err error) (string, bool) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return "", false
	}
	_, subject, _ := strings.Cut(err.Error(), `Publish to "`)
	subject, _, ok := strings.Cut(subject, `"`)
	return subject, ok
}

// Log is the log of relayed messages.
func (c *Cluster) Log() *Log { return c.relay }

// Close ends publishing in order, sends what is buffered and disconnects. Followers end by their own contexts, before.
func (c *Cluster) Close() {
	c.closing.Do(func() {
		c.cancel()
		c.running.Wait()
		for _, nc := range []*nats.Conn{c.nc, c.bulk} {
			if nc == nil {
				continue
			}
			if nc.IsConnected() {
				_ = nc.FlushTimeout(time.Second)
			}
			nc.Close()
		}
	})
}

// go runs fn until Close; fn ends when c.stop does.
func (c *Cluster) background(fn func()) {
	c.running.Add(1)
	go func() {
		defer c.running.Done()
		fn()
	}()
}

// readiness remembers an answer of the broker for a second, so that probes do not become load.
type readiness struct {
	mu  sync.Mutex
	at  time.Time
	err error
}

// Ready is nil when the broker is connected and the log answers and accepts; for health probes.
func (c *Cluster) Ready() error {
	if !c.nc.IsConnected() || !c.bulk.IsConnected() {
		return fmt.Errorf("check broker: %w: not connected", ErrUnavailable)
	}
	if err := c.server.refuse(); err != nil {
		return fmt.Errorf("check broker: %w", err)
	}
	c.ready.mu.Lock()
	defer c.ready.mu.Unlock()
	if time.Since(c.ready.at) < time.Second {
		return c.ready.err
	}
	ctx, cancel := context.WithTimeout(c.stop, time.Second)
	defer cancel()
	_, err := c.streamInfoOnce(ctx, relayStream)
	if err != nil {
		err = fmt.Errorf("check broker: %w", err)
	}
	c.ready.at, c.ready.err = time.Now(), err
	return err
}

// broadcast wakes all who wait for the next of some event.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait gives a channel that the next send closes.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *broadcast) send() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}

func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }

// sleep waits, and tells whether ctx still goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
