package registry

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func testSatellite(id ID) *Satellite {
	return &Satellite{
		ID: id, Addr: id.Addr(), Nick: "lamp <&> \u2028 ü", Plugins: []string{"dmx", ""}, NotifyPass: `p"a\s` + "\x00\x7f\U0001F511",
		Began: 1763856000000000, Generation: 41, Revision: 42,
		Created: time.Date(2026, 11, 23, 1, 2, 3, 456e6, time.UTC),
		MaxAge:  90 * time.Second, Scheme: "https", TLSName: "lamp.example.org", Seat: 7,
	}
}

func TestValueReadsBackAsItWasWritten(t *testing.T) {
	t.Parallel()
	full := testSatellite("[2001:db8::1]:8080")
	plain := &Satellite{ID: "10.0.0.1:80", Addr: ID("10.0.0.1:80").Addr(), Nick: "10.0.0.1:80", Generation: 9, Revision: 9, Created: full.Created, Scheme: "http"}
	for _, want := range []*Satellite{full, plain} {
		b, err := encodeValue(want, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeValue(want.ID.Key(), b, want.Revision)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("value read back:\n got %+v, %v\nwant %+v", got, err, want)
		}
		if got.NotifyPass.Reveal() != want.NotifyPass.Reveal() {
			t.Error("the password changed on its way")
		}
	}
}

func TestFirstPutTakesItsOwnRevisionAsGeneration(t *testing.T) {
	t.Parallel()
	s := testSatellite("10.0.0.1:80")
	s.Generation = 0
	b, err := encodeValue(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "generation") {
		t.Errorf("first put writes a generation: %d bytes", len(b))
	}
	got, err := decodeValue(s.ID.Key(), b, 77)
	if err != nil || got.Generation != 77 || got.Revision != 77 {
		t.Errorf("got generation %d, revision %d, %v, want 77 and 77", got.Generation, got.Revision, err)
	}
}

func TestValueOfTheNextVersionIsReadAndCarriedOn(t *testing.T) {
	t.Parallel()
	const key = "0a0000010050"
	next := `{"v":2,"nick":"x","began":5,"created":"2026-11-23T01:02:03Z","seat":3,"zone":{"a":[1,2]},"paused":true}`
	s, err := decodeValue(key, []byte(next), 6)
	if err != nil || s.Nick != "x" || s.Began != 5 || s.Seat != 3 {
		t.Fatalf("got %+v, %v, want the members that this version knows", s, err)
	}
	s.Nick = "y"
	b, err := encodeValue(s, []byte(next))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	if got["v"] != 2.0 || got["nick"] != "y" || got["paused"] != true || !reflect.DeepEqual(got["zone"], map[string]any{"a": []any{1.0, 2.0}}) || got["generation"] != 6.0 {
		t.Errorf("rewritten as %s, want version 2, nick y, generation 6, and zone and paused as they were", b)
	}
	for _, bad := range []string{"", "null", "[]", "{}", `{"v":0}`, `{"v":3}`, `{"v":"1"}`, `{"v":1,"notify_pass":1}`, `{"v":1,"notify_pass":"hunter2"`} {
		got, err := decodeValue(key, []byte(bad), 1)
		if !errors.Is(err, ErrUnreadable) {
			t.Errorf("value %q: got %+v, %v, want ErrUnreadable", bad, got, err)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error quotes the value: %v", err)
		}
	}
}

func TestValueIsBounded(t *testing.T) {
	t.Parallel()
	s := testSatellite("10.0.0.1:80")
	s.Plugins = []string{strings.Repeat("x", MaxRegistration)}
	if b, err := encodeValue(s, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %d bytes, %v, want ErrInvalid", len(b), err)
	}
}

// What the short way reads, encoding/json reads the same.
func FuzzScanValue(f *testing.F) {
	plain := testSatellite("10.0.0.1:80")
	plain.Nick, plain.NotifyPass, plain.Plugins = "lamp ü", "s3cr3t", []string{"dmx", "midi"}
	for _, s := range []*Satellite{plain, testSatellite("10.0.0.1:80")} {
		b, err := encodeValue(s, nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, s := range []string{"{}", `{"v":1,"V":2}`, `{"v":01}`, `{"v":1,"plugins":[]}`, `{"v":1,"v":2}`, `{"plugins":["a","b"],"plugins":["c"]}`, `{"seat":9999999999999999999}`, `{"v":1}x`, "{\"nick\":\"\xff\"}", `{"created":"2026-11-23T1:02:03Z"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var got, want value
		if !got.scan(b) {
			return
		}
		if err := json.Unmarshal(b, &want); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q read as\n     %+v\nwant %+v, %v", b, got, want, err)
		}
	})
}

func TestUsualValuesAreReadTheShortWay(t *testing.T) {
	t.Parallel()
	s := testSatellite("[2001:db8::1]:8080")
	s.Nick, s.NotifyPass = "lamp ü", "s3cr3t"
	b, err := encodeValue(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	var v value
	if !v.scan(b) {
		t.Errorf("value %s: got the long way, want the short one", b)
	}
}

func BenchmarkDecodeValue(b *testing.B) {
	s := testSatellite("10.0.0.1:80")
	s.Nick, s.NotifyPass = "living room lamp", "s3cr3t"
	v, _ := encodeValue(s, nil)
	key := s.ID.Key()
	b.SetBytes(int64(len(v)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeValue(key, v, 1); err != nil {
			b.Fatal(err)
		}
	}
}
