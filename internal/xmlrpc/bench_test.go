package xmlrpc

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// relayCall is a relay.relay call as Python's xmlrpc.client writes it.
func relayCall(data string) []byte {
	return []byte("<?xml version='1.0'?>\n<methodCall>\n<methodName>relay.relay</methodName>\n<params>\n<param>\n<value><struct>\n" +
		"<member>\n<name>host_id</name>\n<value><string>192.168.17.4:49152</string></value>\n</member>\n" +
		"<member>\n<name>data</name>\n" + data + "</member>\n</struct></value>\n</param>\n</params>\n</methodCall>\n")
}

// controlData is a struct of numbers and a text, 0.5 KB with the call around it.
func controlData() string {
	return "<value><struct>\n<member>\n<name>x</name>\n<value><double>0.25</double></value>\n</member>\n" +
		"<member>\n<name>y</name>\n<value><int>1024</int></value>\n</member>\n" +
		"<member>\n<name>text</name>\n<value><string>the lamp in the corner goes from amber to blue</string></value>\n</member>\n</struct></value>\n"
}

func manyData(size int) string {
	var b strings.Builder
	b.WriteString("<value><array><data>\n")
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "<value><struct>\n<member>\n<name>channel</name>\n<value><int>%d</int></value>\n</member>\n"+
			"<member>\n<name>level</name>\n<value><double>%d.5</double></value>\n</member>\n"+
			"<member>\n<name>label</name>\n<value><string>lamp &amp; fader number %d</string></value>\n</member>\n</struct></value>\n", i, i%100, i)
	}
	b.WriteString("</data></array></value>\n")
	return b.String()
}

func BenchmarkParseCall(b *testing.B) {
	for _, c := range []struct{ name, data string }{
		{"structs/0.5KB", controlData()},
		{"structs/64KB", manyData(64 << 10)},
		{"text/0.5KB", "<value><string>" + strings.Repeat("plain text ", 20) + "</string></value>\n"},
		{"text/64KB", "<value><string>" + strings.Repeat("plain text ", 64<<10/11) + "</string></value>\n"},
		{"base64/64KB", "<value><base64>\n" + strings.Repeat(strings.Repeat("QUJD", 19)+"\n", 64<<10/77) + "</base64></value>\n"},
	} {
		doc := relayCall(c.data)
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(doc)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseCall(doc, "", DefaultLimits()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCheckResponse(b *testing.B) {
	for _, c := range []struct{ name, doc string }{
		{"ok", "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n<value><string>OK</string></value>\n</param>\n</params>\n</methodResponse>\n"},
		{"fault", "<?xml version='1.0'?>\n<methodResponse>\n<fault>\n<value><struct>\n<member>\n<name>faultCode</name>\n<value><int>1</int></value>\n</member>\n" +
			"<member>\n<name>faultString</name>\n<value><string>&lt;type 'exceptions.TypeError'&gt;:cannot marshal None unless allow_none is enabled</string></value>\n</member>\n" +
			"</struct></value>\n</fault>\n</methodResponse>\n"},
	} {
		doc := []byte(c.doc)
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(doc)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := CheckResponse(doc, "", AnswerLimits()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRawMembers(b *testing.B) {
	doc := relayCall(controlData())
	call, err := ParseCall(doc, "", DefaultLimits())
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		for name, raw := range call.Params[0].RawMembers() {
			if name == "" || raw == "" {
				b.Fatal("a member is missing")
			}
		}
	}
}

// BenchmarkAppendResponse writes what answers get_satellite_props: a struct of
// values of every kind.
func BenchmarkAppendResponse(b *testing.B) {
	at := time.Date(2003, 4, 5, 6, 7, 8, 0, time.UTC)
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = AppendResponse(out[:0], NewStruct(
			Field{"host_id", NewString("192.168.17.4:49152")}, Field{"nick", NewString("lamp & fader")},
			Field{"addr", NewArray(NewString("192.168.17.4"), NewInt(49152))}, Field{"ctime", NewTime(at)},
			Field{"ping_avg", NewDouble(1.25)}, Field{"send_count", NewInt(123456)}, Field{"recv_count", NewInt(7890123)},
		))
		b.SetBytes(int64(len(out)))
	}
}

func BenchmarkAppendEscaped(b *testing.B) {
	for _, c := range []struct{ name, text string }{
		{"plain", strings.Repeat("plain text ", 40)},
		{"markup", strings.Repeat("a < b & c\r", 40)},
	} {
		b.Run(c.name, func(b *testing.B) {
			var out []byte
			b.SetBytes(int64(len(c.text)))
			b.ReportAllocs()
			for b.Loop() {
				out = AppendEscaped(out[:0], c.text)
			}
		})
	}
}
