package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// floorResult is what the bare loop came to.
type floorResult struct {
	Rate float64 // POSTs a second
	CPU  float64 // microseconds each
}

const floorWorkers = 64 // goroutines of the bare loop

// runFloor runs the bare loop as a process of its own, so that its CPU time
// can be told from the receivers'.
func runFloor(ctx context.Context, addrs []string, w workload, length time.Duration) (floorResult, error) {
	self, err := os.Executable()
	if err != nil {
		return floorResult{}, err
	}
	cmd := exec.CommandContext(ctx, self, "floor", length.String(), strconv.Itoa(w.Size))
	cmd.Stdin = strings.NewReader(strings.Join(addrs, "\n"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return floorResult{}, fmt.Errorf("run the bare loop: %w", err)
	}
	var r floorResult
	return r, json.Unmarshal(out, &r)
}

// floorMain is the bare loop: POSTs of the same bytes over kept connections,
// by Go's own network package, each waiting for its answer.
func floorMain(args []string) error {
	length, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	size, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var input bytes.Buffer
	if _, err := input.ReadFrom(os.Stdin); err != nil {
		return err
	}
	addrs := strings.Fields(input.String())
	conns := make([]net.Conn, len(addrs))
	for i, addr := range addrs {
		if conns[i], err = net.Dial("tcp", addr); err != nil {
			return err
		}
	}
	request := floorRequest(size)
	var posts atomic.Uint64
	var stop atomic.Bool
	failed := make(chan error, floorWorkers)
	var wg sync.WaitGroup
	workers := min(floorWorkers, len(conns))
	start, cpu := time.Now(), cpuTime()
	for i := range workers {
		wg.Go(func() {
			buf := make([]byte, 4096)
			for !stop.Load() {
				for j := i; j < len(conns); j += workers {
					closed, err := post(conns[j], request, buf)
					if err == nil && closed {
						conns[j].Close()
						conns[j], err = net.Dial("tcp", addrs[j])
					}
					if err != nil {
						failed <- err
						return
					}
					posts.Add(1)
				}
			}
		})
	}
	time.Sleep(length)
	n, took, used := posts.Load(), time.Since(start), cpuTime()-cpu
	stop.Store(true)
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	return json.NewEncoder(os.Stdout).Encode(floorResult{
		Rate: float64(n) / took.Seconds(), CPU: float64(used.Microseconds()) / float64(n),
	})
}

// post sends one request and reads one answer with a declared length. It tells
// whether the connection ends with it.
func post(c net.Conn, request, buf []byte) (closed bool, err error) {
	if _, err := c.Write(request); err != nil {
		return false, err
	}
	n := 0
	for {
		k, err := c.Read(buf[n:])
		if err != nil {
			return false, err
		}
		n += k
		if end := bytes.Index(buf[:n], []byte("\r\n\r\n")); end >= 0 && bytes.HasSuffix(bytes.TrimSpace(buf[:n]), []byte("</methodResponse>")) {
			return bytes.Contains(buf[:end], []byte("Connection: close")), nil
		}
	}
}

// floorRequest is a notify call as the relay writes it, with data of so many
// bytes.
func floorRequest(size int) []byte {
	body := "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<methodCall><methodName>notify</methodName><params><param><value><struct>" +
		"<member><name>host_id</name><value><string>127.0.0.1:65535</string></value></member>" +
		"<member><name>data</name><value><string>" + strings.Repeat("x", size) + "</string></value></member>" +
		"<member><name>msg_id</name><value><string>1</string></value></member>" +
		"<member><name>notify_pass</name><value><string>floor</string></value></member></struct></value></param></params></methodCall>\n"
	return fmt.Appendf(nil, "POST /RPC2 HTTP/1.1\r\nHost: 127.0.0.1:65535\r\nUser-Agent: co2relay\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// cpuTime is what this process has used so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
