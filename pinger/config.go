package pinger

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"
)

// Config is what an operator can set of a pinger.
type Config struct {
	Name        string        // this pinger's name, shown in events
	Sole        bool          // no other pinger can exist: the data directory is locked
	Interval    time.Duration // between two pings of a satellite that answers
	Timeout     time.Duration // of one ping, connecting included
	Concurrency int           // pings under way at the same time; half of them at most for satellites that fail
	ForgetAfter time.Duration // a satellite that was unreachable for so long is deregistered; 0: never
	TLS         *tls.Config   // for satellites that register https; nil: the system's roots

	pingedLately time.Duration // a registration and its hint, within it, ask for one ping
}

// DefaultConfig fits 100,000 satellites.
func DefaultConfig() Config {
	return Config{
		Interval: time.Minute, Timeout: 5 * time.Second, Concurrency: 256, ForgetAfter: 7 * 24 * time.Hour,
		pingedLately: time.Second,
	}
}

// Validate reports every fault at once, each by its flag's name.
func (c Config) Validate() error {
	var errs []error
	if c.Interval <= 0 {
		errs = append(errs, fmt.Errorf("--ping-interval: %s must be more than 0", c.Interval))
	}
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("--ping-timeout: %s must be more than 0", c.Timeout))
	}
	if c.Concurrency < 2 {
		errs = append(errs, fmt.Errorf("--ping-concurrency: %d must be at least 2", c.Concurrency))
	}
	if c.ForgetAfter < 0 {
		errs = append(errs, fmt.Errorf("--forget-after: %s must not be negative", c.ForgetAfter))
	}
	return errors.Join(errs...)
}
