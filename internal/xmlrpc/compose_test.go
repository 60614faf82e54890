package xmlrpc

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// FuzzComposed has the properties of FuzzParseCall and FuzzParseResponse, for
// documents that are composed of correct and of odd pieces, as the input's bytes
// say. Most are nearly correct, which bytes that are changed at random are not.
func FuzzComposed(f *testing.F) {
	for _, seed := range []string{"", "0123456789", "\x05\x03\x02\x01\x00\x07\x09\x0b\x0d\x11\x13\x17", strings.Repeat("\x01", 40), strings.Repeat("\x02\x09", 30)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, choices []byte) { checkComposed(t, choices) })
}

// The same without the fuzzer, for a number of inputs that are always the same.
func TestComposedDocumentsAreReadAlikeByTwoReaders(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	accepted := 0
	const documents = 3000
	for range documents {
		choices := make([]byte, random.IntN(120))
		for i := range choices {
			choices[i] = byte(random.Uint32())
		}
		if checkComposed(t, choices) {
			accepted++
		}
	}
	if accepted < documents/20 {
		t.Errorf("%d of %d documents are accepted: they test too little", accepted, documents)
	}
}

// checkComposed composes a value and puts it into each kind of document. It
// tells whether it was accepted in a call.
func checkComposed(t *testing.T, choices []byte) bool {
	t.Helper()
	c := composer{choices: choices}
	c.value(0)
	value := c.doc.String()
	checkParseCall(t, callWith(value), "")
	checkParseResponse(t, []byte("<methodResponse><params><param>"+value+"</param></params></methodResponse>"), "")
	checkParseResponse(t, []byte("<methodResponse><fault>"+value+"</fault></methodResponse>"), "")
	_, err := ParseCall(callWith(value), "", DefaultLimits())
	return err == nil
}

type composer struct {
	choices []byte
	doc     strings.Builder
}

// choose takes a number below n from the input; 0 when that is used up.
func (c *composer) choose(n int) int {
	if len(c.choices) == 0 {
		return 0
	}
	choice := int(c.choices[0]) % n
	c.choices = c.choices[1:]
	return choice
}

func (c *composer) pick(pieces []string) { c.doc.WriteString(pieces[c.choose(len(pieces))]) }

var (
	between = []string{"", "", "", "\n", " ", "\r\n\t", "<!-- c -->", "<?pi x?>", "<!---->", "<?p?>"}
	odd     = []string{"", "", "", "", "", "", "<!", "&#32;", "x", "<![CDATA[ ]]>", "<a/>", "</a>", "<!-- -- -->", "<?xml?>", "\x00", "\ufffe", "<!DOCTYPE a>"}
	inTag   = []string{"", "", "", "", " ", "\n", " a='1'", ` a:b = "<"`, " a='&lt;>\"'", " a='' a=''", " xmlns:ex='u'", "\r"}
	texts   = []string{
		"", "text", " ", "0", "1", "-17", "+2", "3.25", "1e5", "-.5E-3", "9223372036854775807", "9223372036854775808", "1e999", "19980717T14:08:55", "1998-07-17 14:08:55Z", "QUJD", "QQ==", "QQ", "Q\nU", "=",
		"&lt;", "&gt;", "&amp;", "&quot;", "&apos;", "&#13;", "&#x41;", "&#0;", "&nbsp;", "&", "\r", "\r\n", ">", "]]", "]]>", "é", "€", "𝄞", "\ufffd", "\xff",
		"<![CDATA[<&>]]>", "<![CDATA[\r\n]]]]>", "<![CDATA[]]>", "<!-- - -->", "<?a b?>", "\t\n", "\x7f", "\u0085", "'\"",
	}
	types = []string{"string", "int", "i4", "i8", "ex:i8", "i2", "boolean", "double", "ex:float", "dateTime.iso8601", "base64", "nil", "ex:nil", "ex:int", "name", "String"}
)

func (c *composer) space() {
	c.pick(between)
	c.pick(odd)
}

func (c *composer) text() {
	for range c.choose(4) {
		c.pick(texts)
	}
}

// element writes an element with a body; now and then self-closing or closed
// wrongly.
func (c *composer) element(name string, body func()) {
	c.doc.WriteString("<" + name)
	c.pick(inTag)
	switch c.choose(16) {
	case 15:
		c.doc.WriteString("/>")
		return
	case 14:
		name += "x"
	}
	c.doc.WriteString(">")
	body()
	c.doc.WriteString("</" + name)
	c.pick(between[:6])
	c.doc.WriteString(">")
}

func (c *composer) value(depth int) {
	c.element("value", func() {
		kind := c.choose(8)
		if depth > 6 && kind < 4 {
			kind = 7
		}
		switch kind {
		case 0, 1:
			c.space()
			c.element("struct", func() { c.members(depth + 1) })
			c.space()
		case 2, 3:
			c.space()
			c.element("array", func() { c.element("data", func() { c.values(depth + 1) }) })
			c.space()
		case 4:
			c.text()
		default:
			c.space()
			c.element(types[c.choose(len(types))], c.text)
			c.space()
		}
	})
}

func (c *composer) values(depth int) {
	for range c.choose(4) {
		c.space()
		c.value(depth)
	}
	c.space()
}

func (c *composer) members(depth int) {
	for range c.choose(4) {
		c.space()
		c.element("member", func() {
			c.space()
			c.element("name", c.text)
			c.space()
			c.value(depth)
			c.space()
		})
	}
	c.space()
}
