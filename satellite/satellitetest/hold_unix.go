//go:build unix

package satellitetest

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// heldPort is a port that is bound and not listened on: connections to it are
// refused, and the kernel gives it to nobody else's connection as its own end.
type heldPort struct{ fd int }

func holdPort(addr netip.AddrPort) (*heldPort, error) {
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()})
	if ip := addr.Addr().Unmap(); ip.Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: ip.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	unix.CloseOnExec(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set SO_REUSEADDR: %w", err)
	}
	if err := unix.Bind(fd, sa); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind: %w", err)
	}
	return &heldPort{fd}, nil
}

// listen turns the port into a listener; the heldPort is used up.
func (h *heldPort) listen() (net.Listener, error) {
	f := os.NewFile(uintptr(h.fd), "satellitetest")
	defer f.Close()
	if err := unix.Listen(h.fd, 512); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return net.FileListener(f)
}

func (h *heldPort) close() { unix.Close(h.fd) }
