package faults

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/co2relay/co2relay/satellite/satellitetest"
)

// tool runs a command of the real binary against the relay's data directory.
func (r *relay) tool(args ...string) (out string, exit int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 60*time.Second)
	defer cancel()
	b, err := exec.CommandContext(ctx, binary, append(args, "--data", r.data, "--timeout", "30s")...).CombinedOutput()
	if err == nil {
		return string(b), 0
	}
	var exited *exec.ExitError
	if errors.As(err, &exited) {
		return string(b), exited.ExitCode()
	}
	r.t.Fatalf("%v: %v\n%s", args, err, b)
	return "", -1
}

type accounts struct {
	Messages, Recipients, Delivered, Refused, Expired, Dropped, Owed, Unread uint64
	Balances                                                                 bool
}

func (r *relay) accounts() accounts {
	r.t.Helper()
	var s struct{ Accounts accounts }
	out, exit := r.tool("status", "--json")
	if err := json.Unmarshal([]byte(out), &s); err != nil || exit != 0 {
		r.t.Fatalf("status: exit %d, %v\n%s", exit, err, out)
	}
	return s.Accounts
}

// Invariant: a skip that was answered is never undone, however soon the relay
// is killed; and it is counted once.
func TestASkipOutlivesAKill(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	from := satellitetest.Start(t, satellitetest.Options{})
	down := satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Mode: satellitetest.Down}})
	id := r.register(from)
	r.register(down)
	relay := func(n int) {
		for i := range n {
			if err := from.Relay(t.Context(), r.url(), id, strconv.Itoa(i), ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	const rounds, each = 3, 20
	for range rounds {
		relay(each)
		// Its worker skips what it has read, and says so if that is not all yet.
		eventually(t, "the worker has read the log", func() bool { return r.accounts().Unread == 0 })
		if out, exit := r.tool("skip", down.ID()); exit != 0 || !strings.Contains(out, "skipped "+strconv.Itoa(each)+" messages") {
			t.Fatalf("skip: exit %d, %s; want %d messages skipped", exit, out, each)
		}
		r.kill()
		r.start()
	}
	relay(5)
	down.SetBehaviour(satellitetest.Behaviour{})
	eventually(t, "it gets what came after", func() bool { return down.Stats().Distinct >= 5 })
	want := accounts{Messages: rounds*each + 5, Recipients: rounds*each + 5, Delivered: 5, Expired: rounds * each, Balances: true}
	var got accounts
	eventually(t, "all partitions have counted", func() bool { got = r.accounts(); return got.Owed == 0 && got.Unread == 0 })
	if st := down.Stats(); got != want || st.Distinct != 5 || st.OutOfOrder != 0 {
		t.Errorf("got %+v and %d messages, want %+v and 5", got, st.Distinct, want)
	}
	t.Logf("%d kills: lost %d, undone 0, repeated %d", rounds, 5-down.Stats().Distinct, down.Stats().Repeats)
}

// Invariant, promise 6: recipients = delivered + refused + owed + expired +
// dropped, at every moment and after every kill.
func TestTheAccountsBalanceAfterEveryKill(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	fleet := satellitetest.StartFleet(t, 8, satellitetest.Options{})
	fleet[1].SetBehaviour(satellitetest.Behaviour{Mode: satellitetest.Fault})
	fleet[2].SetBehaviour(satellitetest.Behaviour{Mode: satellitetest.Down})
	senders := []*sender{{name: "a", sat: fleet[0]}, {name: "b", sat: fleet[3]}}
	for _, s := range fleet {
		id := r.register(s)
		for _, x := range senders {
			if x.sat == s {
				x.id = id
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range senders {
		wg.Go(func() { s.run(ctx, r, time.Millisecond) })
	}
	const kills = 4
	for range kills {
		before := len(senders[0].accepted())
		eventually(t, "traffic flows", func() bool { return len(senders[0].accepted()) > before+100 })
		r.kill()
		r.start()
		if out, exit := r.tool("status", "--check"); exit != 0 {
			t.Errorf("after a kill, under traffic: exit %d\n%s", exit, out)
		}
	}
	cancel()
	wg.Wait()
	// The log itself says how many messages there are; each had seven recipients,
	// of which one refuses and one is down. What a kill repeated counts once.
	accepted := uint64(len(senders[0].accepted()) + len(senders[1].accepted()))
	var got, want accounts
	eventually(t, "everything is counted", func() bool {
		got = r.accounts()
		n := got.Messages
		want = accounts{Messages: n, Recipients: 7 * n, Delivered: 5 * n, Refused: n, Owed: n, Balances: true}
		return got == want
	})
	st := fleet.Stats()
	tally{
		satellites: len(fleet), accepted: int(accepted), calls: int(st.Distinct + st.Repeats), repeated: int(st.Repeats),
		lost: max(0, int(6*got.Messages)-int(st.Distinct)), disorder: int(st.OutOfOrder), refused: senders[0].errs + senders[1].errs,
	}.report(t, "serve killed "+strconv.Itoa(kills)+" times", "its accounts: %+v", got)
	if got.Messages < accepted {
		t.Errorf("the log has %d messages, want at least the %d accepted", got.Messages, accepted)
	}
	if out, exit := r.tool("status", "--check"); exit != 0 {
		t.Errorf("at rest: exit %d\n%s", exit, out)
	}
}
