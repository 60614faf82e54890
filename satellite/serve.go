package satellite

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

// Notification is one message of another satellite.
type Notification struct {
	MsgID   string // the message's place in the relay's log; the same for each repeat
	Sender  string // host id of the satellite that relayed it
	Data    any    // what it relayed
	Members Struct // further members of the sender's, dedup_id among them
}

// Later is an error for a Handler to return: the message is not done with, and
// the relay is to call again, after that time if it is not zero (rounded up to
// seconds). Messages behind it wait.
func Later(after time.Duration) error { return laterError(after) }

type laterError time.Duration

func (laterError) Error() string { return "the satellite asks for a repeat later" }

// idSet remembers the last ids that were added.
type idSet struct {
	size int
	ids  map[string]bool
	ring []string
	next int
}

func (s *idSet) has(id string) bool { return s.ids[id] }

func (s *idSet) add(id string) {
	switch {
	case s.size <= 0 || s.ids[id]:
		return
	case s.ids == nil:
		s.ids = make(map[string]bool)
	}
	if len(s.ring) < s.size {
		s.ring = append(s.ring, id)
	} else {
		delete(s.ids, s.ring[s.next])
		s.ring[s.next] = id
		s.next = (s.next + 1) % s.size
	}
	s.ids[id] = true
}

// notifyLimits bound a call to the satellite. They are above a relay's own,
// which its operator may have raised.
func notifyLimits() xmlrpc.Limits {
	return xmlrpc.Limits{Bytes: 8 << 20, Depth: 256, Values: 1_000_000, Name: 64 << 10}
}

// serve listens and serves until finish. Handlers get ctx.
func (s *Satellite) serve(ctx context.Context) (*http.Server, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s for the relay's calls: %w", s.cfg.Listen, err)
	}
	s.mu.Lock()
	s.listener = l
	s.mu.Unlock()
	if s.cfg.TLS != nil {
		l = tls.NewListener(l, s.cfg.TLS)
	}
	srv := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.answer(ctx, w, r) }),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          s.log.StandardLogger(nil),
	}
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("serving the relay's calls ended", "listen", s.cfg.Listen, "error", err)
		}
	}()
	return srv, nil
}

func (s *Satellite) answer(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "a co2 satellite: it is called by XML-RPC", http.StatusMethodNotAllowed)
		return
	}
	if r.Header.Get("Origin") != "" {
		http.Error(w, "a web page has no business here", http.StatusForbidden)
		return
	}
	limits := notifyLimits()
	doc, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(limits.Bytes)))
	if err != nil {
		http.Error(w, "the call cannot be read or is too large", http.StatusRequestEntityTooLarge)
		return
	}
	v, err := s.dispatch(ctx, r, doc, limits)
	var fault *xmlrpc.Fault
	var later laterError
	var out []byte
	switch {
	case err == nil:
		out = xmlrpc.AppendResponse(nil, v)
	case errors.As(err, &later):
		if later > 0 {
			w.Header().Set("Retry-After", strconv.FormatInt(int64((time.Duration(later)+time.Second-1)/time.Second), 10))
		}
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	case errors.As(err, &fault):
		out = xmlrpc.AppendFault(nil, fault)
	default:
		out = xmlrpc.AppendFault(nil, &xmlrpc.Fault{Code: xmlrpc.CodeInternal, Text: err.Error()})
	}
	w.Header().Set("Content-Type", "text/xml")
	w.Header().Set("Content-Length", strconv.Itoa(len(out)))
	_, _ = w.Write(out) // a caller that has gone is its own affair
}

// method is one row of the satellite's table of methods.
type method struct {
	name, help string
	signatures [][]string // result, then parameters
	handle     func(s *Satellite, c call) (xmlrpc.Value, error)
}

// call is one call of a method.
type call struct {
	life   context.Context // ends when the satellite stops
	caller context.Context // ends when the caller hangs up
	from   string
	params []xmlrpc.Value
}

// methods is a function because methodHelp, within, looks into it.
func methods() []method {
	return []method{
		{"notify", "The relay tells of a message: a struct with host_id (the sender's), data, msg_id (the same for each repeat), " +
			"notify_pass, and what else the sender gave. Returns 'OK'; faults if the satellite refuses. Where notify_pass is wrong the answer is " +
			"HTTP status 503: the relay is to call again, and the satellite to register again.",
			[][]string{{"string", "struct"}}, (*Satellite).notify},
		{"ping", "Returns 'pong'.", [][]string{{"string"}}, (*Satellite).ping},
		{"system.listMethods", "Returns the names of all methods.", [][]string{{"array"}}, listMethods},
		{"system.methodHelp", "Returns what the named method does.", [][]string{{"string", "string"}}, methodHelp},
		{"system.methodSignature", "Returns the named method's signatures, each the type of its result and those of its parameters.",
			[][]string{{"array", "string"}}, methodSignature},
	}
}

func (s *Satellite) dispatch(life context.Context, r *http.Request, doc []byte, limits xmlrpc.Limits) (xmlrpc.Value, error) {
	c, err := xmlrpc.ParseCall(doc, charsetOf(r.Header), limits)
	if err != nil {
		return xmlrpc.Value{}, err
	}
	m, err := find(c.Method)
	if err != nil {
		return xmlrpc.Value{}, err
	}
	return m.handle(s, call{life, r.Context(), r.RemoteAddr, c.Params})
}

func find(name string) (method, error) {
	all := methods()
	i := slices.IndexFunc(all, func(m method) bool { return m.name == name })
	if i < 0 {
		return method{}, &xmlrpc.Fault{Code: xmlrpc.CodeNoMethod, Text: fmt.Sprintf("no method %.100q; system.listMethods lists them", name)}
	}
	return all[i], nil
}

// notify takes a message. The password comes first: who does not know it does
// not wait in line either. But a wrong one may be the relay's: that of this
// satellite's last life, until the relay has taken the new registration in. A
// fault would have it count the message as received.
func (s *Satellite) notify(c call) (xmlrpc.Value, error) {
	if len(c.params) != 1 || c.params[0].Kind() != xmlrpc.Struct {
		return xmlrpc.Value{}, &xmlrpc.Fault{Code: xmlrpc.CodeWrongParams, Text: "notify takes one struct"}
	}
	pass, _ := textMember(c.params[0], "notify_pass")
	if subtle.ConstantTimeCompare([]byte(pass), []byte(s.cfg.NotifyPass)) != 1 {
		s.doubted.Store(true)
		s.log.Warn("notify with a wrong password put off", "from", c.from)
		return xmlrpc.Value{}, fmt.Errorf("wrong notify_pass: %w", Later(0))
	}
	// A call that its caller has given up while it waited is not begun: the
	// repeat is on its way. One that has begun comes to its end.
	select {
	case s.handling <- struct{}{}:
		defer func() { <-s.handling }()
	case <-c.caller.Done():
		return xmlrpc.Value{}, Later(0)
	}
	if err := s.handle(c.life, c.params[0]); err != nil {
		return xmlrpc.Value{}, err
	}
	return xmlrpc.NewString("OK"), nil
}

// handle calls Handler unless the message is a repeat. The caller holds
// handling.
func (s *Satellite) handle(ctx context.Context, message xmlrpc.Value) error {
	id, _ := textMember(message, "msg_id")
	if id != "" && s.seen.has(id) {
		s.log.Debug("repeat recognised", "msg_id", id)
		return nil
	}
	if ctx.Err() != nil {
		return Later(0) // with StayKnown it waits until the satellite is back
	}
	var err error
	if s.cfg.Handler != nil {
		err = s.cfg.Handler(ctx, notificationOf(message))
	}
	var later laterError
	switch {
	case errors.As(err, &later):
		return err
	case err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled):
		return Later(0)
	}
	if id != "" {
		s.seen.add(id)
	}
	if err != nil {
		s.log.Debug("message refused", "msg_id", id, "error", err)
		return &xmlrpc.Fault{Code: xmlrpc.CodeRegistry, Text: err.Error()}
	}
	return nil
}

// textMember is the text of a member that is a string.
func textMember(v xmlrpc.Value, name string) (string, bool) {
	m, ok := v.Member(name)
	if !ok {
		return "", false
	}
	return m.Str()
}

func (s *Satellite) ping(c call) (xmlrpc.Value, error) {
	if s.cfg.OnPing != nil {
		s.cfg.OnPing(c.from)
	}
	return xmlrpc.NewString("pong"), nil
}

func notificationOf(v xmlrpc.Value) Notification {
	var n Notification
	for name, value := range v.Members() {
		switch name {
		case "host_id":
			n.Sender, _ = value.Str()
		case "msg_id":
			n.MsgID, _ = value.Str()
		case "data":
			n.Data = fromValue(value)
		case "notify_pass":
		default:
			n.Members = append(n.Members, Member{name, fromValue(value)})
		}
	}
	return n
}

func listMethods(*Satellite, call) (xmlrpc.Value, error) {
	var names []xmlrpc.Value
	for _, m := range methods() {
		names = append(names, xmlrpc.NewString(m.name))
	}
	return xmlrpc.NewArray(names...), nil
}

func methodHelp(_ *Satellite, c call) (xmlrpc.Value, error) {
	m, err := named(c.params)
	return xmlrpc.NewString(m.help), err
}

func methodSignature(_ *Satellite, c call) (xmlrpc.Value, error) {
	m, err := named(c.params)
	var all []xmlrpc.Value
	for _, signature := range m.signatures {
		var types []xmlrpc.Value
		for _, t := range signature {
			types = append(types, xmlrpc.NewString(t))
		}
		all = append(all, xmlrpc.NewArray(types...))
	}
	return xmlrpc.NewArray(all...), err
}

// named is the method whose name is the only parameter.
func named(params []xmlrpc.Value) (method, error) {
	if len(params) == 1 {
		if name, ok := params[0].Str(); ok {
			return find(name)
		}
	}
	return method{}, &xmlrpc.Fault{Code: xmlrpc.CodeWrongParams, Text: "one string is wanted: a method's name"}
}
