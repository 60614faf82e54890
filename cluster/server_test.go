package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/co2relay/co2relay/cluster"
	"github.com/co2relay/co2relay/cluster/clustertest"
	"github.com/co2relay/co2relay/internal/freeport"
)

func TestSecondServerOnADirectoryIsToldWhoHasIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := clustertest.StartServer(t, dir)
	_, err := cluster.StartServer(testContext(t), cluster.ServerConfig{Dir: dir}, clustertest.Logger(t))
	if !errors.Is(err, cluster.ErrLocked) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("second server: got %v, want %v with pid %d", err, cluster.ErrLocked, os.Getpid())
	}
	s.Close()
	clustertest.StartServer(t, dir).Close()
}

func TestSocketLetsToolsInAndNobodyElse(t *testing.T) {
	t.Parallel()
	long := filepath.Join(t.TempDir(), strings.Repeat("d", 120), strings.Repeat("e", 120))
	for name, dir := range map[string]string{"short": t.TempDir(), "long": long} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "long" && runtime.GOOS != "linux" {
				t.Skip("SKIPPED: only Linux can shorten a socket's path")
			}
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			stale := filepath.Join(dir, "nats.sock")
			if err := os.WriteFile(stale, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			s := clustertest.StartServer(t, dir)
			clustertest.Connect(t, s)
			info, err := os.Stat(stale)
			if err != nil || info.Mode().Type() != os.ModeSocket || info.Mode().Perm() != 0o600 {
				t.Errorf("socket: got %v, %v, want a socket with mode 600", info.Mode(), err)
			}
			tool, err := cluster.Connect(testContext(t), cluster.Options{Dir: dir}, clustertest.Logger(t))
			if err != nil {
				t.Fatalf("connect by directory: %v", err)
			}
			defer tool.Close()
			if err := tool.Log().Publish(testContext(t), cluster.Message{Body: strings.Repeat("x", 900000)}); err != nil {
				t.Errorf("publish through the socket: %v", err)
			}
			if err := s.Restart(testContext(t)); err != nil {
				t.Fatalf("restart: %v", err)
			}
			eventually(t, "the tool's reconnect", func() bool { return tool.Ready() == nil })
			tool.Close()
			s.Close()
			if _, err := os.Stat(stale); !os.IsNotExist(err) {
				t.Errorf("socket after close: got %v, want none", err)
			}
		})
	}
}

func TestPortNeedsTheGeneratedCredentials(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := cluster.StartServer(testContext(t), cluster.ServerConfig{Dir: dir, Listen: freeport.Addr(t), MaxStore: 4 << 30}, clustertest.Logger(t))
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	defer s.Close()
	inside := clustertest.Connect(t, s)
	path := filepath.Join(dir, "nats-credentials.json")
	b, err := os.ReadFile(path)
	var creds struct{ User, Password string }
	if err != nil || json.Unmarshal(b, &creds) != nil || len(creds.Password) < 20 {
		t.Fatalf("credentials: got %q, %v", b, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the credentials: got %v, %v, want 600", info.Mode(), err)
	}
	connect := func(user, password string, patience time.Duration) error {
		ctx, cancel := context.WithTimeout(testContext(t), patience)
		defer cancel()
		c, err := cluster.Connect(ctx, cluster.Options{URLs: []string{"nats://" + s.Addr()}, User: user, Password: password}, clustertest.Logger(t))
		if err == nil {
			eventually(t, "an answer", func() bool { return c.Ready() == nil })
			c.Close()
		}
		return err
	}
	if err := connect(creds.User, creds.Password, 30*time.Second); err != nil {
		t.Errorf("connect with credentials: %v", err)
	}
	for _, wrong := range [][2]string{{"", ""}, {creds.User, ""}, {creds.User, creds.Password + "x"}, {"x", creds.Password}} {
		if err := connect(wrong[0], wrong[1], time.Second); err == nil {
			t.Errorf("connect as %q: got in, want refused", wrong)
		}
	}
	was := s.Addr()
	if err := s.Restart(testContext(t)); err != nil || s.Addr() != was {
		t.Errorf("restart: got %v at %s, want the same address %s", err, s.Addr(), was)
	}
	eventually(t, "reconnect inside", func() bool { return inside.Ready() == nil })
}

func TestWhatWasAcceptedSurvivesStopAndStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := clustertest.StartServer(t, dir)
	c := clustertest.Connect(t, s)
	first := startOf(t, c)
	publishMany(t, c, 0, 200)
	rev, err := c.Bucket(cluster.BucketSatellites).PutAny(testContext(t), "k", []byte("v"))
	if err != nil {
		t.Fatalf("put: %v", err)
	}
	c.Close()
	s.Close()
	c = clustertest.Connect(t, clustertest.StartServer(t, dir))
	if got := len(logged(t, c, first)); got != 200 {
		t.Errorf("entries after a restart: got %d, want 200", got)
	}
	if i, err := c.Bucket(cluster.BucketSatellites).Get(testContext(t), "k"); err != nil || i.Revision != rev || string(i.Value) != "v" {
		t.Errorf("item after a restart: got %+v, %v", i, err)
	}
	if next := startOf(t, c); next != first+200 {
		t.Errorf("next sequence: got %d, want %d", next, first+200)
	}
}

// Not parallel: it counts goroutines.
func TestCloseLeavesNothingRunning(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 2 {
		s, err := cluster.StartServer(testContext(t), cluster.ServerConfig{Dir: t.TempDir(), MaxStore: 1 << 30}, clustertest.Logger(t))
		if err != nil {
			t.Fatalf("start: %v", err)
		}
		c, err := cluster.Connect(testContext(t), cluster.Options{Dir: s.Dir()}, clustertest.Logger(t))
		if err != nil {
			t.Fatalf("connect: %v", err)
		}
		if _, err := c.Setup(testContext(t), cluster.Layout{RetentionBytes: 1 << 20}); err != nil {
			t.Fatalf("set up: %v", err)
		}
		k := follow(t, c, startOf(t, c))
		publishMany(t, c, 0, 50)
		eventually(t, "entries", k.has(50))
		k.stop()
		<-k.ended
		c.Close()
		s.Close()
		s.Close()
	}
	eventually(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= before })
}

func TestConnectWaitsForTheBroker(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	short, cancel := context.WithTimeout(testContext(t), 300*time.Millisecond)
	defer cancel()
	if _, err := cluster.Connect(short, cluster.Options{Dir: dir}, clustertest.Logger(t)); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("connect without a broker: got %v, want an error that names %s", err, dir)
	}
	if _, err := cluster.Connect(short, cluster.Options{}, clustertest.Logger(t)); err == nil {
		t.Errorf("connect to nothing: got no error")
	}
	done := make(chan error, 1)
	go func() {
		c, err := cluster.Connect(testContext(t), cluster.Options{Dir: dir}, clustertest.Logger(t))
		if err == nil {
			_, err = c.Setup(testContext(t), clustertest.Layout)
			c.Close()
		}
		done <- err
	}()
	clustertest.StartServer(t, dir)
	if err := <-done; err != nil {
		t.Errorf("connect while the broker starts: %v", err)
	}
}

func TestServerThatCannotStartSaysWhyAndLetsGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	blocker := filepath.Join(dir, "jetstream")
	if err := os.WriteFile(blocker, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	quiet := hclog.NewNullLogger()
	if _, err := cluster.StartServer(testContext(t), cluster.ServerConfig{Dir: dir}, quiet); err == nil || !strings.Contains(err.Error(), dir+": ") || !strings.Contains(err.Error(), "storage directory") {
		t.Errorf("start on a broken directory: got %v, want an error that says so of %s", err, dir)
	}
	for _, listen := range []string{"nonsense", "127.0.0.1:99999", "192.0.2.1:4222"} {
		if _, err := cluster.StartServer(testContext(t), cluster.ServerConfig{Dir: t.TempDir(), Listen: listen}, quiet); err == nil {
			t.Errorf("listen on %s: got no error", listen)
		}
	}
	if err := os.Remove(blocker); err != nil {
		t.Fatal(err)
	}
	clustertest.StartServer(t, dir).Close()
}
