package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
	"github.com/co2relay/co2relay/registry"
	"github.com/co2relay/co2relay/satellite/satellitetest"
)

// site is a running serve, as an operator meets it: by its URL and by its data
// directory.
type site struct {
	t         *testing.T
	url, data string
}

func startSite(t *testing.T, change func(*Config)) *site {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Listen, cfg.Admin, cfg.Broker.Data, cfg.Broker.MinFree = "127.0.0.1:0", "", t.TempDir(), 1<<20
	cfg.Delivery.Connections = 1000
	cfg.Delivery.RetryBase, cfg.Delivery.RetryCap = 20*time.Millisecond, 200*time.Millisecond
	if change != nil {
		change(&cfg)
	}
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
		return &site{t, "http://" + a.String() + "/RPC2", cfg.Broker.Data}
	case err := <-ended:
		ended <- nil
		t.Fatalf("serve ended at once: %v", err)
		return nil
	}
}

// patience is the --timeout of commands that have to succeed: their own 10
// seconds are too little for a slow machine's disk.
const patience = "50s"

// run runs a command of the command line to its end.
func (s *site) run(args ...string) (code int, stdout, stderr string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 60*time.Second)
	defer cancel()
	var out, err bytes.Buffer
	args = append([]string{args[0], "--timeout", patience}, args[1:]...)
	code = Main(ctx, append(args, "--data", s.data), strings.NewReader(""), &out, &err)
	return code, out.String(), err.String()
}

// must runs a command that has to succeed.
func (s *site) must(args ...string) string {
	s.t.Helper()
	code, out, errs := s.run(args...)
	if code != ExitOK {
		s.t.Fatalf("%v: got code %d, %s%s; want 0", args, code, out, errs)
	}
	return out
}

// status is what `status --json` says.
func (s *site) status() (st status) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.must("status", "--json")), &st); err != nil {
		s.t.Fatal(err)
	}
	return st
}

// satellite registers one that behaves so.
func (s *site) satellite(b satellitetest.Behaviour) *satellitetest.Satellite {
	s.t.Helper()
	sat := satellitetest.Start(s.t, satellitetest.Options{Behaviour: b})
	s.register(sat)
	return sat
}

func (s *site) register(sat *satellitetest.Satellite) {
	s.t.Helper()
	if _, err := sat.Register(s.t.Context(), s.url, ""); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) relay(from *satellitetest.Satellite, n int) {
	s.t.Helper()
	for i := range n {
		if err := from.Relay(s.t.Context(), s.url, from.ID(), fmt.Sprint(i), ""); err != nil {
			s.t.Fatal(err)
		}
	}
}

// desk is a connection to the site's broker.
func (s *site) desk() *desk {
	s.t.Helper()
	clus, err := cluster.Connect(s.t.Context(), cluster.Options{Dir: s.data, Name: "test"}, clustertest.Logger(s.t))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(clus.Close)
	return &desk{clus, registry.New(clus, clustertest.Logger(s.t))}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func TestStatusShowsExactAccounts(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil)
	well := s.satellite(satellitetest.Behaviour{})
	s.satellite(satellitetest.Behaviour{Mode: satellitetest.Fault})
	down := s.satellite(satellitetest.Behaviour{Mode: satellitetest.Down})
	s.relay(well, 10)
	s.relay(down, 3)
	var st status
	eventually(t, "the figures are there", func() bool {
		st = s.status()
		return st.Accounts.Unread == 0 && st.Accounts.Owed == 10 && st.Satellites.Parked == 1 && st.Satellites.Unreachable == 1 && len(st.Notes) == 0
	})
	a := st.Accounts
	if a.Recipients != 26 || a.Delivered != 3 || a.Refused != 13 || a.Expired != 0 || a.Dropped != 0 || a.Balance != 0 || !a.Balances || a.Messages != 13 || a.Unread != 0 {
		t.Errorf("accounts: got %+v, want 3 delivered, 13 refused, 10 owed of 13 messages", a)
	}
	if x := st.Satellites; x.Registered != 3 || x.Idle != 2 || x.Parked != 1 || x.New != 0 || x.Max != 10000 {
		t.Errorf("satellites: got %+v, want 2 idle and 1 parked", x)
	}
	if len(st.Workers) != 2 || len(st.Workers[0].Partitions) != cluster.Partitions || st.Log.Messages != 13 {
		t.Errorf("got workers %+v, log %+v; want a delivery worker and a pinger with all partitions, 13 messages", st.Workers, st.Log)
	}
	text := s.must("status", "--check")
	for _, want := range []string{
		"recipients 26 = delivered 3 + refused 13 + expired 0 + dropped 0 + owed 10: balanced", "13 messages,",
		"3 of 10000: 2 idle", "32 partitions (0-31)", "nats-server",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("got:\n%s\nwant %q in it", text, want)
		}
	}
}

func TestStatusCheckFindsAWrongFigure(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil)
	from, to := s.satellite(satellitetest.Behaviour{}), s.satellite(satellitetest.Behaviour{})
	s.relay(from, 5)
	eventually(t, "all are delivered", func() bool { a := s.status().Accounts; return a.Delivered == 5 && a.Recipients == 5 })
	d := s.desk()
	p := registry.ID(to.ID()).Partition()
	var code int
	var out, errs string
	eventually(t, "a wrong figure", func() bool {
		r, rev, err := d.reg.LoadTraffic(t.Context(), p)
		if err != nil {
			return false
		}
		if r.Totals.Delivered == 5 { // else it is wrong already: the save before was only told late
			for i := range r.Satellites {
				if string(r.Satellites[i].ID) == to.ID() {
					r.Satellites[i].Received-- // one message was lost
				}
			}
			r.Totals.Delivered--
			if _, err := d.reg.SaveTraffic(t.Context(), r, rev); err != nil {
				return false // the worker has written meanwhile
			}
		}
		code, out, errs = s.run("status", "--check")
		now, _, err := d.reg.LoadTraffic(t.Context(), p)
		return err == nil && now.Totals.Delivered == 4 // else it was written over
	})
	if code != ExitError || !strings.Contains(out, "NOT BALANCED, off by 1") || !strings.Contains(out, "satellite "+to.ID()+": it has 5 messages behind it and figures of 4") ||
		!strings.Contains(out, fmt.Sprintf("partition %d:", p)) || !strings.Contains(errs, "do not balance") {
		t.Errorf("got code %d,\n%s%s\nwant 1, the partition and the satellite", code, out, errs)
	}
	if code, _, _ := s.run("status"); code != ExitOK {
		t.Errorf("without --check: got code %d, want 0", code)
	}
}

func TestStatusCheckHoldsUnderTraffic(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil)
	from := s.satellite(satellitetest.Behaviour{})
	for range 6 {
		s.satellite(satellitetest.Behaviour{})
	}
	s.satellite(satellitetest.Behaviour{Mode: satellitetest.Down})
	ctx, cancel := context.WithCancel(t.Context())
	var traffic sync.WaitGroup
	defer traffic.Wait()
	defer cancel()
	traffic.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			_ = from.Relay(ctx, s.url, from.ID(), fmt.Sprint(i), "")
			if i%50 == 0 { // one comes and goes
				other := satellitetest.Start(t, satellitetest.Options{})
				if id, err := other.Register(ctx, s.url, ""); err == nil && i%100 == 0 {
					_ = other.Deregister(ctx, s.url, id)
				}
			}
		}
	})
	for range 15 {
		code, out, errs := s.run("status", "--check")
		if code != ExitOK {
			t.Fatalf("got code %d, %s\n%s; want 0", code, errs, out)
		}
		time.Sleep(100 * time.Millisecond) // figures are written each second
	}
}

func TestToolsSayWhatIsMissing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"status", "--data", dir + "/none"}, ExitError, "no data directory"},
		{[]string{"status", "--data", dir, "--timeout", "200ms"}, ExitError, "no relay serves from --data " + dir},
		{[]string{"status", "--nats", "nats://127.0.0.1:1", "--timeout", "200ms"}, ExitError, "127.0.0.1:1"},
		{[]string{"status", "--timeout", "0s"}, ExitUsage, "--timeout"},
		{[]string{"status", "more"}, ExitUsage, `unexpected argument "more"`},
	} {
		var out, errs bytes.Buffer
		if code := Main(t.Context(), c.args, strings.NewReader(""), &out, &errs); code != c.code || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%v: got code %d, %q; want %d and %q", c.args, code, errs.String(), c.code, c.want)
		}
	}
}

func hclogNull() hclog.Logger { return hclog.NewNullLogger() }

// idleHolder is a worker that does nothing with what it owns.
type idleHolder struct{}

func (idleHolder) Claimed(int, uint64, []byte)         {}
func (idleHolder) Release(context.Context, int) []byte { return nil }
func (idleHolder) Lost(int)                            {}
