// Package recent keeps what was read a moment ago, so that many who ask for it
// cost the broker one question.
package recent

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Value is what was read last. Its fields may be changed before the first Get.
type Value[T any] struct {
	// Keep is for how long what was read serves further callers, and so does
	// that it could not be read.
	Keep time.Duration
	// Rest lets what took long to read serve so many times as long as it took,
	// where that is longer.
	Rest int
	// Patience, if positive, bounds one reading. What is not read within it
	// counts as a failure; that a caller's own context ended does not.
	Patience time.Duration

	read func(context.Context) (T, error)
	turn chan struct{} // holds the token of whoever reads

	mu    sync.Mutex // guards what follows
	last  T
	err   error
	began time.Time // the last reading
	until time.Time // it serves
}

// New gives a value that is read by a function, which is called by one caller
// at a time. What it returns beside an error is handed on with it.
func New[T any](keep time.Duration, read func(context.Context) (T, error)) *Value[T] {
	return &Value[T]{Keep: keep, read: read, turn: make(chan struct{}, 1)}
}

// Get gives the value. Callers who find it old wait for one of them to read it,
// and share what came of that; none waits beyond its own context. Beside an
// error comes what the reading gave, or else what the last one did.
func (v *Value[T]) Get(ctx context.Context) (T, error) {
	asked := time.Now()
	if last, serves, err := v.kept(asked); serves {
		return last, err
	}
	select {
	case v.turn <- struct{}{}:
		defer func() { <-v.turn }()
	case <-ctx.Done():
		last, _, _ := v.kept(asked)
		return last, fmt.Errorf("wait for a reading under way: %w", ctx.Err())
	}
	if last, serves, err := v.kept(asked); serves {
		return last, err
	}
	began := time.Now()
	patient, cancel := ctx, context.CancelFunc(func() {})
	if v.Patience > 0 {
		patient, cancel = context.WithTimeout(ctx, v.Patience)
	}
	defer cancel()
	now, err := v.read(patient)
	if err == nil || ctx.Err() == nil {
		v.keep(now, err, began)
	}
	return now, err
}

// kept gives the last reading, and tells whether it serves one who asked then:
// it is young enough, or it began later.
func (v *Value[T]) kept(asked time.Time) (last T, serves bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.last, time.Now().Before(v.until) || v.began.After(asked), v.err
}

func (v *Value[T]) keep(now T, err error, began time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.last, v.err, v.began = now, err, began
	ended := time.Now()
	v.until = ended.Add(v.Keep)
	if err == nil {
		// Its age counts from its beginning.
		v.until = began.Add(max(v.Keep, time.Duration(v.Rest)*ended.Sub(began)))
	}
}
