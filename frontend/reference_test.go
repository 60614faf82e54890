package frontend

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// referenceFile is the protocol reference, made from the method table.
var referenceFile = filepath.Join("..", "docs", "protocol.md")

// TestProtocolReferenceIsUpToDate compares docs/protocol.md with the method
// table. CO2_UPDATE=1 go test -run ProtocolReference ./frontend writes it anew.
func TestProtocolReferenceIsUpToDate(t *testing.T) {
	t.Parallel()
	want := reference(t)
	if os.Getenv("CO2_UPDATE") == "1" {
		if err := os.WriteFile(referenceFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the method table says; write it anew: CO2_UPDATE=1 go test -run ProtocolReference ./frontend", referenceFile)
	}
}

// originals are the methods of the original's API page (Co2RelayRegistry,
// 0.5.11), as it spells them: x, the family, the name.
var originals = []string{
	"x_co2_get_method_help", "x_co2_get_method_names", "x_co2_get_method_signature", "x_co2_get_num_satellites", "x_co2_get_satellite", "x_co2_get_satellite_ctime",
	"x_co2_get_satellite_props", "x_co2_get_satellites", "x_relay_deregister", "x_relay_get_max_satellites", "x_relay_get_num_satellites", "x_relay_get_satellite_ctime",
	"x_relay_get_satellite_props", "x_relay_get_satellite_props_raw", "x_relay_get_satellites", "x_relay_register", "x_relay_relay", "x_sys_get_properties",
	"x_sys_listMethods", "x_sys_methodHelp", "x_sys_methodSignature", "x_top_call_method", "x_top_ping", "x_top_test", "x_web_call_method", "x_web_get_method_help", "x_web_get_method_names", "x_web_get_method_signature",
	"x_web_get_num_satellites", "x_web_get_properties", "x_web_get_satellite_ctime", "x_web_get_satellite_props", "x_web_get_satellites", "x_web_ping", "x_web_test",
}

// inner are the original's functions that nobody could call from outside.
var inner = [][2]string{
	{"__init__", "`internal/app`: `relay.start` brings the roles up; registrations need no loading, the broker keeps them (`registry.Registry.Run`)"},
	{"__str__", "none: nothing printed it"},
	{"_exit_hook", "`internal/app`: `relay.stop`, on SIGTERM, in an order that loses nothing"},
	{"_load_plugins", "none: no relay plugins are specified in the original's public documents; the property `plugins` is an empty list"},
	{"_load_system_methods", "`frontend.methodTable`: one table holds every method"},
	{"_ping", "`pinger.Pinger.ping`, in its own role"},
	{"_register_method", "`frontend.index`: a name may stand only once"},
	{"_relay", "`frontend.Frontend.relay` calls `cluster.Log.Publish`: a message is queued once it is on disk"},
	{"_relay_real", "`delivery`: a lane for each satellite; failures are retried instead of ignored"},
	{"_serialize_sat_data", "`co2relay dump` and `co2relay restore` (`internal/app`)"},
	{"_verify_registration", "`frontend.Frontend.find` and `frontend.Frontend.sender`"},
	{"limiter.Limiter", "the log of `cluster`, which bounds the queue, and `frontend.limiter` (`--rate-limit`), which bounds each sender"},
}

// reference writes the whole page.
func reference(t *testing.T) []byte {
	t.Helper()
	table := methodTable()
	methods, names, err := index(table)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p(`# Protocol reference

<!-- Made from the method table (frontend/table.go). Do not edit: CO2_UPDATE=1 go test -run ProtocolReference ./frontend -->

The relay speaks XML-RPC by POST on any path; %d names answer. All arguments travel as one struct. A method without arguments
takes none, or one of any type that is not looked at. Where a host id is asked for, the bare string may stand for the struct. The same texts
are on every relay's own page, under /methods, with a form to call each, and are answered by `+"`system.methodHelp`"+`.`, len(names))
	group := ""
	for i := range table {
		m := &table[i]
		if m.group != group {
			group = m.group
			p("\n## %s", group)
		}
		writeMethod(p, methods[m.names[0]])
	}
	p(`
## What a satellite serves

- ` + "`notify(struct)`" + `: called with what another satellite relayed: the struct as it was sent, ` + "`host_id`" + ` (the sender's), ` + "`data`" + ` and any further members,
  and two members of the relay's own: ` + "`notify_pass`" + ` (the satellite's own password) and ` + "`msg_id`" + ` (a string of digits that rises; a repeat has the same).
  What it returns is ignored. A fault means received and refused: it is recorded, and not repeated. No answer, or a status 5xx, 408 or 429, is repeated later.
- ` + "`ping()`" + `: any well-formed answer will do; the round trip is measured.

## Faults

| code | means |
|---|---|
| 1 | a fault of the registry; the text begins with ` + "`registry.Co2RegistryError:` or `exceptions.KeyError:`" + ` and says what to do |
| -32700 | the call is not well-formed XML |
| -32600 | it is not XML-RPC, or exceeds a limit |
| -32601 | there is no such method |
| -32602 | the parameters are wrong |
| -32603 | the relay failed |

## Where the original's methods live now

The original's API page lists these. Each is callable under the same names here.

| original | here | code |
|---|---|---|`)
	for _, original := range originals {
		family, name, _ := strings.Cut(strings.TrimPrefix(original, "x_"), "_")
		called := family + "." + name
		if family == "top" {
			called = name
		}
		e := methods[called]
		if e == nil {
			t.Errorf("%s: the relay has no %s", original, called)
			continue
		}
		p("| `%s` | `%s` | `%s` |", original, called, handlerOf(e))
	}
	p("\nIts inner functions:\n\n| original | here |\n|---|---|")
	for _, x := range inner {
		p("| `%s` | %s |", x[0], x[1])
	}
	return b.Bytes()
}

func writeMethod(p func(string, ...any), e *entry) {
	p("\n### %s", e.name)
	p("\n`%s`\n", e.usage())
	p("%s", strings.ReplaceAll(e.doc, "\n", "\n\n"))
	if len(e.members) > 0 {
		p("\n%s\n", e.membersTitle())
		for _, m := range e.members {
			p("- `%s` (%s): %s", m.name, m.kind(), m.doc)
		}
	}
	p("\nReturns: %s", e.returns)
	if len(e.faults) > 0 {
		p("\nFaults:\n")
		for _, f := range e.faults {
			p("- %s", f)
		}
	}
	if also := e.synonyms(); len(also) > 0 {
		p("\nAlso callable as: `%s`", strings.Join(also, "`, `"))
	}
}

// handlerOf names the function that answers a method.
func handlerOf(e *entry) string {
	name := runtime.FuncForPC(reflect.ValueOf(e.handle).Pointer()).Name()
	_, name, _ = strings.Cut(name, "frontend.")
	return "frontend." + strings.NewReplacer("(*", "", ")", "", "-fm", "").Replace(name)
}

func TestDocumentsLinkToFilesThatExist(t *testing.T) {
	t.Parallel()
	root := ".."
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(documents) < 6 {
		t.Fatalf("got %d documents, %v", len(documents), err)
	}
	link := regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	for _, path := range append(documents, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			}
		}
	}
}
