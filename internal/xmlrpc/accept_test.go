package xmlrpc

import (
	"slices"
	"strings"
	"testing"
)

// callWith is a call of "test" with one parameter.
func callWith(value string) []byte {
	return []byte("<?xml version='1.0'?><methodCall><methodName>test</methodName><params><param>" + value + "</param></params></methodCall>")
}

// acceptedValues are the quirks of senders, and the canonical form of each.
var acceptedValues = []struct{ name, value, want string }{
	{"string", "<value><string>text</string></value>", "<value><string>text</string></value>"},
	{"untyped is a string, white space kept", "<value> a\n b\t</value>", "<value><string> a\n b\t</string></value>"},
	{"untyped white space alone", "<value> \n</value>", "<value><string> \n</string></value>"},
	{"empty value", "<value></value>", "<value><string></string></value>"},
	{"self-closing value", "<value/>", "<value><string></string></value>"},
	{"self-closing value with a blank", "<value />", "<value><string></string></value>"},
	{"self-closing string", "<value><string/></value>", "<value><string></string></value>"},
	{"white space in a string is kept", "<value>\n <string> a </string>\n</value>", "<value><string> a </string></value>"},
	{"named references", "<value>&lt;&gt;&amp;&quot;&apos;</value>", "<value><string>&lt;&gt;&amp;\"'</string></value>"},
	{"numeric references", "<value>&#65;&#x42;&#x0000000000063;&#8364;&#x1D11E;</value>", "<value><string>ABc€𝄞</string></value>"},
	{"a reference to a reference", "<value>&amp;lt;&#38;amp;</value>", "<value><string>&amp;lt;&amp;amp;</string></value>"},
	{"a > that need not be escaped", "<value>a > b ]] ></value>", "<value><string>a &gt; b ]] &gt;</string></value>"},
	{"cdata", "<value><string><![CDATA[<b>&amp;]] >]]></string></value>", "<value><string>&lt;b&gt;&amp;amp;]] &gt;</string></value>"},
	{"cdata in pieces", "<value>a<![CDATA[]]]]><![CDATA[>]]>b</value>", "<value><string>a]]&gt;b</string></value>"},
	{"empty cdata", "<value><![CDATA[]]></value>", "<value><string></string></value>"},
	{"cdata after white space", "<value> <![CDATA[x]]> </value>", "<value><string> x </string></value>"},
	{"a comment in text", "<value>a<!-- <x> & -->b</value>", "<value><string>ab</string></value>"},
	{"a processing instruction in text", "<value>a<?php <x> & ?>b</value>", "<value><string>ab</string></value>"},
	{"comments around an element", "<value><!-- - --> <int>1</int><?pi?></value>", "<value><int>1</int></value>"},
	{"line ends are newlines", "<value>a\r\nb\rc\r\r\nd</value>", "<value><string>a\nb\nc\n\nd</string></value>"},
	{"line ends in cdata too", "<value><![CDATA[a\r\nb\r]]></value>", "<value><string>a\nb\n</string></value>"},
	{"a carriage return by reference stays one", "<value>a&#13;&#xD;\nb</value>", "<value><string>a&#13;&#13;\nb</string></value>"},
	{"letters beyond ASCII", "<value>жé€𝄞\u007f\u0085\ufffd</value>", "<value><string>жé€𝄞\u007f\u0085\ufffd</string></value>"},
	{"attributes", "<value a=\"1\" b:c = '&lt;>\"&#65;'><int\nx=''\t>1</int></value\n>", "<value><int>1</int></value>"},

	{"i4", "<value><i4>-5</i4></value>", "<value><int>-5</int></value>"},
	{"white space, sign and zeros", "<value><int>\n +007 </int></value>", "<value><int>7</int></value>"},
	{"minus zero", "<value><int>-0</int></value>", "<value><int>0</int></value>"},
	{"64 bits as int", "<value><int>9223372036854775807</int></value>", "<value><int>9223372036854775807</int></value>"},
	{"i8", "<value><i8>-9223372036854775808</i8></value>", "<value><i8>-9223372036854775808</i8></value>"},
	{"i8 of Apache", "<value><ex:i8>5</ex:i8></value>", "<value><i8>5</i8></value>"},
	{"i1 and i2 of Apache", "<value><array><data><value><ex:i1>1</ex:i1></value><value><i2>2</i2></value></data></array></value>",
		"<value><array><data><value><int>1</int></value><value><int>2</int></value></data></array></value>"},
	{"an integer in pieces", "<value><int>1<!-- -->2<![CDATA[3]]>&#52;</int></value>", "<value><int>1234</int></value>"},

	{"double", "<value><double>-2.50</double></value>", "<value><double>-2.50</double></value>"},
	{"more digits than a double has", "<value><double>3.14159265358979323846</double></value>", "<value><double>3.14159265358979323846</double></value>"},
	{"double without point", "<value><double> 3 </double></value>", "<value><double>3</double></value>"},
	{"double with plus", "<value><double>+.5</double></value>", "<value><double>0.5</double></value>"},
	{"double with a point last", "<value><double>5.</double></value>", "<value><double>5.0</double></value>"},
	{"exponent", "<value><double>-1.5E+3</double></value>", "<value><double>-1500.0</double></value>"},
	{"negative exponent", "<value><double>1e-07</double></value>", "<value><double>0.0000001</double></value>"},
	{"too small for a double", "<value><double>1e-400</double></value>", "<value><double>0.0</double></value>"},
	{"the smallest double", "<value><double>5e-324</double></value>", "<value><double>0." + strings.Repeat("0", 323) + "5</double></value>"},
	{"the largest power of ten", "<value><double>1e308</double></value>", "<value><double>1" + strings.Repeat("0", 308) + ".0</double></value>"},
	{"many digits are shortened", "<value><double>0." + strings.Repeat("3", 500) + "</double></value>", "<value><double>0.3333333333333333</double></value>"},
	{"float of Apache", "<value><ex:float>1.5</ex:float></value>", "<value><double>1.5</double></value>"},

	{"true", "<value><boolean>1</boolean></value>", "<value><boolean>1</boolean></value>"},
	{"false among white space", "<value><boolean>\n0 </boolean></value>", "<value><boolean>0</boolean></value>"},
	{"basic date", "<value><dateTime.iso8601>19980717T14:08:55</dateTime.iso8601></value>", "<value><dateTime.iso8601>19980717T14:08:55</dateTime.iso8601></value>"},
	{"extended date", "<value><dateTime.iso8601> 1998-07-17T14:08:55.5+02:00\n</dateTime.iso8601></value>", "<value><dateTime.iso8601>1998-07-17T14:08:55.5+02:00</dateTime.iso8601></value>"},
	{"base64", "<value><base64>aGVsbG8=</base64></value>", "<value><base64>aGVsbG8=</base64></value>"},
	{"empty base64", "<value><base64/></value>", "<value><base64></base64></value>"},
	{"base64 among white space", "<value><base64>\n aGV\r\nsbG8 = \n</base64></value>", "<value><base64>aGVsbG8=</base64></value>"},
	{"base64 without padding", "<value><base64>aGVsbA</base64></value>", "<value><base64>aGVsbA==</base64></value>"},
	{"base64 of PHP", "<value><base64>aGVs&#13;&#10;bG8=&#13;&#10;</base64></value>", "<value><base64>aGVsbG8=</base64></value>"},
	{"a number before an escaped line end", "<value><int>&#10;5&#13;&#10;</int></value>", "<value><int>5</int></value>"},
	{"base64 in one line", "<value><base64>" + strings.Repeat("QUJD", 39) + "</base64></value>",
		"<value><base64>" + strings.Repeat("QUJD", 19) + "\n" + strings.Repeat("QUJD", 19) + "\nQUJD</base64></value>"},
	{"base64 that fills its lines", "<value><base64>" + strings.Repeat("QUJD", 19) + "\n</base64></value>", "<value><base64>" + strings.Repeat("QUJD", 19) + "</base64></value>"},
	{"nil", "<value><nil/></value>", "<value><nil/></value>"},
	{"nil with an end tag", "<value><nil> </nil></value>", "<value><nil/></value>"},
	{"nil of Apache", "<value><ex:nil xmlns:ex='http://ws.apache.org/xmlrpc/namespaces/extensions'/></value>", "<value><nil/></value>"},

	{"empty array", "<value><array><data/></array></value>", "<value><array><data></data></array></value>"},
	{"array without data", "<value><array/></value>", "<value><array><data></data></array></value>"},
	{"array", "<value><array>\n<data>\n<value>a</value>\n<value><int>1</int></value>\n</data>\n</array></value>",
		"<value><array><data><value><string>a</string></value><value><int>1</int></value></data></array></value>"},
	{"empty struct", "<value><struct/></value>", "<value><struct></struct></value>"},
	{"struct in its order", "<value><struct>\n<member>\n<name>b</name>\n<value>1</value>\n</member><member><name> a&lt;&#13;</name><value/></member></struct></value>",
		"<value><struct><member><name>b</name><value><string>1</string></value></member><member><name> a&lt;&#13;</name><value><string></string></value></member></struct></value>"},
	{"a struct with empty names", "<value><struct><member><name/><value/></member></struct></value>",
		"<value><struct><member><name></name><value><string></string></value></member></struct></value>"},
	{"names twice below the top", "<value><array><data><value><struct><member><name>a</name><value>1</value></member><member><name>a</name><value>2</value></member></struct></value></data></array></value>",
		"<value><array><data><value><struct><member><name>a</name><value><string>1</string></value></member><member><name>a</name><value><string>2</string></value></member></struct></value></data></array></value>"},
}

func TestParseCallReadsQuirksIntoCanonicalForm(t *testing.T) {
	t.Parallel()
	for _, c := range acceptedValues {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			call, err := ParseCall(callWith(c.value), "", DefaultLimits())
			if err != nil {
				t.Fatalf("%s is refused: %v", c.value, err)
			}
			if got := call.Params[0].Raw(); got != c.want {
				t.Errorf("%s\n got %s\nwant %s", c.value, got, c.want)
			}
			checkCall(t, call, string(callWith(c.value)))
			again, err := ParseCall(callWith(c.want), "", DefaultLimits())
			if err != nil || again.Params[0].Raw() != c.want {
				t.Errorf("the canonical form reads back as %v, %v\nwant %s", again, err, c.want)
			}
		})
	}
}

func TestParseCallReadsDocumentsOfOtherImplementations(t *testing.T) {
	t.Parallel()
	for name, doc := range peerDocs(t, "calls") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			call, err := ParseCall(doc, "", DefaultLimits())
			if err != nil {
				t.Fatalf("refused: %v\n%s", err, doc)
			}
			checkCall(t, call, transcoded(doc, ""))
			canonical := AppendCall(nil, call.Method, call.Params...)
			checkCanonical(t, string(canonical))
			checkCall(t, call, string(canonical))
		})
	}
}

func TestParseResponseReadsDocumentsOfOtherImplementations(t *testing.T) {
	t.Parallel()
	for name, doc := range peerDocs(t, "responses") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			response, err := ParseResponse(doc, "", AnswerLimits())
			if err != nil {
				t.Fatalf("refused: %v\n%s", err, doc)
			}
			want := strings.Contains(name, "fault")
			if got := response.Fault != nil; got != want || want && response.Fault.Text == "" {
				t.Errorf("fault %+v, want one: %v", response.Fault, want)
			}
			if got, err := CheckResponse(doc, "", AnswerLimits()); got != want || err != nil {
				t.Errorf("CheckResponse: %v, %v; want %v", got, err, want)
			}
		})
	}
}

func TestParseCallReadsTheWholeDocument(t *testing.T) {
	t.Parallel()
	one := []string{"int 1"}
	for _, c := range []struct {
		name, doc, method string
		params            []string
	}{
		{"no declaration", "<methodCall><methodName>m</methodName></methodCall>", "m", nil},
		{"white space before the declaration", "\n \t<?xml version=\"1.0\"?>\n<methodCall><methodName>m</methodName></methodCall>\n", "m", nil},
		{"declaration with everything", "<?xml version = '1.0'\tencoding=\"utf-8\" standalone='no' ?><methodCall><methodName>m</methodName></methodCall>", "m", nil},
		{"no parameters", "<methodCall><methodName>m</methodName><params/></methodCall>", "m", nil},
		{"empty parameters", "<methodCall><methodName>m</methodName><params>\n</params></methodCall>", "m", nil},
		{"white space around the method", "<methodCall><methodName>\n a.b/c:d </methodName></methodCall>", "a.b/c:d", nil},
		{"an escaped method", "<methodCall><methodName>a&lt;<![CDATA[&]]></methodName></methodCall>", "a<&", nil},
		{"comments and instructions", "<!-- a --><?b c?><methodCall><!-- d --><methodName>m</methodName><?e?><params><!-- f --><param><?g?><value><int>1</int></value><!-- h --></param></params></methodCall><!-- i --><?j?>", "m", one},
		{"a style sheet", "<?xml-stylesheet href='a'?><methodCall><methodName>m</methodName></methodCall>", "m", nil},
		{"several parameters", "<methodCall><methodName>m</methodName><params><param><value><int>1</int></value></param><param><value/></param></params></methodCall>", "m", []string{"int 1", `string ""`}},
		{"a name in each of two parameters", "<methodCall><methodName>m</methodName><params>" + strings.Repeat("<param><value><struct><member><name>a</name><value/></member></struct></value></param>", 2) + "</params></methodCall>",
			"m", []string{`{"a": string "", }`, `{"a": string "", }`}},
		{"name spaces", "<methodCall xmlns='urn:x' xmlns:ex='urn:y'><methodName>m</methodName><params><param><value><ex:i4x/></value></param></params></methodCall>", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			call, err := ParseCall([]byte(c.doc), "", DefaultLimits())
			if c.method == "" {
				checkFault(t, err)
				return
			}
			if err != nil {
				t.Fatalf("refused: %v", err)
			}
			var got []string
			for _, v := range call.Params {
				got = append(got, show(v))
			}
			if call.Method != c.method || !slices.Equal(got, c.params) {
				t.Errorf("got %q %q, want %q %q", call.Method, got, c.method, c.params)
			}
		})
	}
}

func TestParseResponseReadsFaults(t *testing.T) {
	t.Parallel()
	want := Fault{-32601, "no such <method>\r\n"}
	response, err := ParseResponse(AppendFault(nil, &want), "", AnswerLimits())
	if err != nil || response.Fault == nil || *response.Fault != want || !response.Value.IsZero() {
		t.Errorf("got %+v, %v; want %+v", response, err, want)
	}
}
