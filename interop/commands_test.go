package interop

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kolo/xmlrpc"

	"github.com/co2relay/co2relay/satellite"
	"github.com/co2relay/co2relay/satellite/satellitetest"
)

func TestXMLRPCCCommandCallsEveryScalarType(t *testing.T) {
	t.Parallel()
	p := peer{name: "xmlrpc-c", probe: []string{"xmlrpc", "-h"}, debs: "libxmlrpc-core-c3-dev"}
	if _, err := exec.LookPath("xmlrpc"); err == nil {
		p.probe = []string{"true"} // the command has no option that does nothing
	}
	p.need(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"ping"}, "String: 'pong'"},
		{[]string{"test", "s/" + text}, `String: 'Gr\xc3\xbc\xc3\x9fe, \xe4\xb8\x96\xe7\x95\x8c & <co2>'`},
		{[]string{"test", "i/-2147483648"}, "Integer: -2147483648"},
		{[]string{"test", "I/9007199254740993"}, "64-bit integer: 9007199254740993"},
		{[]string{"test", "b/true"}, "Boolean: TRUE"},
		{[]string{"test", "d/-0.125"}, "Floating Point: -0.125"},
		{[]string{"test", "h/00ff10"}, "00ff10"},
		{[]string{"test", "n/"}, "Nil"},
		{[]string{"relay.get_num_satellites"}, "Integer: "},
		{[]string{"system.get_properties"}, "co2_version"},
		{[]string{"no.such.method"}, "-32601"},
		{[]string{"relay.deregister", "s/127.0.0.1:1"}, "exceptions.KeyError:'127.0.0.1:1'"},
	} {
		cmd := exec.CommandContext(testContext(t), "xmlrpc", append([]string{relayURL}, c.args...)...)
		cmd.Env = append(peerEnv(), "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		if !strings.Contains(string(out), c.want) {
			t.Errorf("%v: got %s (%v), want %s", c.args, out, err, c.want)
		}
	}
}

// Python 2.3's xmlrpclib and httplib send this, and read to the end of the
// connection, whatever the length says.
func TestPython23IsServedOverHTTP10(t *testing.T) {
	t.Parallel()
	body := "<?xml version='1.0'?>\n<methodCall>\n<methodName>test</methodName>\n<params>\n<param>\n" +
		"<value><struct>\n<member>\n<name>a</name>\n<value><array><data>\n<value><int>1</int></value>\n" +
		"<value><string>x &amp; y</string></value>\n</data></array></value>\n</member>\n</struct></value>\n" +
		"</param>\n</params>\n</methodCall>\n"
	host := strings.TrimSuffix(strings.TrimPrefix(relayURL, "http://"), "/RPC2")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for _, packet := range []string{ // httplib of that time sends line by line
		"POST /RPC2 HTTP/1.0\r\n", "Host: " + host + "\r\n", "User-Agent: xmlrpclib.py/1.0.1 (by www.pythonware.com)\r\n",
		"Content-Type: text/xml\r\n", fmt.Sprintf("Content-Length: %d\r\n", len(body)), "\r\n", body,
	} {
		if _, err := io.WriteString(conn, packet); err != nil {
			t.Fatal(err)
		}
	}
	answer, err := io.ReadAll(conn) // ends only if the relay closes
	if err != nil {
		t.Fatalf("read to the end: %v", err)
	}
	head, doc, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
	status, headers, _ := strings.Cut(string(head), "\r\n")
	if !strings.HasPrefix(status, "HTTP/1.") || !strings.HasSuffix(status, " 200 OK") {
		t.Errorf("got status line %q, want 200 OK", status)
	}
	lower := strings.ToLower(headers)
	if !strings.Contains(lower, fmt.Sprintf("content-length: %d", len(doc))) || strings.Contains(lower, "chunked") ||
		!strings.Contains(lower, "content-type: text/xml") {
		t.Errorf("got headers\n%s\nwant text/xml with Content-Length %d and no chunks", headers, len(doc))
	}
	want := "<struct><member><name>a</name><value><array><data><value><int>1</int></value><value><string>x &amp; y</string></value>" +
		"</data></array></value></member></struct>"
	if !strings.Contains(string(doc), want) {
		t.Errorf("got %s, want it to contain %s", doc, want)
	}
}

// A satellite that answers as Python 2.3's SimpleXMLRPCServer does, or in
// worse ways that were seen.
func TestSatellitesWithOldHTTPAreNotified(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]satellitetest.Behaviour{
		"HTTP 1.0":                 {HTTP10: true},
		"HTTP 1.0 without length":  {HTTP10: true, NoLength: true},
		"LF only":                  {LFOnly: true, CloseSilently: true},
		"chunked":                  {Chunked: true},
		"one at a time, kept open": {OneAtATime: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := satellitetest.Start(t, satellitetest.Options{Behaviour: b, Keep: satellitetest.KeepBodies, NotifyPass: "pw"})
			id, err := s.Register(testContext(t), relayURL, name)
			if err != nil {
				t.Fatal(err)
			}
			defer forget(t, id)
			us, _ := startSatellite(t, func(satellite.Notification) bool { return false })
			for i := range 3 {
				if err := us.Relay(testContext(t), fmt.Sprint(name, " ", i)); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			ours := func(satellitetest.Stats) bool {
				got = nil
				for _, n := range s.Received() {
					if n.Sender == us.ID() {
						got = append(got, n.Data)
					}
				}
				return len(got) >= 3
			}
			err = s.WaitFor(testContext(t), ours)
			want := make([]string, 3)
			for i := range want {
				want[i] = fmt.Sprintf("<value><string>%s %d</string></value>", name, i)
			}
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got %q (%v), want %q", got, err, want)
			}
			if st := s.Stats(); st.WrongPass+st.Malformed+st.NoMsgID+st.Overlapping+st.OutOfOrder > 0 {
				t.Errorf("got %+v, want no wrong password, nothing malformed, overlapping or out of order", st)
			}
		})
	}
}

// kolo/xmlrpc's Client is one more that is not ours.
func TestKoloClientGetsBackEveryType(t *testing.T) {
	t.Parallel()
	c, err := xmlrpc.NewClient(relayURL, &http.Transport{Proxy: nil})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	type all struct {
		Text  string         `xmlrpc:"text"`
		N     int            `xmlrpc:"n"`
		D     float64        `xmlrpc:"d"`
		B     bool           `xmlrpc:"b"`
		Bin   xmlrpc.Base64  `xmlrpc:"bin"`
		When  time.Time      `xmlrpc:"when"`
		List  []string       `xmlrpc:"list"`
		Inner map[string]int `xmlrpc:"inner"`
	}
	want := all{text, -42, 1.5, true, "AP8Q", time.Date(2003, 7, 1, 12, 0, 0, 0, time.UTC), []string{"a", ""}, map[string]int{"x": 1}}
	var got all
	if err := c.Call("test", want, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("test: got %+v, %v; want %+v", got, err, want)
	}
	var fault *xmlrpc.FaultError
	if err := c.Call("no.such.method", nil, nil); err == nil || !strings.Contains(err.Error(), "-32601") {
		t.Errorf("no such method: got %v (%T), want a fault -32601", err, fault)
	}
}
