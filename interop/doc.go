// Package interop tests the relay, run as a real process, against clients and
// servers that nobody here wrote: what they send and what they can read decides
// what the relay has to. The scripts that use them are in peers.
//
// A peer that is missing on the machine is skipped, loudly; with
// CO2_REQUIRE_PEERS=1 that is a failure. install-peers.sh installs them on
// Debian; Pythons older or newer than the system's are used where pyenv or the
// PATH has them.
package interop
