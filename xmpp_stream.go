package main

// The stream to the XMPP server is our own and not the library's, because the library decodes in its reader: a stanza that
// fails to decode ends its receive loop and leaves the socket open, and any stranger can write such a stanza (a priority of
// 999 is enough). Here the reader only cuts the stream into elements (framer.go), and each element is judged by itself.

import (
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxStanza  = 4 << 20   // bytes; well above what servers let through
	maxBacklog = 256 << 10 // bytes waiting to be written, above which writers wait
)

// A stream is one connection that has been opened. Its methods may be used by several goroutines at once.
type stream struct {
	conn        net.Conn
	framer      *framer
	times       linkTimes
	domain      string
	established bool         // the handshake is done
	lastSign    atomic.Int64 // when a self-ping came back over another stream, Unix ns

	mu      sync.Mutex
	changed *sync.Cond // something below has changed
	out     []byte     // waits to be written
	busy    bool       // something is being written
	closing bool       // we have closed the stream ourselves
	err     error      // why the stream has ended
}

// errClosedByUs says that a stream has ended because we closed it.
var errClosedByUs = errors.New("we have closed the stream")

func newStream(conn net.Conn, l *link) *stream {
	s := &stream{conn: conn, times: l.times, domain: l.domain}
	s.changed = sync.NewCond(&s.mu)
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
		if heard := time.Unix(0, s.lastSign.Load()); heard.After(began) {
			began = heard
		}
		if time.Since(began) >= s.times.dead {
			return 0, err
		}
		if err := s.write(selfPing(s.domain, s)); err != nil {
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
		s.changed.Wait()
	}
	if s.err != nil {
		return s.err
	}
	s.out = append(s.out, stanzas...)
	s.changed.Broadcast()
	return nil
}

// tryWrite queues stanzas unless write would block or fail, and reports whether it has.
func (s *stream) tryWrite(stanzas []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.out) > maxBacklog || s.err != nil {
		return false
	}
	s.out = append(s.out, stanzas...)
	s.changed.Broadcast()
	return true
}

// flush waits until the kernel has taken everything that was queued.
func (s *stream) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for (len(s.out) > 0 || s.busy) && s.err == nil {
		s.changed.Wait()
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
			s.changed.Wait()
		}
		if s.err != nil {
			return
		}
		sending, s.out = s.out, sending[:0]
		s.busy = true
		s.changed.Broadcast()
		s.mu.Unlock()
		s.conn.SetWriteDeadline(time.Now().Add(s.times.write)) // an error shows in the write
		_, err := s.conn.Write(sending)
		s.mu.Lock()
		s.busy = false
		s.changed.Broadcast()
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
		s.changed.Broadcast()
	}
}

// cause returns why the stream has ended: a failure to write, if that made reading fail.
func (s *stream) cause(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked(err)
	if s.closing {
		return errClosedByUs
	}
	return s.err
}

// close ends the stream in order (RFC 6120 §4.4): what is queued is sent first.
func (s *stream) close() {
	s.mu.Lock()
	s.closing = true
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
