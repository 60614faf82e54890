package xmlrpc

import "testing"

func inCharset(declaration, text string) string {
	return declaration + "<methodCall><methodName>" + text + "</methodName></methodCall>"
}

func declares(encoding string) string { return "<?xml version='1.0' encoding='" + encoding + "'?>" }

// wide writes ASCII and a few more as UTF-16.
func wide(text string, bigEndian bool) string {
	var b []byte
	put := func(unit uint16) {
		if bigEndian {
			b = append(b, byte(unit>>8), byte(unit))
		} else {
			b = append(b, byte(unit), byte(unit>>8))
		}
	}
	put(0xFEFF)
	for _, r := range text {
		if r > 0xFFFF {
			put(uint16(0xD800 + (r-0x10000)>>10))
			put(uint16(0xDC00 + (r-0x10000)&0x3FF))
			continue
		}
		put(uint16(r))
	}
	return string(b)
}

// charsetCases have the method's name that is read; "" where it is refused.
var charsetCases = []struct{ name, header, doc, want string }{
	{"nothing said", "", inCharset("", "caf\xc3\xa9"), "café"},
	{"header alone", "ISO-8859-1", inCharset("", "caf\xe9"), "café"},
	{"header in quotation marks", `"utf-8"`, inCharset("", "café"), "café"},
	{"declaration alone", "", inCharset(declares("ISO-8859-1"), "caf\xe9"), "café"},
	{"latin 1 has control characters", "", inCharset(declares("latin1"), "\x80"), "\u0080"},
	{"latin 9", "", inCharset(declares("iso-8859-15"), "\xa4\xbd"), "€œ"},
	{"windows", "", inCharset(declares("Windows-1252"), "\x80\x93\xe9"), "€“é"},
	{"ascii that is UTF-8", "", inCharset(declares("us-ascii"), "café"), "café"},
	{"both agree", "iso-8859-1", inCharset(declares("latin1"), "caf\xe9"), "café"},

	{"the bytes are UTF-8 as declared, the header is a default", "iso-8859-1", inCharset(declares("utf-8"), "café"), "café"},
	{"the bytes are not UTF-8, whatever is declared", "iso-8859-1", inCharset(declares("utf-8"), "caf\xe9"), "café"},
	{"a browser sends UTF-8, whatever is declared", "utf-8", inCharset(declares("iso-8859-1"), "café"), "café"},
	{"the header claims UTF-8, the bytes are as declared", "utf-8", inCharset(declares("iso-8859-1"), "caf\xe9"), "café"},
	{"neither is UTF-8: the declaration", "iso-8859-1", inCharset(declares("windows-1252"), "\x80"), "€"},
	{"an unknown header, a known declaration", "x-foo", inCharset(declares("latin1"), "caf\xe9"), "café"},
	{"an unknown declaration, a known header", "latin1", inCharset(declares("koi8-r"), "caf\xe9"), "café"},
	{"unknown both", "x-foo", inCharset(declares("koi8-r"), "caf"), ""},
	{"an unknown declaration", "", inCharset(declares("koi8-r"), "caf"), ""},
	{"an unknown header", "x-foo", inCharset("", "caf"), ""},
	{"invalid UTF-8", "utf-8", inCharset(declares("utf-8"), "caf\xe9"), ""},

	{"a mark of UTF-8", "", "\xef\xbb\xbf" + inCharset("", "café"), "café"},
	{"a mark of UTF-8 wins", "latin1", "\xef\xbb\xbf" + inCharset(declares("latin1"), "café"), "café"},
	{"a mark of UTF-8 is believed", "latin1", "\xef\xbb\xbf" + inCharset(declares("latin1"), "caf\xe9"), ""},
	{"a mark, then white space", "", "\xef\xbb\xbf\n" + inCharset(declares("utf-8"), "café"), "café"},
	{"two marks", "", "\xef\xbb\xbf\xef\xbb\xbf" + inCharset("", "café"), ""},
	{"UTF-16, little end first", "", wide(inCharset(declares("utf-16"), "café€𝄞"), false), "café€𝄞"},
	{"UTF-16, big end first", "utf-8", wide(inCharset(declares("latin1"), "café€𝄞"), true), "café€𝄞"},
	{"UTF-16 without a declaration", "", wide(inCharset("", "m"), false), "m"},
	{"UTF-16 declared in bytes", "", inCharset(declares("UTF-16"), "café"), "café"},
	{"UTF-16 in the header of bytes", "utf-16", inCharset(declares("latin1"), "caf\xe9"), "café"},
	{"UTF-16 without a mark", "", wide(inCharset("", "m"), false)[2:], ""},
	{"UTF-16 with half a character", "", wide(inCharset("", "m"), false) + "\n", ""},
	{"UTF-16 with half a pair", "", wide("<methodCall><methodName>", false) + "\x00\xd8" + wide("</methodName></methodCall>", false)[2:], ""},
	{"UTF-16 that ends in half a pair", "", wide("<methodCall><methodName>", false) + "\x00\xd8", ""},
	{"UTF-32", "", "\xff\xfe\x00\x00<\x00\x00\x00", ""},
}

func TestTheEncodingIsSettled(t *testing.T) {
	t.Parallel()
	for _, c := range charsetCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			call, err := ParseCall([]byte(c.doc), c.header, DefaultLimits())
			if c.want == "" {
				checkRefused(t, err, CodeNotWellFormed, "")
				return
			}
			if err != nil || call.Method != c.want {
				t.Errorf("got %q, %v; want %q", call.Method, err, c.want)
			}
		})
	}
}
