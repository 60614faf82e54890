package satellite

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

// maxDepth of values that are sent; a relay takes 64 levels, the struct around
// the data included. It also ends values that contain themselves.
const maxDepth = 64

// Member is one member of a Struct.
type Member struct {
	Name  string
	Value any
}

// Struct is an XML-RPC struct, in the sender's order.
type Struct []Member

// Get returns the first member of that name.
func (s Struct) Get(name string) (value any, ok bool) {
	for _, m := range s {
		if m.Name == name {
			return m.Value, true
		}
	}
	return nil, false
}

// Map returns the members as a map; of members with the same name the first.
func (s Struct) Map() map[string]any {
	m := make(map[string]any, len(s))
	for _, member := range slices.Backward(s) {
		m[member.Name] = member.Value
	}
	return m
}

// MarshalJSON writes an object with the members in their order.
func (s Struct) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range s {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(m.Name)
		if err != nil {
			return nil, fmt.Errorf("write member %q as JSON: %w", m.Name, err)
		}
		value, err := json.Marshal(m.Value)
		if err != nil {
			return nil, fmt.Errorf("write member %q as JSON: %w", m.Name, err)
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// fromValue is v as the package's Go values.
func fromValue(v xmlrpc.Value) any { return public(v.Any()) }

func public(x any) any {
	switch x := x.(type) {
	case []any:
		for i, e := range x {
			x[i] = public(e)
		}
	case xmlrpc.Members:
		s := make(Struct, len(x))
		for i, m := range x {
			s[i] = Member{m.Name, public(m.Value)}
		}
		return s
	}
	return x
}

// toValue is the XML-RPC value of x.
func toValue(x any) (xmlrpc.Value, error) {
	y, err := internal(x, 0)
	if err != nil {
		return xmlrpc.Value{}, err
	}
	return xmlrpc.FromGo(y)
}

// internal turns x into one of the types that xmlrpc.FromGo takes.
func internal(x any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("make XML-RPC of a %T: it nests deeper than %d levels", x, maxDepth)
	}
	switch x := x.(type) {
	case nil, bool, int64, float64, []byte:
		return x, nil
	case json.Number:
		if _, err := x.Int64(); err != nil && !strings.ContainsAny(x.String(), ".eE") {
			return nil, fmt.Errorf("make XML-RPC of the number %.40s: it has more than 64 bits; send it as a string", x)
		}
		return x, nil
	case time.Time:
		if y := x.UTC().Year(); y < 0 || y > 9999 {
			return nil, fmt.Errorf("make XML-RPC of the time %v: the year has four digits", x)
		}
		return x, nil
	case string:
		return x, checkText(x)
	case Struct:
		members := make(xmlrpc.Members, len(x))
		for i, m := range x {
			if err := checkText(m.Name); err != nil {
				return nil, fmt.Errorf("name of member %d: %w", i, err)
			}
			v, err := internal(m.Value, depth+1)
			if err != nil {
				return nil, fmt.Errorf("member %q: %w", m.Name, err)
			}
			members[i] = xmlrpc.Member{Name: m.Name, Value: v}
		}
		return members, nil
	}
	return internalKind(reflect.ValueOf(x), depth)
}

// internalKind takes the types that are only known by their kind.
func internalKind(v reflect.Value, depth int) (any, error) {
	switch v.Kind() {
	case reflect.Bool:
		return v.Bool(), nil
	case reflect.String:
		return v.String(), checkText(v.String())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int(), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if v.Uint() > math.MaxInt64 {
			return nil, fmt.Errorf("make XML-RPC of the number %d: it has more than 64 bits; send it as a string", v.Uint())
		}
		return int64(v.Uint()), nil
	case reflect.Float32, reflect.Float64:
		return v.Float(), nil
	case reflect.Pointer:
		if v.IsNil() {
			return nil, nil
		}
		return internal(v.Elem().Interface(), depth+1)
	case reflect.Slice, reflect.Array:
		if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 {
			return v.Bytes(), nil
		}
		elements := make([]any, v.Len())
		for i := range elements {
			e, err := internal(v.Index(i).Interface(), depth+1)
			if err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
			elements[i] = e
		}
		return elements, nil
	case reflect.Map:
		return internalMap(v, depth)
	}
	return nil, fmt.Errorf("make XML-RPC of a %s: there is no such type in XML-RPC", v.Type())
}

func internalMap(v reflect.Value, depth int) (any, error) {
	if v.Type().Key().Kind() != reflect.String {
		return nil, fmt.Errorf("make XML-RPC of a %s: the names of members are strings", v.Type())
	}
	members := make(Struct, 0, v.Len())
	for it := v.MapRange(); it.Next(); {
		members = append(members, Member{it.Key().String(), it.Value().Interface()})
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return internal(members, depth)
}

// checkText refuses what XML cannot carry, rather than let it be replaced.
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return fmt.Errorf("make XML-RPC of the text %.40q: it is not valid UTF-8; send it as []byte", s)
	}
	for _, r := range s {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == '\ufffe' || r == '\uffff' {
			return fmt.Errorf("make XML-RPC of the text %.40q: XML has no character %U; send it as []byte", s, r)
		}
	}
	return nil
}
