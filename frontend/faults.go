package frontend

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

// The registry's own faults carry the strings that a Python client of the time
// saw: module and class of the exception, a colon, its text.
const (
	co2Error = "registry.Co2RegistryError:"
	keyError = "exceptions.KeyError:"
)

// registryFault is a fault of the registry. The text says what to do.
func registryFault(format string, args ...any) *xmlrpc.Fault {
	return &xmlrpc.Fault{Code: xmlrpc.CodeRegistry, Text: co2Error + fmt.Sprintf(format, args...)}
}

// keyFault is Python's KeyError for an id, which stands in it as Python's
// repr writes it.
func keyFault(id string) *xmlrpc.Fault {
	r := strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`, "\r", `\r`, "\t", `\t`)
	return &xmlrpc.Fault{Code: xmlrpc.CodeRegistry, Text: keyError + "'" + r.Replace(shown(id)) + "'"}
}

func wrongParams(format string, args ...any) *xmlrpc.Fault {
	return &xmlrpc.Fault{Code: xmlrpc.CodeWrongParams, Text: fmt.Sprintf(format, args...)}
}

// shown cuts a stranger's text to a length fit for a message.
func shown(s string) string {
	const most = 100
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}
