package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sys/unix"
)

const (
	diskCheckEvery = 500 * time.Millisecond
	restartPause   = 5 * time.Second // between restarts
)

// WatchDisk keeps the broker out of trouble with its disk until ctx ends (nil). With less than minFree bytes free the log
// refuses messages (ErrShortOfDisk), before JetStream meets a write error: after one, JetStream refuses for ever, also
// when space is free again (seen). Should it happen all the same, the server is restarted as soon as there is space.
func (s *Server) WatchDisk(ctx context.Context, minFree uint64) error {
	s.minF.Store(minFree)
	restarts, again := 0, time.Time{}
	for {
		free, err := diskFree(s.cfg.Dir)
		if err != nil {
			s.log.Warn("cannot tell how much disk space is free", "directory", s.cfg.Dir, "error", err)
		} else {
			s.noteFree(free, minFree)
		}
		if s.broken() && (err != nil || free >= minFree) && time.Now().After(again) {
			restarts++
			again = time.Now().Add(restartPause)
			s.log.Error("restarting the broker after a write error", "directory", s.cfg.Dir, "restarts", restarts)
			if err := s.Restart(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("cannot restart the broker, trying again", "error", err)
			}
		}
		if !sleep(ctx, diskCheckEvery) {
			return nil
		}
	}
}

func (s *Server) noteFree(free, minFree uint64) {
	was := s.short.Load()
	switch {
	case free < minFree:
		s.short.Store(int64(free))
		if was < 0 {
			s.log.Error("short of disk space, relays are refused: free some, or lower --min-free",
				"directory", s.cfg.Dir, "free_bytes", free, "wanted_bytes", minFree)
		}
	case was >= 0:
		s.short.Store(-1)
		s.log.Info("enough disk space again", "directory", s.cfg.Dir, "free_bytes", free)
	}
}

// broken tells whether the server needs a restart, and notes it: a stream or JetStream itself met a write error.
func (s *Server) broken() bool {
	s.mu.Lock()
	ns, closed := s.nats, s.closed
	s.mu.Unlock()
	if closed {
		return false
	}
	bad := ns == nil || !ns.JetStreamEnabled() || hasWriteError(ns)
	if bad && !s.failed.Swap(true) {
		s.log.Error("the broker could not write to its store", "directory", s.cfg.Dir)
	}
	return bad
}

// hasWriteError asks nats-server's health check, which reports a stream whose store has failed.
func hasWriteError(ns *server.Server) bool {
	for _, e := range ns.Healthz(&server.HealthzOptions{Details: true}).Errors {
		if strings.Contains(e.Error, "write error") {
			return true
		}
	}
	return false
}

// diskFree is the space left for unprivileged writers, in bytes.
func diskFree(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("ask for free space of %s: %w", dir, err)
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil //nolint:unconvert // their types differ between systems
}
