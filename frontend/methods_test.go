package frontend

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

// everyName is the protocol page's table of names, with the kind of result.
var everyName = map[string]xmlrpc.Kind{
	"ping": xmlrpc.String, "test": xmlrpc.Struct, "call_method": xmlrpc.String, "method_call": xmlrpc.String,

	"co2.get_method_help": xmlrpc.String, "co2.get_method_names": xmlrpc.Array, "co2.co2_get_method_names": xmlrpc.Array,
	"co2.get_method_signature": xmlrpc.Struct, "co2.get_num_satellites": xmlrpc.Int, "co2.get_satellite": xmlrpc.Struct,
	"co2.get_satellite_props": xmlrpc.Struct, "co2.get_satellite_ctime": xmlrpc.Double, "co2.get_satellites": xmlrpc.Array,

	"relay.register": xmlrpc.String, "relay.deregister": xmlrpc.String, "relay.relay": xmlrpc.String,
	"relay.get_max_satellites": xmlrpc.Int, "relay.get_num_satellites": xmlrpc.Int, "relay.get_satellites": xmlrpc.Array,
	"relay.get_satellite_ctime": xmlrpc.Double, "relay.get_satellite_props": xmlrpc.Struct, "relay.get_satellite_props_raw": xmlrpc.Struct,

	"sys.listMethods": xmlrpc.Array, "sys.methodHelp": xmlrpc.String, "sys.methodSignature": xmlrpc.Struct, "sys.get_properties": xmlrpc.Struct,
	"system.listMethods": xmlrpc.Array, "system.methodHelp": xmlrpc.String, "system.methodSignature": xmlrpc.Array, "system.get_properties": xmlrpc.Struct,
	"system.multicall": xmlrpc.Array, "system.getCapabilities": xmlrpc.Struct,

	"web.call_method": xmlrpc.String, "web.method_call": xmlrpc.String, "web.get_method_help": xmlrpc.String, "web.get_method_names": xmlrpc.Array,
	"web.get_method_signature": xmlrpc.Struct, "web.get_num_satellites": xmlrpc.Int, "web.get_properties": xmlrpc.Struct,
	"web.get_satellite_ctime": xmlrpc.Double, "web.get_satellite_props": xmlrpc.Struct, "web.get_satellites": xmlrpc.Array,
	"web.ping": xmlrpc.String, "web.test": xmlrpc.Struct,
}

// paramFor gives a good parameter for a method.
func paramFor(name, id string) []xmlrpc.Value {
	switch {
	case name == "relay.register":
		return []xmlrpc.Value{str("port", 7777)}
	case name == "relay.deregister":
		return []xmlrpc.Value{str("host_id", "127.0.0.1:7777")}
	case name == "relay.relay":
		return []xmlrpc.Value{str("host_id", id, "data", "x")}
	case strings.Contains(name, "get_satellite_") || name == "co2.get_satellite":
		return []xmlrpc.Value{str("host_id", id)}
	case strings.Contains(name, "method_help"), strings.Contains(name, "methodHelp"),
		strings.Contains(name, "method_signature"), strings.Contains(name, "methodSignature"):
		return []xmlrpc.Value{xmlrpc.NewString("ping")}
	case strings.HasSuffix(name, "call_method"), strings.HasSuffix(name, "method_call"):
		return []xmlrpc.Value{str("method_name", "ping")}
	case name == "system.multicall":
		return []xmlrpc.Value{xmlrpc.NewArray(str("methodName", "ping", "params", xmlrpc.NewArray()))}
	}
	return nil
}

func TestEveryNameOfTheProtocolAnswers(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	c := r.from("")
	id := c.register(7000)
	names := make([]string, 0, len(everyName))
	for name := range everyName {
		names = append(names, name)
	}
	slices.Sort(names)
	// register before deregister of the same satellite
	slices.SortStableFunc(names, func(a, b string) int { return strings.Compare(order(a), order(b)) })
	for _, name := range names {
		if got, want := c.must(name, paramFor(name, id)...).Kind(), everyName[name]; got != want {
			t.Errorf("%s: result is of kind %d, want %d", name, got, want)
		}
	}
	if len(r.names) != len(everyName) {
		t.Errorf("the table has %d names, want the protocol page's %d", len(r.names), len(everyName))
	}
}

func order(name string) string {
	if name == "relay.register" {
		return "0"
	}
	return "1"
}

func TestListsOfNamesAreCompleteAndSorted(t *testing.T) {
	t.Parallel()
	c := start(t, nil).from("")
	for _, method := range []string{"system.listMethods", "sys.listMethods", "co2.get_method_names", "co2.co2_get_method_names", "web.get_method_names"} {
		var got []string
		for e := range c.must(method).Elements() {
			s, _ := e.Str()
			got = append(got, s)
		}
		if !slices.IsSorted(got) {
			t.Errorf("%s: not sorted: %q", method, got)
		}
		for name := range everyName {
			if !slices.Contains(got, name) {
				t.Errorf("%s: %s is missing", method, name)
			}
		}
	}
}

func TestHelpAndSignaturesComeForEveryName(t *testing.T) {
	t.Parallel()
	c := start(t, nil).from("")
	for name := range everyName {
		for _, method := range []string{"system.methodHelp", "sys.methodHelp", "co2.get_method_help", "web.get_method_help"} {
			help, _ := c.must(method, xmlrpc.NewString(name)).Str()
			if !strings.HasPrefix(help, name+"(") || !strings.Contains(help, "Returns: ") {
				t.Errorf("%s(%s): got %q, want usage and what it returns", method, name, help)
			}
		}
		for _, method := range []string{"sys.methodSignature", "co2.get_method_signature", "web.get_method_signature"} {
			sig := c.must(method, str("method_name", name))
			for member, kind := range map[string]xmlrpc.Kind{"args": xmlrpc.Array, "args_d": xmlrpc.Struct, "args_v": xmlrpc.Array, "args_kw": xmlrpc.Array} {
				if v, ok := sig.Member(member); !ok || v.Kind() != kind {
					t.Errorf("%s(%s): member %s is of kind %d (there: %t), want %d", method, name, member, v.Kind(), ok, kind)
				}
			}
		}
		for sig := range c.must("system.methodSignature", xmlrpc.NewString(name)).Elements() {
			n := 0
			for typ := range sig.Elements() {
				if s, _ := typ.Str(); s == "" || s == typeAny {
					t.Errorf("system.methodSignature(%s): type name %q", name, s)
				}
				n++
			}
			if n < 1 || n > 2 {
				t.Errorf("system.methodSignature(%s): %d types, want the result's and at most one parameter's", name, n)
			}
		}
	}
}

func TestSignatureOfRegisterListsMembersAndDefaults(t *testing.T) {
	t.Parallel()
	c := start(t, nil).from("")
	sig := c.must("co2.get_method_signature", xmlrpc.NewString("relay.register"))
	args, _ := sig.Member("args")
	var got []string
	for a := range args.Elements() {
		s, _ := a.Str()
		got = append(got, s)
	}
	want := []string{"port", "plugins", "nick", "notify_pass", "max_age", "scheme", "tls_name", "register_pass"}
	if !slices.Equal(got, want) {
		t.Errorf("args: got %q, want %q", got, want)
	}
	presets, _ := sig.Member("args_d")
	if _, ok := presets.Member("port"); ok {
		t.Error("args_d has port, which has no default")
	}
	if v, _ := presets.Member("plugins"); v.Kind() != xmlrpc.Array {
		t.Errorf("args_d plugins: got %s, want an empty array", v.Raw())
	}
	if v, _ := presets.Member("scheme"); v.Raw() != xmlrpc.NewString("http").Raw() {
		t.Errorf("args_d scheme: got %s, want http", v.Raw())
	}
}

func TestMethodsWithoutArgumentsTakeNoneOrAnyOne(t *testing.T) {
	t.Parallel()
	c := start(t, nil).from("")
	some := []xmlrpc.Value{xmlrpc.NewString(""), xmlrpc.NewInt(1), str(), xmlrpc.NewArray(), xmlrpc.NewBool(true), xmlrpc.NewNil()}
	for _, method := range []string{"ping", "web.ping", "relay.get_num_satellites", "co2.get_satellites", "system.listMethods", "sys.get_properties", "relay.get_max_satellites", "system.getCapabilities"} {
		c.must(method)
		for _, v := range some {
			c.must(method, v)
		}
		c.mustFault(xmlrpc.CodeWrongParams, "one parameter", method, xmlrpc.NewInt(1), xmlrpc.NewInt(2))
	}
}

func TestHostIDMayBeStructOrString(t *testing.T) {
	t.Parallel()
	c := start(t, nil).from("")
	id := c.register(7000)
	for _, method := range []string{"relay.get_satellite_props", "relay.get_satellite_props_raw", "co2.get_satellite", "web.get_satellite_ctime"} {
		a, b := c.must(method, str("host_id", id)), c.must(method, xmlrpc.NewString(id))
		if a.Kind() != b.Kind() {
			t.Errorf("%s: struct gives kind %d, string %d, want the same", method, a.Kind(), b.Kind())
		}
		c.mustFault(xmlrpc.CodeWrongParams, "host_id", method)
		c.mustFault(xmlrpc.CodeWrongParams, "host_id", method, xmlrpc.NewInt(3))
		c.mustFault(xmlrpc.CodeWrongParams, "host_id", method, str("host_id", 3))
		c.mustFault(xmlrpc.CodeRegistry, co2Error, method, xmlrpc.NewString("10.9.9.9:1"))
		c.mustFault(xmlrpc.CodeRegistry, co2Error, method, xmlrpc.NewString("nonsense"))
	}
	if got, _ := c.must("relay.deregister", xmlrpc.NewString(id)).Str(); got != "OK" {
		t.Errorf("deregister by bare string: got %q, want OK", got)
	}
}

func TestHelpTakesStringOrStructWithOneStringMember(t *testing.T) {
	t.Parallel()
	c := start(t, nil).from("")
	want := c.must("system.methodHelp", xmlrpc.NewString("ping")).Raw()
	for _, p := range []xmlrpc.Value{str("method_name", "ping"), str("whatever", "ping")} {
		if got := c.must("co2.get_method_help", p).Raw(); got != want {
			t.Errorf("help by %s: got %s, want %s", p.Raw(), got, want)
		}
	}
	for _, p := range []xmlrpc.Value{xmlrpc.NewInt(1), str(), str("a", 1), str("a", "ping", "b", "ping")} {
		c.mustFault(xmlrpc.CodeWrongParams, "name of a method", "co2.get_method_help", p)
	}
	c.mustFault(xmlrpc.CodeWrongParams, "no method", "system.methodSignature", xmlrpc.NewString("nope"))
}

func TestTestEchoesEveryTypeUnchanged(t *testing.T) {
	t.Parallel()
	c := start(t, nil).from("")
	values := []string{
		"<int>-2147483648</int>", "<i8>9223372036854775807</i8>", "<boolean>1</boolean>", "<string> a &lt;&amp;&gt; b\n\t </string>",
		"<double>-0.5</double>", "<dateTime.iso8601>20031016T16:37:23</dateTime.iso8601>", "<base64>aGVsbG8=</base64>", "<nil/>",
		"<array><data></data></array>",
		"<array><data><value><int>1</int></value><value><array><data><value><string></string></value></data></array></value></data></array>",
		"<struct><member><name>b</name><value><int>1</int></value></member><member><name>a</name><value><struct></struct></value></member></struct>",
	}
	for _, text := range values {
		doc := `<?xml version="1.0"?><methodCall><methodName>test</methodName><params><param><value>` + text + `</value></param></params></methodCall>`
		v, fault := parseAnswer(t, c.post([]byte(doc)))
		if want := "<value>" + text + "</value>"; fault != nil || v.Raw() != want {
			t.Errorf("echo: got %s (fault %v), want %s", v.Raw(), fault, want)
		}
	}
}

func TestUnknownMethodIsAFaultThatSaysWhatToDo(t *testing.T) {
	t.Parallel()
	c := start(t, nil).from("")
	c.mustFault(xmlrpc.CodeNoMethod, "system.listMethods", "relay.nope")
	text := c.mustFault(xmlrpc.CodeNoMethod, "...", strings.Repeat("x", 900))
	if len(text) > 300 {
		t.Errorf("fault repeats %d bytes of a stranger's name, want it cut", len(text))
	}
}

func TestCallMethodPassesTheRemainingMembers(t *testing.T) {
	t.Parallel()
	c := start(t, nil).from("")
	for _, name := range []string{"call_method", "method_call", "web.call_method", "web.method_call"} {
		if got, _ := c.must(name, str("method_name", "ping")).Str(); got != "pong" {
			t.Errorf("%s ping: got %q, want pong", name, got)
		}
		got := c.must(name, str("method_name", "test", "a", 1, "b", "x"))
		if want := str("a", 1, "b", "x"); got.Raw() != want.Raw() {
			t.Errorf("%s test: got %s, want %s", name, got.Raw(), want.Raw())
		}
		if got, _ := c.must(name, str("method_name", "system.methodHelp", "name", "ping")).Str(); !strings.HasPrefix(got, "ping()") {
			t.Errorf("%s methodHelp: got %q, want ping's help", name, got)
		}
		id, _ := c.must(name, str("method_name", "relay.register", "port", 7100)).Str()
		if id != "127.0.0.1:7100" {
			t.Errorf("%s register: got id %q, want the caller's address", name, id)
		}
		c.mustFault(xmlrpc.CodeNoMethod, "no method", name, str("method_name", "nope"))
		c.mustFault(xmlrpc.CodeWrongParams, "method_name", name, str("a", 1))
		c.mustFault(xmlrpc.CodeWrongParams, "method_name", name, str("method_name", 1))
		for _, other := range []string{"call_method", "method_call", "web.call_method", "web.method_call", "system.multicall"} {
			c.mustFault(xmlrpc.CodeWrongParams, "cannot call", name, str("method_name", other))
		}
	}
}

func TestMulticallAnswersEachCallByItself(t *testing.T) {
	t.Parallel()
	c := start(t, nil).from("")
	call := func(name string, params ...xmlrpc.Value) xmlrpc.Value {
		return str("methodName", name, "params", xmlrpc.NewArray(params...))
	}
	got := c.must("system.multicall", xmlrpc.NewArray(
		call("ping"), call("nope"), call("test", xmlrpc.NewInt(5)), call("system.multicall", xmlrpc.NewArray()),
		str("methodName", "ping"), xmlrpc.NewInt(1), call("call_method", str("method_name", "ping")), call("ping", xmlrpc.NewInt(1), xmlrpc.NewInt(2)),
		call("test", str("a", 1, "a", 2)),
	))
	want := []any{"pong", xmlrpc.CodeNoMethod, 5, xmlrpc.CodeWrongParams, "pong", xmlrpc.CodeWrongParams, "pong", xmlrpc.CodeWrongParams, xmlrpc.CodeWrongParams}
	i := 0
	for e := range got.Elements() {
		switch w := want[i].(type) {
		case string:
			if e.Raw() != xmlrpc.NewArray(xmlrpc.NewString(w)).Raw() {
				t.Errorf("call %d: got %s, want [%q]", i, e.Raw(), w)
			}
		case int:
			code, isFault := e.Member("faultCode")
			if n, _ := code.Int(); isFault && n != int64(w) || !isFault && e.Raw() != xmlrpc.NewArray(xmlrpc.NewInt(int64(w))).Raw() {
				t.Errorf("call %d: got %s, want %d", i, e.Raw(), w)
			}
		}
		i++
	}
	if i != len(want) {
		t.Errorf("got %d results, want %d", i, len(want))
	}
}

func TestMulticallIsBounded(t *testing.T) {
	t.Parallel()
	c := start(t, func(c *Config) { c.MaxAnswer = 64 << 10 }).from("")
	many := make([]xmlrpc.Value, maxMulticall+1)
	for i := range many {
		many[i] = str("methodName", "ping")
	}
	most := (64 << 10) / (2 * spareAnswer)
	c.mustFault(xmlrpc.CodeWrongParams, fmt.Sprintf("at most %d", most), "system.multicall", xmlrpc.NewArray(many...))
	c.must("system.multicall", xmlrpc.NewArray(many[:most]...))
	start(t, nil).from("").mustFault(xmlrpc.CodeWrongParams, fmt.Sprintf("at most %d", maxMulticall), "system.multicall", xmlrpc.NewArray(many...))
	big := str("methodName", "test", "params", xmlrpc.NewArray(xmlrpc.NewString(strings.Repeat("x", 30<<10))))
	got := c.must("system.multicall", xmlrpc.NewArray(big, big, big, str("methodName", "ping")))
	var kinds []xmlrpc.Kind
	for e := range got.Elements() {
		kinds = append(kinds, e.Kind())
	}
	want := []xmlrpc.Kind{xmlrpc.Array, xmlrpc.Array, xmlrpc.Struct, xmlrpc.Array}
	if !slices.Equal(kinds, want) {
		t.Errorf("kinds of results: got %v, want %v: the third has no room", kinds, want)
	}
	if n := len(got.Raw()); n > 64<<10 {
		t.Errorf("answer has %d bytes, want the limit of 64 KiB at most", n)
	}
	c.mustFault(xmlrpc.CodeInternal, "--max-answer", "test", xmlrpc.NewString(strings.Repeat("x", 70<<10)))
}

// A client that is told nothing but that all failed would make the calls again.
func TestMulticallSaysOfEachCallWhetherItWasMade(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.MaxAnswer = 64 << 10 })
	c := r.from("")
	id := c.register(9000)
	call := func(name string, param xmlrpc.Value) xmlrpc.Value {
		return str("methodName", name, "params", xmlrpc.NewArray(param))
	}
	for name, x := range map[string]struct {
		filler xmlrpc.Value
		times  int
	}{
		"results":   {call("test", xmlrpc.NewString(strings.Repeat("x", 1500))), 60},
		"faults":    {call("relay.get_satellite_props", str("host_id", strings.Repeat("&", 300))), 60},
		"one large": {call("test", xmlrpc.NewString(strings.Repeat("x", 60<<10))), 1},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(logged(t, r.clus))
			var calls []xmlrpc.Value
			for i := range 60 {
				if i < x.times {
					calls = append(calls, x.filler)
				}
				calls = append(calls, call("relay.relay", str("host_id", id, "data", 1)))
			}
			got := c.must("system.multicall", xmlrpc.NewArray(calls...))
			n, made := 0, 0
			for e := range got.Elements() {
				n++
				if e.Raw() == xmlrpc.NewArray(answerOK).Raw() {
					made++
				}
			}
			if n != len(calls) || len(got.Raw()) > 64<<10 {
				t.Errorf("got %d results in %d bytes, want %d in 64 KiB at most", n, len(got.Raw()), len(calls))
			}
			if stored := len(logged(t, r.clus)) - before; made == 0 || stored != made {
				t.Errorf("%d messages were stored and the answer says so of %d, want the same, and some", stored, made)
			}
		})
	}
}

func TestCapabilitiesNameTheirSpecifications(t *testing.T) {
	t.Parallel()
	caps := start(t, nil).from("").must("system.getCapabilities")
	for _, name := range []string{"xmlrpc", "faults_interop", "system.multicall", "introspection"} {
		spec, ok := caps.Member(name)
		url, _ := spec.Member("specUrl")
		version, _ := spec.Member("specVersion")
		if !ok || url.Kind() != xmlrpc.String || version.Kind() != xmlrpc.Int {
			t.Errorf("capability %s: got %s, want specUrl and specVersion", name, spec.Raw())
		}
	}
}

func TestPropertiesAreRealAndComplete(t *testing.T) {
	t.Parallel()
	c := start(t, func(c *Config) { c.Maintainer, c.MaintainerEmail, c.Author = "Ada", "ada@example.org", "Grace" }).from("")
	got := c.must("system.get_properties")
	for _, name := range []string{"co2_author", "kernel", "operating_system", "maintainer", "maintainer_email", "sw_platform", "hw_platform", "co2_version", "hardware", "processor"} {
		v, _ := got.Member(name)
		if s, ok := v.Str(); !ok || s == "" {
			t.Errorf("%s: got %s, want a text", name, v.Raw())
		}
	}
	for name, kind := range map[string]xmlrpc.Kind{"uptime": xmlrpc.Int, "start_time": xmlrpc.DateTime, "server_time": xmlrpc.DateTime, "plugins": xmlrpc.Array} {
		if v, _ := got.Member(name); v.Kind() != kind {
			t.Errorf("%s: got %s, want kind %d", name, v.Raw(), kind)
		}
	}
	v, _ := got.Member("server_time")
	if now, ok := v.Time(); !ok || time.Since(now).Abs() > time.Minute {
		t.Errorf("server_time: got %s, want now in UTC", v.Raw())
	}
}
