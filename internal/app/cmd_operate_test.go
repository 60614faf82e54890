package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/internal/freeport"
	"github.com/co2relay/co2relay/satellite/satellitetest"
)

func (s *site) explain(msg uint64, id string) (e explanation) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.must("explain", "--json", decimal(msg), id)), &e); err != nil {
		s.t.Fatal(err)
	}
	return e
}

// last is the msg_id of the last message.
func (s *site) last() uint64 {
	s.t.Helper()
	n, err := s.desk().clus.Log().Last(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// events gives the events of a kind about a satellite, by the command.
func (s *site) events(kind, id string) (all []cluster.Event) {
	s.t.Helper()
	args := []string{"events", "--json", "--kind", kind}
	if id != "" {
		args = append(args, "--satellite", id)
	}
	for _, line := range strings.Split(strings.TrimSpace(s.must(args...)), "\n") {
		var e cluster.Event
		if line == "" {
			continue
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			s.t.Fatalf("line %q: %v", line, err)
		}
		all = append(all, e)
	}
	return all
}

func TestExplainKnowsEveryFateOfAMessage(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil)
	well := s.satellite(satellitetest.Behaviour{})
	refusing := s.satellite(satellitetest.Behaviour{Mode: satellitetest.Fault})
	down := s.satellite(satellitetest.Behaviour{Mode: satellitetest.Down})
	other := s.satellite(satellitetest.Behaviour{})
	s.relay(well, 1)
	msg := s.last()
	late := s.satellite(satellitetest.Behaviour{})
	for _, c := range []struct {
		msg     uint64
		id      string
		verdict string
		words   string
	}{
		{msg, other.ID(), verdictDelivered, "its position is past it"},
		{msg, refusing.ID(), verdictRefused, "refused it"},
		{msg, down.ID(), verdictOwed, "after the 0 messages before it"},
		{msg, well.ID(), verdictOwn, "sent it itself"},
		{msg, late.ID(), verdictLater, fmt.Sprintf("those from %d on", msg+1)},
		{msg, "127.0.0.1:1", verdictUnknownSat, "no satellite is registered as 127.0.0.1:1"},
		{msg + 1, other.ID(), verdictNotYet, fmt.Sprintf("the log ends at %d", msg)},
		{5, other.ID(), verdictNever, "it began with"},
	} {
		var e explanation
		eventually(t, c.verdict, func() bool { e = s.explain(c.msg, c.id); return e.Verdict == c.verdict })
		if !strings.Contains(e.Text, c.words) || !e.Certain || e.Message != decimal(c.msg) {
			t.Errorf("%d for %s: got %+v, want a text with %q", c.msg, c.id, e, c.words)
		}
	}
	var owed explanation
	eventually(t, "the last error is known", func() bool { owed = s.explain(msg, down.ID()); return owed.Tries > 0 })
	if !strings.Contains(owed.Error, "refused") || owed.RetryAt == nil || owed.Sender != well.ID() || owed.Relayed == nil || owed.Worker == "" {
		t.Errorf("owed: got %+v, want the last error, the next call, sender, time and worker", owed)
	}
	text := s.must("explain", decimal(msg), down.ID())
	for _, want := range []string{"owed: " + down.ID(), "relayed by " + well.ID(), "position ", "next call at "} {
		if !strings.Contains(text, want) {
			t.Errorf("got:\n%s\nwant %q in it", text, want)
		}
	}
	s.must("skip", down.ID())
	eventually(t, "it is skipped", func() bool { e := s.explain(msg, down.ID()); return e.Verdict == verdictExpired && e.Certain })
	if e := s.explain(msg, down.ID()); !strings.Contains(e.Text, "an operator skipped it") {
		t.Errorf("skipped: got %+v, want that an operator did it", e)
	}
	s.must("kick", down.ID())
	if e := s.explain(msg, down.ID()); e.Verdict != verdictLeft || len(e.Notes) == 0 || !strings.Contains(strings.Join(e.Notes, " "), "operator") {
		t.Errorf("kicked: got %+v, want that an operator deregistered it", e)
	}
}

func TestKickDeregistersAndSaysWho(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil)
	from, down := s.satellite(satellitetest.Behaviour{}), s.satellite(satellitetest.Behaviour{Mode: satellitetest.Down})
	s.relay(from, 4)
	eventually(t, "it is owed", func() bool { return s.status().Accounts.Owed == 4 })
	if out := s.must("kick", down.ID()); !strings.Contains(out, "4 messages that it was owed are dropped") {
		t.Errorf("got %q, want the number of messages dropped", out)
	}
	eventually(t, "they are dropped", func() bool { a := s.status().Accounts; return a.Dropped == 4 && a.Owed == 0 && a.Balances })
	got := s.events(cluster.EventDeregistered, down.ID())
	if len(got) != 1 || got[0].Reason != "operator" || got[0].Generation == 0 {
		t.Errorf("events: got %+v, want one with the reason operator", got)
	}
	if code, _, errs := s.run("kick", down.ID()); code != ExitError || !strings.Contains(errs, "no satellite is registered as "+down.ID()) {
		t.Errorf("kick twice: got code %d, %q; want 1", code, errs)
	}
	for _, args := range [][]string{{"kick"}, {"kick", "nonsense"}, {"skip", "127.0.0.1:1", "--to", "soon"}, {"explain", "x", "y"}, {"events", "--kind", "nonsense"}} {
		if code, _, errs := s.run(args...); code != ExitUsage {
			t.Errorf("%v: got code %d, %q; want 2", args, code, errs)
		}
	}
}

func TestSkipLeavesWhatComesAfter(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil)
	from, down := s.satellite(satellitetest.Behaviour{}), s.satellite(satellitetest.Behaviour{Mode: satellitetest.Down})
	s.relay(from, 10)
	last := s.last()
	eventually(t, "it is owed", func() bool { return s.status().Accounts.Owed == 10 })
	out := s.must("skip", down.ID(), "--to", decimal(last-2))
	want := fmt.Sprintf("skipped 7 messages, %d to %d; %s goes on after %d", last-9, last-3, down.ID(), last-3)
	asked := fmt.Sprintf("%s is at %d already", down.ID(), last-3) // the worker was asked twice, as its first answer came late
	if !strings.Contains(out, want) && !strings.Contains(out, asked) {
		t.Errorf("got %q, want %q", out, want)
	}
	if out := s.must("skip", down.ID(), "--to", decimal(last-2)); !strings.Contains(out, "nothing is skipped") {
		t.Errorf("skip twice: got %q, want that nothing is skipped", out)
	}
	if code, _, errs := s.run("skip", down.ID(), "--to", decimal(last+2)); code != ExitError || !strings.Contains(errs, "is no message yet") {
		t.Errorf("beyond the end: got code %d, %q; want 1", code, errs)
	}
	down.SetBehaviour(satellitetest.Behaviour{})
	eventually(t, "it gets the rest", func() bool { return down.Stats().Distinct == 3 })
	if ids := down.IDs(); ids[0] != last-2 || down.Stats().Repeats != 0 {
		t.Errorf("got messages %v, want those from %d on", ids, last-2)
	}
	eventually(t, "the accounts tell", func() bool { a := s.status().Accounts; return a.Expired == 7 && a.Owed == 0 && a.Balances })
}

func TestSkipWithoutAWorkerSaysSo(t *testing.T) {
	t.Parallel()
	s := startSite(t, func(c *Config) { c.roles = roleFrontend })
	sat := s.satellite(satellitetest.Behaviour{})
	code, _, errs := s.run("skip", sat.ID(), "--timeout", "5s")
	if code != ExitError || !strings.Contains(errs, "is one running?") {
		t.Errorf("got code %d, %q; want 1 and a hint", code, errs)
	}
	var found bool
	for _, note := range s.status().Notes {
		found = found || strings.Contains(note, "partitions 0-31 have no delivery worker")
	}
	if !found {
		t.Errorf("status: got notes %q, want that there is no delivery worker", s.status().Notes)
	}
}

func TestEventsAreLinesForPeopleAndFollowed(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil)
	first := s.satellite(satellitetest.Behaviour{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- Main(ctx, []string{"events", "--follow", "--data", s.data, "--kind", "registered,deregistered"}, strings.NewReader(""), w, io.Discard)
		w.Close()
	}()
	lines := make(chan string, 16)
	go func() {
		for buf := make([]byte, 4096); ; {
			n, err := r.Read(buf)
			if err != nil {
				return
			}
			lines <- string(buf[:n])
		}
	}()
	next := func(want ...string) {
		t.Helper()
		select {
		case line := <-lines:
			for _, part := range want {
				if !strings.Contains(line, part) {
					t.Errorf("got line %q, want %q in it", line, part)
				}
			}
		case <-time.After(time.Minute):
			t.Fatalf("no line, want one with %q", want)
		}
	}
	next("registered", first.ID())
	second := satellitetest.Start(t, satellitetest.Options{})
	if _, err := second.Register(t.Context(), s.url, "evil\u202enick"); err != nil {
		t.Fatal(err)
	}
	next("registered", second.ID(), `"evil\u202enick"`)
	s.must("kick", second.ID())
	next("deregistered", second.ID(), "operator")
	cancel()
	if code := <-ended; code != ExitOK {
		t.Errorf("stopped: got code %d, want 0", code)
	}
}

// Issue 3, item 6: these kinds exist, each with a subject of its own and no
// other part in it.
func TestEveryKindOfEventIsToldOfInARealCluster(t *testing.T) {
	t.Parallel()
	var listen string
	s := startSite(t, func(c *Config) {
		listen = freeport.Addr(t)
		c.Broker.NATSListen, c.Pinger.Interval = listen, 200*time.Millisecond
		c.Pinger.Timeout = 200 * time.Millisecond
	})
	from, refusing := s.satellite(satellitetest.Behaviour{}), s.satellite(satellitetest.Behaviour{Mode: satellitetest.Fault})
	down := s.satellite(satellitetest.Behaviour{Mode: satellitetest.Down})
	s.relay(from, 2)
	see := func(kind, id string) {
		t.Helper()
		eventually(t, "an event "+kind, func() bool { return len(s.events(kind, id)) > 0 })
	}
	see(cluster.EventRegistered, from.ID())
	see(cluster.EventRefused, refusing.ID())
	see(cluster.EventParked, down.ID())
	see(cluster.EventUnreachable, down.ID())
	s.must("skip", down.ID())
	see(cluster.EventGap, down.ID())
	s.relay(from, 1)
	eventually(t, "it is parked again", func() bool { return s.status().Satellites.Parked == 1 })
	down.SetBehaviour(satellitetest.Behaviour{})
	see(cluster.EventResumed, down.ID())
	see(cluster.EventReachable, down.ID())
	if err := from.Deregister(t.Context(), s.url, from.ID()); err != nil {
		t.Fatal(err)
	}
	see(cluster.EventDeregistered, from.ID())

	// A second worker comes and goes.
	clus := s.desk().clus
	ctx, cancel := context.WithCancel(t.Context())
	member := clus.Join(cluster.JoinOptions{Role: "delivery", Name: "second"}, idleHolder{}, hclogNull())
	left := make(chan error, 1)
	go func() { left <- member.Run(ctx) }()
	go func() {
		for ctx.Err() == nil {
			member.Progress()
			time.Sleep(100 * time.Millisecond)
		}
	}()
	see(cluster.EventMoved, "")
	cancel()
	<-left
	see(cluster.EventWorkerJoined, "")
	see(cluster.EventWorkerLeft, "")
}

// A cluster's operator has no data directory, but an address and a password.
func TestToolsReachARelayByNATSToo(t *testing.T) {
	t.Parallel()
	var listen string
	s := startSite(t, func(c *Config) {
		listen = freeport.Addr(t)
		c.Broker.NATSListen = listen
	})
	down := s.satellite(satellitetest.Behaviour{Mode: satellitetest.Down})
	b, err := os.ReadFile(filepath.Join(s.data, "nats-credentials.json"))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "all partitions have their workers", func() bool { return len(s.status().Notes) == 0 })
	var user struct{ User, Password string }
	if err := json.Unmarshal(b, &user); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte(user.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"status", "--check"}, "1 of 10000"},
		{[]string{"events"}, down.ID()},
		{[]string{"skip", down.ID()}, "nothing is skipped"},
		{[]string{"kick", down.ID()}, "deregistered " + down.ID()},
	} {
		var out, errs bytes.Buffer
		args := append(c.args, "--timeout", patience, "--nats", "nats://"+listen, "--nats-user", user.User, "--nats-password-file", secret)
		if code := Main(t.Context(), args, strings.NewReader(""), &out, &errs); code != ExitOK || !strings.Contains(out.String(), c.want) {
			t.Errorf("%v: got code %d, %s%s; want 0 and %q", c.args, code, out.String(), errs.String(), c.want)
		}
	}
	var out, errs bytes.Buffer
	args := []string{"status", "--nats", "nats://" + listen, "--nats-user", user.User, "--nats-password", "wrong", "--timeout", "5s"}
	if code := Main(t.Context(), args, strings.NewReader(""), &out, &errs); code != ExitError || !strings.Contains(errs.String(), "Authorization") {
		t.Errorf("wrong password: got code %d, %s; want 1 and the reason", code, errs.String())
	}
}
