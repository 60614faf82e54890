package frontend

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

// post10 is what Python 2.3's xmlrpclib sends.
func post10(doc, more string) string {
	return fmt.Sprintf("POST /RPC2 HTTP/1.0\r\nHost: relay\r\nUser-Agent: xmlrpclib.py/1.0.1 (by www.pythonware.com)\r\nContent-Type: text/xml\r\n%sContent-Length: %d\r\n\r\n%s", more, len(doc), doc)
}

func post11(doc, more string) string {
	return fmt.Sprintf("POST /RPC2 HTTP/1.1\r\nHost: relay\r\nContent-Type: text/xml\r\n%sContent-Length: %d\r\n\r\n%s", more, len(doc), doc)
}

func TestHTTP10IsAnsweredAndClosed(t *testing.T) {
	t.Parallel()
	c := start(t, nil).raw(t).send(post10(pingDoc, ""))
	resp, body := c.answer()
	if resp.Proto != "HTTP/1.0" || resp.StatusCode != 200 || !strings.Contains(body, "pong") {
		t.Errorf("got %s %d %q, want HTTP/1.0 200 and pong", resp.Proto, resp.StatusCode, body)
	}
	if got := resp.Header.Get("Content-Type"); got != "text/xml" {
		t.Errorf("content type: got %q, want text/xml", got)
	}
	if resp.ContentLength != int64(len(body)) || len(resp.TransferEncoding) > 0 {
		t.Errorf("got length %d and coding %q, want a Content-Length of %d", resp.ContentLength, resp.TransferEncoding, len(body))
	}
	c.closed()
}

func TestHTTP10IsKeptOpenWhenAsked(t *testing.T) {
	t.Parallel()
	c := start(t, nil).raw(t)
	for range 3 {
		resp, body := c.send(post10(pingDoc, "Connection: Keep-Alive\r\n")).answer()
		if !strings.Contains(body, "pong") || !strings.EqualFold(resp.Header.Get("Connection"), "keep-alive") {
			t.Errorf("got %q with Connection %q, want pong and keep-alive", body, resp.Header.Get("Connection"))
		}
	}
}

func TestHTTP11IsKeptOpenAndPipelined(t *testing.T) {
	t.Parallel()
	c := start(t, nil).raw(t)
	c.send(strings.Repeat(post11(pingDoc, ""), 5))
	for range 5 {
		if resp, body := c.answer(); resp.StatusCode != 200 || resp.Close || resp.ContentLength < 0 || !strings.Contains(body, "pong") {
			t.Errorf("got %d (close %t, length %d) %q, want pong on a kept connection", resp.StatusCode, resp.Close, resp.ContentLength, body)
		}
	}
	if resp, _ := c.send(post11(pingDoc, "Connection: close\r\n")).answer(); !resp.Close {
		t.Error("connection is kept although the client asked to close it")
	}
	c.closed()
}

func TestFaultsAndLargeAnswersHaveStatus200AndALength(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	big := string(xmlrpc.AppendCall(nil, "test", xmlrpc.NewString(strings.Repeat("x", 300_000))))
	for _, doc := range []string{strings.Replace(pingDoc, "ping", "nope", 1), "", "<", "hello", big} {
		resp, body := r.raw(t).send(post11(doc, "")).answer()
		if resp.StatusCode != 200 || resp.ContentLength != int64(len(body)) || !strings.Contains(body, "<methodResponse>") {
			t.Errorf("call of %d bytes: got %d, length %d of %d, want 200, a length and a methodResponse", len(doc), resp.StatusCode, resp.ContentLength, len(body))
		}
	}
}

func TestPostOnAnyPathIsACall(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	for _, path := range []string{"/", "/RPC2", "/methods", "/methods/ping", "/satellites", "/no/such/page?x=y", "*"} {
		c := r.raw(t).send(strings.Replace(post11(pingDoc, ""), "/RPC2", path, 1))
		if resp, body := c.answer(); path != "*" && (resp.StatusCode != 200 || !strings.Contains(body, "pong")) {
			t.Errorf("POST %s: got %d %q, want pong", path, resp.StatusCode, body)
		}
	}
}

func TestFormContentTypeIsACallExceptUnderMethods(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	form := strings.Replace(post11(pingDoc, ""), "text/xml", "application/x-www-form-urlencoded", 1)
	if resp, body := r.raw(t).send(form).answer(); resp.StatusCode != 200 || !strings.Contains(body, "pong") {
		t.Errorf("form type on /RPC2: got %d %q, want pong, as curl -d sends it", resp.StatusCode, body)
	}
	form = strings.Replace(form, "/RPC2", "/methods/ping", 1)
	if resp, body := r.raw(t).send(form).answer(); resp.StatusCode != 200 || !strings.Contains(body, "It answered") {
		t.Errorf("form under /methods/: got %d %q, want the method's page with its answer", resp.StatusCode, body)
	}
}

func TestOtherMethodsAreRefusedWithAllow(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	for _, method := range []string{"PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"} {
		resp, _ := r.raw(t).send(method + " / HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").answer()
		if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD, POST" {
			t.Errorf("%s: got %d with Allow %q, want 405 with GET, HEAD, POST", method, resp.StatusCode, resp.Header.Get("Allow"))
		}
	}
}

func TestAForeignOriginIsRefused(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.Origins = []string{"https://relay.example.org"} })
	_, port, _ := strings.Cut(r.addr, ":")
	for origin, want := range map[string]int{
		"":                               200,
		"http://" + r.addr:               200,
		"http://localhost:" + port:       200,
		"https://relay.example.org":      200,
		"http://evil.example":            403,
		"http://evil.example:" + port:    403, // its name may resolve to 127.0.0.1
		"http://127.0.0.1:1":             403,
		"http://localhost":               403,
		"null":                           403,
		"https://" + r.addr:              403,
		"http://" + r.addr + ".evil.com": 403,
		"http://[::1]:" + port:           403,
	} {
		more := "Host: evil.example:" + port + "\r\n"
		if origin != "" {
			more += "Origin: " + origin + "\r\n"
		}
		resp, _ := r.raw(t).send(strings.Replace(post11(pingDoc, more), "Host: relay\r\n", "", 1)).answer()
		if resp.StatusCode != want {
			t.Errorf("Origin %q: got %d, want %d", origin, resp.StatusCode, want)
		}
	}
}

// A page can give its own name the address of the relay on somebody's localhost
// and then read it as its own origin, which no Origin header tells.
func TestPagesAreNotReadByAForeignNameOfLocalhost(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.Origins = []string{"https://relay.example.org"} })
	_, port, _ := strings.Cut(r.addr, ":")
	for host, want := range map[string]int{
		r.addr: 200, "localhost:" + port: 200, "localhost.": 200, "a.localhost": 200, "[::1]:" + port: 200, "relay": 200, "": 200,
		"relay.example.org": 200, "RELAY.example.org.:" + port: 200,
		"evil.example": 403, "evil.example:" + port: 403, "127.0.0.1.evil.example": 403, "evil.example.": 403,
	} {
		for _, path := range []string{"/", "/satellites", "/live/overview"} {
			if want == 200 && path == "/live/overview" {
				continue // has no end
			}
			resp, _ := r.raw(t).send("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n").answer()
			if resp.StatusCode != want {
				t.Errorf("%s by the name %q: got %d, want %d", path, host, resp.StatusCode, want)
			}
		}
	}
	local := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 2003}
	if Rebound(&http.Request{Host: "evil.example"}, local, nil) {
		t.Error("another address than a loopback one: it may have any name")
	}
}

func TestABodyWithoutLengthIsRefused(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	for _, head := range []string{
		"POST / HTTP/1.0\r\nHost: relay\r\n\r\n", "POST / HTTP/1.1\r\nHost: relay\r\n\r\n",
		"POST / HTTP/1.0\r\nHost: relay\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		c := r.raw(t).send(head + pingDoc)
		if resp, _ := c.answer(); resp.StatusCode != http.StatusLengthRequired {
			t.Errorf("%q: got %d, want 411", head, resp.StatusCode)
		}
		c.closed()
	}
}

func TestChunkedBodiesAreRead(t *testing.T) {
	t.Parallel()
	c := start(t, nil).raw(t)
	c.send("POST / HTTP/1.1\r\nHost: relay\r\nTransfer-Encoding: chunked\r\n\r\n")
	for _, piece := range []string{pingDoc[:10], pingDoc[10:]} {
		c.send(fmt.Sprintf("%x\r\n%s\r\n", len(piece), piece))
	}
	if _, body := c.send("0\r\n\r\n").answer(); !strings.Contains(body, "pong") {
		t.Errorf("got %q, want pong", body)
	}
	c.closed()
}

func TestAmbiguousFramingIsRefused(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(pingDoc), pingDoc)
	for name, text := range map[string]string{
		"both":             "POST / HTTP/1.1\r\nHost: relay\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + chunked,
		"both, other way":  "POST / HTTP/1.1\r\nHost: relay\r\ncontent-length:5\r\ntransfer-encoding:chunked\r\n\r\n" + chunked,
		"both in HTTP/1.0": fmt.Sprintf("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n%s", len(pingDoc), pingDoc),
		"two lengths":      "POST / HTTP/1.1\r\nHost: relay\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
		"folded":           "POST / HTTP/1.1\r\nHost: relay\r\nX-A: b\r\n c\r\nContent-Length: 5\r\n\r\nhello",
		"signed length":    "POST / HTTP/1.1\r\nHost: relay\r\nContent-Length: +5\r\n\r\nhello",
		"space in name":    "POST / HTTP/1.1\r\nHost: relay\r\nContent-Length : 5\r\n\r\nhello",
		"second request":   post11(pingDoc, "") + "POST / HTTP/1.1\r\nHost: relay\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + chunked,
	} {
		c := r.raw(t).send(text)
		resp, _ := c.answer()
		if name == "second request" && resp.StatusCode == 200 {
			resp, _ = c.answer()
		}
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: got %d, want 400", name, resp.StatusCode)
		}
		c.closed()
	}
}

func TestExpectContinueIsMet(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	c := r.raw(t).send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: relay\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(pingDoc)))
	if resp, _ := c.answer(); resp.StatusCode != 100 {
		t.Fatalf("got %d, want 100", resp.StatusCode)
	}
	if _, body := c.send(pingDoc).answer(); !strings.Contains(body, "pong") {
		t.Errorf("got %q, want pong", body)
	}
	c = r.raw(t).send("POST / HTTP/1.1\r\nHost: relay\r\nExpect: 100-continue\r\nContent-Length: 99000000\r\n\r\n")
	if resp, body := c.answer(); resp.StatusCode != 200 || !strings.Contains(body, "too large") {
		t.Errorf("too large: got %d %q, want the Fault at once", resp.StatusCode, body)
	}
	c.closed()
}

func squeeze(t *testing.T, doc, coding string) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "zlib":
		w = zlib.NewWriter(&b)
	case "raw":
		w, _ = flate.NewWriter(&b, 6)
	}
	_, _ = io.WriteString(w, doc)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestCompressedBodiesAreInflated(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	for coding, header := range map[string]string{"gzip": "gzip", "zlib": "deflate", "raw": "deflate"} {
		_, body := r.raw(t).send(post11(squeeze(t, pingDoc, coding), "Content-Encoding: "+header+"\r\n")).answer()
		if !strings.Contains(body, "pong") {
			t.Errorf("%s: got %q, want pong", coding, body)
		}
		damaged := squeeze(t, pingDoc, coding)
		_, body = r.raw(t).send(post11(damaged[:len(damaged)-3], "Content-Encoding: "+header+"\r\n")).answer()
		if _, fault := parseAnswer(t, []byte(body)); fault == nil || fault.Code != xmlrpc.CodeNotWellFormed {
			t.Errorf("%s, cut off: got %q, want a fault %d", coding, body, xmlrpc.CodeNotWellFormed)
		}
	}
	resp, _ := r.raw(t).send(post11(pingDoc, "Content-Encoding: br\r\n")).answer()
	if resp.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("br: got %d, want 415", resp.StatusCode)
	}
}

func TestTheDeclaredCharsetIsHonoured(t *testing.T) {
	t.Parallel()
	doc := "<?xml version='1.0'?><methodCall><methodName>test</methodName><params><param><value>caf\xe9</value></param></params></methodCall>"
	text := strings.Replace(post11(doc, ""), "text/xml", "text/xml; charset=ISO-8859-1", 1)
	if _, body := start(t, nil).raw(t).send(text).answer(); !strings.Contains(body, "café") {
		t.Errorf("got %q, want café", body)
	}
}
