package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// componentConfig is what a component needs to know. All of it is required but tls.
type componentConfig struct {
	domain      string // our JID
	secret      string
	servers     []string      // host:port of the component listeners
	connections int           // to each server
	tls         *tls.Config   // nil for none
	languages   *languages    // in which we answer
	allow       allowList     // who may register
	baseURL     string        // of the web server, without a slash at the end
	jidLinks    bool          // whether addresses made from the JID are answered
	admins      []string      // bare JIDs that may run the administration commands
	contacts    []string      // addresses, as URIs, at which the operator is to be reached
	expire      time.Duration // for which an account has to be gone before its user is removed; 0 for ever
	hideOS      bool          // whether the operating system is kept from those who ask for our version
	times       linkTimes
	sync        syncTimes
	now         func() time.Time
	random      io.Reader // for tokens
	log         *slog.Logger
}

// A component is our side of XEP-0114: it takes what the server sends, keeps the board and the database in step with it, and
// answers.
type component struct {
	componentConfig
	db    *database
	board *board

	seed     maphash.Seed
	workers  []*worker
	room     *semaphore.Weighted // bytes that may wait in all queues
	granted  map[string]request
	started  time.Time
	self     *identity
	linked   chan struct{} // a link has come up
	asking   chan struct{} // probes has grown
	left     chan struct{} // a user has been removed by another
	avatars  avatarEncoder
	counters counters
	counted  atomic.Bool // the number of users in our presence is right

	mu      sync.Mutex
	streams []*stream       // open ones
	probes  []*entry        // to be sent
	unsaved map[*entry]bool // whose status is to be written down; true if the profile is as well
}

const (
	workerCount = 16
	queueLength = 256      // tasks that wait for one worker
	queueRoom   = 32 << 20 // bytes that wait for all of them
)

// A worker does what concerns its share of people, one thing after the other.
type worker struct {
	queue    chan task
	visitors visitors
	decoder  decoder
}

// A task is for one worker: a stanza, or something else to be done in turn with the stanzas of the same person.
type task struct {
	data   []byte
	stream *stream
	do     func(context.Context)
}

// newComponent makes a component, with everybody who is registered on its board.
func newComponent(ctx context.Context, conf componentConfig, db *database) (*component, error) {
	seen, err := db.LinkSeen(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the database: %w", explain(err))
	}
	if seen.IsZero() {
		seen = conf.now()
	}
	c := &component{
		componentConfig: conf,
		db:              db,
		board:           newBoard(seen, conf.now()),
		seed:            maphash.MakeSeed(),
		room:            semaphore.NewWeighted(queueRoom),
		linked:          make(chan struct{}, 1),
		asking:          make(chan struct{}, 1),
		left:            make(chan struct{}, 1),
		started:         conf.now(),
		unsaved:         make(map[*entry]bool),
	}
	c.granted = c.requests()
	c.counted.Store(true)
	if c.self, err = newIdentity(conf); err != nil {
		return nil, err
	}
	for u, err := range db.Users(ctx, userFilter{}) {
		if err != nil {
			return nil, fmt.Errorf("reading the database: %w", explain(err))
		}
		c.board.add(u.User, u.Status, u.Profile)
	}
	for range workerCount {
		c.workers = append(c.workers, &worker{queue: make(chan task, queueLength), visitors: make(visitors)})
	}
	return c, nil
}

// run keeps the links up and does the work, until ctx is done; then it takes leave of those who see us.
func (c *component) run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, work := errgroup.WithContext(work)
	for _, w := range c.workers {
		g.Go(func() error { c.work(work, w); return nil })
	}
	for _, server := range c.servers {
		for range c.connections {
			l := &link{domain: c.domain, secret: c.secret, server: server, tls: c.tls, times: c.times, log: c.log,
				opened: c.opened, closed: c.closed, deliver: c.deliverTo(work)}
			g.Go(func() error { l.run(work); return nil })
		}
	}
	g.Go(func() error { c.synchronise(work); return nil })
	g.Go(func() error { c.probe(work); return nil })
	g.Go(func() error { c.keepDatabase(work); return nil })
	<-ctx.Done()
	c.takeLeave(work)
	stop()
	return g.Wait()
}

// opened notes a new stream: whatever was known may have changed while there was none.
func (c *component) opened(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams = append(c.streams, s)
	c.board.linkUp()
	wake(c.linked)
}

func (c *component) closed(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams = slices.DeleteFunc(c.streams, func(o *stream) bool { return o == s })
	if len(c.streams) == 0 {
		c.board.linkDown(c.now())
	}
}

// wake tells a loop that there is something to do, unless it has been told already.
func wake(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

var errNoLink = errors.New("no link to the XMPP server")

// send queues a stanza for the XMPP server. What is for one person goes the same way, in order, as long as the links last.
func (c *component) send(e envelope) error {
	s := c.streamFor(e.To)
	if s == nil {
		return errNoLink
	}
	if c.log.Enabled(context.Background(), slog.LevelDebug) {
		c.log.Debug("sent", "stanza", e.XMLName.Local, "type", e.Type, "id", e.ID, "to", e.To)
	}
	c.counters.sent[stanzaKind(e.XMLName.Local)].Add(1)
	return s.write(e.encode())
}

func (c *component) streamFor(to string) *stream {
	bare, _, _ := strings.Cut(to, "/")
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.streams) == 0 {
		return nil
	}
	return c.streams[maphash.String(c.seed, bare)%uint64(len(c.streams))]
}

// sendPresence sends a presence of ours. When there is no link it is not sent; the next link makes up for it.
func (c *component) sendPresence(to, typ string) error {
	return c.send(envelope{XMLName: xml.Name{Local: "presence"}, Type: typ, From: c.domain, To: to})
}

// deliverTo returns the function that a link hands its elements to. It waits while the sender's queue, or the room for all
// of them, is full.
func (c *component) deliverTo(ctx context.Context) func(*stream, frame) {
	return func(s *stream, f frame) {
		from, _, _ := bytes.Cut(attribute(f.data, "from"), []byte("/"))
		if c.room.Acquire(ctx, int64(len(f.data))) != nil {
			return // we are stopping
		}
		t := task{data: bytes.Clone(f.data), stream: s}
		select {
		case c.workers[maphash.Bytes(c.seed, from)%workerCount].queue <- t:
		case <-ctx.Done():
		}
	}
}

// inTurn does something in turn with the stanzas of a person.
func (c *component) inTurn(ctx context.Context, bare string, do func(context.Context)) {
	select {
	case c.workers[maphash.String(c.seed, bare)%workerCount].queue <- task{do: do}:
	case <-ctx.Done():
	}
}

func (c *component) work(ctx context.Context, w *worker) {
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-w.queue:
			if t.do != nil {
				t.do(ctx)
				continue
			}
			c.handle(ctx, w, t.data)
			c.room.Release(int64(len(t.data)))
		}
	}
}

// handle does what a stanza asks for. One that makes no sense gets an error where an answer is due.
func (c *component) handle(ctx context.Context, w *worker, data []byte) {
	s, err := w.decoder.decode(data)
	c.counters.received[stanzaKind(s.name.Local)].Add(1)
	if c.log.Enabled(ctx, slog.LevelDebug) {
		c.log.Debug("received", "stanza", s.name.Local, "type", s.typ, "id", s.id, "from", s.from.String(), "error", err)
	}
	switch {
	case s.from.bare == "", s.name.Space != nsComponent, !c.isOurs(s):
		return // nobody to answer, or nothing for us
	case err != nil:
		if s.name.Local == "iq" && (s.typ == "get" || s.typ == "set") {
			c.refuse(s, badRequest())
		}
	case s.from.bare == c.domain:
		c.heardOurselves(s)
	case !c.admit(w, s):
		if s.name.Local != "presence" {
			c.refuse(s, resourceConstraint())
		}
	case s.name.Local == "iq":
		c.handleIQ(ctx, s)
	case s.name.Local == "presence":
		c.handlePresence(ctx, s)
	case s.name.Local == "message":
		c.handleMessage(ctx, s)
	}
}

// admit reports whether somebody may ask for something now. Presence as such is not asked for, and neither is an end.
func (c *component) admit(w *worker, s *received) bool {
	switch {
	case s.name.Local == "iq" && (s.typ == "get" || s.typ == "set"):
	case s.name.Local == "presence" && (s.typ == "subscribe" || s.typ == "subscribed" || s.typ == "probe"):
	case s.name.Local == "message" && s.typ != "error" && s.child(nsComponent, "body") != nil:
	default:
		return true
	}
	now := c.now()
	s.visitor = w.visitors.visit(s.from.bare, now)
	return s.visitor.bucket.AllowN(now, 1)
}

// isOurs reports whether a stanza is for our domain, and sees to it that its addressee, who answers, is one.
func (c *component) isOurs(s *received) bool {
	to, err := parseJID(s.to)
	s.to = to.String()
	return err == nil && to.domain() == c.domain
}

func (c *component) refuse(s *received, e *stanzaError) {
	c.send(s.answer("error", e)) // without a link there is nobody to tell
}

// pingOurselves makes a ping to our own domain (XEP-0199), which the server sends back to us, over one of our streams.
func pingOurselves(domain string, s *stream) []byte {
	return envelope{XMLName: xml.Name{Local: "iq"}, Type: "get", ID: s.pingID(), From: domain, To: domain, Payload: ping{}}.encode()
}

type ping struct {
	XMLName xml.Name `xml:"urn:xmpp:ping ping"`
}

// pingID names the stream in its pings, which may come back over another one.
func (s *stream) pingID() string { return fmt.Sprintf("ping-%p", s) }

// heardOurselves takes a ping of ours as a sign of life of the stream that it went out on.
func (c *component) heardOurselves(s *received) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.streams {
		if o.pingID() == s.id {
			o.heard.Store(time.Now().UnixNano())
		}
	}
}

// A request is what somebody asks in an iq. It returns the payload of the answer, and what is to be done once the answer has
// been sent, if anything; or a *stanzaError.
type request func(ctx context.Context, s *received, query *element) (payload any, then func(), err error)

// requests are those that we grant.
func (c *component) requests() map[string]request {
	return map[string]request{
		"get " + nsDiscoInfo + " query":  c.discoInfo,
		"get " + nsDiscoItem + " query":  c.discoItems,
		"get " + nsPing + " ping":        c.ping,
		"get " + nsRegister + " query":   c.registrationForm,
		"set " + nsRegister + " query":   c.register,
		"set " + nsCommands + " command": c.command,
		"get " + nsVersion + " query":    c.version,
		"get " + nsLast + " query":       c.lastActivity,
		"get " + nsVCard + " vCard":      c.vCard,
		"set " + nsVCard + " vCard":      c.setVCard,
	}
}

func (c *component) handleIQ(ctx context.Context, s *received) {
	switch {
	case s.typ == "result" || s.typ == "error":
		if e := c.board.byJID(s.from.bare); e != nil && s.from.resource == "" && s.to == c.domain {
			c.answered(e, s)
		}
		return
	case s.typ != "get" && s.typ != "set", len(s.children) != 1:
		c.refuse(s, badRequest()) // RFC 6120 §8.2.3
		return
	case s.to != c.domain:
		c.refuse(s, itemNotFound())
		return
	}
	query := &s.children[0]
	grant, ok := c.granted[s.typ+" "+query.name.Space+" "+query.name.Local]
	if !ok {
		c.refuse(s, serviceUnavailable())
		return
	}
	payload, then, err := grant(ctx, s, query)
	var refused *stanzaError
	switch {
	case errors.As(err, &refused):
		c.refuse(s, refused)
	case err != nil:
		c.log.Error("a request failed", "from", s.from.bare, "cause", explain(err))
		if isFull(err) {
			c.refuse(s, resourceConstraint())
		} else {
			c.refuse(s, internalError())
		}
	default:
		c.send(s.answer("result", payload)) // without a link there is nobody to tell
		if then != nil {
			then()
		}
	}
}

// handlePresence follows the subscriptions and the presence of those who are registered (RFC 6121 §3, §4). Others learn
// nothing.
func (c *component) handlePresence(ctx context.Context, s *received) {
	e := c.board.byJID(s.from.bare)
	if e == nil || s.to != c.domain {
		switch s.typ {
		case "subscribe", "probe":
			c.send(s.subscriptionAnswer("unsubscribed"))
		}
		return
	}
	switch s.typ {
	case "":
		c.available(ctx, e, s)
	case "unavailable":
		c.unavailable(ctx, e, s)
	case "error":
		c.unreachable(ctx, e, s)
	case "subscribe":
		c.subscribe(ctx, e)
	case "subscribed":
		c.subscribed(ctx, e)
	case "unsubscribe":
		c.unsubscribe(ctx, e)
	case "unsubscribed":
		c.unsubscribed(ctx, e)
	case "probe":
		c.probed(e, s)
	default:
		c.refuse(s, badRequest())
	}
}

// local leaves out the namespace that the stream has anyway.
func (e envelope) local() envelope {
	e.XMLName.Space = ""
	return e
}

func (c *component) available(ctx context.Context, e *entry, s *received) {
	if !e.user.Subscription.To() {
		return // directed at us, and not ours to show
	}
	p := parsePresence(s, c.now())
	p.Link = c.board.link.Load().number
	e.resources = e.resources.Put(p)
	c.alive(ctx, e)
	c.heard(ctx, e)
	c.heardProfile(ctx, e, s)
}

func (c *component) unavailable(ctx context.Context, e *entry, s *received) {
	switch watched := len(e.resources) > 0; {
	case watched && e.user.Options.has(fieldLastSeen):
		seen := c.now()
		if sent, ok := delayStamp(s); ok && sent.Before(seen) {
			seen = sent.UTC()
		}
		e.writableExtras().lastSeen = seen
	case watched && e.extras != nil:
		e.extras.lastSeen = time.Time{} // else an older time would come back with the option
	}
	e.resources = e.resources.Remove(s.from.resource)
	c.heard(ctx, e)
}

// unreachable drops what was known of somebody whose server sends back what we sent.
func (c *component) unreachable(ctx context.Context, e *entry, s *received) {
	e.resources = e.resources.Remove(s.from.resource)
	e.link = c.board.link.Load().number
	e.failed = s.from.resource == ""
	c.update(e)
	if e.failed && s.saysGone() {
		c.gone(ctx, e)
	}
}

// heard publishes what has been learnt from a user's server. The first over a link is the time to ask for the rest.
func (c *component) heard(ctx context.Context, e *entry) {
	link := c.board.link.Load().number
	first := e.link != link
	e.link, e.failed = link, false
	c.update(e)
	if first {
		c.askProfile(ctx, e)
	}
}

// update publishes an entry's new status and sees to it that it is written down.
func (c *component) update(e *entry) {
	if c.board.update(e) {
		c.save(e, false)
	}
}

// save has an entry's status written down, and the profile if that has changed.
func (c *component) save(e *entry, profile bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unsaved[e] = c.unsaved[e] || profile
}
