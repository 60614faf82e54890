package xmlrpc

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func parseValue(t *testing.T, value string) Value {
	t.Helper()
	call, err := ParseCall(callWith(value), "", DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return call.Params[0]
}

func TestMembersAreHandedOutRaw(t *testing.T) {
	t.Parallel()
	v := parseValue(t, "<value><struct><member><name>a&lt;</name><value><array><data><value>1</value><value><struct><member><name>x</name><value/></member></struct></value></data></array></value></member>"+
		"<member><name>b</name><value><int>2</int></value></member></struct></value>")
	var names []string
	raw := ""
	for name, member := range v.RawMembers() {
		names = append(names, name)
		raw += member
	}
	if want := []string{"a<", "b"}; !reflect.DeepEqual(names, want) {
		t.Errorf("names %q, want %q", names, want)
	}
	if got := StructOf(raw); got != v {
		t.Errorf("put together again: %s, want %s", got.Raw(), v.Raw())
	}
	if b, ok := v.Member("b"); !ok || show(b) != "int 2" {
		t.Errorf("member b: %s, %v", b.Raw(), ok)
	}
	if _, ok := v.Member("c"); ok {
		t.Error("there is a member c")
	}
	for range v.Members() { // and stops when told to
		break
	}
	if got := (StructOf("")); show(got) != "{}" {
		t.Errorf("an empty struct is %s", show(got))
	}
}

func TestValuesOfOtherKindsGiveNothing(t *testing.T) {
	t.Parallel()
	for _, v := range []Value{{}, NewString("x"), NewInt(1), NewArray(), NewStruct(), NewNil(), NewBool(true), NewDouble(1), NewTime(time.Now()), NewBase64(nil)} {
		k := v.Kind()
		_, isString := v.Str()
		_, isInt := v.Int()
		_, isFloat := v.Float()
		_, isBool := v.Bool()
		_, isTime := v.Time()
		_, isBytes := v.Bytes()
		got := []bool{isString, isInt, isFloat, isBool, isTime, isBytes}
		want := []bool{k == String, k == Int, k == Int || k == Double, k == Bool, k == DateTime, k == Base64}
		if !reflect.DeepEqual(got, want) || v.IsZero() != (k == Invalid) {
			t.Errorf("%q of kind %d: %v, want %v", v.Raw(), k, got, want)
		}
		for range v.Members() {
			t.Errorf("%s has a member", v.Raw())
		}
		for range v.Elements() {
			t.Errorf("%s has an element", v.Raw())
		}
	}
}

// What comes out of the log was canonical when it went in. Should it not be, it
// is read wrongly, but no reader panics.
func TestBrokenCanonicalTextDoesNotPanic(t *testing.T) {
	t.Parallel()
	whole := parseValue(t, "<value><struct><member><name>a</name><value><array><data><value>1</value></data></array></value></member><member><name>b</name><value><int>2</int></value></member></struct></value>").Raw()
	for n := range len(whole) {
		for _, text := range []string{whole[:n], whole[n:]} {
			v := Value{text}
			_ = v.Any()
			_, _ = v.Duplicate()
			for range v.RawMembers() {
				continue
			}
			_ = StructOf(text).Any()
		}
	}
}

func TestDuplicateFindsNames(t *testing.T) {
	t.Parallel()
	twice := NewStruct(Field{"a", NewInt(1)}, Field{"b", NewInt(1)}, Field{"a", NewInt(2)})
	if name, found := twice.Duplicate(); !found || name != "a" {
		t.Errorf("got %q, %v", name, found)
	}
	once := parseValue(t, "<value><struct>"+manyMembers(100)+"</struct></value>")
	if name, found := once.Duplicate(); found {
		t.Errorf("got %q", name)
	}
}

func TestAnyGivesGoValues(t *testing.T) {
	t.Parallel()
	noon := time.Date(1998, 7, 17, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		value string
		want  any
	}{
		{"<value>text &amp; more</value>", "text & more"},
		{"<value><int>-5</int></value>", int64(-5)},
		{"<value><i8>5000000000</i8></value>", int64(5000000000)},
		{"<value><boolean>1</boolean></value>", true},
		{"<value><double>1e3</double></value>", 1000.0},
		{"<value><dateTime.iso8601>19980717T12:00:00</dateTime.iso8601></value>", noon},
		{"<value><dateTime.iso8601>1998-07-17T12:00:00Z</dateTime.iso8601></value>", noon},
		{"<value><dateTime.iso8601>00000000T00:00:00</dateTime.iso8601></value>", "00000000T00:00:00"},
		{"<value><base64>aGVsbG8=</base64></value>", []byte("hello")},
		{"<value><nil/></value>", nil},
		{"<value><array><data/></array></value>", []any{}},
		{"<value><array><data><value>a</value><value><int>1</int></value></data></array></value>", []any{"a", int64(1)}},
		{"<value><struct><member><name>b</name><value>1</value></member><member><name>a</name><value><struct/></value></member></struct></value>",
			Members{{"b", "1"}, {"a", Members{}}}},
	} {
		if got := parseValue(t, c.value).Any(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s\n got %#v\nwant %#v", c.value, got, c.want)
		}
	}
}

func TestConstructorsWriteCanonicalForm(t *testing.T) {
	t.Parallel()
	summer := time.FixedZone("CEST", 2*60*60)
	for _, c := range []struct {
		v    Value
		want string
	}{
		{NewString("a<b>&\"'\r\n\x00\ufffe\xff"), "<string>a&lt;b&gt;&amp;\"'&#13;\n\ufffd\ufffd\ufffd</string>"},
		{NewInt(math.MaxInt32), "<int>2147483647</int>"},
		{NewInt(math.MinInt32), "<int>-2147483648</int>"},
		{NewInt(math.MaxInt32 + 1), "<double>2147483648.0</double>"},
		{NewBool(false), "<boolean>0</boolean>"},
		{NewDouble(-0.1), "<double>-0.1</double>"},
		{NewDouble(3), "<double>3.0</double>"},
		{NewDouble(1e21), "<double>1000000000000000000000.0</double>"},
		{NewDouble(math.NaN()), "<double>0.0</double>"},
		{NewTime(time.Date(2003, 5, 17, 12, 34, 56, 789, summer)), "<dateTime.iso8601>20030517T10:34:56</dateTime.iso8601>"},
		{NewBase64(nil), "<base64></base64>"},
		{NewBase64([]byte(strings.Repeat("ABC", 20))), "<base64>" + strings.Repeat("QUJD", 19) + "\nQUJD</base64>"},
		{NewArray(), "<array><data></data></array>"},
		{NewStruct(), "<struct></struct>"},
		{NewStruct(Field{"a<", NewNil()}), "<struct><member><name>a&lt;</name><value><nil/></value></member></struct>"},
	} {
		if got, want := c.v.Raw(), "<value>"+c.want+"</value>"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if again := parseValue(t, c.v.Raw()); again != c.v {
			t.Errorf("%s reads back as %s", c.v.Raw(), again.Raw())
		}
	}
	if f, _ := NewDouble(math.Inf(-1)).Float(); f != -math.MaxFloat64 {
		t.Errorf("minus infinity is written as %v", f)
	}
}

func TestDocumentsBeginWithTheDeclarationAndCloseEveryElement(t *testing.T) {
	t.Parallel()
	const head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
	for _, c := range []struct{ got, want string }{
		{string(AppendCall(nil, "ping")), head + "<methodCall><methodName>ping</methodName><params></params></methodCall>\n"},
		{string(AppendCall([]byte("x"), "a<b", NewInt(1), NewString(""))), "x" + head + "<methodCall><methodName>a&lt;b</methodName><params><param><value><int>1</int></value></param><param><value><string></string></value></param></params></methodCall>\n"},
		{string(AppendResponse(nil, NewString("OK"))), head + "<methodResponse><params><param><value><string>OK</string></value></param></params></methodResponse>\n"},
		{string(AppendFault(nil, &Fault{1, "a<b"})), head + "<methodResponse><fault><value><struct><member><name>faultCode</name><value><int>1</int></value></member><member><name>faultString</name><value><string>a&lt;b</string></value></member></struct></value></fault></methodResponse>\n"},
	} {
		if c.got != c.want {
			t.Errorf("\n got %s\nwant %s", c.got, c.want)
		}
	}
}

func TestFromGoTakesJSON(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ json, want string }{
		{`{"b": [1, true, null], "a": 2.5}`, `{"a": double 4004000000000000, "b": [int 1, boolean 1, nil, ], }`},
		{`5000000000`, "double " + "41f2a05f20000000"},
		{`9007199254740993`, "i8 9007199254740993"},
		{`[]`, "[]"},
	} {
		d := json.NewDecoder(strings.NewReader(c.json))
		d.UseNumber()
		var x any
		if err := d.Decode(&x); err != nil {
			t.Fatal(err)
		}
		v, err := FromGo(x)
		if got := show(v); err != nil || got != c.want {
			t.Errorf("%s: got %s, %v; want %s", c.json, got, err, c.want)
		}
	}
	when := time.Date(1998, 7, 17, 12, 0, 0, 0, time.UTC)
	for _, x := range []any{nil, "a", true, int64(1), 1.5, when, []byte("x"), []any{"a"}, Members{{"b", int64(1)}, {"a", []any{}}}} {
		v, err := FromGo(x)
		if err != nil || !reflect.DeepEqual(v.Any(), x) {
			t.Errorf("%#v comes back as %#v, %v", x, v.Any(), err)
		}
	}
	for _, x := range []any{math.NaN(), math.Inf(1), struct{}{}, []any{struct{}{}}, map[string]any{"a": json.Number("1e400")}} {
		if v, err := FromGo(x); err == nil {
			t.Errorf("%#v becomes %s", x, v.Raw())
		}
	}
}
