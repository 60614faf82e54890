package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// Event is something that an operator may want to see. Its subject is co2.event.<kind>.
type Event struct {
	Version   int       `json:"v"`
	Time      time.Time `json:"time"`
	Kind      string    `json:"kind"`
	Satellite string    `json:"satellite,omitempty"`
	Nick      string    `json:"nick,omitempty"`
	Worker    string    `json:"worker,omitempty"`
	Partition int       `json:"partition"`
	// Generation tells registrations of one host id apart: the one that the event is about began at this revision of the
	// bucket SATELLITES.
	Generation uint64 `json:"generation,omitempty"`
	First      string `json:"first,omitempty"` // msg_id of the first message concerned
	Last       string `json:"last,omitempty"`  // and of the last
	Count      uint64 `json:"count,omitempty"`
	Reason     string `json:"reason,omitempty"`
}

// Kinds of events; docs/events.md shows each. They are the last part of the subject, so new ones must stay few.
const (
	EventRegistered   = "registered"
	EventDeregistered = "deregistered"
	EventParked       = "parked"
	EventResumed      = "resumed"
	EventRefused      = "refused"
	EventGap          = "gap"
	EventUnreachable  = "unreachable"
	EventReachable    = "reachable"
	EventRewound      = "rewound"
	EventWorkerJoined = "worker_joined"
	EventWorkerLeft   = "worker_left"
	EventMoved        = "partition_moved"
)

// EventKinds lists the kinds.
func EventKinds() []string {
	return []string{
		EventRegistered, EventDeregistered, EventParked, EventResumed, EventRefused, EventGap,
		EventUnreachable, EventReachable, EventRewound, EventWorkerJoined, EventWorkerLeft, EventMoved,
	}
}

const eventsKept = 1024 // waiting to be sent; more are dropped and counted

// eventQueue sends events beside everything else.
type eventQueue struct {
	c       *Cluster
	waiting chan emission
	dropped atomic.Uint64
}

// emission is an event on its way, and who wants to know what became of it.
type emission struct {
	Event
	done func(written bool) // or nil
}

func (e *emission) ends(written bool) {
	if e.done != nil {
		e.done(written)
	}
}

func newEventQueue(c *Cluster) *eventQueue {
	q := &eventQueue{c: c, waiting: make(chan emission, eventsKept)}
	c.background(q.run)
	return q
}

// Emit publishes e soon, without ever blocking: an event that finds no room or no broker is dropped and counted. It fills
// in Version and, if zero, Time.
func (c *Cluster) Emit(e Event) { c.EmitThen(e, nil) }

// EmitThen is Emit, and calls done, if it is not nil, from any goroutine when the broker has written the event, or when it
// was dropped.
func (c *Cluster) EmitThen(e Event, done func(written bool)) {
	e.Version = schemaVersion
	if e.Time.IsZero() {
		e.Time = time.Now().UTC()
	}
	select {
	case c.events.waiting <- emission{e, done}:
	default:
		c.events.dropped.Add(1)
		(&emission{e, done}).ends(false)
	}
}

// EventsDropped counts the events that Emit could not publish.
func (c *Cluster) EventsDropped() uint64 { return c.events.dropped.Load() }

// run sends until Close, and then what is left as far as a second allows. What was being sent when Close came is sent
// again: a tool emits one event and ends.
func (q *eventQueue) run() {
	var unsent []emission
	for q.c.stop.Err() == nil {
		select {
		case e := <-q.waiting:
			err := q.send(q.c.stop, e.Event)
			if err != nil && q.c.stop.Err() != nil {
				unsent = append(unsent, e)
				break
			}
			q.ended(e, err)
		case <-q.c.stop.Done():
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for {
		if len(unsent) == 0 {
			select {
			case e := <-q.waiting:
				unsent = append(unsent, e)
			default:
				return
			}
		}
		q.ended(unsent[0], q.send(ctx, unsent[0].Event))
		unsent = unsent[1:]
	}
}

func (q *eventQueue) ended(e emission, err error) {
	if err != nil {
		q.dropped.Add(1)
		q.c.log.Warn("event dropped", "kind", e.Kind, "error", err)
	}
	e.ends(err == nil)
}

// send repeats until the broker has the event, refuses it, or ctx ends.
func (q *eventQueue) send(ctx context.Context, e Event) error {
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	m := &nats.Msg{Subject: eventSubjects + e.Kind, Data: body, Header: nats.Header{headerMsgID: {e.id()}}}
	ctx, cancel := context.WithTimeout(ctx, apiTotal)
	defer cancel()
	for pause := apiPause; ; pause = min(2*pause, time.Second) {
		try, done := q.c.try(ctx, apiTry)
		_, err := q.c.publish(try, m)
		done()
		if err == nil {
			return nil
		}
		if apiCode(err) != 0 && !isPassing(err) && apiCode(err) != codeIDInProcess || !sleep(ctx, pause) {
			return err
		}
	}
}

// id makes two reports of one thing one event: what it is about, its first message, and the minute. A gap is the same
// whoever reports it, and when: a worker that was killed may have done so already.
func (e Event) id() string {
	h := fnv.New64a()
	if e.Kind == EventGap {
		fmt.Fprintf(h, "%s|%s|%s", e.Satellite, e.First, e.Last)
		return "e-" + e.Kind + "-" + strconv.FormatUint(h.Sum64(), 36)
	}
	fmt.Fprintf(h, "%s|%s|%s|%d|%s|%d|%d", e.Kind, e.Satellite, e.Worker, e.Partition, e.First, e.Generation, e.Time.Unix()/60)
	return "e-" + e.Kind + "-" + strconv.FormatUint(h.Sum64(), 36)
}

// Events calls fn for every event since a time, then for new ones, until ctx ends (nil).
func (c *Cluster) Events(ctx context.Context, since time.Time, fn func(Event)) error {
	next, err := c.firstSince(ctx, eventsStream, since)
	if err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the caller has ended it
		}
		return fmt.Errorf("follow events: %w", err)
	}
	return c.followEvents(ctx, next, func(_ uint64, e Event) {
		if e.Version > 0 {
			fn(e)
		}
	})
}

// PastEvents gives every event since a time that stands now, oldest first.
func (c *Cluster) PastEvents(ctx context.Context, since time.Time) ([]Event, error) {
	last, err := c.lastOf(ctx, eventsStream)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	next, err := c.firstSince(ctx, eventsStream, since)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	if next > last {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, listLimit)
	defer cancel()
	var all []Event
	done := false
	err = c.followEvents(ctx, next, func(seq uint64, e Event) {
		if !done && seq <= last && e.Version > 0 {
			all = append(all, e)
		}
		if seq >= last {
			done = true
			cancel()
		}
	})
	if err == nil && !done {
		err = unavailable(ctx.Err())
	}
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return all, nil
}

// followEvents hands out events with their sequences, from one on. What is not an event comes as a zero one.
func (c *Cluster) followEvents(ctx context.Context, from uint64, fn func(seq uint64, e Event)) error {
	f := &follower{c: c, stream: eventsStream, next: from}
	f.read = func(ctx context.Context, from uint64) ([]record, error) { return c.readNext(ctx, eventsStream, from) }
	f.hand = func(records []record) {
		for _, r := range records {
			var e Event
			if !strings.HasPrefix(r.subject, eventSubjects) || json.Unmarshal(r.data, &e) != nil {
				e = Event{}
			}
			fn(r.seq, e)
		}
	}
	return f.run(ctx)
}

// firstSince is the sequence of the first message stored at or after a time; the next one to come if there is none.
func (c *Cluster) firstSince(ctx context.Context, stream string, since time.Time) (uint64, error) {
	last, err := c.lastOf(ctx, stream)
	if err != nil {
		return 0, err
	}
	since = since.UTC()
	m, err := c.getFromLeader(ctx, stream, getRequest{StartTime: &since, NextFor: ">"})
	if err != nil {
		return 0, err
	}
	if m == nil {
		return last + 1, nil
	}
	return m.Seq, nil
}
