package registry

import (
	"errors"
	"reflect"
	"testing"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
)

func TestRecordsAreSavedByCompareAndSet(t *testing.T) {
	t.Parallel()
	r := New(clustertest.Start(t), clustertest.Logger(t))
	empty, rev, err := r.LoadTraffic(t.Context(), 31)
	if err != nil || rev != 0 || !reflect.DeepEqual(empty, TrafficRecord{Partition: 31}) {
		t.Fatalf("before anything was saved: got %+v at %d, %v, want an empty record at 0", empty, rev, err)
	}
	want := testTraffic(5)
	first := saveTraffic(t, r, want, 0)
	for err = cluster.ErrUnavailable; errors.Is(err, cluster.ErrUnavailable); {
		_, err = r.SaveTraffic(t.Context(), want, 0)
	}
	if !errors.Is(err, cluster.ErrWrongRevision) {
		t.Errorf("save over what was not read: got %v, want ErrWrongRevision", err)
	}
	want.Epoch++
	second := saveTraffic(t, r, want, first)
	got, rev, err := r.LoadTraffic(t.Context(), want.Partition)
	if err != nil || rev != second || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v at %d, %v, want %+v at %d", got, rev, err, want, second)
	}

	pings := PingRecord{Partition: 31, Epoch: 1, Satellites: []Ping{{ID: testID(1), Current: -1}}}
	rev = savePing(t, r, pings, 0)
	gotPings, gotRev, err := r.LoadPing(t.Context(), 31)
	if err != nil || gotRev != rev || !reflect.DeepEqual(gotPings, pings) {
		t.Errorf("got %+v at %d, %v, want %+v at %d", gotPings, gotRev, err, pings, rev)
	}
}

func TestFiguresAreThoseOfThePresentGeneration(t *testing.T) {
	t.Parallel()
	r := openMany(t, 1, 10)[0]
	sat := mustRegister(t, r, testID(1))
	waitFor(t, r, sat.Revision)
	p := sat.ID.Partition()

	f, err := r.Figures(t.Context(), sat.ID)
	want := Figures{Traffic: Traffic{ID: sat.ID, Generation: sat.Generation, Position: sat.Began}, Ping: Ping{ID: sat.ID, Generation: sat.Generation, Current: -1}}
	if err != nil || !reflect.DeepEqual(f, want) {
		t.Errorf("before any record: got %+v, %v, want %+v", f, err, want)
	}

	rec := TrafficRecord{Partition: p, ReadTo: sat.Began + 10, Satellites: []Traffic{{ID: sat.ID, Generation: sat.Generation, Position: sat.Began + 4, Sent: 3, Own: 1, Received: 3}}}
	rev := saveTraffic(t, r, rec, 0)
	ping := Ping{ID: sat.ID, Generation: sat.Generation, Count: 2, Current: 1.5, Min: 1, Max: 2, Sum: 3}
	savePing(t, r, PingRecord{Partition: p, Satellites: []Ping{ping}}, 0)
	// The records read before serve for half a second, and no longer.
	eventually(t, func() bool {
		f, err = r.Figures(t.Context(), sat.ID)
		return err == nil && f.Ping.Count == 2 && f.Owed == 4
	})
	if f.Owed != 4 || !reflect.DeepEqual(f.Traffic, rec.Satellites[0]) || f.Ping != ping {
		t.Errorf("got %+v, want 4 owed and what was saved", f)
	}

	// A new generation begins with nothing, and owes from its own beginning.
	if err := r.Deregister(t.Context(), sat.ID); err != nil {
		t.Fatal(err)
	}
	again := mustRegister(t, r, sat.ID)
	waitFor(t, r, again.Revision)
	rec.ReadTo = again.Began + 7
	saveTraffic(t, r, rec, rev)
	eventually(t, func() bool {
		f, err = r.Figures(t.Context(), sat.ID)
		return err == nil && f.Owed == 7
	})
	if f.Traffic.Generation != again.Generation || f.Traffic.Received != 0 || f.Ping.Count != 0 || f.Ping.Current != -1 {
		t.Errorf("new generation: got %+v, want no figures", f)
	}
	if f, err = r.Figures(t.Context(), testID(9)); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown satellite: got %+v, %v, want ErrUnknown", f, err)
	}
}

func TestTotalsBalance(t *testing.T) {
	t.Parallel()
	r := New(clustertest.Start(t), clustertest.Logger(t))
	for _, p := range []int{0, 7, 31} {
		rec := TrafficRecord{
			Partition: p, ReadTo: 100,
			Totals:     Totals{Recipients: 50, Delivered: 20, Refused: 4, Expired: 3, Dropped: 2},
			Satellites: []Traffic{{ID: testID(p), Position: 90, Sent: 3, Own: 1}, {ID: testID(p + 100), Position: 87}},
		}
		saveTraffic(t, r, rec, 0)
	}
	got, err := r.Totals(t.Context())
	want := Accounts{Totals: Totals{Recipients: 150, Delivered: 60, Refused: 12, Expired: 9, Dropped: 6}, Owed: 63, Satellites: 6}
	if err != nil || got != want || got.Balance() != 0 {
		t.Errorf("got %+v with balance %d, %v, want %+v with 0", got, got.Balance(), err, want)
	}
}
