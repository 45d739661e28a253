package main

import (
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A node is an XML element. The tests parse XML with the standard library, independently of the framer and decoder under test.
type node struct {
	XMLName  xml.Name
	Attrs    []xml.Attr `xml:",any,attr"`
	Text     string     `xml:",chardata"`
	Children []node     `xml:",any"`
	Inside   string     `xml:",innerxml"`
}

// attr returns an attribute's value, or "" if there is none.
func (n *node) attr(name string) string {
	for _, a := range n.Attrs {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// find returns the first element with a name at any depth, or an empty element.
func (n *node) find(name string) *node {
	for i := range n.Children {
		if c := &n.Children[i]; c.XMLName.Local == name {
			return c
		} else if found := c.find(name); found.XMLName.Local != "" {
			return found
		}
	}
	return &node{}
}

// has reports whether there is an element with a name at any depth.
func (n *node) has(name string) bool { return n.find(name).XMLName.Local != "" }

// nth returns the child with an index among those with a name, or an empty element.
func (n *node) nth(name string, i int) *node {
	for c := range n.Children {
		if n.Children[c].XMLName.Local != name {
			continue
		}
		if i--; i < 0 {
			return &n.Children[c]
		}
	}
	return &node{}
}

// values returns an attribute of all children with a name.
func (n *node) values(child, attribute string) (values []string) {
	for i := range n.Children {
		if n.Children[i].XMLName.Local == child {
			values = append(values, n.Children[i].attr(attribute))
		}
	}
	return values
}

func (n *node) String() string {
	return fmt.Sprintf("<%s from=%q type=%q id=%q>%s", n.XMLName.Local, n.attr("from"), n.attr("type"), n.attr("id"), n.Inside)
}

// presence returns a predicate for the component's own presence of a type. Subscriptions come from a bare JID, the others from the
// full JID of the component's presence.
func (c *client) presence(typ string) func(*node) bool {
	from := c.service
	if typ == "" || typ == "unavailable" {
		from += "/web"
	}
	return func(n *node) bool {
		return n.XMLName.Local == "presence" && n.attr("from") == from && n.attr("type") == typ
	}
}

// A client is a small XMPP client (RFC 6120): it logs in over plain TCP and sends what the test passes to it.
type client struct {
	conn     net.Conn
	decoder  *xml.Decoder
	bare     string
	resource string
	service  string // the component's address that the client uses

	mu    sync.Mutex
	got   []*node
	ended error // why the stream ended
}

// connect opens a connection for a user who is not logged in yet.
func (s *server) connect(t testing.TB, user string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(s.c2s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(patience))
	c := &client{conn: conn, bare: user + "@localhost", service: testDomain}
	c.openStream(t)
	return c
}

// register creates an account (XEP-0077).
func (s *server) register(t testing.TB, user string) {
	t.Helper()
	c := s.connect(t, user)
	c.send(t, `<iq type='set' id='register'><query xmlns='jabber:iq:register'><username>%s</username><password>pass-%[1]s</password></query></iq>`, user)
	if answer := c.expect(t, "iq"); answer.attr("type") != "result" {
		t.Fatalf("no account %s: %s", user, answer)
	}
	c.conn.Close()
}

// login connects a resource of a user.
func (s *server) login(t testing.TB, user, resource string) *client {
	t.Helper()
	c := s.authenticate(t, user)
	c.resource = resource
	features := c.openStream(t)
	c.send(t, `<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>%s</resource></bind></iq>`, resource)
	if bound := c.expect(t, "iq"); bound.find("jid").Text != c.bare+"/"+resource {
		t.Fatalf("binding %s: %s", resource, bound)
	}
	if session := features.find("session"); session.XMLName.Local != "" && !session.has("optional") { // RFC 3921 §3, jabberd2
		c.send(t, `<iq type='set' id='session'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>`)
		if answer := c.expect(t, "iq"); answer.attr("type") != "result" {
			t.Fatalf("no session: %s", answer)
		}
	}
	c.conn.SetReadDeadline(time.Time{})
	go c.read()
	c.request(t, "get", "", `<query xmlns='jabber:iq:roster'/>`) // without it, the server does not send roster pushes
	return c
}

// authenticate connects as a user. jabberd2 refuses a login now and then with internal-server-error, which is tried again.
func (s *server) authenticate(t testing.TB, user string) *client {
	t.Helper()
	for range 5 {
		c := s.connect(t, user)
		c.send(t, `<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>%s</auth>`,
			base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00pass-"+user)))
		n, err := nextNode(c.decoder)
		if err == nil && n.XMLName.Local == "success" {
			return c
		}
		c.conn.Close()
		if err != nil || !n.has("internal-server-error") {
			t.Fatalf("logging %s in: %s, %v", user, n, err)
		}
	}
	t.Fatalf("%s cannot log in", user)
	return nil
}

// openStream opens a stream, initially or after SASL, and returns its features.
func (c *client) openStream(t testing.TB) *node {
	t.Helper()
	c.send(t, `<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>`)
	c.decoder = xml.NewDecoder(c.conn)
	if _, err := nextStart(c.decoder); err != nil {
		t.Fatalf("opening a stream: %v", err)
	}
	return c.expect(t, "features")
}

// expect reads the next element, which must have the given name.
func (c *client) expect(t testing.TB, name string) *node {
	t.Helper()
	n, err := nextNode(c.decoder)
	if err != nil || n.XMLName.Local != name {
		t.Fatalf("logging %s in: %s, %v; want <%s>", c.bare, n, err, name)
	}
	return n
}

func nextStart(d *xml.Decoder) (xml.StartElement, error) {
	for {
		token, err := d.Token()
		if err != nil {
			return xml.StartElement{}, err
		}
		if start, ok := token.(xml.StartElement); ok {
			return start, nil
		}
	}
}

func nextNode(d *xml.Decoder) (*node, error) {
	n := &node{}
	start, err := nextStart(d)
	if err == nil {
		err = d.DecodeElement(n, &start)
	}
	return n, err
}

// read collects all received elements.
func (c *client) read() {
	for {
		n, err := nextNode(c.decoder)
		c.mu.Lock()
		if c.ended = err; err == nil {
			c.got = append(c.got, n)
		}
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// send writes raw XML.
func (c *client) send(t testing.TB, format string, args ...any) {
	t.Helper()
	c.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(c.conn, format, args...); err != nil {
		t.Fatalf("%s cannot send: %v", c.bare, err)
	}
}

// wait returns the first wanted stanza, including those already received.
func (c *client) wait(t testing.TB, what string, wanted func(*node) bool) (found *node) {
	t.Helper()
	defer func() {
		if found == nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			t.Logf("%s has received, until %v:\n%v", c.bare, c.ended, c.got)
		}
	}()
	eventually(t, c.bare+" has received "+what, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, n := range c.got {
			if wanted(n) {
				found = n
				return true
			}
		}
		return false
	})
	return found
}

// waitPresence waits for the component's own presence of each type.
func (c *client) waitPresence(t testing.TB, types ...string) {
	t.Helper()
	for _, typ := range types {
		c.wait(t, "presence "+typ, c.presence(typ))
	}
}

// forget drops all received stanzas.
func (c *client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = nil
}

// requestIDs counts the requests of all clients: a client that logs in again gets answers to its last session.
var requestIDs atomic.Int64

// ask sends a request and returns its id.
func (c *client) ask(t testing.TB, typ, to, payload string) (id string) {
	t.Helper()
	id = fmt.Sprintf("%s-%d", c.resource, requestIDs.Add(1))
	if to != "" {
		to = " to='" + to + "'"
	}
	c.send(t, `<iq type='%s' id='%s'%s>%s</iq>`, typ, id, to, payload)
	return id
}

// answer waits for the response to a request.
func (c *client) answer(t testing.TB, id string) *node {
	t.Helper()
	return c.wait(t, "an answer to "+id, func(n *node) bool {
		return n.XMLName.Local == "iq" && n.attr("id") == id && (n.attr("type") == "result" || n.attr("type") == "error")
	})
}

// request sends a request and returns the response, which must be a result.
func (c *client) request(t testing.TB, typ, to, payload string) *node {
	t.Helper()
	answer := c.answer(t, c.ask(t, typ, to, payload))
	if answer.attr("type") != "result" {
		t.Fatalf("%s asked %s and got %s", c.bare, payload, answer)
	}
	return answer
}

// cut closes the connection without closing the stream.
func (c *client) cut() {
	c.conn.(*net.TCPConn).SetLinger(0)
	c.conn.Close()
}

// logout closes the stream cleanly.
func (c *client) logout(t testing.TB) {
	t.Helper()
	c.send(t, `<presence type='unavailable'/></stream:stream>`)
	c.conn.Close()
}

// submit registers or changes options, given as field=value.
func (c *client) submit(t testing.TB, fields ...string) {
	t.Helper()
	var form strings.Builder
	for _, f := range fields {
		name, value, _ := strings.Cut(f, "=")
		fmt.Fprintf(&form, `<field var='%s' type='boolean'><value>%s</value></field>`, name, value)
	}
	answer := c.request(t, "set", c.service, `<query xmlns='jabber:iq:register'><x xmlns='jabber:x:data' type='submit'>`+
		`<field var='FORM_TYPE' type='hidden'><value>jabber:iq:register</value></field>`+form.String()+`</x></query>`)
	if len(answer.Children) > 0 {
		t.Errorf("the result of submitting %q is not empty: %s", fields, answer)
	}
}

// publishRich publishes an activity, a mood and a tune (XEP-0108, XEP-0107, XEP-0118).
func (c *client) publishRich(t testing.TB) {
	t.Helper()
	c.publish(t, `<activity xmlns='http://jabber.org/protocol/activity'><relaxing><reading/></relaxing><text>&lt;b>sonnets&lt;/b></text></activity>`)
	c.publish(t, `<mood xmlns='http://jabber.org/protocol/mood'><in_love/></mood>`)
	c.publish(t, `<tune xmlns='http://jabber.org/protocol/tune'><artist>Prokofiev</artist><title>Dance of the Knights</title></tune>`)
}

// publish publishes a payload at the PEP node with the name of its namespace (XEP-0163 §3).
func (c *client) publish(t testing.TB, payload string) {
	t.Helper()
	node := strings.Split(payload, "'")[1]
	c.request(t, "set", "", `<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='`+node+`'><item id='current'>`+payload+`</item></publish></pubsub>`)
}

// join registers and accepts the subscription request.
func (c *client) join(t testing.TB, fields ...string) {
	t.Helper()
	c.dropContact(t)
	c.submit(t, fields...)
	c.accept(t)
}

// accept waits for the subscription request, approves it and requests the same in return, as clients do.
func (c *client) accept(t testing.TB) {
	t.Helper()
	c.waitPresence(t, "subscribe")
	c.send(t, `<presence to='%s' type='subscribed'/><presence to='%s' type='subscribe'/>`, c.service, c.service)
	c.waitPresence(t, "subscribed")
}

// revoke cancels the subscription that accept approved.
func (c *client) revoke(t testing.TB) {
	t.Helper()
	c.send(t, `<presence to='%s' type='unsubscribed'/>`, c.service)
}

// dropContact removes both addresses of the component from the roster, where another test may have left them.
func (c *client) dropContact(t testing.TB) {
	t.Helper()
	for _, contact := range []string{testDomain, "bot@" + testDomain} {
		c.answer(t, c.ask(t, "set", "", `<query xmlns='jabber:iq:roster'><item jid='`+contact+`' subscription='remove'/></query>`)) // an error if it is not in the roster
	}
	c.forget()
}
