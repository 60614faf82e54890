package cluster_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
)

// smallDisk mounts an ext4 file system of 48 MiB and gives a directory on it.
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
	if err := os.Truncate(image, 48<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: mkfs.ext4: %v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: cannot mount a file here: %v: %s", err, out)
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

// fill writes a file beside dir that leaves about free bytes of the disk.
func fillDisk(t *testing.T, dir string, free int64) (file string) {
	t.Helper()
	file = filepath.Join(filepath.Dir(dir), "filler")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for {
		if left, err := cluster.DiskFree(dir); err != nil || int64(left) <= free {
			return file
		}
		if _, err := f.Write(block); err != nil {
			return file
		}
	}
}

func watchDisk(t *testing.T, s *cluster.Server, minFree uint64) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = s.WatchDisk(ctx, minFree) }()
	t.Cleanup(func() { cancel(); <-ended })
}

// tally publishes from several senders until stop, and notes what was accepted.
type tally struct {
	mu       sync.Mutex
	accepted map[string]bool
	errs     map[string]int
	stop     func() // and waits for the senders
}

func publishOn(t *testing.T, c *cluster.Cluster, senders int) *tally {
	y := &tally{accepted: map[string]bool{}, errs: map[string]int{}}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	y.stop = sync.OnceFunc(func() { close(stop); wg.Wait() })
	t.Cleanup(y.stop)
	for s := range senders {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				body := strconv.Itoa(s) + "-" + strconv.Itoa(i) + strings.Repeat("x", 2000)
				err := c.Log().Publish(ctx, cluster.Message{Body: body})
				cancel()
				y.note(body, err)
			}
		})
	}
	return y
}

func (y *tally) note(body string, err error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if err == nil {
		y.accepted[body] = true
		return
	}
	for _, known := range []error{cluster.ErrShortOfDisk, cluster.ErrStore, cluster.ErrMaybeAccepted, cluster.ErrUnavailable} {
		if errors.Is(err, known) {
			y.errs[known.Error()]++
			time.Sleep(5 * time.Millisecond)
			return
		}
	}
	y.errs[err.Error()]++
}

func (y *tally) counts() (accepted int, errs map[string]int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	errs = map[string]int{}
	for e, n := range y.errs {
		errs[e] = n
	}
	return len(y.accepted), errs
}

// end stops publishing and looks for what was accepted; it returns how many entries the log has.
func (y *tally) end(t *testing.T, c *cluster.Cluster, first uint64) int {
	t.Helper()
	y.stop()
	entries := logged(t, c, first)
	got, lost := bodies(entries), 0
	for body := range y.accepted {
		if got[body] == 0 {
			lost++
		}
	}
	t.Logf("%d accepted, %d logged, %d lost; refused or in doubt: %v", len(y.accepted), len(entries), lost, y.errs)
	if lost != 0 {
		t.Errorf("lost: got %d accepted messages that are not in the log, want none", lost)
	}
	return len(entries)
}

// Invariant: nothing accepted is lost when the disk becomes full; relays are refused clearly before that, and accepted
// again when there is space.
func TestRelaysAreRefusedWhileTheDiskIsShort(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t)
	s := clustertest.StartServer(t, dir)
	c := clustertest.ConnectWith(t, s, cluster.Layout{RetentionBytes: 1 << 30})
	first := startOf(t, c)
	watchDisk(t, s, 8<<20)
	filler := fillDisk(t, dir, 9<<20)
	y := publishOn(t, c, 4)
	eventually(t, "relays refused for lack of disk space", func() bool {
		_, errs := y.counts()
		return errs[cluster.ErrShortOfDisk.Error()] > 0 && errors.Is(c.Ready(), cluster.ErrShortOfDisk)
	})
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	was, _ := y.counts()
	eventually(t, "relays accepted again", func() bool { n, _ := y.counts(); return n > was })
	y.end(t, c, first)
}

// Invariant: a write error of the broker ends by itself when there is space, without anybody restarting anything, and
// nothing accepted is lost.
func TestBrokerRecoversFromAWriteError(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t)
	s := clustertest.StartServer(t, dir)
	c := clustertest.ConnectWith(t, s, cluster.Layout{RetentionBytes: 1 << 30})
	first := startOf(t, c)
	k := follow(t, c, first)
	filler := fillDisk(t, dir, 2<<20)
	y := publishOn(t, c, 4)
	eventually(t, "a write error", func() bool { _, errs := y.counts(); return errs[cluster.ErrMaybeAccepted.Error()] > 0 })
	watchDisk(t, s, 4<<20)
	eventually(t, "its discovery", func() bool { return s.Refuse() != nil })
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	was, _ := y.counts()
	eventually(t, "relays accepted again", func() bool { n, _ := y.counts(); return n > was })
	eventually(t, "the follower", k.has(y.end(t, c, first)))
	if _, err := c.Bucket(cluster.BucketStats).PutAny(testContext(t), "k", []byte("v")); err != nil {
		t.Errorf("put after recovery: %v", err)
	}
}
