package xmlrpc

import (
	"encoding/base64"
	"iter"
	"strconv"
	"strings"
	"time"
)

// IsZero tells whether v is no value at all.
func (v Value) IsZero() bool { return v.text == "" }

// Raw is the canonical "<value>…</value>".
func (v Value) Raw() string { return v.text }

// Kind tells the type; Invalid for the zero Value.
func (v Value) Kind() Kind {
	const first, fourth = len("<value><"), len("<value><str")
	if len(v.text) < len("<value><nil/></value>") {
		return Invalid
	}
	switch second := v.text[first+1]; v.text[first] {
	case 's':
		if v.text[fourth] == 'u' {
			return Struct
		}
		return String
	case 'i':
		if second == '8' {
			return Int64
		}
		return Int
	case 'b':
		if second == 'a' {
			return Base64
		}
		return Bool
	case 'd':
		if second == 'a' {
			return DateTime
		}
		return Double
	case 'a':
		return Array
	case 'n':
		return Nil
	}
	return Invalid
}

// inner is the text between the tags of the type.
func (v Value) inner() string {
	text := strings.TrimSuffix(strings.TrimPrefix(v.text, "<value>"), "</value>")
	if start, end := strings.IndexByte(text, '>')+1, strings.LastIndexByte(text, '<'); start <= end {
		return text[start:end]
	}
	return ""
}

// Str is the text of a String.
func (v Value) Str() (string, bool) {
	if v.Kind() != String {
		return "", false
	}
	return unescape(v.inner()), true
}

// Int is the number of an Int or Int64.
func (v Value) Int() (int64, bool) {
	if k := v.Kind(); k != Int && k != Int64 {
		return 0, false
	}
	n, err := strconv.ParseInt(v.inner(), 10, 64)
	return n, err == nil
}

// Float is the number of a Double, Int or Int64.
func (v Value) Float() (float64, bool) {
	if k := v.Kind(); k != Double && k != Int && k != Int64 {
		return 0, false
	}
	f, err := strconv.ParseFloat(v.inner(), 64)
	return f, err == nil
}

// Bool is the truth of a Bool.
func (v Value) Bool() (value, ok bool) {
	if v.Kind() != Bool {
		return false, false
	}
	return v.inner() == "1", true
}

// Time is the time of a DateTime, UTC if it names no zone; false if it has an
// unusual form.
func (v Value) Time() (time.Time, bool) {
	if v.Kind() != DateTime {
		return time.Time{}, false
	}
	return parseDateTime(v.inner())
}

// Bytes is what a Base64 holds.
func (v Value) Bytes() ([]byte, bool) {
	if v.Kind() != Base64 {
		return nil, false
	}
	b, err := base64.StdEncoding.DecodeString(v.inner()) // skips line ends
	return b, err == nil
}

// Members are the members of a Struct, in order; nothing for other kinds.
func (v Value) Members() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		v.walk(func(name, _ string, value Value) bool { return yield(unescape(name), value) })
	}
}

// RawMembers are the members of a Struct, in order: name and canonical
// "<member>…</member>".
func (v Value) RawMembers() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		v.walk(func(name, raw string, _ Value) bool { return yield(unescape(name), raw) })
	}
}

// Member is the first member of that name.
func (v Value) Member(name string) (Value, bool) {
	for n, value := range v.Members() {
		if n == name {
			return value, true
		}
	}
	return Value{}, false
}

// Duplicate finds a name that two members of a Struct share. ParseCall sees to
// it that a parameter has none; a struct inside one may.
func (v Value) Duplicate() (name string, found bool) {
	var names nameSet
	for n := range v.Members() {
		names.add(n)
	}
	return names.duplicate()
}

// walk goes over the members of a Struct. The name is as it is written.
func (v Value) walk(yield func(name, raw string, value Value) bool) {
	if v.Kind() != Struct {
		return
	}
	const head, middle, tail = "<member><name>", "</name>", "</member>"
	rest := v.inner()
	for strings.HasPrefix(rest, head) {
		nameEnd := strings.Index(rest, middle)
		if nameEnd < 0 {
			return
		}
		start := nameEnd + len(middle)
		n := valueLength(rest[start:])
		end := min(start+n+len(tail), len(rest))
		if !yield(rest[len(head):nameEnd], rest[:end], Value{rest[start : start+n]}) {
			return
		}
		rest = rest[end:]
	}
}

// Elements are the elements of an Array; nothing for other kinds.
func (v Value) Elements() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		if v.Kind() != Array {
			return
		}
		rest := strings.TrimSuffix(strings.TrimPrefix(v.inner(), "<data>"), "</data>")
		for rest != "" {
			n := valueLength(rest)
			if !yield(Value{rest[:n]}) {
				return
			}
			rest = rest[n:]
		}
	}
}

// valueLength is the length of the value that text begins with. In canonical
// text a < is always a tag's.
func valueLength(text string) int {
	depth := 0
	for i := 0; ; {
		n := strings.IndexByte(text[i:], '<')
		if n < 0 {
			return len(text)
		}
		i += n
		switch rest := text[i:]; {
		case strings.HasPrefix(rest, "<value>"):
			depth++
			i += len("<value>")
		case strings.HasPrefix(rest, "</value>"):
			depth--
			i += len("</value>")
			if depth <= 0 {
				return i
			}
		default:
			i++
		}
	}
}

// StructOf makes a struct value of canonical members, as RawMembers gave them.
func StructOf(rawMembers string) Value {
	return Value{"<value><struct>" + rawMembers + "</struct></value>"}
}
