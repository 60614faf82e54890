package delivery

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// loopMetrics are counted by one loop and read by whoever scrapes, so that no
// two loops write the same cache line for each delivery.
type loopMetrics struct {
	delivered atomic.Uint64
	repeats   atomic.Uint64
	expired   atomic.Uint64
	dropped   atomic.Uint64
	parked    atomic.Int64
	refused   reasons
	failed    reasons
	latency   latency
}

// reasons counts by a constant reason.
type reasons struct {
	mu sync.Mutex
	n  map[string]uint64
}

func (r *reasons) add(reason string) {
	r.mu.Lock()
	if r.n == nil {
		r.n = make(map[string]uint64)
	}
	r.n[reason]++
	r.mu.Unlock()
}

func (r *reasons) addTo(sum map[string]uint64) {
	r.mu.Lock()
	for reason, n := range r.n {
		sum[reason] += n
	}
	r.mu.Unlock()
}

// latency is a histogram in powers of two of microseconds, from 64 µs to 67 s.
type latency struct {
	buckets [latencyBuckets]atomic.Uint64
	sum     atomic.Int64 // nanoseconds
}

const (
	latencyBuckets = 22
	latencyShift   = 6 // the first bucket ends at 1<<6 µs
)

func (h *latency) observe(nanos int64) {
	nanos = max(nanos, 0) // the broker's clock may be ahead of ours
	i := bits.Len64(uint64(nanos/1000) >> latencyShift)
	h.buckets[min(i, latencyBuckets-1)].Add(1)
	h.sum.Add(nanos)
}

// collector exports what a worker's loops have counted.
type collector struct{ w *Worker }

var (
	descDelivered = prometheus.NewDesc("co2_delivery_delivered_total", "Messages received by satellites.", nil, nil)
	descRepeats   = prometheus.NewDesc("co2_delivery_repeats_total", "Messages delivered that an earlier owner of the satellite had counted already.", nil, nil)
	descExpired   = prometheus.NewDesc("co2_delivery_expired_total", "Messages that ended by age or size before a satellite got them.", nil, nil)
	descDropped   = prometheus.NewDesc("co2_delivery_dropped_total", "Messages owed to satellites when they deregistered.", nil, nil)
	descRefused   = prometheus.NewDesc("co2_delivery_refused_total", "Messages that satellites received and refused.", []string{"reason"}, nil)
	descFailed    = prometheus.NewDesc("co2_delivery_failed_calls_total", "Calls that failed and will be repeated.", []string{"reason"}, nil)
	descParked    = prometheus.NewDesc("co2_delivery_parked_satellites", "Satellites whose last call failed.", nil, nil)
	descLatency   = prometheus.NewDesc("co2_delivery_latency_seconds", "Time from the log's entry to the satellite's answer.", nil, nil)
	descPosition  = prometheus.NewDesc("co2_delivery_read_position", "Last message that this worker has read.", nil, nil)
	descOwned     = prometheus.NewDesc("co2_delivery_partitions", "Partitions that this worker owns.", nil, nil)
	descSaves     = prometheus.NewDesc("co2_delivery_checkpoints_total", "Checkpoints written.", nil, nil)
)

func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descDelivered, descRepeats, descExpired, descDropped, descRefused, descFailed, descParked, descLatency, descPosition, descOwned, descSaves} {
		out <- d
	}
}

func (c collector) Collect(out chan<- prometheus.Metric) {
	var delivered, repeats, expired, dropped uint64
	var parked int64
	refused, failed := map[string]uint64{}, map[string]uint64{}
	var counts [latencyBuckets]uint64
	var sum int64
	c.w.mu.Lock()
	loops := c.w.loops
	c.w.mu.Unlock()
	for _, lp := range loops {
		m := lp.met
		delivered += m.delivered.Load()
		repeats += m.repeats.Load()
		expired += m.expired.Load()
		dropped += m.dropped.Load()
		parked += m.parked.Load()
		m.refused.addTo(refused)
		m.failed.addTo(failed)
		for i := range counts {
			counts[i] += m.latency.buckets[i].Load()
		}
		sum += m.latency.sum.Load()
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	counter(descDelivered, delivered)
	counter(descRepeats, repeats)
	counter(descExpired, expired)
	counter(descDropped, dropped)
	counter(descSaves, c.w.checkpoints.Load())
	for reason, n := range refused {
		counter(descRefused, n, reason)
	}
	for reason, n := range failed {
		counter(descFailed, n, reason)
	}
	gauge(descParked, float64(parked))
	gauge(descPosition, float64(c.w.read.Load()))
	gauge(descOwned, float64(c.w.owned.Load()))
	out <- prometheus.MustNewConstHistogram(descLatency, total(counts[:]), float64(sum)/1e9, cumulative(counts[:]))
}

func total(counts []uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// cumulative is the histogram as Prometheus wants it: how many took at most so
// many seconds. The last bucket is the one without an end.
func cumulative(counts []uint64) map[float64]uint64 {
	buckets := make(map[float64]uint64, len(counts))
	var n uint64
	for i, c := range counts[:len(counts)-1] {
		n += c
		buckets[float64(uint64(1)<<(i+latencyShift))/1e6] = n
	}
	return buckets
}
