package frontend

import (
	"context"
	"fmt"
	"strings"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

// maxMulticall bounds the calls in one system.multicall.
const maxMulticall = 1000

// What stands for a call in a multicall's answer that has no room for more.
var (
	calledTooLate = faultValue(&xmlrpc.Fault{Code: xmlrpc.CodeInternal, Text: "not called: the calls before took too long"})
	notCalled     = faultValue(&xmlrpc.Fault{Code: xmlrpc.CodeInternal, Text: "not called: the answer is full; make fewer calls at once"})
	noRoom        = faultValue(&xmlrpc.Fault{Code: xmlrpc.CodeInternal, Text: "called, but the answer has no room for its result; make fewer calls at once"})
	// spareAnswer is kept free for each call that is still to be made, in bytes:
	// whatever the others take, it can be said what became of it.
	spareAnswer = int64(max(len(calledTooLate.Raw()), len(notCalled.Raw()), len(noRoom.Raw())))
	emptyArray  = int64(len(xmlrpc.NewArray().Raw()))
)

func (f *Frontend) ping(context.Context, *request) (xmlrpc.Value, error) {
	return xmlrpc.NewString("pong"), nil
}

func (f *Frontend) test(_ context.Context, r *request) (xmlrpc.Value, error) {
	if r.param.IsZero() {
		return xmlrpc.NewStruct(), nil
	}
	return r.param, nil
}

func (f *Frontend) methodNames(context.Context, *request) (xmlrpc.Value, error) {
	return stringArray(f.names), nil
}

func (f *Frontend) methodHelp(_ context.Context, r *request) (xmlrpc.Value, error) {
	e, err := f.entryOf(r.text)
	if err != nil {
		return xmlrpc.Value{}, err
	}
	return xmlrpc.NewString(e.help()), nil
}

func (f *Frontend) methodArgs(_ context.Context, r *request) (xmlrpc.Value, error) {
	e, err := f.entryOf(r.text)
	if err != nil {
		return xmlrpc.Value{}, err
	}
	return e.signature(), nil
}

func (f *Frontend) methodTypes(_ context.Context, r *request) (xmlrpc.Value, error) {
	e, err := f.entryOf(r.text)
	if err != nil {
		return xmlrpc.Value{}, err
	}
	var sigs []xmlrpc.Value
	for _, s := range e.types() {
		sigs = append(sigs, stringArray(s))
	}
	return xmlrpc.NewArray(sigs...), nil
}

func (f *Frontend) entryOf(name string) (*entry, error) {
	e := f.methods[name]
	if e == nil {
		return nil, wrongParams("there is no method %q here; system.listMethods lists those there are", shown(name))
	}
	return e, nil
}

func (f *Frontend) capabilities(context.Context, *request) (xmlrpc.Value, error) {
	spec := func(name, url string, version int64) xmlrpc.Field {
		return xmlrpc.Field{Name: name, Value: xmlrpc.NewStruct(
			xmlrpc.Field{Name: "specUrl", Value: xmlrpc.NewString(url)},
			xmlrpc.Field{Name: "specVersion", Value: xmlrpc.NewInt(version)},
		)}
	}
	return xmlrpc.NewStruct(
		spec("xmlrpc", "http://www.xmlrpc.com/spec", 1),
		spec("faults_interop", "http://xmlrpc-epi.sourceforge.net/specs/rfc.fault_codes.php", 20010516),
		spec("system.multicall", "http://www.xmlrpc.com/discuss/msgReader$1208", 1),
		spec("introspect", "http://xmlrpc-c.sourceforge.net/xmlrpc-c/introspection.html", 1),
		spec("introspection", "http://xmlrpc-c.sourceforge.net/xmlrpc-c/introspection.html", 1),
		spec("nil", "http://www.ontosys.com/xml-rpc/extensions.php", 20010518),
	), nil
}

// callMethod calls another method with the members beside method_name, by the
// rules of the protocol page, "ping, test, call_method".
func (f *Frontend) callMethod(ctx context.Context, r *request) (xmlrpc.Value, error) {
	v, ok := r.param.Member(memberMethod)
	if !ok {
		return xmlrpc.Value{}, wrongParams("%s: member method_name, the method to call, is missing", r.method)
	}
	name, ok := v.Str()
	if !ok {
		return xmlrpc.Value{}, wrongParams("%s: member method_name must be a string", r.method)
	}
	if e := f.methods[name]; e != nil && e.callsOthers {
		return xmlrpc.Value{}, wrongParams("%s cannot call %s; call it by itself", r.method, name)
	}
	var rest strings.Builder
	for name, raw := range r.param.RawMembers() {
		if name != memberMethod {
			rest.WriteString(raw)
		}
	}
	var params []xmlrpc.Value
	if rest.Len() > 0 {
		params = []xmlrpc.Value{xmlrpc.StructOf(rest.String())}
	}
	return f.dispatch(ctx, name, params, request{from: r.from, answer: r.answer, before: r.before})
}

// multicall makes calls one after the other. Calls that its time or its
// answer's size have no room for are not made, and their faults say so. The
// answer never exceeds its limit: a client that saw a failure only would repeat
// calls that were made.
func (f *Frontend) multicall(ctx context.Context, r *request) (xmlrpc.Value, error) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.PublishTimeout)
	defer cancel()
	calls, most := int64(0), min(maxMulticall, f.cfg.MaxAnswer/(2*spareAnswer))
	for range r.param.Elements() {
		if calls++; calls > most {
			return xmlrpc.Value{}, wrongParams("system.multicall takes at most %d calls at once; none was made", most)
		}
	}
	if err := r.reserve(ctx, emptyArray+calls*spareAnswer); err != nil {
		return xmlrpc.Value{}, err
	}
	results := make([]xmlrpc.Value, 0, calls)
	size := emptyArray
	for call := range r.param.Elements() {
		calls--
		result := f.oneOfMany(ctx, call, r, size+calls*spareAnswer)
		size += int64(len(result.Raw()))
		results = append(results, result)
	}
	return xmlrpc.NewArray(results...), nil
}

// oneOfMany makes one call of a multicall, of whose answer others take so many
// bytes before and after it; a spareAnswer is left. It gives what stands for
// the call in the answer.
func (f *Frontend) oneOfMany(ctx context.Context, call xmlrpc.Value, r *request, others int64) xmlrpc.Value {
	room := f.cfg.MaxAnswer - others
	if ctx.Err() != nil {
		return calledTooLate
	}
	if room < 2*spareAnswer {
		return notCalled
	}
	instead := notCalled
	name, params, err := multicallCall(call)
	var v xmlrpc.Value
	if err == nil {
		instead = noRoom
		v, err = f.dispatch(ctx, name, params, request{from: r.from, answer: r.answer, before: others + emptyArray})
	}
	size := emptyArray + int64(len(v.Raw()))
	if err != nil {
		v = faultValue(err)
		size = int64(len(v.Raw()))
	}
	if size > room || r.answer.reserve(ctx, others+size) != nil {
		return instead
	}
	if err != nil {
		return v
	}
	return xmlrpc.NewArray(v)
}

// multicallCall reads one struct of a multicall.
func multicallCall(call xmlrpc.Value) (name string, params []xmlrpc.Value, err error) {
	v, _ := call.Member("methodName")
	name, ok := v.Str()
	if !ok {
		return "", nil, wrongParams("each call must be a struct with methodName (a string) and params (an array)")
	}
	if name == "system.multicall" {
		return "", nil, wrongParams("system.multicall cannot call itself")
	}
	v, ok = call.Member("params")
	if ok && v.Kind() != xmlrpc.Array {
		return "", nil, wrongParams("%s: params must be an array", shown(name))
	}
	for p := range v.Elements() {
		// In a plain call the reader of the document sees to this.
		if twice, found := p.Duplicate(); found {
			return "", nil, wrongParams("%s: the member %q is twice in the parameter; send it once", shown(name), shown(twice))
		}
		params = append(params, p)
	}
	return name, params, nil
}

// faultValue is how a fault stands in a multicall's answer.
func faultValue(err error) xmlrpc.Value {
	fault := asFault(err)
	return xmlrpc.NewStruct(
		xmlrpc.Field{Name: "faultCode", Value: xmlrpc.NewInt(int64(fault.Code))},
		xmlrpc.Field{Name: "faultString", Value: xmlrpc.NewString(fault.Text)},
	)
}

func stringArray(texts []string) xmlrpc.Value {
	values := make([]xmlrpc.Value, len(texts))
	for i, t := range texts {
		values[i] = xmlrpc.NewString(t)
	}
	return xmlrpc.NewArray(values...)
}

// intMember reads an integer member of a call's struct. found is false where it
// is absent; the error says what is wrong with it.
func intMember(v xmlrpc.Value, method, name string) (n int64, found bool, err error) {
	m, found := v.Member(name)
	if !found {
		return 0, false, nil
	}
	n, ok := m.Int()
	if !ok {
		return 0, true, wrongParams("%s: member %s must be an int", method, name)
	}
	return n, true, nil
}

// stringMember reads an optional string member, "" where it is absent.
func stringMember(v xmlrpc.Value, method, name string) (string, error) {
	m, found := v.Member(name)
	if !found {
		return "", nil
	}
	s, ok := m.Str()
	if !ok {
		return "", wrongParams("%s: member %s must be a string", method, name)
	}
	return s, nil
}

// count writes a number of things as text: "1 satellite", "3 satellites".
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
