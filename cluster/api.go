package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The JetStream API is spoken here directly: nats.go's helpers choose time-outs, settings (direct get) and retries that do
// not fit. Subjects and types are those of nats-server's jetstream_api.go.

const (
	apiFirst  = 500 * time.Millisecond // what was asked while there was no leader is never answered
	apiTry    = 2 * time.Second        // a leader change answers nobody; do not wait longer on one try
	apiTotal  = 15 * time.Second       // and takes up to 6 s (seen), so that this is enough for two in a row
	apiPause  = 100 * time.Millisecond
	apiMost   = 250 * time.Millisecond // between tries: a leader is elected late enough (up to 9 s)
	apiPrefix = "$JS.API."
)

// writeTry is for one try of a write that must not be repeated when its answer does not come. Tests make it longer.
var writeTry = apiTry

// response is what every answer of the API has.
type response struct {
	Error *jetstream.APIError `json:"error,omitempty"`
}

// call asks the API once. An answer that is a refusal comes back as *jetstream.APIError; none, as what nats.go says.
func (c *Cluster) call(ctx context.Context, subject string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode request %s: %w", subject, err)
	}
	if request == nil {
		body = nil
	}
	sent := time.Now()
	m, err := c.nc.RequestWithContext(ctx, apiPrefix+subject, body)
	c.calls.note(sent, err) // any answer will do
	if err != nil {
		return err
	}
	var r response
	if err := json.Unmarshal(m.Data, &r); err != nil {
		return fmt.Errorf("decode answer to %s: %w", subject, err)
	}
	if r.Error != nil {
		return r.Error
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(m.Data, answer); err != nil {
		return fmt.Errorf("decode answer to %s: %w", subject, err)
	}
	return nil
}

// ask calls until somebody answers, for requests that may be repeated. It gives up with ErrUnavailable after apiTotal or
// when ctx ends.
func (c *Cluster) ask(ctx context.Context, subject string, request, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, apiTotal)
	defer cancel()
	return c.askFor(ctx, subject, request, answer)
}

// askFor is ask without a limit of its own.
func (c *Cluster) askFor(ctx context.Context, subject string, request, answer any) error {
	var last error
	pause, patience := apiPause, apiFirst
	for ; ; pause, patience = min(2*pause, apiMost), min(2*patience, apiTry) {
		try, cancel := c.try(ctx, patience)
		err := c.call(try, subject, request, answer)
		cancel()
		if err == nil || (apiCode(err) != 0 && !isPassing(err)) || !isSilence(err) && apiCode(err) == 0 {
			return err
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		if !sleep(ctx, pause) {
			return unavailable(last)
		}
	}
}

// isSilence tells whether err means that nobody answered: not connected, nobody there, or no answer in time.
func isSilence(err error) bool {
	for _, silent := range []error{
		context.DeadlineExceeded, context.Canceled, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrDisconnected,
		nats.ErrReconnectBufExceeded, nats.ErrConnectionClosed, nats.ErrConnectionReconnecting, nats.ErrStaleConnection,
		errNotSent,
	} {
		if errors.Is(err, silent) {
			return true
		}
	}
	return false
}

// wasNotSent tells whether err shows that the request reached nobody, so that it had no effect.
func wasNotSent(err error) bool {
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrReconnectBufExceeded) ||
		errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrConnectionReconnecting) || errors.Is(err, errNotSent)
}

// errNotSent: what went out has no effect.
var errNotSent = errors.New("not sent")

// try bounds one try of a request: by a time, and by the connection. An answer that is not there when the connection breaks
// will never come.
func (c *Cluster) try(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, d)
	forget := c.tries.add(cancel)
	return ctx, func() { forget(); cancel() }
}

// tries are the requests under way on the connection c.nc.
type tries struct {
	mu  sync.Mutex
	all map[*context.CancelFunc]struct{}
}

func (t *tries) add(cancel context.CancelFunc) (forget func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all = map[*context.CancelFunc]struct{}{}
	}
	t.all[&cancel] = struct{}{}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.all, &cancel)
	}
}

// end ends all that are under way.
func (t *tries) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for cancel := range t.all {
		(*cancel)()
	}
}

// streamInfo asks the stream's leader.
func (c *Cluster) streamInfo(ctx context.Context, stream string) (*jetstream.StreamInfo, error) {
	info := new(jetstream.StreamInfo)
	if err := c.ask(ctx, "STREAM.INFO."+stream, nil, info); err != nil {
		return nil, fmt.Errorf("ask about stream %s: %w", stream, err)
	}
	return info, nil
}

// streamInfoOnce asks the stream's leader, and does not repeat.
func (c *Cluster) streamInfoOnce(ctx context.Context, stream string) (*jetstream.StreamInfo, error) {
	info := new(jetstream.StreamInfo)
	if err := c.call(ctx, "STREAM.INFO."+stream, nil, info); err != nil {
		return nil, fmt.Errorf("ask about stream %s: %w", stream, err)
	}
	return info, nil
}

// getRequest asks for one stored message.
type getRequest struct {
	Seq       uint64     `json:"seq,omitempty"`
	LastFor   string     `json:"last_by_subj,omitempty"`
	NextFor   string     `json:"next_by_subj,omitempty"`
	StartTime *time.Time `json:"start_time,omitempty"`
	Batch     int        `json:"batch,omitempty"`
	MaxBytes  int        `json:"max_bytes,omitempty"`
}

// stored is a message as the API hands it out.
type stored struct {
	Subject string      `json:"subject"`
	Seq     uint64      `json:"seq"`
	Header  []byte      `json:"hdrs,omitempty"`
	Data    []byte      `json:"data,omitempty"`
	Time    time.Time   `json:"time"`
	header  nats.Header `json:"-"`
}

// getFromLeader reads one message from the stream's leader; nil if there is none. tries is ask or call.
func (c *Cluster) getFromLeader(ctx context.Context, stream string, r getRequest) (*stored, error) {
	return c.getWith(ctx, c.ask, stream, r)
}

type apiFunc func(ctx context.Context, subject string, request, answer any) error

func (c *Cluster) getWith(ctx context.Context, do apiFunc, stream string, r getRequest) (*stored, error) {
	var answer struct {
		Message *stored `json:"message"`
	}
	err := do(ctx, "STREAM.MSG.GET."+stream, r, &answer)
	if apiCode(err) == codeNoMessage {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", stream, err)
	}
	m := answer.Message
	if m == nil {
		return nil, fmt.Errorf("read stream %s: answer without a message", stream)
	}
	if len(m.Header) > 0 {
		if m.header, err = nats.DecodeHeadersMsg(m.Header); err != nil {
			return nil, fmt.Errorf("read stream %s: headers of %d: %w", stream, m.Seq, err)
		}
	}
	return m, nil
}

// pubAck is the broker's answer to a publish.
type pubAck struct {
	Error     *jetstream.APIError `json:"error,omitempty"`
	Seq       uint64              `json:"seq"`
	Duplicate bool                `json:"duplicate"`
	Count     int                 `json:"count"`
}

// publish sends m once and waits for the broker's answer; a refusal is a *jetstream.APIError.
func (c *Cluster) publish(ctx context.Context, m *nats.Msg) (pubAck, error) {
	var ack pubAck
	sent := time.Now()
	answer, err := c.nc.RequestMsgWithContext(ctx, m)
	if err != nil {
		c.writes.note(sent, err)
		return ack, err
	}
	if err := json.Unmarshal(answer.Data, &ack); err != nil {
		return ack, fmt.Errorf("decode answer to publish: %w", err)
	}
	if ack.Error != nil {
		err = ack.Error
	}
	if !ack.Duplicate {
		c.writes.note(sent, err)
	}
	return ack, err
}
