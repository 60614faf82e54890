package cluster

import "time"

// clock is what leases are measured by. It never steps, and where the system can say so it goes on while the machine
// sleeps: a worker that slept must find its lease over when it wakes. Tests bring their own.
type clock interface {
	now() time.Duration // since some start of its own
	// soon is now for little: never behind it, and ahead by a moment at most. A lease that is good by it is good.
	soon() time.Duration
	// after fires once, d later; stop frees it earlier.
	after(d time.Duration) (fired <-chan time.Time, stop func())
}

// systemClock is the machine's.
type systemClock struct{}

func (systemClock) now() time.Duration  { return bootTime() }
func (systemClock) soon() time.Duration { return bootTimeSoon() }

func (systemClock) after(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

var processStart = time.Now()

func monotonic() time.Duration { return time.Since(processStart) }
