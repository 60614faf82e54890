package satellite

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

// repeatFor is how long after it began a call of unknown outcome is repeated.
// The relay recognises a dedup_id for two minutes; the last repeat may take a
// while.
const repeatFor = 80 * time.Second

// maxStrangers is how often one message has the satellite register again:
// where its calls come from changing addresses, it would never end.
const maxStrangers = 3

// ErrMaybeRelayed is in the error of Relay when it is unknown whether the
// message was accepted: to relay it again may notify the others twice.
var ErrMaybeRelayed = errors.New("the relay may have accepted the message")

// Message is what RelayMessage sends.
type Message struct {
	Data    any    // the member data
	Members Struct // further members; host_id, data, dedup_id, notify_pass and msg_id are not among them
	DedupID string // makes a repeat of the same message within two minutes safe; "" = a random one
}

// Relay relays data to every other registered satellite. It returns nil once
// the relay has the message on disk. It waits until the satellite is
// registered, as long as ctx allows and the satellite has not ended. A call
// whose outcome is unknown it repeats under the same dedup_id, until ctx ends or
// for about 80 seconds, a wait for registration included; then errors.Is(err,
// ErrMaybeRelayed). A refusal (queue full, rate exceeded, ...) is a *Fault.
func (s *Satellite) Relay(ctx context.Context, data any) error {
	return s.RelayMessage(ctx, Message{Data: data})
}

// RelayMessage is Relay with all that a message may have.
func (s *Satellite) RelayMessage(ctx context.Context, m Message) error {
	fields, err := m.fields()
	if err != nil {
		return fmt.Errorf("relay message: %w", err)
	}
	unknown, strangers := false, 0
	var last error
	// Waiting is bounded by the relay's memory of the dedup_id, which may begin
	// with the first call that is unsure.
	waiting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	for n := 1; ; n++ {
		id, number, err := s.waitRegistered(waiting)
		if err != nil {
			return fail(errors.Join(err, last), unknown)
		}
		began := time.Now()
		fields[0].Value = xmlrpc.NewString(id)
		_, err = s.client.call(ctx, "relay.relay", xmlrpc.NewStruct(fields...))
		switch outcomeOf(err) {
		case accepted:
			return nil
		case denied:
			return fail(err, unknown)
		case stranger:
			if strangers++; strangers > maxStrangers {
				return fail(err, unknown)
			}
			s.forgotten(number)
		case unsure:
			if !unknown {
				unknown = true
				end := time.AfterFunc(time.Until(began.Add(s.repeatFor)), func() { stop(errors.New("a repeat might not be recognised any more")) })
				defer end.Stop()
			}
		}
		last = err
		if sleep(waiting, pause(n)) != nil {
			return fail(err, unknown)
		}
		s.log.Debug("relaying again", "host_id", id, "attempt", n+1, "error", err)
	}
}

func fail(err error, unknown bool) error {
	if unknown {
		err = fmt.Errorf("%w: %w", ErrMaybeRelayed, err)
	}
	return fmt.Errorf("relay message: %w", err)
}

// fields are the members of the call; the first one is the sender's host_id,
// and still empty.
func (m Message) fields() ([]xmlrpc.Field, error) {
	dedup := m.DedupID
	if dedup == "" {
		dedup = rand.Text()
	}
	if err := checkText(dedup); err != nil {
		return nil, err
	}
	data, err := toValue(m.Data)
	if err != nil {
		return nil, err
	}
	fields := []xmlrpc.Field{
		{Name: "host_id"},
		{Name: "data", Value: data},
		{Name: "dedup_id", Value: xmlrpc.NewString(dedup)},
	}
	taken := map[string]bool{"host_id": true, "data": true, "dedup_id": true, "notify_pass": true, "msg_id": true}
	for _, member := range m.Members {
		if taken[member.Name] || checkText(member.Name) != nil {
			return nil, fmt.Errorf("member %q: the name is taken, occurs twice or has control characters", member.Name)
		}
		taken[member.Name] = true
		v, err := toValue(member.Value)
		if err != nil {
			return nil, fmt.Errorf("member %q: %w", member.Name, err)
		}
		fields = append(fields, xmlrpc.Field{Name: member.Name, Value: v})
	}
	return fields, nil
}

// outcome of a call of relay.relay.
type outcome int

const (
	accepted outcome = iota
	denied           // for good
	stranger         // the relay does not know the satellite, or not from this address
	unsure           // it may have been accepted
)

// outcomeOf reads what the relay means. Its own faults all have code 1; which
// is which says the wording of the protocol page ("W: faults are code 1 …").
func outcomeOf(err error) outcome {
	var fault *Fault
	switch {
	case err == nil:
		return accepted
	case errors.As(err, &fault):
		switch {
		case fault.Code == xmlrpc.CodeRegistry && (strings.Contains(fault.Text, "not registered") ||
			strings.Contains(fault.Text, "its own address")):
			return stranger
		case fault.Code == xmlrpc.CodeRegistry && strings.Contains(fault.Text, "may have been accepted"):
			return unsure
		}
		return denied
	case refused(err):
		return denied
	}
	return unsure
}
