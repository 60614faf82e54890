package cluster

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// shortPath names dir in a way that fits into a socket address: dir itself, or /proc/self/fd/N of the opened directory
// until unhold is called.
func shortPath(dir string) (via string, unhold func(), err error) {
	if len(filepath.Join(dir, socketName+".new")) <= maxSocketPath {
		return dir, func() {}, nil
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("open directory %s: %w", dir, err)
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), func() { unix.Close(fd) }, nil
}
