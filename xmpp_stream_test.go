package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// testLink makes a link to a listener; everything goes fast.
func testLink(l net.Listener) *link {
	return &link{domain: "webstatus.example.org", secret: "s3cret", server: l.Addr().String(), log: slog.New(slog.DiscardHandler),
		opened: func(*stream) {}, closed: func(*stream) {}, deliver: func(frame) {},
		times: linkTimes{connect: patience, idle: 10 * time.Millisecond, ping: 10 * time.Millisecond, dead: 50 * time.Millisecond,
			write: patience, stable: time.Minute, retry: time.Second, slow: 10 * time.Second, most: time.Minute}}
}

// listenTCP listens and serves one connection.
func listenTCP(t *testing.T, serve func(net.Conn)) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		serve(conn)
	}()
	return l
}

const serverHeader = `<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:component:accept' from='webstatus.example.org' id='3BF96D32'>`

func streamErrorXML(condition string) string {
	return `<stream:error><` + condition + ` xmlns='urn:ietf:params:xml:ns:xmpp-streams'/><text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>in its own words</text></stream:error></stream:stream>`
}

// TestHandshake has, for what a server may say, what the operator is told.
func TestHandshake(t *testing.T) {
	tests := []struct {
		name   string
		server []string // what the server says at first, and after the handshake; then it closes
		cause  string
		remedy string
		slow   bool
	}{
		{"granted, then closed", []string{serverHeader, `<handshake/></stream:stream>`}, "the server closed the connection", "was stopped", false},
		{"wrong secret", []string{serverHeader, streamErrorXML("not-authorized")}, "refuses the secret for webstatus.example.org", "the secret is the one", true},
		{"unknown host", []string{serverHeader + streamErrorXML("host-unknown")}, "knows no component webstatus.example.org", "exactly as --domain", true},
		{"second connection", []string{serverHeader, streamErrorXML("conflict")}, "another connection holds the place", "a second webstatus", false},
		{"shutting down", []string{serverHeader, `<handshake/>` + streamErrorXML("system-shutdown")}, "shutting down", "comes back", false},
		{"another error", []string{serverHeader, streamErrorXML("policy-violation")}, "policy-violation (in its own words)", "the server's log", false},
		{"no XMPP", []string{"HTTP/1.1 400 Bad Request\r\n\r\n<html></html>"}, "not an XMPP stream", "component listener", false},
		{"closed at once", []string{""}, "closed the connection during the handshake", "component listener", false},
		{"an answer of another kind", []string{serverHeader, `<iq/>`}, "something else", "component listener", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var said strings.Builder
			done := make(chan struct{})
			l := testLink(listenTCP(t, func(conn net.Conn) {
				defer close(done)
				for _, text := range tt.server {
					if said.Len() > 0 {
						buf := make([]byte, len("<handshake></handshake>")+40)
						n, _ := io.ReadFull(conn, buf) // what there is
						said.Write(buf[:n])
					} else {
						f := newFramer(conn, maxStanza)
						header, _ := f.header() // what there is
						said.Write(header)
					}
					io.WriteString(conn, text)
				}
			}))
			err := l.runStream(t.Context(), func() {})
			<-done
			got := diagnose(err, l)
			if !strings.Contains(got.cause, tt.cause) || !strings.Contains(got.remedy, tt.remedy) || got.slow != tt.slow {
				t.Errorf("%v: %+v", err, got)
			}
			if !strings.Contains(said.String(), "to='webstatus.example.org'") {
				t.Errorf("said %s", said.String())
			}
			// The digest is that of XEP-0114's example's id with our secret.
			if len(tt.server) > 1 && !strings.Contains(said.String(), "<handshake>a984b871214a298f0f743fcd25f99b10838ba12b</handshake>") {
				t.Errorf("said %s", said.String())
			}
		})
	}
}

func TestLinkTLS(t *testing.T) {
	// httptest has a certificate for 127.0.0.1.
	web := httptest.NewTLSServer(http.NotFoundHandler())
	defer web.Close()
	secure := func(conn net.Conn) {
		s := tls.Server(conn, &tls.Config{Certificates: web.TLS.Certificates})
		f := newFramer(s, maxStanza)
		if _, err := f.header(); err != nil {
			return
		}
		fmt.Fprint(s, serverHeader)
		if _, err := f.next(); err == nil {
			fmt.Fprint(s, `<handshake/></stream:stream>`)
		}
	}
	pool := x509.NewCertPool()
	pool.AddCert(web.Certificate())
	tests := []struct {
		name  string
		serve func(net.Conn)
		host  string
		cas   *x509.CertPool
		cause string
	}{
		{"verified", secure, "127.0.0.1", pool, "the server closed the connection"},
		{"unknown authority", secure, "127.0.0.1", x509.NewCertPool(), "unknown authority"},
		{"another name", secure, "localhost", pool, "not localhost"},
		{"no TLS", func(conn net.Conn) { fmt.Fprint(conn, serverHeader) }, "127.0.0.1", pool, "does not speak TLS"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := testLink(listenTCP(t, tt.serve))
			l.tls = &tls.Config{RootCAs: tt.cas}
			l.server = strings.Replace(l.server, "127.0.0.1", tt.host, 1)
			if got := diagnose(l.runStream(t.Context(), func() {}), l); !strings.Contains(got.cause, tt.cause) {
				t.Errorf("%+v, want %s", got, tt.cause)
			}
		})
	}
}

// TestKeepalive has a server that answers pings for a while, and then hangs.
func TestKeepalive(t *testing.T) {
	server, err := newLoopback("webstatus.example.org", "s3cret")
	if err != nil {
		t.Fatal(err)
	}
	defer server.listener.Close()
	go func() {
		s, err := server.accept()
		if err != nil {
			return
		}
		for range 20 {
			if r, err := s.receive(); err != nil || r.typ != "get" || s.send(`<iq type='get' id='%s' from='webstatus.example.org' to='webstatus.example.org'/>`, r.id) != nil {
				t.Errorf("%+v, %v", r, err)
				return
			}
		}
	}()
	l := testLink(server.listener)
	pings := 0
	l.deliver = func(frame) { pings++ }
	err = l.runStream(t.Context(), func() {})
	if got := diagnose(err, l); !strings.Contains(got.cause, "silent") || pings != 20 {
		t.Errorf("%+v after %d pings", got, pings)
	}
}

// TestRetries has a listener that refuses, and counts what is logged and how the delays grow.
func TestRetries(t *testing.T) {
	l := testLink(listenTCP(t, func(net.Conn) {}))
	for failures, most := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute} {
		if d := l.delay(failures, false); d < most/2 || d > most {
			t.Errorf("%v after %d failures, want at most %v", d, failures, most)
		}
	}
	if d := l.delay(0, true); d < 5*time.Second {
		t.Errorf("%v where only the operator can help", d)
	}
	if d := l.delay(1000000, false); d > time.Minute {
		t.Errorf("%v after very many failures", d)
	}

	log := &lockedBuffer{}
	l.log = slog.New(slog.NewTextHandler(log, nil))
	l.times.retry = time.Millisecond
	l.times.most = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	attempts := &lockedBuffer{}
	l.server = listenMany(t, attempts)
	go func() { l.run(ctx); close(done) }()
	eventually(t, "many attempts", func() bool { return len(attempts.String()) > 10 })
	cancel()
	<-done
	if n := strings.Count(log.String(), "no link"); n != 1 {
		t.Errorf("the same cause is logged %d times:\n%s", n, log)
	}
}

// listenMany closes each connection at once, and counts them.
func listenMany(t *testing.T, attempts io.Writer) string {
	return acceptAll(t, func(conn net.Conn) {
		newFramer(conn, maxStanza).header() // so that the connection is not reset
		attempts.Write([]byte("."))
	})
}

// acceptAll serves each connection to the address that it returns, and closes it then, until the test ends.
func acceptAll(t *testing.T, serve func(net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return l.Addr().String()
}

// TestWriters has several goroutines write through one stream while the other side is slow.
func TestWriters(t *testing.T) {
	const writers, each = 8, 2000
	got := make(chan int)
	server, err := newLoopback("webstatus.example.org", "s3cret")
	if err != nil {
		t.Fatal(err)
	}
	defer server.listener.Close()
	go func() {
		s, err := server.accept()
		n := 0
		last := make(map[string]int)
		for err == nil {
			var r *received
			if r, err = s.receive(); err == nil && r.typ == "" {
				var i int
				fmt.Sscan(r.id, &i)
				if from := r.from.bare; last[from]+1 != i {
					t.Errorf("%s: %d after %d", from, i, last[from])
				}
				last[r.from.bare]++
				n++
			}
		}
		got <- n
	}()
	l := testLink(server.listener)
	l.times.idle = time.Minute
	l.opened = func(s *stream) {
		done := make(chan struct{})
		for w := range writers {
			go func() {
				for i := 1; i <= each; i++ {
					if err := s.write(fmt.Appendf(nil, "<presence id='%d' from='w%d@x'>%s</presence>", i, w, strings.Repeat("x", 200))); err != nil {
						t.Error(err)
					}
				}
				done <- struct{}{}
			}()
		}
		for range writers {
			<-done
		}
		s.close()
	}
	log := &lockedBuffer{}
	l.log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l.run(ctx) // until our own farewell, which is no failure
	if ctx.Err() != nil || log.String() != "" {
		t.Errorf("%v after the farewell; log: %s", ctx.Err(), log)
	}
	if n := <-got; n != writers*each {
		t.Errorf("%d stanzas have arrived, want %d", n, writers*each)
	}
}
