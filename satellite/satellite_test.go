package satellite_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/co2relay/co2relay/internal/xmlrpc"
	"github.com/co2relay/co2relay/satellite"
)

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// start starts a satellite that is closed when the test ends.
func start(t *testing.T, r *fakeRelay, cfg satellite.Config) *satellite.Satellite {
	t.Helper()
	cfg.Relay, cfg.Listen = r.srv.URL, "127.0.0.1:0"
	s, err := satellite.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close satellite: %v", err)
		}
	})
	return s
}

// collect returns a Handler and the channel that it fills.
func collect() (func(context.Context, satellite.Notification) error, chan satellite.Notification) {
	got := make(chan satellite.Notification, 100)
	return func(_ context.Context, n satellite.Notification) error {
		got <- n
		return nil
	}, got
}

func next(t *testing.T, got chan satellite.Notification) satellite.Notification {
	t.Helper()
	select {
	case n := <-got:
		return n
	case <-testContext(t).Done():
		t.Fatal("got no notification")
		panic("unreachable")
	}
}

func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx := testContext(t)
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func TestEveryTypeArrivesAsItWasSent(t *testing.T) {
	t.Parallel()
	r := startFakeRelay(t)
	handler, got := collect()
	start(t, r, satellite.Config{Handler: handler})
	a := start(t, r, satellite.Config{})
	noon := time.Date(2003, 7, 1, 12, 0, 0, 0, time.UTC)
	type name string
	seven := 7
	for _, c := range []struct{ send, want any }{
		{int64(-5), int64(-5)},
		{7, int64(7)},
		{&seven, int64(7)},
		{uint16(65535), int64(65535)},
		{int64(1) << 40, float64(1 << 40)},
		{int64(math.MaxInt64), int64(math.MaxInt64)},
		{json.Number("12"), int64(12)},
		{1.5, 1.5},
		{float32(0.25), 0.25},
		{true, true},
		{"", ""},
		{" Grüße, 世界 & <co2>\r\n\t", " Grüße, 世界 & <co2>\r\n\t"},
		{name("x"), "x"},
		{[]byte{0, 255, 1}, []byte{0, 255, 1}},
		{noon.In(time.FixedZone("", 3600)), noon},
		{nil, nil},
		{[]string{"a", "b"}, []any{"a", "b"}},
		{[]any{}, []any{}},
		{map[string]int{"b": 2, "a": 1}, satellite.Struct{{Name: "a", Value: int64(1)}, {Name: "b", Value: int64(2)}}},
		{satellite.Struct{{Name: "z<", Value: []any{1, nil}}, {Name: "a", Value: satellite.Struct{}}},
			satellite.Struct{{Name: "z<", Value: []any{int64(1), nil}}, {Name: "a", Value: satellite.Struct{}}}},
	} {
		if err := a.Relay(testContext(t), c.send); err != nil {
			t.Errorf("relay %#v: %v", c.send, err)
			continue
		}
		if n := next(t, got); !reflect.DeepEqual(n.Data, c.want) || n.Sender != a.ID() {
			t.Errorf("relay %#v: got %#v from %s, want %#v from %s", c.send, n.Data, n.Sender, c.want, a.ID())
		}
	}
}

func TestWhatXMLCannotCarryIsRefusedBeforeItIsSent(t *testing.T) {
	t.Parallel()
	r := startFakeRelay(t)
	a := start(t, r, satellite.Config{})
	self := []any{nil}
	self[0] = self
	for _, data := range []any{"a\x00b", "\xff", "\uffff", math.NaN(), math.Inf(1), uint64(math.MaxUint64), json.Number("12345678901234567890"), make(chan int),
		struct{}{}, map[int]int{1: 1}, map[string]any{"\x01": 1}, self, time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if err := a.Relay(testContext(t), data); err == nil || errors.Is(err, satellite.ErrMaybeRelayed) {
			t.Errorf("relay %.40T: got %v, want a definite error", data, err)
		}
	}
	if n := r.count("relay.relay"); n != 0 {
		t.Errorf("got %d calls of relay.relay, want none", n)
	}
}

func TestFurtherMembersArriveAndReservedOnesAreRefused(t *testing.T) {
	t.Parallel()
	r := startFakeRelay(t)
	handler, got := collect()
	start(t, r, satellite.Config{Handler: handler})
	a := start(t, r, satellite.Config{})
	err := a.RelayMessage(testContext(t), satellite.Message{Data: 1, DedupID: "d1", Members: satellite.Struct{{Name: "x", Value: 2}}})
	if err != nil {
		t.Fatal(err)
	}
	n := next(t, got)
	want := satellite.Struct{{Name: "dedup_id", Value: "d1"}, {Name: "x", Value: int64(2)}}
	if !reflect.DeepEqual(n.Members, want) || n.MsgID == "" {
		t.Errorf("got %+v, want members %v and a msg_id", n, want)
	}
	for _, name := range []string{"host_id", "data", "dedup_id", "notify_pass", "msg_id"} {
		err := a.RelayMessage(testContext(t), satellite.Message{Members: satellite.Struct{{Name: name}}})
		if err == nil {
			t.Errorf("member %s: got no error", name)
		}
	}
}

func TestWrongPasswordIsPutOffAndReachesNoHandler(t *testing.T) {
	t.Parallel()
	r := startFakeRelay(t)
	handler, got := collect()
	s := start(t, r, satellite.Config{Handler: handler, NotifyPass: "right", CheckInterval: time.Hour})
	for _, pass := range []xmlrpc.Value{xmlrpc.NewString("wrong"), xmlrpc.NewString(""), xmlrpc.NewInt(1)} {
		doc := xmlrpc.AppendCall(nil, "notify", xmlrpc.NewStruct(xmlrpc.Field{Name: "notify_pass", Value: pass}))
		if answer := post("http://"+s.ID()+"/RPC2", doc); !strings.HasPrefix(answer, "status 503") {
			t.Errorf("password %s: got %s, want status 503, which loses nothing", pass.Raw(), answer)
		}
	}
	if len(got) != 0 {
		t.Errorf("got %d notifications, want none", len(got))
	}
	if n := r.count("relay.register"); n != 1 {
		t.Errorf("got %d registrations, want no more by a stranger's calls before the next check", n)
	}
}

func TestRepeatsReachTheHandlerOnce(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		remember int
		want     string
	}{{0, "[1 2 3]"}, {1, "[1 2 1 3]"}, {-1, "[1 1 2 1 3 3]"}} {
		r := startFakeRelay(t)
		var got []string
		s := start(t, r, satellite.Config{Remember: c.remember, Handler: func(_ context.Context, n satellite.Notification) error {
			got = append(got, n.MsgID)
			return nil
		}})
		for _, id := range []uint64{1, 1, 2, 1, 3, 3} {
			if answer := r.notifyOne(s.ID(), xmlrpc.NewStruct(), id); !strings.Contains(answer, "OK") {
				t.Errorf("remember %d: notify %d: got %s, want OK", c.remember, id, answer)
			}
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("remember %d: got %v, want %s", c.remember, got, c.want)
		}
	}
}

func TestHandlerErrorIsAFaultAndLaterA503(t *testing.T) {
	t.Parallel()
	r := startFakeRelay(t)
	var result error
	calls := 0
	s := start(t, r, satellite.Config{Handler: func(context.Context, satellite.Notification) error {
		calls++
		return result
	}})
	for _, c := range []struct {
		err  error
		want string
	}{
		{satellite.Later(0), `status 503, retry after ""`},
		{fmt.Errorf("busy: %w", satellite.Later(1500*time.Millisecond)), `status 503, retry after "2"`},
		{errors.New("I do not want it"), "fault 1: I do not want it"},
		{nil, "<value><string>OK</string></value>"}, // a repeat of what was refused
	} {
		result = c.err
		if got := r.notifyOne(s.ID(), xmlrpc.NewStruct(), 5); got != c.want {
			t.Errorf("handler's error %v: got %s, want %s", c.err, got, c.want)
		}
	}
	if calls != 3 {
		t.Errorf("got %d calls of the handler, want 3", calls)
	}
}

func TestHandlerRunsOnceAtATimeAndARepeatWaitsForIt(t *testing.T) {
	t.Parallel()
	r := startFakeRelay(t)
	began, end := make(chan bool, 10), make(chan bool)
	s := start(t, r, satellite.Config{Handler: func(context.Context, satellite.Notification) error {
		began <- true
		<-end
		return nil
	}})
	answers := make(chan string)
	for range 2 {
		go func() { answers <- r.notifyOne(s.ID(), xmlrpc.NewStruct(), 9) }()
	}
	<-began
	close(end)
	for range 2 {
		if got := <-answers; !strings.Contains(got, "OK") {
			t.Errorf("got %s, want OK", got)
		}
	}
	if len(began) != 0 {
		t.Error("the handler got the repeat")
	}
}

func TestPingAndIntrospection(t *testing.T) {
	t.Parallel()
	r := startFakeRelay(t)
	s := start(t, r, satellite.Config{})
	url := "http://" + s.ID()
	for _, c := range []struct{ path, method, param, want string }{
		{"/RPC2", "ping", "", "<string>pong</string>"},
		{"/", "ping", "ignored", "<string>pong</string>"},
		{"/", "system.listMethods", "", "<string>notify</string>"},
		{"/", "system.methodHelp", "notify", "struct with host_id"},
		{"/", "system.methodSignature", "system.methodHelp", "<array><data><value><string>string</string></value><value><string>string</string></value></data></array>"},
		{"/", "system.methodHelp", "nope", "fault -32601"},
		{"/", "system.methodHelp", "", "fault -32602"},
		{"/", "nope", "", "fault -32601"},
		{"/", "notify", "text", "fault -32602"},
	} {
		var params []xmlrpc.Value
		if c.param != "" {
			params = append(params, xmlrpc.NewString(c.param))
		}
		if got := post(url+c.path, xmlrpc.AppendCall(nil, c.method, params...)); !strings.Contains(got, c.want) {
			t.Errorf("%s(%s): got %s, want %s", c.method, c.param, got, c.want)
		}
	}
	if got := post(url, []byte("<a>")); !strings.Contains(got, "fault -32") {
		t.Errorf("not XML-RPC: got %s, want a fault", got)
	}
	resp, err := http.Get(url)
	if err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: got %v, %v; want 405", resp, err)
	}
	resp.Body.Close()
}

func TestUnknownOutcomesAreRepeatedUnderTheSameDedupID(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]*failure{
		"connection lost, not accepted": {hangUp: true},
		"connection lost, accepted":     {hangUp: true, accepted: true},
		"status 503":                    {status: 503},
		"may have been accepted":        {fault: registryFault("the message may have been accepted"), accepted: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startFakeRelay(t)
			handler, got := collect()
			start(t, r, satellite.Config{Handler: handler})
			a := start(t, r, satellite.Config{})
			r.setFail(func(method string, n int) *failure {
				if method == "relay.relay" && n <= 2 {
					return f
				}
				return nil
			})
			if err := a.Relay(testContext(t), "x"); err != nil {
				t.Errorf("relay: got %v, want success by repeating", err)
			}
			if n := len(got); n != 1 || r.count("relay.relay") != 3 || len(r.dedup) != 1 {
				t.Errorf("got %d notifications, %d calls, dedup_ids %v; want 1, 3, one", n, r.count("relay.relay"), r.dedup)
			}
		})
	}
}

func TestRefusalsAreNotRepeated(t *testing.T) {
	t.Parallel()
	r := startFakeRelay(t)
	a := start(t, r, satellite.Config{})
	r.setFail(func(method string, _ int) *failure {
		if method == "relay.relay" {
			return &failure{fault: registryFault("queue full")}
		}
		return nil
	})
	var fault *satellite.Fault
	err := a.Relay(testContext(t), "x")
	if !errors.As(err, &fault) || errors.Is(err, satellite.ErrMaybeRelayed) || r.count("relay.relay") != 1 {
		t.Errorf("got %v after %d calls, want the fault after one", err, r.count("relay.relay"))
	}
}

func TestAnOutcomeThatStaysUnknownIsSaidToBe(t *testing.T) {
	t.Parallel()
	r := startFakeRelay(t)
	a := start(t, r, satellite.Config{})
	r.setFail(func(method string, _ int) *failure {
		if method == "relay.relay" {
			return &failure{hangUp: true}
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := a.Relay(ctx, "x"); !errors.Is(err, satellite.ErrMaybeRelayed) {
		t.Errorf("got %v, want ErrMaybeRelayed", err)
	}
}

// A message that may be in the log must not be repeated when the relay has
// forgotten its dedup_id, however long the satellite waits to be registered.
func TestAnUnsureMessageDoesNotWaitForARegistrationForEver(t *testing.T) {
	t.Parallel()
	r := startFakeRelay(t)
	a := start(t, r, satellite.Config{CheckInterval: time.Hour})
	a.SetRepeatFor(2 * time.Second)
	r.setFail(func(method string, n int) *failure {
		switch {
		case method == "relay.relay" && n == 1:
			r.sats = map[string]xmlrpc.Value{}
			return &failure{hangUp: true}
		case method == "relay.register":
			return &failure{fault: registryFault("full")}
		}
		return nil
	})
	if err := a.Relay(context.Background(), "x"); !errors.Is(err, satellite.ErrMaybeRelayed) {
		t.Errorf("got %v, want ErrMaybeRelayed", err)
	}
}

func TestAfterCloseRelayFailsAndCloseIsRepeatable(t *testing.T) {
	t.Parallel()
	r := startFakeRelay(t)
	a := start(t, r, satellite.Config{CheckInterval: time.Hour})
	waiting := make(chan error)
	r.setFail(func(method string, _ int) *failure {
		if method == "relay.register" {
			return &failure{fault: registryFault("full")}
		}
		return nil
	})
	r.forgetAll()
	go func() { waiting <- a.Relay(context.Background(), "x") }()
	waitUntil(t, "the satellite is not registered", func() bool { return a.ID() == "" })
	for range 2 {
		if err := a.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	for _, err := range []error{<-waiting, a.Relay(context.Background(), "x")} {
		if err == nil || errors.Is(err, satellite.ErrMaybeRelayed) {
			t.Errorf("relay: got %v, want a definite error", err)
		}
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	for _, cfg := range []satellite.Config{{}, {Relay: "relay.example:2003"}, {Relay: "ftp://x"}, {Relay: "http://"},
		{Relay: "http://x", Port: 65536}, {Relay: "http://x", Nick: "\x01"}, {Relay: "http://me:hush/hush@x"}} {
		if _, err := satellite.New(cfg); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%+v: got %v, want an error without a password", cfg, err)
		}
	}
}

func TestThePasswordInTheRelaysURLIsNotShown(t *testing.T) {
	t.Parallel()
	r := startFakeRelay(t)
	var told bytes.Buffer
	s, err := satellite.New(satellite.Config{Relay: strings.Replace(r.srv.URL, "//", "//me:hush@", 1), Listen: "127.0.0.1:0",
		Logger: hclog.New(&hclog.LoggerOptions{Output: &told})})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if log := told.String(); !strings.Contains(log, "relay="+r.srv.URL+" ") || strings.Contains(log, "hush") {
		t.Errorf("got log %q, want the URL without its password", log)
	}
}
