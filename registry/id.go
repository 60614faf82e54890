package registry

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/co2relay/co2relay/cluster"
)

// ID is a satellite's host id, "<ip>:<port>" with IPv6 in brackets, always in
// the one normal form that MakeID gives: so two IDs name the same satellite
// exactly when they are equal strings.
type ID string

// ErrBadAddress says that an address cannot be a satellite's: nobody could
// be called back at it.
var ErrBadAddress = errors.New("not a satellite's address")

// Lengths in bytes of an id's binary form: the address followed by the port.
const (
	idLen4 = 4 + 2
	idLen6 = 16 + 2
)

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// Normalise gives the one form of an address under which a satellite is
// known: an IPv4-mapped address is IPv4, and any loopback address is
// 127.0.0.1, because ::1, 127.0.0.1 and 127.0.1.1 are the same machine and
// which of them a caller arrives from is an accident of its resolver.
// The error is ErrBadAddress for a port 0, an address with a zone (it means
// something only on the machine that said it), and one that names no single
// host.
func Normalise(a netip.AddrPort) (netip.AddrPort, error) {
	ip := a.Addr().Unmap()
	switch {
	case !ip.IsValid():
		return netip.AddrPort{}, fmt.Errorf("address %s: %w", a, ErrBadAddress)
	case a.Port() == 0:
		return netip.AddrPort{}, fmt.Errorf("address %s: port 0: %w", a, ErrBadAddress)
	case ip.Zone() != "":
		return netip.AddrPort{}, fmt.Errorf("address %s: link-local with a zone, use a global one: %w", a, ErrBadAddress)
	case ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.AddrPort{}, fmt.Errorf("address %s: names no single host: %w", a, ErrBadAddress)
	case ip.IsLoopback():
		ip = loopback
	}
	return netip.AddrPortFrom(ip, a.Port()), nil
}

// MakeID gives the id of the satellite at an address, or "" where Normalise
// refuses the address.
func MakeID(a netip.AddrPort) ID {
	n, err := Normalise(a)
	if err != nil {
		return ""
	}
	return ID(n.String())
}

// ParseID reads a host id as a caller wrote it. It is strict about the
// syntax (no names, no brackets around IPv4, no leading zeros) and gives the
// normal form. The error is ErrBadAddress.
func ParseID(s string) (ID, netip.AddrPort, error) {
	if len(s) > len("[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535") {
		return "", netip.AddrPort{}, fmt.Errorf("host id of %d bytes: %w", len(s), ErrBadAddress)
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return "", netip.AddrPort{}, fmt.Errorf("host id %q: not <ip>:<port>: %w", s, ErrBadAddress)
	}
	if !strings.HasSuffix(s, ":"+strconv.Itoa(int(a.Port()))) {
		return "", netip.AddrPort{}, fmt.Errorf("host id %q: port not in plain decimal: %w", s, ErrBadAddress)
	}
	if a, err = Normalise(a); err != nil {
		return "", netip.AddrPort{}, fmt.Errorf("host id %q: %w", s, err)
	}
	return ID(a.String()), a, nil
}

// Addr gives the address of a normal id, the zero AddrPort of anything else.
func (id ID) Addr() netip.AddrPort {
	a, err := netip.ParseAddrPort(string(id))
	if err != nil {
		return netip.AddrPort{}
	}
	return a
}

// Key is the id as a key of a KV bucket, in which 'host:port' is not valid:
// the address and the port in network order, in lower-case hex (12 digits
// for IPv4, 36 for IPv6). It is "" for a string that is not an id.
func (id ID) Key() string {
	b, ok := id.appendBinary(make([]byte, 0, idLen6))
	if !ok {
		return ""
	}
	return hex.EncodeToString(b)
}

// parseKey is the reverse of Key.
func parseKey(key string) (ID, netip.AddrPort, error) {
	var buf [idLen6]byte
	if len(key) != 2*idLen4 && len(key) != 2*idLen6 {
		return "", netip.AddrPort{}, fmt.Errorf("registration key %q: %w", key, ErrBadAddress)
	}
	n, err := hex.Decode(buf[:], []byte(key))
	if err != nil {
		return "", netip.AddrPort{}, fmt.Errorf("registration key %q: %w", key, ErrBadAddress)
	}
	a, ok := addrFromBinary(buf[:n])
	if !ok {
		return "", netip.AddrPort{}, fmt.Errorf("registration key %q: %w", key, ErrBadAddress)
	}
	return ID(a.String()), a, nil
}

// appendBinary appends the address and the port, 6 or 18 bytes.
func (id ID) appendBinary(b []byte) ([]byte, bool) {
	a := id.Addr()
	if !a.IsValid() {
		return b, false
	}
	if a.Addr().Is4() {
		ip := a.Addr().As4()
		b = append(b, ip[:]...)
	} else {
		ip := a.Addr().As16()
		b = append(b, ip[:]...)
	}
	return append(b, byte(a.Port()>>8), byte(a.Port())), true
}

// addrFromBinary is the reverse of appendBinary. It refuses what is not in
// normal form, so that one satellite cannot stand under two keys.
func addrFromBinary(b []byte) (netip.AddrPort, bool) {
	if len(b) != idLen4 && len(b) != idLen6 {
		return netip.AddrPort{}, false
	}
	ip, _ := netip.AddrFromSlice(b[:len(b)-2])
	a := netip.AddrPortFrom(ip, uint16(b[len(b)-2])<<8|uint16(b[len(b)-1]))
	n, err := Normalise(a)
	return a, err == nil && n == a
}

// Partition is the partition that delivers to this satellite and pings it.
func (id ID) Partition() int { return cluster.PartitionOf(string(id)) }
