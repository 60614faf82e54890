package frontend

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

// document wraps a value in a call of test.
func document(value string) string {
	return "<methodCall><methodName>test</methodName><params><param>" + value + "</param></params></methodCall>"
}

func TestHostileDocumentsGetAClearFault(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	nested := func(n int) string {
		return strings.Repeat("<value><array><data>", n) + strings.Repeat("</data></array></value>", n)
	}
	for name, x := range map[string]struct {
		doc  string
		code int
	}{
		"empty":            {"", xmlrpc.CodeNotWellFormed},
		"not XML":          {"hello", 0},
		"cut off":          {pingDoc[:40], xmlrpc.CodeNotWellFormed},
		"other XML":        {"<html></html>", xmlrpc.CodeNotXMLRPC},
		"doctype":          {`<!DOCTYPE x [<!ENTITY a "b">]>` + document("<value>&a;</value>"), 0},
		"deep":             {document(nested(65)), xmlrpc.CodeNotXMLRPC},
		"very deep":        {document(nested(20_000)), xmlrpc.CodeNotXMLRPC},
		"many values":      {document("<value><array><data>" + strings.Repeat("<value/>", 100_001) + "</data></array></value>"), xmlrpc.CodeNotXMLRPC},
		"long member name": {document("<value><struct><member><name>" + strings.Repeat("n", 2000) + "</name><value/></member></struct></value>"), xmlrpc.CodeNotXMLRPC},
		"long method name": {strings.Replace(pingDoc, "ping", strings.Repeat("p", 5000), 1), xmlrpc.CodeNotXMLRPC},
		"duplicate member": {document("<value><struct><member><name>a</name><value/></member><member><name>a</name><value/></member></struct></value>"), xmlrpc.CodeNotXMLRPC},
		"bad UTF-8":        {document("<value>\xff\xfe</value>"), xmlrpc.CodeNotWellFormed},
		"control bytes":    {document("<value>\x01</value>"), xmlrpc.CodeNotWellFormed},
		"bad number":       {document("<value><int>1e9</int></value>"), xmlrpc.CodeNotXMLRPC},
	} {
		resp, body := r.raw(t).send(post11(x.doc, "")).answer()
		_, fault := parseAnswer(t, []byte(body))
		if resp.StatusCode != 200 || fault == nil || x.code != 0 && fault.Code != x.code || fault.Text == "" {
			t.Errorf("%s: got %d %v, want 200 and fault %d", name, resp.StatusCode, fault, x.code)
		}
		if fault != nil && len(fault.Text) > 500 {
			t.Errorf("%s: the fault has %d bytes, want it short", name, len(fault.Text))
		}
	}
	r.from("").must("ping")
}

func TestHostileRequestsGetA4xxOrAFault(t *testing.T) {
	t.Parallel()
	quick := start(t, func(c *Config) { c.BodyTimeout, c.HeaderTimeout = time.Minute, time.Minute })
	strict := start(t, func(c *Config) { c.BodyTimeout, c.HeaderTimeout = 5*time.Second, time.Minute }) // for slow bodies
	bomb := squeeze(t, strings.Repeat("\x00", 20<<20), "gzip")
	head := "POST / HTTP/1.1\r\nHost: relay\r\n"
	formHead := "POST /methods/ping HTTP/1.1\r\nHost: relay\r\nContent-Type: "
	for name, x := range map[string]struct {
		text   string
		status int
		words  string
	}{
		"declared too large":  {head + "Content-Length: 1099511627776\r\n\r\nx", 200, "too large"},
		"really too large":    {post11(strings.Repeat("x", 3<<20), ""), 200, "too large"},
		"chunked too large":   {head + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("40000\r\n"+strings.Repeat("x", 0x40000)+"\r\n", 8), 200, "too large"},
		"gzip bomb":           {post11(bomb, "Content-Encoding: gzip\r\n"), 200, "too large"},
		"not gzip":            {post11("hello", "Content-Encoding: gzip\r\n"), 200, "Content-Encoding"},
		"slow body":           {head + "Content-Length: 100\r\n\r\n<", 408, "did not come within"},
		"slow form":           {formHead + "application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nm", 408, "did not come within"},
		"other kind of form":  {formHead + "multipart/form-data; boundary=b\r\nContent-Length: 5\r\n\r\n--b--", 400, "application/x-www-form-urlencoded"},
		"bad chunk":           {head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "chunked"},
		"unknown coding":      {head + "Transfer-Encoding: gzip, chunked\r\n\r\n", 501, ""},
		"header flood":        {head + strings.Repeat("X-Flood: "+strings.Repeat("a", 100)+"\r\n", 1000), 431, ""},
		"one endless header":  {head + "X: " + strings.Repeat("a", 100_000), 431, ""},
		"long request line":   {"GET /" + strings.Repeat("a", 100_000), 431, ""},
		"not HTTP":            {"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, ""},
		"HTTP/0.9":            {"GET /\r\n\r\n", 400, ""},
		"HTTP/2 preface":      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 405, ""},
		"no Host":             {"GET / HTTP/1.1\r\n\r\n", 400, ""},
		"negative length":     {head + "Content-Length: -5\r\n\r\nhello", 400, ""},
		"huge length":         {head + "Content-Length: 99999999999999999999999\r\n\r\nhello", 400, ""},
		"control in header":   {head + "X: a\x00b\r\nContent-Length: 0\r\n\r\n", 400, ""},
		"unmet expectation":   {head + "Expect: the-spanish-inquisition\r\nContent-Length: 5\r\n\r\nhello", 417, ""},
		"PROXY from anybody":  {"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + post11(pingDoc, ""), 400, ""},
		"PROXY 2 from anyone": {"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + strings.Repeat("\x01", 12) + post11(pingDoc, ""), 400, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := quick
			if x.status == http.StatusRequestTimeout {
				r = strict
			}
			c := r.raw(t)
			var wg sync.WaitGroup
			wg.Go(func() { c.send(x.text) })
			resp, body := c.answer()
			if resp.StatusCode != x.status || !strings.Contains(body, x.words) {
				t.Errorf("got %d %q, want %d with %q", resp.StatusCode, body, x.status, x.words)
			}
			c.Close()
			wg.Wait()
			r.from("").must("ping")
		})
	}
}

func TestATruncatedBodyIsRefused(t *testing.T) {
	t.Parallel()
	c := start(t, nil).raw(t).send("POST / HTTP/1.1\r\nHost: relay\r\nContent-Length: 100\r\n\r\n<methodCall>")
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if resp, body := c.answer(); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("got %d %q, want 400", resp.StatusCode, body)
	}
}

func TestASlowHeaderIsCutOff(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.HeaderTimeout = 200 * time.Millisecond })
	r.raw(t).send("POST / HTTP/1.1\r\nHost: re").closed()
	r.raw(t).closed() // nothing sent at all
}

func TestABodyThatNobodyReadsIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	const form = "Content-Type: application/x-www-form-urlencoded\r\n"
	for name, line := range map[string]string{
		"page":              "GET /methods HTTP/1.1\r\n",
		"other method":      "PUT / HTTP/1.1\r\n",
		"other origin":      "POST / HTTP/1.1\r\nOrigin: http://elsewhere.example\r\n",
		"other origin form": "POST /methods/echo HTTP/1.1\r\nOrigin: http://elsewhere.example\r\n" + form,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// The answer does not wait for the body, whose time never ends here.
			r := start(t, func(c *Config) { c.BodyTimeout = time.Hour })
			c := r.raw(t).send(line + "Host: relay\r\nContent-Length: 100\r\n\r\n")
			if resp, _ := c.answer(); !resp.Close {
				t.Error("the connection is kept, want it closed")
			}
			c.Close()

			// And the connection goes when the time for the body has passed.
			r = start(t, func(c *Config) { c.BodyTimeout = 500 * time.Millisecond })
			c = r.raw(t).send(line + "Host: relay\r\nContent-Length: 100\r\n\r\n")
			c.answer()
			c.closed()
		})
	}
}

func TestAnIdleConnectionIsClosed(t *testing.T) {
	t.Parallel()
	c := start(t, func(c *Config) { c.IdleTimeout = 200 * time.Millisecond }).raw(t)
	c.send(post11(pingDoc, "")).answer()
	c.closed()
}

func TestOneAddressCannotTakeAllConnections(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) {
		trustLoopback(c)
		c.MaxConnsPerAddr = 50
		c.IdleTimeout, c.HeaderTimeout = time.Hour, time.Minute
	})
	const tried = 200
	var open, refused atomic.Int64
	var wg sync.WaitGroup
	release := make(chan struct{})
	for range tried {
		wg.Go(func() {
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Errorf("dial: %v", err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			fmt.Fprintf(c, "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n%s", post11(pingDoc, ""))
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			switch {
			case err != nil || resp.StatusCode == http.StatusServiceUnavailable:
				refused.Add(1)
			case resp.StatusCode == http.StatusOK:
				open.Add(1)
				<-release
			default:
				t.Errorf("status: got %d, want 200 or 503", resp.StatusCode)
			}
		})
	}
	eventually(t, "every connection is decided", func() bool { return open.Load()+refused.Load() == tried })
	if open.Load() != 50 {
		t.Errorf("connections kept: got %d, want 50", open.Load())
	}
	r.from("10.0.0.2").must("ping") // another address is served
	close(release)
	wg.Wait()
	eventually(t, "the address has room again", func() bool {
		c := r.raw(t)
		defer c.Close()
		resp, err := http.ReadResponse(c.send("PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"+post11(pingDoc, "")).br, nil)
		return err == nil && resp.StatusCode == 200
	})
}

func TestTwoThousandConnectionsFromOneAddress(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.MaxConns = 100_000; c.MaxConnsPerAddr = 300 })
	conns := make([]net.Conn, 0, 2000)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range 2000 {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatalf("dial: %v", err)
		}
		conns = append(conns, c)
	}
	served, turnedAway := 0, 0
	for _, c := range conns {
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(c, post11(pingDoc, ""))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		switch {
		case err != nil || resp.StatusCode == http.StatusServiceUnavailable:
			turnedAway++
		case resp.StatusCode == http.StatusOK:
			served++
		default:
			t.Errorf("got status %d, want 200, 503 or a close", resp.StatusCode)
		}
	}
	if served != 300 || turnedAway != 1700 {
		t.Errorf("served %d and turned away %d of 2000, want 300 and 1700", served, turnedAway)
	}
	for _, c := range conns {
		c.Close()
	}
	eventually(t, "the address has room again", func() bool {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			return false
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(c, post11(pingDoc, ""))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		return err == nil && resp.StatusCode == http.StatusOK
	})
}

func TestConnectionsInAllAreBounded(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.MaxConns = 5 })
	for range 5 {
		if _, body := r.raw(t).send(post11(pingDoc, "")).answer(); !strings.Contains(body, "pong") {
			t.Errorf("got %q, want pong", body)
		}
	}
	if resp, _ := r.raw(t).answer(); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("sixth connection: got %d, want 503", resp.StatusCode)
	}
}

func TestSlowLargeBodiesDoNotShutOutOthers(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) {
		trustLoopback(c)
		c.MaxAnswer, c.BodyBudget, c.BodyTimeout = 1<<20, 32<<20, time.Hour
	})
	// The budget for large bodies is 16 MiB, and one address may hold half of it:
	// of these, four are read, and the others wait.
	const slow = 20
	for range slow {
		c := r.raw(t)
		c.send("PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nPOST / HTTP/1.1\r\nHost: relay\r\nContent-Length: 1048576\r\n\r\n<")
		t.Cleanup(func() { c.Close() })
	}
	eventually(t, "the slow caller's share is taken", func() bool {
		r.budget.large.mu.Lock()
		defer r.budget.large.mu.Unlock()
		for _, s := range r.budget.large.by {
			if s.users == slow {
				return true
			}
		}
		return false
	})
	other := r.from("10.0.0.2")
	other.must("ping")
	if got, _ := other.must("test", xmlrpc.NewString(strings.Repeat("x", 900<<10))).Str(); len(got) != 900<<10 {
		t.Errorf("echo of another's large call: got %d bytes, want all", len(got))
	}
	c := r.raw(t).send("PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nPOST / HTTP/1.1\r\nHost: relay\r\nContent-Length: 1048576\r\n\r\n<")
	if resp, body := c.answer(); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one more large call of the slow caller: got %d %q, want 503 after a wait", resp.StatusCode, body)
	}
}
