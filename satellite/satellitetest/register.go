package satellitetest

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// client calls relays: the machine's proxy settings are none of a test's
// business.
var client = &http.Client{
	Transport: &http.Transport{Proxy: nil, MaxIdleConnsPerHost: 64},
	Timeout:   30 * time.Second,
}

// Register registers the satellite at the relay with that URL, with its
// Options' NotifyPass, and returns the host id that it got.
func (s *Satellite) Register(ctx context.Context, relay, nick string) (string, error) {
	id, err := call(ctx, relay, "relay.register", fmt.Sprintf(
		"<member><name>port</name><value><int>%d</int></value></member>"+
			"<member><name>plugins</name><value><array><data></data></array></value></member>"+
			"<member><name>nick</name><value><string>%s</string></value></member>"+
			"<member><name>notify_pass</name><value><string>%s</string></value></member>",
		s.Port(), escape(nick), s.opts.NotifyPass))
	if err != nil {
		return "", fmt.Errorf("register satellite %s: %w", s.ID(), err)
	}
	return id, nil
}

// Deregister ends the registration that the relay knows as id.
func (s *Satellite) Deregister(ctx context.Context, relay, id string) error {
	if _, err := call(ctx, relay, "relay.deregister", stringMember("host_id", id)); err != nil {
		return fmt.Errorf("deregister satellite %s: %w", id, err)
	}
	return nil
}

// Relay relays data, a string, in the name of the satellite that the relay
// knows as id. dedupID may be "".
func (s *Satellite) Relay(ctx context.Context, relay, id, data, dedupID string) error {
	members := stringMember("host_id", id) + stringMember("data", data)
	if dedupID != "" {
		members += stringMember("dedup_id", dedupID)
	}
	if _, err := call(ctx, relay, "relay.relay", members); err != nil {
		return fmt.Errorf("relay in the name of %s: %w", id, err)
	}
	return nil
}

func stringMember(name, text string) string {
	return "<member><name>" + name + "</name><value><string>" + escape(text) + "</string></value></member>"
}

// call makes one call with one struct, and returns the text of a scalar answer.
func call(ctx context.Context, url, method, members string) (string, error) {
	doc := `<?xml version="1.0"?><methodCall><methodName>` + method + `</methodName><params><param><value><struct>` +
		members + `</struct></value></param></params></methodCall>`
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(doc))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "text/xml")
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: status %s", method, resp.Status)
	}
	if bytes.Contains(body, []byte("<fault>")) {
		return "", fmt.Errorf("%s: fault: %s", method, textOf(memberOf(body, "faultString")))
	}
	i := bytes.Index(body, []byte("<value>"))
	if i < 0 {
		return "", fmt.Errorf("%s: answer has no value: %.200s", method, body)
	}
	return textOf(firstValue(body[i:])), nil
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a bytes.Buffer does not fail
	return b.String()
}
