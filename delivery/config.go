// Package delivery calls the satellites: it reads the log once, keeps a cursor
// (a lane) for each satellite, and writes down how far each one is. DESIGN.md
// states the guarantee and what happens at every failure.
package delivery

import (
	"crypto/tls"
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"time"
)

// Config is what an operator can set of a delivery worker.
type Config struct {
	Name          string        // this worker's name among the others, unique
	Sole          bool          // no other worker can exist: the data directory is locked
	NotifyTimeout time.Duration // of one whole notify call
	RetryBase     time.Duration // the first pause after a failure, before jitter
	RetryCap      time.Duration // the longest pause after failures
	IdleTimeout   time.Duration // an unused connection is closed after it
	RingBytes     int           // memory for the newest messages
	CacheBytes    int           // memory for older messages that lanes behind are reading
	Behind        int           // lanes of one loop that catch up at the same time
	Connections   int           // open connections to satellites
	Loops         int           // event loops, each on one core
	TLS           *tls.Config   // for satellites that register https

	stopPatience    time.Duration // for calls under way when the worker stops: promise 3 gives it
	figuresPatience time.Duration // for a partition's figures when it is released; nobody waits but a worker that stops
}

// DefaultConfig fits a machine that has the relay for itself.
func DefaultConfig() Config {
	return Config{
		NotifyTimeout: 10 * time.Second,
		RetryBase:     500 * time.Millisecond,
		RetryCap:      time.Minute,
		IdleTimeout:   5 * time.Second,
		RingBytes:     32 << 20,
		CacheBytes:    64 << 20,
		Behind:        64,
		Connections:   connectionBudget(),
		Loops:         min(runtime.GOMAXPROCS(0), 16),
		stopPatience:  500 * time.Millisecond,

		figuresPatience: 500 * time.Millisecond,
	}
}

// connectionBudget is 80% of the descriptors that this process may open; the
// rest is left to clients, the broker and its files.
func connectionBudget() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 800
	}
	return int(min(limit.Cur, 1<<20) * 8 / 10)
}

// Validate reports every fault at once, each by its flag's name.
func (c Config) Validate() error {
	var errs []error
	positive := func(flag string, v int64) {
		if v <= 0 {
			errs = append(errs, fmt.Errorf("--%s: must be more than 0", flag))
		}
	}
	positive("notify-timeout", int64(c.NotifyTimeout))
	positive("retry-base", int64(c.RetryBase))
	positive("idle-timeout", int64(c.IdleTimeout))
	positive("ring-bytes", int64(c.RingBytes))
	positive("cache-bytes", int64(c.CacheBytes))
	positive("behind", int64(c.Behind))
	positive("loops", int64(c.Loops))
	if c.RetryCap < c.RetryBase {
		errs = append(errs, errors.New("--retry-cap: must not be less than --retry-base"))
	}
	if c.Connections < c.Loops*8 {
		errs = append(errs, fmt.Errorf("--connections: must be at least %d; raise the limit of open files (ulimit -n)", c.Loops*8))
	}
	return errors.Join(errs...)
}
