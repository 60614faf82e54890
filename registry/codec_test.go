package registry

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func testTraffic(n int) TrafficRecord {
	now := time.Date(2026, 11, 23, 1, 2, 3, 456789000, time.UTC)
	r := TrafficRecord{
		Partition: 31, Epoch: 12, ReadTo: 1763856000000500,
		Totals: Totals{Recipients: 1 << 40, Delivered: 5, Refused: 4, Expired: 3, Dropped: 2},
	}
	for i := range n {
		r.Satellites = append(r.Satellites, Traffic{
			ID: testID(i), Generation: uint64(1000 + i), Position: r.ReadTo - uint64(i%3), Sent: uint64(i * 7), SentAt: now,
			Received: uint64(i * 900), Refused: 1, Own: uint64(i * 7), ReceivedAt: now, State: StateLive,
		})
	}
	return r
}

func TestTrafficRecordReadsBackAsItWasWritten(t *testing.T) {
	t.Parallel()
	want := testTraffic(3)
	want.Satellites = append(want.Satellites,
		Traffic{ID: "[2001:db8::1]:80", Position: want.ReadTo + 9, State: 200, LastError: strings.Repeat("e", MaxLastError)},
		Traffic{
			ID: "255.255.255.254:65535", Generation: math.MaxUint64, Position: 1, Sent: math.MaxUint64, Received: math.MaxUint64,
			Refused: math.MaxUint64, Expired: math.MaxUint64, Own: math.MaxUint64, Attempts: math.MaxUint32, State: StateParked,
			RetryAt: time.UnixMicro(-1).UTC(),
		},
		Traffic{ID: "10.9.9.9:1", Position: math.MaxUint64})
	b, err := encodeTraffic(&want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeTraffic(b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("record read back:\n got %+v, %v\nwant %+v", got, err, want)
	}
}

func TestPingRecordReadsBackAsItWasWritten(t *testing.T) {
	t.Parallel()
	want := PingRecord{Partition: 7, Epoch: 3, Satellites: []Ping{
		{ID: testID(1), Generation: 5, Count: 10, Fails: 2, Current: 1.25, Min: 0.5, Max: 30, Sum: 99.5, At: time.Unix(1763856000, 0).UTC(), OneAtATime: true},
		{ID: "[2001:db8::1]:80", Current: -1, Failing: math.MaxUint32, FailingSince: time.UnixMicro(1763856000000001).UTC()},
	}}
	for _, took := range []time.Duration{0, time.Second, 2 * time.Hour, 20 * time.Hour} {
		want.Satellites[0].Remember(took)
		want.Satellites[0].RememberFailed()
	}
	b, err := encodePing(&want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodePing(b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("record read back:\n got %+v, %v\nwant %+v", got, err, want)
	}
}

func TestRecordOfAnotherVersionIsRefusedClearly(t *testing.T) {
	t.Parallel()
	for _, b := range [][]byte{nil, {}, {0}, {2}, {2, 1, 1, 0}, {255}} {
		_, err := decodeTraffic(b)
		_, pingErr := decodePing(b)
		if !errors.Is(err, ErrUnreadable) || !errors.Is(pingErr, ErrUnreadable) {
			t.Errorf("record % x: got %v and %v, want ErrUnreadable", b, err, pingErr)
		}
		if len(b) > 0 && !strings.Contains(err.Error(), "version") {
			t.Errorf("record % x: error %q does not name the version", b, err)
		}
	}
}

func TestFieldsOfALaterVersionAreSkipped(t *testing.T) {
	t.Parallel()
	// Version 1 of the ping record, with one byte appended to the header and three to the entry.
	entry := append([]byte{6, 10, 0, 0, 1, 0, 80, 5, 10, 2}, make([]byte, 32)...)
	entry = append(entry, 0, 1, 4, 0, 0, 'n', 'e', 'w')
	b := append([]byte{1, 3, 7, 9, 'x', 1, byte(len(entry))}, entry...)
	got, err := decodePing(b)
	want := PingRecord{Partition: 7, Epoch: 9, Satellites: []Ping{{ID: "10.0.0.1:80", Generation: 5, Count: 10, Fails: 2, OneAtATime: true, Failing: 4}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestPingRecordsOfEarlierVersionsAreRead(t *testing.T) {
	t.Parallel()
	entry := append([]byte{6, 10, 0, 0, 1, 0, 80, 5, 10, 2}, make([]byte, 32)...)
	for name, end := range map[string][]byte{"before Recent": {0, 1, 4}, "before FailingSince": {0, 1, 4, 0}} {
		entry := append(entry[:len(entry):len(entry)], end...)
		b := append([]byte{1, 2, 7, 9, 1, byte(len(entry))}, entry...)
		got, err := decodePing(b)
		want := PingRecord{Partition: 7, Epoch: 9, Satellites: []Ping{{ID: "10.0.0.1:80", Generation: 5, Count: 10, Fails: 2, OneAtATime: true, Failing: 4}}}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
		}
	}
}

func TestDamagedRecordIsRefused(t *testing.T) {
	t.Parallel()
	r := testTraffic(2)
	whole, err := encodeTraffic(&r)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) {
		if got, err := decodeTraffic(whole[:n]); !errors.Is(err, ErrUnreadable) {
			t.Errorf("first %d of %d bytes: got %+v, %v, want ErrUnreadable", n, len(whole), got, err)
		}
	}
	// A count that promises more entries than there are bytes must not make the reader allocate them.
	huge := append([]byte{1, 2, 7, 9}, 0xff, 0xff, 0xff, 0xff, 0x0f)
	if got, err := decodePing(huge); !errors.Is(err, ErrUnreadable) {
		t.Errorf("count beyond the record: got %+v, %v, want ErrUnreadable", got, err)
	}
}

func TestRecordsOfAFullClusterFit(t *testing.T) {
	t.Parallel()
	usual := testTraffic(3125)
	b, err := encodeTraffic(&usual)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("traffic: %d bytes for %d satellites, %d each", len(b), len(usual.Satellites), len(b)/len(usual.Satellites))

	worst := testTraffic(4000)
	for i := range worst.Satellites {
		s := &worst.Satellites[i]
		s.Generation, s.Position, s.Sent, s.Received, s.Refused, s.Expired, s.Own = math.MaxUint64, 1, math.MaxUint64, math.MaxUint64, math.MaxUint64, math.MaxUint64, math.MaxUint64
		s.RetryAt, s.Attempts, s.LastError = s.SentAt, math.MaxUint32, strings.Repeat("é", MaxLastError)
	}
	if b, err = encodeTraffic(&worst); err != nil {
		t.Fatal(err)
	}
	t.Logf("traffic at worst: %d bytes for %d satellites, %d each", len(b), len(worst.Satellites), len(b)/len(worst.Satellites))
	got, err := decodeTraffic(b)
	if err != nil || got.Satellites[0].LastError != strings.Repeat("é", MaxLastError/2) {
		t.Errorf("got last error %q, %v, want it cut to %d bytes", got.Satellites[0].LastError, err, MaxLastError)
	}

	// Beyond that the texts go first, and only then is it refused.
	for len(worst.Satellites) < 6000 {
		worst.Satellites = append(worst.Satellites, worst.Satellites[:1000]...)
	}
	if b, err = encodeTraffic(&worst); err != nil || len(b) > MaxRecord {
		t.Errorf("6000 at worst: got %d bytes, %v, want at most %d", len(b), err, MaxRecord)
	}
	if got, err = decodeTraffic(b); err != nil || len(got.Satellites) != 6000 || got.Satellites[0].LastError != "" {
		t.Errorf("6000 at worst: got %d satellites, %v, want all without texts", len(got.Satellites), err)
	}
	worst.Satellites = append(worst.Satellites, worst.Satellites...)
	if b, err = encodeTraffic(&worst); err == nil {
		t.Errorf("12000 at worst: got %d bytes, want an error", len(b))
	}

	pings := PingRecord{Satellites: make([]Ping, 3125)}
	for i := range pings.Satellites {
		pings.Satellites[i] = Ping{ID: testID(i), Generation: uint64(i), Count: 1000, Fails: 10, At: time.Now()}
		for range RecentPings {
			pings.Satellites[i].Remember(300 * time.Millisecond)
		}
	}
	if b, err = encodePing(&pings); err != nil {
		t.Fatal(err)
	}
	t.Logf("pings: %d bytes for %d satellites, %d each", len(b), len(pings.Satellites), len(b)/len(pings.Satellites))
}

func TestOwedCountsWhatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what   string
		t      Traffic
		readTo uint64
		want   int64
	}{
		{"nothing read", Traffic{}, 0, 0},
		{"all done", Traffic{Position: 100}, 100, 0},
		{"ten behind", Traffic{Position: 90}, 100, 10},
		{"ten behind, four of them its own", Traffic{Position: 90, Sent: 9, Own: 5}, 100, 6},
		{"ahead of the record", Traffic{Position: 110}, 100, 0},
		{"fresh, began after the record", Traffic{Position: 1763856000000000}, 0, 0},
		{"figures that do not fit", Traffic{Position: 90, Sent: 50}, 100, 0},
	} {
		if got := c.t.Owed(c.readTo); got != c.want {
			t.Errorf("%s: got %d owed, want %d", c.what, got, c.want)
		}
	}
}

func FuzzDecodeTraffic(f *testing.F) {
	r := testTraffic(3)
	r.Satellites[1].LastError = "connection refused"
	b, err := encodeTraffic(&r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeTraffic(b)
		if err != nil {
			if !errors.Is(err, ErrUnreadable) {
				t.Fatalf("got %v, want ErrUnreadable", err)
			}
			return
		}
		again, err := encodeTraffic(&r)
		if err != nil {
			return // longer than MaxRecord: overlong numbers make no difference to that
		}
		r2, err := decodeTraffic(again)
		if err != nil {
			t.Fatal(err)
		}
		if len(again) < MaxRecord/2 && !reflect.DeepEqual(r, r2) {
			t.Fatalf("read back:\n got %+v\nwant %+v", r2, r)
		}
	})
}

func FuzzDecodePing(f *testing.F) {
	b, err := encodePing(&PingRecord{Partition: 1, Epoch: 2, Satellites: []Ping{{ID: testID(1), Current: -1}, {ID: "[2001:db8::1]:80", Count: 3, OneAtATime: true}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodePing(b)
		if err != nil {
			if !errors.Is(err, ErrUnreadable) {
				t.Fatalf("got %v, want ErrUnreadable", err)
			}
			return
		}
		again, err := encodePing(&r)
		if err != nil {
			return
		}
		r2, err := decodePing(again)
		if err != nil {
			t.Fatal(err)
		}
		if third, err := encodePing(&r2); err != nil || !bytes.Equal(third, again) { // floats may be NaN: compare bytes
			t.Fatalf("encoded again: got % x, %v, want % x", third, err, again)
		}
	})
}

func BenchmarkTrafficRecord(b *testing.B) {
	r := testTraffic(3125)
	for b.Loop() {
		enc, err := encodeTraffic(&r)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := decodeTraffic(enc); err != nil {
			b.Fatal(err)
		}
	}
}
