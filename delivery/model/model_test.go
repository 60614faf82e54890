// Package model holds the model of one partition that spin checks.
package model

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	errorsFound = regexp.MustCompile(`errors: (\d+)`)
	statesFound = regexp.MustCompile(`(\d+) states, stored`)
)

// rules are those that a mutant of the model removes, by its number, and the
// property that breaks without it.
var rules = []struct{ name, breaks string }{
	{"the lease is asked before a call", "flying"},
	{"a checkpoint is written by compare-and-set", "durable"},
	{"a checkpoint does not hold the call under way", "durable"},
	{"a new satellite begins at its own beginning", "got"},
	{"a claim waits for the registrations that are known", "durable"},
	{"an owner with a lease is not taken for dead", "flying"},
	{"a release ends the call under way", "flying"},
	{"a lapsed lease is renewed only when all is given up", "flying"},
	{"a checkpoint lists the lane that is behind", "durable"},
}

// tools skips a test where spin or a C compiler is missing, unless the
// environment says that nothing may be.
func tools(t *testing.T) {
	t.Helper()
	for _, name := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("CO2_REQUIRE_PEERS") == "1" {
				t.Fatalf("%s is required: run interop/install-peers.sh", name)
			}
			t.Skipf("the model is not checked: %s is missing (interop/install-peers.sh installs it)", name)
		}
	}
}

// check lets spin search all states and returns what its verifier printed.
func check(t *testing.T, spin, gcc, pan []string) string {
	t.Helper()
	tools(t)
	model, err := filepath.Abs("partition.pml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run := func(name string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	run("spin", append(append([]string{"-a"}, spin...), model)...)
	run("gcc", append(gcc, "-O1", "-w", "-o", "pan", "pan.c")...)
	out := run("./pan", append(pan, "-m10000")...)
	found := errorsFound.FindStringSubmatch(out)
	if found == nil || strings.Contains(out, "max search depth too small") {
		t.Fatalf("the search did not end:\n%s", out)
	}
	if states := statesFound.FindStringSubmatch(out); states != nil {
		t.Logf("%s states, %s errors", states[1], found[1])
	}
	return out
}

func TestThePartitionHoldsItsPromises(t *testing.T) {
	t.Parallel()
	t.Run("nothing skipped, in order, repeats bounded", func(t *testing.T) {
		t.Parallel()
		out := check(t, nil, []string{"-DSAFETY", "-DNOCLAIM"}, nil)
		if !strings.Contains(out, "errors: 0") {
			t.Errorf("a property does not hold:\n%s", out)
		}
	})
	t.Run("everything arrives", func(t *testing.T) {
		t.Parallel()
		out := check(t, nil, nil, []string{"-a", "-N", "everything"})
		if !strings.Contains(out, "errors: 0") {
			t.Errorf("a message may never arrive:\n%s", out)
		}
	})
}

func TestEveryRuleOfThePartitionIsNeeded(t *testing.T) {
	t.Parallel()
	for i, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			t.Parallel()
			out := check(t, []string{fmt.Sprintf("-DMUTANT=%d", i+1), "-DLAPSES=1"}, []string{"-DSAFETY", "-DNOCLAIM"}, nil)
			violated := regexp.MustCompile(`assertion violated.*` + rule.breaks)
			if !violated.MatchString(out) {
				t.Errorf("without the rule nothing breaks:\n%s", out)
			}
		})
	}
}
