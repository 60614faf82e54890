package xmlrpc

import (
	"encoding/base64"
	"math"
	"strconv"
	"time"
)

// declaration names the encoding although UTF-8 needs none: old readers (PHP 4,
// Python's xmllib) otherwise take it for Latin-1, or leave it undecoded.
const declaration = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"

// AppendCall appends a methodCall, a whole document.
func AppendCall(b []byte, method string, params ...Value) []byte {
	b = append(b, declaration+"<methodCall><methodName>"...)
	b = AppendEscaped(b, method)
	b = append(b, "</methodName><params>"...)
	for _, v := range params {
		b = append(b, "<param>"...)
		b = append(b, v.text...)
		b = append(b, "</param>"...)
	}
	return append(b, "</params></methodCall>\n"...)
}

// AppendResponse appends a methodResponse, a whole document.
func AppendResponse(b []byte, v Value) []byte {
	b = append(b, declaration+"<methodResponse><params><param>"...)
	b = append(b, v.text...)
	return append(b, "</param></params></methodResponse>\n"...)
}

// AppendFault appends a methodResponse with a fault, a whole document.
func AppendFault(b []byte, f *Fault) []byte {
	b = append(b, declaration+"<methodResponse><fault><value><struct><member><name>faultCode</name><value><int>"...)
	b = strconv.AppendInt(b, int64(f.Code), 10)
	b = append(b, "</int></value></member><member><name>faultString</name><value><string>"...)
	b = AppendEscaped(b, f.Text)
	return append(b, "</string></value></member></struct></value></fault></methodResponse>\n"...)
}

// NewString makes a String. Characters that XML does not allow, and bytes that
// are not UTF-8, become U+FFFD.
func NewString(text string) Value {
	b := make([]byte, 0, len(text)+len(text)/16+len("<value><string></string></value>"))
	b = AppendEscaped(append(b, "<value><string>"...), text)
	return Value{view(append(b, "</string></value>"...))}
}

// NewInt makes an Int; beyond 32 bits a Double, as old receivers know no i8.
func NewInt(n int64) Value {
	if n == int64(int32(n)) {
		return Value{"<value><int>" + strconv.FormatInt(n, 10) + "</int></value>"}
	}
	return Value{"<value><double>" + strconv.FormatInt(n, 10) + ".0</double></value>"}
}

// NewBool makes a Bool.
func NewBool(value bool) Value {
	if value {
		return Value{"<value><boolean>1</boolean></value>"}
	}
	return Value{"<value><boolean>0</boolean></value>"}
}

// NewDouble makes a Double. XML-RPC has no infinity and no NaN: they become the
// largest number of that sign, and 0.
func NewDouble(f float64) Value {
	switch {
	case math.IsNaN(f):
		f = 0
	case math.IsInf(f, 0):
		f = math.Copysign(math.MaxFloat64, f)
	}
	b := appendDouble([]byte("<value><double>"), f)
	return Value{view(append(b, "</double></value>"...))}
}

// NewTime makes a DateTime in UTC, YYYYMMDDTHH:MM:SS.
func NewTime(t time.Time) Value {
	return Value{"<value><dateTime.iso8601>" + t.UTC().Format("20060102T15:04:05") + "</dateTime.iso8601></value>"}
}

// NewBase64 makes a Base64.
func NewBase64(data []byte) Value {
	b := []byte("<value><base64>")
	for line := base64Columns / 4 * 3; len(data) > line; data = data[line:] {
		b = append(base64.StdEncoding.AppendEncode(b, data[:line]), '\n')
	}
	b = base64.StdEncoding.AppendEncode(b, data)
	return Value{view(append(b, "</base64></value>"...))}
}

// NewArray makes an Array.
func NewArray(elements ...Value) Value {
	const head, tail = "<value><array><data>", "</data></array></value>"
	n := len(head) + len(tail)
	for _, v := range elements {
		n += len(v.text)
	}
	b := append(make([]byte, 0, n), head...)
	for _, v := range elements {
		b = append(b, v.text...)
	}
	return Value{view(append(b, tail...))}
}

// Field is a member of a struct that is made with NewStruct.
type Field struct {
	Name  string
	Value Value
}

// NewStruct makes a Struct.
func NewStruct(fields ...Field) Value {
	b := []byte("<value><struct>")
	for _, f := range fields {
		b = AppendEscaped(append(b, "<member><name>"...), f.Name)
		b = append(b, "</name>"...)
		b = append(b, f.Value.text...)
		b = append(b, "</member>"...)
	}
	return Value{view(append(b, "</struct></value>"...))}
}

// NewNil makes a Nil. The relay sends none of its own: old receivers know no nil.
func NewNil() Value { return Value{"<value><nil/></value>"} }
