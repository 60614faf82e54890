package frontend

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// certificateCheck is how old, at most, the certificate is that a client gets
// after its files have changed.
const certificateCheck = time.Second

// certificate is a certificate whose files may be replaced while it is in use.
type certificate struct {
	certFile, keyFile string
	log               hclog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	stamps  [2]stamp
	checked time.Time
}

// stamp tells whether a file is another than before.
type stamp struct {
	changed time.Time
	size    int64
}

func stampOf(info fs.FileInfo) stamp { return stamp{info.ModTime(), info.Size()} }

// openCertificate reads a certificate; what is wrong with it is told at once.
func openCertificate(certFile, keyFile string, log hclog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log, checked: time.Now()}
	var err error
	if c.stamps, err = c.look(); err != nil {
		return nil, err
	}
	if err = c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *certificate) look() (stamps [2]stamp, err error) {
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return stamps, fmt.Errorf("read the certificate (--tls-cert, --tls-key): %w", err)
		}
		stamps[i] = stampOf(info)
	}
	return stamps, nil
}

func (c *certificate) load() error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("read the certificate (--tls-cert, --tls-key): %w", err)
	}
	c.current = &pair
	return nil
}

// get is tls.Config's GetCertificate. Files that have changed and cannot be used,
// half written ones among them, leave the certificate that was; they are tried
// again once they change again, or after the next check.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) < certificateCheck {
		return c.current, nil
	}
	c.checked = time.Now()
	stamps, err := c.look()
	if err == nil && stamps == c.stamps {
		return c.current, nil
	}
	if err == nil {
		err = c.load()
	}
	if err != nil {
		c.log.Error("the new certificate cannot be used, the old one stays", "error", err)
		return c.current, nil
	}
	c.stamps = stamps
	c.log.Info("certificate replaced", "file", c.certFile, "valid_until", c.current.Leaf.NotAfter)
	return c.current, nil
}

// tlsConfig serves HTTP/1.1 only: XML-RPC clients know no other.
func (c *certificate) tlsConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: []string{"http/1.1"}}
}

// wire is a connection below TLS, above the PROXY header.
type wire struct{ *conn }

func (w wire) Read(b []byte) (int, error)         { return w.readWire(b) }
func (w wire) Write(b []byte) (int, error)        { return w.Conn.Write(b) }
func (w wire) Close() error                       { return w.Conn.Close() }
func (w wire) SetDeadline(t time.Time) error      { return w.conn.SetDeadline(t) }
func (w wire) SetReadDeadline(t time.Time) error  { return w.conn.SetReadDeadline(t) }
func (w wire) SetWriteDeadline(t time.Time) error { return w.Conn.SetWriteDeadline(t) }

var _ net.Conn = wire{}
