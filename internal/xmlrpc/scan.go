package xmlrpc

import (
	"fmt"
	"strconv"
	"strings"
)

// A scanner reads one document. What it reads it puts out in canonical form, or
// only checks where emit is off. Its functions return false after they have set
// fault.
type scanner struct {
	in   string // the document in UTF-8, without a byte order mark
	pos  int    // of the next byte in it
	base int    // bytes of the document that stood before in

	out   []byte
	emit  bool   // something is put out
	spare []byte // holds the last text that was not canonical

	lim    Limits
	values int
	depth  int

	unique bool // the names of a parameter's members must differ
	names  nameSet

	fault *Fault
}

func (s *scanner) put(text string) {
	if s.emit {
		s.out = append(s.out, text...)
	}
}

// broken records that the document is no well-formed XML.
func (s *scanner) broken(at int, format string, args ...any) bool {
	return s.fail(CodeNotWellFormed, "not well-formed XML", at, format, args)
}

// refuse records that it is not XML-RPC.
func (s *scanner) refuse(at int, format string, args ...any) bool {
	return s.fail(CodeNotXMLRPC, "not XML-RPC", at, format, args)
}

// exceed records that it exceeds a limit.
func (s *scanner) exceed(format string, args ...any) bool {
	return s.fail(CodeNotXMLRPC, "limit exceeded", s.pos, format, args)
}

func (s *scanner) fail(code int, class string, at int, format string, args []any) bool {
	s.fault = &Fault{code, fmt.Sprintf("%s at byte %d: ", class, s.base+at) + fmt.Sprintf(format, args...)}
	return false
}

// short records that the document ends before its last end tag.
func (s *scanner) short() bool {
	return s.broken(len(s.in), "the document ends too early; send all of it")
}

// unexpected records an element that may not stand where it does.
func (s *scanner) unexpected(at int, name, due string) bool {
	return s.refuse(at, "<%s> where %s is due", clip(name), due)
}

// excerpt is a short piece of what a stranger sent, fit to be shown.
func excerpt(text string) string { return strconv.QuoteToASCII(clip(text)) }

// clip shortens text. The names of elements, ASCII, may be shown as they are.
func clip(text string) string { return text[:min(len(text), 32)] }

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

// trim cuts white space as XML knows it from canonical text.
func trim(text string) string {
	for {
		switch n := len(text); {
		case n > 0 && isSpace(text[0]):
			text = text[1:]
		case n > 0 && isSpace(text[n-1]):
			text = text[:n-1]
		case strings.HasPrefix(text, carriageReturn):
			text = text[len(carriageReturn):]
		case strings.HasSuffix(text, carriageReturn):
			text = text[:n-len(carriageReturn)]
		default:
			return text
		}
	}
}

// skip passes white space, comments and processing instructions.
func (s *scanner) skip() bool {
	for {
		i := s.pos
		for i < len(s.in) && isSpace(s.in[i]) {
			i++
		}
		s.pos = i
		if i+1 >= len(s.in) || s.in[i] != '<' {
			return true
		}
		switch s.in[i+1] {
		case '?':
			if !s.instruction() {
				return false
			}
		case '!':
			if s.has(cdataStart) {
				return true
			}
			if !s.comment() {
				return false
			}
		default:
			return true
		}
	}
}

func (s *scanner) has(prefix string) bool { return strings.HasPrefix(s.in[s.pos:], prefix) }

// atEnd tells whether an end tag stands here.
func (s *scanner) atEnd() bool {
	return s.pos+1 < len(s.in) && s.in[s.pos] == '<' && s.in[s.pos+1] == '/'
}

// atStart tells whether a start tag stands here, or something like it.
func (s *scanner) atStart() bool {
	return s.pos < len(s.in) && s.in[s.pos] == '<' &&
		(s.pos+1 == len(s.in) || s.in[s.pos+1] != '/' && s.in[s.pos+1] != '!')
}

// element reads the start tag of the element that must come now.
func (s *scanner) element(want string) (empty, ok bool) {
	if !s.skip() {
		return false, false
	}
	at, n := s.pos, 1+len(want)
	if rest := s.in[at:]; len(rest) > n && rest[0] == '<' && rest[n] == '>' && rest[1:n] == want {
		s.pos += n + 1
		return false, true
	}
	name, empty, ok := s.startTag()
	if !ok {
		return false, false
	}
	if name != want {
		return false, s.unexpected(at, name, "<"+want+">")
	}
	return empty, true
}

// startTag reads a start tag, which must stand here, and drops its attributes.
func (s *scanner) startTag() (name string, empty, ok bool) {
	if s.pos == len(s.in) {
		return "", false, s.short()
	}
	if s.in[s.pos] != '<' || s.has(cdataStart) {
		return "", false, s.refuse(s.pos, "text where an element is due: %s", excerpt(s.in[s.pos:]))
	}
	i := s.nameEnd(s.pos + 1)
	name = s.in[s.pos+1 : i]
	switch {
	case i == len(s.in):
		return "", false, s.short()
	case name == "" && s.in[i] == '/':
		return "", false, s.refuse(s.pos, "an end tag where an element is due: %s", excerpt(s.in[s.pos:]))
	case name == "" || !nameStart(name[0]):
		return "", false, s.broken(s.pos, "no tag: %s; write < in text as &lt;", excerpt(s.in[s.pos:]))
	case s.in[i] == '>':
		s.pos = i + 1
		return name, false, true
	}
	s.pos = i
	empty, ok = s.attributes()
	return name, empty, ok
}

// end reads the end tag that must come now.
func (s *scanner) end(name string) bool {
	if !s.skip() {
		return false
	}
	rest := s.in[s.pos:]
	n := 2 + len(name)
	if len(rest) <= n {
		return s.short()
	}
	if rest[:2] != "</" || rest[2:n] != name {
		return s.wrongEnd(name)
	}
	for n < len(rest) && isSpace(rest[n]) {
		n++
	}
	if n == len(rest) {
		return s.short()
	}
	if rest[n] != '>' {
		return s.wrongEnd(name)
	}
	s.pos += n + 1
	return true
}

// wrongEnd tells another end tag (the document is broken) from more content.
func (s *scanner) wrongEnd(name string) bool {
	if s.atEnd() {
		return s.broken(s.pos, "%s where </%s> is due", excerpt(s.in[s.pos:]), clip(name))
	}
	return s.refuse(s.pos, "%s where </%s> is due", excerpt(s.in[s.pos:]), clip(name))
}

// epilog reads what follows the last end tag.
func (s *scanner) epilog() bool {
	if !s.skip() {
		return false
	}
	if s.pos < len(s.in) {
		return s.broken(s.pos, "%s after the document's end", excerpt(s.in[s.pos:]))
	}
	return true
}

// nameStart and nameEnd know names in ASCII: all that XML-RPC has, and enough
// for the attributes that come with it.
func nameStart(c byte) bool { return isLetter(c) || c == '_' || c == ':' }

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func (s *scanner) nameEnd(i int) int {
	for i < len(s.in) && (nameStart(s.in[i]) || isDigit(s.in[i]) || s.in[i] == '.' || s.in[i] == '-') {
		i++
	}
	return i
}

// maxAttributes is more than anybody declares name spaces.
const maxAttributes = 16

// attributes reads and drops the rest of a start tag.
func (s *scanner) attributes() (empty, ok bool) {
	var names [maxAttributes]string
	for n := 0; ; n++ {
		before := s.pos
		s.space()
		switch {
		case s.pos == len(s.in):
			return false, s.short()
		case s.in[s.pos] == '>':
			s.pos++
			return false, true
		case s.has("/>"):
			s.pos += 2
			return true, true
		case s.pos == before || !nameStart(s.in[s.pos]):
			return false, s.broken(s.pos, "%s in a tag; write attributes as name=\"value\", in ASCII", excerpt(s.in[s.pos:]))
		case n == maxAttributes:
			return false, s.exceed("more than %d attributes; XML-RPC needs none", maxAttributes)
		}
		at := s.pos
		s.pos = s.nameEnd(s.pos)
		name := s.in[at:s.pos]
		for _, other := range names[:n] {
			if name == other {
				return false, s.broken(at, "the attribute %s is there twice", excerpt(name))
			}
		}
		if strings.Count(name, ":") > 1 {
			return false, s.broken(at, "%s is no attribute's name", excerpt(name))
		}
		names[n] = name
		if !s.attributeValue() {
			return false, false
		}
	}
}

func (s *scanner) space() {
	for s.pos < len(s.in) && isSpace(s.in[s.pos]) {
		s.pos++
	}
}

// attributeValue reads an attribute from behind its name.
func (s *scanner) attributeValue() bool {
	s.space()
	if !s.has("=") {
		return s.broken(s.pos, "an attribute without a value")
	}
	s.pos++
	s.space()
	if !s.has(`"`) && !s.has("'") {
		return s.broken(s.pos, "an attribute's value without quotation marks")
	}
	n := strings.IndexByte(s.in[s.pos+1:], s.in[s.pos])
	if n < 0 {
		return s.short()
	}
	s.pos++
	end := s.pos + n
	for s.pos < end {
		next := strings.IndexAny(s.in[s.pos:end], "<&")
		if next < 0 {
			next = end - s.pos
		}
		if !s.legal(s.pos, s.pos+next) {
			return false
		}
		if s.pos += next; s.pos == end {
			break
		}
		if s.in[s.pos] == '<' {
			return s.broken(s.pos, "< in an attribute; write it as &lt;")
		}
		if _, ok := s.reference(); !ok {
			return false
		}
	}
	s.pos = end + 1
	return true
}

// comment passes a comment. Nothing else that begins with <! is accepted here.
func (s *scanner) comment() bool {
	if !s.has("<!--") {
		if s.has("<!DOCTYPE") {
			return s.refuse(s.pos, "a DOCTYPE is not accepted; leave it out")
		}
		if strings.HasPrefix("<!--", s.in[s.pos:]) || strings.HasPrefix(cdataStart, s.in[s.pos:]) {
			return s.short()
		}
		return s.broken(s.pos, "%s is no comment", excerpt(s.in[s.pos:]))
	}
	start := s.pos + len("<!--")
	n := strings.Index(s.in[start:], "--")
	if n < 0 {
		return s.short()
	}
	end := start + n
	if !strings.HasPrefix(s.in[end:], "-->") {
		return s.broken(end, "-- in a comment; leave it out")
	}
	if !s.legal(start, end) {
		return false
	}
	s.pos = end + len("-->")
	return true
}

// instruction passes a processing instruction.
func (s *scanner) instruction() bool {
	start := s.pos + len("<?")
	end := s.nameEnd(start)
	target := s.in[start:end]
	n := strings.Index(s.in[end:], "?>")
	switch {
	case n < 0:
		return s.short()
	case target == "" || !nameStart(target[0]) || n > 0 && !isSpace(s.in[end]):
		return s.broken(s.pos, "%s is no processing instruction", excerpt(s.in[s.pos:]))
	case strings.EqualFold(target, "xml"):
		return s.broken(s.pos, "an XML declaration inside the document; put it first, and once")
	}
	if !s.legal(end, end+n) {
		return false
	}
	s.pos = end + n + len("?>")
	return true
}
