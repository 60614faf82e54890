package registry

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unicode/utf8"
)

// Satellite is one registration as the bucket holds it. It is never changed
// once handed out: a later registration of the same id is a new value.
type Satellite struct {
	ID         ID
	Addr       netip.AddrPort
	Nick       string // a stranger's text: escape it where it is shown
	Plugins    []string
	NotifyPass Secret

	// Began is the last sequence of RELAY before this generation was put:
	// the satellite is owed what comes after it.
	Began uint64
	// Generation is the revision of the bucket at which this satellite's
	// first put landed. Registering again keeps it; deregistering ends it,
	// and with it the figures and what was owed.
	Generation uint64
	// Revision is the bucket's revision of this very value.
	Revision uint64
	// Created is when this generation began, UTC, by the clock of the process
	// that registered it.
	Created time.Time

	// MaxAge is the age beyond which a message is no longer wanted; 0 means
	// that the log's retention alone decides.
	MaxAge  time.Duration
	Scheme  string // "http" or "https"
	TLSName string // the name to verify instead of the address; "" = the address
	// Seat is the sequence of this satellite's place in the stream SEATS.
	Seat uint64
}

// Registration is what a satellite says of itself.
type Registration struct {
	Addr       netip.AddrPort // where the call came from, and the registered port
	Nick       string         // "" = the host id
	Plugins    []string
	NotifyPass Secret
	MaxAge     time.Duration // 0 = unlimited; kept in whole milliseconds
	Scheme     string        // "http" (also for "") or "https"
	TLSName    string        // only with https
}

var (
	// ErrFull says that max_sats satellites are registered.
	ErrFull = errors.New("all places for satellites are taken")
	// ErrUnknown says that no satellite is registered under the id.
	ErrUnknown = errors.New("no such satellite is registered")
	// ErrInvalid says that a registration cannot be kept as it is; the text
	// before it names the member and what to do.
	ErrInvalid = errors.New("registration not valid")
	// ErrUnreadable says that a stored value is of a schema that this version
	// cannot read, or is damaged.
	ErrUnreadable = errors.New("stored value not readable by this version")
)

// MaxRegistration bounds the stored size of one registration in bytes. All
// processes hold all of them in memory, so a stranger must not decide how
// large one is.
const MaxRegistration = 16 << 10

// normal gives the registration with its defaults filled in and its address
// in normal form. The error is ErrInvalid or ErrBadAddress.
func (reg Registration) normal() (Registration, ID, error) {
	addr, err := Normalise(reg.Addr)
	if err != nil {
		return reg, "", err
	}
	reg.Addr = addr
	id := ID(addr.String())
	if reg.Nick == "" {
		reg.Nick = string(id)
	}
	switch reg.Scheme {
	case "":
		reg.Scheme = "http"
	case "http", "https":
	default:
		return reg, id, fmt.Errorf("scheme %.20q: use http or https: %w", reg.Scheme, ErrInvalid)
	}
	if reg.TLSName != "" && reg.Scheme != "https" {
		return reg, id, fmt.Errorf("tls_name without scheme https: %w", ErrInvalid)
	}
	if reg.MaxAge < 0 {
		return reg, id, fmt.Errorf("max_age %s: must not be negative: %w", reg.MaxAge, ErrInvalid)
	}
	reg.MaxAge = roundUpMilli(reg.MaxAge)
	if !validTexts(append([]string{reg.Nick, reg.NotifyPass.Reveal(), reg.TLSName}, reg.Plugins...)) {
		return reg, id, fmt.Errorf("nick, plugins, notify_pass or tls_name: not UTF-8: %w", ErrInvalid)
	}
	return reg, id, nil
}

// roundUpMilli keeps a limit of less than a millisecond from becoming none.
func roundUpMilli(d time.Duration) time.Duration {
	if r := d.Truncate(time.Millisecond); r != d {
		return r + time.Millisecond
	}
	return d
}

// validTexts guards the stored JSON, which would replace what is not UTF-8
// and so change a password.
func validTexts(texts []string) bool {
	for _, t := range texts {
		if !utf8.ValidString(t) {
			return false
		}
	}
	return true
}
