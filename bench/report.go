package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// result is what a workload came to; what does not apply is 0.
type result struct {
	Workload    workload      `json:"workload"`
	Deliveries  float64       `json:"deliveries_per_second"`
	CPU         float64       `json:"cpu_us_per_delivery"` // of the relay, broker included
	FloorRate   float64       `json:"floor_posts_per_second"`
	FloorCPU    float64       `json:"floor_cpu_us_per_post"`
	Accepted    float64       `json:"accepted_per_second"`
	AcceptP50   time.Duration `json:"accept_p50_ns"`
	AcceptP99   time.Duration `json:"accept_p99_ns"`
	P50         time.Duration `json:"latency_p50_ns"` // from before the relay call to the notify, at half of the rate or at the rate asked for
	P99         time.Duration `json:"latency_p99_ns"`
	P999        time.Duration `json:"latency_p999_ns"`
	Written     float64       `json:"bytes_written_per_message"`
	Allocations float64       `json:"allocations_per_delivery"` // of the relay, broker and accepting included
	Others      float64       `json:"others_share_of_machine"`  // what processes of others used meanwhile
	Memory      float64       `json:"resident_bytes_per_satellite"`
	Ready       time.Duration `json:"ready_after_restart_ns"`
}

func (r result) String() string {
	s := ""
	add := func(show bool, format string, args ...any) {
		if show {
			if s != "" {
				s += ", "
			}
			s += fmt.Sprintf(format, args...)
		}
	}
	add(r.Deliveries > 0, "%.0f deliveries/s", r.Deliveries)
	add(r.FloorRate > 0, "%.2fx of the floor's %.0f", r.Deliveries/max(r.FloorRate, 1), r.FloorRate)
	add(r.CPU > 0, "%.1f µs each", r.CPU)
	add(r.FloorCPU > 0, "%.2fx of the floor's %.1f", r.CPU/max(r.FloorCPU, 0.001), r.FloorCPU)
	add(r.Accepted > 0, "%.0f accepted/s, p50 %s, p99 %s", r.Accepted, short(r.AcceptP50), short(r.AcceptP99))
	add(r.P50 > 0, "latency p50 %s, p99 %s, p99.9 %s", short(r.P50), short(r.P99), short(r.P999))
	add(r.Written > 0, "%.0f bytes written per message", r.Written)
	add(r.Allocations > 0, "%.2f allocations per delivery", r.Allocations)
	add(r.Others > 0.02, "OTHERS USED %.0f%% OF THE MACHINE", 100*r.Others)
	add(r.Memory > 0, "%.0f bytes per satellite", r.Memory)
	add(r.Ready > 0, "ready after %s", short(r.Ready))
	return s
}

func short(d time.Duration) string { return d.Round(10 * time.Microsecond).String() }

// report is everything that one run found.
type report struct {
	Machine string    `json:"machine"`
	At      time.Time `json:"at"`
	Results []result  `json:"results"`
}

func (r report) print(w io.Writer) {
	fmt.Fprintln(w, r.Machine)
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "workload\tdeliveries/s\tof floor\tCPU µs\tof floor\taccepted/s\tp50\tp99\tlatency p50\tp99\tp99.9\tB/message\tallocs\tB/satellite\tready\tothers\t")
	for _, x := range r.Results {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", x.Workload.Name,
			figure(x.Deliveries, "%.0f"), ratio(x.Deliveries, x.FloorRate), figure(x.CPU, "%.1f"), ratio(x.CPU, x.FloorCPU),
			figure(x.Accepted, "%.0f"), duration(x.AcceptP50), duration(x.AcceptP99),
			duration(x.P50), duration(x.P99), duration(x.P999),
			figure(x.Written, "%.0f"), figure(x.Allocations, "%.2f"), figure(x.Memory, "%.0f"), duration(x.Ready), figure(100*x.Others, "%.0f%%"))
	}
	_ = t.Flush() // to the same place as everything else that is printed
}

func figure(v float64, format string) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf(format, v)
}

func ratio(v, floor float64) string {
	if v == 0 || floor == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3gx", v/floor)
}

func duration(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return short(d)
}
