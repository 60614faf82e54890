package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	volumeBytes = 320 << 20
	fillRate    = 20 << 20 // bytes a second: a log or a download that gets out of hand
)

// TestDiskFull fills the volumes of the broker behind its back: first the
// leader's, which nobody but that node should notice, then all three. When there
// is space again the nodes come back by themselves.
func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small volume needs root: a full disk is NOT TESTED")
	}
	s := newStack(t, "NATS_MAX_FILE_STORE=128MB", "CO2_RETENTION_BYTES=16MiB", "NATS_MIN_FREE=64")
	s.smallVolumes()
	s.up()
	f := newTraffic(t, s.url())

	f.start()
	f.flows(200)
	node := s.leader()
	s.fill(node)
	f.flows(500)
	s.free(node)
	s.healthy()
	f.flows(200)
	f.halt("disk of the leading NATS node full")

	f.start()
	f.flows(200)
	for _, node := range nodes {
		s.fill(node)
	}
	before := len(f.failures())
	s.eventually("relays are refused", func() bool { return len(f.failures()) > before })
	time.Sleep(5 * time.Second)
	why := f.failures()
	var unclear []error
	for _, err := range why {
		if !strings.Contains(err.Error(), "fault") && !errors.Is(err, syscall.ECONNREFUSED) && !strings.Contains(err.Error(), "deadline") {
			unclear = append(unclear, err)
		}
	}
	if len(unclear) > 0 {
		t.Errorf("a full disk: got %v, want a fault that says why", few(unclear))
	}
	t.Logf("with all disks full: %v", few(why))
	for _, node := range nodes {
		s.free(node)
	}
	s.healthy()
	f.flows(200)
	f.halt("disks of all NATS nodes full")
}

// smallVolumes gives each node a small file system of its own.
func (s *stack) smallVolumes() {
	s.t.Helper()
	s.t.Cleanup(removeAll)
	dir := s.t.TempDir()
	var text strings.Builder
	text.WriteString("version: \"3.8\"\nvolumes:\n")
	for _, node := range nodes {
		file := filepath.Join(dir, imagePrefix+node+".img")
		s.run("truncate", "-s", fmt.Sprint(volumeBytes), file)
		s.run("mkfs.ext4", "-q", "-m", "0", file)
		device := strings.TrimSpace(s.run("losetup", "-f", "--show", file))
		fmt.Fprintf(&text, "  %s:\n    driver: local\n    driver_opts: {type: ext4, device: %q}\n", node, device)
	}
	override := filepath.Join(dir, "small.yml")
	if err := os.WriteFile(override, []byte(text.String()), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.files = []string{override}
}

func (s *stack) filler(node string) string {
	s.t.Helper()
	mount := strings.TrimSpace(s.run("docker", "volume", "inspect", "-f", "{{.Mountpoint}}", project+"_"+node))
	return filepath.Join(mount, "filler")
}

// fill takes all of a node's volume, at fillRate until nothing is left.
func (s *stack) fill(node string) {
	s.t.Helper()
	f, err := os.Create(s.filler(node))
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	const size = 1 << 20
	block := make([]byte, size)
	for written := 0; err == nil && written < volumeBytes; written += size {
		_, err = f.Write(block)
		time.Sleep(time.Second * size / fillRate)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		s.t.Fatalf("fill the disk of %s: got %v, want ENOSPC", node, err)
	}
}

func (s *stack) free(node string) {
	s.t.Helper()
	if err := os.Remove(s.filler(node)); err != nil {
		s.t.Fatal(err)
	}
}
