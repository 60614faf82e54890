package frontend

import (
	"context"
	"crypto/subtle"
	"errors"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/internal/xmlrpc"
	"github.com/co2relay/co2relay/registry"
)

const (
	// maxNick and maxPlugins bound what a stranger has shown on the pages.
	maxNick    = 256 // bytes
	maxPlugins = 256
	// maxMaxAge is ten years, in seconds.
	maxMaxAge = 10 * 365 * 24 * 3600
	// settle is how long a change waits to be seen in this process's own view
	// before it is answered, so that whoever asks next sees it. It is not
	// needed for anything else.
	settle = 200 * time.Millisecond
	// unseenFor is how long a registration is counted that never comes to the view.
	unseenFor = time.Minute
	// lookupTimeout bounds a question to the leader.
	lookupTimeout = 5 * time.Second
)

// answerOK is what relay.relay and relay.deregister return.
var answerOK = xmlrpc.NewString("OK")

// register answers relay.register (protocol page, "relay.register").
func (f *Frontend) register(_ context.Context, r *request) (xmlrpc.Value, error) {
	reg, err := f.registration(r)
	if err != nil {
		return xmlrpc.Value{}, err
	}
	ctx, cancel := r.from.detached(f.cfg.PublishTimeout)
	defer cancel()
	settled, err := f.admit(ctx, r, reg.Addr)
	if err != nil {
		return xmlrpc.Value{}, err
	}
	sat, isNew, err := f.reg.Register(ctx, *reg)
	if err != nil {
		settled(0)
		return xmlrpc.Value{}, f.registerFault(err)
	}
	settled(sat.Revision)
	f.awaitView(ctx, sat.Revision)
	f.clus.Hint(sat.ID.Partition(), cluster.Hint{Kind: cluster.HintRegistered, Satellite: string(sat.ID), Revision: sat.Revision})
	event := cluster.Event{
		Kind: cluster.EventRegistered, Satellite: string(sat.ID), Nick: sat.Nick, Partition: sat.ID.Partition(),
		First: strconv.FormatUint(sat.Began+1, 10), Generation: sat.Generation,
	}
	if !isNew {
		event.Reason = "again"
	}
	f.clus.Emit(event)
	f.log.Info("satellite registered", "host_id", string(sat.ID), "new", isNew)
	return xmlrpc.NewString(string(sat.ID)), nil
}

// registration reads the parameter of relay.register.
func (f *Frontend) registration(r *request) (*registry.Registration, error) {
	port, found, err := intMember(r.param, r.method, "port")
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, wrongParams("%s: member port, the satellite's listening port, is missing", r.method)
	}
	if port < 1 || port > 65535 {
		return nil, wrongParams("%s: port %d is not between 1 and 65535", r.method, port)
	}
	reg := &registry.Registration{Addr: netip.AddrPortFrom(r.from.addr, uint16(port))}
	texts := make(map[string]string)
	for _, name := range []string{"nick", memberPass, "scheme", "tls_name", "register_pass"} {
		if texts[name], err = stringMember(r.param, r.method, name); err != nil {
			return nil, err
		}
	}
	// The event that tells of it may wait for the broker for long, and must not
	// keep the whole document in memory.
	reg.Nick = strings.Clone(texts["nick"])
	reg.NotifyPass = registry.Secret(texts[memberPass])
	reg.Scheme, reg.TLSName = texts["scheme"], texts["tls_name"]
	if len(reg.Nick) > maxNick {
		return nil, wrongParams("%s: nick has %d bytes, and may have %d", r.method, len(reg.Nick), maxNick)
	}
	if name := reg.TLSName; name != "" && !isHostName(name) && !isAddress(name) {
		return nil, wrongParams("%s: tls_name %q is neither a host name (in ASCII) nor an address", r.method, shown(name))
	}
	if reg.Plugins, err = pluginsOf(r); err != nil {
		return nil, err
	}
	if reg.MaxAge, err = maxAgeOf(r); err != nil {
		return nil, err
	}
	if f.cfg.RegisterPass != "" && subtle.ConstantTimeCompare([]byte(texts["register_pass"]), []byte(f.cfg.RegisterPass)) != 1 {
		return nil, registryFault("member register_pass is missing or wrong; ask the operator of this relay for it")
	}
	return reg, nil
}

func pluginsOf(r *request) ([]string, error) {
	v, found := r.param.Member("plugins")
	if !found {
		return nil, nil
	}
	if v.Kind() != xmlrpc.Array {
		return nil, wrongParams("%s: member plugins must be an array of strings", r.method)
	}
	plugins := []string{}
	for e := range v.Elements() {
		s, ok := e.Str()
		if !ok {
			return nil, wrongParams("%s: member plugins must be an array of strings", r.method)
		}
		if plugins = append(plugins, s); len(plugins) > maxPlugins {
			return nil, wrongParams("%s: plugins may have at most %d elements", r.method, maxPlugins)
		}
	}
	return plugins, nil
}

func maxAgeOf(r *request) (time.Duration, error) {
	v, found := r.param.Member("max_age")
	if !found {
		return 0, nil
	}
	s, ok := v.Float()
	if !ok || s < 0 || s > maxMaxAge {
		return 0, wrongParams("%s: member max_age must be a number of seconds from 0 to %d", r.method, maxMaxAge)
	}
	return time.Duration(s * float64(time.Second)), nil
}

func (f *Frontend) registerFault(err error) error {
	switch {
	case errors.Is(err, registry.ErrFull):
		return registryFault("the relay is full: as many satellites are registered as it takes (relay.get_max_satellites); try again when one has left")
	case errors.Is(err, registry.ErrInvalid), errors.Is(err, registry.ErrBadAddress):
		return wrongParams("%s", err)
	}
	f.log.Warn("registration failed", "error", err)
	return registryFault("the relay could not store the registration in time; register again (which is safe)")
}

// admit lets a registration in, unless it is a newcomer's whose address has as
// many as it may (--max-sats-per-addr). What is counted is this frontend's view
// and what has not come to it yet, so several frontends may let in a few more.
// settled is to be called with the registration's revision, 0 if it failed.
func (f *Frontend) admit(ctx context.Context, r *request, addr netip.AddrPort) (settled func(revision uint64), err error) {
	most := f.cfg.MaxSatsPerAddr
	if most == 0 {
		return func(uint64) {}, nil
	}
	if settled, ok := f.comers.add(addr, most, f.reg); ok {
		return settled, nil
	}
	switch _, err := f.find(ctx, r, string(registry.MakeID(addr))); {
	case err == nil:
		return func(uint64) {}, nil
	case !errors.Is(err, registry.ErrUnknown):
		return nil, err
	}
	return nil, registryFault("%s has registered %d satellites, as many as one address may (--max-sats-per-addr); deregister one first", addr.Addr(), most)
}

// comers are the registrations that the view may lack: those under way, and
// those that stand while the view is behind.
type comers struct {
	mu  sync.Mutex
	all []*comer
}

type comer struct {
	addr     netip.AddrPort
	revision uint64    // math.MaxUint64 while under way, 0 if it failed
	until    time.Time // zero while under way
}

// add counts one more, if with those that stand there are no more than most.
func (c *comers) add(addr netip.AddrPort, most int, reg *registry.Registry) (settled func(revision uint64), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, seen := time.Now(), reg.Revision()
	c.all = slices.DeleteFunc(c.all, func(x *comer) bool {
		return x.revision <= seen || !x.until.IsZero() && now.After(x.until)
	})
	unseen := 0
	for _, x := range c.all {
		if x.addr.Addr() != addr.Addr() {
			continue
		}
		if _, found := reg.Lookup(registry.MakeID(x.addr)); !found {
			unseen++
		}
	}
	if unseen+reg.LenAt(addr.Addr()) >= most {
		return nil, false
	}
	x := &comer{addr: addr, revision: math.MaxUint64}
	c.all = append(c.all, x)
	return func(revision uint64) {
		c.mu.Lock()
		defer c.mu.Unlock()
		x.revision, x.until = revision, time.Now().Add(unseenFor)
	}, true
}

// awaitView waits a moment for a revision to come to this process's view.
func (f *Frontend) awaitView(ctx context.Context, revision uint64) {
	ctx, cancel := context.WithTimeout(ctx, f.settle)
	defer cancel()
	_ = f.reg.WaitRevision(ctx, revision)
}

// find gives the satellite that is registered under an id. Where the view does
// not know it, it asks the leader: a view may be behind, and a satellite that
// has just registered with another frontend must not be told that it has not.
// An id holds the address, so the view cannot know a registered id's otherwise.
// The error is nil, a Fault, or registry.ErrUnknown.
func (f *Frontend) find(ctx context.Context, r *request, text string) (*registry.Satellite, error) {
	id, _, err := registry.ParseID(text)
	if err != nil {
		return nil, registry.ErrUnknown
	}
	if sat, ok := f.reg.Lookup(id); ok {
		return sat, nil
	}
	if !f.lookups.allow(r.from.addr) {
		return nil, registryFault("no satellite is known as '%s', and %s has asked for too many unknown ones to look further; wait a second", id, r.from.addr)
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	return f.reg.LookupLeader(ctx, id)
}

// deregister answers relay.deregister (protocol page, "relay.register"): an
// unknown id is a KeyError and is found out first.
func (f *Frontend) deregister(ctx context.Context, r *request) (xmlrpc.Value, error) {
	sat, err := f.find(ctx, r, r.text)
	if errors.Is(err, registry.ErrUnknown) {
		return xmlrpc.Value{}, keyFault(r.text)
	}
	if err != nil {
		return xmlrpc.Value{}, err
	}
	if sat.Addr.Addr() != r.from.addr {
		return xmlrpc.Value{}, registryFault("'%s' can be deregistered from its own address only, and this call comes from %s", sat.ID, r.from.addr)
	}
	ctx, cancel := r.from.detached(f.cfg.PublishTimeout)
	defer cancel()
	err = f.reg.Deregister(ctx, sat.ID)
	if errors.Is(err, registry.ErrUnknown) {
		return xmlrpc.Value{}, keyFault(r.text)
	}
	if err != nil {
		return xmlrpc.Value{}, err
	}
	f.awaitGone(ctx, sat)
	f.clus.Emit(cluster.Event{
		Kind: cluster.EventDeregistered, Satellite: string(sat.ID), Nick: sat.Nick, Partition: sat.ID.Partition(),
		Generation: sat.Generation, Reason: "by itself",
	})
	f.log.Info("satellite deregistered", "host_id", string(sat.ID))
	return answerOK, nil
}

// awaitGone waits a moment until this process's view has lost a registration.
func (f *Frontend) awaitGone(ctx context.Context, sat *registry.Satellite) {
	ctx, cancel := context.WithTimeout(ctx, f.settle)
	defer cancel()
	for {
		now, found := f.reg.Lookup(sat.ID)
		if !found || now.Generation != sat.Generation {
			return
		}
		if err := f.reg.WaitRevision(ctx, f.reg.Revision()+1); err != nil {
			return
		}
	}
}

// relay answers relay.relay (protocol page, "relay.relay and notify").
func (f *Frontend) relay(ctx context.Context, r *request) (xmlrpc.Value, error) {
	start := time.Now()
	msg, err := f.message(ctx, r)
	if err == nil {
		err = f.limitRate(registry.ID(msg.Sender))
	}
	if err != nil {
		f.metrics.relay(refusalOf(err))
		return xmlrpc.Value{}, err
	}
	// Whether the message is taken does not depend on the sender's patience.
	ctx, cancel := r.from.detached(f.cfg.PublishTimeout)
	defer cancel()
	if err := f.clus.Log().Publish(ctx, msg); err != nil {
		return xmlrpc.Value{}, f.relayFault(err, len(msg.Body))
	}
	f.metrics.relay("accepted")
	f.metrics.acceptSeconds.Observe(time.Since(start).Seconds())
	return answerOK, nil
}

// message makes the log's message of a call: the members as they came, without
// the two that are the relay's own, and with the sender's id in normal form.
// It checks that the sender is registered and that the call comes from it.
func (f *Frontend) message(ctx context.Context, r *request) (cluster.Message, error) {
	var (
		msg       cluster.Message
		body      strings.Builder
		sender    *registry.Satellite
		hasData   bool
		memberErr error
	)
	body.Grow(len(r.param.Raw()))
	members := r.param.RawMembers()
	r.param = xmlrpc.Value{} // so that not both are kept while the message waits
	for name, raw := range members {
		switch name {
		case memberPass, memberMsgID:
			continue
		case memberData:
			hasData = true
		case memberDedup:
			if msg.DedupID, memberErr = stringMember(xmlrpc.StructOf(raw), r.method, memberDedup); memberErr != nil {
				return msg, memberErr
			}
		case memberHostID:
			if sender, memberErr = f.sender(ctx, r, xmlrpc.StructOf(raw)); memberErr != nil {
				return msg, memberErr
			}
			raw = normalHostID(raw, sender.ID)
		}
		body.WriteString(raw)
	}
	if sender == nil {
		return msg, wrongParams("%s: member host_id, the id that relay.register returned, is missing", r.method)
	}
	if !hasData {
		return msg, wrongParams("%s: member data, what to relay, is missing", r.method)
	}
	msg.Sender, msg.Body = string(sender.ID), body.String()
	return msg, nil
}

// sender finds and checks the satellite that a call of relay.relay names.
func (f *Frontend) sender(ctx context.Context, r *request, holder xmlrpc.Value) (*registry.Satellite, error) {
	text, err := stringMember(holder, r.method, memberHostID)
	if err != nil {
		return nil, err
	}
	sat, err := f.find(ctx, r, text)
	if errors.Is(err, registry.ErrUnknown) {
		return nil, &refusal{"not_registered", registryFault("'%s' is not registered with this relay; call relay.register first and use the id that it returns", shown(text))}
	}
	var fault *xmlrpc.Fault
	if err != nil && !errors.As(err, &fault) {
		f.log.Warn("sender not looked up", "host_id", shown(text), "error", err)
		return nil, &refusal{"failed", registryFault("the message was not accepted: the relay does not know '%s' and could not ask its broker; send it again in a few seconds", shown(text))}
	}
	if err != nil {
		return nil, err
	}
	if !f.cfg.AnySender && sat.Addr.Addr() != r.from.addr {
		return nil, &refusal{"wrong_address", registryFault("'%s' can relay from its own address only, and this call comes from %s; use the id that relay.register returned to you (an operator can allow this by --any-sender)",
			sat.ID, r.from.addr)}
	}
	return sat, nil
}

// refusal is a Fault for which a metric has a label of its own.
type refusal struct {
	reason string
	fault  *xmlrpc.Fault
}

func (r *refusal) Error() string { return r.fault.Error() }
func (r *refusal) Unwrap() error { return r.fault }

func refusalOf(err error) string {
	var r *refusal
	if errors.As(err, &r) {
		return r.reason
	}
	return "invalid"
}

// normalHostID replaces a host id written in another way, like [::1]:9000, by
// the one under which the recipients know the sender.
func normalHostID(raw string, id registry.ID) string {
	if v, _ := xmlrpc.StructOf(raw).Member(memberHostID); v.Raw() == xmlrpc.NewString(string(id)).Raw() {
		return raw
	}
	return rawMember(memberHostID, xmlrpc.NewString(string(id)))
}

// rawMember is a member of a struct as RawMembers gives it.
func rawMember(name string, v xmlrpc.Value) (raw string) {
	for _, raw = range xmlrpc.NewStruct(xmlrpc.Field{Name: name, Value: v}).RawMembers() {
		break
	}
	return raw
}

// relayFault says why a message was not taken.
func (f *Frontend) relayFault(err error, size int) error {
	switch {
	case errors.Is(err, cluster.ErrQueueFull):
		f.metrics.relay("queue_full")
		return registryFault("queue full: the relay's log has no room left; try again later")
	case errors.Is(err, cluster.ErrTooLarge):
		f.metrics.relay("too_large")
		return registryFault("message too large: %d bytes in the relay's form, more than its broker takes; send less at once", size)
	case errors.Is(err, cluster.ErrShortOfDisk):
		f.metrics.relay("short_of_disk")
		return registryFault("relay short of disk: nothing is accepted until its operator has freed some; try again later")
	case errors.Is(err, cluster.ErrMaybeAccepted):
		f.metrics.relay("maybe_accepted")
		f.log.Warn("message may have been accepted", "error", err)
		return registryFault("the message may have been accepted: the relay's broker did not say so within %s; to repeat it safely, send it with a dedup_id", f.cfg.PublishTimeout)
	}
	f.log.Warn("message not accepted", "error", err)
	switch {
	case errors.Is(err, cluster.ErrStore):
		f.metrics.relay("store_failed")
		return registryFault("the message was not accepted: a write to the disk of the relay's broker failed, and the broker starts anew; send it again in a few seconds")
	case errors.Is(err, cluster.ErrUnavailable):
		f.metrics.relay("failed")
		return registryFault("the message was not accepted: the relay could not reach its broker; send it again in a few seconds")
	}
	f.metrics.relay("denied")
	return registryFault("the message was not accepted: the relay's broker refuses it, and sending it again will not help; tell the relay's operator, whose log says why")
}
