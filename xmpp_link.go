package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// linkTimes holds the timeouts and delays of a link.
type linkTimes struct {
	connect time.Duration // limit for dialing, and again for the handshake
	idle    time.Duration // silence before the first ping
	ping    time.Duration // interval of further pings
	dead    time.Duration // time without a complete element after which the connection is closed
	pong    time.Duration // after which a warning is logged if the first ping has not come back
	write   time.Duration // limit for a write
	retry   retryDelay
	slow    retryDelay // after the server has refused the secret or the domain
}

// A retryDelay doubles with each failure of the same cause. It starts over once a handshake has completed.
type retryDelay struct{ first, most time.Duration }

var defaultLinkTimes = linkTimes{
	connect: 10 * time.Second,
	idle:    15 * time.Second,
	ping:    5 * time.Second,
	dead:    30 * time.Second,
	pong:    10 * time.Second,
	write:   15 * time.Second,
	retry:   retryDelay{500 * time.Millisecond, 4 * time.Second},
	slow:    retryDelay{10 * time.Second, time.Minute},
}

// A link keeps one stream open to a component listener (XEP-0114).
type link struct {
	domain string
	secret string
	server string      // host:port
	tls    *tls.Config // nil without --server-tls
	times  linkTimes
	log    *slog.Logger

	opened  func(*stream)                // called when a stream is established
	closed  func(*stream)                // called when an established stream has ended
	deliver func(context.Context, frame) // called for each element, in order; reading waits for it to return
}

// run keeps a stream open until ctx is done or the stream is closed with close. It retries with backoff. A cause that repeats is logged
// only once above debug level.
func (l *link) run(ctx context.Context) {
	var last string // cause of the failures since the last handshake
	for failures := 0; ctx.Err() == nil; {
		err := l.runStream(ctx, func() {
			l.log.Info("linked to the XMPP server", "server", l.server, "domain", l.domain)
			last = ""
		})
		if ctx.Err() != nil || errors.Is(err, errClosedByUs) {
			return
		}
		fault := diagnose(err, l)
		if fault.cause != last {
			failures = 0
		}
		delay := l.delay(failures, fault.slow)
		failures++
		level := slog.LevelWarn
		if last == fault.cause {
			level = slog.LevelDebug
		}
		last = fault.cause
		l.log.Log(ctx, level, "no link to the XMPP server: "+fault.cause, "server", l.server, "check", fault.remedy,
			"retry_in", delay.Round(time.Millisecond))
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
	}
}

// delay returns the delay after a number of consecutive failures: exponential backoff with jitter, so that components that were
// disconnected together do not reconnect at the same time.
func (l *link) delay(failures int, slow bool) time.Duration {
	times := l.times.retry
	if slow {
		times = l.times.slow
	}
	d := min(times.first<<min(failures, 16), times.most)
	return d/2 + rand.N(d/2+1)
}

// runStream opens a stream and delivers its elements until it ends. The error, never nil, is the cause. It calls ready once the stream
// is established, and pings our own domain, because a server that accepts a component may still not route stanzas as expected.
func (l *link) runStream(ctx context.Context, ready func()) error {
	s, err := l.open(ctx)
	if err != nil {
		return err
	}
	defer s.fail(net.ErrClosed)
	stop := context.AfterFunc(ctx, func() { s.fail(net.ErrClosed) })
	defer stop()
	go s.writeLoop()
	ready()
	s.write(selfPing(l.domain, s.pingID())) // an error ends the loop below
	l.opened(s)
	defer l.closed(s)
	check := time.AfterFunc(l.times.pong, func() { l.checkPong(s) })
	defer check.Stop()
	for {
		s.lastElement = time.Now() // the time that deliver takes is not silence
		f, err := s.framer.next()
		if err == nil {
			err = streamErrorIn(f)
		}
		if err != nil {
			return s.cause(err)
		}
		s.first.add(f)
		l.deliver(ctx, f)
	}
}

// checkPong logs a warning if no ping of a stream has come back.
func (l *link) checkPong(s *stream) {
	if s.lastPong.Load() == 0 {
		l.log.Warn("the XMPP server has not returned a ping to "+l.domain, "server", l.server, "after", l.times.pong, "received", s.first.String(),
			"check", "that the server routes stanzas to "+l.domain+" over this connection, and that they are not in an unknown namespace")
	}
}

// firstElements describes the first elements received over a stream, for the log, until a ping has come back.
type firstElements struct {
	mu    sync.Mutex
	start []string // start tags, reduced to what identifies them
	over  bool     // forget was called
}

// forget drops the elements. They may name people who have not registered.
func (e *firstElements) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.start, e.over = nil, true
}

// add records an element, unless there are enough.
func (e *firstElements) add(f frame) {
	const enough, most = 5, 200 // elements, bytes of each value
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.start) == enough || e.over {
		return
	}
	tag := "<" + singleLine(elementName(f.data), most)
	for _, name := range []string{"xmlns", "type", "from", "to"} {
		if value := attribute(f.data, name); value != nil {
			tag += " " + name + "='" + singleLine(string(value), most) + "'"
		}
	}
	e.start = append(e.start, tag+">")
}

// String never contains what is inside an element.
func (e *firstElements) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.start) == 0 {
		return "nothing"
	}
	return strings.Join(e.start, " ")
}

// open connects to the server and completes the handshake (XEP-0114 §3). The error wraps errDial, errTLS or errHandshake.
func (l *link) open(ctx context.Context) (*stream, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*l.times.connect)
	defer cancel()
	dialer := &net.Dialer{Timeout: l.times.connect}
	conn, err := dialer.DialContext(ctx, "tcp", l.server)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDial, err)
	}
	conn.SetDeadline(time.Now().Add(l.times.connect)) // the next read reports an error
	if l.tls != nil {
		conf := l.tls.Clone()
		if conf.ServerName, _, err = net.SplitHostPort(l.server); err != nil {
			conn.Close()
			return nil, fmt.Errorf("%w: %w", errTLS, err)
		}
		secure := tls.Client(conn, conf)
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fmt.Errorf("%w: %w", errTLS, err)
		}
		conn = secure
	}
	s := newStream(conn, l)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := s.handshake(l.domain, l.secret); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%w: %w", errHandshake, err)
	}
	conn.SetDeadline(time.Time{})
	s.established = true
	return s, nil
}

// Errors of open, by stage.
var (
	errDial      = errors.New("cannot connect")
	errTLS       = errors.New("TLS failed")
	errHandshake = errors.New("handshake failed")
)

// A fault explains an error of the link to the operator.
type fault struct {
	cause  string // starts with the stream error condition, if the server sent one
	remedy string // what to check
	slow   bool   // the server refuses us until someone changes a configuration
}

// diagnose returns the fault for an error of runStream or open.
func diagnose(err error, l *link) fault {
	var streamErr *streamError
	var unknownCA x509.UnknownAuthorityError
	var notTLS tls.RecordHeaderError
	timedOut := errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
	listener := "the component listener's address and port (component_ports in Prosody, a listener with module ejabberd_service in ejabberd), and --server"
	switch {
	case errors.As(err, &streamErr):
		return diagnoseStreamError(streamErr, l)
	case errors.Is(err, errDial) && errors.Is(err, syscall.ECONNREFUSED):
		return fault{cause: "connection refused by " + l.server, remedy: "that the XMPP server is running; " + listener}
	case errors.Is(err, errDial) && timedOut:
		return fault{cause: "connecting to " + l.server + " timed out", remedy: "firewalls between this host and the server; " + listener}
	case errors.Is(err, errDial):
		return fault{cause: "cannot connect to " + l.server + ": " + reason(err), remedy: listener}
	case errors.As(err, &unknownCA):
		return fault{cause: err.Error(), remedy: "--server-ca, the file with the CA certificate"}
	case errors.As(err, &notTLS):
		return fault{cause: l.server + " does not speak TLS", remedy: "tls: true in ejabberd's listener, or omit --server-tls"}
	case errors.Is(err, errTLS):
		return fault{cause: err.Error(), remedy: "that the server's certificate is valid for the name in --server"}
	case errors.Is(err, errHandshake) && timedOut:
		return fault{cause: l.server + " did not complete the handshake in time", remedy: listener + "; whether it requires --server-tls"}
	case errors.Is(err, errHandshake) && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)):
		return fault{cause: l.server + " closed the connection during the handshake", remedy: listener + "; whether it requires --server-tls"}
	case errors.Is(err, errHandshake):
		return fault{cause: "the handshake failed: " + reason(err), remedy: listener + "; whether it requires --server-tls"}
	case errors.Is(err, errWrite) && timedOut:
		return fault{cause: "the server has not read anything for " + l.times.write.String() + ", connection closed", remedy: "whether the XMPP server hangs or is overloaded"}
	case timedOut:
		return fault{cause: "no stanza from the server for " + l.times.dead.String() + ", connection closed", remedy: "whether the XMPP server hangs"}
	case errors.Is(err, errMalformed):
		return fault{cause: err.Error(), remedy: "whether something between this host and the server changes the data, and the server's log"}
	case errors.Is(err, errStreamClosed), errors.Is(err, io.EOF):
		return fault{cause: "the server closed the connection", remedy: "whether the XMPP server was stopped"}
	}
	return fault{cause: "connection lost: " + reason(err), remedy: "the network, and whether the XMPP server is running"}
}

// reason returns a network error without its addresses: the local port differs between attempts, and run compares causes.
func reason(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}

// diagnoseStreamError returns the fault for a stream error (RFC 6120 §4.9.3).
func diagnoseStreamError(err *streamError, l *link) fault {
	switch err.condition {
	case "not-authorized":
		return fault{cause: "not-authorized: the server refuses the secret for " + l.domain, slow: true,
			remedy: "that the secret is the one in the server's configuration, and that " + l.domain + " is configured there as a component"}
	case "host-unknown":
		return fault{cause: "host-unknown: the server has no component " + l.domain, slow: true,
			remedy: "that the server's configuration names the component exactly as --domain does"}
	case "conflict":
		return fault{cause: "conflict: another connection is using " + l.domain,
			remedy: "whether a second webstatus is running; a dead connection times out by itself, or is replaced if component_conflict_resolve says so (docs/cluster.md)"}
	case "system-shutdown":
		return fault{cause: "system-shutdown: the server is shutting down", remedy: "that it starts again"}
	}
	return fault{cause: err.Error(), remedy: "the server's log"}
}
