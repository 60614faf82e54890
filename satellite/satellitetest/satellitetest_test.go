package satellitetest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/co2relay/co2relay/satellite/satellitetest"
)

func notifyDoc(id, data string) string {
	return `<?xml version="1.0"?><methodCall><methodName>notify</methodName><params><param><value><struct>` +
		`<member><name>host_id</name><value><string>127.0.0.1:9</string></value></member>` +
		`<member><name>data</name>` + data + `</member>` +
		`<member><name>notify_pass</name><value><string>pw</string></value></member>` +
		`<member><name>msg_id</name><value><string>` + id + `</string></value></member>` +
		`</struct></value></param></params></methodCall>`
}

const pingDoc = `<?xml version="1.0"?><methodCall><methodName>ping</methodName><params></params></methodCall>`

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// post makes one call on a connection of its own or, with keep, on hc's.
func post(t *testing.T, hc *http.Client, s *satellitetest.Satellite, doc string) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(testContext(t), http.MethodPost, "http://"+s.ID()+"/RPC2", strings.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

func newClient(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func TestRecordsOrderRepeatsAndContents(t *testing.T) {
	t.Parallel()
	s := satellitetest.Start(t, satellitetest.Options{Keep: satellitetest.KeepBodies, NotifyPass: "pw"})
	hc := newClient(t)
	nested := `<value><struct><member><name>msg_id</name><value><string>777</string></value></member></struct></value>`
	for _, id := range []string{"10", "11", "11", "14", "12", "12", "x"} {
		if _, body, err := post(t, hc, s, notifyDoc(id, nested)); err != nil || !strings.Contains(body, "<string>OK</string>") {
			t.Fatalf("notify %s: got %q, %v; want OK", id, body, err)
		}
	}
	got := s.Stats()
	want := satellitetest.Stats{Notifies: 7, Distinct: 5, Repeats: 2, OutOfOrder: 2, NoMsgID: 1, Connections: 1, LastMsgID: 14}
	if got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if ids := fmt.Sprint(s.IDs()); ids != "[10 11 14 0 12]" {
		t.Errorf("got ids %s, want [10 11 14 0 12]", ids)
	}
	all := s.Received()
	if n := all[3]; n.MsgID != 14 || n.Sender != "127.0.0.1:9" || n.NotifyPass != "pw" || n.Data != nested || !n.Settled {
		t.Errorf("got %+v; want msg_id 14 with its members", n)
	}
}

func TestAnswersInEveryShape(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		b       satellitetest.Behaviour
		status  int
		body    string // "" = an error is wanted
		settled bool
	}{
		"plain":            {satellitetest.Behaviour{}, 200, ">OK<", true},
		"fault":            {satellitetest.Behaviour{Mode: satellitetest.Fault}, 200, "<fault>", true},
		"garbage":          {satellitetest.Behaviour{Mode: satellitetest.Garbage}, 200, "not XML-RPC", true},
		"truncated":        {satellitetest.Behaviour{Mode: satellitetest.Truncate}, 200, "", false},
		"truncated chunks": {satellitetest.Behaviour{Mode: satellitetest.Truncate, Chunked: true}, 200, "", false},
		"dropped":          {satellitetest.Behaviour{Mode: satellitetest.Drop}, 0, "", false},
		"http 1.0":         {satellitetest.Behaviour{HTTP10: true, NoLength: true}, 200, ">OK<", true},
		"no length":        {satellitetest.Behaviour{NoLength: true}, 200, ">OK<", true},
		"chunked":          {satellitetest.Behaviour{Chunked: true}, 200, ">OK<", true},
		"LF only":          {satellitetest.Behaviour{LFOnly: true}, 200, ">OK<", true},
		"bytewise":         {satellitetest.Behaviour{Bytewise: true, Continue: true}, 200, ">OK<", true},
		"padded":           {satellitetest.Behaviour{Padding: 100_000}, 200, ">OK<", true},
		"redirect":         {satellitetest.Behaviour{Status: 302, Location: "http://127.0.0.1:1/"}, 302, "302", true},
		"not found":        {satellitetest.Behaviour{Status: 404}, 404, "404", true},
		"too many":         {satellitetest.Behaviour{Status: 429}, 429, "429", false},
		"unavailable":      {satellitetest.Behaviour{Status: 503, RetryAfter: "7"}, 503, "503", false},
		"error with body":  {satellitetest.Behaviour{Status: 500, WithBody: true}, 500, ">OK<", true},
		"closing":          {satellitetest.Behaviour{Close: true}, 200, ">OK<", true},
		"slow":             {satellitetest.Behaviour{Delay: 20 * time.Millisecond}, 200, ">OK<", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := satellitetest.Start(t, satellitetest.Options{Behaviour: c.b})
			resp, body, err := post(t, newClient(t), s, notifyDoc("5", "<value><int>1</int></value>"))
			if (err == nil) != (c.body != "") {
				t.Fatalf("got error %v, want error %v", err, c.body == "")
			}
			if err == nil && (resp.StatusCode != c.status || !strings.Contains(body, c.body)) {
				t.Errorf("got %d %.200q, want %d %q", resp.StatusCode, body, c.status, c.body)
			}
			if err == nil && resp.Header.Get("Retry-After") != c.b.RetryAfter {
				t.Errorf("got Retry-After %q, want %q", resp.Header.Get("Retry-After"), c.b.RetryAfter)
			}
			if st := s.Stats(); st.Notifies < 1 || (st.Distinct == 1) != c.settled {
				t.Errorf("got %+v, want settled %v", st, c.settled)
			}
		})
	}
}

func TestConnectionsStayOpenUnlessToldOtherwise(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		b    satellitetest.Behaviour
		want uint64 // connections for three calls
	}{
		"kept":        {satellitetest.Behaviour{}, 1},
		"closing":     {satellitetest.Behaviour{Close: true}, 3},
		"http 1.0":    {satellitetest.Behaviour{HTTP10: true}, 3},
		"drop reused": {satellitetest.Behaviour{DropReused: true}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := satellitetest.Start(t, satellitetest.Options{Behaviour: c.b})
			hc := newClient(t)
			for i := range 3 {
				_, _, err := post(t, hc, s, pingDoc)
				if err != nil && c.b.DropReused { // net/http does not repeat a POST
					_, _, err = post(t, hc, s, pingDoc)
				}
				if err != nil {
					t.Fatalf("ping %d: %v", i, err)
				}
			}
			if got := s.Stats(); got.Connections != c.want || got.Pings != 3 {
				t.Errorf("got %d connections, %d pings; want %d, 3", got.Connections, got.Pings, c.want)
			}
		})
	}
}

func TestHangEndsWhenTheBehaviourIsSwitched(t *testing.T) {
	t.Parallel()
	s := satellitetest.Start(t, satellitetest.Options{})
	s.SetNotify(satellitetest.Behaviour{Mode: satellitetest.Hang})
	failed := make(chan error)
	go func() {
		_, _, err := post(t, newClient(t), s, notifyDoc("5", "<value><int>1</int></value>"))
		failed <- err
	}()
	if err := s.WaitFor(testContext(t), func(st satellitetest.Stats) bool { return st.Failed == 1 }); err != nil {
		t.Fatal(err)
	}
	if _, body, err := post(t, newClient(t), s, pingDoc); err != nil || !strings.Contains(body, "pong") {
		t.Fatalf("ping beside a hanging notify: got %q, %v; want pong", body, err)
	}
	s.SetBehaviour(satellitetest.Behaviour{})
	if err := <-failed; err == nil {
		t.Error("hanging call: got an answer, want an error")
	}
	if _, _, err := post(t, newClient(t), s, notifyDoc("5", "<value><int>1</int></value>")); err != nil {
		t.Errorf("notify after the switch: %v", err)
	}
}

func TestDownRefusesAndComesBackOnTheSamePort(t *testing.T) {
	t.Parallel()
	s := satellitetest.Start(t, satellitetest.Options{})
	hc := newClient(t)
	for range 3 {
		if _, _, err := post(t, hc, s, pingDoc); err != nil {
			t.Fatalf("ping while up: %v", err)
		}
		s.SetBehaviour(satellitetest.Behaviour{Mode: satellitetest.Down})
		if _, _, err := post(t, newClient(t), s, pingDoc); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("ping while down: got %v, want connection refused", err)
		}
		hc.CloseIdleConnections()
		s.SetBehaviour(satellitetest.Behaviour{})
	}
}

func TestOneAtATimeKeepsOthersWaiting(t *testing.T) {
	t.Parallel()
	s := satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{OneAtATime: true}})
	first, err := net.Dial("tcp", s.ID())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	call := fmt.Sprintf("POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s", len(pingDoc), pingDoc)
	fmt.Fprint(first, call)
	resp, err := http.ReadResponse(bufio.NewReader(first), nil)
	if err != nil {
		t.Fatalf("first connection: %v", err)
	}
	resp.Body.Close()

	second, err := net.Dial("tcp", s.ID())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	fmt.Fprint(second, call)
	if err := s.WaitFor(testContext(t), func(st satellitetest.Stats) bool { return st.Connections == 2 }); err != nil {
		t.Fatal(err)
	}
	if got := s.Stats().Pings; got != 1 {
		t.Errorf("got %d pings while the first connection stands, want 1", got)
	}
	first.Close()
	if resp, err = http.ReadResponse(bufio.NewReader(second), nil); err != nil {
		t.Fatalf("second connection after the first: %v", err)
	}
	resp.Body.Close()
}

func TestTimesFailsThatOftenOnly(t *testing.T) {
	t.Parallel()
	s := satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Status: 503, Times: 2}})
	hc, got := newClient(t), []int{}
	for range 4 {
		resp, _, err := post(t, hc, s, notifyDoc("5", "<value><int>1</int></value>"))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, resp.StatusCode)
	}
	if fmt.Sprint(got) != "[503 503 200 200]" {
		t.Errorf("got statuses %v, want [503 503 200 200]", got)
	}
	if st := s.Stats(); st.Failed != 2 || st.Distinct != 1 || st.Repeats != 1 {
		t.Errorf("got %+v, want 2 failed, 1 distinct, 1 repeat", st)
	}
}

func TestOverlappingNotifiesAreCounted(t *testing.T) {
	t.Parallel()
	s := satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Mode: satellitetest.Hang}})
	var wg sync.WaitGroup
	for _, id := range []string{"1", "2"} {
		wg.Go(func() {
			_, _, _ = post(t, newClient(t), s, notifyDoc(id, "<value><int>1</int></value>"))
		})
	}
	err := s.WaitFor(testContext(t), func(st satellitetest.Stats) bool { return st.Notifies == 2 })
	s.SetBehaviour(satellitetest.Behaviour{})
	wg.Wait()
	if got := s.Stats(); err != nil || got.Overlapping != 1 {
		t.Errorf("got %+v, %v; want 1 overlapping", got, err)
	}
}

// BenchmarkNotify shows what a receiver costs: it must stay small beside the
// relay that it helps to measure.
func BenchmarkNotify(b *testing.B) {
	fleet := satellitetest.StartFleet(b, 64, satellitetest.Options{})
	doc := notifyDoc("1234567890", "<value><string>"+strings.Repeat("x", 500)+"</string></value>")
	call := fmt.Appendf(nil, "POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s", len(doc), doc)
	b.ReportAllocs()
	var mu sync.Mutex
	next := 0
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		mu.Lock()
		s := fleet[next%len(fleet)]
		next++
		mu.Unlock()
		c, err := net.Dial("tcp", s.ID())
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		buf := make([]byte, 4096)
		for pb.Next() {
			if _, err := c.Write(call); err != nil {
				b.Error(err)
				return
			}
			if _, err := c.Read(buf); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
