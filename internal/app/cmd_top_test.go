package app

import (
	"strings"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
)

func TestTopForgetsWhatStopped(t *testing.T) {
	t.Parallel()
	at, x := time.Now().Truncate(cluster.SampleEvery), newTop()
	x.sample(cluster.Sample{Time: at.Add(-time.Minute), Process: "dead", Accepted: 50, Seconds: 5})
	if frame := x.frame(120, 20, false); !strings.Contains(frame, "in          -/s") || !strings.Contains(frame, "processes 0") {
		t.Errorf("all samples stopped a minute ago: got\n%s\nwant no rate and no process", frame)
	}
	x.sample(cluster.Sample{Time: at, Process: "alive", Accepted: 50, Seconds: 5})
	if frame := x.frame(120, 20, false); !strings.Contains(frame, "in         10/s") || !strings.Contains(frame, "processes 1") {
		t.Errorf("one process is alive: got\n%s\nwant 10/s and one process", frame)
	}
}
