//go:build linux || darwin

package app

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// terminalSize is the size of a terminal in characters; an error if f is none.
func terminalSize(f *os.File) (columns, rows int, err error) {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0, fmt.Errorf("read terminal size: %w", err)
	}
	return int(size.Col), int(size.Row), nil
}

// rawKeys has a terminal hand over keys as they are pressed, unseen, until the
// function that it returns is called. Ctrl-C stays a signal.
func rawKeys(f *os.File) (restore func(), err error) {
	was, err := unix.IoctlGetTermios(int(f.Fd()), getTermios)
	if err != nil {
		return nil, fmt.Errorf("read terminal settings: %w", err)
	}
	raw := *was
	raw.Lflag &^= unix.ICANON | unix.ECHO
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 0, 1 // a read ends after 0.1 s without a key
	if err := unix.IoctlSetTermios(int(f.Fd()), setTermios, &raw); err != nil {
		return nil, fmt.Errorf("change terminal settings: %w", err)
	}
	return func() { _ = unix.IoctlSetTermios(int(f.Fd()), setTermios, was) }, nil
}

// onResize sends to a channel when the terminal's size changes.
func onResize(resized chan<- os.Signal) (stop func()) {
	signal.Notify(resized, unix.SIGWINCH)
	return func() { signal.Stop(resized) }
}
