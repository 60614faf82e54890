package frontend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

// discardLimit bounds what is still read of a body that was refused for its
// size, so that a client which sends all before it reads can read the Fault.
const (
	discardLimit = 8 << 20
	discardTime  = 2 * time.Second
)

// contentType is what every call is answered with. No charset beside it: the
// document's declaration says it, and clients of 2003 compare the whole value.
const contentType = "text/xml"

// ServeHTTP routes by the protocol page, "HTTP as real clients use it": POST on
// any path is a call, GET and HEAD are the web interface.
func (f *Frontend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := connOf(r)
	if c == nil {
		http.Error(w, "this server was not started by Serve", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	if c.framing.coded.Load() {
		h.Set("Connection", "close") // see framing
	}
	if r.ContentLength != 0 {
		f.expectBody(w)
		if r.Method != http.MethodPost {
			// Nobody here reads it. On a connection that is kept, net/http would
			// wait for its end before the answer, and the answer's time run out.
			h.Set("Connection", "close")
		}
	}
	switch {
	case c.framing.bad.Load():
		f.refuse(w, http.StatusBadRequest, "framing", "the request has both Transfer-Encoding and Content-Length, or a folded header line; send one length, one line for each header")
	case r.Method == http.MethodPost:
		f.servePost(w, r, c)
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		if !c.viaProxy && Rebound(r, c.LocalAddr(), f.hosts) {
			f.refuse(w, http.StatusForbidden, "host", "the relay does not know this name as its own, and a name can be given to any address; open its pages by its address and port (or let its operator allow the name by --origins)")
			return
		}
		f.serveWeb(w, r)
	default:
		h.Set("Allow", "GET, HEAD, POST")
		f.refuse(w, http.StatusMethodNotAllowed, "method", "POST an XML-RPC call, or GET a page")
	}
}

// refuse answers a request that is not read as a call. The text is for the
// person who wrote the client.
func (f *Frontend) refuse(w http.ResponseWriter, status int, reason, text string) {
	f.metrics.refused(reason)
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(text)+1))
	h.Set("Connection", "close")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}

// refuseOrigin turns away what another origin's page sent. A person who came to
// a method's page by a name that the relay does not know as its own is told so.
func (f *Frontend) refuseOrigin(w http.ResponseWriter, r *http.Request, origin string) {
	if !f.cfg.Web || !isForm(r) || !strings.HasPrefix(r.URL.Path, "/methods/") {
		f.refuse(w, http.StatusForbidden, "origin", "a page of another origin may not call this relay (--origins allows one)")
		return
	}
	f.metrics.refused("origin")
	w.Header().Set("Connection", "close") // its body is not read
	f.wordsPage(w, http.StatusForbidden, "This form was refused",
		"It came from a page at "+shown(origin)+", which the relay does not know as its own: a name can be given to any address. "+
			"Open the relay's pages by its address and port, or let its operator allow this one by --origins.")
}

func (f *Frontend) servePost(w http.ResponseWriter, r *http.Request, c *conn) {
	if origin := r.Header.Get("Origin"); origin != "" && !f.ownOrigin(origin, c) {
		f.refuseOrigin(w, r, origin)
		return
	}
	if isForm(r) && strings.HasPrefix(r.URL.Path, "/methods/") {
		f.serveForm(w, r, c)
		return
	}
	code, known := codingOf(r.Header.Get("Content-Encoding"))
	switch {
	case !known:
		w.Header().Set("Accept-Encoding", "gzip, deflate")
		f.refuse(w, http.StatusUnsupportedMediaType, "coding", "Content-Encoding may be gzip, deflate or identity")
	case r.ContentLength == 0 && len(r.Header["Content-Length"]) == 0:
		f.refuse(w, http.StatusLengthRequired, "no_length", "the request has neither Content-Length nor (in HTTP/1.1) Transfer-Encoding: chunked; send a Content-Length")
	case c.viaProxy && !c.client.IsValid():
		f.metrics.refused("no_proxy_header")
		f.writeFault(w, registryFault("this call came through the trusted proxy %s, which did not say whose it is; let the proxy send the PROXY protocol (HAProxy: send-proxy-v2), or take it out of --trusted-proxies", c.peer), true)
	default:
		f.serveCall(w, r, c, code)
	}
}

// serveCall reads a call and answers it. Its body, and a large answer, are paid
// for from the budget until the answer is written.
func (f *Frontend) serveCall(w http.ResponseWriter, r *http.Request, c *conn, code coding) {
	if r.ContentLength > f.cfg.MaxBody {
		f.tooLarge(w, r)
		return
	}
	from := peer{addr: c.client, life: c.life}
	release, err := f.budget.body(r.Context(), from.addr, f.cost(r.ContentLength, code))
	if err != nil {
		f.busy(w)
		return
	}
	defer release()
	call, err := f.readCall(w, r, code)
	if err != nil {
		f.badCall(w, r, err)
		return
	}
	a := f.budget.answer(from.addr)
	defer a.release()
	v, err := f.dispatch(r.Context(), call.Method, call.Params, request{from: from, answer: a})
	if err == nil {
		err = a.reserve(r.Context(), int64(len(v.Raw()))) // of test: its answer is the call's memory
	}
	switch {
	case errors.Is(err, errBusy):
		f.busy(w)
	case err != nil:
		f.writeFault(w, err, false)
	default:
		f.writeResult(w, v)
	}
}

// readCall reads and parses a call. The document is not kept: a call may wait
// for the broker, and one copy of it is enough then.
func (f *Frontend) readCall(w http.ResponseWriter, r *http.Request, code coding) (xmlrpc.Call, error) {
	buf := f.buffers.get()
	defer f.buffers.put(buf)
	f.expectBody(w)
	var err error
	*buf, err = readBody((*buf)[:0], r.Body, r.ContentLength, f.cfg.MaxBody)
	if err != nil {
		return xmlrpc.Call{}, err
	}
	bodyCame(w)
	doc, err := inflate(*buf, code, f.cfg.MaxInflated)
	if err != nil {
		return xmlrpc.Call{}, err
	}
	return xmlrpc.ParseCall(doc, charsetOf(r.Header.Get("Content-Type")), f.limits)
}

// expectBody begins the time that a client has to send a body.
func (f *Frontend) expectBody(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(f.cfg.BodyTimeout))
}

// bodyCame ends that time: else a call that takes long would be given up as if
// its client had gone.
func bodyCame(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
}

// slowBody answers a client that took too long to send a body.
func (f *Frontend) slowBody(w http.ResponseWriter) {
	f.refuse(w, http.StatusRequestTimeout, "slow_body", fmt.Sprintf("the body did not come within %s", f.cfg.BodyTimeout))
}

// cost is what a body takes of the budget: as much as it may turn out to hold,
// and as much again for its values, which are another copy.
func (f *Frontend) cost(length int64, code coding) int64 {
	if length < 0 {
		length = f.cfg.MaxBody
	}
	if code != identity {
		length += f.cfg.MaxInflated
	}
	return 2 * length
}

func (f *Frontend) busy(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	f.refuse(w, http.StatusServiceUnavailable, "budget", "the relay holds as many calls in memory as it takes; try again")
}

// badCall answers for a body that did not come whole, or not in shape.
func (f *Frontend) badCall(w http.ResponseWriter, r *http.Request, err error) {
	var fault *xmlrpc.Fault
	switch {
	case errors.As(err, &fault):
		f.metrics.call(familyUnknown, fault)
		f.writeFault(w, fault, false)
	case errors.Is(err, errTooLarge):
		f.tooLarge(w, r)
	case errors.Is(err, errInflate):
		f.metrics.refused("inflate")
		f.writeFault(w, &xmlrpc.Fault{Code: xmlrpc.CodeNotWellFormed, Text: "the body is not what its Content-Encoding says: " + err.Error()}, false)
	case errors.Is(err, os.ErrDeadlineExceeded):
		f.slowBody(w)
	default:
		f.refuse(w, http.StatusBadRequest, "truncated", "the body ended before its declared length, or is not well chunked")
	}
}

// tooLarge answers at once, and then reads on for a moment without keeping
// anything: who sends a lot before reading would otherwise see a reset instead.
func (f *Frontend) tooLarge(w http.ResponseWriter, r *http.Request) {
	f.metrics.refused("too_large")
	ctl := http.NewResponseController(w)
	_ = ctl.EnableFullDuplex()
	f.writeFault(w, &xmlrpc.Fault{Code: xmlrpc.CodeNotXMLRPC,
		Text: fmt.Sprintf("the call is too large: a body may have %d bytes (--max-body), and %d inflated (--max-inflated)", f.cfg.MaxBody, f.cfg.MaxInflated)}, true)
	if r.Header.Get("Expect") != "" {
		return // the client waits for an answer before it sends
	}
	_ = ctl.Flush()
	_ = ctl.SetReadDeadline(time.Now().Add(discardTime))
	_, _ = io.CopyN(io.Discard, r.Body, discardLimit)
}

// writeFault answers with a Fault, by status 200 as XML-RPC wants it.
func (f *Frontend) writeFault(w http.ResponseWriter, err error, hangUp bool) {
	if hangUp {
		w.Header().Set("Connection", "close")
	}
	buf := f.buffers.get()
	defer f.buffers.put(buf)
	*buf = xmlrpc.AppendFault((*buf)[:0], asFault(err))
	f.write(w, *buf)
}

// writeResult answers with a value.
func (f *Frontend) writeResult(w http.ResponseWriter, v xmlrpc.Value) {
	buf := f.buffers.get()
	defer f.buffers.put(buf)
	*buf = xmlrpc.AppendResponse(slices.Grow((*buf)[:0], len(v.Raw())+freeBody), v)
	f.write(w, *buf)
}

func (f *Frontend) write(w http.ResponseWriter, doc []byte) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(f.cfg.BodyTimeout))
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(doc)))
	_, _ = w.Write(doc)
}

// charsetOf gives the charset of a Content-Type, "" where it names none.
func charsetOf(header string) string {
	if !strings.ContainsRune(header, ';') {
		return ""
	}
	_, params, err := mime.ParseMediaType(header)
	if err != nil {
		return ""
	}
	return params["charset"]
}

// The content types of forms. Pages send the first.
const (
	formURLEncoded = "application/x-www-form-urlencoded"
	formMultipart  = "multipart/form-data"
)

func isForm(r *http.Request) bool {
	kind := contentKind(r)
	return kind == formURLEncoded || kind == formMultipart
}

// contentKind is the Content-Type without its parameters.
func contentKind(r *http.Request) string {
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(kind))
}

// ownOrigin tells whether an Origin header is this relay's own: the very
// address and port that the client connected to, or one of --origins. The Host
// header is no witness: a page can give its own name any address, that of
// somebody's localhost included.
func (f *Frontend) ownOrigin(origin string, c *conn) bool {
	origin, err := parseOrigin(origin)
	if err != nil {
		return false
	}
	if f.origins[origin] {
		return true
	}
	usual := uint16(80)
	if f.certificate != nil {
		usual = 443
	}
	host, found := strings.CutPrefix(origin, f.scheme())
	if !found {
		return false
	}
	local := addrPortOf(c.LocalAddr())
	if !local.IsValid() {
		return false
	}
	if at, err := netip.ParseAddrPort(host); err == nil {
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()) == local
	}
	if at, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return local.Port() == usual && at.Unmap() == local.Addr()
	}
	name, port, found := strings.Cut(host, ":")
	if !found {
		port = strconv.Itoa(int(usual))
	}
	return name == "localhost" && local.Addr().IsLoopback() && port == strconv.Itoa(int(local.Port()))
}

// scheme is what an address of this relay begins with.
func (f *Frontend) scheme() string {
	if f.certificate != nil {
		return "https://"
	}
	return "http://"
}

// detached gives a context for work that goes on when the client hangs up.
func (p peer) detached(timeout time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(p.life, timeout)
}
