package frontend

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// resolveEvery is how old the addresses of a proxy's name get.
	resolveEvery = 5 * time.Second
	// resolveAgain is how often, at most, a caller from an unknown address makes
	// the names be looked up anew: it may be a proxy that has just started.
	resolveAgain   = 200 * time.Millisecond
	resolveTimeout = time.Second
)

// proxies are the load balancers whose PROXY header is believed: networks, and
// names whose addresses may change.
type proxies struct {
	networks []netip.Prefix
	names    []string
	log      hclog.Logger
	lookup   func(ctx context.Context, name string) ([]netip.Addr, error)

	mu    sync.Mutex
	addrs map[string][]netip.Addr // by name; what was found last stays when a look-up fails
	tried time.Time
	bad   map[string]bool // names whose last look-up failed, so that it is told once
}

// newProxies reads CIDR networks, single addresses and host names.
func newProxies(texts []string, log hclog.Logger) (*proxies, error) {
	p := &proxies{log: log, addrs: make(map[string][]netip.Addr), bad: make(map[string]bool)}
	p.lookup = func(ctx context.Context, name string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	}
	var faults []string
	for _, t := range texts {
		t = strings.TrimSpace(t)
		if a, err := netip.ParseAddr(t); err == nil {
			a = a.Unmap()
			p.networks = append(p.networks, netip.PrefixFrom(a, a.BitLen()))
		} else if n, err := netip.ParsePrefix(t); err == nil {
			p.networks = append(p.networks, n.Masked())
		} else if isHostName(t) {
			p.names = append(p.names, t)
		} else if t != "" {
			faults = append(faults, fmt.Sprintf("%q is neither an address nor a network like 10.0.0.0/8 nor a host name", t))
		}
	}
	if faults != nil {
		return nil, fmt.Errorf("%s", strings.Join(faults, "; "))
	}
	return p, nil
}

// isHostName tells a name of the DNS (RFC 1123, and underscores, which
// container engines use) from a mistyped address.
func isHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	letter := false
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range label {
			switch {
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
				letter = true
			case c >= '0' && c <= '9', c == '-', c == '_':
			default:
				return false
			}
		}
	}
	return letter
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// trusts tells whether a header from this address is believed. Names are looked
// up anew when an unknown address calls: a proxy may have come up under another
// one just now.
func (p *proxies) trusts(ctx context.Context, a netip.Addr) bool {
	if slices.ContainsFunc(p.networks, func(n netip.Prefix) bool { return n.Contains(a) }) {
		return true
	}
	if len(p.names) == 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if known, age := p.known(a), time.Since(p.tried); age < resolveAgain || known && age < resolveEvery {
		return known
	}
	p.resolve(ctx)
	return p.known(a)
}

func (p *proxies) known(a netip.Addr) bool {
	for _, addrs := range p.addrs {
		if slices.Contains(addrs, a) {
			return true
		}
	}
	return false
}

// resolve looks every name up. The caller holds mu.
func (p *proxies) resolve(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	for _, name := range p.names {
		found, err := p.lookup(ctx, name)
		if err != nil {
			if !p.bad[name] {
				p.log.Warn("trusted proxy is looked up later", "name", name, "error", err)
			}
			p.bad[name] = true
			continue
		}
		for i := range found {
			found[i] = found[i].Unmap().WithZone("")
		}
		slices.SortFunc(found, netip.Addr.Compare)
		if !slices.Equal(found, p.addrs[name]) {
			p.log.Info("trusted proxy found", "name", name, "addresses", found)
		}
		p.addrs[name], p.bad[name] = found, false
	}
	p.tried = time.Now()
}
