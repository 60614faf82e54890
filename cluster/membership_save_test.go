package cluster_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
)

// allStates is a state for each partition.
func allStates(text string) map[int][]byte {
	states := make(map[int][]byte)
	for p := range cluster.Partitions {
		states[p] = fmt.Appendf(nil, "%s %d", text, p)
	}
	return states
}

// write changes a partition's record behind its owner's back.
func write(t *testing.T, clus *cluster.Cluster, p int, change func(*cluster.PartitionRecord)) {
	t.Helper()
	records, err := clus.PartitionRecords(testContext(t), "delivery")
	if err != nil {
		t.Fatal(err)
	}
	r := records[p]
	change(&r)
	b, err := cluster.EncodeRecord(r)
	if err == nil {
		_, err = clus.Bucket(cluster.BucketPartitions).PutAny(testContext(t), cluster.PartitionKey("delivery", p), b)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func checkSaved(t *testing.T, clus *cluster.Cluster, want map[int][]byte) {
	t.Helper()
	records, err := clus.PartitionRecords(testContext(t), "delivery")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if state, ok := want[r.Partition]; ok && string(r.State) != string(state) {
			t.Errorf("partition %d has state %q, want %q", r.Partition, r.State, state)
		}
	}
}

func TestSaveWritesAllStatesAndAgain(t *testing.T) {
	t.Parallel()
	c := &crew{t: t}
	a := c.join(clustertest.Start(t))
	c.until("all partitions", own(a, cluster.Partitions), a)
	for _, text := range []string{"first", "second"} {
		lost, err := a.member.Save(testContext(t), allStates(text))
		if err != nil || len(lost) > 0 {
			t.Fatalf("save %s: lost %v, %v", text, lost, err)
		}
		checkSaved(t, a.clus, allStates(text))
	}
	one := map[int][]byte{7: []byte("alone")}
	if lost, err := a.member.Save(testContext(t), one); err != nil || len(lost) > 0 {
		t.Fatalf("save one: lost %v, %v", lost, err)
	}
	checkSaved(t, a.clus, one)
}

func TestSaveFindsWhatAnotherHasClaimed(t *testing.T) {
	t.Parallel()
	c := &crew{t: t}
	a := c.join(clustertest.Start(t))
	c.until("all partitions", own(a, cluster.Partitions), a)
	for _, p := range []int{3, 31} {
		write(t, a.clus, p, func(r *cluster.PartitionRecord) { r.Owner, r.Epoch, r.State = "other", r.Epoch+1, []byte("theirs") })
	}
	states := allStates("mine")
	lost, err := a.member.Save(testContext(t), states)
	slices.Sort(lost)
	if err != nil || !slices.Equal(lost, []int{3, 31}) {
		t.Fatalf("save: lost %v, %v; want 3 and 31", lost, err)
	}
	states[3], states[31] = []byte("theirs"), []byte("theirs")
	checkSaved(t, a.clus, states)
	eventually(t, "the holder is told", func() bool { return a.lost() == 2 })
}

func TestSaveOfPartitionsNeverOwnedSaysSo(t *testing.T) {
	t.Parallel()
	c := &crew{t: t}
	a := c.prepare(clustertest.Start(t), cluster.JoinOptions{})
	if lost, err := a.member.Save(testContext(t), allStates("x")); err != nil || len(lost) != cluster.Partitions {
		t.Errorf("save: lost %v, %v; want all", lost, err)
	}
}

// A write whose answer never came leaves the record at a later revision than the member knows.
func TestSaveGoesOnAfterAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	c := &crew{t: t}
	a := c.join(clustertest.Start(t))
	c.until("all partitions", own(a, cluster.Partitions), a)
	for _, p := range []int{0, 17} {
		write(t, a.clus, p, func(r *cluster.PartitionRecord) { r.State = []byte("arrived after all") })
	}
	lost, err := a.member.Save(testContext(t), allStates("later"))
	if err != nil || len(lost) > 0 {
		t.Fatalf("save: lost %v, %v", lost, err)
	}
	checkSaved(t, a.clus, allStates("later"))
}

func TestSaveDuringAnOutageFailsAndThenGoesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := clustertest.StartServer(t, dir)
	clustertest.Connect(t, s)
	c := &crew{t: t, try: 500 * time.Millisecond}
	a := c.join(dial(t, dir))
	c.until("all partitions", own(a, cluster.Partitions), a)
	s.Close()
	lost, err := a.member.Save(testContext(t), allStates("unheard"))
	if err == nil || len(lost) > 0 {
		t.Fatalf("save without a broker: lost %v, %v; want an error and nothing lost", lost, err)
	}
	clustertest.StartServer(t, dir)
	eventually(t, "it saves again", func() bool {
		lost, err := a.member.Save(testContext(t), allStates("heard"))
		if len(lost) > 0 {
			t.Fatalf("save lost %v", lost)
		}
		return err == nil
	})
	checkSaved(t, a.clus, allStates("heard"))
}

func TestStateSurvivesARestartOfTheOnlyMember(t *testing.T) {
	t.Parallel()
	s := clustertest.StartServer(t, t.TempDir())
	c := &crew{t: t}
	a := c.join(clustertest.Connect(t, s))
	c.until("all partitions", own(a, cluster.Partitions), a)
	a.stop()
	b := c.join(clustertest.Connect(t, s))
	c.until("all partitions", own(b, cluster.Partitions), b)
	for p := range cluster.Partitions {
		if want := fmt.Sprintf("w1 released %d", p); b.state[p] != want {
			t.Errorf("partition %d came with state %q, want %q", p, b.state[p], want)
		}
	}
}
