package caller

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// A certificate's names are a stranger's text, and the error that tells of them
// ends in events, pages and logs.
func TestAStrangersCertificateIsToldOfInFewPrintableWords(t *testing.T) {
	t.Parallel()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	for i := range 90 {
		template.DNSNames = append(template.DNSNames, fmt.Sprintf("\x1b[31m%d.%s", i, strings.Repeat("x", 500)))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if conn, err := ln.Accept(); err == nil {
			_ = conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	target := Target{Addr: ln.Addr().(*net.TCPAddr).AddrPort(), Scheme: SchemeHTTPS, TLSName: "satellite.example"}
	target.Addr = netip.AddrPortFrom(target.Addr.Addr().Unmap(), target.Addr.Port())
	_, err = Dial(context.Background(), target, nil)
	ln.Close()
	<-served
	var host x509.HostnameError
	if !errors.As(err, &host) {
		t.Fatalf("got %v, want that the name is another", err)
	}
	if text := err.Error(); len(text) > 400 || strings.ContainsRune(text, '\x1b') {
		t.Errorf("got %d bytes %q, want few and printable ones", len(text), text)
	}
}
