package frontend

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

// method is one row of the method table: everything that the relay knows of
// one method, under however many names it answers.
type method struct {
	names       []string // all that answer, the preferred one first
	group       string   // under which help and pages show it
	param       paramKind
	members     []member // of the struct that is the parameter, in order
	result      string   // type name of the result, typeAny if it varies
	returns     string   // what the result is
	doc         string   // what the method does: one line, then more if need be
	faults      []string // its own; those that every method has are left out
	handle      func(*Frontend, context.Context, *request) (xmlrpc.Value, error)
	callsOthers bool // call_method and system.multicall: call_method may not call these
}

// paramKind is how a method takes its parameter. Co2 methods take one struct;
// the other kinds are the protocol page's exceptions.
type paramKind uint8

const (
	noParam     paramKind = iota // none, or one of any type, which is not looked at
	structParam                  // the struct
	hostIDParam                  // the struct {'host_id': id}, or the id itself
	nameParam                    // a method's name, or a struct with one string member
	anyParam                     // anything, passed on as it is
	arrayParam                   // an array
)

// Names of the types, as system.methodSignature gives them. typeAny is ours:
// signatures list every type in its place.
const (
	typeAny    = "any"
	typeInt    = "int"
	typeDouble = "double"
	typeString = "string"
	typeArray  = "array"
	typeStruct = "struct"
)

// Members of parameter structs that the code looks for.
const (
	memberHostID = "host_id"
	memberData   = "data"
	memberMethod = "method_name"
	memberDedup  = "dedup_id"
	memberPass   = "notify_pass"
	memberMsgID  = "msg_id"
)

// member is one member of a method's parameter struct.
type member struct {
	name     string
	typ      string
	doc      string
	optional bool
	preset   xmlrpc.Value // what stands for an optional member that is absent; zero: nothing does
}

// request is one call of one method.
type request struct {
	from   peer
	method string       // the name under which it was called
	param  xmlrpc.Value // zero if there was none
	text   string       // for hostIDParam and nameParam: what was meant
	answer *answer
	before int64 // bytes of the answer that are not this call's, in a multicall
}

// reserve is to be called before a large result is built, with its size in bytes.
func (r *request) reserve(ctx context.Context, n int64) error {
	return r.answer.reserve(ctx, r.before+n)
}

// peer is who makes a call.
type peer struct {
	// addr is the caller's address in the registry's normal form.
	addr netip.Addr
	// life ends when the frontend gives up what is in flight; unlike the
	// request's context not when the client hangs up.
	life context.Context
}

// entry is one name of a method, as dispatch finds it.
type entry struct {
	*method
	name   string
	family string
}

// index makes the dispatch table. A name may stand only once.
func index(table []method) (map[string]*entry, []string, error) {
	byName := make(map[string]*entry)
	var names []string
	for i := range table {
		m := &table[i]
		for _, n := range m.names {
			if byName[n] != nil {
				return nil, nil, fmt.Errorf("method table: %s stands twice", n)
			}
			byName[n] = &entry{method: m, name: n, family: familyOf(n)}
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return byName, names, nil
}

// familyOf gives the part of a method's name before the dot, "top" where
// there is none.
func familyOf(name string) string {
	family, _, dotted := strings.Cut(name, ".")
	if !dotted {
		return "top"
	}
	return family
}

// dispatch runs one method. The error is a *xmlrpc.Fault.
func (f *Frontend) dispatch(ctx context.Context, name string, params []xmlrpc.Value, req request) (v xmlrpc.Value, err error) {
	family := familyUnknown
	defer func() {
		if p := recover(); p != nil {
			f.log.Error("method panicked", "method", name, "stack", string(debug.Stack()), "error", fmt.Sprint(p))
			v, err = xmlrpc.Value{}, internalFault()
		}
		f.metrics.call(family, err)
		if f.log.IsDebug() {
			f.log.Debug("method called", "method", shown(name), "caller", req.from.addr, "fault", err)
		}
	}()
	e := f.methods[name]
	if e == nil {
		return v, &xmlrpc.Fault{Code: xmlrpc.CodeNoMethod,
			Text: fmt.Sprintf("there is no method %q here; system.listMethods lists those there are", shown(name))}
	}
	family = e.family
	req.method = e.name
	if err := e.take(params, &req); err != nil {
		return v, err
	}
	v, err = e.handle(f, ctx, &req)
	if err != nil {
		return xmlrpc.Value{}, f.faultOf(e.name, err)
	}
	if int64(len(v.Raw())) > f.cfg.MaxAnswer {
		return xmlrpc.Value{}, &xmlrpc.Fault{Code: xmlrpc.CodeInternal,
			Text: fmt.Sprintf("the answer would have %d bytes, and the relay gives at most %d (--max-answer)", len(v.Raw()), f.cfg.MaxAnswer)}
	}
	return v, nil
}

// faultOf turns what a handler returned into a Fault. What is not one already
// is the relay's own trouble: it goes to the log, and its text not to a stranger.
func (f *Frontend) faultOf(name string, err error) *xmlrpc.Fault {
	var fault *xmlrpc.Fault
	if errors.As(err, &fault) {
		return fault
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		f.log.Warn("method not finished in time", "method", name, "error", err)
		return &xmlrpc.Fault{Code: xmlrpc.CodeInternal, Text: "the relay could not reach its broker in time; try again"}
	}
	f.log.Error("method failed", "method", name, "error", err)
	return internalFault()
}

func internalFault() *xmlrpc.Fault {
	return &xmlrpc.Fault{Code: xmlrpc.CodeInternal, Text: "the relay failed to do this; its log says why; try again"}
}

// asFault gives an error of the codec as the Fault that it is.
func asFault(err error) *xmlrpc.Fault {
	var fault *xmlrpc.Fault
	if errors.As(err, &fault) {
		return fault
	}
	return &xmlrpc.Fault{Code: xmlrpc.CodeNotWellFormed, Text: err.Error()}
}

// take checks the parameters of a call against the method's kind, by the
// liberal rules of the protocol page, and fills in the request.
func (e *entry) take(params []xmlrpc.Value, req *request) error {
	if len(params) > 1 {
		return wrongParams("%s takes one parameter, and was called with %d; put all arguments into one struct", e.name, len(params))
	}
	if len(params) == 1 {
		req.param = params[0]
	}
	kind := req.param.Kind()
	switch e.param {
	case noParam, anyParam:
		return nil
	case structParam:
		if kind == xmlrpc.Struct {
			return nil
		}
	case arrayParam:
		if kind == xmlrpc.Array {
			return nil
		}
	case hostIDParam:
		if s, ok := req.param.Str(); ok {
			req.text = s
			return nil
		}
		if id, ok := req.param.Member(memberHostID); ok {
			if req.text, ok = id.Str(); ok {
				return nil
			}
			return wrongParams("%s: member host_id must be a string, the id that relay.register returned", e.name)
		}
	case nameParam:
		if s, ok := soleString(req.param); ok {
			req.text = s
			return nil
		}
	}
	return wrongParams("%s takes %s; co2.get_method_help describes it", e.name, e.wants())
}

// soleString gives the text of a string, or of a struct's only member.
func soleString(v xmlrpc.Value) (string, bool) {
	if s, ok := v.Str(); ok {
		return s, true
	}
	var text string
	members, strings := 0, 0
	for _, m := range v.Members() {
		members++
		if s, ok := m.Str(); ok {
			text = s
			strings++
		}
	}
	return text, members == 1 && strings == 1
}

// wants says in words what a method takes.
func (e *entry) wants() string {
	switch e.param {
	case structParam:
		var required []string
		for _, m := range e.members {
			if !m.optional {
				required = append(required, m.name)
			}
		}
		return "one struct with at least " + strings.Join(required, " and ")
	case hostIDParam:
		return "one struct with the member host_id (a string), or the id itself as a string"
	case nameParam:
		return "the name of a method, as a string"
	case arrayParam:
		return "one array"
	}
	return "no parameter"
}
