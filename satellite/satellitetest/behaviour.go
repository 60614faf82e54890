package satellitetest

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// Mode is what a satellite does with a call that it has read.
type Mode uint8

// The modes.
const (
	Answer   Mode = iota // answers
	Fault                // answers with an XML-RPC fault
	Garbage              // answers with a body that is not XML-RPC
	Truncate             // breaks off in the middle of the answer's body
	Drop                 // closes the connection without a byte of an answer
	Hang                 // never answers; the connection stands until the caller, SetBehaviour or Close closes it
	Down                 // its port refuses connections, and those that stood are reset
)

// Behaviour says how a satellite answers. The zero Behaviour answers every call
// at once, with a length, over a connection that stays open. Fields combine,
// except that only Answer, Fault, Garbage and Truncate write anything.
type Behaviour struct {
	Mode       Mode
	Status     int           // status instead of 200; its body is then plain text unless WithBody is set
	WithBody   bool          // a Status comes with the XML-RPC answer all the same
	RetryAfter string        // Retry-After header
	Location   string        // Location header (a 3xx Status)
	Delay      time.Duration // between the call and its answer
	Times      int           // only the next so many calls behave so, later ones as the zero Behaviour; 0: all

	HTTP10        bool // status line HTTP/1.0, and the connection closes after each answer
	NoLength      bool // no Content-Length: the end of the connection ends the answer
	Chunked       bool // Transfer-Encoding: chunked, in several chunks
	LFOnly        bool // header lines end in LF instead of CR LF
	Close         bool // closes after each answer, and says so
	CloseSilently bool // closes after each answer without saying so
	DropReused    bool // closes without an answer when a connection brings a second call
	Continue      bool // a 100 Continue goes before the answer
	Bytewise      bool // the answer is written byte by byte
	Padding       int  // bytes of white space within the answer's body
	OneAtATime    bool // serves one connection at a time until that is closed; others wait (judged when a connection comes)
}

// settles reports whether the relay is to count the call as done with: it got
// an answer that says received, or received and refused.
func (b Behaviour) settles() bool {
	switch {
	case b.Mode > Garbage:
		return false
	case b.WithBody && b.Mode != Garbage:
		return true
	}
	return b.Status < 500 && b.Status != http.StatusRequestTimeout && b.Status != http.StatusTooManyRequests
}

// closes reports whether the connection ends with the answer.
func (b Behaviour) closes() bool {
	return b.HTTP10 || b.NoLength || b.Close || b.CloseSilently || b.Mode == Truncate
}

// plan is a Behaviour made ready: its answers are rendered once, because a
// benchmark's receivers must cost little beside what they measure.
type plan struct {
	Behaviour
	settled bool
	left    atomic.Int64 // calls it is still good for, where Times is set
	wire    [2][2][]byte // [method][asked to close]
}

func newPlan(b Behaviour) *plan {
	p := &plan{Behaviour: b, settled: b.settles()}
	p.left.Store(int64(b.Times))
	for m, text := range [2]string{methodNotify: "OK", methodPing: "pong"} {
		for i, closing := range []bool{false, true} {
			p.wire[m][i] = render(b, answerBody(b, text), closing || b.closes())
		}
	}
	return p
}

// take uses up one call, and reports whether the plan was still good for it.
func (p *plan) take() bool { return p.Times == 0 || p.left.Add(-1) >= 0 }

func answerBody(b Behaviour, text string) []byte {
	pad := bytes.Repeat([]byte{' '}, b.Padding)
	switch {
	case b.Mode == Garbage:
		return fmt.Appendf(nil, "this is%s not XML-RPC", pad)
	case b.Status >= 300 && !b.WithBody:
		return fmt.Appendf(nil, "%d%s %s\n", b.Status, pad, http.StatusText(b.Status))
	case b.Mode == Fault:
		return fmt.Appendf(nil, `<?xml version="1.0"?><methodResponse>%s<fault><value><struct>`+
			`<member><name>faultCode</name><value><int>1</int></value></member>`+
			`<member><name>faultString</name><value><string>satellite refuses</string></value></member>`+
			`</struct></value></fault></methodResponse>`, pad)
	}
	return fmt.Appendf(nil, `<?xml version="1.0"?><methodResponse>%s<params><param>`+
		`<value><string>%s</string></value></param></params></methodResponse>`, pad, text)
}

func render(b Behaviour, body []byte, closing bool) []byte {
	var w bytes.Buffer
	eol, version := "\r\n", "HTTP/1.1"
	if b.LFOnly {
		eol = "\n"
	}
	if b.HTTP10 {
		version = "HTTP/1.0"
	}
	status := b.Status
	if status == 0 {
		status = http.StatusOK
	}
	if b.Continue {
		w.WriteString("HTTP/1.1 100 Continue" + eol + eol)
	}
	fmt.Fprintf(&w, "%s %d %s%sServer: satellitetest%sContent-Type: text/xml%s",
		version, status, http.StatusText(status), eol, eol, eol)
	for _, h := range [][2]string{{"Retry-After", b.RetryAfter}, {"Location", b.Location}} {
		if h[1] != "" {
			w.WriteString(h[0] + ": " + h[1] + eol)
		}
	}
	if closing && !b.HTTP10 && !b.CloseSilently {
		w.WriteString("Connection: close" + eol)
	}
	switch {
	case b.Chunked:
		w.WriteString("Transfer-Encoding: chunked" + eol + eol)
		writeChunks(&w, body, b.Mode == Truncate)
		return w.Bytes()
	case !b.NoLength:
		w.WriteString("Content-Length: " + strconv.Itoa(len(body)) + eol)
	}
	w.WriteString(eol)
	if b.Mode == Truncate {
		body = body[:len(body)/2]
	}
	w.Write(body)
	return w.Bytes()
}

// writeChunks writes body in three chunks, or only the first of them.
func writeChunks(w *bytes.Buffer, body []byte, truncated bool) {
	size := len(body)/3 + 1
	for len(body) > 0 {
		n := min(size, len(body))
		fmt.Fprintf(w, "%x;note=1\r\n%s\r\n", n, body[:n])
		if truncated {
			return
		}
		body = body[n:]
	}
	w.WriteString("0\r\n\r\n")
}
