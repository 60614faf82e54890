package satellitetest

import (
	"context"
	"testing"
)

// Fleet is a number of satellites with the same Options.
type Fleet []*Satellite

// StartFleet starts n satellites that are closed when the test ends.
func StartFleet(t testing.TB, n int, opts Options) Fleet {
	t.Helper()
	f, err := OpenFleet(n, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// OpenFleet starts n satellites for a caller that is no test; Close stops them.
func OpenFleet(n int, opts Options) (Fleet, error) {
	f := make(Fleet, 0, n)
	for range n {
		s, err := Open(opts)
		if err != nil {
			f.Close()
			return nil, err
		}
		f = append(f, s)
	}
	return f, nil
}

// Close stops all.
func (f Fleet) Close() {
	for _, s := range f {
		s.Close()
	}
}

// SetBehaviour switches all.
func (f Fleet) SetBehaviour(b Behaviour) {
	for _, s := range f {
		s.SetBehaviour(b)
	}
}

// Reset makes all forget what they recorded.
func (f Fleet) Reset() {
	for _, s := range f {
		s.Reset()
	}
}

// Stats returns the sums of all; LastMsgID is the highest.
func (f Fleet) Stats() Stats {
	var sum Stats
	for _, s := range f {
		sum = sum.Add(s.Stats())
	}
	return sum
}

// WaitFor waits until ok of the sums, or returns the context's error.
func (f Fleet) WaitFor(ctx context.Context, ok func(Stats) bool) error {
	return waitFor(ctx, f.Stats, ok)
}

// WaitAll waits until ok of each satellite, or returns the context's error with
// the Stats of the first that is not.
func (f Fleet) WaitAll(ctx context.Context, ok func(Stats) bool) error {
	for _, s := range f {
		if err := s.WaitFor(ctx, ok); err != nil {
			return err
		}
	}
	return nil
}
