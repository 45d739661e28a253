package main

// This file does not use the component of gosrc.io/xmpp, because its receive loop decodes stanzas: one that fails to decode ends the
// loop and leaves the socket open, and any sender can cause that (a priority of 999 is enough). Here the read loop only splits the
// stream into elements (xmpp_framer.go), and each is decoded separately.

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxStanza  = 4 << 20   // bytes; well above the limits of servers
	maxBacklog = 256 << 10 // bytes in the write buffer above which write blocks
)

// A stream is one connection to the server (XEP-0114). Its write methods may be called concurrently.
type stream struct {
	id          string // random, for its pings
	conn        net.Conn
	framer      *framer
	times       linkTimes
	domain      string
	established bool      // the handshake has completed
	opened      time.Time // when the stream was created
	lastElement time.Time // when the last complete element was read, and handled
	lastPing    time.Time
	lastPong    atomic.Int64 // when the last self-ping of this stream came back over any stream, in nanoseconds since opened; 0 if none has
	first       firstElements

	mu      sync.Mutex
	changed *sync.Cond        // signals changes of the fields below
	out     []byte            // write buffer
	busy    bool              // writeLoop is writing
	closing bool              // close was called
	err     error             // why the stream ended; nil while it is open
	pings   int               // that confirm has sent
	waiting map[string]func() // what to call when a ping comes back, by its id; nil for none
}

// Causes of the end of a stream.
var (
	errClosedByUs = errors.New("the stream was closed locally") // with close
	errWrite      = errors.New("cannot write to the server")
)

func newStream(conn net.Conn, l *link) *stream {
	s := &stream{id: rand.Text(), conn: conn, times: l.times, domain: l.domain, opened: time.Now()}
	s.changed = sync.NewCond(&s.mu)
	s.framer = newFramer(s, maxStanza)
	return s
}

// handshake opens the stream and authenticates with the component secret (XEP-0114 §3). A rejection is a *streamError.
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
		return errors.New("the server did not reply with a handshake element")
	}
	return nil
}

// Read implements io.Reader for the framer. While no complete element arrives it pings our own domain, which any server routes back to
// us, and after times.dead it returns os.ErrDeadlineExceeded. Bytes alone are no sign of life: a server, or something between it and us,
// may send parts of an element forever.
func (s *stream) Read(p []byte) (int, error) {
	if !s.established {
		return s.conn.Read(p)
	}
	for {
		now := time.Now()
		alive := later(s.lastElement, s.opened.Add(time.Duration(s.lastPong.Load())))
		if now.Sub(alive) >= s.times.dead {
			return 0, os.ErrDeadlineExceeded
		}
		due := later(alive.Add(s.times.idle), s.lastPing.Add(s.times.ping))
		if !now.Before(due) {
			if err := s.write(selfPing(s.domain, s.pingID())); err != nil {
				return 0, err
			}
			s.lastPing = now
			due = now.Add(s.times.ping)
		}
		s.conn.SetReadDeadline(due) // the read reports an error
		if n, err := s.conn.Read(p); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

// later returns the later one of two times.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// write appends stanzas to the write buffer. It blocks while the buffer is full, and returns an error if the stream has ended.
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

// tryWrite appends stanzas to the write buffer unless write would block or fail, and reports whether it did.
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

// confirm calls f once the server has handled everything that was written before: when a ping has come back that is written now. If the
// stream ends before, it does not. (That the kernel has taken the bytes says little: if we are killed with data unread, it drops them.)
func (s *stream) confirm(f func()) error {
	s.mu.Lock()
	s.pings++
	id := s.pingID() + "-" + strconv.Itoa(s.pings)
	s.waiting[id] = f
	s.mu.Unlock()
	return s.write(selfPing(s.domain, id))
}

// onFirstPong calls f once the ping has come back that the stream starts with. If the stream ends before, it does not.
func (s *stream) onFirstPong(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = map[string]func(){s.pingID(): f}
}

// onPing handles a ping that has come back, and reports whether it is one of this stream.
func (s *stream) onPing(id string) bool {
	if own := s.pingID(); id != own && !strings.HasPrefix(id, own+"-") {
		return false
	}
	s.lastPong.Store(int64(time.Since(s.opened)))
	s.first.forget()
	s.mu.Lock()
	f := s.waiting[id]
	delete(s.waiting, id)
	s.mu.Unlock()
	if f != nil {
		f()
	}
	return true
}

// flush waits until the write buffer has been written to the socket.
func (s *stream) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for (len(s.out) > 0 || s.busy) && s.err == nil {
		s.changed.Wait()
	}
	return s.err
}

// writeLoop writes the buffer to the socket until the stream ends. Stanzas queued during a write are sent together in the next one.
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
		s.conn.SetWriteDeadline(time.Now().Add(s.times.write)) // the write reports an error
		_, err := s.conn.Write(sending)
		s.mu.Lock()
		s.busy = false
		s.changed.Broadcast()
		if err != nil {
			s.failLocked(fmt.Errorf("%w: %w", errWrite, err))
		}
	}
}

// fail closes the connection and sets the cause, unless the stream has already ended.
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

// cause ends the stream with a read error, and returns the original cause: errClosedByUs, an earlier write error, or err.
func (s *stream) cause(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked(err)
	if s.closing {
		return errClosedByUs
	}
	return s.err
}

// close flushes the write buffer and closes the stream (RFC 6120 §4.4).
func (s *stream) close() {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	if s.write([]byte("</stream:stream>")) == nil {
		s.flush() // a failed write has ended the stream too
	}
	s.fail(net.ErrClosed)
}

// A streamError is a stream error sent by the server (RFC 6120 §4.9).
type streamError struct {
	condition string // such as "not-authorized"
	text      string // the server's description, empty if there is none
}

func (e *streamError) Error() string {
	if e.text == "" {
		return e.condition
	}
	return e.condition + " (" + e.text + ")"
}

// streamErrorIn returns a *streamError if the element is a stream error, and nil otherwise.
func streamErrorIn(f frame) error {
	// Match the prefix literally, because its namespace is declared in the stream header.
	if len(f.data) < 14 || string(f.data[:14]) != "<stream:error>" && string(f.data[:14]) != "<stream:error " {
		return nil
	}
	s, _ := decodeStanza(f.data) // partial if malformed
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
