package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// Seat is one of the places that --max-sats allows. The stream SEATS has room for so many and refuses the next, exactly,
// however many register at once.
type Seat struct {
	Seq  uint64
	Key  string // whose it is
	Time time.Time
}

// TakeSeat takes a seat for key. ErrFull: all are taken. After any other error a seat may have been taken; the sweeper
// frees it.
func (c *Cluster) TakeSeat(ctx context.Context, key string) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTotal)
	defer cancel()
	m := &nats.Msg{Subject: seatSubject, Data: []byte(key), Header: nats.Header{
		headerMsgID: {c.relay.nextID()}, headerVersion: c.relay.version,
	}}
	for pause := apiPause; ; pause = min(2*pause, time.Second) {
		try, done := c.try(ctx, apiTry)
		ack, err := c.publish(try, m)
		done()
		switch code := apiCode(err); {
		case err == nil:
			return ack.Seq, nil
		case isFull(err):
			return 0, fmt.Errorf("take a seat for %s: %w", key, ErrFull)
		case code != 0 && code != codeIDInProcess && code != codeStoreFailed && !isPassing(err):
			return 0, fmt.Errorf("take a seat for %s: %w", key, err)
		}
		if !sleep(ctx, pause) {
			return 0, fmt.Errorf("take a seat for %s: %w", key, unavailable(err))
		}
	}
}

// FreeSeat gives a seat back. One that is free already is no error.
func (c *Cluster) FreeSeat(ctx context.Context, seq uint64) error {
	request := struct {
		Seq     uint64 `json:"seq"`
		NoErase bool   `json:"no_erase"`
	}{seq, true}
	err := c.ask(ctx, "STREAM.MSG.DELETE."+seatsStream, request, nil)
	switch code := apiCode(err); {
	case err == nil, code == codeSequenceNotFound, code == codeNoMessage:
		return nil
	case code == codeDeleteFailed:
		m, getErr := c.getFromLeader(ctx, seatsStream, getRequest{Seq: seq})
		if getErr == nil && m == nil {
			return nil
		}
	}
	return fmt.Errorf("free seat %d: %w", seq, err)
}

// Seats lists the seats that are taken, oldest first.
func (c *Cluster) Seats(ctx context.Context) ([]Seat, error) {
	ctx, cancel := context.WithTimeout(ctx, listLimit)
	defer cancel()
	f := &follower{c: c, stream: seatsStream, next: 1}
	f.read = func(ctx context.Context, from uint64) ([]record, error) { return c.readNext(ctx, seatsStream, from) }
	var err error
	if f.target, err = c.lastOf(ctx, seatsStream); err != nil {
		return nil, fmt.Errorf("list seats: %w", err)
	}
	if f.target == 0 {
		return nil, nil
	}
	var seats []Seat
	done := false
	f.hand = func(records []record) {
		for _, r := range records {
			if r.seq <= f.target {
				seats = append(seats, Seat{Seq: r.seq, Key: string(r.data), Time: r.time})
			}
		}
		if f.next > f.target {
			done = true
			cancel()
		}
	}
	err = f.run(ctx)
	if !done {
		return nil, fmt.Errorf("list seats: %w", unavailable(errors.Join(err, ctx.Err())))
	}
	return seats, nil
}

// SeatCount is the number of seats taken, asked of the leader.
func (c *Cluster) SeatCount(ctx context.Context) (int, error) {
	info, err := c.streamInfo(ctx, seatsStream)
	if err != nil {
		return 0, err
	}
	return int(info.State.Msgs), nil
}

// MaxSats is the number of seats there are, asked of the leader.
func (c *Cluster) MaxSats(ctx context.Context) (int, error) {
	info, err := c.streamInfo(ctx, seatsStream)
	if err != nil {
		return 0, err
	}
	return int(info.Config.MaxMsgs), nil
}
