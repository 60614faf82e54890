package cluster

import (
	"sync"
	"testing"
	"time"
)

func TestTheCheapClockIsNeverBehind(t *testing.T) {
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 200_000 {
				if exact, soon := bootTime(), bootTimeSoon(); soon < exact {
					t.Errorf("the cheap clock is %s behind", exact-soon)
					return
				}
			}
		})
	}
	all.Wait()
}

func TestTheCheapClockNoticesThatTheMachineSlept(t *testing.T) {
	for name, slept := range map[string]time.Duration{"moment": 2 * time.Millisecond, "hour": time.Hour} {
		bootTimeSoon()
		// As if the wall clock and the one of the system's start had gone on since, and the monotonic one not.
		r := *lastReading.Load()
		r.wall -= slept
		r.boot -= slept
		lastReading.Store(&r)
		if exact, soon := bootTime(), bootTimeSoon(); soon < exact {
			t.Errorf("%s: the cheap clock is %s behind", name, exact-soon)
		}
	}
	// The wall clock was set back by what the sleep took: found out soon after.
	r := *lastReading.Load()
	r.boot -= time.Hour
	lastReading.Store(&r)
	time.Sleep(readAgainAfter)
	if exact, soon := bootTime(), bootTimeSoon(); soon < exact {
		t.Errorf("after %s the cheap clock is still %s behind", readAgainAfter, exact-soon)
	}
}

func BenchmarkBootTime(b *testing.B) {
	b.Run("exact", func(b *testing.B) {
		for b.Loop() {
			bootTime()
		}
	})
	b.Run("soon", func(b *testing.B) {
		for b.Loop() {
			bootTimeSoon()
		}
	})
}
