package pinger

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"

	"github.com/co2relay/co2relay/internal/caller"
)

var errOversized = errors.New("the answer is too long")

// cause is why a ping failed: a metric's label, and what an operator should
// look at.
type cause struct{ kind, likely string }

// explain tells what a failed call means, and in words: the address that was
// tried, the error, and the likely cause.
func explain(addr netip.AddrPort, err error) (kind, reason string) {
	c := causeOf(err)
	return c.kind, words(addr, err, c)
}

// explainAnswer is explain for an answer that is HTTP but not XML-RPC.
func explainAnswer(addr netip.AddrPort, status int, err error) string {
	c := cause{resultNotXMLRPC, fmt.Sprintf("it answers with status %d but not in XML-RPC: another server listens there, or it serves XML-RPC at another path than /RPC2", status)}
	return words(addr, err, c)
}

func words(addr netip.AddrPort, err error, c cause) string {
	reason := fmt.Sprintf("ping %s: %v", addr, err)
	if c.likely != "" {
		reason += "; " + c.likely
	}
	if looksTranslated(addr.Addr()) && c.kind != resultTLS {
		reason += "; the address looks like a gateway of address translation (as Docker's): the satellite's calls come through it, " +
			"but calls to it do not reach the satellite; run the relay in the satellite's network, or publish its port there"
	}
	return reason
}

func causeOf(err error) cause {
	var op *net.OpError
	dialling := errors.As(err, &op) && op.Op == "dial"
	switch {
	case isLocal(err):
		return cause{resultLocal, ""}
	case errors.Is(err, syscall.ECONNREFUSED):
		return cause{resultRefused, "nothing listens there"}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return cause{resultNoRoute, "there is no route to this address from here"}
	case isTimeout(err) && dialling:
		return cause{resultTimeout, "nothing answers: a firewall drops the connection, the machine is off, or the satellite is behind address translation"}
	case isTimeout(err):
		return cause{resultTimeout, "it took the connection but did not answer in time: it hangs, or serves one connection at a time and another one is open"}
	case isTLS(err):
		return cause{resultTLS, "its certificate is not accepted, or it does not speak TLS there"}
	case errors.Is(err, caller.ErrNotHTTP), errors.Is(err, caller.ErrHead), errors.Is(err, caller.ErrChunk):
		return cause{resultNotHTTP, "another kind of server listens there, or it expects TLS (register it with scheme https)"}
	case errors.Is(err, caller.ErrTruncated), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF):
		return cause{resultBroken, "the connection broke before the answer was complete"}
	}
	return cause{resultOther, ""}
}

// isLocal tells whether this machine could not even try.
func isLocal(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

func isTLS(err error) bool {
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var verify *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &record) || errors.As(err, &alert) || errors.As(err, &verify) ||
		errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid)
}

// looksTranslated tells whether an address is one that the gateways of
// container networks and virtual machines usually have: the first of a private
// network (Docker's 172.17.0.1, Podman's 10.88.0.1), or a fixed one of Docker
// Desktop or QEMU.
func looksTranslated(a netip.Addr) bool {
	if !a.Is4() || !a.IsPrivate() {
		return a.Is6() && a.IsPrivate() && a.As16()[15] == 1
	}
	b := a.As4()
	return b[3] == 1 || b == [4]byte{10, 0, 2, 2} || [3]byte(b[:3]) == [3]byte{192, 168, 65}
}
