package main

import (
	"container/list"
	"crypto/tls"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
)

const (
	maxClientConnections  = 2 * maxClientStreams // of one client prefix
	maxWaitingConnections = 4096                 // that wait for a request: each takes 16 KiB
	descriptorReserve     = 256                  // file descriptors for /healthz and metrics, the link and the database
)

// A connectionLimit bounds the open connections of the web servers. When there are too many, it closes those that have waited longest
// for a request.
type connectionLimit struct {
	open       *openLimit
	maxWaiting int
	exempt     func(peer netip.Addr) bool // from the limit of each client
	log        *slog.Logger

	mu      sync.Mutex
	waiting *list.List // of *clientConn, the longest first
	warned  bool       // that the limit was reached
}

// newConnectionLimit returns a limit that leaves a reserve of file descriptors.
func newConnectionLimit(exempt func(netip.Addr) bool, log *slog.Logger) *connectionLimit {
	descriptors := math.MaxInt32
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < math.MaxInt32 {
		descriptors = int(limit.Cur)
	}
	return &connectionLimit{open: newOpenLimit(descriptors-min(descriptorReserve, descriptors/2), maxClientConnections), maxWaiting: maxWaitingConnections,
		exempt: exempt, log: log, waiting: list.New()}
}

// A clientConn is a connection that counts until it is closed.
type clientConn struct {
	net.Conn
	limit *connectionLimit
	leave func()        // once
	place *list.Element // among those that wait; nil for none
}

func (c *clientConn) Close() error {
	err := c.Conn.Close()
	c.limit.setWaiting(c, false)
	c.leave()
	return err
}

// A limitedListener accepts connections within a limit.
type limitedListener struct {
	net.Listener
	limit *connectionLimit
}

// listener returns a listener that accepts connections within the limit. The server needs noteState.
func (l *connectionLimit) listener(inner net.Listener) net.Listener { return limitedListener{inner, l} }

func (l limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		switch {
		case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE):
			l.limit.warn("too many open files")
			l.limit.closeWaiting()
			return nil, err // the server tries again
		case err != nil:
			return nil, err
		}
		if c := l.limit.admit(conn); c != nil {
			return c, nil
		}
		conn.Close()
	}
}

// admit counts a connection. It returns nil if there are too many.
func (l *connectionLimit) admit(conn net.Conn) *clientConn {
	client := netip.Addr{} // of a Unix socket and of an exempt peer
	if remote, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		if peer := plainAddress(remote.AddrPort().Addr()); !l.exempt(peer) {
			client = withoutNAT64(peer)
		}
	}
	leave, err := l.open.enter(client, 1)
	for errors.Is(err, errBusy) {
		l.warn("too many connections")
		if !l.closeWaiting() {
			break
		}
		leave, err = l.open.enter(client, 1)
	}
	if err != nil {
		return nil
	}
	return &clientConn{Conn: conn, limit: l, leave: sync.OnceFunc(leave)}
}

// warn logs the first time that connections are refused or closed.
func (l *connectionLimit) warn(problem string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.warned {
		l.warned = true
		l.log.Warn("the web server refuses connections or closes them early: raise the limit on open files (LimitNOFILE= in systemd, ulimit -n), or limit "+
			"connections in front of it", "cause", problem, "connections", l.open.max)
	}
}

// noteState is the ConnState callback of servers.
func (l *connectionLimit) noteState(conn net.Conn, state http.ConnState) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	c, ok := conn.(*clientConn)
	if !ok {
		return
	}
	waits := state == http.StateNew || state == http.StateIdle
	if l.setWaiting(c, waits) > l.maxWaiting {
		l.closeWaiting()
	}
}

// setWaiting notes whether a connection waits for a request, and returns how many do.
func (l *connectionLimit) setWaiting(c *clientConn, waits bool) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.place != nil {
		l.waiting.Remove(c.place)
		c.place = nil
	}
	if waits {
		c.place = l.waiting.PushBack(c)
	}
	return l.waiting.Len()
}

// closeWaiting closes the connection that has waited longest, and reports whether there was one.
func (l *connectionLimit) closeWaiting() bool {
	l.mu.Lock()
	first := l.waiting.Front()
	if first == nil {
		l.mu.Unlock()
		return false
	}
	c := l.waiting.Remove(first).(*clientConn)
	c.place = nil
	l.mu.Unlock()
	c.Close()
	return true
}
