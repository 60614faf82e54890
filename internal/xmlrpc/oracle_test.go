package xmlrpc

import (
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// The oracle is a second, independent reader: encoding/xml builds a tree, and
// the tree is read as XML-RPC. It is slow, takes any depth, and shows values as
// text, so that two readings compare by ==.

type element struct {
	name     string
	text     string // all character data in it, joined
	children []*element
}

// readTree reads a document as a tree, and nothing after it but what XML allows.
func readTree(doc string) (*element, error) {
	d := xml.NewDecoder(strings.NewReader(doc))
	d.Strict = true
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	top := &element{}
	stack := []*element{top}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		here := stack[len(stack)-1]
		switch token := token.(type) {
		case xml.StartElement:
			e := &element{name: token.Name.Local}
			here.children = append(here.children, e)
			stack = append(stack, e)
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		case xml.CharData:
			here.text += string(token)
		case xml.Directive:
			return nil, errors.New("a directive")
		}
	}
	if len(top.children) != 1 || strings.TrimSpace(top.text) != "" {
		return nil, fmt.Errorf("%d roots, and text %q beside them", len(top.children), top.text)
	}
	return top.children[0], nil
}

// only returns the children, which must have these names.
func (e *element) only(names ...string) ([]*element, error) {
	if len(e.children) != len(names) || strings.Trim(e.text, " \t\r\n") != "" {
		return nil, fmt.Errorf("<%s> has %d children and text %q", e.name, len(e.children), e.text)
	}
	for i, c := range e.children {
		if c.name != names[i] {
			return nil, fmt.Errorf("<%s> where <%s> is due", c.name, names[i])
		}
	}
	return e.children, nil
}

// oracleCall reads a methodCall: method and shown parameters.
func oracleCall(doc string) (method string, params []string, err error) {
	root, err := readTree(doc)
	if err != nil {
		return "", nil, err
	}
	if root.name != "methodCall" || len(root.children) == 0 || root.children[0].name != "methodName" {
		return "", nil, errors.New("no methodCall with a methodName")
	}
	method = strings.Trim(root.children[0].text, " \t\r\n")
	if len(root.children) == 1 {
		return method, nil, nil
	}
	if len(root.children) > 2 || root.children[1].name != "params" {
		return "", nil, errors.New("no params")
	}
	for _, p := range root.children[1].children {
		values, err := p.only("value")
		if err != nil || p.name != "param" {
			return "", nil, fmt.Errorf("<%s>: %w", p.name, err)
		}
		shown, err := values[0].show()
		if err != nil {
			return "", nil, err
		}
		params = append(params, shown)
	}
	return method, params, nil
}

// oracleResponse reads a methodResponse: whether it is a fault, and the value.
func oracleResponse(doc string) (fault bool, value string, err error) {
	root, err := readTree(doc)
	if err != nil {
		return false, "", err
	}
	if root.name != "methodResponse" || len(root.children) != 1 {
		return false, "", errors.New("no methodResponse with one child")
	}
	body := root.children[0]
	fault = body.name == "fault"
	if !fault {
		if len(body.children) == 0 {
			return false, "nil", nil
		}
		params, err := body.only("param")
		if err != nil {
			return false, "", err
		}
		body = params[0]
	}
	values, err := body.only("value")
	if err != nil {
		return false, "", err
	}
	value, err = values[0].show()
	return fault, value, err
}

// show shows a <value>.
func (e *element) show() (string, error) {
	if len(e.children) == 0 {
		return fmt.Sprintf("string %q", e.text), nil
	}
	typed := e.children[0]
	if _, err := e.only(typed.name); err != nil {
		return "", err
	}
	text := strings.Trim(typed.text, " \t\r\n")
	switch typed.name {
	case "struct":
		return typed.showStruct()
	case "array":
		return typed.showArray()
	}
	if len(typed.children) > 0 {
		return "", fmt.Errorf("elements in a <%s>", typed.name)
	}
	switch typed.name {
	case "string":
		return fmt.Sprintf("string %q", typed.text), nil
	case "int", "i4", "i2", "i1":
		n, err := strconv.ParseInt(text, 10, 64)
		return fmt.Sprintf("int %d", n), err
	case "i8":
		n, err := strconv.ParseInt(text, 10, 64)
		return fmt.Sprintf("i8 %d", n), err
	case "boolean":
		return "boolean " + text, nil
	case "double", "float":
		f, err := strconv.ParseFloat(text, 64)
		return fmt.Sprintf("double %x", math.Float64bits(f)), err
	case "dateTime.iso8601":
		return "dateTime " + text, nil
	case "base64":
		packed := strings.Join(strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n", r) }), "")
		data, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(packed, "="))
		return fmt.Sprintf("base64 %x", data), err
	case "nil":
		if text != "" {
			return "", fmt.Errorf("text %q in nil", text)
		}
		return "nil", nil
	}
	return "", fmt.Errorf("unknown type <%s>", typed.name)
}

func (e *element) showStruct() (string, error) {
	var b strings.Builder
	for _, m := range e.children {
		parts, err := m.only("name", "value")
		if err != nil || m.name != "member" || len(parts[0].children) > 0 {
			return "", fmt.Errorf("<%s>: %w", m.name, err)
		}
		value, err := parts[1].show()
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%q: %s, ", parts[0].text, value)
	}
	return "{" + b.String() + "}", nil
}

func (e *element) showArray() (string, error) {
	if len(e.children) == 0 {
		return "[]", nil
	}
	data, err := e.only("data")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, c := range data[0].children {
		value, err := c.show()
		if err != nil || c.name != "value" {
			return "", fmt.Errorf("<%s>: %w", c.name, err)
		}
		b.WriteString(value + ", ")
	}
	return "[" + b.String() + "]", nil
}

// show shows a Value as the oracle does, by its exported methods.
func show(v Value) string {
	switch v.Kind() {
	case Int, Int64:
		n, ok := v.Int()
		name := map[Kind]string{Int: "int", Int64: "i8"}[v.Kind()]
		return fmt.Sprintf("%s %d", name, n) + bad(ok)
	case Bool:
		value, ok := v.Bool()
		return "boolean " + map[bool]string{false: "0", true: "1"}[value] + bad(ok)
	case String:
		text, ok := v.Str()
		return fmt.Sprintf("string %q", text) + bad(ok)
	case Double:
		f, ok := v.Float()
		return fmt.Sprintf("double %x", math.Float64bits(f)) + bad(ok)
	case DateTime:
		return "dateTime " + v.inner()
	case Base64:
		data, ok := v.Bytes()
		return fmt.Sprintf("base64 %x", data) + bad(ok)
	case Nil:
		return "nil"
	case Array:
		var b strings.Builder
		for e := range v.Elements() {
			b.WriteString(show(e) + ", ")
		}
		return "[" + b.String() + "]"
	case Struct:
		var b strings.Builder
		for name, value := range v.Members() {
			fmt.Fprintf(&b, "%q: %s, ", name, show(value))
		}
		return "{" + b.String() + "}"
	}
	return "invalid"
}

func bad(ok bool) string {
	if ok {
		return ""
	}
	return " (not readable)"
}

// transcoded is the document in UTF-8, as the oracle takes it.
func transcoded(doc []byte, charset string) string {
	s := scanner{lim: roomy().complete()}
	s.load(doc, charset)
	return strings.TrimLeft(s.in, " \t\r\n")
}

// roomy are limits for the canonical form of what passed the usual ones.
func roomy() Limits { return Limits{Bytes: 64 << 20, Depth: 1000, Values: 1 << 20, Name: 1 << 20} }
