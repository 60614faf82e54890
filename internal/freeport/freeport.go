// Package freeport finds ports for tests and measurements that have to tell a
// process its port before that one listens on it.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// Below the ports that systems give to connections and to listeners on port 0
// (Linux: from 32768): one of those would be taken by somebody in between, or
// while its owner restarts.
const first, end = 10_000, 30_000

var (
	mu    sync.Mutex
	given = make(map[int]bool)
)

// Find gives a port on which nobody listens, at any address, and which it has
// not given before to this process.
func Find() (int, error) {
	mu.Lock()
	defer mu.Unlock()
	for range 1000 {
		port := first + rand.IntN(end-first)
		if given[port] {
			continue
		}
		given[port] = true
		if ln, err := net.Listen("tcp", fmt.Sprint(":", port)); err == nil {
			return port, ln.Close()
		}
	}
	return 0, errors.New("find a free port: none after 1000 tries")
}

// FindAddr gives a port as Find does, with the address 127.0.0.1.
func FindAddr() (string, error) {
	port, err := Find()
	return fmt.Sprint("127.0.0.1:", port), err
}

// Port is Find for a test, which ends if there is no port.
func Port(t testing.TB) int {
	t.Helper()
	port, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Addr is Port with the address 127.0.0.1.
func Addr(t testing.TB) string {
	t.Helper()
	return fmt.Sprint("127.0.0.1:", Port(t))
}
