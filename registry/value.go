package registry

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// The value of a registration in the bucket SATELLITES is one JSON object
// under the key ID.Key. Version N+1 may add members to it and must keep the
// meaning of those of N: so N reads its values, ignoring what it does not
// know, and carries that on when it rewrites one. Anything later than N+1 is
// refused.
const valueVersion = 1

// value holds the members as they are stored. The password is plain here:
// this type never leaves the package and is never printed.
type value struct {
	Version    int      `json:"v"`
	Nick       string   `json:"nick,omitempty"` // left out when it is the id
	Plugins    []string `json:"plugins,omitempty"`
	NotifyPass string   `json:"notify_pass,omitempty"`
	Began      uint64   `json:"began"`
	// Generation is left out of a generation's first put, whose revision is
	// known only once it is stored: 0 means "the revision of this value". A
	// later put of the same generation writes it out.
	Generation uint64    `json:"generation,omitempty"`
	Created    time.Time `json:"created"`
	MaxAgeMS   int64     `json:"max_age_ms,omitempty"`
	Scheme     string    `json:"scheme,omitempty"` // left out when it is http
	TLSName    string    `json:"tls_name,omitempty"`
	Seat       uint64    `json:"seat"`
}

// valueMembers are the names that this version writes itself.
var valueMembers = []string{
	"v", "nick", "plugins", "notify_pass", "began", "generation", "created", "max_age_ms", "scheme", "tls_name", "seat",
}

// encodeValue gives the stored form of a satellite. Members that old, the
// value it replaces (nil: none), has and this version does not know are
// carried on, and so is old's version. The error is ErrInvalid for more than
// MaxRegistration bytes.
func encodeValue(s *Satellite, old []byte) ([]byte, error) {
	v := value{
		Version:    valueVersion,
		Plugins:    s.Plugins,
		NotifyPass: s.NotifyPass.Reveal(),
		Began:      s.Began,
		Generation: s.Generation,
		Created:    s.Created,
		MaxAgeMS:   s.MaxAge.Milliseconds(),
		TLSName:    s.TLSName,
		Seat:       s.Seat,
	}
	if s.Nick != string(s.ID) {
		v.Nick = s.Nick
	}
	if s.Scheme != "http" {
		v.Scheme = s.Scheme
	}
	later, err := laterMembers(old, &v.Version)
	if err != nil {
		return nil, fmt.Errorf("encode registration %s: %w", s.ID, err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode registration %s: %w", s.ID, err)
	}
	for _, name := range slices.Sorted(maps.Keys(later)) {
		quoted, _ := json.Marshal(name)
		b = append(append(b[:len(b)-1], ','), quoted...)
		b = append(append(append(b, ':'), later[name]...), '}')
	}
	if len(b) > MaxRegistration {
		return nil, fmt.Errorf("registration of %d bytes, at most %d: shorten nick, plugins or notify_pass: %w", len(b), MaxRegistration, ErrInvalid)
	}
	return b, nil
}

// laterMembers gives what a later version wrote into a value, and raises
// version to that one's.
func laterMembers(old []byte, version *int) (map[string]json.RawMessage, error) {
	if old == nil {
		return nil, nil
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(old, &all); err != nil {
		return nil, fmt.Errorf("read the value it replaces: %w", ErrUnreadable)
	}
	var was int
	if json.Unmarshal(all["v"], &was) == nil {
		*version = max(*version, was)
	}
	for _, name := range valueMembers {
		delete(all, name)
	}
	return all, nil
}

// decodeValue reads a stored registration. The error is ErrUnreadable, and
// never quotes the value, which holds the password.
func decodeValue(key string, b []byte, revision uint64) (*Satellite, error) {
	id, addr, err := parseKey(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrUnreadable)
	}
	var v value
	if !v.scan(b) {
		v = value{}
		if err := json.Unmarshal(b, &v); err != nil {
			return nil, fmt.Errorf("decode registration %s: not a JSON object of its kind: %w", id, ErrUnreadable)
		}
	}
	if v.Version < 1 || v.Version > valueVersion+1 {
		return nil, fmt.Errorf("decode registration %s: schema version %d, this program reads up to %d: run a later one: %w", id, v.Version, valueVersion+1, ErrUnreadable)
	}
	return v.satellite(id, addr, revision), nil
}

func (v *value) satellite(id ID, addr netip.AddrPort, revision uint64) *Satellite {
	s := &Satellite{
		ID:         id,
		Addr:       addr,
		Nick:       v.Nick,
		Plugins:    v.Plugins,
		NotifyPass: Secret(v.NotifyPass),
		Began:      v.Began,
		Generation: v.Generation,
		Revision:   revision,
		Created:    v.Created.UTC(),
		MaxAge:     time.Duration(v.MaxAgeMS) * time.Millisecond,
		Scheme:     "http",
		TLSName:    v.TLSName,
		Seat:       v.Seat,
	}
	if s.Nick == "" {
		s.Nick = string(id)
	}
	if s.Generation == 0 {
		s.Generation = revision
	}
	switch v.Scheme {
	case "":
	case "https":
		s.Scheme = "https" // the constant: no copy a satellite
	default:
		// A later version's. Whoever would call by it must refuse rather than
		// fall back to http, which would send the password in the clear.
		s.Scheme = v.Scheme
	}
	return s
}
