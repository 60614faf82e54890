package delivery

import (
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
)

// census counts the satellites of this worker's partitions by their states,
// and what they are owed, as of the figures written last.
type census struct {
	w *Worker

	mu    sync.Mutex
	parts [cluster.Partitions]head
}

// head is one partition's part of the census.
type head struct {
	states [4]uint64 // by registry.State
	owed   uint64
	lag    uint64 // owed to the one farthest behind of those that answer
	totals registry.Totals
}

func (c *census) note(records []registry.TrafficRecord) {
	for i := range records {
		r := &records[i]
		h := head{totals: r.Totals}
		for j := range r.Satellites {
			t := &r.Satellites[j]
			if int(t.State) < len(h.states) {
				h.states[t.State]++
			}
			owed := uint64(t.Owed(r.ReadTo))
			h.owed += owed
			if t.State != registry.StateParked {
				h.lag = max(h.lag, owed)
			}
		}
		c.mu.Lock()
		c.parts[r.Partition] = h
		c.mu.Unlock()
	}
}

var (
	descSatellites = prometheus.NewDesc("co2_delivery_satellites", "Satellites of this worker's partitions, by state.", []string{"state"}, nil)
	descOwed       = prometheus.NewDesc("co2_delivery_owed_messages", "Messages owed to satellites of this worker's partitions, over all of them.", nil, nil)
	// A parked satellite would hide how the others fare: what it is owed is
	// in co2_delivery_owed_messages alone.
	descLag = prometheus.NewDesc("co2_delivery_lag_messages", "Messages owed to the satellite farthest behind of those that answer, for each partition of this worker.", []string{"partition"}, nil)
	// Promise 6. Gauges, for a partition takes its past along when it moves to
	// another worker: the sum over all workers is what counts.
	descAccounts = prometheus.NewDesc("co2_accounting_messages", "Pairs of message and recipient of this worker's partitions since the log was made, and what became of them: "+
		"recipients = delivered + refused + expired + dropped + owed.", []string{"what"}, nil)
	descBalance = prometheus.NewDesc("co2_accounting_balance", "Recipients less all that became of them: 0 unless messages were lost or counted wrongly.", nil, nil)
)

func (c *census) Describe(out chan<- *prometheus.Desc) {
	out <- descSatellites
	out <- descOwed
	out <- descLag
	out <- descAccounts
	out <- descBalance
}

func (c *census) Collect(out chan<- prometheus.Metric) {
	c.w.mu.Lock()
	serving := c.w.serving
	c.w.mu.Unlock()
	var sum head
	c.mu.Lock()
	for p, h := range c.parts {
		if !serving[p] {
			continue // another worker counts it
		}
		for s, n := range h.states {
			sum.states[s] += n
		}
		sum.owed += h.owed
		sum.totals.Add(h.totals)
		out <- prometheus.MustNewConstMetric(descLag, prometheus.GaugeValue, float64(h.lag), strconv.Itoa(p))
	}
	c.mu.Unlock()
	accounts := registry.Accounts{Totals: sum.totals, Owed: sum.owed}
	for what, n := range map[string]uint64{
		"recipients": accounts.Recipients, "delivered": accounts.Delivered, "refused": accounts.Refused,
		"expired": accounts.Expired, "dropped": accounts.Dropped, "owed": accounts.Owed,
	} {
		out <- prometheus.MustNewConstMetric(descAccounts, prometheus.GaugeValue, float64(n), what)
	}
	out <- prometheus.MustNewConstMetric(descBalance, prometheus.GaugeValue, float64(accounts.Balance()))
	for s, n := range sum.states {
		out <- prometheus.MustNewConstMetric(descSatellites, prometheus.GaugeValue, float64(n), registry.State(s).String())
	}
	out <- prometheus.MustNewConstMetric(descOwed, prometheus.GaugeValue, float64(sum.owed))
}
