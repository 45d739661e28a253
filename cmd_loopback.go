package main

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// A loopback is the server side of XEP-0114 on a loopback address. It stands in for an XMPP server in the demo and in tests.
type loopback struct {
	listener net.Listener
	domain   string // of the component
	secret   string
}

func newLoopback(domain, secret string) (*loopback, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	return &loopback{l, domain, secret}, err
}

func (l *loopback) address() string { return l.listener.Addr().String() }

// A loopbackStream is the connection of a component. Its send method may be called concurrently.
type loopbackStream struct {
	net.Conn
	framer *framer
	mu     sync.Mutex // serializes send
}

// accept waits for a component and completes the handshake.
func (l *loopback) accept() (*loopbackStream, error) {
	conn, err := l.listener.Accept()
	if err != nil {
		return nil, err
	}
	s := &loopbackStream{Conn: conn, framer: newFramer(conn, maxStanza)}
	if err := l.handshake(s); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

// handshake is the server side of XEP-0114 §3.
func (l *loopback) handshake(s *loopbackStream) error {
	if _, err := s.framer.header(); err != nil {
		return err
	}
	const id = "loopback"
	if err := s.send(`<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:component:accept' from='%s' id='%s'>`, l.domain, id); err != nil {
		return err
	}
	f, err := s.framer.next()
	if err != nil {
		return err
	}
	digest := sha1.Sum([]byte(id + l.secret))
	if want := "<handshake>" + hex.EncodeToString(digest[:]) + "</handshake>"; string(f.data) != want {
		s.send(`<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>`)
		return errors.New("the component sent a wrong digest")
	}
	return s.send(`<handshake/>`)
}

// send writes XML; format has a %s for each value, which is escaped.
func (s *loopbackStream) send(format string, values ...string) error {
	escaped := make([]any, len(values))
	for i, v := range values {
		var b strings.Builder
		xml.EscapeText(&b, []byte(v)) // writing to a builder cannot fail
		escaped[i] = b.String()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := fmt.Fprintf(s, format, escaped...)
	return err
}

// receive returns the component's next stanza. The errors are those of the framer and decodeStanza.
func (s *loopbackStream) receive() (*received, error) {
	f, err := s.framer.next()
	if err != nil {
		return nil, err
	}
	return decodeStanza(f.data)
}

// play sends the presence of a scene.
func (s *loopbackStream) play(a *actor, c scene) error {
	from := a.jid + "/" + c.resource
	if c.typ != "" {
		return s.send(`<presence from='%s' to='%s' type='%s'/>`, from, demoDomain, c.typ)
	}
	stanza, values := `<presence from='%s' to='%s'>`, []string{from, demoDomain}
	if a.nick != "" {
		stanza += `<nick xmlns='http://jabber.org/protocol/nick'>%s</nick>`
		values = append(values, a.nick)
	}
	for _, child := range [][2]string{{"show", c.show}, {"status", c.status}, {"priority", c.priority}} {
		if child[1] != "" {
			stanza += "<" + child[0] + ">%s</" + child[0] + ">"
			values = append(values, child[1])
		}
	}
	return s.send(stanza+`</presence>`, values...)
}

// perform registers an actor and plays the scenes in a loop until ctx is done.
func (s *loopbackStream) perform(ctx context.Context, a *actor) error {
	if err := s.send(`<iq type='set' id='register' from='%s/play' to='%s'><query xmlns='jabber:iq:register'>`+a.fields+`</query></iq>`,
		a.jid, demoDomain); err != nil {
		return err
	}
	tick := time.NewTicker(a.pause)
	defer tick.Stop()
	for i := 0; ; i++ {
		next := a.scenes[i%len(a.scenes)]
		a.mu.Lock()
		if a.now[next.resource] = next; next.typ != "" {
			delete(a.now, next.resource)
		}
		err := s.play(a, next)
		a.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// reply acts as the server of an actor: it approves subscription requests, and answers probes with the current presence.
func (s *loopbackStream) reply(a *actor, r *received) error {
	switch r.typ {
	case "subscribe":
		if err := s.send(`<presence from='%s' to='%s' type='subscribed'/>`, a.jid, demoDomain); err != nil {
			return err
		}
	case "probe":
	default:
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.now {
		if err := s.play(a, c); err != nil {
			return err
		}
	}
	return nil
}

// serve accepts one component and performs for it until ctx is done. It calls ready when all actors are registered.
func (l *loopback) serve(ctx context.Context, cast []*actor, ready func()) error {
	stop := context.AfterFunc(ctx, func() { l.listener.Close() })
	defer stop()
	s, err := l.accept()
	if err != nil {
		return err
	}
	defer s.Close()
	g, ctx := errgroup.WithContext(ctx)
	for _, a := range cast {
		a.now = make(map[string]scene)
		g.Go(func() error { return s.perform(ctx, a) })
	}
	registered := 0
	for {
		r, err := s.receive()
		if errors.Is(err, errStreamClosed) {
			return g.Wait()
		}
		if err != nil && !errors.Is(err, errNoSender) {
			return err
		}
		for _, a := range cast {
			if a.jid == r.to.bare && r.name.Local == "presence" {
				err = s.reply(a, r)
			}
		}
		if r.to.bare == demoDomain { // a self-ping of the component
			err = s.send(`<iq type='get' id='%s' from='%s' to='%s'><ping xmlns='urn:xmpp:ping'/></iq>`, r.id, demoDomain, demoDomain)
		}
		if r.id == "register" {
			if registered++; registered == len(cast) {
				ready()
			}
		}
		if err != nil && !errors.Is(err, errNoSender) {
			return err
		}
	}
}
