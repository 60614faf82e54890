//go:build !linux

package cluster

import "time"

// bootTime is the monotonic clock, which stands still during suspend: on these systems a worker that slept may make calls
// for as long as its lease was still good when it fell asleep.
func bootTime() time.Duration { return monotonic() }

func bootTimeSoon() time.Duration { return monotonic() }
