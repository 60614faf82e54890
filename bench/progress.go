package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// progress says what is being done now.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

// await waits for a measurement to end, and shows on a terminal how far it is.
func await(d time.Duration) {
	if info, err := os.Stderr.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		time.Sleep(d)
		return
	}
	const width, steps = 30, 60
	for i := range steps {
		done := i * width / steps
		fmt.Fprintf(os.Stderr, "\rbench: %s%s %3d%%", strings.Repeat("█", done), strings.Repeat("·", width-done), i*100/steps)
		time.Sleep(d / steps)
	}
	fmt.Fprint(os.Stderr, "\r"+strings.Repeat(" ", width+16)+"\r")
}
