//go:build !linux

package cluster

import (
	"fmt"
	"path/filepath"
)

// shortPath names dir in a way that fits into a socket address. Only Linux can shorten a long one.
func shortPath(dir string) (via string, unhold func(), err error) {
	path := filepath.Join(dir, socketName+".new")
	if len(path) > maxSocketPath {
		return "", nil, fmt.Errorf("path of %d bytes is too long for a socket, %d fit: choose a shorter data directory", len(path), maxSocketPath)
	}
	return dir, func() {}, nil
}
