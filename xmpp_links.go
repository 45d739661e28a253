package main

import (
	"context"
	"encoding/xml"
	"errors"
	"hash/maphash"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
)

// links holds the open streams to the XMPP server, and sends stanzas over them. It knows nothing about users.
type links struct {
	log      *slog.Logger
	seed     maphash.Seed
	sent     stanzaCounts
	encoders sync.Pool

	mu      sync.Mutex
	streams []*stream
}

func newLinks(log *slog.Logger) *links {
	return &links{log: log, seed: maphash.MakeSeed(), encoders: sync.Pool{New: func() any { return newEncoder() }}}
}

// add records an open stream.
func (l *links) add(s *stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.streams = append(l.streams, s)
}

// remove forgets a stream that has ended, and reports whether it was the last.
func (l *links) remove(s *stream) (last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.streams = slices.DeleteFunc(l.streams, func(o *stream) bool { return o == s })
	return len(l.streams) == 0
}

// open returns the open streams.
func (l *links) open() []*stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.streams)
}

// streamFor returns the stream for stanzas to an address, nil if there is none. As long as the streams last, one person's stanzas
// take one stream, and so keep their order.
func (l *links) streamFor(to string) *stream {
	bare, _, _ := strings.Cut(to, "/")
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.streams) == 0 {
		return nil
	}
	return l.streams[maphash.String(l.seed, bare)%uint64(len(l.streams))]
}

var errNoLink = errors.New("no link to the XMPP server")

// send queues a stanza. It blocks while the server does not read. Without a link it returns errNoLink; nearly every caller ignores
// that, because the next link starts with a resync.
func (l *links) send(e envelope) error {
	s := l.streamFor(e.To)
	if s == nil {
		return errNoLink
	}
	l.note(e)
	return s.write(l.encode(e))
}

// sendNow queues a stanza unless that would block, in which case the stanza is dropped.
func (l *links) sendNow(e envelope) {
	if s := l.streamFor(e.To); s != nil && s.tryWrite(l.encode(e)) {
		l.note(e)
	}
}

// encode returns a stanza as XML.
func (l *links) encode(e envelope) []byte {
	c := l.encoders.Get().(*encoder)
	defer l.encoders.Put(c)
	return c.encode(e)
}

func (l *links) note(e envelope) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("sent", "stanza", e.XMLName.Local, "type", e.Type, "id", e.ID, "to", e.To)
	}
	l.sent.add(e.XMLName.Local)
}

// sendPresence sends a presence without content.
func (l *links) sendPresence(from, to, typ string) error {
	return l.send(envelope{XMLName: xml.Name{Local: "presence"}, Type: typ, From: from, To: to})
}

// onSelfPing counts a ping that came back as a sign of life of the stream that it was sent over; it may return over another one. It reports
// whether the ping is one of ours.
func (l *links) onSelfPing(id string) bool {
	return slices.ContainsFunc(l.open(), func(s *stream) bool { return s.onPing(id) })
}

// close ends every stream in order: what is queued is sent first.
func (l *links) close() {
	for _, s := range l.open() {
		s.close()
	}
}

// abort ends every stream at once.
func (l *links) abort() {
	for _, s := range l.open() {
		s.fail(net.ErrClosed)
	}
}
