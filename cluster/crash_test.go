package cluster_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
)

const crashDir = "CO2_TEST_CRASH_DIR"

// TestCrashingProcess is no test but the process that TestKilledProcessLosesNothingAccepted kills: it runs a broker,
// publishes without end and prints what was accepted.
func TestCrashingProcess(t *testing.T) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		t.Skip("SKIPPED: only for TestKilledProcessLosesNothingAccepted")
	}
	c := clustertest.Connect(t, clustertest.StartServer(t, dir))
	run := rand.Uint64()
	var out sync.Mutex
	for s := range 32 {
		go func() {
			for i := 0; ; i++ {
				body := fmt.Sprintf("%x-%d-%d", run, s, i)
				if err := c.Log().Publish(context.Background(), cluster.Message{Sender: "a", Body: body}); err == nil {
					out.Lock()
					fmt.Println("accepted", body)
					out.Unlock()
				}
			}
		}()
	}
	select {}
}

// Invariant: what a process reported as accepted before it was killed is in the log, once.
func TestKilledProcessLosesNothingAccepted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var accepted []string
	for range 4 {
		accepted = append(accepted, crash(t, dir)...)
	}
	s := clustertest.StartServer(t, dir)
	c := clustertest.Connect(t, s)
	entries := logged(t, c, 1)
	got, lost, repeated := bodies(entries), 0, 0
	for _, body := range accepted {
		if got[body] == 0 {
			lost++
		}
	}
	for _, times := range got {
		repeated += times - 1
	}
	t.Logf("%d accepted, %d logged: %d lost, %d repeated", len(accepted), len(entries), lost, repeated)
	if lost != 0 || repeated != 0 || len(accepted) == 0 {
		t.Errorf("got %d lost, %d repeated of %d accepted, want none", lost, repeated, len(accepted))
	}
	for i, e := range entries[1:] {
		if e.Seq != entries[i].Seq+1 {
			t.Fatalf("sequence: got %d after %d, want no hole", e.Seq, entries[i].Seq)
		}
	}
}

// crash runs the crashing process, kills it in the middle of its work and returns what it reported.
func crash(t *testing.T, dir string) (accepted []string) {
	t.Helper()
	cmd := exec.CommandContext(testContext(t), os.Args[0], "-test.run=^TestCrashingProcess$")
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start process: %v", err)
	}
	var killer *time.Timer
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var body string
		if _, err := fmt.Sscanf(lines.Text(), "accepted %s", &body); err != nil {
			continue
		}
		if accepted = append(accepted, body); killer == nil {
			// The moment of the kill is what varies.
			killer = time.AfterFunc(time.Duration(rand.IntN(300))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		}
	}
	_ = cmd.Wait()
	if killer == nil {
		t.Fatal("process ended before it published anything")
	}
	return accepted
}
