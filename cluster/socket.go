package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const socketName = "nats.sock"

// maxSocketPath is what fits into a socket address everywhere (104 bytes on BSD and macOS, 108 on Linux, less a zero byte).
const maxSocketPath = 100

// unixSocket bridges a Unix socket to in-process connections of the server, so that a tool on the same machine needs
// neither a port nor a password: the socket's mode is 0600.
type unixSocket struct {
	ln     net.Listener
	path   string
	dial   func() (net.Conn, error)
	unhold func()

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup
}

// listenSocket opens dir/nats.sock. A stale one is replaced: the directory's lock says that nobody else serves it.
func listenSocket(dir string, dial func() (net.Conn, error)) (*unixSocket, error) {
	path := filepath.Join(dir, socketName)
	via, unhold, err := shortPath(dir)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	s := &unixSocket{path: path, dial: dial, unhold: unhold, conns: map[net.Conn]struct{}{}}
	if err := s.listen(via); err != nil {
		unhold()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	s.wg.Add(1)
	go s.accept()
	return s, nil
}

// listen binds a temporary name, closes it to others and only then gives it its real name: no moment at which somebody
// else could connect, and a stale socket vanishes in the same step.
func (s *unixSocket) listen(via string) error {
	fresh := filepath.Join(via, socketName+".new")
	if err := os.Remove(fresh); err != nil && !os.IsNotExist(err) {
		return err
	}
	ln, err := new(net.ListenConfig).Listen(context.Background(), "unix", fresh)
	if err != nil {
		return err
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	if err = os.Chmod(fresh, 0o600); err == nil {
		err = os.Rename(fresh, s.path)
	}
	if err != nil {
		ln.Close()
		_ = os.Remove(fresh)
		return err
	}
	s.ln = ln
	return nil
}

func (s *unixSocket) accept() {
	defer s.wg.Done()
	for {
		c, err := s.ln.Accept()
		if err != nil {
			if isClosed(err) {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors: let some close
			continue
		}
		s.bridge(c)
	}
}

// bridge joins c with a new connection into the server; either end closing closes both.
func (s *unixSocket) bridge(c net.Conn) {
	inner, err := s.dial()
	if err != nil || !s.track(c) {
		c.Close()
		if inner != nil {
			inner.Close()
		}
		return
	}
	var once sync.Once
	end := func() { once.Do(func() { c.Close(); inner.Close(); s.untrack(c) }) }
	pipe := func(to, from net.Conn) {
		defer s.wg.Done()
		defer end()
		_, _ = io.Copy(to, from)
	}
	s.wg.Add(2)
	go pipe(inner, c)
	go pipe(c, inner)
}

func (s *unixSocket) track(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *unixSocket) untrack(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// stopListening takes the socket away; connections go on until the server ends them, or wait does.
func (s *unixSocket) stopListening() {
	_ = os.Remove(s.path)
	s.ln.Close()
	s.unhold()
}

// wait closes what is left and returns when nothing of the socket runs any more.
func (s *unixSocket) wait() {
	s.mu.Lock()
	left := s.conns
	s.conns = nil
	s.mu.Unlock()
	for c := range left {
		c.Close()
	}
	s.wg.Wait()
}

// dialSocket connects to the server whose data directory is dir.
func dialSocket(dir string, timeout time.Duration) (net.Conn, error) {
	via, unhold, err := shortPath(dir)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", filepath.Join(dir, socketName), err)
	}
	defer unhold()
	d := net.Dialer{Timeout: timeout}
	c, err := d.DialContext(context.Background(), "unix", filepath.Join(via, socketName))
	if err != nil {
		return nil, fmt.Errorf("connect to the relay in %s (does it run?): %w", dir, err)
	}
	return c, nil
}
