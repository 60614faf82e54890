package delivery

import (
	"math/rand/v2"
	"reflect"
	"testing"
)

func TestCheckpointReadsBackWhatItWrote(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		want := checkpoint{read: r.Uint64N(1 << 52), revision: r.Uint64N(1 << 40)}
		for range r.IntN(50) {
			m := laneMark{hash: r.Uint64(), position: want.read - r.Uint64N(want.read+1), failing: r.IntN(2) == 0}
			if r.IntN(3) == 0 {
				m.figures, m.refused, m.expired = true, r.Uint64N(100), r.Uint64N(100)
			}
			if r.IntN(3) == 0 {
				m.gap = gap{r.Uint64N(1 << 52), r.Uint64N(1 << 52), 1 + r.Uint64N(100), reasonRetention}
			}
			want.lanes = append(want.lanes, m)
		}
		got, err := decodeCheckpoint(want.encode())
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

func TestCheckpointRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	whole := (&checkpoint{read: 1000, revision: 7, lanes: []laneMark{{hash: 1, position: 900, figures: true, refused: 3, gap: gap{850, 899, 50, reasonMaxAge}}}}).encode()
	for n := 1; n < len(whole); n++ {
		if c, err := decodeCheckpoint(whole[:n]); err == nil {
			t.Errorf("cut at %d: got %+v, want an error", n, c)
		}
	}
	newer := append([]byte{checkpointVersion + 1}, whole[1:]...)
	if _, err := decodeCheckpoint(newer); err == nil {
		t.Error("a newer version: got no error")
	}
	if c, err := decodeCheckpoint(nil); err != nil || c.read != 0 {
		t.Errorf("none: got %+v, %v, want an empty one", c, err)
	}
}

func FuzzCheckpointNeverPanics(f *testing.F) {
	f.Add((&checkpoint{read: 10, lanes: []laneMark{{hash: 5, position: 3, failing: true}}}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCheckpoint(b)
		if err == nil && len(c.lanes) > len(b) {
			t.Fatalf("%d lanes out of %d bytes", len(c.lanes), len(b))
		}
	})
}

func TestTwoLanesOfOneHashGoOnFromTheEarlierPosition(t *testing.T) {
	t.Parallel()
	c := checkpoint{read: 100, lanes: []laneMark{{hash: 1, position: 40}, {hash: 1, position: 30}, {hash: 2, position: 50}}}
	marks := c.marks()
	if got := marks[1].position; got != 30 {
		t.Errorf("got position %d, want 30", got)
	}
}
