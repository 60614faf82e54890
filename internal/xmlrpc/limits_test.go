package xmlrpc

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"
)

func nested(depth int) []byte {
	return callWith(strings.Repeat("<value><array><data>", depth) + strings.Repeat("</data></array></value>", depth))
}

func TestLimitsAreExact(t *testing.T) {
	t.Parallel()
	values := func(n int) []byte {
		return callWith("<value><array><data>" + strings.Repeat("<value/>", n-1) + "</data></array></value>")
	}
	member := func(name string) []byte {
		return callWith("<value><struct><member><name>" + name + "</name><value/></member></struct></value>")
	}
	method := func(name string) []byte {
		return []byte("<methodCall><methodName>" + name + "</methodName></methodCall>")
	}
	padded := func(n int) []byte {
		return append(method("m"), bytes.Repeat([]byte(" "), n-len(method("m")))...)
	}
	lim := Limits{Bytes: 5000, Depth: 7, Values: 20, Name: 30}
	long := strings.Repeat("n", lim.Name)
	for _, c := range []struct {
		name    string
		ok, bad []byte
		says    string
	}{
		{"bytes", padded(5000), padded(5001), "longer than 5000 bytes"},
		{"depth", nested(7), nested(8), "nested more than 7 deep"},
		{"values", values(20), values(21), "more than 20 values"},
		{"member's name", member(long), member(long + "n"), "longer than 30 bytes"},
		{"member's name with references", member(strings.Repeat("&lt;", 30)), member(strings.Repeat("&lt;", 31)), "longer than 30 bytes"},
		{"method's name", method(long), method(long + "n"), "longer than 30 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if _, err := ParseCall(c.ok, "", lim); err != nil {
				t.Errorf("at the limit: %v", err)
			}
			_, err := ParseCall(c.bad, "", lim)
			checkRefused(t, err, CodeNotXMLRPC, "limit exceeded")
			checkRefused(t, err, CodeNotXMLRPC, c.says)
		})
	}
}

func TestTheLimitOfBytesCountsUTF8(t *testing.T) {
	t.Parallel()
	lim := Limits{Bytes: 200}
	text := strings.Repeat("\xe9", 100)
	_, err := ParseCall([]byte("<?xml version='1.0' encoding='latin1'?><methodCall><methodName>"+text+"</methodName></methodCall>"), "", lim)
	checkRefused(t, err, CodeNotXMLRPC, "longer than 200 bytes")

	wide := []byte{0xFF, 0xFE}
	for _, c := range "<methodCall><methodName>" + strings.Repeat("m", 100) + "</methodName></methodCall>" {
		wide = append(wide, byte(c), 0)
	}
	if _, err := ParseCall(wide, "", lim); err != nil {
		t.Errorf("%d bytes of UTF-16, 150 of UTF-8: %v", len(wide), err)
	}
	_, err = ParseCall(wide, "", Limits{Bytes: 100})
	checkRefused(t, err, CodeNotXMLRPC, "longer than 100 bytes")
}

func TestLimitsLeftOutAreTheDefaults(t *testing.T) {
	t.Parallel()
	if got, want := (Limits{}).complete(), DefaultLimits(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := (Limits{Depth: 1 << 30}).complete().Depth; got != maxDepth {
		t.Errorf("depth %d, want %d", got, maxDepth)
	}
}

// The test runs alone: it reads the process's allocation counter.
func TestHostileDocumentsTakeBoundedMemory(t *testing.T) {
	deep := nested(300_000)
	lim := DefaultLimits()
	roomier := Limits{Bytes: 64 << 20, Depth: 1 << 30, Values: 1 << 30}
	for _, c := range []struct {
		name string
		doc  []byte
		lim  Limits
		most uint64
		says string
	}{
		{"300,000 arrays", deep, lim, 64 << 10, "longer than"},
		{"300,000 arrays, 64 MiB allowed", deep, Limits{Bytes: 64 << 20}, 2 * uint64(len(deep)), "nested more than 64"},
		{"300,000 arrays, any depth allowed", deep, roomier, 2 * uint64(len(deep)), "nested more than 10000"},
		{"open arrays", bytes.Repeat([]byte("<value><array><data>"), 50_000), lim, 3 << 20, "<value> where"},
		{"a huge name", callWith("<value><struct><member><name>" + strings.Repeat("n", 900<<10) + "</name></member></struct></value>"), lim, 3 << 20, "longer than 1024 bytes"},
		{"a huge element's name", callWith("<value><" + strings.Repeat("n", 900<<10) + "/></value>"), lim, 3 << 20, "where a type is due"},
		{"a huge attribute", callWith("<value " + strings.Repeat("n", 900<<10) + "='x'/>"), lim, 3 << 20, ""},
		{"a huge number", callWith("<value><int>" + strings.Repeat("9", 900<<10) + "</int></value>"), lim, 3 << 20, "64 bits"},
		{"a huge exponent", callWith("<value><double>1e" + strings.Repeat("9", 900<<10) + "</double></value>"), lim, 3 << 20, "range"},
		{"100,000 doubles that grow", callWith("<value><array><data>" + strings.Repeat("<value><double>1e308</double></value>", 25_000) + "</data></array></value>"), lim, 64 << 20, ""},
		{"100,000 names", callWith("<value><struct>" + strings.Repeat("<member><name/><value/></member>", 30_000) + "</struct></value>"), lim, 16 << 20, "twice"},
		{"empty values", callWith("<value><array><data>" + strings.Repeat("<value/>", 110_000) + "</data></array></value>"), lim, 32 << 20, "more than 100000 values"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := ParseCall(c.doc, "", c.lim)
			runtime.ReadMemStats(&after)
			if c.says == "" && err != nil {
				t.Errorf("refused: %v", err)
			}
			if c.says != "" {
				checkRefused(t, err, CodeNotXMLRPC, c.says)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > c.most {
				t.Errorf("%d bytes took %d bytes of memory, want at most %d", len(c.doc), took, c.most)
			}
		})
	}
}

func TestDocumentsCutAnywhereAreRefused(t *testing.T) {
	t.Parallel()
	for name, doc := range peerDocs(t, "calls") {
		end := bytes.LastIndexByte(doc, '>')
		if i := bytes.LastIndex(doc, []byte("</methodCall>")); i >= 0 {
			end = i + len("</methodCall>") - 1
		}
		for n := range end {
			_, err := ParseCall(doc[:n:n], "", DefaultLimits())
			var fault *Fault
			if !errors.As(err, &fault) || fault.Code != CodeNotWellFormed {
				t.Fatalf("%s: the first %d bytes: got %v, want %d", name, n, err, CodeNotWellFormed)
			}
		}
	}
	for name, doc := range peerDocs(t, "responses") {
		for n := range bytes.LastIndexByte(doc, '>') {
			_, err := ParseResponse(doc[:n:n], "", AnswerLimits())
			_, checkErr := CheckResponse(doc[:n:n], "", AnswerLimits())
			if err == nil || checkErr == nil || err.Error() != checkErr.Error() {
				t.Fatalf("%s: the first %d bytes: %v, %v", name, n, err, checkErr)
			}
		}
	}
}

func TestReadingAllocatesLittle(t *testing.T) {
	doc := relayCall(controlData())
	if got := testing.AllocsPerRun(100, func() {
		if _, err := ParseCall(doc, "utf-8", DefaultLimits()); err != nil {
			t.Error(err)
		}
	}); got > 2 {
		t.Errorf("ParseCall allocates %v times, want 2", got)
	}
	for name, doc := range peerDocs(t, "responses") {
		if got := testing.AllocsPerRun(100, func() {
			if _, err := CheckResponse(doc, "utf-8", AnswerLimits()); err != nil {
				t.Error(err)
			}
		}); got > 0 {
			t.Errorf("CheckResponse of %s allocates %v times, want 0", name, got)
		}
	}
}
