package app

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// days is a duration that can also be given in days, as 7d.
type days time.Duration

func (f *flagSet) daysVar(p *time.Duration, name, usage string) { f.Var((*days)(p), name, usage) }

func (d *days) String() string {
	const day = 24 * time.Hour
	if t := time.Duration(*d); t != 0 && t%day == 0 {
		return strconv.FormatInt(int64(t/day), 10) + "d"
	}
	return time.Duration(*d).String()
}

func (d *days) Set(text string) error {
	if number, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseFloat(number, 64)
		length := n * 24 * float64(time.Hour)
		if err != nil || math.IsNaN(length) || math.Abs(length) > math.MaxInt64/2 {
			return errors.New("not a duration")
		}
		*d = days(length)
		return nil
	}
	t, err := time.ParseDuration(text)
	*d = days(t)
	return err
}

func (d *days) Type() string { return "duration" }
