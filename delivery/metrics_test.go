package delivery

import (
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
	"github.com/co2relay/co2relay/satellite/satellitetest"
)

func TestTheAccountsAreExported(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	cfg := b.cfg
	cfg.Name = "test"
	metrics := prometheus.NewRegistry()
	w, err := New(cfg, clustertest.Logger(t), b.clus, b.reg, metrics)
	if err != nil {
		t.Fatal(err)
	}
	b.background(w.Run)
	s := satellitetest.Start(t, satellitetest.Options{})
	sender := b.registerAt(mustAddr("127.0.0.1:9"), "").ID
	b.register(s, "")
	b.publish(sender, 6)
	b.wantAll(s, 6)
	b.eventually("the accounts stand in the metrics", func() bool {
		families, err := metrics.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				switch f.GetName() {
				case "co2_accounting_messages":
					got[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
				case "co2_accounting_balance":
					got["balance"] = m.GetGauge().GetValue()
				}
			}
		}
		_, known := got["balance"]
		return got["recipients"] == 6 && got["delivered"] == 6 && got["owed"] == 0 && known && got["balance"] == 0
	})
}

// The lag is that of the satellite farthest behind of those that answer: a dead
// one does not hide it.
func TestTheLagOfEachPartitionIsExported(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	cfg := b.cfg
	cfg.Name, cfg.NotifyTimeout = "test", time.Minute
	metrics := prometheus.NewRegistry()
	w, err := New(cfg, clustertest.Logger(t), b.clus, b.reg, metrics)
	if err != nil {
		t.Fatal(err)
	}
	b.background(w.Run)
	slow := satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Mode: satellitetest.Hang}})
	dead := satellitetest.Start(t, satellitetest.Options{Behaviour: satellitetest.Behaviour{Mode: satellitetest.Down}})
	sender := b.registerAt(mustAddr("127.0.0.1:9"), "").ID
	at := b.register(slow, "").ID.Partition()
	b.register(dead, "")
	lagsAre := func(what string, here, owed float64) {
		t.Helper()
		var got map[string]float64
		var sum float64
		b.eventually(what, func() bool {
			got, sum = lags(t, metrics)
			if len(got) != cluster.Partitions || sum != owed {
				return false
			}
			for p := range cluster.Partitions {
				if want := map[bool]float64{true: here}[p == at]; got[strconv.Itoa(p)] != want {
					return false
				}
			}
			return true
		})
	}
	lagsAre("no partition lags", 0, 0)
	b.publish(sender, 7)
	lagsAre("the slow satellite's partition lags, the dead one's does not", 7, 14)
	slow.SetBehaviour(satellitetest.Behaviour{})
	b.wantAll(slow, 7)
	lagsAre("the slow satellite has everything", 0, 7)
}

// lags is what the metrics say of each partition, and what is owed in all.
func lags(t *testing.T, metrics *prometheus.Registry) (byPartition map[string]float64, owed float64) {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	byPartition = map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch f.GetName() {
			case "co2_delivery_lag_messages":
				byPartition[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
			case "co2_delivery_owed_messages":
				owed = m.GetGauge().GetValue()
			}
		}
	}
	return byPartition, owed
}
