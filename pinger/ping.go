package pinger

import (
	"context"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/internal/caller"
	"github.com/co2relay/co2relay/internal/xmlrpc"
	"github.com/co2relay/co2relay/registry"
)

// result is what became of one ping.
type result struct {
	kind   string // of the metric: resultReply, resultFault, or why it failed
	took   time.Duration
	reason string // of a failure: the address, the error and the likely cause
}

// Kinds of results.
const (
	resultReply     = "reply"
	resultFault     = "fault" // a reply too: what is measured is the round trip
	resultRefused   = "refused"
	resultTimeout   = "timeout"
	resultNoRoute   = "no_route"
	resultTLS       = "tls"
	resultNotHTTP   = "not_http"
	resultNotXMLRPC = "not_xmlrpc"
	resultBroken    = "broken"
	resultOther     = "other"
	resultAborted   = "aborted" // by this pinger: says nothing about the satellite
	resultLocal     = "local"   // this machine is out of descriptors or ports: neither does this
)

func (r result) ok() bool { return r.kind == resultReply || r.kind == resultFault }

// ping calls a satellite's method ping. Any well-formed XML-RPC answer in time
// is a reply, whatever its status.
func (p *Pinger) ping(ctx context.Context, sat *registry.Satellite) result {
	target := caller.Target{Addr: sat.Addr, Scheme: sat.Scheme, TLSName: sat.TLSName}
	answer, took, err := p.client.Post(ctx, target, p.body)
	r := result{kind: resultReply, took: took}
	switch {
	case err != nil && ctx.Err() != nil:
		r.kind = resultAborted
	case err != nil:
		r.kind, r.reason = explain(sat.Addr, err)
	default:
		fault, err := checkAnswer(&answer)
		if err != nil {
			r.kind, r.reason = resultNotXMLRPC, explainAnswer(sat.Addr, answer.Status, err)
		} else if fault {
			r.kind = resultFault
		}
	}
	return r
}

func checkAnswer(a *caller.Answer) (fault bool, err error) {
	if a.Oversized {
		return false, errOversized
	}
	return xmlrpc.CheckResponse(a.Body, a.Charset, xmlrpc.AnswerLimits())
}

// settle is the one place where a ping's result takes effect: figures, events,
// hints and the time of the next ping.
func (p *Pinger) settle(t *target, id registry.ID, r result, fromFailing bool) {
	p.met.count(r)
	now := time.Now()
	hints, event := p.note(t, r, fromFailing, now)
	p.signal()
	for _, kind := range hints {
		p.clus.Hint(t.part.id, cluster.Hint{Kind: kind, Satellite: string(id)})
	}
	if event != nil {
		p.log.Info("satellite changed", "satellite", event.Satellite, "state", event.Kind, "reason", event.Reason)
		p.clus.Emit(*event)
	}
	if r.ok() {
		return
	}
	p.mu.Lock()
	sat, since, late := t.sat, t.fig.FailingSince, t.live() && p.overdue(t, now)
	p.mu.Unlock()
	if late {
		p.forget(t, sat, since, r.reason)
	}
}

// note writes a result down under the lock.
func (p *Pinger) note(t *target, r result, fromFailing bool, now time.Time) (hints []string, event *cluster.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy--
	t.part.busy--
	if fromFailing {
		p.busyFail--
	}
	t.pinging = false
	if t.gone || p.parts[t.part.id] != t.part {
		return nil, nil
	}
	switch {
	case r.kind == resultAborted || r.kind == resultLocal:
		if r.kind == resultLocal {
			p.log.Warn("could not ping", "satellite", string(t.sat.ID), "error", r.reason)
		}
		p.plan(t, now.Add(firstBackoff))
		return nil, nil
	case r.ok():
		hints = t.answered(r, now)
	case r.kind == resultTimeout && !t.closing && t.fig.Failing == 0:
		// A server that serves one connection at a time is kept from
		// answering by an idle connection of ours. That is closed now, and
		// only the next ping counts.
		t.closing = true
		p.plan(t, now.Add(retrySooner))
		return []string{cluster.HintCloseIdle}, nil
	default:
		hints = t.failed(r, now)
	}
	t.part.changed = true
	event = t.event(r, now, p.member.ID())
	p.plan(t, now.Add(p.pause(t, now)))
	return hints, event
}

// answered counts a reply. The delivery worker is told of each one: a parked
// lane is then tried at once, and a worker that took the partition over learns
// of a satellite that serves one connection at a time.
func (t *target) answered(r result, now time.Time) []string {
	f := &t.fig
	ms := float64(r.took) / float64(time.Millisecond)
	if f.Count == f.Fails {
		f.Min, f.Max = ms, ms
	}
	f.Count++
	f.Current, f.Min, f.Max, f.Sum = ms, min(f.Min, ms), max(f.Max, ms), f.Sum+ms
	f.Remember(r.took)
	f.At, f.Failing, f.FailingSince = now.UTC(), 0, time.Time{}
	if t.closing {
		f.OneAtATime, t.closing = true, false
	}
	if f.OneAtATime {
		return []string{cluster.HintOneAtATime, cluster.HintAlive}
	}
	return []string{cluster.HintAlive}
}

// failed counts a ping that was not answered.
func (t *target) failed(r result, now time.Time) []string {
	f := &t.fig
	f.Count++
	f.Fails++
	f.Failing++
	if f.FailingSince.IsZero() {
		f.FailingSince = now.UTC()
	}
	f.RememberFailed()
	f.Current, f.At = -1, now.UTC()
	t.closing = false
	if r.kind == resultTimeout {
		return []string{cluster.HintCloseIdle}
	}
	return nil
}
