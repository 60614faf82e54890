package registry

import (
	"errors"
	"net/netip"
	"regexp"
	"testing"
)

func TestParseIDGivesOneNormalForm(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]ID{
		"192.168.10.7:2003":               "192.168.10.7:2003",
		"[2001:DB8:0:0::1]:80":            "[2001:db8::1]:80",
		"[::ffff:192.168.10.7]:2003":      "192.168.10.7:2003",
		"[::1]:8000":                      "127.0.0.1:8000",
		"127.0.1.1:8000":                  "127.0.0.1:8000",
		"[::ffff:127.0.0.9]:8000":         "127.0.0.1:8000",
		"10.0.0.1:65535":                  "10.0.0.1:65535",
		"[fd00::ffff:ffff:ffff:ffff]:443": "[fd00::ffff:ffff:ffff:ffff]:443",
	} {
		got, addr, err := ParseID(in)
		if err != nil || got != want {
			t.Errorf("ParseID(%q) = %q, %v, want %q", in, got, err, want)
			continue
		}
		if addr.String() != string(want) || MakeID(netip.MustParseAddrPort(in)) != want || got.Addr() != addr {
			t.Errorf("ParseID(%q): address %s, MakeID %q, Addr %s, want all %s", in, addr, MakeID(netip.MustParseAddrPort(in)), got.Addr(), want)
		}
	}
}

func TestParseIDRefusesWhatIsNoAddress(t *testing.T) {
	t.Parallel()
	for _, in := range []string{
		"", ":", "10.0.0.1", "10.0.0.1:", ":80", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:+80", "10.0.0.1:080",
		" 10.0.0.1:80", "10.0.0.1:80 ", "010.0.0.1:80", "example.org:80", "localhost:80", "2001:db8::1:80",
		"[10.0.0.1]:80", "[fe80::1%eth0]:80", "[::1%lo]:80", "0.0.0.0:80", "[::]:80", "224.0.0.1:80", "255.255.255.255:80",
		"[ff02::1]:80", "10.0.0.1:80\x00",
	} {
		got, _, err := ParseID(in)
		if !errors.Is(err, ErrBadAddress) || got != "" {
			t.Errorf("ParseID(%q) = %q, %v, want ErrBadAddress", in, got, err)
		}
	}
	for _, a := range []netip.AddrPort{{}, netip.AddrPortFrom(netip.Addr{}, 80), netip.MustParseAddrPort("[fe80::1%eth0]:80")} {
		if got := MakeID(a); got != "" {
			t.Errorf("MakeID(%s) = %q, want nothing", a, got)
		}
	}
}

func TestKeyIsAValidKVKeyAndReadsBack(t *testing.T) {
	t.Parallel()
	valid := regexp.MustCompile(`^[0-9a-f]+$`)
	for id, want := range map[ID]string{
		"192.168.10.7:2003":  "c0a80a0707d3",
		"127.0.0.1:1":        "7f0000010001",
		"[2001:db8::1]:8080": "20010db8000000000000000000000001" + "1f90",
	} {
		key := id.Key()
		if key != want || !valid.MatchString(key) {
			t.Errorf("%s.Key() = %q, want %q", id, key, want)
		}
		back, addr, err := parseKey(key)
		if err != nil || back != id || addr != id.Addr() {
			t.Errorf("parseKey(%q) = %q, %s, %v, want %q", key, back, addr, err, id)
		}
	}
	if got := ID("nonsense").Key(); got != "" {
		t.Errorf("key of no id: %q, want nothing", got)
	}
	for _, key := range []string{"", "c0a80a0707d", "c0a80a070000", "zza80a0707d3", "7f0000020001", "00000000000000000000000000000001" + "0050"} {
		if id, _, err := parseKey(key); !errors.Is(err, ErrBadAddress) {
			t.Errorf("parseKey(%q) = %q, %v, want ErrBadAddress", key, id, err)
		}
	}
}

func FuzzParseID(f *testing.F) {
	for _, s := range []string{"192.168.10.7:2003", "[::1]:80", "[2001:db8::1]:80", "[::ffff:1.2.3.4]:1", "[fe80::1%a]:1", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, addr, err := ParseID(s)
		if err != nil {
			return
		}
		again, addr2, err := ParseID(string(id))
		if err != nil || again != id || addr2 != addr {
			t.Fatalf("ParseID(%q) = %q, which reads as %q, %v", s, id, again, err)
		}
		if back, _, err := parseKey(id.Key()); err != nil || back != id {
			t.Fatalf("key %q of %q reads as %q, %v", id.Key(), id, back, err)
		}
	})
}
