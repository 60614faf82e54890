// Package xmlrpc reads and writes XML-RPC documents. Reading is one pass over
// the bytes that checks well-formedness and the XML-RPC grammar and yields
// every value in canonical form, without building Go values; what a stranger
// sent is bounded by Limits before and while it is read.
//
// The canonical form is what real receivers, hand-made parsers among them,
// read without loss: UTF-8, no attributes, comments, CDATA sections or
// processing instructions, no white space between elements, every string in
// <string>, no character escaped but <, > and & (by name) and the carriage
// return (as &#13;), decimal numbers without exponents, base64 in lines of 76,
// no self-closing tags but <nil/>.
package xmlrpc

import "fmt"

// Limits bounds what one document may cost its reader. A field that is not
// positive stands for the one of DefaultLimits.
type Limits struct {
	Bytes  int // length of the document, after inflating and after transcoding to UTF-8
	Depth  int // nesting of arrays and structs; more than 10,000 counts as 10,000
	Values int // number of values
	Name   int // bytes of a member's name and of a method's name
}

// maxDepth bounds the stack that reading takes, whatever Limits say: some
// hundred bytes for each level.
const maxDepth = 10_000

// DefaultLimits are the limits for a call from a stranger.
func DefaultLimits() Limits {
	return Limits{Bytes: 1 << 20, Depth: 64, Values: 100_000, Name: 1 << 10}
}

// AnswerLimits are the limits for a satellite's answer.
func AnswerLimits() Limits {
	return Limits{Bytes: 64 << 10, Depth: 16, Values: 10_000, Name: 1 << 10}
}

// complete fills in what was left out.
func (l Limits) complete() Limits {
	d := DefaultLimits()
	if l.Bytes <= 0 {
		l.Bytes = d.Bytes
	}
	if l.Depth <= 0 {
		l.Depth = d.Depth
	}
	if l.Values <= 0 {
		l.Values = d.Values
	}
	if l.Name <= 0 {
		l.Name = d.Name
	}
	l.Depth = min(l.Depth, maxDepth)
	return l
}

// Fault codes of the public table (Specification for Fault Code
// Interoperability, 2001), and the one of the registry's own faults.
const (
	CodeNotWellFormed = -32700
	CodeNotXMLRPC     = -32600
	CodeNoMethod      = -32601
	CodeWrongParams   = -32602
	CodeInternal      = -32603
	CodeRegistry      = 1
)

// Fault is an XML-RPC fault. Every error of this package's reading functions is
// a *Fault: CodeNotWellFormed, or CodeNotXMLRPC (a limit that is exceeded
// included). Its text says what is wrong, at which byte (counted from 0, in
// UTF-8), and what to do; of the document it repeats a short, escaped piece.
type Fault struct {
	Code int
	Text string
}

func (f *Fault) Error() string { return fmt.Sprintf("fault %d: %s", f.Code, f.Text) }

// Kind is the type of a value.
type Kind uint8

// The kinds of values.
const (
	Invalid  Kind = iota
	Int           // int, i4, i2, i1
	Int64         // i8
	Bool          // boolean
	String        // string, untyped and empty values
	Double        // double, float
	DateTime      // dateTime.iso8601
	Base64        // base64
	Nil           // nil
	Array         // array
	Struct        // struct
)

// Value is one value in canonical form, "<value>" to "</value>". It is only
// made by this package, and never changed once made. The zero Value is invalid.
// Values of one document share its memory: keep a copy (strings.Clone of Raw)
// of a small one that is to outlive a large document.
type Value struct{ text string }

// Call is a method call.
type Call struct {
	Method string
	Params []Value
}

// Response is an answer to a call: exactly one of its fields is set.
type Response struct {
	Value Value
	Fault *Fault // the peer's, its text as long as the peer made it
}
