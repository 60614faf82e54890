package cluster

import (
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
)

// serverLog hands nats-server's log to hclog. Its notices are the server's own start and stop chatter: debug for us.
type serverLog struct {
	log  hclog.Logger
	last atomic.Value // string, the last error or fatal line
	gone atomic.Bool  // it gave up: nats-server expects a process to end then
}

func (l *serverLog) line(format string, v []any) string { return fmt.Sprintf(format, v...) }

func (l *serverLog) failed(format string, v []any) string {
	s := l.line(format, v)
	l.last.Store(s)
	return s
}

func (l *serverLog) lastError() string {
	s, _ := l.last.Load().(string)
	return s
}

func (l *serverLog) Noticef(format string, v ...any) {
	if l.log.IsDebug() {
		l.log.Debug("nats-server", "notice", l.line(format, v))
	}
}

func (l *serverLog) Warnf(format string, v ...any) {
	l.log.Warn("nats-server warns", "warning", l.line(format, v))
}

func (l *serverLog) Errorf(format string, v ...any) {
	l.log.Error("nats-server failed", "error", l.failed(format, v))
}

func (l *serverLog) Fatalf(format string, v ...any) {
	l.gone.Store(true)
	l.log.Error("nats-server gave up", "error", l.failed(format, v))
}

func (l *serverLog) Debugf(format string, v ...any) {
	if l.log.IsTrace() {
		l.log.Trace("nats-server", "debug", l.line(format, v))
	}
}

func (l *serverLog) Tracef(string, ...any) {}
