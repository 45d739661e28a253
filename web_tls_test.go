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
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

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
	eventually(t, "the log says what is wrong", func() bool { name(); return a.countLog("the certificate could not be reloaded") > 0 })
	if got := name(); got != "second" {
		t.Errorf("%s with an invalid certificate file", got)
	}
	resp, err := client.Get("http://127.0.0.1:" + plain + "/status/x.json?lang=de")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if to := resp.Header.Get("Location"); resp.StatusCode != 301 || to != "https://127.0.0.1:"+port+"/status/x.json?lang=de" {
		t.Errorf("%s to %s", resp.Status, to)
	}
	a.end(t, 15)
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

// TestACME gets a certificate from a local certificate authority.
func TestACME(t *testing.T) {
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
	api, management, secure, plain := freePort(t), freePort(t), freePort(t), freePort(t)
	conf, err := json.Marshal(map[string]any{"pebble": map[string]any{"listenAddress": fmt.Sprintf("127.0.0.1:%d", api), "managementListenAddress": fmt.Sprintf("127.0.0.1:%d", management),
		"certificate": cert, "privateKey": key, "httpPort": plain, "tlsPort": secure}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pebble.json"), conf, 0o600); err != nil {
		t.Fatal(err)
	}
	authority := exec.Command(filepath.Join(dir, "pebble"), "-config", filepath.Join(dir, "pebble.json"), "-dnsserver", nameServer(t))
	authority.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
	start(t, authority)
	directory := fmt.Sprintf("https://127.0.0.1:%d/dir", api)
	eventually(t, "the authority answers", func() bool {
		resp, err := insecure("localhost").Get(directory)
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	})
	address := fmt.Sprintf("127.0.0.1:%d", secure)
	a := &appliance{env: []string{"SSL_CERT_FILE=" + cert, "WEBSTATUS_DOMAIN=webstatus.example.org", "WEBSTATUS_SECRET=s3cret", "WEBSTATUS_SERVER=127.0.0.1:1",
		"WEBSTATUS_DB=" + filepath.Join(dir, "w.db"), "WEBSTATUS_LISTEN=" + address, "WEBSTATUS_REDIRECT_LISTEN=127.0.0.1:" + strconv.Itoa(plain),
		"WEBSTATUS_ACME_DOMAIN=status.example.org", "WEBSTATUS_ACME_CACHE=" + filepath.Join(dir, "acme"), "WEBSTATUS_ACME_DIRECTORY=" + directory}}
	a.process = start(t, a.command("serve"))
	a.waitLog(t, "msg=serving")
	issuer := ""
	eventually(t, "a certificate of the authority", func() bool {
		resp, err := insecure("status.example.org").Get("https://" + address + "/")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		issuer = resp.TLS.PeerCertificates[0].Issuer.CommonName
		return err == nil && strings.Contains(string(body), "webstatus.example.org")
	})
	if !strings.Contains(issuer, "Pebble") {
		t.Errorf("issued by %s", issuer)
	}
	if _, err := insecure("elsewhere.example").Get("https://" + address + "/"); err == nil {
		t.Error("a certificate was issued for an unknown name")
	}
}
