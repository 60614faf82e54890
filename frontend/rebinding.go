package frontend

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
)

// Rebound tells whether a request was sent to this machine's loopback address by
// a name that is none of this machine's. A web page can give its own name any
// address once a browser has loaded it, and its script may then read what only
// programs here should (DNS rebinding). Names without a dot are this network's:
// nobody outside can give them an address. allowed are further names, in lower
// case.
func Rebound(r *http.Request, local net.Addr, allowed map[string]bool) bool {
	if !addrOf(local).IsLoopback() {
		return false
	}
	name := r.Host
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	name = strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
	if _, err := netip.ParseAddr(name); err == nil || !strings.Contains(name, ".") || strings.HasSuffix(name, ".localhost") || allowed[name] {
		return false
	}
	own, err := os.Hostname()
	return err != nil || !strings.EqualFold(name, own)
}
