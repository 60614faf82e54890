package satellite_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

// fakeRelay is as much of a relay as a satellite sees, with faults on demand.
// The real one meets the package in interop.
type fakeRelay struct {
	srv *httptest.Server

	mu       sync.Mutex
	sats     map[string]xmlrpc.Value // registration by host id
	calls    map[string]int          // by method
	dedup    map[string]int          // how often each dedup_id came
	nextID   uint64
	fail     func(method string, n int) *failure // nil: none; n counts the method's calls from 1
	notified []string                            // the satellites' answers
}

// failure of one call.
type failure struct {
	fault    *xmlrpc.Fault
	status   int
	hangUp   bool // closes the connection without an answer
	accepted bool // the call took effect all the same
}

func newFakeRelay() *fakeRelay {
	r := &fakeRelay{sats: map[string]xmlrpc.Value{}, calls: map[string]int{}, dedup: map[string]int{}, nextID: 1000}
	r.srv = httptest.NewServer(r)
	return r
}

func startFakeRelay(t *testing.T) *fakeRelay {
	r := newFakeRelay()
	t.Cleanup(r.srv.Close)
	return r
}

func (r *fakeRelay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	doc, _ := io.ReadAll(req.Body)
	call, err := xmlrpc.ParseCall(doc, "", xmlrpc.DefaultLimits())
	if err != nil {
		panic(err)
	}
	r.mu.Lock()
	r.calls[call.Method]++
	var f *failure
	if r.fail != nil {
		f = r.fail(call.Method, r.calls[call.Method])
	}
	r.mu.Unlock()
	var v xmlrpc.Value
	var fault *xmlrpc.Fault
	if f == nil || f.accepted {
		host, _, _ := net.SplitHostPort(req.RemoteAddr)
		v, fault = r.do(call.Method, host, call.Params[0])
	}
	switch {
	case f != nil && f.hangUp:
		panic(http.ErrAbortHandler)
	case f != nil && f.status != 0:
		http.Error(w, "on demand", f.status)
		return
	case f != nil && f.fault != nil:
		fault = f.fault
	}
	if fault != nil {
		_, _ = w.Write(xmlrpc.AppendFault(nil, fault))
		return
	}
	_, _ = w.Write(xmlrpc.AppendResponse(nil, v))
}

func registryFault(text string) *xmlrpc.Fault {
	return &xmlrpc.Fault{Code: xmlrpc.CodeRegistry, Text: "registry.Co2RegistryError:" + text}
}

func (r *fakeRelay) do(method, host string, p xmlrpc.Value) (xmlrpc.Value, *xmlrpc.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := text(p, "host_id")
	if p.Kind() == xmlrpc.String {
		id, _ = p.Str()
	}
	_, known := r.sats[id]
	switch method {
	case "relay.register":
		port, _ := p.Member("port")
		n, _ := port.Int()
		id = net.JoinHostPort(host, strconv.FormatInt(n, 10))
		r.sats[id] = p
		return xmlrpc.NewString(id), nil
	case "relay.get_satellite_ctime":
		if !known {
			return p, registryFault("not registered")
		}
		return xmlrpc.NewDouble(1), nil
	case "relay.deregister":
		if !known {
			return p, &xmlrpc.Fault{Code: 1, Text: "exceptions.KeyError:'" + id + "'"}
		}
		delete(r.sats, id)
		return xmlrpc.NewString("OK"), nil
	case "relay.relay":
		if !known {
			return p, registryFault("satellite " + id + " is not registered")
		}
		d := text(p, "dedup_id")
		if r.dedup[d]++; r.dedup[d] == 1 {
			r.notifyAll(id, p)
		}
		return xmlrpc.NewString("OK"), nil
	}
	return p, nil
}

func (r *fakeRelay) notifyAll(sender string, p xmlrpc.Value) {
	r.nextID++
	for id := range r.sats {
		if id != sender {
			r.notified = append(r.notified, r.notifyOne(id, p, r.nextID))
		}
	}
}

// notifyOne calls notify of one satellite and returns its answer, as canonical
// value, "fault <text>" or "status <code>".
func (r *fakeRelay) notifyOne(id string, p xmlrpc.Value, msgID uint64) string {
	var members string
	for _, raw := range p.RawMembers() {
		members += raw
	}
	pass := text(r.sats[id], "notify_pass")
	for name, value := range map[string]string{"msg_id": strconv.FormatUint(msgID, 10), "notify_pass": pass} {
		members += "<member><name>" + name + "</name>" + xmlrpc.NewString(value).Raw() + "</member>"
	}
	return post("http://"+id+"/RPC2", xmlrpc.AppendCall(nil, "notify", xmlrpc.StructOf(members)))
}

func post(url string, doc []byte) string {
	resp, err := http.Post(url, "text/xml", bytes.NewReader(doc))
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Sprintf("status %d, retry after %q", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	answer, err := xmlrpc.ParseResponse(body, "", xmlrpc.AnswerLimits())
	switch {
	case err != nil:
		return err.Error()
	case answer.Fault != nil:
		return answer.Fault.Error()
	}
	return answer.Value.Raw()
}

func text(v xmlrpc.Value, name string) string {
	m, _ := v.Member(name)
	s, _ := m.Str()
	return s
}

func (r *fakeRelay) setFail(f func(method string, n int) *failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = f
}

func (r *fakeRelay) forgetAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.sats)
}

func (r *fakeRelay) knows(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.sats[id]
	return ok
}

func (r *fakeRelay) count(method string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls[method]
}
