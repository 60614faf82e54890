package frontend

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/co2relay/co2relay/internal/xmlrpc"
	"github.com/co2relay/co2relay/registry"
)

const (
	// perID is what an id takes beside its own bytes in an answer.
	perID = len("<value><string></string></value>")
	// moreIDs is by how much a list may grow while its call waits, in bytes.
	moreIDs = 4 << 10
)

// satellites answers *.get_satellites. It refuses before it builds an answer
// that would be too large, and holds no list while it waits for its turn.
func (f *Frontend) satellites(ctx context.Context, r *request) (xmlrpc.Value, error) {
	size := int64(moreIDs)
	for _, id := range f.reg.IDs() {
		size += int64(len(id) + perID)
	}
	if size-moreIDs > f.cfg.MaxAnswer {
		return xmlrpc.Value{}, &xmlrpc.Fault{Code: xmlrpc.CodeInternal,
			Text: "the list of " + strconv.Itoa(f.reg.Len()) + " satellites is longer than the relay's largest answer (--max-answer)"}
	}
	if err := r.reserve(ctx, size); err != nil {
		return xmlrpc.Value{}, err
	}
	return f.idList.of(f.reg.IDs()), nil
}

// idList keeps the ids as a value while they are the same: whoever asks shares it.
type idList struct {
	mu    sync.Mutex
	ids   []registry.ID // that value is made of
	value xmlrpc.Value
}

// of gives ids of the registry as a value. The registry never changes a slice
// that it gave away, so that one that begins at the same place is the same.
func (l *idList) of(ids []registry.ID) xmlrpc.Value {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(ids) > 0 && len(ids) == len(l.ids) && &ids[0] == &l.ids[0] {
		return l.value
	}
	values := make([]xmlrpc.Value, len(ids))
	for i, id := range ids {
		values[i] = xmlrpc.NewString(string(id))
	}
	l.ids, l.value = ids, xmlrpc.NewArray(values...)
	return l.value
}

func (f *Frontend) numSatellites(context.Context, *request) (xmlrpc.Value, error) {
	return xmlrpc.NewInt(int64(f.reg.Len())), nil
}

func (f *Frontend) maxSatellites(ctx context.Context, _ *request) (xmlrpc.Value, error) {
	n, err := f.maxSats.Get(ctx)
	if err != nil {
		return xmlrpc.Value{}, err
	}
	return xmlrpc.NewInt(int64(n)), nil
}

// known gives the satellite that a call asks about and its figures.
func (f *Frontend) known(ctx context.Context, r *request) (*registry.Satellite, *registry.Figures, error) {
	sat, err := f.find(ctx, r, r.text)
	if errors.Is(err, registry.ErrUnknown) {
		return nil, nil, registryFault("no satellite is registered as '%s'; relay.get_satellites lists those that are", shown(r.text))
	}
	if err != nil {
		return nil, nil, err
	}
	figures, err := f.reg.Figures(ctx, sat.ID)
	if err != nil {
		return nil, nil, err
	}
	return sat, &figures, nil
}

func (f *Frontend) satelliteCtime(ctx context.Context, r *request) (xmlrpc.Value, error) {
	sat, err := f.find(ctx, r, r.text)
	if errors.Is(err, registry.ErrUnknown) {
		return xmlrpc.Value{}, registryFault("no satellite is registered as '%s'; relay.get_satellites lists those that are", shown(r.text))
	}
	if err != nil {
		return xmlrpc.Value{}, err
	}
	return seconds(sat.Created), nil
}

func (f *Frontend) satelliteProps(ctx context.Context, r *request) (xmlrpc.Value, error) {
	sat, figures, err := f.known(ctx, r)
	if err != nil {
		return xmlrpc.Value{}, err
	}
	return xmlrpc.NewStruct(props(sat, figures, dateTime)...), nil
}

func (f *Frontend) satellitePropsRaw(ctx context.Context, r *request) (xmlrpc.Value, error) {
	sat, figures, err := f.known(ctx, r)
	if err != nil {
		return xmlrpc.Value{}, err
	}
	return xmlrpc.NewStruct(append(props(sat, figures, seconds), ownProps(sat, figures)...)...), nil
}

// props are the members of *.get_satellite_props, in the order of the protocol
// page ("Statistics"); when writes a time.
func props(sat *registry.Satellite, fig *registry.Figures, when func(time.Time) xmlrpc.Value) []xmlrpc.Field {
	p, t := &fig.Ping, &fig.Traffic
	current, average := pingTimes(p)
	return []xmlrpc.Field{
		{Name: "addr", Value: xmlrpc.NewArray(xmlrpc.NewString(sat.Addr.Addr().String()), xmlrpc.NewInt(int64(sat.Addr.Port())))},
		{Name: "host_id", Value: xmlrpc.NewString(string(sat.ID))},
		{Name: "nick", Value: xmlrpc.NewString(sat.Nick)},
		{Name: "ctime", Value: when(sat.Created)},
		{Name: "ping_current", Value: xmlrpc.NewDouble(current)},
		{Name: "ping_count", Value: number(p.Count)},
		{Name: "ping_min", Value: xmlrpc.NewDouble(p.Min)},
		{Name: "ping_max", Value: xmlrpc.NewDouble(p.Max)},
		{Name: "ping_avg", Value: xmlrpc.NewDouble(average)},
		{Name: "ping_fails", Value: number(p.Fails)},
		{Name: "send_count", Value: number(t.Sent)},
		{Name: "send_time", Value: when(t.SentAt)},
		{Name: "recv_count", Value: number(t.Received + t.Refused)},
		{Name: "recv_time", Value: when(t.ReceivedAt)},
	}
}

// pingTimes are the last round trip, -1 if there was none, and the mean of
// those that were answered, in milliseconds.
func pingTimes(p *registry.Ping) (current, average float64) {
	if answered := p.Count - p.Fails; p.Count > p.Fails {
		average = p.Sum / float64(answered)
	}
	if p.Count == 0 {
		return -1, average
	}
	return p.Current, average
}

// ownProps are what get_satellite_props_raw says beyond the protocol's members.
func ownProps(sat *registry.Satellite, fig *registry.Figures) []xmlrpc.Field {
	p, t := &fig.Ping, &fig.Traffic
	return []xmlrpc.Field{
		{Name: "plugins", Value: stringArray(sat.Plugins)},
		{Name: "scheme", Value: xmlrpc.NewString(sat.Scheme)},
		{Name: "max_age", Value: xmlrpc.NewDouble(sat.MaxAge.Seconds())},
		{Name: "state", Value: xmlrpc.NewString(t.State.String())},
		{Name: "backlog", Value: xmlrpc.NewInt(fig.Owed)},
		{Name: "refused_count", Value: number(t.Refused)},
		{Name: "expired_count", Value: number(t.Expired)},
		{Name: "position", Value: xmlrpc.NewString(strconv.FormatUint(t.Position, 10))},
		{Name: "attempts", Value: number(uint64(t.Attempts))},
		{Name: "retry_time", Value: seconds(t.RetryAt)},
		{Name: "last_error", Value: xmlrpc.NewString(t.LastError)},
		{Name: "ping_time", Value: seconds(p.At)},
		{Name: "ping_failing", Value: number(uint64(p.Failing))},
		{Name: "one_at_a_time", Value: xmlrpc.NewBool(p.OneAtATime)},
	}
}

// dateTime writes a time; one that never came is the epoch, so that a member
// never changes its type.
func dateTime(t time.Time) xmlrpc.Value {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return xmlrpc.NewTime(t)
}

// seconds writes a time as seconds since the epoch, 0 for one that never came.
func seconds(t time.Time) xmlrpc.Value {
	if t.IsZero() {
		return xmlrpc.NewDouble(0)
	}
	return xmlrpc.NewDouble(float64(t.UnixMicro()) / 1e6)
}

func number(n uint64) xmlrpc.Value { return xmlrpc.NewInt(int64(n)) }
