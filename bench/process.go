package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a program that is measured.
type process struct {
	cmd   *exec.Cmd
	admin string // address of its metrics; "": it has none
}

func startProcess(ctx context.Context, admin, program string, args ...string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, program, args...), admin: admin}
	p.cmd.Stdout, p.cmd.Stderr = os.Stderr, os.Stderr
	endWithParent(p.cmd)
	return p, p.cmd.Start()
}

func (p *process) end(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return err
	}
	_ = p.cmd.Wait()
	return nil
}

// cpu is what the process has used so far.
func (p *process) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] { // utime and stime, in hundredths of a second
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// status is a figure of /proc/PID/FILE, by its label.
func (p *process) status(file, label string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, label+":"); ok {
			return strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("no %s in /proc/…/%s", label, file)
}

// resident is the process's resident memory in bytes.
func (p *process) resident() (int64, error) {
	kb, err := p.status("status", "VmRSS")
	return kb << 10, err
}

// written is what the process has written to storage, in bytes.
func (p *process) written() (int64, error) { return p.status("io", "write_bytes") }

// metric is the sum of a metric's values over its labels, 0 where the process
// exports none.
func (p *process) metric(name string) (sum float64, err error) {
	if p.admin == "" {
		return 0, nil
	}
	resp, err := http.Get("http://" + p.admin + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("read metric %s: %w", name, err)
		}
		sum += v
	}
	return sum, lines.Err()
}

// mallocs is how many objects the process has allocated so far.
func (p *process) mallocs() (float64, error) { return p.metric("go_memstats_mallocs_total") }

// meter is what a process had used at a moment.
type meter struct {
	cpu     time.Duration
	written int64
	mallocs float64
}

func (p *process) meter() (m meter, err error) {
	var errs [3]error
	m.cpu, errs[0] = p.cpu()
	m.written, errs[1] = p.written()
	m.mallocs, errs[2] = p.mallocs()
	return m, errors.Join(errs[:]...)
}

func (m meter) since(before meter) meter {
	return meter{m.cpu - before.cpu, m.written - before.written, m.mallocs - before.mallocs}
}

// waitOpen waits until a process listens, and returns how long that took.
func waitOpen(addr string) (time.Duration, error) {
	began := time.Now()
	for time.Since(began) < time.Minute {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return time.Since(began), nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return 0, fmt.Errorf("nobody listened on %s within a minute", addr)
}
