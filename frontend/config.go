package frontend

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

// Config is everything that an operator can set of a frontend. Each field
// names its flag. Sizes are bytes.
type Config struct {
	AnySender      bool          // --any-sender: a relay's host_id need not be of the caller's address
	TrustedProxies []string      // --trusted-proxies: networks (CIDR), addresses or host names that may send a PROXY header
	TLSCert        string        // --tls-cert: file with the certificate for https; "" = plain HTTP
	TLSKey         string        // --tls-key: file with its key
	Origins        []string      // --origins: further origins ("https://relay.example.org") whose pages may POST here
	RegisterPass   string        // --register-pass: shared secret that relay.register asks for; "" = none
	MaxSatsPerAddr int           // --max-sats-per-addr: satellites of one address; 0 = as many as there is room for
	RateLimit      float64       // --rate-limit: relay calls a second of one sender, at this frontend; 0 = no limit
	RateBurst      int           // --rate-burst: relay calls of one sender at once; 0 = as many as RateLimit
	PublishTimeout time.Duration // --publish-timeout: until a message of unknown outcome 'may have been accepted'
	Web            bool          // --web: answer GET with the web interface
	ShowBodies     bool          // --show-bodies: its live flow shows what is relayed

	MaxBody     int64 // --max-body: of a call as sent
	MaxInflated int64 // --max-inflated: of a call inflated
	MaxDepth    int   // --max-depth: nesting of a call's values
	MaxValues   int   // --max-values: number of a call's values
	MaxName     int   // --max-name: a member's or a method's name
	MaxAnswer   int64 // --max-answer: of a call's result
	BodyBudget  int64 // --body-budget: bodies and large answers held at the same time by all calls together

	MaxHeader       int           // --max-header: request line and header together
	HeaderTimeout   time.Duration // --header-timeout: first byte of a request to the end of its header
	BodyTimeout     time.Duration // --body-timeout: for a body, and again for the answer to be taken
	IdleTimeout     time.Duration // --idle-timeout: a kept connection between two requests
	MaxConns        int           // --max-conns: connections in all; 0 = a sixth of the descriptor limit
	MaxConnsPerAddr int           // --max-conns-per-addr: connections of one address

	DrainDelay   time.Duration // --drain-delay: go on serving so long after the stop signal
	DrainTimeout time.Duration // --drain-timeout: for calls in flight to finish then

	Author          string // --author: shown as co2_author
	Maintainer      string // --maintainer
	MaintainerEmail string // --maintainer-email
	Version         string // shown as co2_version; no flag
}

// DefaultConfig is a configuration that is safe on an open network.
func DefaultConfig() Config {
	lim := xmlrpc.DefaultLimits()
	return Config{
		PublishTimeout:  15 * time.Second,
		Web:             true,
		MaxBody:         1 << 20,
		MaxInflated:     int64(lim.Bytes),
		MaxDepth:        lim.Depth,
		MaxValues:       lim.Values,
		MaxName:         lim.Name,
		MaxAnswer:       8 << 20,
		BodyBudget:      64 << 20,
		MaxHeader:       16 << 10,
		HeaderTimeout:   10 * time.Second,
		BodyTimeout:     20 * time.Second,
		IdleTimeout:     2 * time.Minute,
		MaxConnsPerAddr: 1024,
		DrainTimeout:    5 * time.Second,
		Author:          "the co2relay authors",
		Version:         "dev",
	}
}

// Validate reports every fault of the configuration at once, one a line, each
// beginning with its flag's name.
func (c Config) Validate() error {
	var faults []error
	fault := func(flag, format string, args ...any) {
		faults = append(faults, fmt.Errorf("--%s: %s", flag, fmt.Sprintf(format, args...)))
	}
	atLeast := func(flag string, got, least int64) {
		if got < least {
			fault(flag, "%d is too small, use at least %d", got, least)
		}
	}
	positive := func(flag string, d time.Duration) {
		if d <= 0 {
			fault(flag, "%s is not a positive time", d)
		}
	}
	if _, err := newProxies(c.TrustedProxies, nil); err != nil {
		fault("trusted-proxies", "%s", err)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		fault("tls-cert", "goes together with --tls-key")
	}
	for _, o := range c.Origins {
		if _, err := parseOrigin(o); err != nil {
			fault("origins", "%s", err)
		}
	}
	if err := validateRate(c.RateLimit, c.RateBurst); err != nil {
		faults = append(faults, err)
	}
	positive("publish-timeout", c.PublishTimeout)
	positive("header-timeout", c.HeaderTimeout)
	positive("body-timeout", c.BodyTimeout)
	positive("idle-timeout", c.IdleTimeout)
	positive("drain-timeout", c.DrainTimeout)
	if c.DrainDelay < 0 {
		fault("drain-delay", "%s is negative", c.DrainDelay)
	}
	atLeast("max-body", c.MaxBody, 1<<10)
	atLeast("max-inflated", c.MaxInflated, 1<<10)
	atLeast("max-depth", int64(c.MaxDepth), 2)
	atLeast("max-values", int64(c.MaxValues), 16)
	atLeast("max-name", int64(c.MaxName), 64)
	atLeast("max-answer", c.MaxAnswer, 64<<10)
	atLeast("max-header", int64(c.MaxHeader), netHTTPSlop+1<<10)
	atLeast("max-conns-per-addr", int64(c.MaxConnsPerAddr), 1)
	atLeast("max-sats-per-addr", int64(c.MaxSatsPerAddr), 0)
	atLeast("max-conns", int64(c.MaxConns), 0)
	// Half of the budget is for bodies and three eighths for answers; one
	// caller may hold half of either.
	if least := max(8*(c.MaxBody+c.MaxInflated), 6*c.MaxAnswer); c.BodyBudget < least {
		fault("body-budget", "%d is too small for the largest calls and answers, use at least %d", c.BodyBudget, least)
	}
	return errors.Join(faults...)
}

// limits are the codec's limits for a call.
func (c Config) limits() xmlrpc.Limits {
	return xmlrpc.Limits{
		Bytes:  int(max(c.MaxBody, c.MaxInflated)),
		Depth:  c.MaxDepth,
		Values: c.MaxValues,
		Name:   c.MaxName,
	}
}

// parseOrigin reads an origin as browsers send it: scheme, host and port, no path.
func parseOrigin(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil ||
		strings.TrimSuffix(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%q is not an origin like https://relay.example.org", text)
	}
	return strings.ToLower(u.Scheme + "://" + u.Host), nil
}
