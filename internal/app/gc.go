package app

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// The collector may let the heap grow by a share of what is in use before it
// collects again. The default share, all of it, is right for a relay with few
// satellites; one with 100,000 keeps hundreds of megabytes that hardly change,
// and would hold as much again for nothing. The share is never more than the
// default: a burst of large calls that finds a small heap would grow it by a
// multiple before the next collection.
const (
	leastGrowth   = 32 << 20
	growthOfInUse = 4 // a quarter
	mostPercent   = 100
)

// gcPercent is the collector's setting (GOGC) for a heap of which so many bytes
// are in use.
func gcPercent(inUse uint64) int {
	growth := max(leastGrowth, inUse/growthOfInUse)
	return int(min(growth*100/max(inUse, 1), mostPercent))
}

// paceGC fits the collector to the heap after each collection from now on, for
// the life of the process. An operator who sets GOGC decides alone; GOMEMLIMIT
// works with either.
func paceGC() {
	if os.Getenv("GOGC") != "" {
		return
	}
	(&gcPacer{set: debug.SetGCPercent, percent: 100}).watch()
}

type gcPacer struct {
	set     func(percent int) (before int)
	percent int
}

// watch leaves something behind that the next collection finds.
func (p *gcPacer) watch() {
	left := new([2]*gcPacer) // with pointers, as what has none may share its block with what lives on
	runtime.AddCleanup(left, (*gcPacer).collected, p)
}

func (p *gcPacer) collected() {
	inUse := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(inUse)
	want := gcPercent(inUse[0].Value.Uint64())
	// Setting it stops the program for a moment: not for a small difference.
	if want*10 < p.percent*9 || want*10 > p.percent*11 {
		p.percent = want
		p.set(want)
	}
	p.watch()
}
