package app

import (
	"context"
	"math"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/co2relay/co2relay/cluster"
)

// sampler puts a sample of this process's metrics into the broker every
// cluster.SampleEvery, from which the web interface draws its charts. It reads
// what Prometheus would: the roles need not know of it.
type sampler struct {
	clus    *cluster.Cluster
	metrics prometheus.Gatherer
	log     hclog.Logger
	about   cluster.Sample // what all samples share

	before   readings
	beforeAt time.Time
}

// readings are the metrics of one moment that samples are made of.
type readings struct {
	accepted, delivered, refused, failed, expired float64
	latency                                       [cluster.LatencyBuckets]uint64
	idle, live, behind, parked, owed, partitions  float64
	cpuSeconds, memory, connections               float64
}

// names are the roles in words.
func (r roles) names() (all []string) {
	for _, n := range []struct {
		role roles
		name string
	}{{roleFrontend, "frontend"}, {roleDelivery, "delivery"}, {rolePinger, "pinger"}} {
		if r.has(n.role) {
			all = append(all, n.name)
		}
	}
	return all
}

// run samples at the multiples of cluster.SampleEvery until ctx ends.
func (s *sampler) run(ctx context.Context) error {
	s.read()
	failing := false
	for {
		next := time.Now().Truncate(cluster.SampleEvery).Add(cluster.SampleEvery)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(next)):
		}
		sample, ok := s.sample(next)
		if !ok {
			continue
		}
		err := s.clus.PutSample(ctx, sample)
		if err != nil && ctx.Err() == nil && !failing {
			s.log.Warn("samples for charts are not stored", "error", err)
		}
		failing = err != nil
	}
}

// sample is what happened since the one before.
func (s *sampler) sample(at time.Time) (cluster.Sample, bool) {
	was, wasAt := s.before, s.beforeAt
	if !s.read() {
		return cluster.Sample{}, false
	}
	now := &s.before
	seconds := s.beforeAt.Sub(wasAt).Seconds()
	x := s.about
	x.Time, x.Seconds = at.UTC(), math.Round(seconds*1000)/1000
	x.Accepted = risen(was.accepted, now.accepted)
	x.Delivered = risen(was.delivered, now.delivered)
	x.Refused = risen(was.refused, now.refused)
	x.Failed = risen(was.failed, now.failed)
	x.Expired = risen(was.expired, now.expired)
	last := 0
	counts := make([]uint64, cluster.LatencyBuckets)
	for i := range counts {
		if counts[i] = now.latency[i] - was.latency[i]; counts[i] > 0 {
			last = i + 1
		}
	}
	x.Latency = counts[:last]
	x.Idle, x.Live, x.Behind, x.Parked = uint64(now.idle), uint64(now.live), uint64(now.behind), uint64(now.parked)
	x.Backlog, x.Partitions = uint64(now.owed), int(now.partitions)
	x.Memory, x.Connections = uint64(now.memory), int(now.connections)
	x.CPU = math.Round(max(now.cpuSeconds-was.cpuSeconds, 0)/max(seconds, .001)*1000) / 1000
	return x, true
}

func risen(was, now float64) uint64 { return uint64(max(now-was, 0)) }

// read takes the readings anew; false keeps the old ones.
func (s *sampler) read() bool {
	at := time.Now()
	families, err := s.metrics.Gather()
	if err != nil {
		s.log.Warn("metrics cannot be read", "error", err)
		return false
	}
	var r readings
	sums := map[string]*float64{
		"co2_delivery_delivered_total": &r.delivered, "co2_delivery_refused_total": &r.refused,
		"co2_delivery_failed_calls_total": &r.failed, "co2_delivery_expired_total": &r.expired,
		"co2_delivery_owed_messages": &r.owed, "co2_delivery_partitions": &r.partitions,
		"co2_frontend_relays_total accepted": &r.accepted, "co2_frontend_connections": &r.connections,
		"co2_delivery_satellites idle": &r.idle, "co2_delivery_satellites live": &r.live,
		"co2_delivery_satellites behind": &r.behind, "co2_delivery_satellites parked": &r.parked,
		"process_cpu_seconds_total": &r.cpuSeconds, "process_resident_memory_bytes": &r.memory,
	}
	for _, family := range families {
		name := family.GetName()
		for _, m := range family.GetMetric() {
			if h := m.GetHistogram(); h != nil && name == "co2_delivery_latency_seconds" {
				below := uint64(0)
				for i, b := range h.GetBucket() {
					if i < len(r.latency) {
						r.latency[i] = b.GetCumulativeCount() - below
					}
					below = b.GetCumulativeCount()
				}
				r.latency[len(r.latency)-1] += h.GetSampleCount() - below
				continue
			}
			key := name
			if labels := m.GetLabel(); len(labels) == 1 && !strings.HasPrefix(name, "co2_delivery_refused") && !strings.HasPrefix(name, "co2_delivery_failed") {
				key += " " + labels[0].GetValue()
			}
			if sum := sums[key]; sum != nil {
				*sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	s.before, s.beforeAt = r, at
	return true
}
