package xmlrpc

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"
)

// Member is a member of a struct as a Go value.
type Member struct {
	Name  string
	Value any
}

// Members is a struct as a Go value: in the sender's order, and with names that
// occur twice.
type Members []Member

// Any gives Go values: int64, bool, string, float64, time.Time (a string if the
// form is unusual), []byte, nil, []any, and Members for structs.
func (v Value) Any() any {
	switch v.Kind() {
	case Int, Int64:
		n, _ := v.Int()
		return n
	case Bool:
		value, _ := v.Bool()
		return value
	case String:
		text, _ := v.Str()
		return text
	case Double:
		f, _ := v.Float()
		return f
	case DateTime:
		if t, ok := v.Time(); ok {
			return t
		}
		return v.inner()
	case Base64:
		data, _ := v.Bytes()
		return data
	case Array:
		elements := []any{}
		for e := range v.Elements() {
			elements = append(elements, e.Any())
		}
		return elements
	case Struct:
		members := Members{}
		for name, value := range v.Members() {
			members = append(members, Member{name, value.Any()})
		}
		return members
	}
	return nil
}

// FromGo makes a value of what Any gives and of what encoding/json decodes into
// an any: maps are written in the order of their names. Integers beyond 32 bits
// become doubles, as old receivers know no i8, and an i8 only where a double is
// not exact.
func FromGo(x any) (Value, error) {
	switch x := x.(type) {
	case nil:
		return NewNil(), nil
	case Value:
		return x, nil
	case bool:
		return NewBool(x), nil
	case string:
		return NewString(x), nil
	case []byte:
		return NewBase64(x), nil
	case time.Time:
		return NewTime(x), nil
	case int:
		return fromInt(int64(x)), nil
	case int32:
		return fromInt(int64(x)), nil
	case int64:
		return fromInt(x), nil
	case float64:
		return fromFloat(x)
	case json.Number:
		return fromNumber(x)
	case []string:
		return fromSlice(x)
	case []any:
		return fromSlice(x)
	case map[string]any:
		fields := make(Members, 0, len(x))
		for _, name := range slices.Sorted(maps.Keys(x)) {
			fields = append(fields, Member{name, x[name]})
		}
		return FromGo(fields)
	case Members:
		fields := make([]Field, 0, len(x))
		for _, m := range x {
			v, err := FromGo(m.Value)
			if err != nil {
				return Value{}, fmt.Errorf("member %q: %w", m.Name, err)
			}
			fields = append(fields, Field{m.Name, v})
		}
		return NewStruct(fields...), nil
	}
	return Value{}, fmt.Errorf("make XML-RPC of a %T: there is no such type in XML-RPC", x)
}

func fromSlice[T any](elements []T) (Value, error) {
	values := make([]Value, 0, len(elements))
	for i, e := range elements {
		v, err := FromGo(e)
		if err != nil {
			return Value{}, fmt.Errorf("element %d: %w", i, err)
		}
		values = append(values, v)
	}
	return NewArray(values...), nil
}

func fromInt(n int64) Value {
	const exact = 1 << 53
	if -exact <= n && n <= exact {
		return NewInt(n)
	}
	return Value{"<value><i8>" + strconv.FormatInt(n, 10) + "</i8></value>"}
}

func fromFloat(f float64) (Value, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return Value{}, fmt.Errorf("make XML-RPC of the number %v: XML-RPC has finite numbers only", f)
	}
	return NewDouble(f), nil
}

func fromNumber(number json.Number) (Value, error) {
	if n, err := number.Int64(); err == nil {
		return fromInt(n), nil
	}
	f, err := number.Float64()
	if err != nil {
		return Value{}, fmt.Errorf("make XML-RPC of the number %s: %w", excerpt(number.String()), err)
	}
	return fromFloat(f)
}
