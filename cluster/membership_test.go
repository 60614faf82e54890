package cluster_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
)

func TestOneMemberOwnsEverythingAtOnce(t *testing.T) {
	t.Parallel()
	c := &crew{t: t}
	a := c.join(clustertest.Start(t))
	// Its clock stands still: nothing waits for a poll to come round.
	eventually(t, "all partitions", own(a, cluster.Partitions))
	if !a.member.Alive() {
		t.Error("owns everything, but is not alive")
	}
	records, err := a.clus.PartitionRecords(testContext(t), "delivery")
	if err != nil || len(records) != cluster.Partitions {
		t.Fatalf("got %d records, %v; want %d", len(records), err, cluster.Partitions)
	}
	for _, r := range records {
		if r.Owner != a.member.ID() || r.Epoch != 1 || r.Revision == 0 {
			t.Errorf("got %+v, want epoch 1 of %s", r, a.member.ID())
		}
	}
}

func TestSoleMemberTakesOverFromItsPredecessorAtOnce(t *testing.T) {
	t.Parallel()
	s := clustertest.StartServer(t, t.TempDir())
	c := &crew{t: t}
	a := c.join(clustertest.Connect(t, s))
	c.until("all partitions", own(a, cluster.Partitions), a)
	a.kill()
	a.clock.Advance(time.Hour) // it is dead, also in its own eyes
	b := c.prepare(clustertest.Connect(t, s), cluster.JoinOptions{Sole: true}).start()
	eventually(t, "all partitions", own(b, cluster.Partitions))
	// With its lease gone nobody waits for the predecessor.
	eventually(t, "the predecessor's lease is removed", func() bool {
		leases, err := b.clus.Bucket(cluster.BucketWorkers).List(testContext(t))
		return err == nil && len(leases) == 1
	})
}

func TestJoiningMovesOnlyTheNewMembersShare(t *testing.T) {
	t.Parallel()
	s := clustertest.StartServer(t, t.TempDir())
	c := &crew{t: t}
	var hands []*hand
	for n := 1; n <= 3; n++ {
		before := make(map[int]*hand)
		for _, h := range hands {
			for p := range h.ownership() {
				before[p] = h
			}
		}
		h := c.join(clustertest.Connect(t, s))
		hands = append(hands, h)
		c.until(fmt.Sprintf("%d members share", n), shared(hands...), hands...)
		c.pass(5*time.Second, hands...) // and nothing moves any more
		moved := 0
		for p, old := range before {
			if _, keeps := old.ownership()[p]; !keeps {
				moved++
			}
		}
		if got := h.count(); n > 1 && moved != got {
			t.Errorf("member %d joins: %d partitions move, it has %d", n, moved, got)
		}
	}
	for _, h := range hands {
		if got := h.lost(); got != 0 {
			t.Errorf("%s lost %d partitions, want all moves in order", h.name, got)
		}
	}
	for p, epoch := range hands[2].ownership() {
		if state := hands[2].state[p]; epoch < 2 || !strings.HasSuffix(state, fmt.Sprintf("released %d", p)) {
			t.Errorf("partition %d came with epoch %d and state %q, want its last owner's", p, epoch, state)
		}
	}
}

func TestLeavingHandsOverAtOnce(t *testing.T) {
	t.Parallel()
	s := clustertest.StartServer(t, t.TempDir())
	c := &crew{t: t}
	a, b := c.join(clustertest.Connect(t, s)), c.join(clustertest.Connect(t, s))
	c.until("two members share", shared(a, b), a, b)
	had, kept := a.ownership(), b.ownership()
	a.stop()
	// The clock of the other stands still: it need not wait for a poll, let alone for silence.
	eventually(t, "the other owns everything", own(b, cluster.Partitions))
	now := b.ownership()
	for p := range had {
		if want := fmt.Sprintf("%s released %d", a.name, p); b.state[p] != want || now[p] != had[p]+1 {
			t.Errorf("partition %d: epoch %d after %d, state %q, want %q", p, now[p], had[p], b.state[p], want)
		}
	}
	for p, epoch := range kept {
		if now[p] != epoch {
			t.Errorf("partition %d: epoch %d, want %d as before", p, now[p], epoch)
		}
	}
	if a.member.Alive() {
		t.Error("has left, but is alive")
	}
}

func TestKilledMemberIsReplacedAndItsSavedStateGoesOn(t *testing.T) {
	t.Parallel()
	s := clustertest.StartServer(t, t.TempDir())
	c := &crew{t: t}
	a, b := c.join(clustertest.Connect(t, s)), c.join(clustertest.Connect(t, s))
	c.until("two members share", shared(a, b), a, b)
	states := make(map[int][]byte)
	for p := range a.ownership() {
		states[p] = fmt.Appendf(nil, "saved %d", p)
	}
	if lost, err := a.member.Save(testContext(t), states); err != nil || len(lost) > 0 {
		t.Fatalf("save: lost %v, %v", lost, err)
	}
	c.pass(time.Second, a, b)
	a.kill()
	c.pass(3*time.Second, b)
	if got := b.count(); got == cluster.Partitions {
		t.Error("took over after 3 s, while the other's lease may still be good")
	}
	a.clock.Advance(3 * time.Second)
	waited := 3*time.Second + c.until("the survivor owns everything", own(b, cluster.Partitions), b)
	if waited > 7*time.Second {
		t.Errorf("took over after %s of its clock, want 7 s at most", waited)
	}
	for p := range states {
		if want := fmt.Sprintf("saved %d", p); b.state[p] != want {
			t.Errorf("partition %d came with state %q, want %q", p, b.state[p], want)
		}
	}
	if b.lost() != 0 {
		t.Errorf("the survivor lost %d partitions, want none", b.lost())
	}
}

// The zombie: a process that was stopped for longer than its lease, and goes on.
func TestMemberThatSleptOwnsNothingUntilItClaimsAgain(t *testing.T) {
	t.Parallel()
	s := clustertest.StartServer(t, t.TempDir())
	c := &crew{t: t}
	a, b := c.join(clustertest.Connect(t, s)), c.join(clustertest.Connect(t, s))
	c.until("two members share", shared(a, b), a, b)
	had := a.count()
	for slept := time.Duration(0); b.count() < cluster.Partitions; slept += step {
		if slept > time.Minute {
			t.Fatalf("nobody took over within a minute; %s", c)
		}
		a.clock.Sleep(step)
		c.pass(step, b)
	}
	if a.member.Alive() {
		t.Error("woke up alive")
	}
	a.clock.Advance(0)
	a.clock.Settle()
	if got := a.lost(); got != had || a.count() != 0 {
		t.Errorf("woke up and lost %d partitions, owns %d; want %d and 0", got, a.count(), had)
	}
	c.until("they share again", shared(a, b), a, b)
	if !a.member.Alive() {
		t.Error("owns again, but is not alive")
	}
}

func TestMemberWithoutProgressIsReplaced(t *testing.T) {
	t.Parallel()
	s := clustertest.StartServer(t, t.TempDir())
	c := &crew{t: t}
	a, b := c.join(clustertest.Connect(t, s)), c.join(clustertest.Connect(t, s))
	c.until("two members share", shared(a, b), a, b)
	c.mu.Lock()
	a.stuck = true
	c.mu.Unlock()
	if got := c.until("the other owns everything", own(b, cluster.Partitions), a, b); got > 15*time.Second {
		t.Errorf("took %s, want 15 s at most", got)
	}
	c.mu.Lock()
	a.stuck = false
	c.mu.Unlock()
	c.until("they share again", shared(a, b), a, b)
}

func TestBrokerOutageKillsNobody(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := clustertest.StartServer(t, dir)
	clustertest.Connect(t, s)
	c := &crew{t: t, try: 500 * time.Millisecond}
	a, b := c.join(dial(t, dir)), c.join(dial(t, dir))
	c.until("two members share", shared(a, b), a, b)
	was := [2]map[int]uint64{a.ownership(), b.ownership()}
	s.Close()
	c.pass(5*time.Second, a, b)
	for _, h := range []*hand{a, b} {
		if h.member.Alive() || h.count() > 0 {
			t.Errorf("%s is alive or owns %d partitions after 5 s without a broker", h.name, h.count())
		}
	}
	clustertest.StartServer(t, dir)
	c.until("they share again", shared(a, b), a, b)
	c.pass(5*time.Second, a, b)
	for i, h := range []*hand{a, b} {
		if !slices.Equal(slices.Sorted(maps.Keys(was[i])), slices.Sorted(maps.Keys(h.ownership()))) {
			t.Errorf("%s owns %v, want as before %v", h.name, h.ownership(), was[i])
		}
	}
	records, err := a.clus.Bucket(cluster.BucketWorkers).List(testContext(t))
	if err != nil || len(records) != 2 {
		t.Errorf("%d leases, %v; want both", len(records), err)
	}
}

func TestPartitionThatItsPlannedOwnerDoesNotClaimGoesToTheNext(t *testing.T) {
	t.Parallel()
	clus := clustertest.Start(t)
	c := &crew{t: t}
	a := c.prepare(clus, cluster.JoinOptions{})
	// A member that lives and never claims: its lease is all there is of it.
	renew := func() {
		if _, err := clus.Bucket(cluster.BucketWorkers).PutAny(testContext(t), cluster.LeaseKey("delivery", "idler-1"), []byte(`{"v":1,"owns":[]}`)); err != nil {
			t.Fatal(err)
		}
	}
	renew()
	a.start()
	eventually(t, "its own share", own(a, cluster.Partitions/2))
	var passed time.Duration
	for ; a.count() < cluster.Partitions && passed < time.Minute; passed += step {
		renew()
		c.pass(step, a)
		if passed < 2500*time.Millisecond && a.count() != cluster.Partitions/2 {
			t.Fatalf("has %d partitions after %s, want patience for 3 s", a.count(), passed)
		}
	}
	if passed > 6*time.Second {
		t.Errorf("took what nobody claimed after %s, want about 3 s", passed)
	}
}

func TestMembersOfARoleAreNoBusinessOfAnother(t *testing.T) {
	t.Parallel()
	clus := clustertest.Start(t)
	c, other := &crew{t: t}, &crew{t: t}
	a := c.join(clus)
	p := other.prepare(clus, cluster.JoinOptions{})
	p.member = clus.JoinWithClock(cluster.JoinOptions{Role: "pinger", Name: "p"}, p, clustertest.Logger(t), p.clock, patience)
	p.start()
	c.until("one owns everything", own(a, cluster.Partitions), a)
	other.until("so does the other", own(p, cluster.Partitions), p)
}

func TestMembershipIsToldInEvents(t *testing.T) {
	t.Parallel()
	s := clustertest.StartServer(t, t.TempDir())
	watch := clustertest.Connect(t, s)
	c := &crew{t: t}
	a, b := c.join(clustertest.Connect(t, s)), c.join(clustertest.Connect(t, s))
	c.until("two members share", shared(a, b), a, b)
	a.stop()
	d := c.join(clustertest.Connect(t, s))
	c.until("they share again", shared(b, d), b, d)
	d.kill()
	d.clock.Advance(time.Hour)
	c.until("one owns everything", own(b, cluster.Partitions), b)

	var mu sync.Mutex
	got := make(map[string]int)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	go func() {
		_ = watch.Events(ctx, time.Now().Add(-time.Hour), func(e cluster.Event) {
			mu.Lock()
			defer mu.Unlock()
			got[e.Kind+" "+strings.TrimRight(e.Worker, "0123456789abcdef")]++
		})
	}()
	want := []string{"worker_joined w1-", "worker_joined w2-", "worker_joined w3-", "worker_left w1-", "worker_left w3-", "partition_moved w2-", "partition_moved w3-"}
	eventually(t, "all events", func() bool {
		mu.Lock()
		defer mu.Unlock()
		for _, kind := range want {
			if got[kind] == 0 {
				return false
			}
		}
		return true
	})
}

// Whatever the members' clocks and connections do, no two own a partition at once; and in quiet they share all.
func TestNoTwoMembersOwnAPartitionAtOnce(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if given, err := strconv.ParseUint(os.Getenv("CO2_SEED"), 10, 64); err == nil {
		seed = given
	}
	t.Logf("CO2_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := clustertest.StartServer(t, t.TempDir())
	c := &crew{t: t}
	var hands []*hand
	for range 4 {
		hands = append(hands, c.join(clustertest.Connect(t, s)))
	}
	asleep := make(map[*hand]int)
	for range 160 {
		var awake []*hand
		for _, h := range hands {
			switch {
			case asleep[h] > 0:
				asleep[h]--
				h.clock.Sleep(step)
			case random.IntN(25) == 0:
				asleep[h] = 1 + random.IntN(40)
				h.clock.Sleep(step)
			default:
				awake = append(awake, h)
			}
		}
		c.pass(step, awake...)
	}
	c.until("they share", shared(hands...), hands...)
}

// A member by the machine's clock: the real times, and the only test that waits for them.
func TestTakeOverInRealTime(t *testing.T) {
	t.Parallel()
	s := clustertest.StartServer(t, t.TempDir())
	c := &crew{t: t}
	var hands []*hand
	for range 2 {
		h := c.prepare(clustertest.Connect(t, s), cluster.JoinOptions{})
		h.member = h.clus.Join(cluster.JoinOptions{Role: "delivery", Name: h.name}, h, clustertest.Logger(t))
		h.start()
		hands = append(hands, h)
	}
	go func() {
		for t.Context().Err() == nil {
			hands[0].member.Progress()
			hands[1].member.Progress()
			time.Sleep(100 * time.Millisecond)
		}
	}()
	eventually(t, "two members share", shared(hands...))
	hands[0].kill()
	start := time.Now()
	eventually(t, "the survivor owns everything", own(hands[1], cluster.Partitions))
	t.Logf("taken over after %s", time.Since(start).Round(time.Millisecond))
}

// dial connects by the data directory's socket, so that the broker may stop and start.
func dial(t *testing.T, dir string) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Connect(testContext(t), cluster.Options{Dir: dir, Name: t.Name()}, clustertest.Logger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}
