package interop

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/co2relay/co2relay/internal/freeport"
	"github.com/co2relay/co2relay/satellite"
)

const text = "Grüße, 世界 & <co2>"

// peer is one foreign implementation.
type peer struct {
	name  string
	argv  []string // the script, before its mode
	probe []string // command that succeeds where the implementation is there
	input string   // of probe
	debs  string   // Debian's packages that have it
	shows []string // names of the checks that its client must have made
	nicks []string // as which it can serve; Python's "keep" keeps connections alive
	serve func(t *testing.T, port, nick string) *process
}

// common are the checks that every scripted client makes.
var common = []string{"ping", "text", "empty", "int", "double", "boolean", "dateTime", "base64", "array", "struct",
	"no method", "not registered", "register", "deregister"}

func with(more ...string) []string { return append(slices.Clone(common), more...) }

// peers are all implementations, the machine's Pythons included.
func peers(t *testing.T) []peer {
	all := []peer{
		{name: "perl RPC-XML", argv: []string{"perl", "peers/peer_rpcxml.pl"}, probe: []string{"perl", "-MRPC::XML::Server", "-e1"},
			debs: "librpc-xml-perl", shows: with("text declared us-ascii", "space", "i8", "nil", "listMethods"), nicks: []string{"rpcxml"}},
		{name: "perl Frontier-RPC", argv: []string{"perl", "peers/peer_frontier.pl"}, probe: []string{"perl", "-MFrontier::Daemon", "-e1"},
			debs: "libfrontier-rpc-perl", shows: with("latin-1", "space"), nicks: []string{"frontier"}},
		{name: "ruby", argv: []string{"ruby", "peers/peer.rb"}, probe: []string{"ruby", "-e", "require 'xmlrpc/server'; require 'webrick'"},
			debs: "ruby ruby-xmlrpc ruby-webrick", shows: with("space", "i8", "nil", "listMethods", "multicall"), nicks: []string{"ruby"}},
		{name: "php", argv: []string{"php", "peers/peer.php"}, probe: []string{"php", "-r", "exit(extension_loaded('xmlrpc') ? 0 : 1);"},
			debs: "php-cli php-xmlrpc", shows: with("space", "listMethods"), nicks: []string{"php"}, serve: servePHP},
		{name: "tcl", argv: []string{"tclsh", "peers/peer.tcl"}, probe: []string{"tclsh"}, input: "package require xmlrpc",
			debs: "tcl tcl-xmlrpc", shows: with("listMethods"), nicks: []string{"tcl"}},
	}
	for _, python := range pythons(t) {
		all = append(all, peer{name: python.name, argv: []string{python.path, "peers/peer.py"}, probe: []string{python.path, "-c", "1"},
			debs:  "python3; for python2.7 see pyenv",
			shows: with("space", "nil", "datetime", "latin-1", "gzip", "listMethods", "methodSignature", "multicall", "unknown"),
			nicks: []string{"python", "python-keep"}})
	}
	return all
}

type python struct{ name, path string }

// pythons are one of each minor version: the system's, PATH's and pyenv's.
func pythons(t *testing.T) []python {
	t.Helper()
	candidates := []string{"/usr/bin/python3"}
	for _, name := range []string{"python3", "python2.7"} {
		if p, err := exec.LookPath(name); err == nil {
			candidates = append(candidates, p)
		}
	}
	if home, err := os.UserHomeDir(); err == nil {
		for _, v := range []string{"2.7", "3.6", "3.7", "3.8", "3.9", "3.1?"} {
			found, _ := filepath.Glob(filepath.Join(home, ".pyenv/versions", v+".*/bin/python"))
			candidates = append(candidates, found...)
		}
	}
	seen := map[string]bool{}
	var all []python
	for _, path := range candidates {
		out, err := exec.Command(path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").Output()
		version := strings.TrimSpace(string(out))
		if err != nil || seen[version] { // pyenv's shims fail where no version is chosen
			continue
		}
		seen[version] = true
		all = append(all, python{"python " + version, path})
	}
	for _, want := range []string{"3", "2.7"} {
		if !slices.ContainsFunc(all, func(p python) bool { return strings.HasPrefix(p.name, "python "+want) }) {
			all = append(all, python{"python " + want, "python" + want})
		}
	}
	return all
}

// need skips the test, or fails it where peers are required, if the probe does
// not succeed.
func (p *peer) need(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(testContext(t), p.probe[0], p.probe[1:]...)
	cmd.Stdin = strings.NewReader(p.input)
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil && !strings.Contains(string(out), "can't find package"):
		return
	case os.Getenv("CO2_REQUIRE_PEERS") == "1" && p.name != "python 2.7":
		t.Fatalf("%s is missing, and CO2_REQUIRE_PEERS=1: run interop/install-peers.sh (Debian: %s): %v\n%s", p.name, p.debs, err, out)
	}
	t.Skipf("NOT TESTED: %s is missing on this machine (Debian: %s): %v", p.name, p.debs, err)
}

func TestClientsGetBackEveryTypeThatTheySend(t *testing.T) {
	t.Parallel()
	for _, p := range peers(t) {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			p.need(t)
			ctx := testContext(t)
			cmd := exec.CommandContext(ctx, p.argv[0], append(p.argv[1:], "client", relayURL, fmt.Sprint(freeport.Port(t)))...)
			cmd.Env = peerEnv()
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.HasSuffix(string(out), "\ndone\n") {
				t.Fatalf("client failed: %v\n%s", err, out)
			}
			for _, name := range p.shows {
				if !strings.Contains("\n"+string(out), "\nok "+name+"\n") {
					t.Errorf("no check of %q in the output:\n%s", name, out)
				}
			}
		})
	}
}

// message is what peers that serve are told, and how they print it.
func message(nick string) satellite.Struct {
	return satellite.Struct{
		{Name: "for", Value: nick},
		{Name: "text", Value: text},
		{Name: "n", Value: 42},
		{Name: "neg", Value: -7},
		{Name: "d", Value: 1.5},
		{Name: "b", Value: true},
		{Name: "bin", Value: []byte{0x00, 0xff, 0x10}},
		{Name: "when", Value: time.Date(2003, 7, 1, 12, 0, 0, 0, time.UTC)},
		{Name: "list", Value: []any{1, "two", []any{3}}},
		{Name: "empty", Value: ""},
		{Name: "sub", Value: satellite.Struct{{Name: "name", Value: "x"}, {Name: "value", Value: 9}}},
	}
}

func printed(sender string) string {
	return "notify sender=" + sender + " pass=True id=True text=" + hex.EncodeToString([]byte(text)) +
		" n=42 neg=-7 d=1.5 b=1 bin=00ff10 when=20030701T12:00:00 list=1,two,3 empty= sub=x/9"
}

func TestForeignSatellitesAreNotifiedAndRelay(t *testing.T) {
	t.Parallel()
	for _, p := range peers(t) {
		for _, nick := range p.nicks {
			t.Run(p.name+" "+nick, func(t *testing.T) {
				t.Parallel()
				p.need(t)
				exchange(t, p, nick)
			})
		}
	}
}

// exchange sends the peer messages, and expects it to print them, to relay an
// echo of each, and to answer pings.
func exchange(t *testing.T, p peer, nick string) {
	port := fmt.Sprint(freeport.Port(t))
	mine := strings.ReplaceAll(p.name, " ", "-") + "-" + nick
	us, echoes := startSatellite(t, func(n satellite.Notification) bool {
		d, _ := n.Data.(satellite.Struct)
		who, _ := d.Get("nick")
		return who == mine
	})
	serve := p.serve
	if serve == nil {
		serve = func(t *testing.T, port, nick string) *process {
			return startProcess(t, nil, append(slices.Clone(p.argv), "satellite", relayURL, port, nick)...)
		}
	}
	proc := serve(t, port, mine)
	id := "127.0.0.1:" + port
	waitKnown(t, id, true)
	t.Cleanup(func() { forget(t, id) })
	for range 3 {
		if err := us.Relay(testContext(t), message(mine)); err != nil {
			t.Fatal(err)
		}
		n := next(t, echoes)
		d := n.Data.(satellite.Struct)
		if echo, _ := d.Get("echo"); echo != text || n.Sender != id {
			t.Errorf("echo: got %q from %s, want %q from %s", echo, n.Sender, text, id)
		}
	}
	if line, want := proc.waitLine(t, "notify "), printed(us.ID()); line != want {
		t.Errorf("notify:\n got %s\nwant %s", line, want)
	}
	waitPinged(t, id)
}

// waitKnown waits until the relay knows the satellite, or does so no more.
func waitKnown(t *testing.T, id string, want bool) {
	t.Helper()
	ask(t, func(ctx context.Context, c *satellite.Client) (bool, error) {
		ids, err := c.Call(ctx, "relay.get_satellites")
		all, _ := ids.([]any)
		return slices.Contains(all, any(id)) == want, err
	})
}

// waitPinged waits until the satellite has answered a ping.
func waitPinged(t *testing.T, id string) {
	t.Helper()
	ask(t, func(ctx context.Context, c *satellite.Client) (bool, error) {
		answer, err := c.Call(ctx, "relay.get_satellite_props", satellite.Struct{{Name: "host_id", Value: id}})
		props, _ := answer.(satellite.Struct)
		ms, _ := props.Get("ping_current")
		current, ok := ms.(float64)
		return ok && current >= 0, err
	})
}

// ask repeats a question until its answer is yes.
func ask(t *testing.T, question func(context.Context, *satellite.Client) (bool, error)) {
	t.Helper()
	ctx, c := testContext(t), newClient(t)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		yes, err := question(ctx, c)
		if yes {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for the relay to say so: %v", err)
		}
	}
}

// forget deregisters a peer that was killed.
func forget(t *testing.T, id string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := newClient(t).Call(ctx, "relay.deregister", satellite.Struct{{Name: "host_id", Value: id}})
	var fault *satellite.Fault
	if err != nil && !errors.As(err, &fault) {
		t.Errorf("deregister %s: %v", id, err)
	}
}

// servePHP runs PHP's own web server, which calls the script for each request.
func servePHP(t *testing.T, port, nick string) *process {
	p := startProcess(t, []string{"PEER_URL=" + relayURL, "PEER_NICK=" + nick}, "php", "-q", "-S", "127.0.0.1:"+port, "peers/peer.php")
	p.waitLine(t, "Development Server")
	startProcess(t, nil, "php", "peers/peer.php", "register", relayURL, port, nick).waitLine(t, "registered ")
	return p
}
