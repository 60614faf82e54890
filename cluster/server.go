package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats-server/v2/server"
)

// ServerConfig says how to run the embedded nats-server.
type ServerConfig struct {
	Dir      string // data directory, made 0700 if absent; one process at a time
	Listen   string // TCP address for NATS clients; "" opens no port
	MaxStore int64  // bytes that the streams may take together; 0 leaves it to nats-server (75% of what is free). Must be 1.2 times the log's limit or more, so that checkpoints still fit when the log is full
	Name     string // server name; "" is "co2relay"
}

// Server is an embedded nats-server with JetStream that syncs every write to disk. Clients reach it in the process, through
// the Unix socket Dir/nats.sock, and by TCP only with ServerConfig.Listen.
type Server struct {
	cfg    ServerConfig
	log    hclog.Logger
	lock   *dirLock
	sock   *unixSocket
	creds  *credentials  // nil without Listen
	short  atomic.Int64  // bytes free when that was too few; -1 if there are enough
	failed atomic.Bool   // a write to the store failed: JetStream refuses until Restart
	minF   atomic.Uint64 // what WatchDisk wants to be free, for the message

	mu     sync.Mutex // guards what follows
	nats   *server.Server
	addr   string // TCP address in use, kept over a restart
	closed bool
}

const serverStartTimeout = 30 * time.Second

// StartServer locks cfg.Dir, starts the server and opens its Unix socket. It returns ErrLocked if another process uses the
// directory.
func StartServer(ctx context.Context, cfg ServerConfig, log hclog.Logger) (*Server, error) {
	if cfg.Name == "" {
		cfg.Name = "co2relay"
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open data directory %s: %w", cfg.Dir, err)
	}
	cfg.Dir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory %s: %w", dir, err)
	}
	s := &Server{cfg: cfg, log: log.Named("broker")}
	s.short.Store(-1)
	if s.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	if err := s.open(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Server) open(ctx context.Context) error {
	var err error
	if s.cfg.Listen != "" {
		if s.creds, err = loadCredentials(s.cfg.Dir); err != nil {
			return err
		}
	}
	s.mu.Lock()
	err = s.startLocked(ctx)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.sock, err = listenSocket(s.cfg.Dir, s.InProcessConn)
	return err
}

// options are the settings of nats-server that the relay's promises need: SyncAlways because 'OK' means on disk, NoSigs
// because the process decides the order of stopping.
func (s *Server) options() (*server.Options, error) {
	o := &server.Options{
		ServerName:         s.cfg.Name,
		JetStream:          true,
		StoreDir:           s.cfg.Dir,
		SyncAlways:         true,
		JetStreamMaxStore:  s.cfg.MaxStore,
		JetStreamMaxMemory: 256 << 20,
		NoSigs:             true,
		DontListen:         s.cfg.Listen == "",
		NoLog:              true,
		MaxPayload:         server.MAX_PAYLOAD_SIZE,
	}
	if s.cfg.Listen == "" {
		return o, nil
	}
	listen := s.cfg.Listen
	if s.addr != "" {
		listen = s.addr
	}
	addr, err := net.ResolveTCPAddr("tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("listen for nats clients on %q: %w", listen, err)
	}
	o.Host, o.Port = addr.IP.String(), addr.Port
	if addr.IP == nil {
		o.Host = "0.0.0.0"
	}
	if o.Port == 0 {
		o.Port = server.RANDOM_PORT
	}
	o.CustomClientAuthentication = s.creds
	return o, nil
}

func (s *Server) startLocked(ctx context.Context) error {
	if s.closed {
		return errors.New("start broker: closed")
	}
	o, err := s.options()
	if err != nil {
		return err
	}
	ns, err := server.NewServer(o)
	if err != nil {
		return fmt.Errorf("start broker in %s: %w", s.cfg.Dir, err)
	}
	logger := &serverLog{log: s.log}
	ns.SetLogger(logger, s.log.IsDebug(), false)
	s.failed.Store(false)
	ns.Start()
	if err := waitRunning(ctx, ns, logger); err != nil {
		stopNats(ns)
		return fmt.Errorf("start broker in %s: %w: %s", s.cfg.Dir, err, logger.lastError())
	}
	s.nats = ns
	s.stageInMemory()
	if s.cfg.Listen != "" {
		s.addr = ns.Addr().String()
		s.log.Info("listening for nats clients", "address", s.addr, "credentials", s.creds.path)
	}
	return nil
}

func waitRunning(ctx context.Context, ns *server.Server, logger *serverLog) error {
	ctx, cancel := context.WithTimeout(ctx, serverStartTimeout)
	defer cancel()
	for !ns.ReadyForConnections(50*time.Millisecond) || !ns.JetStreamEnabled() {
		if logger.gone.Load() || !ns.Running() {
			return errors.New("nats-server gave up")
		}
		if ctx.Err() != nil {
			return fmt.Errorf("nats-server not ready: %w", ctx.Err())
		}
	}
	return nil
}

func stopNats(ns *server.Server) {
	ns.Shutdown()
	ns.WaitForShutdown()
}

// Dir is the data directory, absolute.
func (s *Server) Dir() string { return s.cfg.Dir }

// Addr is the TCP address for NATS clients, "" without ServerConfig.Listen.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// InProcessConn connects to the server as it stands now. nats.go asks again when it reconnects, so a client survives a
// Restart.
func (s *Server) InProcessConn() (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.nats == nil {
		return nil, fmt.Errorf("connect to broker: %w", ErrUnavailable)
	}
	return s.nats.InProcessConn()
}

// Restart stops the server and starts it again on the same directory: the only way out after a write error, since JetStream
// then refuses for ever. Clients reconnect by themselves.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("restart broker: closed")
	}
	if s.nats != nil {
		stopNats(s.nats)
		s.nats = nil
	}
	return s.startLocked(ctx)
}

// Close stops the server in order: no new clients, then the server, then the lock. It waits until nothing of it runs.
func (s *Server) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	ns := s.nats
	s.nats = nil
	s.mu.Unlock()
	if s.sock != nil {
		s.sock.stopListening()
	}
	if ns != nil {
		stopNats(ns)
	}
	if s.sock != nil {
		s.sock.wait()
	}
	s.dropStaging()
	s.lock.release()
}

// refuse says why the server cannot take writes just now; nil if it can.
func (s *Server) refuse() error {
	if s == nil {
		return nil
	}
	if free := s.short.Load(); free >= 0 {
		return fmt.Errorf("%w: %d MiB free in %s, %d MiB wanted (--min-free)", ErrShortOfDisk, free>>20, s.cfg.Dir, s.minF.Load()>>20)
	}
	if s.failed.Load() {
		return fmt.Errorf("%w: a write in %s failed, the broker is being restarted", ErrStore, s.cfg.Dir)
	}
	return nil
}
