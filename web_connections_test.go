package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A limitedServer is a web server with small limits on connections.
type limitedServer struct {
	*fixture
	address string
	secure  bool
}

// newLimitedServer starts a server for a number of connections, so many of which may wait for a request. No peer is exempt from the
// limit of each client, unless it is 0.
func newLimitedServer(t *testing.T, maximum, maxWaiting, perClient int, secure *tls.Config) *limitedServer {
	t.Helper()
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	connections := f.site.limits.connections
	connections.open.max, connections.maxWaiting, f.site.limits.streams.max = maximum, maxWaiting, maximum
	if perClient > 0 {
		connections.open.maxPerClient = perClient
		connections.exempt = func(netip.Addr) bool { return false }
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serveWeb(ctx, listener, secure, f.site.handler(), connections, f.conf.log) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &limitedServer{f, listener.Addr().String(), secure != nil}
}

// connect opens a connection from a loopback address, which is closed when the test ends.
func (s *limitedServer) connect(from string) net.Conn {
	s.t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.Dial("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	if s.secure {
		return tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}
	return conn
}

// isServed sends a request over a connection, which stays open, and reports whether it is answered.
func (s *limitedServer) isServed(conn net.Conn, path string) bool {
	s.t.Helper()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path) // fails if the connection has been closed
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return false
	}
	if strings.HasSuffix(path, "/events") {
		return resp.StatusCode == http.StatusOK
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		s.t.Error(err)
	}
	return resp.StatusCode == http.StatusOK
}

// isClosed reports whether the server has closed a connection, for which it waits.
func (s *limitedServer) isClosed(conn net.Conn) bool {
	_, err := conn.Read(make([]byte, 1))
	return err != nil
}

// waiting returns how many connections wait for a request.
func (s *limitedServer) waiting() int {
	connections := s.site.limits.connections
	connections.mu.Lock()
	defer connections.mu.Unlock()
	return connections.waiting.Len()
}

// warnings counts the warnings about connections.
func (s *limitedServer) warnings() int {
	return strings.Count(s.log.String(), "raise the limit on open files")
}

func TestConnectionsOfClients(t *testing.T) {
	s := newLimitedServer(t, 100, 100, 3, nil)
	var conns []net.Conn
	for range 3 {
		conns = append(conns, s.connect("127.0.0.1"))
		if !s.isServed(conns[len(conns)-1], julietPage) {
			t.Fatal("a connection within the limit is not served")
		}
	}
	if !s.isClosed(s.connect("127.0.0.1")) {
		t.Error("a connection above the limit is served")
	}
	if !s.isServed(s.connect("127.0.0.2"), julietPage) {
		t.Error("another client is not served")
	}
	conns[0].Close()
	eventually(t, "a connection is served after another one was closed", func() bool { return s.isServed(s.connect("127.0.0.1"), julietPage) })
	if !s.isServed(conns[1], julietPage) {
		t.Error("an older connection is not served anymore")
	}
	if n := s.warnings(); n != 0 {
		t.Errorf("%d warnings about one client", n)
	}
}

func TestExemptConnections(t *testing.T) {
	s := newLimitedServer(t, 1000, 1000, 0, nil)
	for range maxClientConnections + 1 {
		if !s.isServed(s.connect("127.0.0.1"), julietPage) {
			t.Fatal("a connection of this machine is refused")
		}
	}
	s.site.proxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	for peer, want := range map[string]bool{"192.0.2.1": true, "192.0.3.1": false, "::1": true} {
		if got := s.site.isExempt(netip.MustParseAddr(peer)); got != want {
			t.Errorf("%s: %t", peer, got)
		}
	}
}

// A connFrom is a connection from an address.
type connFrom struct {
	net.Conn
	peer string // address and port
}

func (c connFrom) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.peer))
}
func (c connFrom) Close() error { return nil }

// TestTranslatedConnections checks that connections through NAT64 count as those of the IPv4 client, and that none is exempt.
func TestTranslatedConnections(t *testing.T) {
	f := newFixture(t, nil)
	f.site.proxies = loopbackProxies
	limit := f.site.limits.connections
	limit.open.maxPerClient = 1
	for _, tt := range []struct{ first, second string }{{"[64:ff9b::202:202]:1", "2.2.2.2:1"}, {"[64:ff9b::7f00:1]:1", "[64:ff9b::7f00:1]:2"}, {"[64:ff9b:1::303:303]:1", "3.3.3.3:1"}} {
		c := limit.admit(connFrom{peer: tt.first})
		if c == nil {
			t.Fatalf("%s is refused", tt.first)
		}
		if limit.admit(connFrom{peer: tt.second}) != nil {
			t.Errorf("%s is not limited by a connection from %s", tt.second, tt.first)
		}
		c.Close()
	}
}

// TestIdleConnections opens more connections than there may be, and expects that those that have waited longest are closed, whether
// they have sent a request or not.
func TestIdleConnections(t *testing.T) {
	cert, key := writeCertificate(t, t.TempDir(), "x")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		secure  *tls.Config
		request bool // on each connection
	}{"idle": {nil, true}, "new": {nil, false}, "idle TLS": {&tls.Config{Certificates: []tls.Certificate{pair}}, true}} {
		t.Run(name, func(t *testing.T) {
			s := newLimitedServer(t, 4, 4, 0, tt.secure)
			var conns []net.Conn
			for i := range 10 {
				conns = append(conns, s.connect("127.0.0.1"))
				if !tt.request {
					continue
				}
				if !s.isServed(conns[i], julietPage) {
					t.Fatalf("connection %d is not served", i)
				}
				// The order in which connections become idle counts, which is after their responses.
				eventually(t, "the connection is idle", func() bool { return s.waiting() == min(i+1, 4) })
			}
			if !s.isServed(s.connect("127.0.0.1"), julietPage) {
				t.Error("no page with all connections idle")
			}
			for i := range 6 {
				if !s.isClosed(conns[i]) {
					t.Errorf("connection %d is open", i)
				}
			}
			if !s.isServed(conns[9], julietPage) {
				t.Error("the newest connection was closed")
			}
			if n := s.warnings(); n != 1 {
				t.Errorf("%d warnings", n)
			}
		})
	}
}

// TestWaitingConnections checks the bound on connections that wait for a request.
func TestWaitingConnections(t *testing.T) {
	s := newLimitedServer(t, 100, 3, 0, nil)
	var conns []net.Conn
	for range 5 {
		conns = append(conns, s.connect("127.0.0.1"))
		if !s.isServed(conns[len(conns)-1], julietPage) {
			t.Fatal("a connection is not served")
		}
	}
	if !s.isClosed(conns[0]) || !s.isServed(conns[4], julietPage) {
		t.Error("not the oldest connection is closed")
	}
	eventually(t, "as many are open as may wait", func() bool { return s.site.limits.connections.open.open() == 3 })
}

// TestBusyConnections checks that connections with a request are not closed for new ones.
func TestBusyConnections(t *testing.T) {
	s := newLimitedServer(t, 3, 3, 0, nil)
	var streams []net.Conn
	for range 3 {
		streams = append(streams, s.connect("127.0.0.1"))
		if !s.isServed(streams[len(streams)-1], julietPage+"/events") {
			t.Fatal("a stream is not served")
		}
	}
	for range 2 {
		if !s.isClosed(s.connect("127.0.0.1")) {
			t.Error("a connection above the limit is served")
		}
	}
	if n := s.warnings(); n != 1 {
		t.Errorf("%d warnings", n)
	}
	streams[1].Close()
	eventually(t, "a page is served after a stream has ended", func() bool { return s.isServed(s.connect("127.0.0.1"), julietPage) })
}

// TestDescriptors opens more connections to the program than it may have open files, and expects that pages and health checks go on.
func TestDescriptors(t *testing.T) {
	program := need(t, "webstatus")
	web, metrics := "127.0.0.1:"+strconv.Itoa(freePort(t)), "127.0.0.1:"+strconv.Itoa(freePort(t))
	cmd := exec.Command("sh", "-c", "ulimit -n 100; exec "+program+" serve")
	cmd.Env = append(cmd.Environ(), "WEBSTATUS_DOMAIN=webstatus.example.org", "WEBSTATUS_SECRET=s3cret", "WEBSTATUS_SERVER=127.0.0.1:1",
		"WEBSTATUS_DB="+filepath.Join(t.TempDir(), "w.db"), "WEBSTATUS_LISTEN="+web, "WEBSTATUS_METRICS_LISTEN="+metrics)
	p := start(t, cmd)
	eventually(t, "the program serves", func() bool {
		conn, err := net.Dial("tcp", web)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	s := &limitedServer{fixture: &fixture{t: t, log: p.out}, address: web}
	for i := range 300 {
		if !s.isServed(s.connect("127.0.0.1"), "/") {
			t.Fatalf("connection %d is not served", i)
		}
	}
	if resp, body := fetch(t, "http://"+metrics+"/healthz"); !strings.Contains(body, `"web":{"ok":true}`) {
		t.Errorf("%s %s", resp.Status, body)
	}
	if n := s.warnings(); n != 1 {
		t.Errorf("%d warnings", n)
	}
}
