package main

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A loopback is the server side of XEP-0114 on a loopback address. It stands in for an XMPP server in the demo and in tests.
type loopback struct {
	listener net.Listener
	domain   string // of the component
	secret   string

	mu      sync.Mutex
	streams []*loopbackStream // that serve has accepted, nil for a free place
}

func newLoopback(domain, secret string) (*loopback, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	return &loopback{listener: l, domain: domain, secret: secret}, err
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

// stream returns the connection for stanzas from a full JID: always the same one or, while that is closed, the next one, as in a
// cluster of ejabberd with one component beside each node. It returns nil if there is none.
func (l *loopback) stream(from string) *loopbackStream {
	hash := fnv.New32a()
	io.WriteString(hash, from) // cannot fail
	l.mu.Lock()
	defer l.mu.Unlock()
	first := int(hash.Sum32() % uint32(len(l.streams)))
	for i := range l.streams {
		if s := l.streams[(first+i)%len(l.streams)]; s != nil {
			return s
		}
	}
	return nil
}

// deliver sends XML from a full JID to a component. It is lost if no connection is open.
func (l *loopback) deliver(from, format string, values ...string) {
	if s := l.stream(from); s != nil {
		s.send(format, values...) // on failure, the connection is about to be removed
	}
}

// play sends the presence of a scene.
func (l *loopback) play(a *actor, c scene) {
	from := a.jid + "/" + c.resource
	if c.typ != "" {
		l.deliver(from, `<presence from='%s' to='%s' type='%s'/>`, from, demoDomain, c.typ)
		return
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
	l.deliver(from, stanza+`</presence>`, values...)
}

// publish sends the events of what an actor publishes with a scene (XEP-0163 §4.3).
func (l *loopback) publish(a *actor, c scene) {
	for _, i := range c.pep {
		a.items[i.node] = i
		l.deliver(a.jid+"/"+c.resource, `<message from='%s' to='%s' type='headline'><event xmlns='`+nsPubSubEvent+`'><items node='`+i.node+`'><item id='current'>`+
			i.payload()+`</item></items></event></message>`, a.jid, demoDomain)
	}
}

// perform registers an actor and plays the scenes in a loop until ctx is done.
func (l *loopback) perform(ctx context.Context, a *actor) {
	l.deliver(a.jid+"/play", `<iq type='set' id='register' from='%s/play' to='%s'><query xmlns='jabber:iq:register'>`+a.fields+`</query></iq>`,
		a.jid, demoDomain)
	tick := time.NewTicker(a.pause)
	defer tick.Stop()
	for i := 0; ; i++ {
		next := a.scenes[i%len(a.scenes)]
		a.mu.Lock()
		if a.now[next.resource] = next; next.typ != "" {
			delete(a.now, next.resource)
		}
		l.play(a, next)
		l.publish(a, next)
		a.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// reply acts as the server of an actor: it approves the subscription requests of a component, and answers probes with the current
// presence.
func (l *loopback) reply(s *loopbackStream, a *actor, r *received) {
	switch r.typ {
	case "subscribe":
		s.send(`<presence from='%s' to='%s' type='subscribed'/>`, a.jid, demoDomain) // by the server, not by a client
	case "probe":
	default:
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.now {
		l.play(a, c)
	}
}

// answer acts as the server of an actor: it answers a request for what the actor has published at a PEP node (XEP-0060 §6.5).
func (l *loopback) answer(s *loopbackStream, a *actor, r *received) {
	pubsub := r.child(nsPubSub, "pubsub")
	if pubsub == nil {
		return
	}
	items := pubsub.child(nsPubSub, "items")
	if items == nil {
		return
	}
	node := items.attr("node")
	a.mu.Lock()
	defer a.mu.Unlock()
	if i, ok := a.items[node]; ok {
		s.send(`<iq type='result' id='%s' from='%s' to='%s'><pubsub xmlns='`+nsPubSub+`'><items node='`+node+`'><item id='current'>`+
			i.payload()+`</item></items></pubsub></iq>`, r.id, a.jid, r.from.bare)
	}
}

// serve accepts components, and performs for them once there are as many as nodes, until ctx is done and their connections are closed.
// It calls ready when all actors are registered.
func (l *loopback) serve(ctx context.Context, cast []*actor, nodes int, ready func()) {
	stop := context.AfterFunc(ctx, func() { l.listener.Close() })
	defer stop()
	l.streams = make([]*loopbackStream, nodes)
	for _, a := range cast {
		a.now, a.items = make(map[string]scene), make(map[string]pepItem)
	}
	var running sync.WaitGroup
	defer running.Wait()
	var registered atomic.Int32
	for accepted := 0; ; {
		s, err := l.accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // the component has ended during the handshake
		}
		l.replace(nil, s)
		running.Go(func() {
			defer s.Close()
			defer l.replace(s, nil)
			l.converse(s, cast, func() {
				if int(registered.Add(1)) == len(cast) {
					ready()
				}
			})
		})
		if accepted++; accepted == nodes {
			for _, a := range cast {
				running.Go(func() { l.perform(ctx, a) })
			}
		}
	}
}

// replace replaces a connection in the list of open ones; nil stands for a free place there.
func (l *loopback) replace(old, s *loopbackStream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.streams, old); i >= 0 {
		l.streams[i] = s
	}
}

// converse answers the stanzas of a component until its connection ends. It calls registered for each result of a registration.
func (l *loopback) converse(s *loopbackStream, cast []*actor, registered func()) {
	for {
		r, err := s.receive()
		if err != nil && !errors.Is(err, errNoSender) {
			return
		}
		for _, a := range cast {
			switch {
			case a.jid != r.to.bare:
			case r.name.Local == "presence":
				l.reply(s, a, r)
			case r.name.Local == "iq":
				l.answer(s, a, r)
			}
		}
		if r.to.bare == demoDomain { // a self-ping of the component
			s.send(`<iq type='get' id='%s' from='%s' to='%s'><ping xmlns='urn:xmpp:ping'/></iq>`, r.id, demoDomain, demoDomain)
		}
		if r.id == "register" {
			registered()
		}
	}
}
