package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// endWithParent has the kernel end the process when bench ends, however it does.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// apart has the process run in a network of its own, without any right outside
// of it: there it can have as many addresses as it likes, and its connections
// fill no firewall's table.
func apart(cmd *exec.Cmd) error {
	endWithParent(cmd)
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	return nil
}

// plumb makes every address of the own network's testNet this machine's.
func plumb() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, network, err := net.ParseCIDR(testNet)
	if err != nil {
		return err
	}
	first := network.IP.To4()
	first[3]++
	for _, step := range []struct {
		request uint
		label   string
		set     func(*unix.Ifreq) error
	}{
		{unix.SIOCSIFFLAGS, "lo", func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP); return nil }},
		{unix.SIOCSIFADDR, "lo:1", func(r *unix.Ifreq) error { return r.SetInet4Addr(first) }},
		{unix.SIOCSIFNETMASK, "lo:1", func(r *unix.Ifreq) error { return r.SetInet4Addr(network.Mask) }},
	} {
		r, err := unix.NewIfreq(step.label)
		if err == nil {
			err = step.set(r)
		}
		if err == nil {
			err = unix.IoctlIfreq(fd, step.request, r)
		}
		if err != nil {
			return fmt.Errorf("give %s to %s: %w", testNet, step.label, err)
		}
	}
	return nil
}
