package frontend

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

// familyUnknown counts calls of methods that do not exist, and documents from
// which no method's name could be read.
const familyUnknown = "unknown"

// metrics counts what the frontend does. Every label has few values, and the
// counters are looked up once, so that counting costs nanoseconds.
type metrics struct {
	calls         map[string]*[outcomes]prometheus.Counter
	relays        map[string]prometheus.Counter
	acceptSeconds prometheus.Histogram
	connections   prometheus.Gauge
	refusedConns  *prometheus.CounterVec
	refusedHTTP   *prometheus.CounterVec
	pages         *prometheus.CounterVec
}

// outcome is how a call ended.
type outcome int

const (
	outcomeOK outcome = iota
	outcomeRegistry
	outcomeNotWellFormed
	outcomeNotXMLRPC
	outcomeNoMethod
	outcomeWrongParams
	outcomeInternal
	outcomes
)

var outcomeNames = [outcomes]string{"ok", "registry_fault", "not_well_formed", "not_xmlrpc", "no_such_method", "wrong_params", "internal"}

// relayResults are the values of the label of co2_frontend_relays_total.
var relayResults = []string{"accepted", "invalid", "not_registered", "wrong_address", "rate_exceeded", "queue_full", "too_large", "short_of_disk", "store_failed", "maybe_accepted", "denied", "failed"}

// newMetrics registers the metrics; the error is the registerer's, for
// instance when another frontend uses it already.
func newMetrics(reg prometheus.Registerer, families []string) (*metrics, error) {
	calls := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "co2_frontend_calls_total", Help: "XML-RPC calls by the family of the method and the outcome.",
	}, []string{"family", "outcome"})
	relays := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "co2_frontend_relays_total", Help: "Calls of relay.relay by what became of the message.",
	}, []string{"result"})
	m := &metrics{
		calls:  make(map[string]*[outcomes]prometheus.Counter),
		relays: make(map[string]prometheus.Counter),
		acceptSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "co2_frontend_relay_accept_seconds", Help: "Time from a parsed relay.relay call to the message being stored, of accepted messages.",
			Buckets: []float64{.0002, .0005, .001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 15},
		}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "co2_frontend_connections", Help: "HTTP connections open.",
		}),
		refusedConns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "co2_frontend_connections_refused_total", Help: "HTTP connections refused, by the limit that they would have exceeded.",
		}, []string{"reason"}),
		refusedHTTP: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "co2_frontend_requests_refused_total", Help: "HTTP requests refused before they were read as a call, by reason.",
		}, []string{"reason"}),
		pages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "co2_frontend_pages_total", Help: "Web pages served, by page.",
		}, []string{"page"}),
	}
	for _, family := range append(families, familyUnknown) {
		row := new([outcomes]prometheus.Counter)
		for o, name := range outcomeNames {
			row[o] = calls.WithLabelValues(family, name)
		}
		m.calls[family] = row
	}
	for _, r := range relayResults {
		m.relays[r] = relays.WithLabelValues(r)
	}
	for _, c := range []prometheus.Collector{calls, relays, m.acceptSeconds, m.connections, m.refusedConns, m.refusedHTTP, m.pages} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register frontend metrics: %w", err)
		}
	}
	return m, nil
}

// call counts one call by its outcome, which the Fault's code tells.
func (m *metrics) call(family string, err error) {
	m.calls[family][outcomeOf(err)].Inc()
}

func outcomeOf(err error) outcome {
	var fault *xmlrpc.Fault
	switch {
	case err == nil:
		return outcomeOK
	case !errors.As(err, &fault):
		return outcomeInternal
	}
	switch fault.Code {
	case xmlrpc.CodeRegistry:
		return outcomeRegistry
	case xmlrpc.CodeNotWellFormed:
		return outcomeNotWellFormed
	case xmlrpc.CodeNotXMLRPC:
		return outcomeNotXMLRPC
	case xmlrpc.CodeNoMethod:
		return outcomeNoMethod
	case xmlrpc.CodeWrongParams:
		return outcomeWrongParams
	}
	return outcomeInternal
}

func (m *metrics) relay(result string) { m.relays[result].Inc() }

func (m *metrics) refusedConn(why error) {
	var e *errTooMany
	if errors.As(why, &e) {
		m.refusedConns.WithLabelValues(e.reason).Inc()
	}
}

func (m *metrics) refused(reason string) { m.refusedHTTP.WithLabelValues(reason).Inc() }
