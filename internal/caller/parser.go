package caller

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// What one answer may cost, since a satellite's bytes are as untrusted as a
// client's.
const (
	MaxHead = 16 << 10 // interim answers included
	MaxBody = 64 << 10
	// maxChunked is what a chunked body may take as it is sent: a byte in a chunk
	// of its own, with an extension, takes a hundred.
	maxChunked = 4 * MaxBody
)

// Errors of a Parser. After one the connection is of no more use.
var (
	ErrNotHTTP   = errors.New("the answer is not HTTP")
	ErrHead      = errors.New("the answer's headers are longer than 16 KiB or not well formed")
	ErrChunk     = errors.New("the answer's chunked body is not well formed")
	ErrTruncated = errors.New("the connection ended in the middle of the answer")
)

type framing uint8

const (
	byHead   framing = iota // the head is not complete yet
	byLength                // Content-Length bytes
	byChunks                // Transfer-Encoding: chunked
	byClose                 // until the connection ends
)

// Parser reads one HTTP/1.x answer from the pieces that a connection yields. It
// takes what old and odd servers send: bare line feeds, no length, HTTP/1.0,
// interim answers, chunks. An answer that arrives in one piece is read in place
// and allocates nothing. Every byte is looked at a bounded number of times, in
// however small pieces it comes.
type Parser struct {
	answer  Answer
	framing framing
	buf     []byte // what came so far, when it did not come in one piece
	scan    int    // the head's end is not before here
	body    int    // where the body begins
	length  int    // Content-Length
	at      int    // first byte of a chunked body not decoded yet
	chunks  []byte // decoded chunks
	got     bool   // any byte at all
}

// Reset makes the parser ready for the next answer and keeps its buffers unless
// they have grown large.
func (p *Parser) Reset() {
	buf, chunks := p.buf[:0], p.chunks[:0]
	if cap(buf) > 4<<10 {
		buf = nil
	}
	if cap(chunks) > 4<<10 {
		chunks = nil
	}
	*p = Parser{buf: buf, chunks: chunks}
}

// Started reports whether any byte of an answer has come.
func (p *Parser) Started() bool { return p.got }

// Whole reports whether the complete answer came in one piece, so that the
// bytes that were fed are all of it.
func (p *Parser) Whole() bool { return len(p.buf) == 0 }

// Answer is the complete answer after Feed or EOF said done.
func (p *Parser) Answer() *Answer { return &p.answer }

// Feed takes the next bytes from the connection and reports whether the answer
// is complete.
func (p *Parser) Feed(b []byte) (done bool, err error) {
	if len(b) == 0 {
		return false, nil
	}
	p.got = true
	if len(p.buf) > 0 {
		p.buf = append(p.buf, b...)
		return p.advance(p.buf)
	}
	done, err = p.advance(b)
	if !done && err == nil {
		p.buf = append(p.buf, b...)
	}
	return done, err
}

// EOF tells the parser that the connection ended, which completes an answer
// without a declared length.
func (p *Parser) EOF() (done bool, err error) {
	if p.framing != byClose {
		return false, ErrTruncated
	}
	p.finish(p.buf[p.body:])
	return true, nil
}

func (p *Parser) advance(data []byte) (bool, error) {
	for p.framing == byHead {
		found, err := p.readHead(data)
		if err != nil || !found {
			return false, err
		}
	}
	switch p.framing {
	case byLength:
		if p.length > MaxBody {
			return p.oversized(), nil
		}
		if len(data)-p.body < p.length {
			return false, nil
		}
		if len(data)-p.body > p.length {
			p.answer.Close = true // bytes that nobody asked for: not a connection to trust again
		}
		p.finish(data[p.body : p.body+p.length])
		return true, nil
	case byChunks:
		return p.readChunks(data)
	default:
		if len(data)-p.body > MaxBody {
			return p.oversized(), nil
		}
		return false, nil
	}
}

func (p *Parser) finish(body []byte) { p.answer.Body = body }

// oversized ends an answer whose body nobody will read: its status alone
// decides, and its connection is given up.
func (p *Parser) oversized() bool {
	p.answer.Oversized, p.answer.Close = true, true
	return true
}

// readHead reads the status line and the headers once all of them are there,
// and steps over interim (1xx) answers.
func (p *Parser) readHead(data []byte) (found bool, err error) {
	if bad := notHTTP(data[p.body:]); bad {
		return false, ErrNotHTTP
	}
	end := headEnd(data, max(p.scan, p.body))
	if end < 0 {
		p.scan = max(p.body, len(data)-3)
		if len(data) > MaxHead {
			return false, ErrHead
		}
		return false, nil
	}
	if end > MaxHead {
		return false, ErrHead
	}
	head := data[p.body:end]
	p.body, p.scan = end, end
	return true, p.parseHead(head)
}

// notHTTP reports early that an answer can't be HTTP, so that a peer that talks
// something else fails at once and not by a time-out.
func notHTTP(data []byte) bool {
	const magic = "HTTP/"
	n := min(len(data), len(magic))
	return string(data[:n]) != magic[:n]
}

// headEnd finds the empty line that ends a head, with lines ended by CR LF or
// by LF alone, and returns where the body begins.
func headEnd(data []byte, from int) int {
	for {
		i := bytes.IndexByte(data[from:], '\n')
		if i < 0 {
			return -1
		}
		from += i + 1
		switch rest := data[from:]; {
		case len(rest) > 0 && rest[0] == '\n':
			return from + 1
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			return from + 2
		}
	}
}

func (p *Parser) parseHead(head []byte) error {
	line, rest := cutLine(head)
	minor, status, ok := statusLine(line)
	if !ok {
		return ErrNotHTTP
	}
	if status >= 100 && status < 200 && status != 101 {
		return nil // an interim answer: the next head follows
	}
	h := header{length: -1}
	for len(rest) > 0 {
		line, rest = cutLine(rest)
		h.read(line)
	}
	if h.bad {
		return ErrHead
	}
	p.answer = Answer{Status: status, RetryAfter: h.retryAfter, Charset: h.charset}
	p.answer.Close = h.close || (minor == 0 && !h.keepAlive)
	switch {
	case status == 204 || status == 304:
		p.framing, p.length = byLength, 0
	case h.chunked:
		p.framing, p.at = byChunks, p.body
	case h.length >= 0:
		p.framing, p.length = byLength, h.length
	default:
		p.framing, p.answer.Close = byClose, true
	}
	return nil
}

// statusLine reads "HTTP/1.x NNN reason".
func statusLine(line []byte) (minor, status int, ok bool) {
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[8] != ' ' {
		return 0, 0, false
	}
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return 0, 0, false
		}
		status = status*10 + int(c-'0')
	}
	return int(line[7] - '0'), status, status >= 100 && (len(line) == 12 || line[12] == ' ')
}

func cutLine(b []byte) (line, rest []byte) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return b, nil
	}
	line, rest = b[:i], b[i+1:]
	if i > 0 && line[i-1] == '\r' {
		line = line[:i-1]
	}
	return line, rest
}

// header gathers the few headers that matter to a caller.
type header struct {
	length     int
	chunked    bool
	close      bool
	keepAlive  bool
	bad        bool
	retryAfter time.Duration
	charset    string
}

func (h *header) read(line []byte) {
	i := bytes.IndexByte(line, ':')
	if i <= 0 {
		return
	}
	name, value := line[:i], bytes.TrimSpace(line[i+1:])
	switch {
	case isName(name, "content-length"):
		n, err := strconv.ParseUint(string(value), 10, 31)
		if err != nil || (h.length >= 0 && h.length != int(n)) {
			h.bad = true
			return
		}
		h.length = int(n)
	case isName(name, "transfer-encoding"):
		h.chunked = isName(value, "chunked")
		h.bad = h.bad || !(h.chunked || isName(value, "identity"))
	case isName(name, "connection"):
		h.close = h.close || hasToken(value, "close")
		h.keepAlive = h.keepAlive || hasToken(value, "keep-alive")
	case isName(name, "retry-after"):
		h.retryAfter = retryAfter(string(value), time.Now())
	case isName(name, "content-type"):
		h.charset = charset(value)
	}
}

// isName compares without regard to case with a lower-case ASCII name.
func isName(b []byte, lower string) bool {
	return len(b) == len(lower) && bytes.EqualFold(b, []byte(lower))
}

func hasToken(list []byte, token string) bool {
	for len(list) > 0 {
		var one []byte
		if i := bytes.IndexByte(list, ','); i >= 0 {
			one, list = list[:i], list[i+1:]
		} else {
			one, list = list, nil
		}
		if isName(bytes.TrimSpace(one), token) {
			return true
		}
	}
	return false
}

// charset finds the charset parameter of a Content-Type. The usual ones are
// returned without an allocation.
func charset(contentType []byte) string {
	i := bytes.IndexByte(contentType, ';')
	for i >= 0 {
		contentType = bytes.TrimSpace(contentType[i+1:])
		i = bytes.IndexByte(contentType, ';')
		one := contentType
		if i >= 0 {
			one = contentType[:i]
		}
		if len(one) < 8 || !isName(one[:8], "charset=") {
			continue
		}
		value := bytes.Trim(bytes.TrimSpace(one[8:]), `"'`)
		if isName(value, "utf-8") {
			return "utf-8"
		}
		return string(value)
	}
	return ""
}

// retryAfter reads the header's two forms, seconds and a date (RFC 9110,
// section 10.2.3). What is neither counts as not said.
func retryAfter(value string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// readChunks decodes as many whole chunks as there are.
func (p *Parser) readChunks(data []byte) (bool, error) {
	for {
		size, next, err := chunkHead(data, p.at)
		if err != nil || next < 0 {
			return false, err
		}
		if size == 0 {
			return p.readTrailer(data, next)
		}
		if len(p.chunks)+size > MaxBody || next-p.body > maxChunked {
			return p.oversized(), nil
		}
		end := next + size
		if len(data) < end+2 {
			return false, nil
		}
		p.chunks = append(p.chunks, data[next:end]...)
		switch {
		case data[end] == '\n':
			p.at = end + 1
		case data[end] == '\r' && data[end+1] == '\n':
			p.at = end + 2
		default:
			return false, ErrChunk
		}
	}
}

// chunkHead reads a chunk's size line; next is -1 while it is not complete.
func chunkHead(data []byte, at int) (size, next int, err error) {
	const longest = 128 // a size and any extension
	i := bytes.IndexByte(data[at:], '\n')
	if i > longest || (i < 0 && len(data)-at > longest) {
		return 0, 0, ErrChunk
	}
	if i < 0 {
		return 0, -1, nil
	}
	line := data[at : at+i]
	if j := bytes.IndexByte(line, ';'); j >= 0 {
		line = line[:j]
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 31)
	if err != nil {
		return 0, 0, ErrChunk
	}
	return int(n), at + i + 1, nil
}

// readTrailer skips the lines after the last chunk, to the empty one.
func (p *Parser) readTrailer(data []byte, at int) (bool, error) {
	if len(data)-at > MaxHead {
		return false, ErrChunk
	}
	for {
		i := bytes.IndexByte(data[at:], '\n')
		if i < 0 {
			return false, nil
		}
		line := bytes.TrimRight(data[at:at+i], "\r")
		at += i + 1
		if len(line) == 0 {
			p.answer.Close = p.answer.Close || at < len(data)
			p.finish(p.chunks)
			return true, nil
		}
	}
}
