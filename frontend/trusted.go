package frontend

import (
	"context"
	"errors"
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
	// the names be looked up anew.
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
	wanted   chan struct{} // an unknown address called

	mu    sync.Mutex
	done  chan struct{}           // closed at the end of the look-up that is under way, or comes next
	ended time.Time               // the last one
	addrs map[string][]netip.Addr // by name
	bad   map[string]bool         // names whose last look-up failed, so that it is told once
}

// newProxies reads CIDR networks, single addresses and host names.
func newProxies(texts []string, log hclog.Logger) (*proxies, error) {
	p := &proxies{
		log: log, wanted: make(chan struct{}, 1), done: make(chan struct{}),
		addrs: make(map[string][]netip.Addr), bad: make(map[string]bool),
	}
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

// knows tells whether a header from this address is believed, as far as is
// known now.
func (p *proxies) knows(a netip.Addr) bool {
	if slices.ContainsFunc(p.networks, func(n netip.Prefix) bool { return n.Contains(a) }) {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, addrs := range p.addrs {
		if slices.Contains(addrs, a) {
			return true
		}
	}
	return false
}

// trusts is knows after a new look-up, where the address is unknown and the
// names have not been looked up just now: it may be a proxy's that has just
// come up. It waits as long as follow takes for that.
func (p *proxies) trusts(ctx context.Context, a netip.Addr) bool {
	if len(p.names) == 0 || p.knows(a) {
		return p.knows(a)
	}
	p.mu.Lock()
	done, age := p.done, time.Since(p.ended)
	p.mu.Unlock()
	if age < resolveAgain {
		return p.knows(a) // the look-up may have ended since it was asked
	}
	select {
	case p.wanted <- struct{}{}:
	default:
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
	return p.knows(a)
}

// follow keeps the names' addresses until ctx ends.
func (p *proxies) follow(ctx context.Context) {
	if len(p.names) == 0 {
		return
	}
	for ctx.Err() == nil {
		p.resolve(ctx)
		p.mu.Lock()
		close(p.done)
		p.done, p.ended = make(chan struct{}), time.Now()
		p.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-p.wanted:
		case <-time.After(resolveEvery):
		}
	}
}

// resolve looks all names up at the same time: one that hangs holds up no other.
func (p *proxies) resolve(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, name := range p.names {
		wg.Go(func() {
			found, err := p.lookup(ctx, name)
			p.learn(name, found, err)
		})
	}
}

// learn takes over what a look-up gave; after a failed one what was known stays.
func (p *proxies) learn(name string, found []netip.Addr, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		if !p.bad[name] && !errors.Is(err, context.Canceled) {
			p.log.Warn("trusted proxy is looked up later", "name", name, "error", err)
		}
		p.bad[name] = true
		return
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
