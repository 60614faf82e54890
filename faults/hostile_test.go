package faults

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/co2relay/co2relay/satellite/satellitetest"
)

const memoryBound = 300 << 20

// Invariant: whatever strangers send, many at the same time, memory stays
// bounded, each gets an answer or is cut off, and the relay goes on serving.
func TestHostileInputIsBoundedAndRelayingGoesOn(t *testing.T) {
	r := startRelay(t, "--log-level", "warn")
	sats := satellitetest.StartFleet(t, 2, satellitetest.Options{})
	id := r.register(sats[0])
	r.register(sats[1])
	before := r.resident()
	var peak atomic.Int64
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				peak.Store(max(peak.Load(), r.resident()))
			}
		}
	})
	for name, request := range hostileRequests() {
		var wg sync.WaitGroup
		var answers sync.Map
		for range 64 {
			wg.Go(func() {
				for range 4 {
					status, err := shout(r.addr, request)
					if err != nil {
						status = "no answer"
					}
					answers.Store(status, true)
				}
			})
		}
		wg.Wait()
		var seen []string
		answers.Range(func(k, _ any) bool { seen = append(seen, k.(string)); return true })
		t.Logf("%-28s answered %q", name, seen)
		if err := sats[0].Relay(t.Context(), r.url(), id, name, ""); err != nil {
			t.Errorf("after %s: relay: %v", name, err)
		}
	}
	close(stop)
	watch.Wait()
	grown := peak.Load() - before
	t.Logf("resident %d MB before, %d MB more at the peak", before>>20, grown>>20)
	if grown > memoryBound {
		t.Errorf("memory grew by %d MB, want at most %d MB", grown>>20, memoryBound>>20)
	}
	eventually(t, "the other satellite got every message", func() bool {
		return sats[1].Stats().Distinct == uint64(len(hostileRequests()))
	})
}

// shout sends raw bytes on a connection of their own and returns the status
// line, or an error for a connection that was cut off.
func shout(addr string, request []byte) (string, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	go func() { _, _ = c.Write(request) }()
	answer, err := io.ReadAll(io.LimitReader(c, 16<<10))
	line, _, ok := strings.Cut(string(answer), "\r\n")
	if !ok {
		return "", fmt.Errorf("no status line: %w", err)
	}
	if strings.Contains(line, " 200 ") && !bytes.Contains(answer, []byte("<fault>")) {
		return line + " (no fault)", nil
	}
	return line, nil
}

func hostileRequests() map[string][]byte {
	post := func(body []byte, headers ...string) []byte {
		head := "POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nConnection: close\r\n"
		for _, h := range headers {
			head += h + "\r\n"
		}
		return append(fmt.Appendf(nil, "%sContent-Length: %d\r\n\r\n", head, len(body)), body...)
	}
	call := func(value string) []byte {
		return []byte("<?xml version='1.0'?><methodCall><methodName>test</methodName><params><param><value>" + value + "</value></param></params></methodCall>")
	}
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 256<<20))
	z.Close()
	return map[string][]byte{
		"300,000 nested arrays":   post(call(strings.Repeat("<array><data><value>", 300_000))),
		"a million values":        post(call("<array><data>" + strings.Repeat("<value/>", 120_000) + "</data></array>")),
		"gzip bomb":               post(bomb.Bytes(), "Content-Encoding: gzip"),
		"entity bomb":             post([]byte("<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]><methodCall><methodName>&b;</methodName></methodCall>")),
		"100 MB announced":        []byte("POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n" + strings.Repeat("x", 2<<20)),
		"endless header":          []byte("POST /RPC2 HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 4<<20) + "\r\n\r\n"),
		"not HTTP":                []byte(strings.Repeat("\x00\xff", 1<<20)),
		"length and chunked":      []byte("POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		"HTTP/1.0 without length": []byte("POST /RPC2 HTTP/1.0\r\nHost: x\r\n\r\n"),
		"huge name":               post(call("<struct><member><name>" + strings.Repeat("n", 500_000) + "</name><value/></member></struct>")),
		"not UTF-8":               post(call("\xff\xfe\xfd" + strings.Repeat("\x80", 500_000))),
		"1 MiB echo":              post(call(strings.Repeat("e", 1<<20-300))),
	}
}

// Invariant: connections that say nothing, or little and slowly, are closed in
// time and do not keep others out.
func TestSilentConnectionsAreClosedAndKeepNobodyOut(t *testing.T) {
	r := startRelay(t, "--header-timeout", "1s", "--body-timeout", "1s", "--max-conns-per-addr", "200", "--log-level", "warn")
	var conns []net.Conn
	for i := range 150 {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i%2 == 0 {
			_, _ = c.Write([]byte("POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n<?xml"))
		}
		conns = append(conns, c)
	}
	sat := satellitetest.Start(t, satellitetest.Options{})
	r.register(sat)
	for i, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(15 * time.Second))
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Fatalf("connection %d was not closed: %v", i, err)
		}
	}
	resp, err := http.Get("http://" + r.addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("got status %d, want 200", resp.StatusCode)
	}
}
