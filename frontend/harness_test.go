package frontend

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
	"github.com/co2relay/co2relay/internal/xmlrpc"
	"github.com/co2relay/co2relay/registry"
)

// relayUnderTest is a frontend on a real socket, with a real broker behind it.
type relayUnderTest struct {
	*Frontend
	t       *testing.T
	addr    string // host:port
	metrics *prometheus.Registry
	stop    func() error // drains, and gives what Serve returned
}

// start runs a frontend with a broker of its own.
func start(t *testing.T, change func(*Config), prepare ...func(*Frontend)) *relayUnderTest {
	t.Helper()
	return startOn(t, clustertest.Start(t), change, prepare...)
}

// startOn runs a frontend on a given broker.
func startOn(t *testing.T, clus *cluster.Cluster, change func(*Config), prepare ...func(*Frontend)) *relayUnderTest {
	t.Helper()
	reg := registry.New(clus, clustertest.Logger(t))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- reg.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("registry ended with %v, want nil", err)
		}
	})
	select {
	case <-reg.Ready():
	case <-time.After(time.Minute):
		t.Fatal("registry not ready")
	}
	return startWith(t, clus, reg, change, prepare...)
}

// startWith runs a frontend on a registry, which may be one that never runs.
// prepare changes the frontend before it serves.
func startWith(t *testing.T, clus *cluster.Cluster, reg *registry.Registry, change func(*Config), prepare ...func(*Frontend)) *relayUnderTest {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Version = "1.2.3"
	cfg.PublishTimeout = 45 * time.Second // a slow machine's disk; less than a caller waits
	if change != nil {
		change(&cfg)
	}
	metrics := prometheus.NewRegistry()
	f, err := New(cfg, clustertest.Logger(t), reg, clus, metrics)
	if err != nil {
		t.Fatalf("new frontend: %v", err)
	}
	f.settle = time.Minute // what a test changed is in the view when it is answered
	for _, fn := range prepare {
		fn(f)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- f.Serve(ctx, ln) }()
	r := &relayUnderTest{Frontend: f, t: t, addr: ln.Addr().String(), metrics: metrics}
	stopped := false
	r.stop = func() error {
		stopped = true
		cancel()
		return <-served
	}
	t.Cleanup(func() {
		if stopped {
			return
		}
		if err := r.stop(); err != nil {
			t.Errorf("serve ended with %v, want nil", err)
		}
	})
	return r
}

// caller makes calls, from an address if one is given: then through the PROXY
// protocol, for which the relay must trust 127.0.0.0/8.
type caller struct {
	r      *relayUnderTest
	client *http.Client
}

func (r *relayUnderTest) from(address string) *caller {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", r.addr)
		if err != nil || address == "" {
			return c, err
		}
		h := proxyproto.HeaderProxyFromAddrs(2, &net.TCPAddr{IP: net.ParseIP(address), Port: 40000}, c.RemoteAddr())
		_, err = h.WriteTo(c)
		return c, err
	}
	tr := &http.Transport{DialContext: dial, DisableCompression: true}
	r.t.Cleanup(tr.CloseIdleConnections)
	return &caller{r, &http.Client{Transport: tr, Timeout: time.Minute}}
}

func trustLoopback(c *Config) { c.TrustedProxies = []string{"127.0.0.0/8"} }

// post sends a document and gives the answer's document.
func (c *caller) post(doc []byte) []byte {
	c.r.t.Helper()
	resp, err := c.client.Post("http://relay/RPC2", "text/xml", bytes.NewReader(doc))
	if err != nil {
		c.r.t.Fatalf("post: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.r.t.Fatalf("read answer: %v", err)
	}
	if resp.StatusCode != http.StatusOK {
		c.r.t.Fatalf("status: got %d (%s), want 200", resp.StatusCode, body)
	}
	return body
}

// call makes a call; exactly one of its results is set.
func (c *caller) call(method string, params ...xmlrpc.Value) (xmlrpc.Value, *xmlrpc.Fault) {
	c.r.t.Helper()
	return parseAnswer(c.r.t, c.post(xmlrpc.AppendCall(nil, method, params...)))
}

func parseAnswer(t *testing.T, doc []byte) (xmlrpc.Value, *xmlrpc.Fault) {
	t.Helper()
	lim := xmlrpc.DefaultLimits()
	lim.Bytes, lim.Values = 16<<20, 1<<20
	resp, err := xmlrpc.ParseResponse(doc, "", lim)
	if err != nil {
		t.Fatalf("parse answer %q: %v", doc[:min(len(doc), 300)], err)
	}
	return resp.Value, resp.Fault
}

// must makes a call that has to succeed.
func (c *caller) must(method string, params ...xmlrpc.Value) xmlrpc.Value {
	c.r.t.Helper()
	v, fault := c.call(method, params...)
	if fault != nil {
		c.r.t.Fatalf("%s: got %v, want an answer", method, fault)
	}
	return v
}

// mustFault makes a call that has to fault with a code and a text containing
// all of some words.
func (c *caller) mustFault(code int, words string, method string, params ...xmlrpc.Value) string {
	c.r.t.Helper()
	v, fault := c.call(method, params...)
	if fault == nil {
		c.r.t.Fatalf("%s: got %s, want a fault %d", method, v.Raw(), code)
	}
	if fault.Code != code || !strings.Contains(fault.Text, words) {
		c.r.t.Errorf("%s: got %v, want code %d and a text with %q", method, fault, code, words)
	}
	return fault.Text
}

// str makes a struct of alternating names and values (string, int, bool, Value).
func str(pairs ...any) xmlrpc.Value {
	var fields []xmlrpc.Field
	for i := 0; i < len(pairs); i += 2 {
		fields = append(fields, xmlrpc.Field{Name: pairs[i].(string), Value: val(pairs[i+1])})
	}
	return xmlrpc.NewStruct(fields...)
}

func val(x any) xmlrpc.Value {
	switch x := x.(type) {
	case xmlrpc.Value:
		return x
	case string:
		return xmlrpc.NewString(x)
	case int:
		return xmlrpc.NewInt(int64(x))
	case float64:
		return xmlrpc.NewDouble(x)
	case bool:
		return xmlrpc.NewBool(x)
	}
	panic("val: unknown type")
}

// register registers a satellite and gives its id.
func (c *caller) register(port int, more ...any) string {
	c.r.t.Helper()
	id, _ := c.must("relay.register", str(append([]any{"port", port}, more...)...)).Str()
	return id
}

// raw is a connection on which a test writes HTTP itself.
type raw struct {
	net.Conn
	t  *testing.T
	br *bufio.Reader
}

func (r *relayUnderTest) raw(t *testing.T) *raw {
	t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return &raw{c, t, bufio.NewReader(c)}
}

// send writes text; the other side may have closed already.
func (c *raw) send(text string) *raw {
	_, _ = io.WriteString(c, text)
	return c
}

// answer reads one response with its body.
func (c *raw) answer() (*http.Response, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		c.t.Fatalf("read response: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("read body: %v", err)
	}
	return resp, string(body)
}

// closed waits for the other side to close.
func (c *raw) closed() {
	c.t.Helper()
	if b, err := c.br.ReadByte(); err == nil {
		c.t.Errorf("got byte %q, want the connection closed", b)
	} else if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		c.t.Error("connection still open, want it closed")
	}
}

const pingDoc = `<?xml version="1.0"?><methodCall><methodName>ping</methodName></methodCall>`

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}
