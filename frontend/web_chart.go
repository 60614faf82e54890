package frontend

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"
	"time"
)

// A chart is drawn in a box of chartWidth by chartHeight units that the style
// sheet stretches; what must keep its shape, the words, stands beside it.
const (
	chartWidth  = 240
	chartHeight = 60
)

// chartSpan is a length of time that the charts may show.
type chartSpan struct {
	slots, step         int // step slots make one point
	Name, Begin, Middle string
}

// chartSpans are those, the shortest first. A relay that was started just now
// shows the minutes that it has, not an hour with a mark at its end.
var chartSpans = []chartSpan{
	{60, 1, "the last 5 minutes", "5 min ago", "2.5 min"},
	{180, 1, "the last 15 minutes", "15 min ago", "7.5 min"},
	{int(hourSlots), 3, "the last hour", "1 h ago", "30 min"},
}

// spanFor is the shortest span that holds all that is known.
func spanFor(slots []slot) chartSpan {
	known := len(slots)
	for known > 0 && slots[len(slots)-known].at == 0 {
		known--
	}
	for _, s := range chartSpans {
		if known <= s.slots {
			return s
		}
	}
	return chartSpans[len(chartSpans)-1]
}

// chart is one picture of the last hour, or of the part of it that is known.
type chart struct {
	ID, Title string
	Span      chartSpan
	Most      string // of the scale
	Half      string
	Summary   string // for those who do not see it
	Series    []series
	Paths     template.HTML // ours alone: numbers and class names
	Empty     bool
}

// series is one line of a chart.
type series struct {
	Name, Class string
	Now         string
	points      []float64 // NaN: nothing known
	stacked     bool
}

// charts draws all charts of the overview.
func (h *history) charts(now time.Time) []chart {
	slots, _ := h.hour(now)
	span := spanFor(slots)
	slots = slots[len(slots)-span.slots:]
	n := len(slots) / span.step
	points := make([]slot, n)
	known := make([]int, n)
	for i := range points {
		points[i], known[i] = merge(slots[i*span.step : (i+1)*span.step])
	}
	line := func(name, class string, value func(*slot) float64, per bool) series {
		s := series{Name: name, Class: class, points: make([]float64, n)}
		for i := range points {
			s.points[i] = math.NaN()
			if known[i] == 0 {
				continue
			}
			s.points[i] = value(&points[i])
			if per {
				s.points[i] /= float64(known[i]) * float64(slotSeconds)
			}
		}
		return s
	}
	stacked := func(s series) series { s.stacked = true; return s }
	all := []chart{
		draw("in", "Messages in", "/s", rateText, line("accepted", "c1", func(s *slot) float64 { return float64(s.accepted) }, true)),
		draw("out", "Notifications out", "/s", rateText, line("delivered", "c2", func(s *slot) float64 { return float64(s.delivered) }, true)),
		drawLog("latency", "Delivery latency", "", milliText,
			line("99%", "c4", func(s *slot) float64 { return s.percentile(.99) }, false),
			line("95%", "c3", func(s *slot) float64 { return s.percentile(.95) }, false),
			line("half", "c2", func(s *slot) float64 { return s.percentile(.5) }, false)),
		draw("satellites", "Satellites", "", wholeText,
			stacked(line("not reached", "parked", func(s *slot) float64 { return float64(s.parked) }, false)),
			stacked(line("catching up", "behind", func(s *slot) float64 { return float64(s.behind) }, false)),
			stacked(line("live", "live", func(s *slot) float64 { return float64(s.idle + s.live) }, false))),
		draw("backlog", "Backlog", "", wholeText, line("owed", "behind", func(s *slot) float64 { return float64(s.backlog) }, false)),
		draw("trouble", "Failed and refused calls", "/s", rateText,
			line("failed", "parked", func(s *slot) float64 { return float64(s.failed) }, true),
			line("refused", "c3", func(s *slot) float64 { return float64(s.refused) }, true)),
	}
	for i := range all {
		all[i].describe(span)
	}
	return all
}

// describe says in words what a chart shows, for those who do not see it.
func (c *chart) describe(span chartSpan) {
	c.Span = span
	if c.Empty {
		c.Summary = c.Title + " in " + span.Name + ": nothing is known yet"
		return
	}
	var words []string
	for _, s := range c.Series {
		words = append(words, s.Name+" "+s.Now)
	}
	c.Summary = fmt.Sprintf("%s in %s: now %s; the scale ends at %s", c.Title, span.Name, strings.Join(words, ", "), c.Most)
}

// logFloor is the lower end of a logarithmic scale, in milliseconds.
const logFloor = .1

// scale is how values become heights.
type scale struct {
	top float64 // the height of the highest
	log bool    // heights are decades above logFloor
}

func (s scale) height(v float64) float64 {
	if s.log {
		v = max(math.Log10(v/logFloor), 0)
	}
	return v / s.top
}

// value is what stands at a part of the height.
func (s scale) value(part float64) float64 {
	if s.log {
		return logFloor * math.Pow(10, s.top*part)
	}
	return s.top * part
}

func scaleFor(top float64, log bool) scale {
	if !log {
		return scale{top: niceTop(top)}
	}
	// An even number of decades, so that the middle is a power of ten too.
	return scale{top: max(2*math.Ceil(math.Log10(max(top, 1)/logFloor)/2-1e-9), 2), log: true}
}

// draw makes a chart. The series are drawn in order, the last on top.
func draw(id, title, unit string, text func(float64) string, all ...series) chart {
	return drawOn(false, id, title, unit, text, all)
}

// drawLog makes a chart with a logarithmic scale, for times, which differ by
// powers of ten.
func drawLog(id, title, unit string, text func(float64) string, all ...series) chart {
	return drawOn(true, id, title, unit, text, all)
}

func drawOn(log bool, id, title, unit string, text func(float64) string, all []series) chart {
	c := chart{ID: id, Title: title, Empty: true}
	n := len(all[0].points)
	base := make([]float64, n)
	top := 0.0
	drawn := make([][]float64, len(all))
	for k := range all {
		drawn[k] = make([]float64, n)
		for i, v := range all[k].points {
			if all[k].stacked && !math.IsNaN(v) {
				base[i] += v
				v = base[i]
			}
			drawn[k][i] = v
			if !math.IsNaN(v) {
				top, c.Empty = max(top, v), false
			}
		}
	}
	scale := scaleFor(top, log)
	c.Most, c.Half = text(scale.value(1))+unit, text(scale.value(.5))+unit
	var b strings.Builder
	order := make([]int, len(all))
	for k := range order {
		order[k] = k
		if all[k].stacked { // the highest first, so that the lower ones stay visible
			order[k] = len(all) - 1 - k
		}
	}
	for _, k := range order {
		drawSeries(&b, drawn[k], scale, all[k].Class, all[k].stacked || len(all) == 1)
	}
	c.Paths = template.HTML(b.String()) //nolint:gosec // made of numbers and our own class names
	for k := range all {
		all[k].Now = "–"
		if v, ok := lastOf(all[k].points); ok {
			all[k].Now = text(v) + unit
		}
	}
	c.Series = all
	return c
}

// drawSeries writes a line, and with area what is below it. Where nothing is
// known the line has a gap.
func drawSeries(b *strings.Builder, points []float64, scale scale, class string, area bool) {
	x := func(i int) string { return short(float64(i) * chartWidth / float64(len(points)-1)) }
	y := func(v float64) string { return short(chartHeight - 1 - scale.height(v)*(chartHeight-5)) }
	var line, fill strings.Builder
	for i := 0; i < len(points); {
		if math.IsNaN(points[i]) {
			i++
			continue
		}
		first := i
		var run strings.Builder
		for ; i < len(points) && !math.IsNaN(points[i]); i++ {
			if i > first {
				run.WriteByte('L')
			}
			run.WriteString(x(i) + " " + y(points[i]))
		}
		if i-first == 1 { // one point alone: a dash that can be seen
			run.WriteString("h1")
		}
		line.WriteString("M" + run.String())
		fill.WriteString("M" + x(first) + " " + strconv.Itoa(chartHeight) + "L" + run.String() + "V" + strconv.Itoa(chartHeight) + "Z")
	}
	if line.Len() == 0 {
		return
	}
	if area {
		b.WriteString(`<path class="area ` + class + `" d="` + fill.String() + `"/>`)
	}
	b.WriteString(`<path class="line ` + class + `" d="` + line.String() + `"/>`)
}

// short writes a coordinate with one decimal.
func short(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }

func lastOf(points []float64) (float64, bool) {
	for i := len(points) - 1; i >= max(len(points)-4, 0); i-- {
		if !math.IsNaN(points[i]) {
			return points[i], true
		}
	}
	return 0, false
}

// niceTop is the end of a scale: 1, 2 or 5 times a power of ten.
func niceTop(v float64) float64 {
	if v <= 0 {
		return 1
	}
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5, 10} {
		if v <= m*p*1.0001 {
			return m * p
		}
	}
	return 10 * p
}

// rateText writes a number of things per second.
func rateText(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 10:
		return trimZero(strconv.FormatFloat(v, 'f', 1, 64))
	case v >= 1e6:
		return trimZero(strconv.FormatFloat(v/1e6, 'f', 1, 64)) + "M"
	}
	return number10(int64(math.Round(v)))
}

func wholeText(v float64) string {
	if v > 0 && v < 1 {
		return trimZero(strconv.FormatFloat(v, 'f', 1, 64))
	}
	return shortNumber(int64(math.Round(v)))
}

// milliText writes milliseconds.
func milliText(v float64) string {
	switch {
	case v == 0:
		return "0 ms"
	case v < 1:
		return trimZero(strconv.FormatFloat(v, 'f', 2, 64)) + " ms"
	case v < 10:
		return trimZero(strconv.FormatFloat(v, 'f', 1, 64)) + " ms"
	case v < 1000:
		return strconv.FormatFloat(v, 'f', 0, 64) + " ms"
	}
	return trimZero(strconv.FormatFloat(v/1000, 'f', 1, 64)) + " s"
}

// trimZero drops decimals that say nothing.
func trimZero(s string) string {
	if !strings.ContainsRune(s, '.') {
		return s
	}
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}
