package frontend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

const (
	// shownDocument bounds what a page shows of a request or an answer.
	shownDocument = 64 << 10
	// hiddenText stands for a password in the request that a page shows.
	hiddenText = "••••••"

	fieldParam = "param" // of a method that takes one value
	fieldMore  = "more"  // further members of the struct, as JSON
)

// fieldView is one control of a method's form.
type fieldView struct {
	Name, Label, Kind, Doc string
	Control                string // text, number, password, area, method
	Step                   string
	Value                  string
	Required               bool
}

// callView is a call that was made from the page.
type callView struct {
	Fault   bool
	Problem string // why it was not made
	Request string
	Answer  string
}

// fields are the controls of a method's form, filled with what was sent.
func (e *entry) fields(sent url.Values) []fieldView {
	switch e.param {
	case noParam:
		return nil
	case anyParam:
		return []fieldView{{Name: fieldParam, Label: "parameter", Kind: "any type, JSON or text", Control: "area", Value: sent.Get(fieldParam)}}
	case arrayParam:
		return []fieldView{{Name: fieldParam, Label: "parameter", Kind: "array, as JSON", Control: "area", Value: sent.Get(fieldParam), Required: true}}
	}
	var all []fieldView
	for _, m := range e.members {
		v := fieldView{Name: "m." + m.name, Label: m.name, Kind: m.kind(), Doc: m.doc, Control: "text", Required: !m.optional, Value: sent.Get("m." + m.name)}
		switch {
		case strings.HasSuffix(m.name, "_pass"):
			v.Control, v.Value = "password", ""
		case m.typ == typeInt:
			v.Control, v.Step = "number", "1"
		case m.typ == typeDouble:
			v.Control, v.Step = "number", "any"
		case m.typ == typeAny:
			v.Control, v.Kind = "area", v.Kind+"; JSON or text"
		case m.typ == typeArray:
			v.Kind += "; JSON, or words with commas between"
		case e.param == nameParam || m.name == memberMethod:
			v.Control = "method"
		}
		all = append(all, v)
	}
	if e.param == structParam {
		all = append(all, fieldView{Name: fieldMore, Label: "further members", Kind: "optional; a JSON object", Control: "area", Value: sent.Get(fieldMore)})
	}
	return all
}

// formReader makes values of a form's texts, within the limits of a call. They
// are longer than their texts: "[1,1" by a factor of 16.
type formReader struct {
	lim    xmlrpc.Limits
	values int
	bytes  int // of the scalars
}

// formGrowth is by what factor, at most, values are longer than their text.
const formGrowth = 16

// limitError is why a text is not taken for words where it is no JSON.
type limitError struct{ text string }

func (e *limitError) Error() string { return e.text }

// count adds a value of so many bytes, unless it is one too many.
func (r *formReader) count(n int) error {
	r.values++
	r.bytes += n
	switch {
	case r.values > r.lim.Values:
		return &limitError{fmt.Sprintf("more than %d values, and a call may have no more; send fewer (--max-values)", r.lim.Values)}
	case r.bytes > r.lim.Bytes:
		return &limitError{fmt.Sprintf("more than %d bytes as XML-RPC, and a call may have no more; send less at once (--max-body, --max-inflated)", r.lim.Bytes)}
	}
	return nil
}

// argument makes the method's parameter of a form; the zero Value is none.
func (r *formReader) argument(e *entry, sent url.Values) (xmlrpc.Value, error) {
	switch e.param {
	case noParam:
		return xmlrpc.Value{}, nil
	case anyParam, arrayParam:
		text := sent.Get(fieldParam)
		if strings.TrimSpace(text) == "" {
			return xmlrpc.Value{}, nil
		}
		return r.loose(text)
	}
	var fields []xmlrpc.Field
	for _, m := range e.members {
		text := sent.Get("m." + m.name)
		if text == "" {
			continue
		}
		v, err := r.member(&m, text)
		if err != nil {
			return v, fmt.Errorf("%s: %w", m.name, err)
		}
		fields = append(fields, xmlrpc.Field{Name: m.name, Value: v})
	}
	if e.param == nameParam && len(fields) == 1 {
		return fields[0].Value, nil
	}
	if more := strings.TrimSpace(sent.Get(fieldMore)); more != "" {
		v, err := r.json(more)
		if err != nil {
			return v, fmt.Errorf("further members: %w", err)
		}
		if v.Kind() != xmlrpc.Struct {
			return v, errors.New(`further members: not a JSON object like {"colour": "red"}`)
		}
		for name, member := range v.Members() {
			fields = append(fields, xmlrpc.Field{Name: name, Value: member})
		}
	}
	return xmlrpc.NewStruct(fields...), nil
}

// hidden gives a parameter with its passwords replaced, for showing it.
func hidden(param xmlrpc.Value) xmlrpc.Value {
	var shown strings.Builder
	for name, raw := range param.RawMembers() {
		if strings.HasSuffix(name, "_pass") {
			raw = rawMember(name, xmlrpc.NewString(hiddenText))
		}
		shown.WriteString(raw)
	}
	if shown.Len() == 0 {
		return param
	}
	return xmlrpc.StructOf(shown.String())
}

// member reads a member's text as its type.
func (r *formReader) member(m *member, text string) (xmlrpc.Value, error) {
	switch m.typ {
	case typeInt:
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil {
			return xmlrpc.Value{}, fmt.Errorf("%q is not a whole number", shown(text))
		}
		return xmlrpc.NewInt(n), nil
	case typeDouble:
		x, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil || x-x != 0 {
			return xmlrpc.Value{}, fmt.Errorf("%q is not a number", shown(text))
		}
		return xmlrpc.NewDouble(x), nil
	case typeString:
		return xmlrpc.NewString(text), nil
	case typeArray:
		if strings.HasPrefix(strings.TrimSpace(text), "[") {
			return r.json(text)
		}
		var words []xmlrpc.Value
		for w := range strings.SplitSeq(text, ",") {
			if w = strings.TrimSpace(w); w == "" {
				continue
			}
			v := xmlrpc.NewString(w)
			if err := r.count(len(v.Raw())); err != nil {
				return v, err
			}
			words = append(words, v)
		}
		return xmlrpc.NewArray(words...), nil
	}
	return r.loose(text)
}

// loose reads JSON, and takes what is none for text.
func (r *formReader) loose(text string) (xmlrpc.Value, error) {
	v, err := r.json(text)
	var limit *limitError
	if err == nil || errors.As(err, &limit) {
		return v, err
	}
	return xmlrpc.NewString(text), nil
}

// json reads one JSON value; structs keep the order of their members.
func (r *formReader) json(text string) (xmlrpc.Value, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	v, err := r.jsonValue(d, r.lim.Depth)
	if err != nil {
		return v, fmt.Errorf("read JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return v, errors.New("read JSON: there is more than one value")
	}
	return v, nil
}

func (r *formReader) jsonValue(d *json.Decoder, depth int) (xmlrpc.Value, error) {
	if depth <= 0 {
		return xmlrpc.Value{}, &limitError{"it nests too deeply (--max-depth)"}
	}
	token, err := d.Token()
	if err != nil {
		return xmlrpc.Value{}, err
	}
	switch token {
	case json.Delim('['):
		if err := r.count(0); err != nil {
			return xmlrpc.Value{}, err
		}
		var elements []xmlrpc.Value
		for d.More() {
			v, err := r.jsonValue(d, depth-1)
			if err != nil {
				return v, err
			}
			elements = append(elements, v)
		}
		_, err = d.Token()
		return xmlrpc.NewArray(elements...), err
	case json.Delim('{'):
		if err := r.count(0); err != nil {
			return xmlrpc.Value{}, err
		}
		var fields []xmlrpc.Field
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return xmlrpc.Value{}, err
			}
			v, err := r.jsonValue(d, depth-1)
			if err != nil {
				return v, err
			}
			fields = append(fields, xmlrpc.Field{Name: fmt.Sprint(name), Value: v})
		}
		_, err = d.Token()
		return xmlrpc.NewStruct(fields...), err
	}
	v, err := xmlrpc.FromGo(token)
	if err != nil {
		return v, err
	}
	return v, r.count(len(v.Raw()))
}

// serveForm makes a call from a method's page. It goes the way of any call: as
// a document, with the browser's address as the caller's.
func (f *Frontend) serveForm(w http.ResponseWriter, r *http.Request, c *conn) {
	e := f.methods[strings.TrimPrefix(r.URL.Path, "/methods/")]
	switch {
	case !f.cfg.Web:
		f.refuse(w, http.StatusNotFound, "web_off", "the web interface of this relay is turned off; POST an XML-RPC call")
		return
	case e == nil:
		f.notFound(w, "There is no such method", "The relay has no method of this name.")
		return
	case c.viaProxy && !c.client.IsValid():
		f.refuse(w, http.StatusForbidden, "no_proxy_header", "the trusted proxy did not say whose request this is")
		return
	}
	from := peer{addr: c.client, life: c.life}
	release, err := f.budget.body(r.Context(), from.addr, f.formCost(r.ContentLength))
	if err != nil {
		f.busy(w)
		return
	}
	defer release()
	if f.readForm(w, r) {
		f.methodPage(w, e.name, r.PostForm, f.callFromPage(r.Context(), e, r.PostForm, from))
	}
}

// formCost is what a form takes of the budget: its text, and the call that it
// becomes, as a document and as values.
func (f *Frontend) formCost(length int64) int64 {
	if length < 0 {
		length = f.cfg.MaxBody
	}
	return length + 2*min(formGrowth*length, int64(f.limits.Bytes))
}

// readForm reads a form, or answers why it cannot.
func (f *Frontend) readForm(w http.ResponseWriter, r *http.Request) bool {
	f.expectBody(w)
	r.Body = http.MaxBytesReader(w, r.Body, f.cfg.MaxBody)
	err := r.ParseForm()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		f.slowBody(w)
	case err != nil || contentKind(r) == formMultipart: // which ParseForm passes over
		f.refuse(w, http.StatusBadRequest, "form", "this form cannot be read: it is too large, or not of type "+formURLEncoded)
	default:
		bodyCame(w)
		return true
	}
	return false
}

func (f *Frontend) callFromPage(ctx context.Context, e *entry, sent url.Values, from peer) *callView {
	reader := formReader{lim: f.limits}
	param, err := reader.argument(e, sent)
	if err != nil {
		return &callView{Problem: err.Error()}
	}
	v := &callView{Request: prettyXML(callDocument(e.name, hidden(param)))}
	call, err := xmlrpc.ParseCall(callDocument(e.name, param), "", f.limits)
	a := f.budget.answer(from.addr)
	defer a.release()
	var result xmlrpc.Value
	if err == nil {
		result, err = f.dispatch(ctx, call.Method, call.Params, request{from: from, answer: a})
	}
	if err == nil {
		err = a.reserve(ctx, int64(len(result.Raw())))
	}
	if err != nil {
		v.Fault = true
		v.Answer = prettyXML(xmlrpc.AppendFault(nil, asFault(err)))
		return v
	}
	v.Answer = prettyXML(xmlrpc.AppendResponse(nil, result))
	return v
}

func callDocument(name string, param xmlrpc.Value) []byte {
	if param.IsZero() {
		return xmlrpc.AppendCall(nil, name)
	}
	return xmlrpc.AppendCall(nil, name, param)
}

// prettyXML breaks a canonical document into indented lines, for reading. What
// is within a scalar stays as it is.
func prettyXML(doc []byte) string {
	text := strings.TrimSpace(string(doc))
	long := len(text) > shownDocument
	if long {
		text = strings.ToValidUTF8(text[:shownDocument], "")
	}
	var b strings.Builder
	depth := 0
	line := func() {
		if b.Len() > 0 {
			b.WriteString("\n" + strings.Repeat("  ", depth))
		}
	}
	for text != "" {
		end := strings.IndexByte(text, '>') + 1
		if text[0] != '<' || end == 0 {
			next := strings.IndexByte(text, '<')
			if next < 0 {
				next = len(text)
			}
			if s := strings.TrimSpace(text[:next]); s != "" { // between elements: line breaks of the document
				b.WriteString(s)
			}
			text = text[next:]
			continue
		}
		tag, rest := text[:end], text[end:]
		name := strings.Trim(tag, "</>")
		holds := name != "value" && containers[name] ||
			name == "value" && (strings.HasPrefix(rest, "<struct>") || strings.HasPrefix(rest, "<array>"))
		switch {
		case strings.HasPrefix(tag, "<?"):
			b.WriteString(tag)
		case strings.HasPrefix(tag, "</") && containers[name]:
			depth--
			line()
			b.WriteString(tag)
		case tag == "</value>":
			depth-- // of one that holds others: a scalar's was written with it
			line()
			b.WriteString(tag)
		case holds:
			line()
			b.WriteString(tag)
			depth++
		case name == "value" || name == "methodName" || name == "name":
			// A scalar stays on one line, its text untouched.
			closing := "</" + name + ">"
			stop := strings.Index(rest, closing)
			line()
			if stop < 0 {
				b.WriteString(tag + rest)
				rest = ""
				break
			}
			b.WriteString(tag + rest[:stop] + closing)
			rest = rest[stop+len(closing):]
		default:
			b.WriteString(tag)
		}
		text = rest
	}
	if long {
		b.WriteString("\n…")
	}
	return b.String()
}

var containers = map[string]bool{
	"methodCall": true, "methodResponse": true, "params": true, "param": true, "fault": true,
	"struct": true, "member": true, "array": true, "data": true,
}
