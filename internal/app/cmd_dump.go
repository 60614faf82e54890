package app

import (
	"bufio"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/registry"
)

const dumpUsage = `Usage: co2relay dump [--no-secrets] FILE [flags]

Writes all registrations to an XML file (- is standard output), from which
'co2relay restore' registers them with this or another cluster. The file holds
the satellites' passwords: it is made readable by its owner alone. With
--no-secrets they are left out, and satellites do not take what the relay sends
them after a restore until they have registered again.

Exit codes: 0 written whole; 1 not; 2 wrong use.`

const restoreUsage = `Usage: co2relay restore [--replace] [--json] FILE [flags]

Registers the satellites of a file that 'co2relay dump' wrote (- is standard
input). They start at the end of the log: what was owed to them elsewhere is not
carried over. A satellite that is registered already is left as it is, unless
--replace is set: then the file's nick, plugins and the like take the place of
what stands, and what it is owed stays. So does its password, if the file has
none.

Exit codes: 0 all are registered; 1 some are not (the others are); 2 wrong use.`

// dumpVersion is the version of the file. A later program writes what an older
// one can read, which ignores what it does not know.
const dumpVersion = 1

// dumpFile is the file.
type dumpFile struct {
	XMLName    xml.Name  `xml:"co2relay"`
	Version    int       `xml:"version,attr"`
	Created    time.Time `xml:"created,attr"`
	Program    string    `xml:"program,attr"`
	Secrets    bool      `xml:"secrets,attr"`
	Satellites []dumped  `xml:"satellite"`
}

// dumped is one registration. The password is plain: this is the one exception
// to promise 8, guarded by the file's mode and the broker's access.
type dumped struct {
	ID         string    `xml:"id,attr"`
	Registered time.Time `xml:"registered,attr"`
	Nick       string    `xml:"nick"`
	Scheme     string    `xml:"scheme,omitempty"`
	TLSName    string    `xml:"tls_name,omitempty"`
	MaxAge     string    `xml:"max_age,omitempty"`
	Plugins    []string  `xml:"plugin"`
	NotifyPass string    `xml:"notify_pass,omitempty"`
}

func dumpCommand(ctx context.Context, args []string, std streams) int {
	var path string
	var bare bool
	return deskCommand{
		name: "dump", usage: dumpUsage,
		bind: func(f *flagSet) { f.BoolVar(&bare, "no-secrets", false, "leave the passwords out") },
		check: func(args []string) (err error) {
			path, err = oneFile(args)
			return err
		},
		run: func(ctx context.Context, d *desk, std streams) (int, error) {
			sats, err := d.reg.ReadAll(ctx)
			if err != nil {
				return ExitError, err // a dump that lacks some would be taken for whole
			}
			file := dumpFile{Version: dumpVersion, Created: time.Now().UTC().Truncate(time.Second), Program: Version(), Secrets: !bare}
			for _, s := range sats {
				file.Satellites = append(file.Satellites, dumpedOf(s, bare))
			}
			if path == "-" {
				return ExitOK, writeDump(std.out, &file)
			}
			if err := saveDump(path, &file); err != nil {
				return ExitError, err
			}
			fmt.Fprintf(std.err, "%d satellites written to %s\n", len(sats), path)
			return ExitOK, nil
		},
	}.main(ctx, args, std)
}

func oneFile(args []string) (string, error) {
	if len(args) != 1 {
		return "", fmt.Errorf("want one argument, a file or -, and got %d", len(args))
	}
	return args[0], nil
}

func dumpedOf(s *registry.Satellite, bare bool) dumped {
	x := dumped{ID: string(s.ID), Registered: s.Created, Nick: s.Nick, TLSName: s.TLSName, Plugins: s.Plugins}
	if s.Scheme != "http" {
		x.Scheme = s.Scheme
	}
	if s.MaxAge > 0 {
		x.MaxAge = s.MaxAge.String()
	}
	if !bare {
		x.NotifyPass = s.NotifyPass.Reveal()
	}
	return x
}

func writeDump(w io.Writer, file *dumpFile) error {
	b := bufio.NewWriter(w)
	_, _ = b.WriteString(xml.Header) // a bufio.Writer keeps its first error
	e := xml.NewEncoder(b)
	e.Indent("", "  ")
	if err := e.Encode(file); err != nil {
		return fmt.Errorf("write dump: %w", err)
	}
	_ = b.WriteByte('\n')
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write dump: %w", err)
	}
	return nil
}

// saveDump replaces path by a file that nobody else can read, whole or not at
// all.
func saveDump(path string, file *dumpFile) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".co2relay-dump-*") // is made with mode 0600
	if err != nil {
		return fmt.Errorf("create dump: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name()) //nolint:errcheck // the error that is told is the first
		}
	}()
	err = errors.Join(writeDump(f, file), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("save dump %s: %w", path, err)
	}
	return nil
}

func restoreCommand(ctx context.Context, args []string, std streams) int {
	var path string
	var replace, asJSON bool
	endless := true
	return deskCommand{
		name: "restore", usage: restoreUsage, endless: &endless,
		bind: func(f *flagSet) {
			f.BoolVar(&replace, "replace", false, "replace what registered satellites say of themselves")
			f.BoolVar(&asJSON, "json", false, "one JSON object, for programs")
		},
		check: func(args []string) (err error) {
			path, err = oneFile(args)
			return err
		},
		run: func(ctx context.Context, d *desk, std streams) (int, error) {
			file, err := loadDump(path, std.in)
			if err != nil {
				return ExitError, err
			}
			n := restoreAll(ctx, d, file, replace, std)
			if asJSON {
				err = writeJSON(std.out, n, "  ")
			} else {
				fmt.Fprintf(std.out, "%d registered, %d were registered already, %d replaced, %d failed\n", n.Registered, n.Known, n.Replaced, n.Failed)
			}
			if n.Failed > 0 {
				return ExitError, err
			}
			return ExitOK, err
		},
	}.main(ctx, args, std)
}

func loadDump(path string, stdin io.Reader) (*dumpFile, error) {
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("open dump: %w", err)
		}
		defer f.Close()
		in = f
	}
	file := new(dumpFile)
	if err := xml.NewDecoder(bufio.NewReader(in)).Decode(file); err != nil {
		return nil, fmt.Errorf("read dump %s: %w", path, err)
	}
	if file.Version < 1 {
		return nil, fmt.Errorf("read dump %s: it is not a file of 'co2relay dump': no version", path)
	}
	return file, nil
}

// restored counts what became of the satellites of a file. As JSON it is for
// programs: members may be added, and keep their names.
type restored struct {
	Registered int `json:"registered"`
	Known      int `json:"known"` // and left as they were
	Replaced   int `json:"replaced"`
	Failed     int `json:"failed"`

	mu sync.Mutex
}

func (n *restored) count(one *int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	*one++
}

func restoreAll(ctx context.Context, d *desk, file *dumpFile, replace bool, std streams) *restored {
	n := new(restored)
	bar := newProgress(std.err, "restored", len(file.Satellites))
	faults := make(chan string, len(file.Satellites))
	var g errgroup.Group
	g.SetLimit(32)
	for i := range file.Satellites {
		g.Go(func() error {
			x := &file.Satellites[i]
			if err := restoreOne(ctx, d, x, replace, file.Secrets, n); err != nil {
				n.count(&n.Failed)
				faults <- fmt.Sprintf("%s: %v", printable(x.ID), err)
			}
			bar.step()
			return nil
		})
	}
	_ = g.Wait() // its functions return nil
	bar.end()
	close(faults)
	told := 0
	for fault := range faults {
		if told++; told <= 10 {
			fmt.Fprintln(std.err, "co2relay restore:", fault)
		}
	}
	if !file.Secrets && n.Registered > 0 {
		fmt.Fprintln(std.err, "co2relay restore: the file has no passwords: satellites that check theirs take no messages until they register again")
	}
	return n
}

// restoreOne registers one satellite. Without secrets, a password that stands
// is kept.
func restoreOne(ctx context.Context, d *desk, x *dumped, replace, secrets bool, n *restored) error {
	id, _, err := registry.ParseID(x.ID)
	if err != nil {
		return err
	}
	standing, err := d.reg.LookupLeader(ctx, id)
	switch {
	case err == nil && !replace:
		n.count(&n.Known)
		return nil
	case err != nil && !errors.Is(err, registry.ErrUnknown):
		return err
	}
	reg := registry.Registration{
		Nick: x.Nick, Plugins: x.Plugins, NotifyPass: registry.Secret(x.NotifyPass), Scheme: x.Scheme, TLSName: x.TLSName,
	}
	if standing != nil && !secrets {
		reg.NotifyPass = standing.NotifyPass
	}
	if reg.Addr, err = netip.ParseAddrPort(string(id)); err != nil {
		return fmt.Errorf("read host id: %w", err)
	}
	if x.MaxAge != "" {
		if reg.MaxAge, err = time.ParseDuration(x.MaxAge); err != nil {
			return fmt.Errorf("read max_age: %w", err)
		}
	}
	sat, isNew, err := d.reg.Register(ctx, reg)
	if err != nil {
		return err
	}
	if !isNew {
		n.count(&n.Replaced)
		return nil
	}
	n.count(&n.Registered)
	d.clus.Hint(id.Partition(), cluster.Hint{Kind: cluster.HintRegistered, Satellite: string(id), Revision: sat.Revision})
	d.emit(ctx, cluster.Event{
		Kind: cluster.EventRegistered, Satellite: string(id), Nick: sat.Nick, Partition: id.Partition(),
		First: decimal(sat.Began + 1), Generation: sat.Generation, Reason: "restored",
	})
	return nil
}

// progress shows on a terminal how far long work is; elsewhere it is silent.
type progress struct {
	out         *os.File // nil: no terminal
	what        string
	done, total int
	shown       time.Time
	steps       chan struct{}
	ended       chan struct{}
}

func newProgress(out io.Writer, what string, total int) *progress {
	p := &progress{what: what, total: total, steps: make(chan struct{}, 64), ended: make(chan struct{})}
	if f, ok := out.(*os.File); ok && isTerminal(out) {
		p.out = f
	}
	go func() {
		defer close(p.ended)
		for range p.steps {
			if p.done++; time.Since(p.shown) > 100*time.Millisecond {
				p.draw()
			}
		}
		p.draw()
	}()
	return p
}

func (p *progress) step() { p.steps <- struct{}{} }

func (p *progress) end() {
	close(p.steps)
	<-p.ended
	if p.out != nil {
		fmt.Fprintln(p.out)
	}
}

func (p *progress) draw() {
	if p.out == nil || p.total == 0 {
		return
	}
	p.shown = time.Now()
	const width = 30
	full := p.done * width / p.total
	bar := make([]rune, width)
	for i := range bar {
		bar[i] = '·'
		if i < full {
			bar[i] = '█'
		}
	}
	fmt.Fprintf(p.out, "\r%s %s %d of %d (%d%%)", p.what, string(bar), p.done, p.total, p.done*100/p.total)
}
