package main

import "context"

// workload is one row of the table.
type workload struct {
	Name       string
	Satellites int
	Size       int     // bytes of data in a message
	Senders    int     //
	Hanging    float64 // share of the satellites that never answer
	Closing    float64 // share of the satellites that close every connection
	Rate       float64 // deliveries a second asked for; 0: as many as there can be, and then half of that

	measure func(context.Context, options, workload) (result, error)
	start   func(context.Context, options, ...string) (*relayProcess, error)
	apart   bool // in a network of its own
}

func workloads() []workload {
	fan := func(name string, satellites, size, senders int) workload {
		return workload{Name: name, Satellites: satellites, Size: size, Senders: senders, measure: measureFanOut, start: startRelay}
	}
	hanging, closing := fan("fan-out 200, 1 in 10 hanging", 200, 512, 4), fan("fan-out 200, half closing", 200, 512, 4)
	hanging.Hanging, closing.Closing, closing.apart = 0.1, 0.5, true
	steady := fan("fan-out 200, 4,000/s", 200, 512, 4)
	steady.Rate = 4000
	python, pythonHanging := fan("Python original, fan-out 200", 200, 512, 4), fan("Python original, 1 in 10 hanging", 200, 512, 4)
	python.start, pythonHanging.start, pythonHanging.Hanging = startOriginal, startOriginal, 0.1
	all := []workload{
		fan("fan-out 10, 1 sender", 10, 512, 1),
		fan("fan-out 10, 8 senders", 10, 512, 8),
		fan("fan-out 10, 64 senders", 10, 512, 64),
		fan("fan-out 200", 200, 512, 4),
		fan("fan-out 1,000", 1000, 512, 4),
		fan("fan-out 10,000", 10_000, 512, 4),
		fan("fan-out 200, 0.2 KB", 200, 200, 4),
		fan("fan-out 200, 4 KB", 200, 4<<10, 4),
		fan("fan-out 200, 64 KB", 200, 64<<10, 4),
		hanging,
		closing,
		steady,
		fan("accept: 1 satellite, 64 senders", 2, 512, 64),
		{Name: "catch-up of 100,000", Satellites: 1, Size: 512, Senders: 64, measure: measureCatchUp},
		{Name: "100,000 registered", Satellites: 100_000, measure: measureRegistered, apart: true},
	}
	if hasPython() {
		return append(all, python, pythonHanging)
	}
	progress("no python3 here: the original's design is left out")
	return all
}
