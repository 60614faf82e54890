package delivery

import (
	"errors"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/co2relay/co2relay/internal/caller"
)

// conn is a connection to a satellite. It carries one call at a time.
type conn struct {
	fd         int
	stamp      int32 // tells this connection from an earlier one with its descriptor
	lane       *lane
	place      place
	parser     caller.Parser
	connecting bool
	busy       bool
	reused     bool // has carried a call before this one
	twin       bool // to [::1] instead of 127.0.0.1
	triedTwin  bool
	half       bool // the satellite has closed its side
	pending    [][]byte
	usedAt     int64
	prev, next *conn // in the list of unused ones
}

// connect begins to open a connection; its end is an event.
func connect(addr netip.AddrPort) (int, error) {
	family, sa := unix.AF_INET, unix.Sockaddr(nil)
	if addr.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	} else {
		family = unix.AF_INET6
		sa = &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err := unix.Connect(fd, sa); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// write and read are the two system calls of a delivery. On a non-blocking
// socket they never wait, so the scheduler need not be told of them.
func write(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func read(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// connList holds unused connections, the one unused for longest first.
type connList struct{ oldest, newest *conn }

func (q *connList) add(c *conn) {
	c.prev, c.next = q.newest, nil
	if q.newest != nil {
		q.newest.next = c
	} else {
		q.oldest = c
	}
	q.newest = c
}

func (q *connList) remove(c *conn) {
	if c.prev != nil {
		c.prev.next = c.next
	} else if q.oldest == c {
		q.oldest = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else if q.newest == c {
		q.newest = c.prev
	}
	c.prev, c.next = nil, nil
}
