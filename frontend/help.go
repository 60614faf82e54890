package frontend

import (
	"slices"
	"strings"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

// everyType are the types a signature lists in the place of typeAny.
var everyType = []string{typeInt, "boolean", typeString, typeDouble, "dateTime.iso8601", "base64", typeArray, typeStruct}

// help is the text that methodHelp answers for a name.
func (e *entry) help() string {
	var b strings.Builder
	b.WriteString(e.usage() + "\n\n" + e.doc + "\n")
	if len(e.members) > 0 {
		b.WriteString("\n" + e.membersTitle() + "\n")
		for _, m := range e.members {
			b.WriteString("  " + m.name + " (" + m.kind() + "): " + m.doc + "\n")
		}
	}
	b.WriteString("\nReturns: " + e.returns + "\n")
	for i, f := range e.faults {
		if i == 0 {
			b.WriteString("\nFaults:\n")
		}
		b.WriteString("  " + f + "\n")
	}
	if others := e.synonyms(); len(others) > 0 {
		b.WriteString("\nAlso callable as: " + strings.Join(others, ", ") + "\n")
	}
	return b.String()
}

// usage is the method's shape in one line: name, parameter, result.
func (e *entry) usage() string {
	return e.name + "(" + e.takes() + ") -> " + e.result
}

// takes names what stands between the parentheses.
func (e *entry) takes() string {
	switch e.param {
	case structParam:
		return typeStruct
	case hostIDParam:
		return "struct or string"
	case nameParam:
		return typeString
	case anyParam:
		return typeAny
	case arrayParam:
		return typeArray
	}
	return ""
}

func (e *entry) membersTitle() string {
	switch e.param {
	case nameParam:
		return "Parameter:"
	case arrayParam:
		return "Members of each struct in the array:"
	}
	return "Members of the struct:"
}

func (e *entry) synonyms() []string {
	return slices.DeleteFunc(slices.Clone(e.names), func(n string) bool { return n == e.name })
}

// kind says a member's type and whether it must be there.
func (m member) kind() string {
	switch {
	case !m.optional:
		return m.typ + ", required"
	case m.preset.IsZero():
		return m.typ + ", optional"
	}
	return m.typ + ", default " + m.presetText()
}

// presetText writes a default as the help texts and the pages show it.
func (m member) presetText() string {
	switch v := m.preset.Any().(type) {
	case string:
		return "'" + v + "'"
	case int64:
		if v == 0 {
			return "0"
		}
	}
	return "[]"
}

// signature is what co2.get_method_signature answers.
func (e *entry) signature() xmlrpc.Value {
	var args []xmlrpc.Value
	var presets []xmlrpc.Field
	for _, m := range e.members {
		args = append(args, xmlrpc.NewString(m.name))
		if !m.preset.IsZero() {
			presets = append(presets, xmlrpc.Field{Name: m.name, Value: m.preset})
		}
	}
	return xmlrpc.NewStruct(
		xmlrpc.Field{Name: "args", Value: xmlrpc.NewArray(args...)},
		xmlrpc.Field{Name: "args_d", Value: xmlrpc.NewStruct(presets...)},
		xmlrpc.Field{Name: "args_v", Value: xmlrpc.NewArray()},
		xmlrpc.Field{Name: "args_kw", Value: xmlrpc.NewArray()},
	)
}

// types are the signatures that system.methodSignature answers: each the type
// of the result and then those of the parameters.
func (e *entry) types() [][]string {
	results := []string{e.result}
	if e.result == typeAny {
		results = everyType
	}
	var sigs [][]string
	for _, r := range results {
		switch e.param {
		case noParam:
			sigs = append(sigs, []string{r})
		case structParam:
			sigs = append(sigs, []string{r, typeStruct})
		case hostIDParam:
			sigs = append(sigs, []string{r, typeStruct}, []string{r, typeString})
		case nameParam:
			sigs = append(sigs, []string{r, typeString})
		case anyParam:
			sigs = append(sigs, []string{r, r})
		case arrayParam:
			sigs = append(sigs, []string{r, typeArray})
		}
	}
	return sigs
}
