package cluster

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// bootTime reads CLOCK_BOOTTIME, which unlike the clock behind time.Since goes on during suspend. It takes a system call.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return monotonic() // only a kernel before 2.6.39 lacks it, and then for every call
	}
	return time.Duration(ts.Nano())
}

// A reading of all clocks. Until the machine sleeps, CLOCK_BOOTTIME goes on as the monotonic clock does, and Go reads that
// one and the wall clock without a system call. Sleep moves the wall clock against the monotonic one.
type reading struct{ mono, wall, boot time.Duration }

const (
	readAgainAfter = 100 * time.Millisecond // a wall clock set back by just what the sleep took is found out then
	shortestSleep  = time.Millisecond
)

var lastReading atomic.Pointer[reading]

// bootTimeSoon is bootTime for a fifth of its cost: never behind it, and ahead by no more than this goroutine stood still
// between two lines of it.
func bootTimeSoon() time.Duration {
	t := time.Now()
	mono, wall := t.Sub(processStart), time.Duration(t.UnixNano())
	if r := lastReading.Load(); r != nil {
		passed := mono - r.mono
		if passed < readAgainAfter && (wall-r.wall-passed).Abs() < shortestSleep {
			return r.boot + passed
		}
	}
	r := &reading{mono, wall, bootTime()} // boot last: it must not be behind
	lastReading.Store(r)
	return r.boot
}
