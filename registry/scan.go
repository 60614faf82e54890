package registry

import (
	"bytes"
	"unicode/utf8"
)

// scan reads the JSON that encodeValue usually writes: known members, no
// white space, no escapes. It is false for anything else, valid or not, which
// encoding/json then decides about; v may then hold some of it. A process that
// starts reads every registration, and this takes a fifth of the time.
func (v *value) scan(b []byte) bool {
	s := scanner{b: b}
	if !s.byte('{') {
		return false
	}
	for {
		name, ok := s.text()
		if !ok || !s.byte(':') || !v.member(&s, name) {
			return false
		}
		if !s.byte(',') {
			return s.byte('}') && len(s.b) == 0
		}
	}
}

// member reads the value of one member.
func (v *value) member(s *scanner, name []byte) (ok bool) {
	switch string(name) {
	case "v":
		var n uint64
		n, ok = s.number()
		v.Version = int(n)
	case "nick":
		v.Nick, ok = s.string()
	case "plugins":
		v.Plugins, ok = s.strings()
	case "notify_pass":
		v.NotifyPass, ok = s.string()
	case "began":
		v.Began, ok = s.number()
	case "generation":
		v.Generation, ok = s.number()
	case "created":
		var text []byte
		if text, ok = s.text(); ok {
			ok = v.Created.UnmarshalText(text) == nil
		}
	case "max_age_ms":
		var n uint64
		n, ok = s.number()
		v.MaxAgeMS = int64(n)
	case "scheme":
		v.Scheme, ok = s.string()
	case "tls_name":
		v.TLSName, ok = s.string()
	case "seat":
		v.Seat, ok = s.number()
	}
	return ok
}

// scanner holds what is still to be read.
type scanner struct{ b []byte }

func (s *scanner) byte(c byte) bool {
	if len(s.b) == 0 || s.b[0] != c {
		return false
	}
	s.b = s.b[1:]
	return true
}

// text reads a string without escapes.
func (s *scanner) text() ([]byte, bool) {
	if !s.byte('"') {
		return nil, false
	}
	n := bytes.IndexByte(s.b, '"')
	if n < 0 {
		return nil, false
	}
	text := s.b[:n]
	s.b = s.b[n+1:]
	plain := true
	for _, c := range text {
		if c < ' ' || c == '\\' {
			return nil, false
		}
		plain = plain && c < utf8.RuneSelf
	}
	return text, plain || utf8.Valid(text)
}

func (s *scanner) string() (string, bool) {
	text, ok := s.text()
	return string(text), ok
}

func (s *scanner) strings() ([]string, bool) {
	if !s.byte('[') {
		return nil, false
	}
	var all []string
	for {
		text, ok := s.string()
		if !ok {
			return nil, false
		}
		all = append(all, text)
		if !s.byte(',') {
			return all, s.byte(']')
		}
	}
}

// number reads an integer of at most 18 digits, which fits any type here.
func (s *scanner) number() (uint64, bool) {
	n := uint64(0)
	i := 0
	for ; i < len(s.b) && i < 19 && '0' <= s.b[i] && s.b[i] <= '9'; i++ {
		n = 10*n + uint64(s.b[i]-'0')
	}
	if i == 0 || i == 19 || s.b[0] == '0' && i > 1 {
		return 0, false
	}
	s.b = s.b[i:]
	return n, true
}
