// Package clustertest gives tests a real broker: an embedded nats-server with JetStream in the test's own directory.
package clustertest

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/co2relay/co2relay/cluster"
)

const patience = 30 * time.Second

// Start runs a broker in a directory of the test and returns a connection to it, set up with small limits (64 MiB of log,
// 10,000 satellites). Both end with the test.
func Start(t testing.TB) *cluster.Cluster {
	t.Helper()
	return Connect(t, StartServer(t, t.TempDir()))
}

// StartServer runs a broker on dir, until the test ends or Close is called: for tests that stop and start one.
func StartServer(t testing.TB, dir string) *cluster.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := cluster.StartServer(ctx, cluster.ServerConfig{Dir: dir, MaxStore: 4 << 30}, Logger(t))
	if err != nil {
		t.Fatalf("start broker: %v", err)
	}
	t.Cleanup(s.Close)
	return s
}

// Connect connects to s and sets the streams up. The connection ends with the test.
func Connect(t testing.TB, s *cluster.Server) *cluster.Cluster {
	t.Helper()
	return ConnectWith(t, s, Layout)
}

// Layout is what Connect asks for.
var Layout = cluster.Layout{RetentionBytes: 64 << 20}

// ConnectWith connects to s and sets the streams up as l says.
func ConnectWith(t testing.TB, s *cluster.Server, l cluster.Layout) *cluster.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := cluster.Connect(ctx, cluster.Options{Server: s, Name: t.Name()}, Logger(t))
	if err != nil {
		t.Fatalf("connect to broker: %v", err)
	}
	t.Cleanup(c.Close)
	if _, err := c.Setup(ctx, l); err != nil {
		t.Fatalf("set up streams: %v", err)
	}
	return c
}

// Logger writes warnings and errors to the test's log.
func Logger(t testing.TB) hclog.Logger { return WatchedLogger(t, func(string) {}) }

// WatchedLogger is Logger, and shows each line to see, from whatever goroutine logs it.
func WatchedLogger(t testing.TB, see func(line string)) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: testWriter{t, see}, DisableTime: true})
}

type testWriter struct {
	t   testing.TB
	see func(line string)
}

func (w testWriter) Write(b []byte) (int, error) {
	defer func() { _ = recover() }() // a goroutine that logs after its test has ended is no reason to fail another
	line := string(b[:max(len(b)-1, 0)])
	w.see(line)
	w.t.Log(line)
	return len(b), nil
}
