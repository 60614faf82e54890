package registry

import (
	"fmt"
	"log/slog"
)

// Secret is a satellite's notify_pass. It prints as "[secret]" through every
// verb of fmt, in JSON and XML, and in hclog and slog. It is a promise of the
// relay that no password reaches anyone but its satellite: only Reveal gives
// the text, so that each place that does can be found.
//
// fmt cannot see these methods through an unexported struct field: keep a
// Satellite or a Registration there by pointer.
type Secret string

const redacted = "[secret]"

// Reveal gives the password itself. Only the body of that satellite's own
// notify, the registration's stored value and the guarded dump may hold it.
func (s Secret) Reveal() string { return string(s) }

func (Secret) String() string   { return redacted }
func (Secret) GoString() string { return redacted }

// Format makes every verb print the same, also %x, %q and %d, for which fmt
// would otherwise print the text itself.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText covers encoding/json, encoding/xml and hclog's JSON form.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON says the same for encoders that look for it alone.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue covers log/slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// Format prints the satellite with its password redacted. A verb that does
// not fit a struct makes fmt print the fields without their methods; so this
// one prints a copy that holds no password.
func (s Satellite) Format(f fmt.State, verb rune) {
	type plain Satellite
	s.NotifyPass = redacted
	_, _ = fmt.Fprintf(f, fmt.FormatString(f, verb), plain(s))
}

// Format prints the registration with its password redacted.
func (reg Registration) Format(f fmt.State, verb rune) {
	type plain Registration
	reg.NotifyPass = redacted
	_, _ = fmt.Fprintf(f, fmt.FormatString(f, verb), plain(reg))
}
