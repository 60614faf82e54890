package xmlrpc

import (
	"strings"
	"unicode/utf8"
)

const (
	cdataStart, cdataEnd = "<![CDATA[", "]]>"
	carriageReturn       = "&#13;" // literal, it would be read as a newline
)

// special marks the bytes of text that are not canonical as they stand, or need
// a look: < > & \r, control characters, and the first byte of U+FFFE and U+FFFF.
var special = [256]bool{
	0: true, 1: true, 2: true, 3: true, 4: true, 5: true, 6: true, 7: true, 8: true,
	11: true, 12: true, 13: true, 14: true, 15: true, 16: true, 17: true, 18: true, 19: true,
	20: true, 21: true, 22: true, 23: true, 24: true, 25: true, 26: true, 27: true, 28: true,
	29: true, 30: true, 31: true, '<': true, '>': true, '&': true, 0xEF: true,
}

// plain returns the end of the canonical text that begins at i.
func plain(in string, i int) int {
	for i < len(in) && !special[in[i]] {
		i++
	}
	return i
}

// text reads character data with all that may stand in it up to a tag. It
// returns it in canonical form: a piece of the document where that is canonical
// as it stands, else of s.spare, valid until the next call; or "" where keep is
// off and it would have to be made first.
func (s *scanner) text(keep bool) (string, bool) {
	start := s.pos
	s.pos = plain(s.in, start)
	if s.atTag() {
		return s.in[start:s.pos], true
	}
	s.pos = start
	return s.mixedText(keep)
}

// atTag tells whether a start tag or an end tag stands here.
func (s *scanner) atTag() bool {
	return s.pos+1 < len(s.in) && s.in[s.pos] == '<' && s.in[s.pos+1] != '!' && s.in[s.pos+1] != '?'
}

// mixedText is text that is not canonical as it stands.
func (s *scanner) mixedText(keep bool) (string, bool) {
	s.spare = s.spare[:0]
	for {
		if !s.literal(len(s.in), keep) {
			return "", false
		}
		switch {
		case s.atTag():
			return view(s.spare), true
		case s.pos == len(s.in) || s.in[s.pos:] == "<":
			return "", s.short()
		case s.in[s.pos] == '&':
			r, ok := s.reference()
			if !ok {
				return "", false
			}
			if keep {
				s.spare = appendRune(s.spare, r)
			}
		case s.has(cdataStart):
			if !s.cdata(keep) {
				return "", false
			}
		case s.has("<?"):
			if !s.instruction() {
				return "", false
			}
		default:
			if !s.comment() {
				return "", false
			}
		}
	}
}

// literal reads text up to end, or to markup or a reference before it.
func (s *scanner) literal(end int, keep bool) bool {
	for {
		start := s.pos
		s.pos = plain(s.in[:end], start)
		if keep {
			s.spare = append(s.spare, s.in[start:s.pos]...)
		}
		if s.pos == end || s.in[s.pos] == '<' || s.in[s.pos] == '&' {
			return true
		}
		if s.in[s.pos] == '>' && strings.HasSuffix(s.in[start:s.pos], "]]") {
			return s.broken(s.pos-2, "]]> in text; write > as &gt;")
		}
		if !s.odd(keep) {
			return false
		}
	}
}

// odd reads one character that plain stops at.
func (s *scanner) odd(keep bool) bool {
	r, n := rune(s.in[s.pos]), 1
	switch r {
	case '\r': // a line's end is \n, XML 1.0 2.11
		r = '\n'
		if strings.HasPrefix(s.in[s.pos+1:], "\n") {
			n = 2
		}
	case 0xEF:
		r, n = utf8.DecodeRuneInString(s.in[s.pos:])
	}
	if !isChar(r) {
		return s.badChar(s.pos, r)
	}
	s.pos += n
	if keep {
		s.spare = appendRune(s.spare, r)
	}
	return true
}

func (s *scanner) badChar(at int, r rune) bool {
	return s.broken(at, "the character U+%04X is not allowed in XML; send bytes as base64", r)
}

// cdata reads a CDATA section.
func (s *scanner) cdata(keep bool) bool {
	s.pos += len(cdataStart)
	n := strings.Index(s.in[s.pos:], cdataEnd)
	if n < 0 {
		return s.short()
	}
	end := s.pos + n
	for {
		if !s.literal(end, keep) {
			return false
		}
		if s.pos == end {
			s.pos += len(cdataEnd)
			return true
		}
		if !s.odd(keep) { // < or &, which mean themselves here
			return false
		}
	}
}

// legal checks the characters from start to end, of what is dropped.
func (s *scanner) legal(start, end int) bool {
	for i := start; i < end; i++ {
		switch c := s.in[i]; {
		case c < 0x20 && !isSpace(c):
			return s.badChar(i, rune(c))
		case c == 0xEF:
			if r, _ := utf8.DecodeRuneInString(s.in[i:]); !isChar(r) {
				return s.badChar(i, r)
			}
		}
	}
	return true
}

// reference reads a reference to a character, or to one of the five entities
// that need no declaration.
func (s *scanner) reference() (rune, bool) {
	at := s.pos
	if s.has("&#") {
		return s.charReference()
	}
	end := s.nameEnd(at + 1)
	if end == len(s.in) {
		return 0, s.short()
	}
	if s.in[end] == ';' {
		s.pos = end + 1
		switch s.in[at+1 : end] {
		case "lt":
			return '<', true
		case "gt":
			return '>', true
		case "amp":
			return '&', true
		case "quot":
			return '"', true
		case "apos":
			return '\'', true
		}
		return 0, s.broken(at, "the entity %s is not known; there are lt, gt, amp, quot and apos", excerpt(s.in[at:end+1]))
	}
	return 0, s.broken(at, "%s is no reference; write & as &amp;", excerpt(s.in[at:end]))
}

func (s *scanner) charReference() (rune, bool) {
	at := s.pos
	s.pos += len("&#")
	base := rune(10)
	if s.has("x") {
		s.pos++
		base = 16
	}
	first := s.pos
	r := rune(0)
	for ; s.pos < len(s.in); s.pos++ {
		d := digit(s.in[s.pos])
		if d >= base {
			break
		}
		r = min(r*base+d, utf8.MaxRune+1)
	}
	switch {
	case s.pos == len(s.in):
		return 0, s.short()
	case s.pos == first || s.in[s.pos] != ';':
		return 0, s.broken(at, "%s is no character reference; end it with a semicolon", excerpt(s.in[at:min(at+12, len(s.in))]))
	case !isChar(r):
		return 0, s.broken(at, "%s names a character that is not allowed in XML; send bytes as base64", excerpt(s.in[at:s.pos+1]))
	}
	s.pos++
	return r, true
}

// digit is the value of a hexadecimal digit; 16 for anything else.
func digit(c byte) rune {
	switch {
	case '0' <= c && c <= '9':
		return rune(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return rune(c|0x20-'a') + 10
	}
	return 16
}

// isChar is Char of XML 1.0, 2.2.
func isChar(r rune) bool {
	return r >= 0x20 && r < 0xD800 || r == '\t' || r == '\n' || r == '\r' ||
		r > 0xDFFF && r < 0xFFFE || r > 0xFFFF && r <= utf8.MaxRune
}

// appendRune appends a character in canonical form.
func appendRune(b []byte, r rune) []byte {
	switch r {
	case '<':
		return append(b, "&lt;"...)
	case '>':
		return append(b, "&gt;"...)
	case '&':
		return append(b, "&amp;"...)
	case '\r':
		return append(b, carriageReturn...)
	}
	return utf8.AppendRune(b, r)
}

// AppendEscaped appends text in canonical form: < > & by name, a carriage return
// as &#13;. A character that XML 1.0 does not allow, and a byte that is not
// UTF-8, becomes U+FFFD.
func AppendEscaped(b []byte, text string) []byte {
	for text != "" {
		n := 0
		for n < len(text) && text[n] < utf8.RuneSelf && !special[text[n]] {
			n++
		}
		if b = append(b, text[:n]...); n == len(text) {
			break
		}
		r, size := utf8.DecodeRuneInString(text[n:])
		if !isChar(r) {
			r = utf8.RuneError
		}
		b = appendRune(b, r)
		text = text[n+size:]
	}
	return b
}

// unescape reads canonical text back.
func unescape(text string) string {
	if strings.IndexByte(text, '&') < 0 {
		return text
	}
	b := make([]byte, 0, len(text))
	for text != "" {
		head, rest, found := strings.Cut(text, "&")
		b = append(b, head...)
		if !found {
			break
		}
		name, tail, _ := strings.Cut(rest, ";")
		switch name {
		case "lt":
			b = append(b, '<')
		case "gt":
			b = append(b, '>')
		case "amp":
			b = append(b, '&')
		case "#13":
			b = append(b, '\r')
		}
		text = tail
	}
	return string(b)
}
