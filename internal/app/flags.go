package app

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// Exit codes of every command.
const (
	ExitOK    = 0
	ExitError = 1 // it was tried and failed
	ExitUsage = 2 // a flag, an argument or a variable is wrong
)

// flagSet is a command's flags. Each is also an environment variable, CO2_ and
// its name; the command line wins. Wrong values are gathered, so that all of
// them are reported at once.
type flagSet struct {
	*pflag.FlagSet
	usage  string // what stands above the flags in the help
	faults []error
	lookup func(string) (string, bool)
}

func newFlagSet(name, usage string) *flagSet {
	f := &flagSet{FlagSet: pflag.NewFlagSet(name, pflag.ContinueOnError), usage: usage, lookup: os.LookupEnv}
	f.SortFlags = false
	f.SetOutput(io.Discard)
	return f
}

// variable is a flag's name in the environment.
func variable(flag string) string {
	return "CO2_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// parse reads arguments and environment. It returns pflag.ErrHelp when help was
// asked for, else all faults joined.
func (f *flagSet) parse(args []string) error {
	f.VisitAll(func(flag *pflag.Flag) {
		flag.Value = &lenient{Value: flag.Value, name: "--" + flag.Name, set: f}
	})
	if err := f.Parse(f.withoutUnknown(args)); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return err
		}
		f.faults = append(f.faults, err)
	}
	f.VisitAll(func(flag *pflag.Flag) {
		value, ok := f.lookup(variable(flag.Name))
		if !ok || flag.Changed || flag.Name == "help" {
			return
		}
		v := flag.Value.(*lenient)
		v.name = variable(flag.Name)
		_ = v.Set(value)
		flag.Changed = true
	})
	return errors.Join(f.faults...)
}

// withoutUnknown takes out, and notes, the flags that there are not: pflag would
// end at the first one and say nothing of what is wrong behind it.
func (f *flagSet) withoutUnknown(args []string) (known []string) {
	for i := 0; i < len(args); i++ {
		name, isLong := strings.CutPrefix(args[i], "--")
		if !isLong {
			known = append(known, args[i])
			continue
		}
		if name == "" {
			return append(known, args[i:]...)
		}
		name, _, hasValue := strings.Cut(name, "=")
		flag := f.Lookup(name)
		if flag == nil && name != "help" {
			f.faults = append(f.faults, fmt.Errorf("unknown flag: --%s", name))
			continue
		}
		known = append(known, args[i])
		if flag != nil && !hasValue && flag.NoOptDefVal == "" && i+1 < len(args) {
			i++ // its value, whatever that looks like
			known = append(known, args[i])
		}
	}
	return known
}

// printHelp shows the usage and every flag with its default and its variable.
func (f *flagSet) printHelp(w io.Writer) {
	fmt.Fprintln(w, f.usage)
	fmt.Fprintln(w, "\nFlags (each is also an environment variable, CO2_ and its name: --max-sats is CO2_MAX_SATS):")
	fmt.Fprint(w, f.FlagUsages())
}

// lenient notes a wrong value instead of ending the parsing there.
type lenient struct {
	pflag.Value
	name string
	set  *flagSet
}

func (l *lenient) Set(text string) error {
	if err := l.Value.Set(text); err != nil {
		l.set.faults = append(l.set.faults, fmt.Errorf("%s: %q is not a %s", l.name, text, kindName(l.Value.Type())))
	}
	return nil
}

func kindName(kind string) string {
	switch kind {
	case "duration":
		return "duration like 10s, 5m or 24h"
	case "int", "int64", "uint", "uint64":
		return "whole number"
	case "float64":
		return "number"
	case "bool":
		return "truth value (true or false)"
	case "size":
		return "size like 1048576, 64KiB, 256MiB or 2GiB"
	default:
		return kind
	}
}

// size is a number of bytes that reads and shows units.
type size int64

func (f *flagSet) sizeVar(p *int64, name, usage string) {
	f.Var((*size)(p), name, usage)
}

var units = []struct {
	name string
	n    int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}}

func (s *size) String() string {
	for _, u := range units[:3] {
		if n := int64(*s); n != 0 && n%u.n == 0 {
			return strconv.FormatInt(n/u.n, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(*s), 10)
}

func (s *size) Set(text string) error {
	factor := int64(1)
	for _, u := range units {
		if number, ok := strings.CutSuffix(text, u.name); ok {
			text, factor = strings.TrimSpace(number), u.n
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/factor {
		return errors.New("not a size")
	}
	*s = size(n * factor)
	return nil
}

func (s *size) Type() string { return "size" }
