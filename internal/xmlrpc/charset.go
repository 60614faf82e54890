package xmlrpc

import (
	"bytes"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
)

// charset is an encoding that is read.
type charset uint8

const (
	unknown charset = iota // not named, or by a name that is not known
	utf8Text
	utf16Text
	latin1
	latin9
	windows1252
)

// charsetNames are compared without regard to case. RPC::XML of Perl declares
// us-ascii and sends UTF-8.
var charsetNames = [...]struct {
	name string
	set  charset
}{
	{"utf-8", utf8Text}, {"utf8", utf8Text}, {"us-ascii", utf8Text}, {"ascii", utf8Text},
	{"iso-8859-1", latin1}, {"iso8859-1", latin1}, {"iso_8859-1", latin1}, {"latin1", latin1}, {"latin-1", latin1},
	{"iso-8859-15", latin9}, {"iso8859-15", latin9}, {"iso_8859-15", latin9}, {"latin9", latin9}, {"latin-9", latin9},
	{"windows-1252", windows1252}, {"cp1252", windows1252}, {"cp-1252", windows1252},
	{"utf-16", utf16Text}, {"utf-16le", utf16Text}, {"utf-16be", utf16Text},
}

func charsetOf(name string) charset {
	if name == "" {
		return unknown
	}
	name = strings.Trim(trim(name), `"'`)
	for _, c := range charsetNames {
		if strings.EqualFold(c.name, name) {
			return c.set
		}
	}
	return unknown
}

// settleCharset is the one place that decides how a document without a byte
// order mark is read, by the charset of the HTTP header and the encoding of the
// XML declaration, either may be "".
//
// RFC 7303 gives the header precedence. We do not: the programs that speak
// XML-RPC write the declaration together with the bytes, while the header's
// charset is often a default of an HTTP library that never saw them
// (ISO-8859-1 in old ones). The case that the RFC has in mind, someone
// on the way who transcodes and cannot change the declaration, exists too: a
// browser sends UTF-8 whatever is declared. So where the two disagree and one of
// them is UTF-8, the bytes decide: text in another encoding that has a character
// beyond ASCII is hardly ever valid UTF-8. Otherwise the declaration counts.
//
// A document whose declaration could be read byte by byte is not UTF-16,
// whatever it says.
func settleCharset(header, declared string, valid func() bool) (set charset, bad string) {
	h, d := charsetOf(header), charsetOf(declared)
	if h == utf16Text {
		h, header = unknown, ""
	}
	if d == utf16Text {
		d, declared = unknown, ""
	}
	switch {
	case h == d && h != unknown:
		return h, ""
	case d != unknown && h != unknown:
		if h != utf8Text && d != utf8Text {
			return d, ""
		}
		if valid() {
			return utf8Text, ""
		}
		if h == utf8Text {
			return d, ""
		}
		return h, ""
	case d != unknown:
		return d, ""
	case h != unknown:
		return h, ""
	case declared != "":
		return unknown, declared
	case header != "":
		return unknown, header
	}
	return utf8Text, ""
}

// load makes s.in of the document, in UTF-8 and valid, and reads its XML
// declaration.
func (s *scanner) load(doc []byte, header string) bool {
	switch {
	case bytes.HasPrefix(doc, []byte{0xFE, 0xFF}), bytes.HasPrefix(doc, []byte{0xFF, 0xFE}):
		return s.transcode16(doc) && s.declaration(nil)
	case bytes.HasPrefix(doc, []byte("\xEF\xBB\xBF")):
		s.base = 3
		doc = doc[3:]
	}
	if len(doc) > s.lim.Bytes {
		s.pos = s.lim.Bytes
		return s.tooLong()
	}
	s.in = view(doc)
	declared := ""
	if !s.declaration(&declared) {
		return false
	}
	rest := doc[s.pos:]
	set, bad := utf8Text, ""
	if s.base == 0 {
		set, bad = settleCharset(header, declared, func() bool { return utf8.Valid(rest) })
	}
	switch set {
	case unknown:
		return s.broken(0, "the encoding %s is not known; send UTF-8", excerpt(bad))
	case utf8Text:
		if !utf8.Valid(rest) {
			return s.invalid(rest)
		}
	case latin1:
		return s.transcode8(rest, charmap.ISO8859_1)
	case latin9:
		return s.transcode8(rest, charmap.ISO8859_15)
	case windows1252:
		return s.transcode8(rest, charmap.Windows1252)
	}
	return true
}

func (s *scanner) tooLong() bool {
	return s.exceed("the document is longer than %d bytes; send less at once", s.lim.Bytes)
}

// invalid reports the first byte that is not UTF-8.
func (s *scanner) invalid(rest []byte) bool {
	i := 0
	for i < len(rest) {
		r, n := utf8.DecodeRune(rest[i:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		i += n
	}
	return s.broken(s.pos+i, "not UTF-8, and no other encoding is declared; declare the one that you send")
}

// transcode8 makes UTF-8 of an encoding of one byte a character.
func (s *scanner) transcode8(rest []byte, set *charmap.Charmap) bool {
	ascii := 0
	for ascii < len(rest) && rest[ascii] < utf8.RuneSelf {
		ascii++
	}
	if ascii == len(rest) {
		return true
	}
	out := make([]byte, 0, s.pos+len(rest)+len(rest)/4)
	out = append(out, s.in[:s.pos+ascii]...)
	for _, c := range rest[ascii:] {
		if out = utf8.AppendRune(out, set.DecodeByte(c)); len(out) > s.lim.Bytes {
			s.pos = s.lim.Bytes
			return s.tooLong()
		}
	}
	s.in = view(out)
	return true
}

// transcode16 makes UTF-8 of UTF-16 with a byte order mark.
func (s *scanner) transcode16(doc []byte) bool {
	high, low := 1, 0
	if doc[0] == 0xFE {
		high, low = 0, 1
	}
	out := make([]byte, 0, min(len(doc), s.lim.Bytes)/2+utf8.UTFMax)
	for i := 2; i < len(doc); i += 2 {
		if i+1 == len(doc) {
			return s.broken(len(out), "half a character of UTF-16 at the end; send the document whole")
		}
		r := rune(doc[i+high])<<8 | rune(doc[i+low])
		if utf16.IsSurrogate(r) {
			second := rune(0)
			if i+3 < len(doc) {
				second = rune(doc[i+2+high])<<8 | rune(doc[i+2+low])
			}
			if r = utf16.DecodeRune(r, second); r == utf8.RuneError {
				return s.broken(len(out), "half a surrogate pair of UTF-16")
			}
			i += 2
		}
		if out = utf8.AppendRune(out, r); len(out) > s.lim.Bytes {
			s.pos = s.lim.Bytes
			return s.tooLong()
		}
	}
	s.in = view(out)
	return true
}

// declaration reads the XML declaration, if there is one, and white space before
// it, which XML does not allow and some clients send.
func (s *scanner) declaration(encoding *string) bool {
	s.space()
	if s.pos == len(s.in) {
		return s.broken(s.pos, "the document is empty; send a call")
	}
	const start = "<?xml"
	if !s.has(start) || s.nameEnd(s.pos+len(start)) > s.pos+len(start) {
		return true
	}
	at := s.pos
	s.pos += len(start)
	version, ok := s.pseudo("version")
	if !ok || version != "1.0" {
		return s.broken(at, "the XML declaration has no version=\"1.0\"")
	}
	if declared, ok := s.pseudo("encoding"); ok {
		if !isEncodingName(declared) {
			return s.broken(at, "%s in the XML declaration is no encoding", excerpt(declared))
		}
		if encoding != nil {
			*encoding = declared
		}
	}
	if alone, ok := s.pseudo("standalone"); ok && alone != "yes" && alone != "no" {
		return s.broken(at, "standalone in the XML declaration is neither yes nor no")
	}
	s.space()
	if !s.has("?>") {
		return s.broken(at, "the XML declaration is not understood; write <?xml version=\"1.0\"?>")
	}
	s.pos += len("?>")
	return true
}

// pseudo reads name="value" in the XML declaration, if it comes next.
func (s *scanner) pseudo(name string) (string, bool) {
	start := s.pos
	s.space()
	if s.pos > start && s.has(name) {
		s.pos += len(name)
		s.space()
		if s.has("=") {
			s.pos++
			s.space()
			if s.has(`"`) || s.has("'") {
				rest := s.in[s.pos+1:]
				if n := strings.IndexByte(rest, s.in[s.pos]); n >= 0 && n < 64 {
					s.pos += n + 2
					return rest[:n], true
				}
			}
		}
	}
	s.pos = start
	return "", false
}

// isEncodingName is EncName of XML 1.0, 4.3.3.
func isEncodingName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !isLetter(c) && (i == 0 || !isDigit(c) && strings.IndexByte("._-", c) < 0) {
			return false
		}
	}
	return name != ""
}
