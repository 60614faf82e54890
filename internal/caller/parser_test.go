package caller

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

const okBody = "<?xml version='1.0'?><methodResponse><params><param><value><string>OK</string></value></param></params></methodResponse>"

func answerOf(head, body string) string { return head + "\r\n\r\n" + body }

func TestParserReadsWhatSatellitesSend(t *testing.T) {
	t.Parallel()
	length := fmt.Sprintf("Content-Length: %d", len(okBody))
	chunked := fmt.Sprintf("%x\r\n%s\r\n%x;name=value\r\n%s\r\n0\r\nTrailer: x\r\n\r\n", 10, okBody[:10], len(okBody)-10, okBody[10:])
	cases := []struct {
		name, raw string
		eof       bool
		want      Answer
	}{
		{"keep-alive", answerOf("HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n"+length, okBody), false, Answer{Status: 200}},
		{"close", answerOf("HTTP/1.1 200 OK\r\nconnection: Close\r\n"+length, okBody), false, Answer{Status: 200, Close: true}},
		{"http 1.0 closes", answerOf("HTTP/1.0 200 OK\r\n"+length, okBody), false, Answer{Status: 200, Close: true}},
		{"http 1.0 kept alive", answerOf("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n"+length, okBody), false, Answer{Status: 200}},
		{"no length", answerOf("HTTP/1.0 200 OK\r\nServer: old", okBody), true, Answer{Status: 200, Close: true}},
		{"line feeds only", "HTTP/1.1 200 OK\n" + length + "\n\n" + okBody, false, Answer{Status: 200}},
		{"mixed line ends", "HTTP/1.1 200 OK\r\n" + length + "\n\r\n" + okBody, false, Answer{Status: 200}},
		{"chunked", answerOf("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked", chunked), false, Answer{Status: 200}},
		{"interim answers", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answerOf("HTTP/1.1 200 OK\r\n"+length, okBody), false, Answer{Status: 200}},
		{"no reason", answerOf("HTTP/1.1 200\r\n"+length, okBody), false, Answer{Status: 200}},
		{"retry after", answerOf("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\n"+length, okBody), false, Answer{Status: 503, RetryAfter: 7 * time.Second}},
		{"charset", answerOf("HTTP/1.1 200 OK\r\nContent-Type: text/xml; x=y; charset=\"ISO-8859-1\"\r\n"+length, okBody), false, Answer{Status: 200, Charset: "ISO-8859-1"}},
		{"bytes beyond the length", answerOf("HTTP/1.1 200 OK\r\n"+length, okBody+"more"), false, Answer{Status: 200, Close: true}},
	}
	for _, c := range cases {
		for _, piece := range []int{1, 2, 3, 7, 64, 1 << 20} {
			if piece < 64 && c.name == "bytes beyond the length" {
				continue // what comes after the end is not seen any more
			}
			var p Parser
			done, err := feedPieces(&p, c.raw, piece)
			if c.eof && err == nil {
				if done {
					t.Fatalf("%s by %d: done before the end", c.name, piece)
				}
				done, err = p.EOF()
			}
			if err != nil || !done {
				t.Fatalf("%s by %d: done %v, error %v", c.name, piece, done, err)
			}
			got := *p.Answer()
			if string(got.Body) != okBody {
				t.Errorf("%s by %d: body %q, want %q", c.name, piece, got.Body, okBody)
			}
			got.Body = nil
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("%s by %d: got %+v, want %+v", c.name, piece, got, c.want)
			}
		}
	}
}

func feedPieces(p *Parser, raw string, piece int) (done bool, err error) {
	for b := []byte(raw); len(b) > 0 && !done && err == nil; {
		n := min(piece, len(b))
		scratch := bytes.Clone(b[:n])
		done, err = p.Feed(scratch)
		if !done {
			clear(scratch) // the caller's buffer is its own again
		}
		b = b[n:]
	}
	return done, err
}

func TestParserRefusesWhatIsNoAnswer(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, raw string
		want      error
	}{
		{"another protocol", "SSH-2.0-OpenSSH_9.2\r\n", ErrNotHTTP},
		{"bad status", "HTTP/1.1 abc OK\r\n\r\n", ErrNotHTTP},
		{"http 2", "HTTP/2.0 200 OK\r\n\r\n", ErrNotHTTP},
		{"endless head", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", MaxHead), ErrHead},
		{"endless interim answers", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", MaxHead/25+1) + answerOf("HTTP/1.1 200 OK\r\nContent-Length: 2", "ok"), ErrHead},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", ErrHead},
		{"bad length", "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n", ErrHead},
		{"unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", ErrHead},
		{"bad chunk size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", ErrChunk},
		{"bad chunk end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n", ErrChunk},
		{"endless chunk size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("0", 1000), ErrChunk},
	}
	for _, c := range cases {
		for _, piece := range []int{1, 1 << 20} {
			var p Parser
			done, err := feedPieces(&p, c.raw, piece)
			if done || !errors.Is(err, c.want) {
				t.Errorf("%s by %d: done %v, error %v, want %v", c.name, piece, done, err, c.want)
			}
		}
	}
}

func TestParserKnowsATruncatedAnswer(t *testing.T) {
	t.Parallel()
	raw := answerOf(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d", len(okBody)), okBody)
	for cut := range len(raw) {
		var p Parser
		if done, err := p.Feed([]byte(raw[:cut])); done || err != nil {
			t.Fatalf("cut at %d: done %v, error %v", cut, done, err)
		}
		if done, err := p.EOF(); done || !errors.Is(err, ErrTruncated) {
			t.Fatalf("cut at %d: done %v, error %v, want %v", cut, done, err, ErrTruncated)
		}
		if got, want := p.Started(), cut > 0; got != want {
			t.Fatalf("cut at %d: started %v, want %v", cut, got, want)
		}
	}
}

func TestParserGivesUpOnALongBodyButKeepsItsStatus(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", MaxBody+1)
	for name, raw := range map[string]string{
		"length":  answerOf("HTTP/1.1 200 OK\r\nContent-Length: 99999999", ""),
		"close":   answerOf("HTTP/1.1 200 OK\r\nServer: x", long),
		"chunked": answerOf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", "fffffff\r\n"),
		"padded":  answerOf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", strings.Repeat("1;"+strings.Repeat("x", 100)+"\r\ny\r\n", MaxBody)),
	} {
		var p Parser
		done, err := p.Feed([]byte(raw))
		a := p.Answer()
		if v, _ := a.Verdict(); !done || err != nil || !a.Close || !a.Oversized || v != Received {
			t.Errorf("%s: done %v, error %v, answer %+v, verdict %v", name, done, err, a, v)
		}
	}
}

func TestVerdictFollowsTheRule(t *testing.T) {
	t.Parallel()
	fault := "<methodResponse><fault><value><struct><member><name>faultCode</name><value><int>1</int></value></member>" +
		"<member><name>faultString</name><value><string>no</string></value></member></struct></value></fault></methodResponse>"
	cases := []struct {
		status int
		body   string
		want   Verdict
	}{
		{200, okBody, Received}, {200, fault, Refused}, {200, "", Received}, {204, "", Received}, {200, "<html>", Received},
		{500, okBody, Received}, {500, fault, Refused}, {500, "oops", Failed}, {503, "", Failed}, {408, "", Failed}, {429, "", Failed},
		{301, "", Refused}, {302, "moved", Refused}, {404, "not here", Refused}, {401, "", Refused}, {404, okBody, Received},
	}
	for _, c := range cases {
		a := Answer{Status: c.status, Body: []byte(c.body)}
		if got, reason := a.Verdict(); got != c.want {
			t.Errorf("status %d, body %.20q: got %v (%s), want %v", c.status, c.body, got, reason, c.want)
		}
	}
}

func TestParserAllocatesNothingForAnAnswerInOnePiece(t *testing.T) {
	raw := []byte(answerOf(fmt.Sprintf("HTTP/1.1 200 OK\r\nServer: x\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: %d", len(okBody)), okBody))
	var p Parser
	got := testing.AllocsPerRun(100, func() {
		p.Reset()
		if done, err := p.Feed(raw); !done || err != nil {
			t.Fatal(done, err)
		}
		if v, _ := p.Answer().Verdict(); v != Received {
			t.Fatal(v)
		}
	})
	if got > 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}

func FuzzParserNeedsTheSameHoweverItIsFed(f *testing.F) {
	f.Add([]byte(answerOf("HTTP/1.1 200 OK\r\nContent-Length: 3", "abc")), uint8(1))
	f.Add([]byte(answerOf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n")), uint8(2))
	f.Add([]byte("HTTP/1.0 200 OK\nA: b\n\nrest"), uint8(3))
	f.Fuzz(func(t *testing.T, raw []byte, piece uint8) {
		var whole, parts Parser
		done1, err1 := feedPieces(&whole, string(raw), max(1, len(raw)))
		done2, err2 := feedPieces(&parts, string(raw), int(piece)+1)
		if !done1 && err1 == nil {
			done1, err1 = whole.EOF()
		}
		if !done2 && err2 == nil {
			done2, err2 = parts.EOF()
		}
		a, b := whole.Answer(), parts.Answer()
		if done1 != done2 {
			// A long answer may be given up earlier or later, never read differently.
			t.Fatalf("whole: %v %v, in pieces of %d: %v %v", done1, err1, int(piece)+1, done2, err2)
		}
		if done1 && !a.Oversized && !b.Oversized && (a.Status != b.Status || !bytes.Equal(a.Body, b.Body)) {
			t.Fatalf("whole %d %q, in pieces %d %q", a.Status, a.Body, b.Status, b.Body)
		}
	})
}
