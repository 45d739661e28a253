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
	"syscall"
	"time"
)

// linkTimes are the durations that a link keeps to.
type linkTimes struct {
	connect time.Duration // to dial, and again to shake hands
	idle    time.Duration // of silence before we ping
	ping    time.Duration // between pings
	dead    time.Duration // of silence before the server is given up
	write   time.Duration // for what is written to be taken
	stable  time.Duration // that a stream must last for the delays to begin anew
	retry   time.Duration // before the first retry; doubles
	slow    time.Duration // the same where only the operator can help
	most    time.Duration // between retries
}

var defaultLinkTimes = linkTimes{
	connect: 10 * time.Second,
	idle:    15 * time.Second,
	ping:    5 * time.Second,
	dead:    30 * time.Second,
	write:   15 * time.Second,
	stable:  time.Minute,
	retry:   500 * time.Millisecond,
	slow:    10 * time.Second,
	most:    time.Minute,
}

// A link keeps one stream open to a component listener (XEP-0114).
type link struct {
	domain string
	secret string
	server string      // host:port
	tls    *tls.Config // nil without --server-tls
	times  linkTimes
	log    *slog.Logger

	opened  func(*stream) // called when a stream is ready
	closed  func(*stream) // called when it is no more, if opened has been
	deliver func(frame)   // called for each element, in order; while it blocks, nothing more is read
}

// run opens a stream whenever there is none, until ctx is done. It logs each change of the link's state once.
func (l *link) run(ctx context.Context) {
	var last string // what was logged about the link
	for failures := 0; ctx.Err() == nil; {
		began := time.Now()
		err := l.runStream(ctx, func() {
			l.log.Info("linked to the XMPP server", "server", l.server, "domain", l.domain)
			last = ""
		})
		if ctx.Err() != nil || errors.Is(err, errClosedByUs) {
			return
		}
		if time.Since(began) > l.times.stable {
			failures = 0
		}
		fault := diagnose(err, l)
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

// delay returns how long to wait after so many failures in a row: doubling, and between half and all of it, so that those
// who lost their link together do not come back together.
func (l *link) delay(failures int, slow bool) time.Duration {
	d := l.times.retry
	if slow {
		d = l.times.slow
	}
	d = min(d<<min(failures, 16), l.times.most)
	return d/2 + rand.N(d/2+1)
}

// runStream lives through one connection, and returns why it ended.
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
	l.opened(s)
	defer l.closed(s)
	for {
		f, err := s.framer.next()
		if err == nil {
			err = streamErrorIn(f)
		}
		if err != nil {
			return s.cause(err)
		}
		l.deliver(f)
	}
}

// open dials and shakes hands (XEP-0114 §3).
func (l *link) open(ctx context.Context) (*stream, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*l.times.connect)
	defer cancel()
	dialer := &net.Dialer{Timeout: l.times.connect}
	conn, err := dialer.DialContext(ctx, "tcp", l.server)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDial, err)
	}
	conn.SetDeadline(time.Now().Add(l.times.connect)) // an error shows in the next read
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

// Stages that opening a stream can fail in.
var (
	errDial      = errors.New("cannot connect")
	errTLS       = errors.New("TLS failed")
	errHandshake = errors.New("no handshake")
)

// A fault is an error of the link in the operator's words.
type fault struct {
	cause  string
	remedy string
	slow   bool // only the operator can help
}

// diagnose explains why a link is down.
func diagnose(err error, l *link) fault {
	var said *streamError
	var unknownCA x509.UnknownAuthorityError
	var notTLS tls.RecordHeaderError
	timedOut := errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
	listener := "the component listener's address and port (component_ports in Prosody, a listener with module ejabberd_service in ejabberd), and --server"
	switch {
	case errors.As(err, &said):
		return diagnoseStreamError(said, l)
	case errors.Is(err, errDial) && errors.Is(err, syscall.ECONNREFUSED):
		return fault{cause: "connection refused by " + l.server, remedy: "that the XMPP server runs; " + listener}
	case errors.Is(err, errDial) && timedOut:
		return fault{cause: "connecting to " + l.server + " timed out", remedy: "firewalls between here and there; " + listener}
	case errors.Is(err, errDial):
		return fault{cause: "cannot connect to " + l.server + ": " + reason(err), remedy: listener}
	case errors.As(err, &unknownCA):
		return fault{cause: err.Error(), remedy: "--server-ca, which names the file with the authority's certificate", slow: true}
	case errors.As(err, &notTLS):
		return fault{cause: l.server + " does not speak TLS", remedy: "tls: true in ejabberd's listener, or leave --server-tls out", slow: true}
	case errors.Is(err, errTLS):
		return fault{cause: err.Error(), remedy: "that the server's certificate is valid for the name in --server", slow: true}
	case errors.Is(err, errHandshake) && timedOut:
		return fault{cause: l.server + " did not answer the handshake in time", remedy: listener + "; whether it wants --server-tls"}
	case errors.Is(err, errHandshake) && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)):
		return fault{cause: l.server + " closed the connection during the handshake", remedy: listener + "; whether it wants --server-tls"}
	case errors.Is(err, errHandshake):
		return fault{cause: "the handshake failed: " + reason(err), remedy: listener + "; whether it wants --server-tls"}
	case timedOut:
		return fault{cause: "the server has been silent for " + l.times.dead.String() + " and is given up", remedy: "whether the XMPP server hangs"}
	case errors.Is(err, errStreamClosed), errors.Is(err, io.EOF):
		return fault{cause: "the server closed the connection", remedy: "whether the XMPP server was stopped"}
	}
	return fault{cause: "the connection broke: " + reason(err), remedy: "the network, and whether the XMPP server runs"}
}

// reason returns the innermost part of a network error, which is the same each time, unlike our own port.
func reason(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}

func diagnoseStreamError(said *streamError, l *link) fault {
	switch said.condition {
	case "not-authorized":
		return fault{cause: "the server refuses the secret for " + l.domain, slow: true,
			remedy: "that the secret is the one in the server's configuration, and that " + l.domain + " is configured there as a component"}
	case "host-unknown":
		return fault{cause: "the server knows no component " + l.domain, slow: true,
			remedy: "that the server's configuration names the component exactly as --domain does"}
	case "conflict":
		return fault{cause: "another connection holds the place of " + l.domain,
			remedy: "whether a second webstatus runs; a connection that broke unnoticed goes away by itself"}
	case "system-shutdown":
		return fault{cause: "the server is shutting down", remedy: "that it comes back"}
	}
	return fault{cause: "the server ended the stream: " + said.Error(), remedy: "the server's log"}
}
