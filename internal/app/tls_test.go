package app

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/co2relay/co2relay/satellite/satellitetest"
)

// issue writes a self-signed certificate for a name and its key to dir.
func issue(t *testing.T, dir, name string, serial int64) (cert, key string, pair tls.Certificate) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if pair, err = tls.LoadX509KeyPair(cert, key); err != nil {
		t.Fatal(err)
	}
	return cert, key, pair
}

func TestMessagesTravelEncryptedBothWays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := DefaultConfig()
	cfg.Listen, cfg.Admin, cfg.Broker.Data = "127.0.0.1:0", "", filepath.Join(dir, "data")
	cfg.Broker.MinFree, cfg.RetentionBytes = 1<<20, 8<<20
	cfg.Frontend.TLSCert, cfg.Frontend.TLSKey, _ = issue(t, dir, "relay.example.org", 1)
	satCert, _, satPair := issue(t, dir, "sat.example.org", 2)
	cfg.SatelliteCA = satCert

	ctx, cancel := context.WithCancel(t.Context())
	opened, ended := make(chan net.Addr, 1), make(chan error, 1)
	go func() { ended <- Serve(ctx, cfg, hclog.NewNullLogger(), func(a net.Addr) { opened <- a }) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("stop: %v", err)
		}
	}()
	var addr net.Addr
	select {
	case addr = <-opened:
	case err := <-ended:
		ended <- err
		t.Fatalf("start: %v", err)
	}

	pool := x509.NewCertPool()
	trust := func(file string) {
		text, err := os.ReadFile(file)
		if err != nil || !pool.AppendCertsFromPEM(text) {
			t.Fatalf("read %s: %v", file, err)
		}
	}
	trust(cfg.Frontend.TLSCert)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "relay.example.org"}, DisableKeepAlives: true,
	}}
	call := func(method, members string) string {
		doc := "<?xml version='1.0'?><methodCall><methodName>" + method + "</methodName><params><param><value><struct>" + members + "</struct></value></param></params></methodCall>"
		resp, err := client.Post("https://"+addr.String()+"/RPC2", "text/xml", strings.NewReader(doc))
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || bytes.Contains(body, []byte("<fault>")) {
			t.Fatalf("%s: got %s, %v", method, body, err)
		}
		return string(body)
	}
	member := func(name, value string) string {
		return "<member><name>" + name + "</name><value>" + value + "</value></member>"
	}
	sat := satellitetest.Start(t, satellitetest.Options{TLS: &tls.Config{Certificates: []tls.Certificate{satPair}}})
	call("relay.register", member("port", fmt.Sprintf("<int>%d</int>", sat.Port()))+member("scheme", "https")+member("tls_name", "sat.example.org"))
	plain := satellitetest.Start(t, satellitetest.Options{})
	call("relay.register", member("port", fmt.Sprintf("<int>%d</int>", plain.Port())))
	call("relay.relay", member("host_id", plain.ID())+member("data", "hello"))
	waitCtx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if err := sat.WaitFor(waitCtx, func(s satellitetest.Stats) bool { return s.Notifies == 1 }); err != nil {
		t.Fatalf("the https satellite: %v, got %+v", err, sat.Stats())
	}

	// The certificate is replaced under the running relay.
	_, _, _ = issue(t, dir, "relay.example.org", 3)
	trust(cfg.Frontend.TLSCert)
	serial := func() int64 {
		conn, err := tls.Dial("tcp", addr.String(), &tls.Config{RootCAs: pool, ServerName: "relay.example.org"})
		if err != nil {
			return 0 // the two files were read between their writes
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	for deadline := time.Now().Add(time.Minute); serial() != 3; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the new certificate is not served after 30 s")
		}
	}
}

func TestAWrongCertificateFileIsToldAtTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.pem")
	if err := os.WriteFile(bad, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := trustOf(bad); err == nil || !strings.Contains(err.Error(), "--satellite-ca") {
		t.Errorf("got %v, want an error that names --satellite-ca", err)
	}
	cfg := DefaultConfig()
	cfg.Frontend.TLSCert = bad
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "--tls-key") {
		t.Errorf("got %v, want an error that names --tls-key", err)
	}
}
