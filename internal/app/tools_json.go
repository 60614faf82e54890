package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/co2relay/co2relay/satellite"
)

// maxJSONDepth is above what a relay takes, and bounds the stack.
const maxJSONDepth = 100

// encodeJSON is json.Marshal for what strangers have written and a person may
// read: what can't be printed, above all what moves a terminal's cursor or turns
// the direction of text, stands as an escape. Programs read the same from it.
func encodeJSON(v any, indent string) ([]byte, error) {
	var encoded bytes.Buffer
	e := json.NewEncoder(&encoded)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	b := make([]byte, 0, encoded.Len())
	for _, r := range encoded.String() {
		switch high, low := utf16.EncodeRune(r); {
		case r == '\n' || unicode.IsPrint(r):
			b = utf8.AppendRune(b, r)
		case r < 1<<16:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = fmt.Appendf(b, `\u%04x\u%04x`, high, low)
		}
	}
	return b, nil
}

// writeJSON writes a value and a line break.
func writeJSON(out io.Writer, v any, indent string) error {
	b, err := encodeJSON(v, indent)
	if err == nil {
		_, err = out.Write(b)
	}
	return err
}

// parseJSON reads one JSON value. Unlike encoding/json's maps, its structs keep
// the order of their members.
func parseJSON(text string) (any, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	v, err := jsonValue(d, 0)
	if err != nil {
		return nil, fmt.Errorf("read JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read JSON: there is more than one value")
	}
	return v, nil
}

func jsonValue(d *json.Decoder, depth int) (any, error) {
	if depth > maxJSONDepth {
		return nil, fmt.Errorf("it nests deeper than %d levels", maxJSONDepth)
	}
	token, err := d.Token()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('['):
		elements := []any{}
		for d.More() {
			v, err := jsonValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			elements = append(elements, v)
		}
		_, err = d.Token()
		return elements, err
	case json.Delim('{'):
		members := satellite.Struct{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, err
			}
			v, err := jsonValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			members = append(members, satellite.Member{Name: name.(string), Value: v})
		}
		_, err = d.Token()
		return members, err
	}
	return token, nil // a scalar; the decoder lets no stray delimiter through
}
