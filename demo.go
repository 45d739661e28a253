package main

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// A loopback is the end of XEP-0114 that an XMPP server has, at a port that nobody else reaches: enough to show webstatus at
// work, and to test it, without a server.
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

// A loopbackStream is a component's connection after the handshake. Sending may be done by several goroutines at once.
type loopbackStream struct {
	net.Conn
	framer *framer
	mu     sync.Mutex
}

// accept waits for a component and shakes hands with it.
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
		return errors.New("the component does not know the secret")
	}
	return s.send(`<handshake/>`)
}

// send writes XML, with its values escaped.
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

// receive returns the component's next stanza.
func (s *loopbackStream) receive() (*received, error) {
	f, err := s.framer.next()
	if err != nil {
		return nil, err
	}
	return decodeStanza(f.data)
}

const demoDomain = "webstatus.verona.example"

// A scene is what one resource does at some point of the play.
type scene struct {
	resource string
	typ      string // "unavailable", or empty
	show     string
	status   string
	priority string
}

// An actor is one of the simulated people.
type actor struct {
	jid    string
	nick   string
	fields string // of the registration
	pause  time.Duration
	scenes []scene

	mu  sync.Mutex
	now map[string]scene // what each connected resource has said last
}

// actors are those who play, with scenes that begin anew after the last.
func actors() []*actor {
	const message, address, nick = "<show_status_msg>1</show_status_msg>", "<show_full_jid>1</show_full_jid>", "<show_nick>1</show_nick>"
	const seen, clients = "<show_last_seen>1</show_last_seen>", "<show_resources>1</show_resources>"
	return []*actor{
		{jid: "juliet@verona.example", nick: "Juliet", fields: message + address + nick, pause: 4 * time.Second, scenes: []scene{
			{resource: "balcony", status: "On the balcony, come by"},
			{resource: "balcony", show: "chat", status: "Talk to me!"},
			{resource: "balcony", show: "away", status: "Back after the ball"},
			{resource: "balcony", typ: "unavailable"},
		}},
		{jid: "romeo@verona.example", nick: "Romeo", fields: message + nick + clients, pause: 5 * time.Second, scenes: []scene{
			{resource: "orchard", status: "In the orchard", priority: "1"},
			{resource: "phone", show: "dnd", status: "Climbing, cannot type", priority: "5"},
			{resource: "phone", typ: "unavailable"},
			{resource: "orchard", show: "away", status: "Looking for the friar", priority: "1"},
		}},
		{jid: "mercutio@verona.example", nick: "Mercutio", fields: message + nick + seen, pause: 7 * time.Second, scenes: []scene{
			{resource: "square", show: "chat", status: "Ask for me tomorrow"},
			{resource: "square", show: "dnd", status: "A plague o’ both your houses"},
			{resource: "square", typ: "unavailable"},
		}},
		{jid: "nurse@verona.example", pause: 6 * time.Second, scenes: []scene{
			{resource: "house"},
			{resource: "house", show: "xa"},
			{resource: "house", show: "away"},
		}},
		{jid: "friar@verona.example", fields: message, pause: 9 * time.Second, scenes: []scene{
			{resource: "cell", show: "away", status: "Gathering herbs"},
			{resource: "cell", show: "dnd", status: "A wedding, in secret"},
			{resource: "cell", status: "Wisely and slow"},
			{resource: "cell", typ: "unavailable"},
		}},
	}
}

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
	for _, part := range [][2]string{{"show", c.show}, {"status", c.status}, {"priority", c.priority}} {
		if part[1] != "" {
			stanza += "<" + part[0] + ">%s</" + part[0] + ">"
			values = append(values, part[1])
		}
	}
	return s.send(stanza+`</presence>`, values...)
}

// perform registers an actor and plays the scenes until ctx is done.
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

// reply plays the part of an actor's server and roster: requests are granted, probes are answered.
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

// serve performs for one component until ctx is done. It calls ready when all actors are registered.
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
		bare, _, _ := strings.Cut(r.to, "/")
		for _, a := range cast {
			if a.jid == bare && r.name.Local == "presence" {
				err = s.reply(a, r)
			}
		}
		if bare == demoDomain { // a ping to itself
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

func demoCommand() *cobra.Command {
	var conf config
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Everything against a built-in XMPP server with simulated people",
		Long: `Run everything, with a temporary database, against a built-in XMPP server with five simulated people who come and go. No XMPP
server and no configuration is needed. Without --listen a free port is taken if the usual one is not.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string, problems *usageError) error {
			conf.resolveListen(problems)
			conf.resolveBaseURL(problems)
			log := conf.logger(problems, cmd.ErrOrStderr())
			if err := problems.orNil(); err != nil {
				return err
			}
			listener, err := listen(conf.listen, "listen")
			if err != nil && !cmd.Flags().Changed("listen") {
				listener, err = net.Listen("tcp", "127.0.0.1:0")
			}
			if err != nil {
				return err
			}
			if conf.baseURL == "" {
				conf.baseURL = "http://" + listener.Addr().String()
			}
			return demo(cmd.Context(), cmd.OutOrStdout(), listener, componentConfig{
				domain: demoDomain, secret: "demo", connections: 1, allow: allowList{"*"}, jidLinks: true,
				baseURL: strings.TrimRight(conf.baseURL, "/"), times: defaultLinkTimes, sync: defaultSyncTimes, log: log,
			})
		}),
	}
	conf.webFlags(cmd.Flags())
	conf.logFlags(cmd.Flags(), "warn")
	return cmd
}

// demo runs until ctx is done.
func demo(ctx context.Context, out io.Writer, listener net.Listener, conf componentConfig) error {
	dir, err := os.MkdirTemp("", "webstatus-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) // what stays is a temporary file
	db, err := openDatabase(ctx, filepath.Join(dir, "webstatus.db"), true)
	if err != nil {
		return err
	}
	defer db.Close()
	defer listener.Close()
	l, err := newLoopback(conf.domain, conf.secret)
	if err != nil {
		return err
	}
	conf.servers = []string{l.address()}
	cast := actors()
	around, err := withDemoPage(cast)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := l.serve(ctx, cast, func() { announce(out, conf.baseURL, cast) })
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
	g.Go(func() error {
		return serveAt(ctx, doors{web: listener}, db, websiteConfig{frameAncestors: "*"}, conf, around)
	})
	return g.Wait()
}

func announce(out io.Writer, baseURL string, cast []*actor) {
	fmt.Fprintf(out, "Five simulated people come and go on a built-in XMPP server; nothing here is real but webstatus.\n\n")
	fmt.Fprintf(out, "  all of them   %s/demo\n", baseURL)
	fmt.Fprintf(out, "  how to join   %s/\n", baseURL)
	for _, a := range cast {
		name, _, _ := strings.Cut(a.jid, "@")
		fmt.Fprintf(out, "  %-12s  %s/status/%s\n", name, baseURL, encodeJID(a.jid))
	}
	fmt.Fprintf(out, "\nAdd .json to a person's address for the same as data. Ctrl-C ends the demo.\n")
}

// withDemoPage puts a page in front of a website that embeds everybody's, as a site of theirs would.
func withDemoPage(cast []*actor) (func(http.Handler) http.Handler, error) {
	t, err := template.ParseFS(embeddedTemplates, "demo.html")
	if err != nil {
		return nil, err
	}
	type person struct{ Name, Page string }
	var people []person
	for _, a := range cast {
		name, _, _ := strings.Cut(a.jid, "@")
		people = append(people, person{strings.ToUpper(name[:1]) + name[1:], "/status/" + encodeJID(a.jid)})
	}
	var page strings.Builder
	if err := t.Execute(&page, people); err != nil {
		return nil, err
	}
	return func(website http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/", website)
		mux.HandleFunc("GET /demo", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header()["Content-Type"] = typeHTML
			io.WriteString(rw, page.String()) // a reader who has gone needs no answer
		})
		return mux
	}, nil
}
