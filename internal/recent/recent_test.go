package recent

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var errAway = errors.New("away")

func TestAValueIsReadOnceForAllWhoAskMeanwhile(t *testing.T) {
	t.Parallel()
	for _, failure := range []error{nil, errAway} {
		var reads atomic.Int64
		entered, release := make(chan struct{}), make(chan struct{})
		v := New(time.Hour, func(context.Context) (int64, error) {
			n := reads.Add(1)
			if n == 1 {
				close(entered)
				<-release
			}
			return n, failure
		})
		var wg sync.WaitGroup
		get := func() {
			if got, err := v.Get(t.Context()); got != 1 || !errors.Is(err, failure) {
				t.Errorf("got %d, %v, want the first reading and %v", got, err, failure)
			}
		}
		wg.Go(get)
		<-entered
		for range 50 {
			wg.Go(get)
		}
		close(release)
		wg.Wait()
		get()
		if reads.Load() != 1 {
			t.Errorf("failure %v: read %d times, want once", failure, reads.Load())
		}
	}
}

func TestASlowReadingServesAllWhoWaitedForIt(t *testing.T) {
	t.Parallel()
	var reads, asking atomic.Int64
	release := make(chan struct{})
	v := New(0, func(context.Context) (int64, error) { // is old as soon as it is read
		if reads.Add(1) == 1 {
			<-release
		}
		return reads.Load(), nil
	})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			asking.Add(1)
			_, _ = v.Get(t.Context())
		})
	}
	for asking.Load() < 50 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	wg.Wait()
	// The first began before the others asked; one more serves them all, and
	// another one those that had only just set out to ask.
	if n := reads.Load(); n > 10 {
		t.Errorf("read %d times for 50 who waited together, want 2 or hardly more", n)
	}
}

func TestNobodyWaitsBeyondItsOwnContext(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}, 1), make(chan struct{})
	var slow atomic.Bool
	v := New(0, func(ctx context.Context) (string, error) {
		if slow.Load() {
			entered <- struct{}{}
			<-release
		}
		return "known", nil
	})
	if _, err := v.Get(t.Context()); err != nil {
		t.Fatal(err)
	}
	slow.Store(true)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = v.Get(t.Context()) })
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := v.Get(ctx); !errors.Is(err, context.Canceled) || got != "known" {
		t.Errorf("got %q, %v, want the context's error and what was known last", got, err)
	}
	close(release)
	wg.Wait()
}

// A caller who gives up says nothing of the broker; a reading that takes too
// long does.
func TestAFailureIsKeptUnlessTheCallerGaveUp(t *testing.T) {
	t.Parallel()
	var reads atomic.Int64
	v := New(time.Hour, func(ctx context.Context) (int64, error) {
		reads.Add(1)
		<-ctx.Done()
		return 0, ctx.Err()
	})
	v.Patience = 10 * time.Millisecond
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, _ = v.Get(gone)
	for range 3 {
		if _, err := v.Get(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want that it took too long", err)
		}
	}
	if n := reads.Load(); n > 2 {
		t.Errorf("read %d times, want the failure kept after the second", n)
	}
}
