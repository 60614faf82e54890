package delivery

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster/clustertest"
	"github.com/co2relay/co2relay/registry"
	"github.com/co2relay/co2relay/satellite/satellitetest"
)

// slowStore writes figures only when gate is closed.
type slowStore struct {
	figureStore
	gate  chan struct{}
	came  chan struct{} // closed when somebody waits
	first sync.Once
}

func (s *slowStore) SaveTraffic(ctx context.Context, r registry.TrafficRecord, revision uint64) (uint64, error) {
	s.first.Do(func() { close(s.came) })
	<-s.gate
	return s.figureStore.SaveTraffic(ctx, r, revision)
}

func TestNeitherCheckpointsNorAReleaseWaitForFigures(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.cfg.Name, b.cfg.figuresPatience = "test", time.Hour
	w, err := New(b.cfg, clustertest.Logger(t), b.clus, b.reg, nil)
	if err != nil {
		t.Fatal(err)
	}
	slow := &slowStore{figureStore: b.reg, gate: make(chan struct{}), came: make(chan struct{})}
	open := sync.OnceFunc(func() { close(slow.gate) })
	w.stats = slow
	stop := b.background(w.Run)
	t.Cleanup(open) // before the worker is waited for
	s := satellitetest.Start(t, satellitetest.Options{})
	sender := b.registerAt(mustAddr("127.0.0.1:9"), "").ID
	sat := b.register(s, "")
	<-slow.came
	b.publish(sender, 10)
	b.wantAll(s, 10)
	b.eventually("the checkpoint is written", func() bool { return b.stored(sat).Position == b.last() })

	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	b.eventually("nobody owns a partition", func() bool {
		records, err := b.clus.PartitionRecords(t.Context(), "delivery")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if r.Owner != "" {
				return false
			}
		}
		return true
	})
	open()
	<-stopped
	b.balance(registry.Totals{Recipients: 10, Delivered: 10})
}

// An ownership that is over writes nothing over what came after it.
func TestFiguresOfAFormerOwnershipAreLeftOut(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	w, err := New(b.cfg, clustertest.Logger(t), b.clus, b.reg, nil)
	if err != nil {
		t.Fatal(err)
	}
	old := registry.TrafficRecord{Partition: 3, Epoch: 7}
	for what, end := range map[string]func(){
		"released":      func() { w.saver.disown(3) },
		"claimed again": func() { w.saver.own(3, 9, 0) },
	} {
		w.saver.own(3, 7, 0)
		end()
		w.saver.traffic(t.Context(), []registry.TrafficRecord{old})
		w.saver.setRevision(3, 7, 42)
		if got, revision, err := b.reg.LoadTraffic(t.Context(), 3); err != nil || revision != 0 {
			t.Errorf("%s: got %+v at %d, %v; want nothing written", what, got, revision, err)
		}
		if revision, _ := w.saver.revision(3, 9); revision != 0 {
			t.Errorf("%s: got revision %d, want it to be left alone", what, revision)
		}
	}
}
