package faults

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// smallDisk mounts an ext4 file system of 64 MiB and gives a directory on it.
func smallDisk(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: only root can mount a small disk")
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("SKIPPED: mkfs.ext4 (e2fsprogs) is missing")
	}
	image, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 64<<20); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Skipf("SKIPPED: cannot mount a file here: %s: %v: %s", command[0], err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	return data
}

// fill takes what is left of a node's disk.
func (n *node) fill() (filler string) {
	n.t.Helper()
	filler = filepath.Join(filepath.Dir(n.dir), "filler")
	f, err := os.Create(filler)
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, endless{}); !errors.Is(err, syscall.ENOSPC) {
		n.t.Fatalf("fill the disk of %s: %v", n.name, err)
	}
	return filler
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// Invariant: a broker whose disk is full costs nothing but a change of leaders;
// with all disks full relays get a clear fault in bounded time; with space again
// and the brokers started again, as their supervisor does, everything goes on,
// and nothing that was answered 'OK' is lost.
func TestDisksOfTheBrokersAreFull(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: three disks take too long for a short run")
	}
	p := startPlant(t, plantOptions{frontends: 1, workers: 2, pingers: 1, change: func(_ int, n *node) { n.dir = smallDisk(t) }})
	tr := p.startTraffic(trafficOptions{satellites: 30, talkers: 3, pause: 50 * time.Millisecond})
	tr.flows(100)

	leader := p.leader("RELAY")
	one := time.Now()
	filler := leader.fill()
	time.Sleep(20 * time.Second)
	tr.flows(100)
	free := time.Now()
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	leader.kill()
	leader.start()
	p.whole()
	tr.flows(100)

	all := time.Now()
	var fillers []string
	for _, n := range p.nodes {
		fillers = append(fillers, n.fill())
	}
	eventually(t, "relays are refused", func() bool { return tr.failedSince(all) > 0 })
	time.Sleep(5 * time.Second)
	again := time.Now()
	for i, n := range p.nodes {
		if err := os.Remove(fillers[i]); err != nil {
			t.Fatal(err)
		}
		n.kill()
		n.start()
	}
	tr.flows(200)
	end := time.Now()
	tr.finish()
	p.allRun()

	for _, s := range tr.talkers {
		if s.last != nil && !strings.Contains(s.last.Error(), "accepted") {
			t.Errorf("talker %d was told %v, want whether its message was accepted", s.n, s.last)
		}
	}
	c := tr.count(tr.receivers, one, free)
	c.report(t, "disk of the log's leader full", "longest until 'OK' %s", c.answer.Round(time.Millisecond))
	if c.pause > electionMost+takeOver/2 {
		t.Errorf("longest pause: got %s, want at most %s", c.pause, electionMost+takeOver/2)
	}
	c = tr.count(tr.receivers, free, all)
	c.report(t, "it has space again", "longest until 'OK' %s", c.answer.Round(time.Millisecond))
	c = tr.count(tr.receivers, all, again)
	c.report(t, "all disks full", "")
	c = tr.count(tr.receivers, again, end)
	c.report(t, "all have space again", "longest until 'OK' %s", c.answer.Round(time.Millisecond))
}

func (tr *traffic) failedSince(at time.Time) (n int) {
	for _, s := range tr.talkers {
		s.mu.Lock()
		for _, f := range s.fails {
			if f.sent.After(at) {
				n++
			}
		}
		s.mu.Unlock()
	}
	return n
}
