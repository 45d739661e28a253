package main

// The stream to the XMPP server is our own and not the library's, because the library decodes in its reader: a stanza that
// fails to decode ends its receive loop and leaves the socket open, and any stranger can write such a stanza (a priority of
// 999 is enough). Here the reader only cuts the stream into elements (framer.go), and each element is judged by itself.

import (
	"context"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	maxStanza  = 4 << 20   // bytes; well above what servers let through
	maxBacklog = 256 << 10 // bytes waiting to be written, above which writers wait
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

	opened  func(*stream)        // called when a stream is ready
	closed  func(*stream)        // called when it is no more, if opened has been
	deliver func(*stream, frame) // called for each element, in order; what it blocks pushes back on the server
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
		if ctx.Err() != nil || errors.Is(err, errLeft) {
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
		l.deliver(s, f)
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

// A stream is one connection that has been opened. Its methods may be used by several goroutines at once.
type stream struct {
	conn        net.Conn
	framer      *framer
	times       linkTimes
	domain      string
	established bool         // the handshake is done
	heard       atomic.Int64 // when a sign of life came by another way, Unix ns

	mu   sync.Mutex
	turn *sync.Cond // something below has changed
	out  []byte     // waits to be written
	busy bool       // something is being written
	left bool       // we have closed the stream ourselves
	err  error      // why the stream has ended
}

// errLeft says that a stream has ended because we closed it.
var errLeft = errors.New("we have closed the stream")

func newStream(conn net.Conn, l *link) *stream {
	s := &stream{conn: conn, times: l.times, domain: l.domain}
	s.turn = sync.NewCond(&s.mu)
	s.framer = newFramer(s, maxStanza)
	return s
}

func (s *stream) handshake(domain, secret string) error {
	if _, err := s.conn.Write(streamHeader(domain)); err != nil {
		return err
	}
	header, err := s.framer.header()
	if err != nil {
		return err
	}
	id, err := parseStreamHeader(header)
	if err != nil {
		return err
	}
	digest := sha1.Sum([]byte(id + secret))
	if _, err := fmt.Fprintf(s.conn, "<handshake>%s</handshake>", hex.EncodeToString(digest[:])); err != nil {
		return err
	}
	f, err := s.framer.next()
	if err != nil {
		return err
	}
	if err := streamErrorIn(f); err != nil {
		return err
	}
	if answer, err := decodeStanza(f.data); errors.Is(err, errNotWellFormed) || answer.name.Local != "handshake" {
		return errors.New("the server answered the handshake with something else")
	}
	return nil
}

// Read gives the framer what arrives. While nothing does, it pings our own domain, which any server sends back to us, and
// in the end it gives up (os.ErrDeadlineExceeded). The time that the framer's user takes does not count as silence.
func (s *stream) Read(p []byte) (int, error) {
	if !s.established {
		return s.conn.Read(p)
	}
	began := time.Now()
	for wait := s.times.idle; ; wait = s.times.ping {
		s.conn.SetReadDeadline(time.Now().Add(wait)) // an error shows in the read
		n, err := s.conn.Read(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if heard := time.Unix(0, s.heard.Load()); heard.After(began) {
			began = heard
		}
		if time.Since(began) >= s.times.dead {
			return 0, err
		}
		if err := s.write(pingOurselves(s.domain, s)); err != nil {
			return 0, err
		}
	}
}

// write queues stanzas to be sent together with what others queue. It waits while the server takes nothing, and fails when
// the stream has ended.
func (s *stream) write(stanzas []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.out) > maxBacklog && s.err == nil {
		s.turn.Wait()
	}
	if s.err != nil {
		return s.err
	}
	s.out = append(s.out, stanzas...)
	s.turn.Broadcast()
	return nil
}

// flush waits until the kernel has taken what was written.
func (s *stream) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for (len(s.out) > 0 || s.busy) && s.err == nil {
		s.turn.Wait()
	}
	return s.err
}

// writeLoop sends what gathers, until the stream ends.
func (s *stream) writeLoop() {
	var sending []byte
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for len(s.out) == 0 && s.err == nil {
			s.turn.Wait()
		}
		if s.err != nil {
			return
		}
		sending, s.out = s.out, sending[:0]
		s.busy = true
		s.turn.Broadcast()
		s.mu.Unlock()
		s.conn.SetWriteDeadline(time.Now().Add(s.times.write)) // an error shows in the write
		_, err := s.conn.Write(sending)
		s.mu.Lock()
		s.busy = false
		s.turn.Broadcast()
		if err != nil {
			s.failLocked(err)
		}
	}
}

// fail ends the stream; the first cause is kept.
func (s *stream) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked(err)
}

func (s *stream) failLocked(err error) {
	if s.err == nil {
		s.err = err
		s.conn.Close()
		s.turn.Broadcast()
	}
}

// cause returns why the stream has ended: a failure to write, if that made reading fail.
func (s *stream) cause(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked(err)
	if s.left {
		return errLeft
	}
	return s.err
}

// farewell closes the stream in order (RFC 6120 §4.4): what was written goes out first.
func (s *stream) farewell() {
	s.mu.Lock()
	s.left = true
	s.mu.Unlock()
	if s.write([]byte("</stream:stream>")) == nil {
		s.flush() // a failure ends the stream just as well
	}
	s.fail(net.ErrClosed)
}

// A streamError is what a server says before it ends a stream (RFC 6120 §4.9).
type streamError struct {
	condition string // such as "not-authorized"
	text      string // the server's own words, if any
}

func (e *streamError) Error() string {
	if e.text == "" {
		return e.condition
	}
	return e.condition + " (" + e.text + ")"
}

// streamErrorIn returns the error that the element is, nil for any other element.
func streamErrorIn(f frame) error {
	// The prefix is declared in the stream's header, which the element is decoded without.
	if len(f.data) < 14 || string(f.data[:14]) != "<stream:error>" && string(f.data[:14]) != "<stream:error " {
		return nil
	}
	s, _ := decodeStanza(f.data) // as far as it goes
	e := &streamError{condition: "undefined-condition"}
	for _, c := range s.children {
		if c.name.Local == "text" {
			e.text = c.text
		} else if c.name.Space == "urn:ietf:params:xml:ns:xmpp-streams" {
			e.condition = c.name.Local
		}
	}
	return e
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
