package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// dirLock keeps a second process out of a data directory: JetStream itself locks nothing, and two servers on one store
// destroy it. The kernel drops the lock when the process ends, however it ends.
type dirLock struct{ file *os.File }

func lockDir(dir string) (*dirLock, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory %s: %w", dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock data directory %s: %w by process %s: stop that one, or use another directory", dir, ErrLocked, holder(f))
		}
		return nil, fmt.Errorf("lock data directory %s: %w", dir, err)
	}
	l := &dirLock{file: f}
	if err := l.sign(); err != nil {
		l.release()
		return nil, fmt.Errorf("lock data directory %s: %w", dir, err)
	}
	return l, nil
}

// sign writes our process id into the file, for whoever finds it locked.
func (l *dirLock) sign() error {
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	_, err := l.file.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}

func holder(f *os.File) string {
	b := make([]byte, 32)
	n, err := f.ReadAt(b, 0)
	if s := strings.TrimSpace(string(b[:n])); s != "" && (err == nil || errors.Is(err, io.EOF)) {
		return s
	}
	return "unknown"
}

// release lets others in. The file stays: removing it would let two processes lock two files of one name.
func (l *dirLock) release() {
	if l != nil && l.file != nil {
		l.file.Close()
		l.file = nil
	}
}
