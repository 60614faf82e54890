package app

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/co2relay/co2relay/satellite"
)

const checkUsage = `Usage: co2relay check [flags] [URL]

Finds out whether a satellite on this machine could work with the relay at URL:
is the relay reachable, under which address does it see this machine, do its
calls back arrive? To see that, it registers a satellite for a moment, waits for
the ping that a relay sends to every new one, and deregisters. Give --port to
try the port (and its firewall rules) that the real satellite will have. If that
one is registered already, it stays so, and is owed what it was; it has to
register again, which a satellite does when it starts.

Exit codes: 0 all is well; 1 something is wrong, and the output says what and
what to do; 2 wrong use.`

// check is one run of the command.
type check struct {
	guest   *guest
	listen  string // where it listens
	client  *satellite.Client
	out     io.Writer
	timeout time.Duration // of the wait for the ping
	pings   chan string   // their callers' addresses
}

// figuresLag is for how long a failure of the real satellite, from before it was
// taken over, may yet come to the figures, and be taken for one of the guest's.
const figuresLag = 2 * time.Second

// problem is what is wrong, and what to do.
type problem struct{ what, advice string }

func (p *problem) Error() string { return p.what }

// CheckCommand is 'co2relay check'.
func CheckCommand(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	f := newFlagSet("check", checkUsage)
	var t toolFlags
	t.bindTo(f, "off")
	timeout := f.Duration("timeout", 15*time.Second, "time for each step")
	err := f.parse(args)
	switch {
	case err == nil && f.NArg() > 1:
		err = fmt.Errorf("want one URL, and got %d arguments", f.NArg())
	case f.NArg() == 1:
		t.relay = f.Arg(0)
	}
	if err = errors.Join(err, t.validate()); err != nil {
		return usageFault(streams{stdin, stdout, stderr}, f, err)
	}
	client, err := satellite.NewClient(t.relay)
	if err != nil {
		return fail(stderr, "check", err)
	}
	defer client.Close()
	c := &check{client: client, out: stdout, timeout: *timeout, pings: make(chan string, 1)}
	c.guest, err = t.guest(client, stderr, func(cfg *satellite.Config) {
		cfg.Nick, cfg.OnPing, c.listen = cmp.Or(cfg.Nick, "co2relay check"), c.pinged, cfg.Listen
	})
	if err != nil {
		return fail(stderr, "check", err)
	}
	if err := c.run(ctx); err != nil {
		c.say("FAILED", "%v", err)
		var p *problem
		if errors.As(err, &p) && p.advice != "" {
			c.say("what to do", "%s", p.advice)
		}
		return ExitError
	}
	c.say("result", "a satellite on this machine can use this relay")
	return ExitOK
}

func (c *check) say(step, format string, args ...any) {
	fmt.Fprintf(c.out, "%-11s %s\n", step, fmt.Sprintf(format, args...))
}

func (c *check) run(ctx context.Context) error {
	if err := c.reach(ctx); err != nil {
		return err
	}
	began := time.Now()
	if err := c.register(ctx); err != nil {
		return err
	}
	err := c.judge(ctx, began)
	if c.guest.tookOver() {
		c.say("note", "%s", c.guest.warning())
	}
	if e := c.guest.Close(); e != nil {
		c.say("note", "the temporary satellite is still registered: %v", e)
	}
	return err
}

// pinged takes note of the first ping.
func (c *check) pinged(from string) {
	select {
	case c.pings <- from:
	default:
	}
}

// reach calls the relay.
func (c *check) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if _, err := c.client.Call(ctx, "ping"); err != nil {
		return &problem{fmt.Sprintf("the relay at %s cannot be reached: %v", c.client, err), adviceToReach(err)}
	}
	began := time.Now() // the second call: on a connection that stands
	props, err := c.client.Call(ctx, "system.get_properties")
	took := time.Since(began)
	var fault *satellite.Fault
	if err != nil && !errors.As(err, &fault) {
		return &problem{fmt.Sprintf("the relay at %s cannot be reached: %v", c.client, err), adviceToReach(err)}
	}
	version := "of unknown version"
	if p, ok := props.(satellite.Struct); ok {
		if v, ok := p.Get("co2_version"); ok {
			version = fmt.Sprint(v)
		}
	}
	c.say("reach", "%s answers in %.1f ms, co2 %s", c.client, float64(took.Microseconds())/1000, version)
	return nil
}

func adviceToReach(err error) string {
	var dns *net.DNSError
	var fault *satellite.Fault
	var timeout net.Error
	var authority x509.UnknownAuthorityError
	switch {
	case errors.As(err, &dns):
		return "the name is not known: check its spelling, or use the address"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: is the relay running ('co2relay serve'), and is that its port (2003, unless set otherwise)?"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "no way leads to that address from here: check the address and this machine's network"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer came: is the address right, is the machine on, does a firewall in between let the port through?"
	case errors.As(err, &authority), strings.Contains(err.Error(), "x509:"):
		return "its certificate is not one that this machine trusts: add the authority to the system's (or name its file in SSL_CERT_FILE)"
	case strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return "it speaks plain HTTP: use http:// in the URL"
	case errors.As(err, &fault):
		return "it speaks XML-RPC but has no ping: it is probably no co2 relay"
	}
	return "something else than a relay, or a proxy, answers there: check host and port"
}

func (c *check) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	err := c.guest.start(ctx)
	var fault *satellite.Fault
	switch {
	case err == nil:
		c.say("register", "registered as %s", c.guest.ID())
		return nil
	case errors.As(err, &fault):
		return &problem{fmt.Sprintf("the relay refuses to register a satellite: %s", fault.Text),
			"the relay's reason says it; if it wants a secret, ask its operator and set CO2_REGISTER_PASS"}
	case errors.Is(err, syscall.EADDRINUSE):
		return &problem{fmt.Sprintf("port %s is in use: %v", c.listen, err),
			"stop the satellite that has it for the moment, or check with another --port"}
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EADDRNOTAVAIL):
		return &problem{err.Error(), "choose a --port from 1024 on, and a --bind address that this machine has"}
	}
	return &problem{err.Error(), adviceToReach(err)}
}

// judge looks at the address and waits for the ping.
func (c *check) judge(ctx context.Context, began time.Time) error {
	id := c.guest.ID()
	addr, err := netip.ParseAddrPort(id)
	if err != nil {
		return &problem{fmt.Sprintf("the relay gave the host id %q, which is no address and port: %v", id, err), "tell the relay's operator"}
	}
	mine, known := ownAddress(addr.Addr())
	switch {
	case !known:
		c.say("address", "the relay sees this machine as %s", addr.Addr())
	case mine:
		c.say("address", "the relay sees this machine as %s, which is an address of its own", addr.Addr())
	default:
		c.say("address", "the relay sees this machine as %s, which is NOT one of its own addresses: "+
			"a router's or container's address translation, or a proxy, stands between", addr.Addr())
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	poll := time.NewTicker(500 * time.Millisecond)
	defer poll.Stop()
	var before int64 // failures of the real satellite
	if c.guest.tookOver() {
		before, _ = c.failures(ctx, id)
	}
	var failing satellite.Struct
	for {
		select {
		case from := <-c.pings:
			c.say("call back", "the relay's ping arrived from %s, %.1f ms after registering", from, float64(time.Since(began).Microseconds())/1000)
			return nil
		case <-poll.C:
			n, props := c.failures(ctx, id)
			if n <= before || c.guest.tookOver() && time.Since(began) < figuresLag {
				continue
			}
			failing = props
		case <-ctx.Done():
		}
		return &problem{c.whatFailed(addr, failing), c.adviceToCallBack(addr, mine || !known, failing != nil)}
	}
}

// failures is how often the relay has pinged the satellite in vain, and the
// satellite's figures.
func (c *check) failures(ctx context.Context, id string) (int64, satellite.Struct) {
	answer, err := c.client.Call(ctx, "relay.get_satellite_props_raw", id)
	props, ok := answer.(satellite.Struct)
	if err != nil || !ok {
		return 0, nil // asked again soon
	}
	fails, _ := props.Get("ping_fails")
	n, _ := fails.(int64)
	return n, props
}

func (c *check) whatFailed(addr netip.AddrPort, failing satellite.Struct) string {
	if failing == nil {
		return fmt.Sprintf("no ping of the relay arrived at %s within %s, and the relay does not know of one that failed", addr, c.timeout)
	}
	if reason, _ := failing.Get("last_error"); reason != nil && reason != "" {
		return fmt.Sprintf("the relay's call back to %s failed: %v", addr, reason)
	}
	return fmt.Sprintf("the relay's call back to %s failed", addr)
}

func (c *check) adviceToCallBack(addr netip.AddrPort, direct, tried bool) string {
	switch {
	case !direct:
		return fmt.Sprintf("have the router or container forward port %d of %s to this machine (and give both ends: --port, --forwarded-port), "+
			"or run the satellite in the relay's own network", addr.Port(), addr.Addr())
	case c.onLoopbackOnly() && !addr.Addr().IsLoopback():
		return "the satellite listens on this machine's loopback only, where a relay elsewhere cannot call it: leave --bind empty"
	case !tried:
		return "let this machine's firewall accept the port (fix it with --port); if that is so, the relay may be too busy to ping " +
			"or its pinger may be down: try again with a longer --timeout, then ask its operator"
	}
	return fmt.Sprintf("let this machine's firewall, and any between, accept connections from the relay to port %d "+
		"(--port makes it always the same one)", addr.Port())
}

func (c *check) onLoopbackOnly() bool {
	addr, err := netip.ParseAddrPort(c.listen)
	return err == nil && addr.Addr().IsLoopback()
}

// ownAddress reports whether addr belongs to this machine, if that can be
// found out.
func ownAddress(addr netip.Addr) (mine, known bool) {
	if addr.IsLoopback() {
		return true, true
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return false, false
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == addr.Unmap() {
			return true, true
		}
	}
	return false, true
}
