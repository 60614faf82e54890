//go:build !unix

package frontend

import "runtime"

// uname has nothing to ask here.
func uname() (kernel, machine string) { return runtime.GOOS, runtime.GOARCH }

// descriptorLimit is not known here.
func descriptorLimit() int { return 0 }
