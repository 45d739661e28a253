package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/acme/autocert"
	"golang.org/x/net/dns/dnsmessage"
)

// writeCertificate creates a certificate for this machine and writes it and its key to two files.
func writeCertificate(t testing.TB, dir, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// insecure returns a client that accepts all certificates.
func insecure(serverName string) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: serverName}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// TestHTTPS checks that a renewed certificate is loaded, and that HTTP requests are redirected.
func TestHTTPS(t *testing.T) {
	t.Parallel()
	cert, key := writeCertificate(t, t.TempDir(), "first")
	port, plain := strconv.Itoa(freePort(t)), strconv.Itoa(freePort(t))
	a := &appliance{env: []string{"WEBSTATUS_DOMAIN=webstatus.example.org", "WEBSTATUS_SECRET=s3cret", "WEBSTATUS_SERVER=127.0.0.1:1",
		"WEBSTATUS_DB=" + filepath.Join(t.TempDir(), "w.db"), "WEBSTATUS_LISTEN=127.0.0.1:" + port, "WEBSTATUS_TLS_CERT=" + cert, "WEBSTATUS_TLS_KEY=" + key,
		"WEBSTATUS_REDIRECT_LISTEN=127.0.0.1:" + plain}}
	a.process = start(t, a.command("serve"))
	a.waitLog(t, "msg=serving", "base_url=https://127.0.0.1:"+port)
	client := insecure("localhost")
	name := func() string {
		resp, err := client.Get("https://127.0.0.1:" + port + "/")
		if err != nil {
			return err.Error()
		}
		resp.Body.Close()
		if resp.StatusCode != 200 || resp.ProtoMajor != 2 {
			t.Errorf("%s %s", resp.Proto, resp.Status)
		}
		return resp.TLS.PeerCertificates[0].Subject.CommonName
	}
	eventually(t, "it answers", func() bool { return name() == "first" })
	writeCertificate(t, filepath.Dir(cert), "second")
	eventually(t, "the new certificate is there", func() bool { return name() == "second" })
	if err := os.WriteFile(key, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the log says what is wrong", func() bool { name(); return a.countLog("cannot reload the certificate") > 0 })
	if got := name(); got != "second" {
		t.Errorf("%s with an invalid certificate file", got)
	}
	resp, err := client.Get("http://127.0.0.1:" + plain + "/status/x.json?lang=de")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if to := resp.Header.Get("Location"); resp.StatusCode != 301 || to != "https://127.0.0.1:"+port+"/status/x.json?lang=de" || resp.ContentLength != 0 {
		t.Errorf("%s to %s, with %d bytes", resp.Status, to, resp.ContentLength)
	}
	a.end(t, 15)
}

// TestPort80Headers checks the headers of redirections, of errors, and of responses to the authority.
func TestPort80Headers(t *testing.T) {
	acme := tlsConfig{acmeDomains: []string{"status.example.org"}, acmeCache: t.TempDir()}
	for _, tt := range []struct {
		conf         tlsConfig
		method, path string
		want         int
	}{
		{tlsConfig{}, "GET", "http://status.example.org/status/x", 301}, {tlsConfig{}, "POST", "http://status.example.org/", 405},
		{acme, "GET", "http://status.example.org/status/x", 301}, {acme, "POST", "http://status.example.org/", 405},
		{acme, "GET", "http://status.example.org/.well-known/acme-challenge/x", 404}, {acme, "GET", "http://elsewhere.example/.well-known/acme-challenge/x", 403},
	} {
		_, port80, err := tt.conf.listenerConfig("https://status.example.org", nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		resp := httptest.NewRecorder()
		port80.ServeHTTP(resp, httptest.NewRequest(tt.method, tt.path, nil))
		if resp.Code != tt.want {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, resp.Code, tt.want)
		}
		checkSecurityHeaders(t, tt.method+" "+tt.path, resp.Code, resp.Header())
	}
}

// nameServer starts a DNS server over TCP that resolves all names to this machine until the test ends.
func nameServer(t *testing.T) (address string) {
	t.Helper()
	return acceptAll(t, func(conn net.Conn) {
		for answerName(conn) == nil {
		}
	})
}

// answerName answers one query with a length prefix (RFC 1035 §4.2.2).
func answerName(conn net.Conn) error {
	var size uint16
	if err := binary.Read(conn, binary.BigEndian, &size); err != nil {
		return err
	}
	question := make([]byte, size)
	if _, err := io.ReadFull(conn, question); err != nil {
		return err
	}
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil {
		return err
	}
	m.Response, m.Additionals = true, nil
	if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}}}
	}
	answer, err := m.Pack()
	if err == nil {
		_, err = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
	}
	return err
}

// An acmeAuthority is a local certificate authority.
type acmeAuthority struct {
	directory     string // URL
	certificate   string // file with the certificate of its own web server
	secure, plain int    // ports at which it validates names
}

// newAuthorities returns a function that starts certificate authorities.
func newAuthorities(t *testing.T) func() acmeAuthority {
	t.Helper()
	if os.Getenv("WEBSTATUS_E2E") == "" {
		t.Skip("the certificate authority is downloaded only if WEBSTATUS_E2E=require")
	}
	dir := t.TempDir()
	build := exec.Command("go", "install", "github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.1")
	build.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("pebble: %v %s", err, out)
	}
	cert, key := writeCertificate(t, dir, "authority")
	names := nameServer(t)
	return func() acmeAuthority {
		api, management := freePort(t), freePort(t)
		a := acmeAuthority{fmt.Sprintf("https://127.0.0.1:%d/dir", api), cert, freePort(t), freePort(t)}
		conf, err := json.Marshal(map[string]any{"pebble": map[string]any{"listenAddress": fmt.Sprintf("127.0.0.1:%d", api), "managementListenAddress": fmt.Sprintf("127.0.0.1:%d", management),
			"certificate": cert, "privateKey": key, "httpPort": a.plain, "tlsPort": a.secure}})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "pebble.json")
		if err := os.WriteFile(file, conf, 0o600); err != nil {
			t.Fatal(err)
		}
		authority := exec.Command(filepath.Join(dir, "pebble"), "-config", file, "-dnsserver", names)
		authority.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
		start(t, authority)
		eventually(t, "the authority answers", func() bool {
			resp, err := insecure("localhost").Get(a.directory)
			if err == nil {
				resp.Body.Close()
			}
			return err == nil
		})
		return a
	}
}

// newClient starts a webstatus that gets its certificate from the authority.
func (a acmeAuthority) newClient(t *testing.T, secure, plain int, more ...string) *appliance {
	t.Helper()
	c := &appliance{url: fmt.Sprintf("https://127.0.0.1:%d", secure), env: append([]string{"SSL_CERT_FILE=" + a.certificate,
		"WEBSTATUS_DOMAIN=webstatus.example.org", "WEBSTATUS_SECRET=s3cret", "WEBSTATUS_SERVER=127.0.0.1:1",
		fmt.Sprintf("WEBSTATUS_LISTEN=127.0.0.1:%d", secure), fmt.Sprintf("WEBSTATUS_REDIRECT_LISTEN=127.0.0.1:%d", plain),
		"WEBSTATUS_ACME_DOMAIN=status.example.org", "WEBSTATUS_ACME_DIRECTORY=" + a.directory}, more...)}
	c.process = start(t, c.command("serve"))
	c.waitLog(t, "msg=serving")
	return c
}

// certificate waits for a page over HTTPS, and returns the certificate.
func (a *appliance) certificate(t *testing.T) (certificate *x509.Certificate) {
	t.Helper()
	eventually(t, "a certificate of the authority", func() bool {
		resp, err := insecure("status.example.org").Get(a.url + "/")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		certificate = resp.TLS.PeerCertificates[0]
		return err == nil && strings.Contains(string(body), "webstatus.example.org")
	})
	if issuer := certificate.Issuer.CommonName; !strings.Contains(issuer, "Pebble") {
		t.Errorf("issued by %s", issuer)
	}
	return certificate
}

// TestACME gets certificates from a local certificate authority.
func TestACME(t *testing.T) {
	t.Parallel()
	newAuthority := newAuthorities(t)
	t.Run("file", func(t *testing.T) {
		authority, dir := newAuthority(), t.TempDir()
		a := authority.newClient(t, authority.secure, authority.plain, "WEBSTATUS_DB="+filepath.Join(dir, "w.db"), "WEBSTATUS_ACME_CACHE="+filepath.Join(dir, "acme"))
		a.certificate(t)
		if _, err := insecure("elsewhere.example").Get(a.url + "/"); err == nil {
			t.Error("a certificate was issued for an unknown name")
		}
	})
	// The first node asks for the certificate, and the authority reaches the second alone. Both show the same certificate, also after a restart.
	for _, challenge := range []string{"tls-alpn-01", "http-01"} {
		t.Run(challenge, func(t *testing.T) {
			authority, location := newAuthority(), newPostgresDatabase(t)
			secure := authority.secure
			if challenge == "http-01" {
				secure = freePort(t) // the authority finds nothing at its own
			}
			nowhere := "WEBSTATUS_ACME_CACHE=/proc/nowhere" // a directory that cannot be created
			a := authority.newClient(t, freePort(t), freePort(t), "WEBSTATUS_DB="+location, "WEBSTATUS_NODE=a", nowhere)
			b := authority.newClient(t, secure, authority.plain, "WEBSTATUS_DB="+location, "WEBSTATUS_NODE=b", nowhere)
			first := a.certificate(t)
			if second := b.certificate(t); !first.Equal(second) {
				t.Errorf("the nodes have two certificates: %s and %s", first.SerialNumber, second.SerialNumber)
			}
			a.end(t, 15)
			a.process = start(t, a.command("serve"))
			if again := a.certificate(t); !first.Equal(again) {
				t.Errorf("after a restart, the certificate is %s, and was %s", again.SerialNumber, first.SerialNumber)
			}
		})
	}
}

// TestSharedCertificates checks that a node finds what another has stored, and that clients who ask for challenges learn nothing about a
// database that does not answer.
func TestSharedCertificates(t *testing.T) {
	t.Parallel()
	p := ownPostgres(t)
	location := p.newDatabase(t)
	var log lockedBuffer
	var nodes []*guardedCache
	var port http.Handler // port 80 of the second node
	for _, name := range []string{"a", "b"} {
		db, err := joinDatabase(t.Context(), location, name)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		cache := newGuardedCache(sharedCertificates{db}, slog.New(slog.NewTextHandler(&log, nil)))
		nodes = append(nodes, cache)
		if _, port, err = (tlsConfig{acmeDomains: []string{"status.example.org"}}).listenerConfig("https://status.example.org", cache, cache.failures.log); err != nil {
			t.Fatal(err)
		}
	}
	a, b := nodes[0], nodes[1]
	ask := func(token string) (int, string) {
		answer := httptest.NewRecorder()
		port.ServeHTTP(answer, httptest.NewRequest("GET", "http://status.example.org/.well-known/acme-challenge/"+token, nil))
		return answer.Code, answer.Body.String()
	}
	for _, content := range []string{"first", "second"} {
		if err := a.Put(t.Context(), "t0ken+http-01", []byte(content)); err != nil {
			t.Fatal(err)
		}
		if code, body := ask("t0ken"); code != 200 || body != content {
			t.Errorf("%d %s, want %s", code, body, content)
		}
	}
	if err := b.Delete(t.Context(), "t0ken+http-01"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Get(t.Context(), "t0ken+http-01"); !errors.Is(err, autocert.ErrCacheMiss) {
		t.Errorf("what was deleted: %v", err)
	}
	for _, token := range []string{"t0ken", "other", "%00", "%FF", strings.Repeat("x", 300)} {
		if code, body := ask(token); code != 404 || strings.TrimSpace(body) != autocert.ErrCacheMiss.Error() {
			t.Errorf("%s: %d %s", token, code, body)
		}
	}
	if log.String() != "" {
		t.Errorf("log of a working database: %s", log.String())
	}
	p.end(syscall.SIGINT)
	if code, body := ask("t0ken"); code != 404 || strings.TrimSpace(body) != errCertificates.Error() {
		t.Errorf("without the database: %d %s", code, body)
	}
	if !strings.Contains(log.String(), "the certificate store is not reachable") || strings.Contains(log.String(), postgresPassword) {
		t.Errorf("log without the database: %s", log.String())
	}
}
