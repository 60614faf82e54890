package pinger

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the pinger's.
type metrics struct {
	pings *prometheus.CounterVec
	trip  prometheus.Histogram
}

func newMetrics(p *Pinger, reger prometheus.Registerer) (*metrics, error) {
	if reger == nil {
		reger = prometheus.NewRegistry()
	}
	m := &metrics{
		pings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "co2_pinger_pings_total", Help: "Pings of satellites, by result; reply and fault are answers.",
		}, []string{"result"}),
		trip: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "co2_pinger_round_trip_seconds", Help: "Round trips of answered pings, connecting included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14), // 0.5 ms to 4 s
		}),
	}
	gauge := func(name, help string, read func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			p.mu.Lock()
			defer p.mu.Unlock()
			return float64(read())
		})
	}
	for _, c := range []prometheus.Collector{
		m.pings, m.trip,
		gauge("co2_pinger_in_flight", "Pings under way.", func() int { return p.busy }),
		gauge("co2_pinger_satellites", "Satellites that this process pings.", func() int { return p.owned }),
		gauge("co2_pinger_failing_satellites", "Those of them whose last ping failed and that wait for the next.", func() int { return p.failing.Len() }),
	} {
		if err := reger.Register(c); err != nil {
			return nil, fmt.Errorf("register pinger metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) count(r result) {
	m.pings.WithLabelValues(r.kind).Inc()
	if r.ok() {
		m.trip.Observe(r.took.Seconds())
	}
}
