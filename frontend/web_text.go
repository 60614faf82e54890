package frontend

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// number10 writes a whole number with a comma between thousands.
func number10(n any) string {
	text := fmt.Sprint(n)
	sign := ""
	if strings.HasPrefix(text, "-") {
		sign, text = "-", text[1:]
	}
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return sign + text
}

// shortNumber writes a whole number as number10 does while it is short enough
// for a figure's box, and else in millions and so on.
func shortNumber(n any) string {
	text := number10(n)
	if len(text) <= len("9,999,999") {
		return text
	}
	v, err := strconv.ParseFloat(fmt.Sprint(n), 64)
	if err != nil {
		return text
	}
	for _, unit := range []string{"million", "billion", "trillion"} {
		if v /= 1000; math.Abs(v) < 1e6 {
			return strconv.FormatFloat(v/1000, 'g', 4, 64) + " " + unit
		}
	}
	return text
}

// sizeText writes a number of bytes in binary units.
func sizeText(n any) string {
	v, err := strconv.ParseFloat(fmt.Sprint(n), 64)
	if err != nil {
		return "?"
	}
	for _, unit := range []string{"bytes", "KiB", "MiB", "GiB", "TiB"} {
		if v < 1024 || unit == "TiB" {
			if unit == "bytes" || v >= 100 || v == math.Trunc(v) {
				return fmt.Sprintf("%.0f %s", v, unit)
			}
			return fmt.Sprintf("%.1f %s", v, unit)
		}
		v /= 1024
	}
	return ""
}

// whenText writes a time for people, in UTC; "never" for one that never came.
func whenText(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// stampText writes a time for programs.
func stampText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// roundTripText writes a ping's time in milliseconds; a dash where there is none.
func roundTripText(ms float64) string {
	switch {
	case ms < 0:
		return "–"
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// cutText shortens a stranger's text where it stands among others.
func cutText(s string) string {
	const most = 60
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "…"
}

// durationText writes a duration in its two largest units.
func durationText(d time.Duration) string {
	d = d.Round(time.Second)
	units := []struct {
		name string
		size time.Duration
	}{{"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second}}
	var parts []string
	for _, u := range units {
		n := int(d / u.size)
		d -= time.Duration(n) * u.size
		if n > 0 {
			parts = append(parts, count(n, u.name))
		} else if len(parts) > 0 {
			break
		}
		if len(parts) == 2 {
			break
		}
	}
	if parts == nil {
		return "0 seconds"
	}
	return strings.Join(parts, " ")
}

// agoText says how long ago a time was, in its largest unit.
func agoText(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := time.Since(t)
	switch {
	case d < 2*time.Second:
		return "now"
	case d < time.Minute:
		return strconv.Itoa(int(d/time.Second)) + " s ago"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min ago"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + " h ago"
	}
	return strconv.Itoa(int(d/(24*time.Hour))) + " days ago"
}

// clockText writes the time of a day, in UTC.
func clockText(t time.Time) string { return t.UTC().Format("15:04:05") }

// cutShort shortens a stranger's text where there is little room.
func cutShort(s string) string {
	const most = 18
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}
