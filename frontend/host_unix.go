//go:build unix

package frontend

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// uname gives the kernel's name with its release, and the machine's name.
func uname() (kernel, machine string) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return runtime.GOOS, runtime.GOARCH
	}
	text := unix.ByteSliceToString
	return text(u.Sysname[:]) + " " + text(u.Release[:]), text(u.Machine[:])
}

// descriptorLimit is how many files this process may have open, 0 if unknown.
func descriptorLimit() int {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil || lim.Cur > 1<<30 {
		return 0
	}
	return int(lim.Cur) //nolint:unconvert // its type differs between systems
}
