package satellite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

// callTimeout bounds one call to the relay. It is above the time in which a
// relay gives up publishing a message (15 s), so that its fault still comes.
const callTimeout = 25 * time.Second

// Fault is an XML-RPC fault that the relay answered. Faults of code 1 are the
// relay's own; negative ones are of the public fault-code table.
type Fault struct {
	Code int
	Text string
}

func (f *Fault) Error() string { return fmt.Sprintf("fault %d: %s", f.Code, f.Text) }

// Client calls the methods of a relay. It uses no proxy and follows no
// redirect. Its methods may be called from several goroutines.
//
// Calls are written by internal/xmlrpc, as the relay's own are, and not by
// kolo/xmlrpc's encoder: that one turns nil into an empty string, has no order
// of members, escapes no names, and replaces characters that XML lacks without
// a word.
type Client struct {
	url    string
	shown  string
	http   *http.Client
	limits xmlrpc.Limits
}

// NewClient makes a Client for the relay at that URL (http or https; any path
// will do). It does no I/O.
func NewClient(relay string) (*Client, error) {
	u, err := url.Parse(relay)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		if strings.Contains(relay, "@") {
			return nil, errors.New("read relay's URL (not shown, it may hold a password): want one like http://user:password@host:2003, " +
				"with what is no letter or digit in user and password as %40 and the like")
		}
		return nil, fmt.Errorf("read relay's URL %q: want one like http://host:2003", relay)
	}
	shown := *u
	shown.User = nil
	if u.Path == "" {
		u.Path = "/RPC2"
	}
	limits := xmlrpc.DefaultLimits()
	limits.Bytes = 8 << 20 // a relay's answers are as large as that
	return &Client{
		url:    u.String(),
		shown:  shown.String(),
		limits: limits,
		http: &http.Client{
			Timeout:       callTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				Proxy:                  nil,
				DialContext:            (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
				TLSHandshakeTimeout:    5 * time.Second,
				MaxIdleConnsPerHost:    4,
				IdleConnTimeout:        30 * time.Second,
				MaxResponseHeaderBytes: 16 << 10,
				DisableCompression:     true, // an answer's length is its cost
			},
		},
	}, nil
}

// Call calls a method and returns its answer. Params and the answer are Go
// values as the package's documentation lists them. The error is a *Fault (use
// errors.As) if the relay answered one; after any other error but a refused
// connection it is unknown whether the call took effect.
func (c *Client) Call(ctx context.Context, method string, params ...any) (any, error) {
	values := make([]xmlrpc.Value, len(params))
	for i, p := range params {
		v, err := toValue(p)
		if err != nil {
			return nil, fmt.Errorf("call %s: %w", method, err)
		}
		values[i] = v
	}
	v, err := c.call(ctx, method, values...)
	if err != nil {
		return nil, err
	}
	return fromValue(v), nil
}

// String is the relay's URL without user and password.
func (c *Client) String() string { return c.shown }

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) call(ctx context.Context, method string, params ...xmlrpc.Value) (xmlrpc.Value, error) {
	resp, err := c.post(ctx, xmlrpc.AppendCall(nil, method, params...))
	if err != nil {
		return xmlrpc.Value{}, fmt.Errorf("call %s: %w", method, err)
	}
	if resp.Fault != nil {
		return xmlrpc.Value{}, fmt.Errorf("call %s: %w", method, &Fault{resp.Fault.Code, resp.Fault.Text})
	}
	return resp.Value, nil
}

func (c *Client) post(ctx context.Context, doc []byte) (xmlrpc.Response, error) {
	var none xmlrpc.Response
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(doc))
	if err != nil {
		return none, err
	}
	req.Header.Set("Content-Type", "text/xml")
	req.Header.Set("User-Agent", "co2relay-satellite")
	resp, err := c.http.Do(req)
	if err != nil {
		return none, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(c.limits.Bytes)+1))
	if err != nil {
		return none, fmt.Errorf("read answer: %w", err)
	}
	answer, err := xmlrpc.ParseResponse(body, charsetOf(resp.Header), c.limits)
	switch {
	case err == nil:
		return answer, nil
	case resp.StatusCode != http.StatusOK:
		return none, &statusError{resp.StatusCode, resp.Status}
	}
	return none, fmt.Errorf("read answer: %w (is there a relay at %s?)", err, c)
}

// statusError is an answer with another status than 200, and no XML-RPC in it.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return "relay answered with status " + e.text }

// refused reports whether the relay refused the call for good, so that a
// repeat cannot fare better: any 3xx and 4xx but "timeout" and "too many".
func refused(err error) bool {
	var s *statusError
	return errors.As(err, &s) && s.code < 500 &&
		s.code != http.StatusRequestTimeout && s.code != http.StatusTooManyRequests
}

func charsetOf(h http.Header) string {
	_, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return params["charset"]
}
