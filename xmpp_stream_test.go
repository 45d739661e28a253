package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
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

// testLink returns a link to a listener, with short timeouts.
func testLink(l net.Listener) *link {
	return &link{domain: "webstatus.example.org", secret: "s3cret", server: l.Addr().String(), log: slog.New(slog.DiscardHandler),
		opened: func(*stream) {}, closed: func(*stream) {}, deliver: func(context.Context, frame) {},
		times: linkTimes{connect: patience, idle: 10 * time.Millisecond, ping: 10 * time.Millisecond, dead: 50 * time.Millisecond, pong: patience,
			write: patience, retry: retryDelay{time.Second, 4 * time.Second}, slow: retryDelay{10 * time.Second, time.Minute}}}
}

// listenTCP returns a listener that serves one connection.
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

// TestHandshake checks the diagnosis of each server behavior.
func TestHandshake(t *testing.T) {
	tests := []struct {
		name   string
		server []string // sent after the stream header and after the handshake; then the connection is closed
		cause  string
		remedy string
		slow   bool
	}{
		{"accepted, then closed", []string{serverHeader, `<handshake/></stream:stream>`}, "the server closed the connection", "was stopped", false},
		{"wrong secret", []string{serverHeader, streamErrorXML("not-authorized")}, "not-authorized: the server refuses the secret for webstatus.example.org", "the secret is the one", true},
		{"unknown host", []string{serverHeader + streamErrorXML("host-unknown")}, "host-unknown: the server has no component webstatus.example.org", "exactly as --domain", true},
		{"second connection", []string{serverHeader, streamErrorXML("conflict")}, "conflict: another connection is using webstatus.example.org", "a second webstatus", false},
		{"shutting down", []string{serverHeader, `<handshake/>` + streamErrorXML("system-shutdown")}, "system-shutdown: the server is shutting down", "starts again", false},
		{"another error", []string{serverHeader, streamErrorXML("policy-violation")}, "policy-violation (in its own words)", "the server's log", false},
		{"not XMPP", []string{"HTTP/1.1 400 Bad Request\r\n\r\n<html></html>"}, "not an XMPP stream", "component listener", false},
		{"closed at once", []string{""}, "closed the connection during the handshake", "component listener", false},
		{"unexpected answer", []string{serverHeader, `<iq/>`}, "the server did not reply with a handshake", "component listener", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got strings.Builder
			done := make(chan struct{})
			l := testLink(listenTCP(t, func(conn net.Conn) {
				defer close(done)
				for _, text := range tt.server {
					if got.Len() > 0 {
						buf := make([]byte, len("<handshake></handshake>")+40)
						n, _ := io.ReadFull(conn, buf) // partial if the connection ends
						got.Write(buf[:n])
					} else {
						f := newFramer(conn, maxStanza)
						header, _ := f.header() // partial if the connection ends
						got.Write(header)
					}
					io.WriteString(conn, text)
				}
			}))
			err := l.runStream(t.Context(), func() {})
			<-done
			fault := diagnose(err, l)
			if !strings.Contains(fault.cause, tt.cause) || !strings.Contains(fault.remedy, tt.remedy) || fault.slow != tt.slow {
				t.Errorf("%v: %+v", err, fault)
			}
			if !strings.Contains(got.String(), "to='webstatus.example.org'") {
				t.Errorf("received %s", got.String())
			}
			// SHA-1 of the stream ID in the example of XEP-0114 and our secret.
			if len(tt.server) > 1 && !strings.Contains(got.String(), "<handshake>a984b871214a298f0f743fcd25f99b10838ba12b</handshake>") {
				t.Errorf("received %s", got.String())
			}
		})
	}
}

func TestLinkTLS(t *testing.T) {
	// The certificate of httptest is valid for 127.0.0.1.
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

// TestKeepalive checks that a link to a server that stops answering pings is closed.
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
	l.deliver = func(context.Context, frame) { pings++ }
	err = l.runStream(t.Context(), func() {})
	if got := diagnose(err, l); !strings.Contains(got.cause, "no stanza from the server") || pings != 20 {
		t.Errorf("%+v after %d pings", got, pings)
	}
}

// TestNoPong checks the warning about a server that does not return the first ping.
func TestNoPong(t *testing.T) {
	l := testLink(listenTCP(t, func(conn net.Conn) {
		f := newFramer(conn, maxStanza)
		f.header() // the next read reports an error
		io.WriteString(conn, serverHeader)
		f.next()
		io.WriteString(conn, `<handshake/>`)
		io.Copy(io.Discard, conn) // until the link is closed
	}))
	l.times.idle, l.times.pong = patience, time.Millisecond
	var log lockedBuffer
	l.log = slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.runStream(ctx, func() {}) }()
	eventually(t, "the warning", func() bool {
		return strings.Contains(log.String(), `level=WARN msg="the XMPP server has not returned a ping to webstatus.example.org"`) &&
			strings.Contains(log.String(), "received=nothing")
	})
	cancel()
	<-done
}

// TestNoPongNamesStanzas checks that the warning identifies what the server sent instead, without its content.
func TestNoPongNamesStanzas(t *testing.T) {
	const stanzas = `<iq xmlns='jabber:unknown' type='get' id='1' from='webstatus.example.org' to='webstatus.example.org'><ping xmlns='urn:xmpp:ping'/></iq>` +
		`<message from="romeo@example.org/x" to="webstatus.example.org"><body>a secret</body></message><presence/><presence/><presence/><presence type='probe'/>`
	l := testLink(listenTCP(t, func(conn net.Conn) {
		f := newFramer(conn, maxStanza)
		f.header() // the next read reports an error
		io.WriteString(conn, serverHeader)
		f.next()
		io.WriteString(conn, `<handshake/>`+stanzas+`</stream:stream>`)
		io.Copy(io.Discard, conn)
	}))
	var log lockedBuffer
	l.log = slog.New(slog.NewTextHandler(&log, nil))
	var s *stream
	l.opened = func(opened *stream) { s = opened }
	if err := l.runStream(t.Context(), func() {}); !errors.Is(err, errStreamClosed) {
		t.Fatal(err)
	}
	l.checkPong(s)
	want := `received="<iq xmlns='jabber:unknown' type='get' from='webstatus.example.org' to='webstatus.example.org'> ` +
		`<message from='romeo@example.org/x' to='webstatus.example.org'> <presence> <presence> <presence>"`
	if got := log.String(); !strings.Contains(got, want) || strings.Contains(got, "secret") {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestPong checks that there is no warning about a server that returns the first ping.
func TestPong(t *testing.T) {
	f := newFixture(t, nil)
	s := f.comp.links.open()[0]
	eventually(t, "the ping came back", func() bool { return s.lastPong.Load() != 0 })
	(&link{log: f.conf.log}).checkPong(s)
	if log := f.log.String(); strings.Contains(log, "WARN") {
		t.Error(log)
	}
}

// TestRetries checks the backoff, and that a repeated cause is logged once.
func TestRetries(t *testing.T) {
	l := testLink(listenTCP(t, func(net.Conn) {}))
	for failures, most := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 4 * time.Second} {
		if d := l.delay(failures, false); d < most/2 || d > most {
			t.Errorf("%v after %d failures, want at most %v", d, failures, most)
		}
	}
	if d := l.delay(0, true); d < 5*time.Second {
		t.Errorf("%v after an error that only the operator can fix", d)
	}
	if d := l.delay(1000000, true); d < 30*time.Second || d > time.Minute {
		t.Errorf("%v after many such errors", d)
	}
	if d := (&link{times: defaultLinkTimes}).delay(1000000, false); d >= 5*time.Second {
		t.Errorf("%v after many failures", d)
	}

	log := &lockedBuffer{}
	l.log = slog.New(slog.NewTextHandler(log, nil))
	l.times.retry = retryDelay{time.Millisecond, time.Millisecond}
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

// TestRetryAfterHandshake checks that the backoff starts over with each completed handshake, however short the stream is.
func TestRetryAfterHandshake(t *testing.T) {
	server, err := newLoopback("webstatus.example.org", "s3cret")
	if err != nil {
		t.Fatal(err)
	}
	defer server.listener.Close()
	l := testLink(server.listener)
	l.times.retry = retryDelay{time.Millisecond, time.Hour}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { l.run(ctx); close(done) }()
	for range 30 {
		s, err := server.accept()
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	cancel()
	<-done
}

// TestTrickle checks that a server that answers pings with parts of an element is not taken for alive.
func TestTrickle(t *testing.T) {
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
		io.WriteString(s, "<presence ")
		for err == nil { // until the component gives up
			if _, err = s.receive(); err == nil {
				_, err = io.WriteString(s, " ")
			}
		}
	}()
	l := testLink(server.listener)
	if got := diagnose(l.runStream(t.Context(), func() {}), l); !strings.Contains(got.cause, "no stanza from the server") {
		t.Errorf("%+v", got)
	}
}

// TestWriteTimeout checks the diagnosis of a server that does not read.
func TestWriteTimeout(t *testing.T) {
	server, err := newLoopback("webstatus.example.org", "s3cret")
	if err != nil {
		t.Fatal(err)
	}
	defer server.listener.Close()
	accepted := make(chan *loopbackStream)
	go func() {
		s, _ := server.accept() // nil if the test has ended
		accepted <- s
	}()
	l := testLink(server.listener)
	l.times.idle, l.times.dead, l.times.write = time.Hour, time.Hour, 50*time.Millisecond
	l.opened = func(s *stream) {
		stanza := []byte("<presence>" + strings.Repeat("x", 1<<20) + "</presence>")
		for s.write(stanza) == nil {
		}
	}
	if got := diagnose(l.runStream(t.Context(), func() {}), l); !strings.Contains(got.cause, "the server has not read anything for 50ms") {
		t.Errorf("%+v", got)
	}
	(<-accepted).Close()
}

// listenMany accepts and closes connections, and writes a byte to attempts for each.
func listenMany(t *testing.T, attempts io.Writer) string {
	return acceptAll(t, func(conn net.Conn) {
		newFramer(conn, maxStanza).header() // unread data would reset the connection
		attempts.Write([]byte("."))
	})
}

// acceptAll listens until the test ends. It serves and closes each connection, and returns the address.
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

// TestWriters checks that concurrent writes keep their order, with a slow server.
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
	l.run(ctx) // until close, which is not a failure
	if ctx.Err() != nil || log.String() != "" {
		t.Errorf("%v after close; log: %s", ctx.Err(), log)
	}
	if n := <-got; n != writers*each {
		t.Errorf("%d stanzas received, want %d", n, writers*each)
	}
}
