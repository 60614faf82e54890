package app

import (
	"runtime"
	"sync/atomic"
	"testing"
)

func TestGCPercentBoundsTheHeapsGrowth(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		inUse uint64
		want  int
	}{{0, 100}, {1 << 20, 100}, {32 << 20, 100}, {64 << 20, 50}, {128 << 20, 25}, {1 << 30, 25}, {100 << 30, 25}} {
		if got := gcPercent(x.inUse); got != x.want {
			t.Errorf("with %d bytes in use: got %d, want %d", x.inUse, got, x.want)
		}
	}
}

func TestGCPacerFollowsTheHeap(t *testing.T) {
	t.Parallel()
	var last atomic.Int64
	(&gcPacer{set: func(percent int) int { return int(last.Swap(int64(percent))) }}).watch()
	collectUntil := func(fits func(percent int64) bool) {
		for !fits(last.Load()) {
			runtime.GC()
		}
	}
	held := make([]byte, 256<<20) // never touched: it takes no memory
	collectUntil(func(percent int64) bool { return percent > 0 && percent <= 25 })
	runtime.KeepAlive(held)
	collectUntil(func(percent int64) bool { return percent > 25 })
}
