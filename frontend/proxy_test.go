package frontend

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

func TestATrustedProxyNamesTheClient(t *testing.T) {
	t.Parallel()
	r := start(t, trustLoopback)
	for version, c := range map[string]*caller{"2": r.from("192.0.2.1"), "2 over IPv6": r.from("2001:db8::1")} {
		if id := c.register(9000); strings.HasPrefix(id, "127.") {
			t.Errorf("PROXY %s: got id %q, want the client's address", version, id)
		}
	}
	text := strings.Replace(pingDoc, "<methodName>ping</methodName>",
		"<methodName>relay.register</methodName><params><param><value><struct><member><name>port</name><value><int>9</int></value></member></struct></value></param></params>", 1)
	_, body := r.raw(t).send("PROXY TCP6 2001:db8::9 2001:db8::1 1234 80\r\n" + post11(text, "")).answer()
	if !strings.Contains(body, "[2001:db8::9]:9") {
		t.Errorf("PROXY 1: got %q, want the client's address", body)
	}
}

func TestATrustedProxyWithoutAHeaderIsServedPagesOnly(t *testing.T) {
	t.Parallel()
	r := start(t, trustLoopback)
	for name, head := range map[string]string{
		"none": "", "unknown": "PROXY UNKNOWN\r\n", "local": "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00",
		"unix": "\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\xd8" + strings.Repeat("a\x00", 108),
	} {
		c := r.raw(t)
		resp, body := c.send(head + post11(pingDoc, "")).answer()
		_, fault := parseAnswer(t, []byte(body))
		if resp.StatusCode != 200 || fault == nil || fault.Code != xmlrpc.CodeRegistry || !strings.Contains(fault.Text, "PROXY") {
			t.Errorf("header %s, POST: got %d %v, want a Fault about the PROXY protocol", name, resp.StatusCode, fault)
		}
		c.closed()
		if resp, _ := r.raw(t).send(head + "GET / HTTP/1.1\r\nHost: relay\r\n\r\n").answer(); resp.StatusCode != 200 {
			t.Errorf("header %s, GET: got %d, want 200", name, resp.StatusCode)
		}
	}
}

func TestABrokenProxyHeaderIsRefused(t *testing.T) {
	t.Parallel()
	r := start(t, trustLoopback)
	for _, head := range []string{
		"PROXY TCP4 10.0.0.1\r\n", "PROXY TCP4 999.0.0.1 10.0.0.2 1 2\r\n", "PROXY " + strings.Repeat("x", 200),
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x02ab",
	} {
		c := r.raw(t)
		if resp, err := http.ReadResponse(c.send(head+post11(pingDoc, "")).br, nil); err == nil && resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: got %d, want 400 or a close", head, resp.StatusCode)
		}
	}
	r.from("10.0.0.1").must("ping")
}

func TestASlowProxyHeaderIsCutOff(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { trustLoopback(c); c.HeaderTimeout = 3 * time.Second })
	c := r.raw(t).send("PROXY TCP4 10.0")
	if resp, err := http.ReadResponse(c.br, nil); err == nil && resp.StatusCode != http.StatusBadRequest {
		t.Errorf("half a header: got %d, want 400 or a close", resp.StatusCode)
	}
	r.raw(t).closed()
	eventually(t, "a quick caller is served", func() bool { // this machine may be slow, too
		c := r.raw(t)
		defer c.Close()
		resp, err := http.ReadResponse(c.send("PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"+post11(pingDoc, "")).br, nil)
		return err == nil && resp.StatusCode == http.StatusOK
	})
}

func TestProxyNetworksAreMatched(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.TrustedProxies = []string{"10.0.0.0/8", "2001:db8::1", "127.0.0.2"} })
	// 127.0.0.1 is none of them: it may call, and its PROXY header is no HTTP.
	if _, body := r.raw(t).send(post11(pingDoc, "")).answer(); !strings.Contains(body, "pong") {
		t.Errorf("got %q, want pong", body)
	}
	if resp, _ := r.raw(t).send("PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + post11(pingDoc, "")).answer(); resp.StatusCode != 400 {
		t.Errorf("PROXY header from an untrusted address: got %d, want 400", resp.StatusCode)
	}
}
