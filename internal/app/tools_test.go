package app

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/co2relay/co2relay/internal/freeport"
	"github.com/co2relay/co2relay/satellite"
	"github.com/co2relay/co2relay/satellite/satellitetest"
)

// startToolRelay runs a relay of the test's own and returns its URL.
func startToolRelay(t *testing.T) string {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Listen, cfg.Admin, cfg.Broker.Data, cfg.Broker.MinFree = "127.0.0.1:0", "", t.TempDir(), 1<<20
	ctx, cancel := context.WithCancel(context.Background())
	opened, ended := make(chan net.Addr, 1), make(chan error, 1)
	go func() { ended <- Serve(ctx, cfg, hclog.NewNullLogger(), func(a net.Addr) { opened <- a }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	select {
	case a := <-opened:
		return "http://" + a.String()
	case err := <-ended:
		ended <- nil
		t.Fatalf("serve ended at once: %v", err)
		return ""
	}
}

type toolFunc func(context.Context, []string, io.Reader, io.Writer, io.Writer) int

// run runs a command to its end.
func run(t *testing.T, f toolFunc, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, err bytes.Buffer
	code = f(ctx, args, strings.NewReader(stdin), &out, &err)
	return code, out.String(), err.String()
}

// satelliteRun is the satellite command while it runs.
type satelliteRun struct {
	stdin  io.WriteCloser
	stdout *bufio.Reader
	code   chan int
}

func startSatelliteCommand(t *testing.T, args ...string) *satelliteRun {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	logR, logW := io.Pipe()
	r := &satelliteRun{stdin: inW, stdout: bufio.NewReader(outR), code: make(chan int, 1)}
	go func() {
		r.code <- SatelliteCommand(ctx, args, inR, outW, logW)
		outW.Close()
		logW.Close()
	}()
	registered := make(chan bool, 1)
	go func() {
		for s := bufio.NewScanner(logR); s.Scan(); {
			if strings.Contains(s.Text(), ": registered") {
				registered <- true
			}
		}
	}()
	select {
	case <-registered:
	case code := <-r.code:
		t.Fatalf("satellite ended at once with %d", code)
	}
	return r
}

func TestSatelliteCommandPrintsWhatSendSends(t *testing.T) {
	t.Parallel()
	url := startToolRelay(t)
	s := startSatelliteCommand(t, "--relay", url, "--nick", "s", "--count", "4")
	for _, c := range []struct {
		args  []string
		stdin string
		want  string
	}{
		{[]string{`{"z":1,"a":[null,true,2.5,"ü <&>"],"big":5000000000}`}, "", `{"z":1,"a":[null,true,2.5,"ü <&>"],"big":5000000000}`},
		{[]string{"plain text"}, "", `"plain text"`},
		{[]string{"--text", "5"}, "", `"5"`},
		{[]string{"-"}, "[1,\n2]\n", `[1,2]`},
	} {
		code, out, errs := run(t, SendCommand, c.stdin, append([]string{"--relay", url}, c.args...)...)
		id, ok := strings.CutPrefix(strings.TrimSpace(out), "relayed as ")
		if code != ExitOK || !ok {
			t.Fatalf("send %q: got code %d, output %q %q; want 0 and an id", c.args, code, out, errs)
		}
		line, err := s.stdout.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			MsgID   string          `json:"msg_id"`
			HostID  string          `json:"host_id"`
			Data    json.RawMessage `json:"data"`
			Members json.RawMessage `json:"members"`
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		if unescaped(string(got.Data)) != c.want || got.HostID != id || got.MsgID == "" || got.Members != nil {
			t.Errorf("send %q: got line %s, want data %s of %s", c.args, line, c.want, id)
		}
	}
	if code := <-s.code; code != ExitOK {
		t.Errorf("satellite --count: got code %d, want 0", code)
	}
}

// unescaped undoes what encoding/json escapes for browsers.
func unescaped(s string) string {
	return strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(s)
}

func TestSatelliteCommandRelaysItsInputAndSaysWhichLineIsWrong(t *testing.T) {
	t.Parallel()
	url := startToolRelay(t)
	listener := startSatelliteCommand(t, "--relay", url, "--count", "2")
	code, _, errs := run(t, SatelliteCommand, "{\"n\":1}\n\nnot json\n[2]", "--relay", url, "--exit-on-eof", "--log-level", "off")
	if code != ExitError || !strings.Contains(errs, "line 3 of standard input") {
		t.Errorf("got code %d, errors %q; want 1 because of line 3", code, errs)
	}
	for _, want := range []string{`"data":{"n":1}`, `"data":[2]`} {
		if line, err := listener.stdout.ReadString('\n'); !strings.Contains(line, want) {
			t.Errorf("got %q, %v; want %s", line, err, want)
		}
	}
	if code := <-listener.code; code != ExitOK {
		t.Errorf("listener: got code %d, want 0", code)
	}
}

func TestCheckSaysThatAllIsWell(t *testing.T) {
	t.Parallel()
	url := startToolRelay(t)
	code, out, errs := run(t, CheckCommand, "", url)
	for _, want := range []string{"registered as 127.0.0.1:", "an address of its own", "ping arrived", "can use this relay"} {
		if !strings.Contains(out, want) {
			t.Errorf("got %q, want it to say %q", out, want)
		}
	}
	if code != ExitOK || errs != "" {
		t.Errorf("got code %d, errors %q; want 0, none", code, errs)
	}
}

func TestCheckSaysThatTheCallBackFails(t *testing.T) {
	t.Parallel()
	url := startToolRelay(t)
	// It refuses, and keeps its port from others.
	closed := satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Mode: satellitetest.Down}})
	port := fmt.Sprint(closed.Port())
	code, out, _ := run(t, CheckCommand, "", "--forwarded-port", port, url)
	if code != ExitError || !strings.Contains(out, "call back to 127.0.0.1:"+port+" failed") || !strings.Contains(out, "what to do") {
		t.Errorf("got code %d, output %q; want 1 and why", code, out)
	}
}

// The satellite of the port is away and owed messages; its pings fail.
func TestToolsAtASatellitesPortTakeNothingFromIt(t *testing.T) {
	t.Parallel()
	s := startSite(t, func(c *Config) { c.Pinger.Interval = 200 * time.Millisecond })
	from, port := s.satellite(satellitetest.Behaviour{}), fmt.Sprint(freeport.Port(t))
	got := make(chan any, 10)
	open := func() *satellite.Satellite {
		sat, err := satellite.New(satellite.Config{Relay: s.url, Listen: "127.0.0.1:" + port, StayKnown: true,
			Handler: func(_ context.Context, n satellite.Notification) error { got <- n.Data; return nil }})
		if err != nil {
			t.Fatal(err)
		}
		if err := sat.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		return sat
	}
	away := open()
	id := away.ID()
	if err := away.Close(); err != nil {
		t.Fatal(err)
	}
	s.relay(from, 3)
	client, err := satellite.NewClient(s.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	eventually(t, "its pings fail", func() bool {
		n, _ := (&check{client: client}).failures(t.Context(), id)
		return n > 0 && s.status().Accounts.Owed == 3
	})
	code, out, errs := run(t, SendCommand, "", "--relay", s.url, "--port", port, "--json", "x")
	var done sent
	if err := json.Unmarshal([]byte(out), &done); code != ExitOK || err != nil || done != (sent{id, true}) || !strings.Contains(errs, "stays registered") {
		t.Errorf("send: got code %d, %q, %q; want that %s stays registered", code, out, errs, id)
	}
	if code, out, _ = run(t, CheckCommand, "", "--port", port, s.url); code != ExitOK || !strings.Contains(out, "stays registered") {
		t.Errorf("check: got code %d, %q; want 0, and that it stays registered", code, out)
	}
	eventually(t, "it is owed the 3 of before", func() bool { return s.status().Accounts.Owed == 3 })
	back := open()
	for _, want := range []any{"0", "1", "2"} {
		select {
		case data := <-got:
			if data != want {
				t.Errorf("back again: got %v, want %v", data, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("back again: message %v does not come", want)
		}
	}
	if err := back.Close(); err != nil {
		t.Error(err)
	}
}

func TestCheckExplainsWhatIsNoRelay(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	gone := satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Mode: satellitetest.Down}})
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(tls.Close)
	for _, c := range []struct{ url, want string }{
		{web.URL, "404"},
		{web.URL, "something else than a relay"},
		{"http://" + gone.ID(), "nothing listens there"},
		{"http://relay.invalid:2003", "the name is not known"},
		{tls.URL, "certificate"},
		{strings.Replace(web.URL, "http:", "https:", 1), "use http://"},
	} {
		code, out, _ := run(t, CheckCommand, "", c.url)
		if code != ExitError || !strings.Contains(out, c.want) {
			t.Errorf("%s: got code %d, output %q; want 1 and %q", c.url, code, out, c.want)
		}
	}
}

func TestToolsReportEveryWrongFlagAtOnceAndHelp(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]toolFunc{"satellite": SatelliteCommand, "send": SendCommand, "check": CheckCommand} {
		code, _, errs := run(t, f, "", "--relay", "nonsense", "--port", "70000", "--bind", "here", "--log-level", "loud", "a", "b")
		for _, want := range []string{"--relay", "--port", "--bind", "--log-level", "argument"} {
			if !strings.Contains(errs, want) {
				t.Errorf("%s: got %q, want a word on %s", name, errs, want)
			}
		}
		if code != ExitUsage {
			t.Errorf("%s: got code %d, want 2", name, code)
		}
		code, out, _ := run(t, f, "", "--help")
		if code != ExitOK || !strings.Contains(out, "Exit codes:") || !strings.Contains(out, "--port") {
			t.Errorf("%s --help: got code %d, %q; want 0, flags and exit codes", name, code, out)
		}
	}
}

func TestToolsTakeFlagsFromTheEnvironment(t *testing.T) {
	t.Setenv("CO2_RELAY", "http://me:hush@127.0.0.1:1")
	code, _, errs := run(t, SendCommand, "", "--timeout", "1s", "x")
	if code != ExitError || !strings.Contains(errs, "127.0.0.1:1") || strings.Contains(errs, "hush") {
		t.Errorf("got code %d, %q; want 1 and CO2_RELAY's address without its password", code, errs)
	}
}

func TestSendDoesNotGuessAboutNumbersThatDoNotFit(t *testing.T) {
	t.Parallel()
	url := startToolRelay(t)
	code, _, errs := run(t, SendCommand, "", "--relay", url, "12345678901234567890")
	if code != ExitError || !strings.Contains(errs, "send it as a string") {
		t.Errorf("got code %d, %q; want 1 and advice", code, errs)
	}
}

func TestJSONKeepsTheOrderOfMembersAndIsReadWhole(t *testing.T) {
	t.Parallel()
	for _, good := range []string{`{"b":1,"a":{"d":[],"c":{}}}`, `[1,"x",null,true,1.5]`, `"x"`, ` 7 `} {
		v, err := parseJSON(good)
		out, _ := json.Marshal(v)
		if err != nil || string(out) != strings.TrimSpace(good) {
			t.Errorf("%s: got %s, %v; want the same", good, out, err)
		}
	}
	for _, bad := range []string{``, `{`, `[1`, `{"a"}`, `1 2`, `]`, `nonsense`, strings.Repeat("[", 200) + strings.Repeat("]", 200)} {
		if v, err := parseJSON(bad); err == nil {
			t.Errorf("%.20s: got %v, want an error", bad, v)
		}
	}
}

func TestJSONCannotMoveATerminalsCursor(t *testing.T) {
	t.Parallel()
	const text = "a\x1b[2J\u009b1m\u202e<\U000e0041>é\n"
	b, err := encodeJSON(map[string]string{"nick": text}, "")
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"nick":"a\u001b[2J\u009b1m\u202e<\udb40\udc41>é\n"}` + "\n"; string(b) != want {
		t.Errorf("got %s, want %s", b, want)
	}
	var back map[string]string
	if err := json.Unmarshal(b, &back); err != nil || back["nick"] != text {
		t.Errorf("read back: got %q, %v, want %q", back["nick"], err, text)
	}
}

func TestEveryWrongFlagIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	f := newFlagSet("test", "")
	f.lookup = func(string) (string, bool) { return "", false }
	nick := f.String("nick", "", "")
	on := f.Bool("on", false, "")
	f.Int("number", 0, "")
	err := f.parse([]string{"--nick", "--odd", "--nix", "--number=x", "--no", "--on", "word", "--", "--after"})
	for _, want := range []string{"unknown flag: --nix", "unknown flag: --no", `--number: "x" is not a whole number`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if *nick != "--odd" || !*on || !slices.Equal(f.Args(), []string{"word", "--after"}) {
		t.Errorf("got nick %q, on %t, arguments %q; want --odd, true, word and --after", *nick, *on, f.Args())
	}
}
