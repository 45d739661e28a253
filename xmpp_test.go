package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A fixture is a component with its web server. The test acts as the XMPP server that it is connected to.
type fixture struct {
	t        testing.TB
	server   *loopback
	stream   *loopbackStream
	db       *database
	dbPath   string
	node     string // name in a cluster
	conf     componentConfig
	random   io.Reader // for tokens
	comp     *component
	site     *website
	web      *httptest.Server
	stop     func()
	log      *lockedBuffer
	hook     webhookConfig
	ids      map[string]bool   // of the messages that the component has sent
	asked    map[string]string // ids of the component's last requests to users' servers, by question
	pings    int
	deaf     bool   // the server does not return the pings of confirm, as if it had not handled what was sent before
	greeting string // what the server sends after the handshake
	// lockPatience is how long changes wait for another process to unlock the database; 0 for as long as those of commands.
	lockPatience time.Duration
	// contact is the component's address that the tests write to. They name the domain, which send and next replace.
	contact Contact
	mu      sync.Mutex
	clock   time.Time
}

// A countingReader makes tokens predictable.
type countingReader struct {
	mu sync.Mutex
	n  byte
}

func (r *countingReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range p {
		p[i] = r.n
	}
	r.n++
	return len(p), nil
}

func (f *fixture) now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.clock
}

// advance moves the component's clock.
func (f *fixture) advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clock = f.clock.Add(d)
}

// newFixture starts a component on an SQLite file; change, if not nil, may alter its configuration first.
func newFixture(t testing.TB, change func(*componentConfig)) *fixture {
	t.Helper()
	return newFixtureOn(t, filepath.Join(t.TempDir(), "webstatus.db"), change)
}

// newFixtureOn starts a component on a database.
func newFixtureOn(t testing.TB, location string, change func(*componentConfig)) *fixture {
	t.Helper()
	return newNode(t, location, "a", change)
}

// newNode starts a component on a database, as a node of that name if it is PostgreSQL.
func newNode(t testing.TB, location, node string, change func(*componentConfig)) *fixture {
	t.Helper()
	f := &fixture{t: t, dbPath: location, node: node, log: &lockedBuffer{}, ids: make(map[string]bool), clock: noon,
		random: &countingReader{n: 100 * (node[0] - 'a')}, asked: make(map[string]string)}
	var err error
	if f.server, err = newLoopback("webstatus.example.org", "s3cret"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.server.listener.Close() })
	f.conf = componentConfig{domain: f.server.domain, secret: f.server.secret, servers: []string{f.server.address()}, connections: 1,
		allow: allowList{"example.org"}, baseURL: "https://status.example.org", jidLinks: true, name: "Web presence", linkTimes: defaultLinkTimes,
		syncTimes: syncTimes{probe: 20 * time.Millisecond, save: 5 * time.Millisecond, poll: 5 * time.Millisecond, linkSeen: time.Hour, goneProbe: time.Hour,
			probeRate: 1e6, shutdown: patience, aliveWithin: patience, stalled: patience},
		now: f.now, log: slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if f.conf.avatar, err = serviceAvatar(); err != nil {
		t.Fatal(err)
	}
	f.conf.linkTimes.retry.first = time.Millisecond
	if change != nil {
		change(&f.conf)
	}
	f.start()
	return f
}

// start starts or restarts the component.
func (f *fixture) start() {
	t := f.t
	t.Helper()
	var err error
	if isPostgres(f.dbPath) {
		f.db, err = joinDatabase(t.Context(), f.dbPath, f.node)
	} else {
		f.db, err = openDatabase(t.Context(), f.dbPath, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	if f.lockPatience > 0 {
		f.db.file.patience = f.lockPatience
	}
	r, err := loadRenderer(f.conf.domain, "")
	if err != nil {
		t.Fatal(err)
	}
	f.conf.languages = r.languages
	users, err := newRegistry(t.Context(), registryConfig{now: f.now, random: f.random, log: f.conf.log}, f.db)
	if err != nil {
		t.Fatal(err)
	}
	f.comp = newComponent(f.conf, users)
	ctx, cancel := context.WithCancel(context.Background())
	f.site = newWebsite(websiteConfig{domain: f.conf.domain, baseURL: f.conf.baseURL, jidLinks: f.conf.jidLinks, frameAncestors: "*", board: f.comp.board, rooms: f.comp.rooms.board,
		webhookConfig: f.hook, leads: users.Leads, now: f.conf.now, log: f.conf.log, closing: ctx}, r)
	f.web = httptest.NewServer(f.site.handler())
	done := make(chan error, 1)
	go func() { done <- f.comp.run(ctx) }()
	var posting sync.WaitGroup
	if f.site.webhook != nil {
		posting.Go(func() { f.site.webhook.run(ctx) })
	}
	f.stop = sync.OnceFunc(func() {
		cancel()
		posting.Wait()
		f.web.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := f.db.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(f.stop)
	f.accept()
}

// accept accepts the component's next connection, and returns its first ping.
func (f *fixture) accept() {
	f.t.Helper()
	var err error
	if f.stream, err = f.server.acceptSoon(); err != nil {
		f.t.Fatalf("%v; log:\n%s", err, f.log)
	}
	f.t.Cleanup(func() { f.stream.Close() })
	ping := f.next()
	if !strings.HasPrefix(ping, `<iq type='get' id='ping-`) || !strings.HasSuffix(ping, ` from='webstatus.example.org' to='webstatus.example.org'><ping xmlns='urn:xmpp:ping'></ping></iq>`) {
		f.t.Fatalf("not a ping: %s", ping)
	}
	f.send(f.greeting + ping)
}

// acceptSoon is like accept, but does not wait forever for a component that does not come.
func (l *loopback) acceptSoon() (*loopbackStream, error) {
	l.listener.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	return l.accept()
}

// send sends XML to the component.
func (f *fixture) send(xml string) {
	f.t.Helper()
	if f.contact == ContactBot {
		xml = strings.ReplaceAll(xml, "to='"+atDomain+"'", "to='"+atBot+"'")
	}
	if _, err := io.WriteString(f.stream, xml); err != nil {
		f.t.Fatal(err)
	}
}

// messageID matches the start of a message up to its ID, unless it is an error, which has the ID of its cause.
var messageID = regexp.MustCompile(`^(<message(?: type='(?:chat|normal)')?) id='([^']+)'`)

// confirmPing matches a ping by which the component learns that the server has handled what was sent before.
var confirmPing = regexp.MustCompile(`^<iq type='get' id='ping-[A-Z2-7]+-[0-9]+'`)

var questionID = regexp.MustCompile(`^<iq type='get' id='((nick|avatar|avatar-data|vcard|last|activity|mood|tune)\.[^']*)'`)

// next returns the next element that the component sends, with single quotes. It returns the pings of confirm to the component. Every message must have an ID that no other has; it is
// left out.
func (f *fixture) next() string {
	f.t.Helper()
	f.stream.SetReadDeadline(time.Now().Add(patience))
	fr, err := f.stream.framer.next()
	if err != nil {
		f.t.Fatalf("%v; log:\n%s", err, f.log)
	}
	got := strings.ReplaceAll(string(fr.data), `"`, "'")
	if confirmPing.MatchString(got) {
		if !f.deaf {
			f.send(got)
		}
		return f.next()
	}
	if f.contact == ContactBot {
		if strings.Contains(got, "from='"+atDomain+"'") && !strings.Contains(got, "to='"+atDomain+"'") {
			f.t.Fatalf("not from %s: %s", atBot, got)
		}
		got = strings.ReplaceAll(got, atBot, atDomain)
	}
	if id := questionID.FindStringSubmatch(got); id != nil {
		f.asked[id[2]] = id[1]
		return strings.Replace(got, id[1], id[2], 1)
	}
	if !strings.HasPrefix(got, "<message") || strings.HasPrefix(got, "<message type='error'") {
		return got
	}
	id := messageID.FindStringSubmatch(got)
	if id == nil || f.ids[id[2]] {
		f.t.Fatalf("the message has no ID of its own: %s", got)
	}
	f.ids[id[2]] = true
	return messageID.ReplaceAllString(got, "$1")
}

// The component's two addresses.
const (
	atDomain = "webstatus.example.org"
	atBot    = "bot@webstatus.example.org"
)

// atEachAddress runs a test at both addresses of a component.
func atEachAddress(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	for _, contact := range []Contact{ContactDomain, ContactBot} {
		t.Run(contact.jid("webstatus.example.org"), func(t *testing.T) {
			f := newFixture(t, nil)
			f.contact = contact
			test(t, f)
		})
	}
}

// want checks the next stanzas that the component sends. A wanted stanza that ends with … is a prefix.
func (f *fixture) want(stanzas ...string) {
	f.t.Helper()
	for _, want := range stanzas {
		start, open := strings.CutSuffix(want, "…")
		if got := f.next(); got != want && !(open && strings.HasPrefix(got, start)) {
			f.t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
}

// wantAfterProbes is like want, but skips probes of Juliet: a node of a cluster also probes her when its link or its database returns.
func (f *fixture) wantAfterProbes(want string) {
	f.t.Helper()
	got := f.next()
	for got == wantProbe {
		got = f.next()
	}
	if got != want {
		f.t.Errorf("got  %s\nwant %s", got, want)
	}
}

// wantLeave checks that one of our addresses leaves Juliet's contact list.
func (f *fixture) wantLeave(address string) {
	f.t.Helper()
	f.want(`<presence type='unsubscribe' from='`+address+`' to='juliet@example.org'></presence>`,
		`<presence type='unsubscribed' from='`+address+`' to='juliet@example.org'></presence>`,
		`<presence type='unavailable' from='`+address+`/web' to='juliet@example.org'></presence>`,
		`<presence type='unavailable' from='`+address+`' to='juliet@example.org'></presence>`)
}

// settled waits until all stanzas from one JID are handled, and checks that none of them was answered.
func (f *fixture) settled(person string) {
	f.t.Helper()
	f.pings++
	id := "barrier" + strconv.Itoa(f.pings)
	f.send(`<iq type='get' id='` + id + `' from='` + person + `/barrier' to='webstatus.example.org'><ping xmlns='urn:xmpp:ping'/></iq>`)
	f.want(`<iq type='result' id='` + id + `' from='webstatus.example.org' to='` + person + `/barrier'></iq>`)
}

// get requests a path from the web server.
func (f *fixture) get(path string, namesAndValues ...string) (*http.Response, string) {
	f.t.Helper()
	return fetch(f.t, f.web.URL+path, namesAndValues...)
}

// fetch requests a URL with optional headers, and returns the response and its body.
func fetch(t testing.TB, url string, namesAndValues ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(namesAndValues); i += 2 {
		req.Header.Set(namesAndValues[i], namesAndValues[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

const (
	juliet     = "juliet@example.org"
	julietPage = "/status/anVsaWV0QGV4YW1wbGUub3Jn"
)

// wantState checks the state on Juliet's page.
func (f *fixture) wantState(want State) {
	f.t.Helper()
	if resp, body := f.get(julietPage + ".json"); !strings.Contains(body, `"state":"`+string(want)+`"`) {
		f.t.Errorf("%s %s, want %s", resp.Status, body, want)
	}
}

// wantNotFound checks that there is nothing at a path.
func (f *fixture) wantNotFound(path string) {
	f.t.Helper()
	if resp, _ := f.get(path); resp.StatusCode != http.StatusNotFound {
		f.t.Errorf("%s: %s", path, resp.Status)
	}
}

// register registers Juliet and accepts the subscription request.
func (f *fixture) register(fields string) {
	f.t.Helper()
	f.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'>` + fields + `</query></iq>`)
	f.want(`<iq type='result' id='r' from='webstatus.example.org' to='juliet@example.org/b'></iq>`,
		`<presence type='subscribe' from='webstatus.example.org' to='juliet@example.org'><status>Accept this request…`,
		`<message type='chat' from='webstatus.example.org' to='juliet@example.org'><body>You are registered.…`)
	f.send(`<presence type='subscribed' from='juliet@example.org' to='webstatus.example.org'/>`)
	f.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
}

// says sends a presence stanza from one of Juliet's resources.
func (f *fixture) says(resource, attributes, content string) {
	f.t.Helper()
	f.send(`<presence from='juliet@example.org/` + resource + `' to='webstatus.example.org' ` + attributes + `>` + content + `</presence>`)
	f.settled(juliet)
}

// replays answers a probe with the last presence of one of Juliet's resources, as her server does.
func (f *fixture) replays(resource, content string) {
	f.t.Helper()
	f.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
	f.says(resource, "", content+`<delay xmlns='urn:xmpp:delay' stamp='`+f.now().Add(-time.Second).Format(time.RFC3339)+`'/>`)
}

func TestRequests(t *testing.T) {
	const err = `<error code='%c' type='%t'><%r xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'></%r></error>`
	failed := func(code, typ, condition string) string {
		return strings.NewReplacer("%c", code, "%t", typ, "%r", condition).Replace(err)
	}
	badRequest, notAcceptable, notFound := failed("400", "modify", "bad-request"), failed("406", "modify", "not-acceptable"), failed("404", "cancel", "item-not-found")
	submit := func(fields string) string {
		return `<query xmlns='jabber:iq:register'><x xmlns='jabber:x:data' type='submit'>` + fields + `</x></query>`
	}
	const formType = `<field var='FORM_TYPE'><value>jabber:iq:register</value></field>`
	tests := []struct{ name, from, typ, query, want string }{
		{"ping", "romeo@example.org/x", "get", `<ping xmlns='urn:xmpp:ping'/>`, ``},
		{"disco#info", "romeo@elsewhere.example/x", "get", `<query xmlns='http://jabber.org/protocol/disco#info'/>`,
			`<query xmlns='http://jabber.org/protocol/disco#info'><identity name='web presence' category='component' type='presence'></identity>` +
				`<feature var='http://jabber.org/protocol/activity+notify'></feature><feature var='http://jabber.org/protocol/commands'></feature>` +
				`<feature var='http://jabber.org/protocol/disco#info'></feature><feature var='http://jabber.org/protocol/disco#items'></feature>` +
				`<feature var='http://jabber.org/protocol/mood+notify'></feature><feature var='http://jabber.org/protocol/nick+notify'></feature>` +
				`<feature var='http://jabber.org/protocol/tune+notify'></feature>` +
				`<feature var='jabber:iq:last'></feature><feature var='jabber:iq:register'></feature><feature var='jabber:iq:version'></feature>` +
				`<feature var='urn:xmpp:avatar:metadata+notify'></feature><feature var='urn:xmpp:ping'></feature><feature var='urn:xmpp:receipts'></feature><feature var='vcard-temp'></feature>` +
				`<x xmlns='jabber:x:data' type='result'><field var='FORM_TYPE' type='hidden'><value>urn:xmpp:data-policy:0</value></field>` +
				`<field var='access_policy' type='list-multi'><value>admins</value></field><field var='auth_data' type='list-single'><value>no_auth</value></field>` +
				`<field var='data_deletion' type='boolean'><value>true</value></field><field var='data_retention' type='text-single'><value>infinite</value></field>` +
				`<field var='full_erasure' type='boolean'><value>true</value></field></x></query>`},
		{"disco#info of a node", "romeo@example.org/x", "get", `<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>`, notFound},
		{"disco#items", "romeo@example.org/x", "get", `<query xmlns='http://jabber.org/protocol/disco#items'/>`, `<query xmlns='http://jabber.org/protocol/disco#items'></query>`},
		{"disco#items of a node", "romeo@example.org/x", "get", `<query xmlns='http://jabber.org/protocol/disco#items' node='n'/>`, notFound},
		{"unknown", "romeo@example.org/x", "get", `<query xmlns='x:y'/>`, failed("503", "cancel", "service-unavailable")},
		{"unknown type", "romeo@example.org/x", "put", `<query xmlns='x:y'/>`, badRequest},
		{"two queries", "romeo@example.org/x", "get", `<a xmlns='x'/><b xmlns='x'/>`, badRequest},
		{"no query", "romeo@example.org/x", "get", ``, badRequest},
		{"stranger asks", "romeo@elsewhere.example/x", "get", `<query xmlns='jabber:iq:register'/>`, failed("403", "auth", "forbidden")},
		{"stranger registers", "romeo@elsewhere.example/x", "set", `<query xmlns='jabber:iq:register'/>`, failed("403", "auth", "forbidden")},
		{"server registers", "example.org", "set", `<query xmlns='jabber:iq:register'/>`, failed("403", "auth", "forbidden")},
		{"removal before registration", "romeo@example.org/x", "set", `<query xmlns='jabber:iq:register'><remove/></query>`, failed("407", "auth", "registration-required")},
		{"removal with siblings", "romeo@example.org/x", "set", `<query xmlns='jabber:iq:register'><remove/><nick/></query>`, badRequest},
		{"wrong FORM_TYPE", "romeo@example.org/x", "set", submit(`<field var='FORM_TYPE'><value>x</value></field>`), badRequest},
		{"form of type form", "romeo@example.org/x", "set", `<query xmlns='jabber:iq:register'><x xmlns='jabber:x:data' type='form'/></query>`, badRequest},
		{"form of type result", "romeo@example.org/x", "set", `<query xmlns='jabber:iq:register'><x xmlns='jabber:x:data' type='result'/></query>`, badRequest},
		{"form and plain", "romeo@example.org/x", "set", `<query xmlns='jabber:iq:register'><show_full_jid>1</show_full_jid><x xmlns='jabber:x:data' type='submit'/></query>`, badRequest},
		{"two forms", "romeo@example.org/x", "set", `<query xmlns='jabber:iq:register'><x xmlns='jabber:x:data' type='submit'/><x xmlns='jabber:x:data' type='submit'/></query>`, badRequest},
		{"cancelled", "romeo@example.org/x", "set", `<query xmlns='jabber:iq:register'><x xmlns='jabber:x:data' type='cancel'/></query>`, ``},
		{"no boolean", "romeo@example.org/x", "set", submit(formType + `<field var='show_full_jid'><value>yes</value></field>`), notAcceptable},
		{"no value", "romeo@example.org/x", "set", submit(formType + `<field var='show_full_jid'/>`), notAcceptable},
		{"two values", "romeo@example.org/x", "set", submit(formType + `<field var='show_full_jid'><value>1</value><value>1</value></field>`), notAcceptable},
		{"texts without names", "romeo@example.org/x", "set", submit(formType + `<field type='fixed'/><field type='fixed'/><field var='jid_link'><value>yes</value></field>`), notAcceptable},
		{"field twice", "romeo@example.org/x", "set", submit(formType + `<field var='jid_link'><value>1</value></field><field var='jid_link'><value>1</value></field>`), badRequest},
	}
	f := newFixture(t, nil)
	for i, tt := range tests {
		f.advance(time.Minute) // stay below the rate limit
		id, lang := strconv.Itoa(i), []string{"", " xml:lang='de'"}[i%2]
		f.send(`<iq type='` + tt.typ + `' id='` + id + `' from='` + tt.from + `' to='webstatus.example.org'` + lang + `>` + tt.query + `</iq>`)
		typ := "result"
		if strings.HasPrefix(tt.want, "<error") {
			typ = "error"
		}
		want := `<iq type='` + typ + `' id='` + id + `' from='webstatus.example.org' to='` + tt.from + `'` + lang + `>` + tt.want + `</iq>`
		if got := f.next(); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.name, got, want)
		}
	}
	for _, silent := range []string{
		`<iq type='result' id='a' from='romeo@example.org/x' to='webstatus.example.org'/>`,
		`<iq type='error' id='a' from='romeo@example.org/x' to='webstatus.example.org'><error/></iq>`,
		`<message type='error' from='romeo@example.org/x' to='webstatus.example.org'><body>x</body></message>`,
		`<message type='groupchat' from='romeo@example.org/x' to='webstatus.example.org'><body>x</body></message>`,
		`<message from='romeo@example.org/x' to='webstatus.example.org'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>`,
		`<presence from='romeo@example.org/x' to='webstatus.example.org'/>`,
		`<presence type='unavailable' from='romeo@example.org/x' to='webstatus.example.org'/>`,
		`<presence type='subscribed' from='romeo@example.org' to='webstatus.example.org'/>`,
		`<presence type='nonsense' from='romeo@example.org' to='webstatus.example.org'/>`,
		`<unknown xmlns='x' from='romeo@example.org/x' to='webstatus.example.org'/>`,
		`<iq type='get' id='a' from='@' to='webstatus.example.org'><ping xmlns='urn:xmpp:ping'/></iq>`,
		`<iq type='get' id='a' from='romeo@example.org/x' to='other.example'><ping xmlns='urn:xmpp:ping'/></iq>`,
	} {
		f.send(silent)
		f.settled("romeo@example.org")
	}
	f.send(`<iq type='get' id='a' from='romeo@example.org/x' to='x@webstatus.example.org'><ping xmlns='urn:xmpp:ping'/></iq>`)
	f.want(`<iq type='error' id='a' from='x@webstatus.example.org' to='romeo@example.org/x'>` + notFound + `</iq>`)
	f.send(`<iq type='get' id='a' from='romeo@example.org/x' to='webstatus.example.org'><a>&b;</a></iq>`)
	f.want(`<iq type='error' id='a' from='webstatus.example.org' to='romeo@example.org/x'>` + badRequest + `</iq>`)
	f.send(`<iq type='get' id='a' from='romeo@example.org/x' to='webstatus.example.org'><a>` + strings.Repeat("x", maxStanza) + `</a></iq>`)
	f.want(`<iq type='error' id='a' from='webstatus.example.org' to='romeo@example.org/x'>` + badRequest + `</iq>`)
	for _, typ := range []string{"probe", "subscribe"} {
		f.send(`<presence type='` + typ + `' from='romeo@example.org/x' to='webstatus.example.org'/>`)
		f.want(`<presence type='unsubscribed' from='webstatus.example.org' to='romeo@example.org'></presence>`)
	}
}

// TestMalformedStream checks that the component starts over when the server sends tags that do not match or have no name.
func TestMalformedStream(t *testing.T) {
	for _, malformed := range []string{`<presence from='juliet@example.org/b' to='webstatus.example.org'><show>away</presence>`, "<\x00<<>>&&&"} {
		f := newFixture(t, nil)
		f.register("")
		f.send(malformed)
		f.accept()
		f.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
		if log := f.log.String(); !strings.Contains(log, "no link to the XMPP server: the server sent XML that is not well-formed") {
			t.Error(log)
		}
	}
}

func TestRegistration(t *testing.T) {
	f := newFixture(t, nil)
	ask := func() string {
		f.send(`<iq type='get' id='q' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'/></iq>`)
		return f.next()
	}
	formOf := func(registered, instructions string, values ...string) string {
		return `<iq type='result' id='q' from='webstatus.example.org' to='juliet@example.org/b'><query xmlns='jabber:iq:register'>` + registered +
			`<instructions>Use the enclosed form to register</instructions><x xmlns='jabber:x:data' type='form'>` + instructions +
			`<field var='FORM_TYPE' type='hidden'><value>jabber:iq:register</value></field>` +
			`<field var='show_status_msg' type='boolean' label='Show status msg'><value>` + values[0] + `</value></field>` +
			`<field var='show_full_jid' type='boolean' label='Show full JID'><value>` + values[1] + `</value></field>` +
			`<field var='show_nick' type='boolean' label='Show nickname'><value>0</value></field>` +
			`<field var='show_avatar' type='boolean' label='Show picture'><value>0</value></field>` +
			`<field var='show_activity' type='boolean' label='Show what you are doing'><value>0</value></field>` +
			`<field var='show_mood' type='boolean' label='Show your mood'><value>0</value></field>` +
			`<field var='show_tune' type='boolean' label='Show the music you listen to'><value>0</value></field>` +
			`<field var='show_last_seen' type='boolean' label='Show when you were last active (roughly)'><value>0</value></field>` +
			`<field var='show_resources' type='boolean' label='Show each connected client'><value>0</value></field>` +
			`<field var='jid_link' type='boolean' label='Also answer at the JID-based address'><value>` + values[2] + `</value></field>` +
			`<field var='search_engines' type='boolean' label='Let search engines list the page'><value>0</value></field></x></query></iq>`
	}
	const byJID = "https://status.example.org" + julietPage
	before := formOf("", "<instructions>Once registered, your web status URL will be: "+byJID+"</instructions>", "0", "0", "1")
	if got := ask(); got != before {
		t.Errorf("got  %s\nwant %s", got, before)
	}
	resp, _ := f.get(julietPage)
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("%s before registration", resp.Status)
	}

	f.register(`<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>jabber:iq:register</value></field>` +
		`<field var='show_status_msg'><value>true</value></field><field var='unheard of'/></x>`)
	token := "/status/" + Token{}.String()
	after := formOf("<registered></registered>", "<instructions>Your web status URL is: https://status.example.org"+token+
		"</instructions><instructions>This URL also works: "+byJID+"</instructions>", "1", "0", "1")
	if got := ask(); got != after {
		t.Errorf("got  %s\nwant %s", got, after)
	}
	for _, path := range []string{token, julietPage} {
		if resp, _ := f.get(path); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s after registration", path, resp.Status)
		}
	}

	// With a subscription, changing options sends no subscription request. Omitted fields keep their values.
	f.says("b", "", "<status>O Romeo</status>")
	change := func(fields string) {
		f.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'>` + fields + `</query></iq>`)
		f.want(`<iq type='result' id='r' from='webstatus.example.org' to='juliet@example.org/b'></iq>`)
		f.settled(juliet)
	}
	change(`<x xmlns='jabber:x:data' type='submit'><field var='show_full_jid'><value>1</value></field></x>`)
	if _, body := f.get(token + ".json"); !strings.Contains(body, "O Romeo") || !strings.Contains(body, juliet) {
		t.Errorf("not shown: %s", body)
	}
	change(`<x xmlns='jabber:x:data' type='cancel'/>`)
	change(`<show_status_msg>0</show_status_msg><jid_link>0</jid_link>`)
	if _, body := f.get(token + ".json"); strings.Contains(body, "O Romeo") || !strings.Contains(body, juliet) {
		t.Errorf("wrong options: %s", body)
	}
	if resp, _ := f.get(julietPage); resp.StatusCode != http.StatusNotFound {
		t.Errorf("%s after the JID-based URL was disabled", resp.Status)
	}

	f.send(`<iq type='set' id='x' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><remove/></query></iq>`)
	f.want(`<iq type='result' id='x' from='webstatus.example.org' to='juliet@example.org/b'></iq>`)
	if resp, _ := f.get(token); resp.StatusCode != http.StatusNotFound {
		t.Errorf("%s after removal", resp.Status)
	}
	f.wantLeave("webstatus.example.org")
	if _, err := f.db.GetUser(t.Context(), juliet); !errors.Is(err, ErrNotFound) {
		t.Errorf("in the database: %v", err)
	}
}

// TestLeftOutsiders checks that a user whose domain is no longer allowed can still change options and unregister.
func TestLeftOutsiders(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.stop()
	f.conf.allow = allowList{"elsewhere.example"}
	f.start()
	f.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
	f.send(`<iq type='set' id='x' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><remove/></query></iq>`)
	f.want(`<iq type='result' id='x' from='webstatus.example.org' to='juliet@example.org/b'></iq>`)
}

func TestSubscription(t *testing.T) { atEachAddress(t, testSubscription) }

func testSubscription(t *testing.T, f *fixture) {
	f.register("")
	f.says("b", "", "")
	f.wantState(Available)
	toUs := func(typ, resource string) {
		f.send(`<presence type='` + typ + `' from='juliet@example.org` + resource + `' to='webstatus.example.org'/>`)
	}
	fromUs := func(typ, to string) {
		f.t.Helper()
		if typ != "" {
			typ = " type='" + typ + "'"
		}
		from := "webstatus.example.org"
		if typ == "" || typ == " type='unavailable'" {
			from += "/web"
		}
		f.want(`<presence` + typ + ` from='` + from + `' to='` + to + `'>…`)
	}
	toUs("probe", "/b")
	fromUs("unsubscribed", juliet)
	toUs("subscribe", "/b")
	fromUs("subscribed", juliet)
	fromUs("", juliet)
	toUs("probe", "/b")
	fromUs("", juliet+"/b")
	toUs("unsubscribe", "")
	fromUs("unavailable", juliet)
	toUs("nonsense", "/b")
	if got := f.next(); !strings.Contains(got, "bad-request") {
		t.Error(got)
	}
	toUs("unsubscribed", "")
	f.want(`<message type='chat' from='webstatus.example.org' to='juliet@example.org'><body>I can no longer see…`)
	f.wantState(Unknown)
	f.presence("", "b", "webstatus.example.org") // directed presence, which is answered but not shown
	fromUs("", juliet+"/b")
	f.wantState(Unknown)

	// A user who registers again gets a new subscription request, also after a restart.
	f.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'/></iq>`)
	f.want(`<iq type='result' id='r' from='webstatus.example.org' to='juliet@example.org/b'></iq>`)
	fromUs("subscribe", juliet)
	toUs("unavailable", "") // Prosody's acknowledgment
	f.settled(juliet)
	f.wantState(Unknown)
	f.stream.Close()
	f.accept()
	fromUs("subscribe", juliet)
	toUs("subscribed", "")
	fromUs("probe", juliet)
}

func TestPresence(t *testing.T) { atEachAddress(t, presenceScenario) }

func presenceScenario(t *testing.T, f *fixture) {
	f.register("")
	f.says("b", "", "<show>away</show>")
	f.wantState(Away)
	f.says("phone", "", "<show>dnd</show><priority>5</priority>")
	f.wantState(DoNotDisturb)
	f.says("phone", "type='unavailable'", "")
	f.wantState(Away)
	f.says("phone", "type='error'", "<error/>")
	f.wantState(Away)
	f.send(`<presence type='unavailable' from='juliet@example.org' to='webstatus.example.org'/>`)
	f.settled(juliet)
	f.wantState(Unavailable)
	f.says("b", "", "")
	f.wantState(Available)
	f.send(`<presence type='error' from='juliet@example.org' to='webstatus.example.org'><error/></presence>`)
	f.settled(juliet)
	f.wantState(Unknown)
	f.says("b", "", "")
	f.wantState(Available)
}

// TestClientNamespace checks that stanzas in the jabber:client namespace, which jabberd2 sends, are accepted.
func TestClientNamespace(t *testing.T) {
	f := newFixture(t, nil)
	f.register("<show_status_msg>1</show_status_msg>")
	f.send(`<presence xmlns='jabber:client' from='juliet@example.org/b' to='webstatus.example.org'><show>away</show><status>lunch</status></presence>`)
	f.settled(juliet)
	f.wantState(Away)
	if _, page := f.get(julietPage); !strings.Contains(page, "lunch") {
		t.Errorf("the page does not show the message: %s", page)
	}
	f.send(`<iq xmlns='jabber:client' type='get' id='1' from='juliet@example.org/b' to='webstatus.example.org'><ping xmlns='urn:xmpp:ping'/></iq>`)
	f.want(`<iq type='result' id='1' from='webstatus.example.org' to='juliet@example.org/b'></iq>`)
}

// TestNewLink checks the page while the link is down and after it is restored.
func TestNewLink(t *testing.T) {
	f := newFixture(t, nil)
	f.register("<show_status_msg>1</show_status_msg>")
	f.says("gone", "", "<show>dnd</show><priority>5</priority>")
	f.says("stays", "", "<status>here</status>")
	f.wantState(DoNotDisturb)
	f.stream.Close()
	f.accept()
	f.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
	f.send(`<presence from='juliet@example.org/stays' to='webstatus.example.org'><status>here</status><delay xmlns='urn:xmpp:delay' stamp='2026-11-22T11:00:00Z'/></presence>`)
	eventually(t, "the other resource is gone", func() bool { _, body := f.get(julietPage + ".json"); return strings.Contains(body, `"available"`) })

	// After a restart, the last known presence is shown until the probe times out.
	eventually(t, "presence is written down", func() bool {
		u, err := f.db.GetUser(t.Context(), juliet)
		return err == nil && u.Status.State == Available && len(u.Status.Messages) == 1
	})
	f.stop()
	f.conf.syncTimes.probe = time.Hour
	f.start()
	f.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
	if _, body := f.get(julietPage + ".json"); !strings.Contains(body, `"message":"here"`) {
		t.Errorf("not the last known presence: %s", body)
	}
	f.stop()
	f.conf.syncTimes.probe = time.Millisecond
	f.start()
	eventually(t, "silence means offline", func() bool { _, body := f.get(julietPage + ".json"); return strings.Contains(body, `"unavailable"`) })
}

// TestLongOutage checks that the state is unknown after a long outage.
func TestLongOutage(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	eventually(t, "presence is written down", func() bool {
		u, err := f.db.GetUser(t.Context(), juliet)
		return err == nil && u.Status.State == Available
	})
	f.stop()
	f.advance(outageGrace)
	f.conf.syncTimes.probe = time.Hour
	f.start()
	f.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
	f.wantState(Unknown)
	f.says("b", "", "")
	f.wantState(Available)
}

// TestRemovedByOperator removes a user with another process while the component runs.
func TestRemovedByOperator(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.settled(juliet)
	other, err := openDatabase(t.Context(), f.dbPath, false)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.DeleteUser(t.Context(), juliet); err != nil {
		t.Fatal(err)
	}
	f.wantLeave("webstatus.example.org")
	if resp, _ := f.get(julietPage); resp.StatusCode != http.StatusNotFound {
		t.Error(resp.Status)
	}
	f.settled(juliet)
	eventually(t, "the withdrawal is noted", func() bool { w, err := other.Withdrawals(t.Context(), true); return err == nil && len(w) == 0 })
}

// TestWithdrawalWaits removes a user while the component is stopped.
func TestWithdrawalWaits(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.settled(juliet)
	f.stop()
	db, err := openDatabase(t.Context(), f.dbPath, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.DeleteUser(t.Context(), juliet), db.Close()); err != nil {
		t.Fatal(err)
	}
	f.start()
	f.want(`<presence type='unsubscribe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
}

// TestComponentShutdown checks that stopping the component sends unavailable presence to subscribers and closes the stream cleanly.
func TestComponentShutdown(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.send(`<presence type='subscribe' from='juliet@example.org' to='webstatus.example.org'/>`)
	f.want(`<presence type='subscribed' from='webstatus.example.org' to='juliet@example.org'></presence>`,
		`<presence from='webstatus.example.org/web' to='juliet@example.org'>…`)
	f.stop()
	f.want(`<presence type='unavailable' from='webstatus.example.org/web' to='juliet@example.org'></presence>`)
	if _, err := f.stream.framer.next(); !errors.Is(err, errStreamClosed) {
		t.Errorf("the stream ends with %v", err)
	}
}
