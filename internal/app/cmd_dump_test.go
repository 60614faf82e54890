package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
	"github.com/co2relay/co2relay/satellite/satellitetest"
)

// tool runs a command at a site's broker.
func (s *site) tool(command func(context.Context, []string, streams) int, stdin string, args ...string) (int, string, string) {
	s.t.Helper()
	var out, stderr bytes.Buffer
	args = append([]string{"--timeout", patience, "--data", s.data}, args...)
	code := command(s.t.Context(), args, streams{strings.NewReader(stdin), &out, &stderr})
	return code, out.String(), stderr.String()
}

const oddNick = "odd <nick> & \"quotes\" \x1b[31m é\n"

func TestRegistrationsMoveToAnotherClusterByAFile(t *testing.T) {
	t.Parallel()
	from, to := startSite(t, nil), startSite(t, nil)
	desk := openDesk(t, from)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // else each has 15 seconds
	defer cancel()
	want := map[string]registry.Registration{}
	for i := range 50 {
		reg := registry.Registration{Addr: netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d", 20000+i)), Nick: fmt.Sprintf("n%d", i), NotifyPass: registry.Secret(fmt.Sprintf("p&<%d>", i)),
			Plugins: []string{"osc", "a,b"}, MaxAge: time.Duration(i) * time.Second}
		if i == 7 {
			reg.Nick, reg.Scheme, reg.TLSName = strings.ReplaceAll(oddNick, "\x1b", ""), "https", "box.example"
		}
		sat, _, err := desk.reg.Register(ctx, reg)
		if err != nil {
			t.Fatal(err)
		}
		want[string(sat.ID)] = reg
	}
	file := filepath.Join(t.TempDir(), "dump.xml")
	if code, _, stderr := from.tool(dumpCommand, "", file); code != ExitOK {
		t.Fatalf("dump: got %d, %s", code, stderr)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("dump's mode: got %v, %v, want 0600", info.Mode(), err)
	}
	code, out, stderr := to.tool(restoreCommand, "", file)
	if code != ExitOK || !strings.Contains(out, "50 registered, 0 were") {
		t.Fatalf("restore: got %d %q %q", code, out, stderr)
	}
	if got := len(to.events(cluster.EventRegistered, "")); got != len(want) {
		t.Errorf("got %d events of them when restore has ended, want %d", got, len(want))
	}
	there := openDesk(t, to)
	last, err := there.clus.Log().Last(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	compare := func() {
		t.Helper()
		sats, err := there.reg.ReadAll(t.Context())
		if err != nil || len(sats) != len(want) {
			t.Fatalf("got %d satellites, %v, want %d", len(sats), err, len(want))
		}
		for _, s := range sats {
			w := want[string(s.ID)]
			if s.Nick != w.Nick || s.NotifyPass != w.NotifyPass || strings.Join(s.Plugins, "|") != "osc|a,b" || s.MaxAge != w.MaxAge || s.TLSName != w.TLSName || s.Began != last {
				t.Errorf("%s: got %+v, want %+v from the log's end %d", s.ID, s, w, last)
			}
		}
	}
	compare()
	if code, out, _ = to.tool(restoreCommand, "", file); code != ExitOK || !strings.Contains(out, "0 registered, 50 were registered already") {
		t.Errorf("restore again: got %d %q", code, out)
	}
	code, bare, _ := from.tool(dumpCommand, "", "-", "--no-secrets")
	if code != ExitOK || strings.Contains(bare, "notify_pass") || strings.Contains(bare, "p&amp;") || !strings.Contains(bare, `secrets="false"`) {
		t.Errorf("without secrets: got %d %s", code, bare)
	}
	code, out, _ = to.tool(restoreCommand, strings.ReplaceAll(bare, "<nick>n", "<nick>m"), "-", "--replace", "--json")
	var n restored
	if err := json.Unmarshal([]byte(out), &n); code != ExitOK || err != nil || n.Replaced != 50 || n.Registered+n.Known+n.Failed != 0 {
		t.Errorf("restore --replace: got %d %q, want 50 replaced", code, out)
	}
	for id, w := range want {
		if number, ok := strings.CutPrefix(w.Nick, "n"); ok {
			w.Nick = "m" + number
			want[id] = w
		}
	}
	compare() // with the passwords of before
	if code, _, stderr = to.tool(restoreCommand, "<x/>", "-"); code != ExitError {
		t.Errorf("not a dump: got %d %s", code, stderr)
	}
	broken := strings.Replace(bare, `id="127.0.0.1:20003"`, `id="nowhere"`, 1)
	if code, out, stderr = to.tool(restoreCommand, broken, "-"); code != ExitError || !strings.Contains(out, "1 failed") || !strings.Contains(stderr, "nowhere") {
		t.Errorf("one bad satellite: got %d %q %q", code, out, stderr)
	}
}

// A file outlives the program that wrote it: the first version's are read for
// good, and so is what a later one adds, as far as this one knows it.
func TestDumpsOfOtherVersionsAreRestored(t *testing.T) {
	t.Parallel()
	const first = `<?xml version="1.0" encoding="UTF-8"?>
<co2relay version="1" created="2026-11-22T08:00:00Z" program="v0.1.0" secrets="true">
  <satellite id="192.0.2.7:7001" registered="2026-11-22T07:00:00Z">
    <nick>light</nick>
    <plugin>osc</plugin>
    <notify_pass>p&amp;ss</notify_pass>
  </satellite>
</co2relay>
`
	later := strings.NewReplacer(`version="1" created`, `version="2" colour="red" created`,
		"<nick>light</nick>", `<nick>light</nick><weight unit="kg">3<of>4</of></weight>`,
		"</co2relay>", "<summary>1 satellite</summary></co2relay>").Replace(first)
	for version, text := range map[string]string{"the first": first, "a later": later} {
		s := startSite(t, nil)
		if code, out, stderr := s.tool(restoreCommand, text, "-"); code != ExitOK || !strings.Contains(out, "1 registered") {
			t.Fatalf("%s version: got %d %q %q", version, code, out, stderr)
		}
		sats, err := openDesk(t, s).reg.ReadAll(t.Context())
		if err != nil || len(sats) != 1 || sats[0].ID != "192.0.2.7:7001" || sats[0].Nick != "light" || sats[0].NotifyPass != "p&ss" || strings.Join(sats[0].Plugins, "|") != "osc" {
			t.Errorf("%s version: got %+v, %v", version, sats, err)
		}
	}
}

func TestSatellitesAreListedForPeopleAndPrograms(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil)
	fleet := satellitetest.StartFleet(t, 3, satellitetest.Options{NotifyPass: "hush-hush"})
	for i, nick := range []string{"zeta", "alpha \u202e", "beta"} {
		if _, err := fleet[i].Register(t.Context(), s.url, nick); err != nil {
			t.Fatal(err)
		}
	}
	code, out, stderr := s.tool(satellitesCommand, "")
	if code != ExitOK || strings.Count(out, "\n") != 4 || strings.Index(out, "alpha") > strings.Index(out, "zeta") {
		t.Errorf("got %d %s %s", code, out, stderr)
	}
	if strings.ContainsAny(out, "\x1b\u202e") || strings.Contains(out, "hush-hush") {
		t.Errorf("list has control characters or a password: %q", out)
	}
	code, out, _ = s.tool(satellitesCommand, "", "--json", "--search", "BETA")
	var x listed
	if err := json.Unmarshal([]byte(out), &x); code != ExitOK || err != nil || x.ID != fleet[2].ID() || x.Nick != "beta" || strings.Contains(out, "hush-hush") {
		t.Errorf("got %d %s, %v", code, out, err)
	}
	if code, _, _ = s.tool(satellitesCommand, "", "--sort", "colour", "--state", "odd"); code != ExitUsage {
		t.Errorf("wrong column: got %d, want %d", code, ExitUsage)
	}
	code, out, stderr = s.tool(topCommand, "", "--once")
	if code != ExitOK || !strings.Contains(out, "satellites 3 of 10000") || strings.Contains(out, "\x1b") {
		t.Errorf("top --once: got %d %q %q", code, out, stderr)
	}
}

func TestCompletionScriptsAreValid(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		var out bytes.Buffer
		if code := completionCommand(t.Context(), []string{shell}, streams{nil, &out, &out}); code != ExitOK || !strings.Contains(out.String(), "restore") {
			t.Errorf("%s: got %d", shell, code)
		}
		path, err := exec.LookPath(shell)
		if err != nil {
			t.Logf("NOT TESTED: no %s here", shell)
			continue
		}
		cmd := exec.Command(path, "-n")
		cmd.Stdin = &out
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s -n: %v %s", shell, err, text)
		}
	}
	if _, err := exec.LookPath("bash"); err != nil {
		return
	}
	var script, stderr bytes.Buffer
	completionCommand(t.Context(), []string{"bash"}, streams{nil, &script, &stderr})
	script.WriteString("COMP_WORDS=(co2relay sat); COMP_CWORD=1; _co2relay; echo \"${COMPREPLY[*]}\"\n")
	cmd := exec.Command("bash")
	cmd.Stdin = &script
	if out, err := cmd.Output(); err != nil || strings.TrimSpace(string(out)) != "satellites satellite" {
		t.Errorf("bash completes 'sat' to %q, %v", out, err)
	}
	var out bytes.Buffer
	if code := completionCommand(t.Context(), []string{"tcsh"}, streams{nil, &out, &out}); code != ExitUsage {
		t.Errorf("unknown shell: got %d, want %d", code, ExitUsage)
	}
}

func openDesk(t *testing.T, s *site) *desk {
	t.Helper()
	b := brokerFlags{broker: Broker{Data: s.data}, timeout: time.Minute, logLevel: "off"}
	d, err := b.open(t.Context(), "test", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.close() })
	return d
}
