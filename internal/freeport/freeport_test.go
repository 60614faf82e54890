package freeport_test

import (
	"net"
	"testing"

	"github.com/co2relay/co2relay/internal/freeport"
)

func TestEachPortIsGivenOnceAndIsFree(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for range 200 {
		addr := freeport.Addr(t)
		if seen[addr] {
			t.Errorf("%s was given twice", addr)
		}
		seen[addr] = true
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Errorf("got %s, want one that is free: %v", addr, err)
			continue
		}
		ln.Close()
	}
}
