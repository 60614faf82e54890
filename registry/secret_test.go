package registry

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func TestSecretPrintsNowhere(t *testing.T) {
	t.Parallel()
	const password = "hunter2"
	s := Satellite{ID: "10.0.0.1:80", Nick: "n", NotifyPass: password}
	reg := Registration{Nick: "n", NotifyPass: password}
	things := []any{s, &s, reg, &reg, s.NotifyPass, &s.NotifyPass, []Secret{password}, map[string]Secret{"k": password}, []*Satellite{&s}}

	// Without %p: fmt asks no method for it, and vet refuses it on a value.
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "% x", "%10s", "%.3s", "%t", "%T"} {
		for _, thing := range things {
			fmt.Fprintf(&out, verb+"\n", thing)
		}
	}
	for _, thing := range things {
		if b, err := json.Marshal(thing); err == nil {
			out.Write(b)
		}
		if b, err := xml.Marshal(thing); err == nil {
			out.Write(b)
		}
		for _, asJSON := range []bool{false, true} {
			log := hclog.New(&hclog.LoggerOptions{Output: &out, JSONFormat: asJSON, Level: hclog.Trace})
			if _, slice := thing.([]Secret); !slice { // hclog reads the elements of a slice by reflection
				log.Info("m", "k", thing)
			}
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "k", thing)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "k", thing)
	}
	text := out.String()
	for _, form := range []string{password, fmt.Sprintf("%x", password), fmt.Sprintf("%X", password), fmt.Sprintf("% x", password), "hun"} {
		if i := strings.Index(text, form); i >= 0 {
			t.Errorf("printed %q in %q, want only %s", form, text[max(0, i-80):min(len(text), i+20)], redacted)
		}
	}
	if !strings.Contains(text, redacted) {
		t.Errorf("got no %s in %d bytes of output", redacted, len(text))
	}
	if got := s.NotifyPass.Reveal(); got != password {
		t.Errorf("Reveal() = %q, want %q", got, password)
	}
}
