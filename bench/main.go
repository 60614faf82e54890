// Command bench measures the relay on this machine, always beside the floor: a
// bare loop that sends the same POSTs to the same receivers in the same run.
// Only the ratio of the two means anything elsewhere.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"time"
)

// options are what the command line chooses.
type options struct {
	length time.Duration // of one measurement
	only   *regexp.Regexp
	json   string
	admin  string // admin address of the measured relay, for a profile beside it
	binary string // the relay
	broker string // nats-server, for scaling
}

func main() {
	if len(os.Args) > 1 {
		if child, ok := children[os.Args[1]]; ok {
			if err := child(os.Args[2:]); err != nil {
				fmt.Fprintf(os.Stderr, "bench %s: %v\n", os.Args[1], err)
				os.Exit(1)
			}
			return
		}
	}
	seconds := flag.Float64("seconds", 4, "how long each measurement takes")
	only := flag.String("only", "", "regular expression for the workloads to run; empty: all")
	scale := flag.Bool("scaling", false, "measure each role in processes of its own instead, for docs/scaling.md")
	o := options{}
	flag.StringVar(&o.json, "json", "", "file for the results as JSON")
	flag.StringVar(&o.admin, "admin", "", "admin address of the measured relay, to take a profile from")
	flag.Parse()
	o.length = time.Duration(*seconds * float64(time.Second))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if o.only, err = regexp.Compile(*only); err == nil {
		err = run(ctx, o, *scale)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// children are the processes that bench starts of itself, so that their CPU
// time and descriptors are their own.
var children = map[string]func([]string) error{"floor": floorMain, "receivers": receiversMain, "apart": apartMain}

func run(ctx context.Context, o options, scale bool) error {
	dir, err := os.MkdirTemp("", "co2bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	progress("building the relay")
	o.binary, o.broker = filepath.Join(dir, "co2relay"), filepath.Join(dir, "nats-server")
	if err := build(ctx, o.binary, "./cmd/co2relay"); err != nil {
		return err
	}
	machine := fmt.Sprintf("%d cores, %s/%s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	if scale {
		if err := build(ctx, o.broker, "github.com/nats-io/nats-server/v2"); err != nil {
			return err
		}
		return scaling(ctx, o, machine)
	}
	report := report{Machine: machine, At: time.Now().UTC()}
	for _, w := range workloads() {
		if !o.only.MatchString(w.Name) || ctx.Err() != nil {
			continue
		}
		r := result{Workload: w}
		if w.apart {
			err = runApart(ctx, o, w.Name, &r)
		} else {
			r, err = w.measure(ctx, o, w)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", w.Name, err)
		}
		r.Workload = w
		progress("%s: %s", w.Name, r)
		report.Results = append(report.Results, r)
	}
	report.print(os.Stdout)
	if err := writeJSON(o.json, report); err != nil {
		return err
	}
	return ctx.Err()
}

func build(ctx context.Context, program, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", program, pkg)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s (run this from the repository's root): %w", pkg, err)
	}
	return nil
}

func writeJSON(file string, what any) error {
	if file == "" {
		return nil
	}
	body, err := json.MarshalIndent(what, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(body, '\n'), 0o644)
}
