package xmlrpc

import "strings"

// methodCall reads a whole document.
func (s *scanner) methodCall() (call Call, ok bool) {
	if !s.root("methodCall") || !s.methodName() {
		return call, false
	}
	call.Method = unescape(view(s.out))
	if !s.skip() {
		return call, false
	}
	if !s.atEnd() {
		empty, ok := s.element("params")
		if !ok || !empty && !s.params(&call) {
			return call, false
		}
	}
	return call, s.end("methodCall") && s.epilog()
}

// root reads the start tag of the document's one element.
func (s *scanner) root(want string) bool {
	if !s.skip() {
		return false
	}
	if s.pos < len(s.in) && s.in[s.pos] != '<' {
		return s.broken(s.pos, "%s is not XML; begin with <%s>", excerpt(s.in[s.pos:]), want)
	}
	empty, ok := s.element(want)
	if empty {
		return s.refuse(s.pos, "<%s> is empty", want)
	}
	return ok
}

func (s *scanner) methodName() bool {
	empty, ok := s.element("methodName")
	if !ok {
		return false
	}
	at, name := s.pos, ""
	if !empty {
		if name, ok = s.text(true); !ok || !s.end("methodName") {
			return false
		}
	}
	name = trim(name)
	if name == "" {
		return s.refuse(at, "the method's name is empty")
	}
	if !s.shortName(name, at, "the method's name") {
		return false
	}
	s.put(name)
	return true
}

// params reads the parameters of a call, after <params>.
func (s *scanner) params(call *Call) bool {
	for {
		if !s.skip() {
			return false
		}
		if s.atEnd() {
			return s.end("params")
		}
		start := len(s.out)
		s.names.reset()
		if !s.param() {
			return false
		}
		call.Params = append(call.Params, Value{view(s.out[start:])})
	}
}

func (s *scanner) param() bool {
	if empty, ok := s.element("param"); !ok {
		return false
	} else if empty {
		return s.refuse(s.pos, "<param> is empty; put a <value> into it")
	}
	_, ok := s.valueElement()
	return ok && s.end("param")
}

// methodResponse reads a whole document and puts out its value, or the value of
// its fault.
func (s *scanner) methodResponse() (fault, ok bool) {
	if !s.root("methodResponse") || !s.skip() {
		return false, false
	}
	at := s.pos
	name, empty, ok := s.startTag()
	if !ok {
		return false, false
	}
	switch name {
	case "params":
		ok = s.result(empty)
	case "fault":
		fault, ok = true, s.faultValue(empty)
	default:
		return false, s.unexpected(at, name, "<params> or <fault>")
	}
	return fault, ok && s.end("methodResponse") && s.epilog()
}

// result reads the one parameter of an answer, after <params>.
func (s *scanner) result(empty bool) bool {
	if !empty {
		if !s.skip() {
			return false
		}
		if !s.atEnd() {
			return s.param() && s.end("params")
		}
		if !s.end("params") {
			return false
		}
	}
	s.put("<value><nil/></value>")
	return true
}

func (s *scanner) faultValue(empty bool) bool {
	at := s.pos
	if empty {
		return s.refuse(at, "<fault> is empty; put a <value> with a struct into it")
	}
	kind, ok := s.valueElement()
	if !ok || !s.end("fault") {
		return false
	}
	if kind != Struct {
		return s.refuse(at, "the value of <fault> is no struct; give it faultCode and faultString")
	}
	return true
}

// valueElement reads a <value> element with all that is in it, and puts it out
// in canonical form.
func (s *scanner) valueElement() (Kind, bool) {
	empty, ok := s.element("value")
	if !ok {
		return Invalid, false
	}
	if s.values++; s.values > s.lim.Values {
		return Invalid, s.exceed("more than %d values; send less at once", s.lim.Values)
	}
	if empty {
		s.put("<value><string></string></value>")
		return String, true
	}
	return s.value()
}

// value reads what follows <value>, </value> included.
func (s *scanner) value() (Kind, bool) {
	start := s.pos
	if !s.skip() {
		return Invalid, false
	}
	if !s.atStart() {
		s.pos = start // white space is part of an untyped string
		return String, s.untyped()
	}
	at := s.pos
	name, empty, ok := s.startTag()
	if !ok {
		return Invalid, false
	}
	kind := kindOf(name)
	switch kind {
	case Invalid:
		return Invalid, s.unexpected(at, name, "a type")
	case Struct:
		ok = s.deeper(at) && s.members(empty)
		s.depth--
	case Array:
		ok = s.deeper(at) && s.elements(empty)
		s.depth--
	case String:
		ok = s.str(empty)
	case Nil:
		s.put("<value><nil/></value>")
		ok = empty || s.end(name)
	default:
		ok = s.scalar(kind, name, empty)
	}
	return kind, ok && s.end("value")
}

// kindOf tells the kind of a value by the name of its element. The extension
// types of Apache's implementation come with a name-space prefix (ex:i8).
func kindOf(name string) Kind {
	switch name {
	case "string":
		return String
	case "int", "i4":
		return Int
	case "struct":
		return Struct
	case "array":
		return Array
	case "double":
		return Double
	case "boolean":
		return Bool
	case "dateTime.iso8601":
		return DateTime
	case "base64":
		return Base64
	}
	if prefix, local, ok := strings.Cut(name, ":"); ok && prefix != "" {
		name = local
	}
	switch name {
	case "nil":
		return Nil
	case "i8":
		return Int64
	case "i1", "i2":
		return Int
	case "float":
		return Double
	}
	return Invalid
}

func (s *scanner) untyped() bool {
	s.put("<value><string>")
	text, ok := s.text(s.emit)
	if !ok {
		return false
	}
	s.put(text)
	s.put("</string></value>")
	if !s.atEnd() {
		return s.refuse(s.pos, "an element in a <value> after text; put the text into an element of its own")
	}
	return s.end("value")
}

func (s *scanner) str(empty bool) bool {
	s.put("<value><string>")
	if !empty {
		text, ok := s.text(s.emit)
		if !ok || !s.end("string") {
			return false
		}
		s.put(text)
	}
	s.put("</string></value>")
	return true
}

func (s *scanner) deeper(at int) bool {
	if s.depth++; s.depth > s.lim.Depth {
		s.pos = at
		return s.exceed("arrays and structs nested more than %d deep; send flatter data", s.lim.Depth)
	}
	return true
}

// elements reads what follows <array>, </array> included.
func (s *scanner) elements(empty bool) bool {
	s.put("<value><array><data>")
	if !empty && !(s.data() && s.end("array")) {
		return false
	}
	s.put("</data></array></value>")
	return true
}

func (s *scanner) data() bool {
	empty, ok := s.element("data")
	if !ok || empty {
		return ok
	}
	for {
		if !s.skip() {
			return false
		}
		if s.atEnd() {
			return s.end("data")
		}
		if _, ok := s.valueElement(); !ok {
			return false
		}
	}
}

// members reads what follows <struct>, </struct> included. In a parameter
// itself no name may occur twice: receivers do not agree which one counts, and
// who checks the one may not see the other.
func (s *scanner) members(empty bool) bool {
	s.put("<value><struct>")
	top := s.unique && s.depth == 1
	for !empty {
		if !s.skip() {
			return false
		}
		if s.atEnd() {
			break
		}
		if !s.member(top) {
			return false
		}
	}
	if top {
		if name, ok := s.names.duplicate(); ok {
			return s.refuse(s.pos, "the member %s is twice in the parameter; send it once", excerpt(unescape(name)))
		}
	}
	s.put("</struct></value>")
	return empty || s.end("struct")
}

func (s *scanner) member(top bool) bool {
	empty, ok := s.element("member")
	if !ok {
		return false
	}
	if empty {
		return s.refuse(s.pos, "<member> is empty; put <name> and <value> into it")
	}
	if empty, ok = s.element("name"); !ok {
		return false
	}
	s.put("<member><name>")
	start := len(s.out)
	if !empty && !s.memberName() {
		return false
	}
	if top {
		s.names.add(view(s.out[start:]))
	}
	s.put("</name>")
	if _, ok := s.valueElement(); !ok {
		return false
	}
	s.put("</member>")
	return s.end("member")
}

func (s *scanner) memberName() bool {
	at := s.pos
	name, ok := s.text(true)
	if !ok || !s.shortName(name, at, "a member's name") {
		return false
	}
	s.put(name)
	return s.end("name")
}

func (s *scanner) shortName(name string, at int, what string) bool {
	if len(name) > s.lim.Name && len(unescape(name)) > s.lim.Name {
		s.pos = at
		return s.exceed("%s is longer than %d bytes; shorten it", what, s.lim.Name)
	}
	return true
}
