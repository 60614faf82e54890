// Package caller is how the relay calls a satellite over HTTP: the request that
// it writes, the answer that it accepts, and what an answer means. The rules
// are those of the protocol page ("HTTP as real clients use it") and are the
// same for a notify and a ping, whichever way the bytes travel.
package caller

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

// Schemes a satellite may ask to be called back with.
const (
	SchemeHTTP  = "http"
	SchemeHTTPS = "https"
)

// Target is where and how a satellite wants to be called.
type Target struct {
	Addr    netip.AddrPort
	Scheme  string // SchemeHTTP (also when empty) or SchemeHTTPS
	TLSName string // the name to verify instead of the address
	Close   bool   // ask the satellite to close the connection after its answer
}

// AppendRequest appends the head of a call with a body of contentLength bytes.
// The body's length is always declared and nothing is ever chunked, since
// satellites of 2003 know no other way.
func AppendRequest(b []byte, t Target, contentLength int) []byte {
	b = append(b, "POST /RPC2 HTTP/1.1\r\nHost: "...)
	b = t.Addr.AppendTo(b)
	b = append(b, "\r\nUser-Agent: co2relay\r\nContent-Type: text/xml\r\n"...)
	if t.Close {
		b = append(b, "Connection: close\r\n"...)
	}
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, int64(contentLength), 10)
	return append(b, "\r\n\r\n"...)
}

// Verdict is what an answer means for the message.
type Verdict uint8

// The verdicts. Received and Refused end the obligation; after Failed the same
// message is tried again later.
const (
	Failed Verdict = iota
	Received
	Refused
)

// Answer is one complete HTTP answer. Body is valid until the parser that made
// it is fed or reset.
type Answer struct {
	Status     int
	Close      bool          // the connection can't carry another call
	RetryAfter time.Duration // 0: not said
	Body       []byte
	Charset    string // of the Content-Type, "" if not said
	Oversized  bool   // the body was longer than MaxBody and is not kept
}

// Verdict judges a complete answer: a well-formed methodResponse wins over any
// status; then 2xx is received, 408, 429 and 5xx failed, and the rest refused.
// The reason is constant text, short enough for a metric's label.
func (a *Answer) Verdict() (Verdict, string) {
	if !a.Oversized {
		fault, err := xmlrpc.CheckResponse(a.Body, a.Charset, xmlrpc.AnswerLimits())
		switch {
		case err == nil && fault:
			return Refused, "fault"
		case err == nil:
			return Received, ""
		}
	}
	switch {
	case a.Status >= 200 && a.Status < 300:
		return Received, ""
	case a.Status >= 500:
		return Failed, "status_5xx"
	case a.Status == 408:
		return Failed, "status_408"
	case a.Status == 429:
		return Failed, "status_429"
	case a.Status >= 300 && a.Status < 400:
		return Refused, "status_3xx"
	default:
		return Refused, "status_4xx"
	}
}
