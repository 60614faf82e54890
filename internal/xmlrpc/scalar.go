package xmlrpc

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// scalar reads a value that is a number, boolean, date or bytes, from behind its
// start tag. White space around it is dropped.
func (s *scanner) scalar(kind Kind, name string, empty bool) bool {
	at, text := s.pos, ""
	if !empty {
		var ok bool
		if text, ok = s.text(true); !ok || !s.end(name) {
			return false
		}
	}
	text = trim(text)
	switch kind {
	case Int, Int64:
		return s.integer(kind, text, at)
	case Double:
		return s.double(text, at)
	case Bool:
		return s.boolean(text, at)
	case DateTime:
		return s.dateTime(text, at)
	default:
		return s.base64(text, at)
	}
}

// integer takes 64 bits under every tag: senders that have no i8 write large
// numbers as int, and a relay is not the one to refuse them.
func (s *scanner) integer(kind Kind, text string, at int) bool {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return s.refuse(at, "%s is no integer of 64 bits; write decimal digits", excerpt(text))
	}
	if !s.emit {
		return true
	}
	if kind == Int64 {
		s.out = append(strconv.AppendInt(append(s.out, "<value><i8>"...), n, 10), "</i8></value>"...)
	} else {
		s.out = append(strconv.AppendInt(append(s.out, "<value><int>"...), n, 10), "</int></value>"...)
	}
	return true
}

// maxDecimal is the length up to which a plain decimal number is kept as it is
// written. The shortest exact form of any double is shorter.
const maxDecimal = 400

// double keeps a plain decimal number as it is written; others, with an exponent
// say, are written anew so that they read back as the same double.
func (s *scanner) double(text string, at int) bool {
	if !isDecimal(text) {
		return s.refuse(at, "%s is no decimal number; inf and nan cannot be sent", excerpt(text))
	}
	s.put("<value><double>")
	if keepDecimal(text) {
		s.put(strings.TrimPrefix(text, "+"))
	} else {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return s.refuse(at, "%s is beyond the range of a double", excerpt(text))
		}
		if s.emit {
			s.out = appendDouble(s.out, f)
		}
	}
	s.put("</double></value>")
	return true
}

// isDecimal is: an optional sign, digits with at most one point among, before or
// after them, an optional exponent.
func isDecimal(text string) bool {
	text = unsigned(text)
	whole := digits(text)
	text = text[whole:]
	fraction := 0
	if strings.HasPrefix(text, ".") {
		fraction = digits(text[1:])
		text = text[1+fraction:]
	}
	if whole+fraction == 0 {
		return false
	}
	if text != "" && text[0]|0x20 == 'e' {
		text = unsigned(text[1:])
		n := digits(text)
		if n == 0 {
			return false
		}
		text = text[n:]
	}
	return text == ""
}

func unsigned(text string) string {
	if text != "" && (text[0] == '-' || text[0] == '+') {
		return text[1:]
	}
	return text
}

// digits counts the decimal digits that text begins with.
func digits(text string) int {
	n := 0
	for n < len(text) && isDigit(text[n]) {
		n++
	}
	return n
}

// keepDecimal tells of a decimal number whether every receiver reads it as it is
// written: digits before the point and after it if there is one, no exponent,
// and in range, which takes no more than 308 digits before the point.
func keepDecimal(text string) bool {
	if len(text) > maxDecimal {
		return false
	}
	text = unsigned(text)
	whole := digits(text)
	if whole == 0 || whole > 308 {
		return false
	}
	text = text[whole:]
	return text == "" || text[0] == '.' && len(text) > 1 && digits(text[1:]) == len(text)-1
}

// appendDouble appends the shortest decimal number that reads back as f, with a
// point, by which some receivers know a double.
func appendDouble(b []byte, f float64) []byte {
	b = strconv.AppendFloat(b, f, 'f', -1, 64)
	if f == math.Trunc(f) {
		b = append(b, ".0"...)
	}
	return b
}

func (s *scanner) boolean(text string, at int) bool {
	switch text {
	case "0":
		s.put("<value><boolean>0</boolean></value>")
	case "1":
		s.put("<value><boolean>1</boolean></value>")
	default:
		return s.refuse(at, "%s is no boolean; write 0 or 1", excerpt(text))
	}
	return true
}

// dateTime keeps the text: what it means, the time zone above all, is between
// sender and receiver.
func (s *scanner) dateTime(text string, at int) bool {
	if !isDateTime(text) {
		return s.refuse(at, "%s is no dateTime; write it as 19980717T14:08:55", excerpt(text))
	}
	s.put("<value><dateTime.iso8601>")
	s.put(text)
	s.put("</dateTime.iso8601></value>")
	return true
}

// isDateTime accepts what looks like a date of ISO 8601 with or without a time,
// basic or extended.
func isDateTime(text string) bool {
	const shortest, longest = len("19980717"), 40
	if len(text) < shortest || len(text) > longest || digits(text) < 4 {
		return false
	}
	for i := range len(text) {
		if c := text[i]; !isDigit(c) && strings.IndexByte("TtZz:-+., ", c) < 0 {
			return false
		}
	}
	return true
}

// parseDateTime reads the forms in use; a time without a zone counts as UTC.
func parseDateTime(text string) (time.Time, bool) {
	for _, layout := range []string{
		"20060102T15:04:05", "20060102T15:04:05Z07:00", "20060102T15:04:05Z0700",
		"2006-01-02T15:04:05", time.RFC3339, "2006-01-02T15:04:05Z0700",
		"20060102T150405", "20060102T150405Z0700", "2006-01-02 15:04:05",
	} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// base64Columns is the length of a line, as in MIME.
const base64Columns = 76

// base64 drops white space (line ends as references too, as PHP writes them),
// completes missing padding, and breaks the lines anew.
func (s *scanner) base64(text string, at int) bool {
	s.put("<value><base64>")
	rest := trim(strings.ReplaceAll(text, carriageReturn, ""))
	n := 0
	for rest != "" && rest[0] != '=' {
		run := 0
		for run < len(rest) && isBase64(rest[run]) {
			run++
		}
		if run == 0 {
			return s.refuse(at, "%s is not base64", excerpt(rest))
		}
		s.putLines(rest[:run], n)
		n += run
		rest = trim(rest[run:])
	}
	padding := strings.Count(rest, "=")
	if len(rest) > padding && strings.Trim(rest, "= \t\r\n") != "" {
		return s.refuse(at, "%s after the padding of base64", excerpt(rest))
	}
	missing := -n & 3
	if missing == 3 || padding > 0 && padding != missing {
		return s.refuse(at, "the base64 text is cut off")
	}
	s.put("=="[:missing])
	s.put("</base64></value>")
	return true
}

// putLines puts out base64 text after n characters of it.
func (s *scanner) putLines(text string, n int) {
	for s.emit && text != "" {
		column := n % base64Columns
		if column == 0 && n > 0 {
			s.out = append(s.out, '\n')
		}
		k := min(base64Columns-column, len(text))
		s.out = append(s.out, text[:k]...)
		text = text[k:]
		n += k
	}
}

func isBase64(c byte) bool {
	return isLetter(c) || isDigit(c) || c == '+' || c == '/'
}
