package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// usage is what the whole machine and bench's own processes had used at a
// moment: a measurement beside which others worked says little.
type usage struct {
	at         time.Time
	busy, mine time.Duration
}

func (p *process) usage(f *fleet) (u usage, err error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return u, err
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 {
		return u, fmt.Errorf("read /proc/stat: %q", line)
	}
	for _, i := range []int{1, 2, 3, 6, 7, 8} { // all but idle and waiting for a disk
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return u, fmt.Errorf("read /proc/stat: %w", err)
		}
		u.busy += time.Duration(n) * 10 * time.Millisecond
	}
	u.at, u.mine = time.Now(), cpuTime()
	for _, one := range append(f.processes(), p) {
		used, err := one.cpu()
		if err != nil {
			return u, err
		}
		u.mine += used
	}
	return u, nil
}

// othersSince is the share of the machine that others used since before.
func (u usage) othersSince(before usage) float64 {
	all := u.at.Sub(before.at) * time.Duration(runtime.NumCPU())
	return max(0, float64(u.busy-before.busy-(u.mine-before.mine))/float64(all))
}
