package cluster

import (
	"errors"
	"testing"
)

// Invariant: a stream has gone back when it ends before a position that was reached before it was asked, and not when the
// follower was quicker than the answer.
func TestAnAnswerThatIsLateIsNoRewind(t *testing.T) {
	t.Parallel()
	ask := func(at end) (err error) {
		f := &follower{next: 30}
		for range maxRewound {
			_, err = f.check(t.Context(), at, 25)
		}
		return err
	}
	if err := ask(end{last: 20, position: 21, known: true}); err != nil {
		t.Errorf("position 30, asked at 21, which answered 20: got %v, want no error", err)
	}
	if err := ask(end{last: 20, position: 22, known: true}); !errors.Is(err, ErrRewound) {
		t.Errorf("position 30, asked at 22, which answered 20: got %v, want %v", err, ErrRewound)
	}
}
