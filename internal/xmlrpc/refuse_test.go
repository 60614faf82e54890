package xmlrpc

import (
	"errors"
	"strings"
	"testing"
)

const wellFormed, grammar = CodeNotWellFormed, CodeNotXMLRPC

func paramDoc(value string) string { return string(callWith(value)) }

// refusedCalls are refused with a code and a text that says this.
var refusedCalls = []struct {
	name, doc string
	code      int
	says      string
}{
	{"nothing", "", wellFormed, "empty"},
	{"white space", " \n", wellFormed, "empty"},
	{"no XML", "hello", wellFormed, "\"hello\" is not XML"},
	{"JSON", `{"method": "ping"}`, wellFormed, "is not XML"},
	{"HTML", "<html><body>502 Bad Gateway</body></html>", grammar, "<html> where <methodCall> is due"},
	{"SOAP", "<SOAP-ENV:Envelope></SOAP-ENV:Envelope>", grammar, "<SOAP-ENV:Envelope> where <methodCall>"},
	{"a response", "<methodResponse/>", grammar, "<methodCall> is due"},
	{"an empty call", "<methodCall/>", grammar, "<methodCall> is empty"},
	{"no method", "<methodCall></methodCall>", grammar, "end tag"},
	{"an empty method", "<methodCall><methodName/></methodCall>", grammar, "name is empty"},
	{"a blank method", "<methodCall><methodName> \n</methodName></methodCall>", grammar, "name is empty"},
	{"an element in the method", "<methodCall><methodName>a<b/></methodName></methodCall>", grammar, "</methodName> is due"},
	{"something after the parameters", "<methodCall><methodName>m</methodName><params/><x/></methodCall>", grammar, "</methodCall> is due"},
	{"parameters twice", "<methodCall><methodName>m</methodName><params/><params/></methodCall>", grammar, "</methodCall> is due"},
	{"a value without param", "<methodCall><methodName>m</methodName><params><value/></params></methodCall>", grammar, "<value> where <param>"},
	{"an empty param", "<methodCall><methodName>m</methodName><params><param/></params></methodCall>", grammar, "<param> is empty"},
	{"two values in a param", "<methodCall><methodName>m</methodName><params><param><value/><value/></param></params></methodCall>", grammar, "</param> is due"},
	{"text between elements", "<methodCall>x<methodName>m</methodName></methodCall>", grammar, "text where"},
	{"cdata between elements", "<methodCall><![CDATA[ ]]><methodName>m</methodName></methodCall>", grammar, "text where"},
	{"text after the document", "<methodCall><methodName>m</methodName></methodCall>x", wellFormed, "after the document's end"},
	{"two documents", "<methodCall><methodName>m</methodName></methodCall><methodCall/>", wellFormed, "after the document's end"},
	{"a NUL after the document", "<methodCall><methodName>m</methodName></methodCall>\x00", wellFormed, "after the document's end"},

	{"a DOCTYPE", "<?xml version='1.0'?><!DOCTYPE methodCall [<!ENTITY a 'b'>]><methodCall><methodName>m</methodName></methodCall>", grammar, "DOCTYPE"},
	{"an entity bomb", `<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>` + paramDoc("<value>&b;</value>"), grammar, "DOCTYPE"},
	{"a foreign entity", `<!DOCTYPE x SYSTEM "file:///etc/passwd">` + paramDoc("<value>&x;</value>"), grammar, "DOCTYPE"},
	{"a doctype in small letters", "<!doctype html><html></html>", wellFormed, "no comment"},
	{"an entity that nobody declared", paramDoc("<value>&nbsp;</value>"), wellFormed, `"&nbsp;" is not known`},
	{"a bare ampersand", paramDoc("<value>salt & pepper</value>"), wellFormed, "write & as &amp;"},
	{"a reference without a semicolon", paramDoc("<value>&amp</value>"), wellFormed, "no reference"},
	{"an empty reference", paramDoc("<value>&;</value>"), wellFormed, "is not known"},
	{"an empty numeric reference", paramDoc("<value>&#;</value>"), wellFormed, "no character reference"},
	{"a large X", paramDoc("<value>&#X41;</value>"), wellFormed, "no character reference"},
	{"a reference with letters", paramDoc("<value>&#12a;</value>"), wellFormed, "no character reference"},
	{"a reference to NUL", paramDoc("<value>&#0;</value>"), wellFormed, "not allowed in XML"},
	{"a reference to a control character", paramDoc("<value>&#x1B;</value>"), wellFormed, "not allowed in XML"},
	{"a reference to a surrogate", paramDoc("<value>&#xD800;</value>"), wellFormed, "not allowed in XML"},
	{"a reference to U+FFFE", paramDoc("<value>&#xFFFE;</value>"), wellFormed, "not allowed in XML"},
	{"a reference beyond Unicode", paramDoc("<value>&#x110000;</value>"), wellFormed, "not allowed in XML"},
	{"a reference that overflows", paramDoc("<value>&#x100000041;</value>"), wellFormed, "not allowed in XML"},
	{"a control character", paramDoc("<value>\x1b[31m</value>"), wellFormed, "U+001B"},
	{"a NUL", paramDoc("<value>\x00</value>"), wellFormed, "U+0000"},
	{"U+FFFF", paramDoc("<value>\uffff</value>"), wellFormed, "U+FFFF"},
	{"a control character in cdata", paramDoc("<value><![CDATA[\x01]]></value>"), wellFormed, "U+0001"},
	{"a control character in a comment", paramDoc("<value><!-- \x01 --></value>"), wellFormed, "U+0001"},
	{"a control character in an instruction", paramDoc("<value><?a \x01?></value>"), wellFormed, "U+0001"},
	{"a control character in an attribute", paramDoc("<value a='\x01'/>"), wellFormed, "U+0001"},
	{"bytes that are not UTF-8", paramDoc("<value>caf\xe9</value>"), wellFormed, "not UTF-8"},
	{"an overlong NUL", paramDoc("<value>\xc0\x80</value>"), wellFormed, "not UTF-8"},
	{"a surrogate in UTF-8", paramDoc("<value>\xed\xa0\x80</value>"), wellFormed, "not UTF-8"},
	{"]]> in text", paramDoc("<value>a]]>b</value>"), wellFormed, "]]> in text"},
	{"]]]> in text", paramDoc("<value>]]]></value>"), wellFormed, "]]> in text"},
	{"< in text", paramDoc("<value>a < b</value>"), grammar, "element in a <value>"},
	{"a tag without a name", paramDoc("<value><></></value>"), wellFormed, "no tag"},
	{"-- in a comment", paramDoc("<value><!-- a -- b --></value>"), wellFormed, "-- in a comment"},
	{"a comment that ends in three", paramDoc("<value><!-- a ---></value>"), wellFormed, "-- in a comment"},
	{"an instruction without a target", paramDoc("<value><? a?></value>"), wellFormed, "no processing instruction"},
	{"a second declaration", paramDoc("<value><?xml version='1.0'?></value>"), wellFormed, "declaration inside"},
	{"a declaration after a comment", "<!-- --><?xml version='1.0'?><methodCall/>", wellFormed, "declaration inside"},
	{"a large declaration", "<?XML version='1.0'?><methodCall/>", wellFormed, "declaration inside"},
	{"no version", "<?xml encoding='utf-8'?><methodCall/>", wellFormed, "no version"},
	{"XML 1.1", "<?xml version='1.1'?><methodCall/>", wellFormed, "no version"},
	{"an odd declaration", "<?xml version='1.0' foo='bar'?><methodCall/>", wellFormed, "not understood"},
	{"an odd encoding", "<?xml version='1.0' encoding='\xc3\xa9'?><methodCall/>", wellFormed, "no encoding"},
	{"standalone perhaps", "<?xml version='1.0' standalone='perhaps'?><methodCall/>", wellFormed, "standalone"},

	{"tags that do not match", paramDoc("<value><string>a</int></value>"), wellFormed, "</string> is due"},
	{"i4 closed as int", paramDoc("<value><i4>1</int></value>"), wellFormed, "</i4> is due"},
	{"prefixes that do not match", paramDoc("<value><a:i8>1</b:i8></value>"), wellFormed, "</a:i8> is due"},
	{"an end tag with more", paramDoc("<value><int>1</int a='1'></value>"), wellFormed, "</int> is due"},
	{"an end tag that goes on", paramDoc("<value><int>1</integer></value>"), wellFormed, "</int> is due"},
	{"an attribute without value", paramDoc("<value a></value>"), wellFormed, "without a value"},
	{"an attribute without quotation marks", paramDoc("<value a=1></value>"), wellFormed, "quotation marks"},
	{"an attribute twice", paramDoc("<value a='1' a='2'></value>"), wellFormed, "twice"},
	{"attributes without a blank between", paramDoc("<value a='1'b='2'></value>"), wellFormed, "in a tag"},
	{"an attribute with two colons", paramDoc("<value a:b:c='1'></value>"), wellFormed, "no attribute's name"},
	{"< in an attribute", paramDoc("<value a='<'></value>"), wellFormed, "< in an attribute"},
	{"a bad reference in an attribute", paramDoc("<value a='&x;'></value>"), wellFormed, "is not known"},
	{"too many attributes", paramDoc("<value a='' b='' c='' d='' e='' f='' g='' h='' i='' j='' k='' l='' m='' n='' o='' p='' q=''/>"), grammar, "more than 16 attributes"},

	{"an unknown type", paramDoc("<value><integer>1</integer></value>"), grammar, "<integer> where a type is due"},
	{"a type of large letters", paramDoc("<value><Int>1</Int></value>"), grammar, "<Int> where a type is due"},
	{"a type with a prefix", paramDoc("<value><ex:string>1</ex:string></value>"), grammar, "<ex:string> where a type"},
	{"an empty prefix", paramDoc("<value><:nil/></value>"), grammar, "<:nil> where a type"},
	{"two prefixes", paramDoc("<value><a:b:nil/></value>"), grammar, "<a:b:nil> where a type"},
	{"two types", paramDoc("<value><int>1</int><int>2</int></value>"), grammar, "</value> is due"},
	{"text after a type", paramDoc("<value><int>1</int>x</value>"), grammar, "</value> is due"},
	{"text before a type", paramDoc("<value>x<int>1</int></value>"), grammar, "element in a <value>"},
	{"a blank reference before a type", paramDoc("<value>&#32;<int>1</int></value>"), grammar, "element in a <value>"},
	{"an element in a string", paramDoc("<value><string>a<b>c</b></string></value>"), grammar, "</string> is due"},
	{"an empty int", paramDoc("<value><int/></value>"), grammar, "no integer"},
	{"a blank int", paramDoc("<value><int> </int></value>"), grammar, "no integer"},
	{"a hexadecimal int", paramDoc("<value><int>0x10</int></value>"), grammar, "no integer"},
	{"an int with underscores", paramDoc("<value><int>1_000</int></value>"), grammar, "no integer"},
	{"an int with a fraction", paramDoc("<value><int>1.0</int></value>"), grammar, "no integer"},
	{"two numbers", paramDoc("<value><int>1 2</int></value>"), grammar, "no integer"},
	{"more than 64 bits", paramDoc("<value><i8>9223372036854775808</i8></value>"), grammar, "64 bits"},
	{"true as a word", paramDoc("<value><boolean>true</boolean></value>"), grammar, "write 0 or 1"},
	{"boolean 2", paramDoc("<value><boolean>2</boolean></value>"), grammar, "write 0 or 1"},
	{"inf", paramDoc("<value><double>inf</double></value>"), grammar, "no decimal number"},
	{"nan", paramDoc("<value><double>NaN</double></value>"), grammar, "no decimal number"},
	{"a hexadecimal double", paramDoc("<value><double>0x1p-2</double></value>"), grammar, "no decimal number"},
	{"a double with underscores", paramDoc("<value><double>1_0.5</double></value>"), grammar, "no decimal number"},
	{"a point alone", paramDoc("<value><double>.</double></value>"), grammar, "no decimal number"},
	{"an exponent alone", paramDoc("<value><double>e5</double></value>"), grammar, "no decimal number"},
	{"an exponent without digits", paramDoc("<value><double>1e+</double></value>"), grammar, "no decimal number"},
	{"two signs", paramDoc("<value><double>+-1</double></value>"), grammar, "no decimal number"},
	{"beyond a double", paramDoc("<value><double>1e309</double></value>"), grammar, "range"},
	{"a word as date", paramDoc("<value><dateTime.iso8601>tomorrow</dateTime.iso8601></value>"), grammar, "no dateTime"},
	{"an empty date", paramDoc("<value><dateTime.iso8601/></value>"), grammar, "no dateTime"},
	{"a date too long", paramDoc("<value><dateTime.iso8601>19980717T14:08:55." + strings.Repeat("0", 40) + "</dateTime.iso8601></value>"), grammar, "no dateTime"},
	{"no base64", paramDoc("<value><base64>a*b</base64></value>"), grammar, "is not base64"},
	{"base64 after its padding", paramDoc("<value><base64>QQ==QQ==</base64></value>"), grammar, "after the padding"},
	{"base64 cut off", paramDoc("<value><base64>QUJDR</base64></value>"), grammar, "cut off"},
	{"base64 with half its padding", paramDoc("<value><base64>QQ=</base64></value>"), grammar, "cut off"},
	{"base64 with too much padding", paramDoc("<value><base64>QQ===</base64></value>"), grammar, "cut off"},
	{"base64 of padding", paramDoc("<value><base64>==</base64></value>"), grammar, "cut off"},
	{"something in nil", paramDoc("<value><nil>x</nil></value>"), grammar, "</nil> is due"},
	{"a member without name", paramDoc("<value><struct><member><value/></member></struct></value>"), grammar, "<value> where <name>"},
	{"a member without value", paramDoc("<value><struct><member><name>a</name></member></struct></value>"), grammar, "end tag where"},
	{"an empty member", paramDoc("<value><struct><member/></struct></value>"), grammar, "<member> is empty"},
	{"a value in a struct", paramDoc("<value><struct><value/></struct></value>"), grammar, "<value> where <member>"},
	{"an element in a name", paramDoc("<value><struct><member><name>a<b/></name><value/></member></struct></value>"), grammar, "</name> is due"},
	{"an array of values without data", paramDoc("<value><array><value/></array></value>"), grammar, "<value> where <data>"},
	{"data twice", paramDoc("<value><array><data/><data/></array></value>"), grammar, "</array> is due"},
	{"a name twice", paramDoc("<value><struct><member><name>a&lt;</name><value/></member><member><name>b</name><value/></member><member><name><![CDATA[a<]]></name><value/></member></struct></value>"), grammar, `member "a<" is twice`},
	{"a name twice among many", paramDoc("<value><struct>" + manyMembers(40) + "<member><name>n3</name><value/></member></struct></value>"), grammar, `member "n3" is twice`},
}

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("<member><name>n" + NewInt(int64(i)).inner() + "</name><value/></member>")
	}
	return b.String()
}

var refusedResponses = []struct {
	name, doc string
	code      int
	says      string
}{
	{"a call", paramDoc("<value/>"), grammar, "<methodCall> where <methodResponse>"},
	{"an empty response", "<methodResponse/>", grammar, "<methodResponse> is empty"},
	{"neither", "<methodResponse></methodResponse>", grammar, "end tag"},
	{"a value alone", "<methodResponse><value/></methodResponse>", grammar, "<value> where <params> or <fault>"},
	{"two parameters", "<methodResponse><params><param><value/></param><param><value/></param></params></methodResponse>", grammar, "</params> is due"},
	{"both", "<methodResponse><params/><fault/></methodResponse>", grammar, "</methodResponse> is due"},
	{"an empty fault", "<methodResponse><fault/></methodResponse>", grammar, "<fault> is empty"},
	{"a fault that is a string", "<methodResponse><fault><value>no</value></fault></methodResponse>", grammar, "no struct"},
	{"an HTML page", "<!DOCTYPE html><html></html>", grammar, "DOCTYPE"},
}

func checkRefused(t *testing.T, err error, code int, says string) {
	t.Helper()
	var fault *Fault
	if !errors.As(err, &fault) {
		t.Fatalf("got %v, want a fault that says %q", err, says)
	}
	checkFault(t, err)
	if fault.Code != code || !strings.Contains(fault.Text, says) {
		t.Errorf("got %v, want %d and %q", err, code, says)
	}
}

func TestParseCallRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range refusedCalls {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseCall([]byte(c.doc), "", DefaultLimits())
			checkRefused(t, err, c.code, c.says)
		})
	}
}

func TestParseResponseAndCheckResponseRefuseAlike(t *testing.T) {
	t.Parallel()
	for _, c := range refusedResponses {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseResponse([]byte(c.doc), "", AnswerLimits())
			checkRefused(t, err, c.code, c.says)
			_, err = CheckResponse([]byte(c.doc), "", AnswerLimits())
			checkRefused(t, err, c.code, c.says)
		})
	}
}

// Every parameter that ParseCall refuses must be refused in an answer too, by
// both readers: they share the grammar, and this keeps it so.
func TestResponsesHaveTheGrammarOfCalls(t *testing.T) {
	t.Parallel()
	head, tail, _ := strings.Cut(paramDoc("|"), "|")
	for _, c := range refusedCalls {
		value, ok := strings.CutPrefix(c.doc, head)
		if !ok || strings.Contains(c.says, "twice in") || strings.HasPrefix(c.says, "member") {
			continue
		}
		doc := "<methodResponse><params><param>" + strings.TrimSuffix(value, tail) + "</param></params></methodResponse>"
		_, err := ParseResponse([]byte(doc), "", AnswerLimits())
		checkRefused(t, err, c.code, c.says)
		_, err = CheckResponse([]byte(doc), "", AnswerLimits())
		checkRefused(t, err, c.code, c.says)
	}
}

func TestFaultsSayWhere(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ doc, want string }{
		{"<methodCall><methodName>m</methodName><x/></methodCall>", "not XML-RPC at byte 38: "},
		{"\xef\xbb\xbf<methodCall><methodName>m</methodName><x/></methodCall>", "not XML-RPC at byte 41: "},
		{"<methodCall><methodName>caf\xe9</methodName></methodCall>", "not well-formed XML at byte 27: "},
		{"<methodCall><methodName>m&x;</methodName></methodCall>", "not well-formed XML at byte 25: "},
		{"<methodCall><methodName>m", "not well-formed XML at byte 25: the document ends too early; send all of it"},
	} {
		_, err := ParseCall([]byte(c.doc), "", DefaultLimits())
		var fault *Fault
		if !errors.As(err, &fault) || !strings.HasPrefix(fault.Text, c.want) {
			t.Errorf("%q\n got %v\nwant %s", c.doc, err, c.want)
		}
	}
}
