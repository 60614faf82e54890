package xmlrpc

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// peerDocs are what other implementations wrote, by file name. The folders are
// "calls" and "responses".
func peerDocs(tb testing.TB, folder string) map[string][]byte {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", folder, "*.xml"))
	if err != nil || len(files) == 0 {
		tb.Fatalf("no documents in testdata/%s: %v", folder, err)
	}
	docs := map[string][]byte{}
	for _, file := range files {
		doc, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		docs[strings.TrimSuffix(filepath.Base(file), ".xml")] = doc
	}
	return docs
}

// FuzzParseCall: what ParseCall accepts, encoding/xml accepts, and the oracle
// reads the same values; its canonical form is canonical, and reads back to
// itself.
func FuzzParseCall(f *testing.F) {
	for _, doc := range peerDocs(f, "calls") {
		f.Add(doc, "")
	}
	for _, c := range acceptedValues {
		f.Add(callWith(c.value), "")
	}
	for _, c := range refusedCalls {
		f.Add([]byte(c.doc), "")
	}
	for _, c := range charsetCases {
		f.Add([]byte(c.doc), c.header)
	}
	f.Fuzz(checkParseCall)
}

func checkParseCall(t *testing.T, doc []byte, charset string) {
	before := slices.Clone(doc)
	call, err := ParseCall(doc, charset, DefaultLimits())
	if !slices.Equal(doc, before) {
		t.Fatal("the document is changed")
	}
	if err != nil {
		checkFault(t, err)
		return
	}
	checkCall(t, call, transcoded(doc, charset))
	canonical := AppendCall(nil, call.Method, call.Params...)
	checkCanonical(t, string(canonical))
	again, err := ParseCall(canonical, "", roomy())
	if err != nil {
		t.Fatalf("the canonical form is refused: %v\n%s", err, canonical)
	}
	if again.Method != call.Method || !slices.Equal(again.Params, call.Params) {
		t.Fatalf("the canonical form reads back otherwise\n got %v\nwant %v", again, call)
	}
	checkCall(t, call, string(canonical))
}

// checkCall compares a call with the oracle's reading of a document.
func checkCall(t *testing.T, call Call, doc string) {
	t.Helper()
	method, params, err := oracleCall(doc)
	if err != nil {
		t.Fatalf("the oracle refuses: %v\n%q", err, doc)
	}
	var got []string
	for _, v := range call.Params {
		got = append(got, show(v))
	}
	if call.Method != method || !slices.Equal(got, params) {
		t.Fatalf("read differently\n got %q %q\nwant %q %q\nin %q", call.Method, got, method, params, doc)
	}
}

var notCanonical = regexp.MustCompile(`\r|<!|<\?|/>|&(?:[^lga#]|#(?:$|[^1])|#1[^3])|<[^>]*\s`)

// checkCanonical checks the form itself, by what must not be in it.
func checkCanonical(t *testing.T, doc string) {
	t.Helper()
	body, ok := strings.CutPrefix(doc, declaration)
	if !ok {
		t.Fatalf("the declaration is missing: %q", doc)
	}
	if found := notCanonical.FindString(strings.ReplaceAll(body, "<nil/>", "")); found != "" {
		t.Fatalf("%q in the canonical form\n%q", found, doc)
	}
}

// checkFault checks that an error is a fault fit to be shown.
func checkFault(t *testing.T, err error) {
	t.Helper()
	var fault *Fault
	if !errors.As(err, &fault) || fault.Code != CodeNotWellFormed && fault.Code != CodeNotXMLRPC {
		t.Fatalf("the error is %#v", err)
	}
	unprintable := func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
	if len(fault.Text) > 320 || strings.ContainsFunc(fault.Text, unprintable) {
		t.Fatalf("the text of the fault is long or odd: %q", fault.Text)
	}
}

// FuzzParseResponse: as FuzzParseCall, and CheckResponse has the same verdict.
func FuzzParseResponse(f *testing.F) {
	for _, doc := range peerDocs(f, "responses") {
		f.Add(doc, "")
	}
	for _, c := range acceptedValues {
		f.Add(AppendResponse(nil, Value{c.value}), "")
	}
	for _, c := range refusedResponses {
		f.Add([]byte(c.doc), "")
	}
	f.Fuzz(checkParseResponse)
}

func checkParseResponse(t *testing.T, doc []byte, charset string) {
	response, err := ParseResponse(doc, charset, AnswerLimits())
	isFault, checkErr := CheckResponse(doc, charset, AnswerLimits())
	if err != nil {
		checkFault(t, err)
		if checkErr == nil || checkErr.Error() != err.Error() {
			t.Fatalf("CheckResponse says %v, ParseResponse %v", checkErr, err)
		}
		return
	}
	if checkErr != nil || isFault != (response.Fault != nil) || isFault != response.Value.IsZero() {
		t.Fatalf("CheckResponse says %v, %v, ParseResponse %+v", isFault, checkErr, response)
	}
	oracleFault, value, err := oracleResponse(transcoded(doc, charset))
	if err != nil || isFault != oracleFault {
		t.Fatalf("the oracle says %v, %v, ParseResponse %+v", oracleFault, err, response)
	}
	if isFault {
		return
	}
	if got := show(response.Value); got != value {
		t.Fatalf("read differently\n got %s\nwant %s", got, value)
	}
	canonical := AppendResponse(nil, response.Value)
	checkCanonical(t, string(canonical))
	if again, err := ParseResponse(canonical, "", roomy()); err != nil || again.Value != response.Value {
		t.Fatalf("the canonical form reads back otherwise: %v\n got %v\nwant %v", err, again.Value, response.Value)
	}
}

// FuzzWrite: any Go value that FromGo takes is written so that it reads back.
func FuzzWrite(f *testing.F) {
	for _, seed := range []string{
		`null`, `true`, `"text"`, `"<&>\r\n\t\u0000\ufffe"`, `-1.5e300`, `12345678901`, `9223372036854775807`, `1e400`, `0.1`, `-0.0`, `1e-320`,
		`{"b": [1, [], {}], "a": {"<x>": ""}}`, "\"\xff\xed\xa0\x80\"",
	} {
		f.Add(seed, []byte(seed))
	}
	f.Fuzz(func(t *testing.T, text string, data []byte) {
		values := []any{text, data, map[string]any{text: text}, Members{{text, data}, {text, nil}}}
		var decoded any
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		if d.Decode(&decoded) == nil {
			values = append(values, decoded)
		}
		for _, x := range values {
			v, err := FromGo(x)
			if err != nil {
				continue
			}
			doc := AppendResponse(nil, v)
			checkCanonical(t, string(doc))
			response, err := ParseResponse(doc, "", roomy())
			if err != nil || response.Value != v {
				t.Fatalf("%#v reads back otherwise: %v\n got %v\nwant %v", x, err, response.Value, v)
			}
			if _, shown, err := oracleResponse(string(doc)); err != nil || shown != show(v) {
				t.Fatalf("%#v: the oracle reads %s, %v; want %s", x, shown, err, show(v))
			}
		}
		doc := AppendFault(nil, &Fault{7, text})
		response, err := ParseResponse(doc, "", roomy())
		if err != nil || response.Fault == nil || response.Fault.Code != 7 || response.Fault.Text != readable(text) {
			t.Fatalf("the fault %q reads back as %+v, %v", text, response.Fault, err)
		}
	})
}

// readable is what a receiver gets of a text that is not fit for XML.
func readable(text string) string {
	var b strings.Builder
	for _, r := range text {
		if !isChar(r) {
			r = utf8.RuneError
		}
		b.WriteRune(r)
	}
	return b.String()
}
