// Package frontend is the relay's HTTP side: it answers the XML-RPC methods of
// the co2 protocol and shows the web interface. It keeps no state of its own:
// registrations and figures are the registry's, messages go to the cluster's
// log, so any number of frontends may stand side by side.
//
// One table (table.go) says everything about every method. Dispatch, help
// texts, signatures and the web pages are made from it.
package frontend
