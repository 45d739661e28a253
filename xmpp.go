package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"html"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// A componentConfig is the configuration of a component. All fields are required unless their comment says otherwise.
type componentConfig struct {
	domain      string // our JID
	secret      string
	servers     []string            // host:port of the component listeners
	connections int                 // to each server
	tls         *tls.Config         // nil for plain TCP
	languages   *languages          // of our messages
	allow       allowList           // who may register
	maxUsers    int                 // maximum number of users; 0 for no limit
	baseURL     string              // of the web server, without a trailing slash
	jidLinks    bool                // JID-based URLs are answered
	singleLink  bool                // only the leader of several nodes has a link
	webhook     bool                // changes are posted to the operator's webhook
	admins      []string            // bare JIDs that may run the administration commands; may be empty
	contacts    map[string][]string // URIs of the operator, by one of contactKinds; may be empty
	rooms       []string            // patterns of the rooms that the web shows; may be empty
	avatar      []byte              // our own, PNG
	name        string              // under which clients list us
	expire      time.Duration       // time after which a user is removed whose account is gone; 0 for never
	hideOS      bool                // do not report the operating system
	linkTimes   linkTimes
	syncTimes   syncTimes
	now         func() time.Time
	log         *slog.Logger
}

// A service is what all handlers of stanzas share.
type service struct {
	componentConfig
	registry   *registry
	board      *board
	links      *links
	dispatcher *dispatcher
}

// A component is our side of XEP-0114. It reads what the server sends and hands each stanza to its handler, which calls the
// registry and answers. It also keeps the board in step with the server: see xmpp_sync.go.
type component struct {
	*service
	contacts   *contacts
	privileges *privileges
	rooms      *rooms
	senders    *senders
	prober     *prober
	iqs        map[string]iqHandler // by type, namespace and name
	chat       *chat
	decoders   sync.Pool
	received   stanzaCounts
	linked     chan struct{} // there is a new link, and its privileges are settled
	removed    chan struct{} // an administrator has removed users

	linkMu sync.Mutex // held while links and the board record a stream, so that they agree
}

// newComponent returns a component that serves the users of a registry.
func newComponent(conf componentConfig, r *registry) *component {
	s := &service{componentConfig: conf, registry: r, board: r.board, links: newLinks(conf.log), dispatcher: newDispatcher()}
	c := &component{service: s, senders: newSenders(), decoders: sync.Pool{New: func() any { return new(decoder) }},
		linked: make(chan struct{}, 1), removed: make(chan struct{}, 1)}
	c.prober = newProber(s, c.probeTimeout)
	c.privileges = newPrivileges(s, c.linked)
	pep := newPEP(s)
	ourselves := newIdentity(conf)
	c.contacts = &contacts{service: s, prober: c.prober, privileges: c.privileges, pep: pep, identity: ourselves, logOns: newLogOns()}
	c.rooms = &rooms{service: s, board: newRoomBoard(conf.rooms, conf.now)}
	accounts := newAccounts(s, c.contacts)
	c.chat = &chat{service: s, accounts: accounts}
	commands := &commands{service: s, accounts: accounts, removed: c.removed}
	disco := &disco{service: s, identity: ourselves, commands: commands, started: conf.now()}
	c.iqs = map[string]iqHandler{
		"get " + nsDiscoInfo + " query":  disco.info,
		"get " + nsDiscoItem + " query":  disco.items,
		"get " + nsPing + " ping":        disco.ping,
		"get " + nsVersion + " query":    disco.version,
		"get " + nsLast + " query":       disco.uptime,
		"get " + nsVCard + " vCard":      disco.vCard,
		"set " + nsVCard + " vCard":      disco.setVCard,
		"get " + nsRegister + " query":   accounts.form,
		"set " + nsRegister + " query":   accounts.submit,
		"set " + nsCommands + " command": commands.execute,
	}
	return c
}

// run keeps the links up and handles stanzas until ctx is done, and then shuts down in order. It ends with an error if the database has
// been migrated to another schema.
func (c *component) run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, work := errgroup.WithContext(work)
	g.Go(func() error { c.dispatcher.run(work); return nil })
	for _, server := range c.servers {
		for range c.connections {
			l := &link{domain: c.domain, secret: c.secret, server: server, tls: c.tls, times: c.linkTimes, log: c.log,
				opened: c.opened, closed: c.closed, deliver: c.deliver}
			g.Go(func() error { c.runLink(work, l); return nil })
		}
	}
	g.Go(func() error { c.contacts.pep.avatars.run(work); return nil })
	g.Go(func() error { c.resyncLoop(work); return nil })
	g.Go(func() error { c.prober.run(work); return nil })
	g.Go(func() error { c.rooms.run(work); return nil })
	g.Go(func() error { c.maintain(work); return nil })
	g.Go(func() error { c.stallLoop(work); return nil })
	g.Go(func() error {
		return c.registry.RunCluster(work, clusterHooks{dispatch: c.dispatcher.dispatch, probe: c.probeAll, renew: c.prober.probe, answered: c.onPassedOn, always: c.singleLink})
	})
	select {
	case <-ctx.Done():
	case <-work.Done(): // the database can no longer be used
	}
	c.shutdown(work)
	stop()
	return g.Wait()
}

// runLink keeps a link up until ctx is done, in a cluster while this node may have one.
func (c *component) runLink(ctx context.Context, l *link) {
	nodes := c.registry.cluster
	if nodes == nil {
		l.run(ctx)
		return
	}
	for ctx.Err() == nil {
		allowed, stop := nodes.WhileLinkAllowed(ctx, c.singleLink)
		l.run(allowed)
		ended := allowed.Err() == nil // by our shutdown
		stop()
		if ended {
			return
		}
	}
}

// isStandby reports whether this node leaves the link to the leader.
func (c *component) isStandby() bool { return c.singleLink && !c.registry.Leads() }

// opened records a new stream. Everything may have changed while there was none, so a resync starts once its
// privileges are known.
func (c *component) opened(s *stream) {
	c.linkMu.Lock()
	defer c.linkMu.Unlock()
	c.links.add(s)
	c.privileges.onOpened(s)
	c.registry.SetLink(true)
}

// closed records the end of a stream.
func (c *component) closed(s *stream) {
	c.linkMu.Lock()
	defer c.linkMu.Unlock()
	last := c.links.remove(s)
	c.privileges.onClosed(s, last)
	if last {
		c.registry.SetLink(false)
	}
}

// deliver queues a stanza for its sender, unless ctx is done. It reads only as much of the stanza as this requires.
func (c *component) deliver(ctx context.Context, f frame) {
	from, err := parseJID(html.UnescapeString(string(attribute(f.data, "from"))))
	if err != nil {
		c.received.add(elementName(f.data)) // there is nobody to answer
		return
	}
	data := bytes.Clone(f.data)
	name := elementName(data)
	t := task{weight: int64(len(data)), resource: from.resource, priority: queuePriority(name, string(attribute(data, "type")))}
	if t.priority == taskPresence {
		t.run = func(ctx context.Context) { c.handlePresence(ctx, from.bare, data) }
	} else {
		t.run = func(ctx context.Context) { c.handle(ctx, data) }
	}
	if name == "message" && from.local() == "" && from.resource == "" {
		c.privileges.read(from.bare, data)
	}
	if !c.dispatcher.enqueue(ctx, from.bare, t) {
		c.refuseUnread(data)
	}
}

// handlePresence handles available and unavailable presence. It does not read that of people who are not registered: a server may send us
// the presence of all its users (XEP-0356).
func (c *component) handlePresence(ctx context.Context, bare string, data []byte) {
	if c.board.byJID(bare) == nil {
		c.received.add("presence")
		return
	}
	c.handle(ctx, data)
}

// queuePriority determines what happens to a stanza when its sender's queue is full. Stanzas that change a subscription are never dropped.
func queuePriority(name, typ string) taskPriority {
	switch {
	case name == "presence" && (typ == "" || typ == "unavailable"):
		return taskPresence
	case name == "presence" && (typ == "probe" || typ == "error"), typ == "error", name == "iq" && typ == "result":
		return taskDropped
	case name == "presence":
		return taskKept
	}
	return taskRefused
}

// refuseUnread replies to a stanza for which there is no room in its sender's queue. It reads only the start tag.
func (c *component) refuseUnread(data []byte) {
	d := c.decoders.Get().(*decoder)
	defer c.decoders.Put(d)
	s := d.startTag(data)
	c.received.add(s.name.Local)
	if s.to.domain() == c.domain {
		c.links.sendNow(s.reply("error", resourceConstraint()))
	}
}

// handle handles a stanza, in the queue of its sender. One that is malformed gets an error where an answer is due.
func (c *component) handle(ctx context.Context, data []byte) {
	d := c.decoders.Get().(*decoder)
	s, err := d.decode(data)
	c.decoders.Put(d)
	c.received.add(s.name.Local)
	if c.log.Enabled(ctx, slog.LevelDebug) {
		c.log.Debug("received", "stanza", s.name.Local, "type", s.typ, "id", s.id, "from", s.from.String(), "error", err)
	}
	if s.from.bare == "" || s.name.Space != nsComponent || s.to.domain() != c.domain {
		return
	}
	if err != nil {
		if s.isRequest() {
			c.refuse(s, badRequest())
		}
		return
	}
	if s.from.bare == c.domain || c.rooms.isAnswer(s) {
		if !c.onAnswer(s) {
			c.registry.cluster.passOn(data)
		}
		return
	}
	sender, ok := c.admit(s)
	if !ok {
		if s.name.Local != "presence" {
			c.refuse(s, resourceConstraint())
		}
		return
	}
	switch s.name.Local {
	case "iq":
		c.handleIQ(ctx, s, sender)
	case "presence":
		c.contacts.handle(ctx, s)
		c.chat.introduce(s, sender)
	case "message":
		c.handleMessage(ctx, s, sender)
	}
}

// onAnswer handles a ping that has come back or the answer of a room, and reports whether this node has asked for it.
func (c *component) onAnswer(s *received) bool {
	if s.from.bare == c.domain {
		return c.links.onSelfPing(s.id)
	}
	return c.rooms.handleAnswer(s)
}

// onPassedOn handles an answer that has come to another node.
func (c *component) onPassedOn(stanza string) {
	if s, err := decodeStanza([]byte(stanza)); err == nil {
		c.onAnswer(s)
	}
}

// admit applies the sender's rate limit to a stanza that requests something, and returns the record of the sender; nil if
// the stanza requests nothing. Presence is not limited, and neither are changes of a user's subscription.
func (c *component) admit(s *received) (sender *sender, ok bool) {
	switch {
	case s.isRequest():
	case s.name.Local == "presence" && (s.typ == "probe" || s.changesSubscription() && c.board.byJID(s.from.bare) == nil):
	case s.name.Local == "message" && s.typ != "error" && s.child(nsComponent, "body") != nil:
	default:
		return nil, true
	}
	now := c.now()
	sender = c.senders.get(s.from.bare, now)
	return sender, sender.limiter.AllowN(now, 1)
}

// resourceWeb is the resource of our presence. Clients show a contact whose presence has no resource as offline, or without its commands.
const resourceWeb = "web"

// contactAt returns the contact with an address, which is a bare JID or the full JID of our presence. Other addresses at our domain
// do not exist.
func (s *service) contactAt(to jid) (contact Contact, exists bool) {
	if to.resource != "" && to.resource != resourceWeb {
		return 0, false
	}
	for _, contact := range []Contact{ContactDomain, ContactBot} {
		if to.bare == contact.jid(s.domain) {
			return contact, true
		}
	}
	return 0, false
}

// refuse answers with an error.
func (s *service) refuse(r *received, e *stanzaError) { s.links.send(r.reply("error", e)) }

// selfPing returns a ping to our own domain (XEP-0199), which the server sends back to us.
func selfPing(domain, id string) []byte {
	return envelope{XMLName: xml.Name{Local: "iq"}, Type: "get", ID: id, From: domain, To: domain, Payload: ping{}}.encode()
}

type ping struct {
	XMLName xml.Name `xml:"urn:xmpp:ping ping"`
}

// pingID names the stream in its pings, which may come back over another one. Those of confirm have a number behind it.
func (s *stream) pingID() string { return "ping-" + s.id }

// A request is an iq of type get or set.
type request struct {
	*received
	contact Contact // that the request is addressed to
	query   *element
	sender  *sender
	lang    *catalog // of the sender
}

// An iqHandler handles a request. It returns the payload of the result, and a function to run after the result has been sent, if
// any; or a *stanzaError.
type iqHandler func(ctx context.Context, r request) (payload any, afterReply func(), err error)

func (c *component) handleIQ(ctx context.Context, s *received, sender *sender) {
	contact, exists := c.contactAt(s.to)
	switch {
	case s.typ == "result" || s.typ == "error":
		if e := c.pepSender(s); e != nil {
			c.contacts.pep.handleAnswer(ctx, e, s)
		} else if s.id == idSoftware && s.to.String() == c.domain {
			c.privileges.handleAnswer(s)
		}
		return
	case s.typ != "get" && s.typ != "set", len(s.children) != 1:
		c.refuse(s, badRequest()) // RFC 6120 §8.2.3
		return
	case !exists:
		c.refuse(s, itemNotFound())
		return
	}
	query := &s.children[0]
	handler, ok := c.iqs[s.typ+" "+query.name.Space+" "+query.name.Local]
	if !ok {
		c.refuse(s, serviceUnavailable())
		return
	}
	payload, afterReply, err := handler(ctx, request{s, contact, query, sender, c.languages.match(query.lang(s.lang("")))})
	if err != nil {
		c.refuse(s, requestError(err))
		return
	}
	c.links.send(s.reply("result", payload))
	if afterReply != nil {
		afterReply()
	}
}

// requestError returns the stanza error for a handler's error. Those of the database, which the registry logs, are for the operator only.
func requestError(err error) *stanzaError {
	var refused *stanzaError
	switch {
	case errors.As(err, &refused):
		return refused
	case errors.Is(err, ErrNotFound):
		return registrationRequired() // removed by another process meanwhile
	case errors.Is(err, ErrFull), errors.Is(err, ErrUnreachable), errors.Is(err, ErrLocked), errors.Is(err, ErrSlow):
		return resourceConstraint()
	}
	return internalError()
}

// handleMessage handles PEP events and chat.
func (c *component) handleMessage(ctx context.Context, s *received, sender *sender) {
	if s.child(nsPubSubEvent, "event") == nil {
		c.chat.handle(ctx, s, sender)
		return
	}
	if e := c.pepSender(s); e != nil {
		c.contacts.pep.handleEvent(ctx, e, s)
	}
}

// pepSender returns the user whose server sends us an event or an answer, nil if there is none.
func (c *component) pepSender(s *received) *entry {
	e := c.board.byJID(s.from.bare)
	contact, exists := c.contactAt(s.to)
	if e == nil || s.from.resource != "" || !exists || contact != e.user.Granted {
		return nil
	}
	return e
}
