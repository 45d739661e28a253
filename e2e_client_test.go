package main

import (
	"encoding/base64"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A client is a small XMPP client (RFC 6120): it logs in over plain TCP and says what it is told to.
type client struct {
	conn   net.Conn
	framer *framer
	bare   string
	user   string
	mu     sync.Mutex
	got    []string // stanzas, as XML with single quotes
	ids    int
}

// login connects a resource of a user.
func (s *server) login(t *testing.T, user, resource string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(s.c2s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(patience))
	c := &client{conn: conn, user: user, bare: user + "@localhost", framer: newFramer(conn, maxStanza)}
	open := `<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>`
	expect := func(what string) {
		t.Helper()
		f, err := c.framer.next()
		if err != nil || !strings.Contains(string(f.data), what) {
			t.Fatalf("logging in: %s, %v; want %s", f.data, err, what)
		}
	}
	c.send(t, "%s", open)
	if _, err := c.framer.header(); err != nil {
		t.Fatal(err)
	}
	expect("features")
	c.send(t, `<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>%s</auth>`,
		base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00pass-"+user)))
	expect("success")
	c.framer = newFramer(conn, maxStanza)
	c.send(t, "%s", open)
	if _, err := c.framer.header(); err != nil {
		t.Fatal(err)
	}
	expect("features")
	c.send(t, `<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>%s</resource></bind></iq>`, resource)
	expect("<jid>")
	conn.SetReadDeadline(time.Time{})
	go c.read()
	c.iq(t, "get", "", `<query xmlns='jabber:iq:roster'/>`) // without it the server tells nothing of contacts that go
	return c
}

func (c *client) read() {
	for {
		f, err := c.framer.next()
		if err != nil {
			return
		}
		c.mu.Lock()
		c.got = append(c.got, strings.ReplaceAll(string(f.data), `"`, "'"))
		c.mu.Unlock()
	}
}

func (c *client) send(t *testing.T, format string, args ...any) {
	t.Helper()
	c.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(c.conn, format, args...); err != nil {
		t.Fatal(err)
	}
}

// wait returns the first stanza received so far, or from now on, that has all of the words.
func (c *client) wait(t *testing.T, words ...string) (stanza string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			c.mu.Lock()
			defer c.mu.Unlock()
			t.Logf("%s has received:\n%s", c.user, strings.Join(c.got, "\n"))
		}
	}()
	eventually(t, fmt.Sprintf("%s has received %q", c.user, words), func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
	stanzas:
		for _, s := range c.got {
			for _, w := range words {
				if !strings.Contains(s, w) {
					continue stanzas
				}
			}
			stanza = s
			return true
		}
		return false
	})
	return stanza
}

// forget drops what was received.
func (c *client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = nil
}

// iq asks something and returns the answer.
func (c *client) iq(t *testing.T, typ, to, payload string) string {
	t.Helper()
	c.ids++
	id := fmt.Sprintf("id%d-%s", c.ids, c.user)
	if to != "" {
		to = " to='" + to + "'"
	}
	c.send(t, `<iq type='%s' id='%s'%s>%s</iq>`, typ, id, to, payload)
	return c.wait(t, "<iq", id)
}

// cut breaks the connection without a word.
func (c *client) cut() {
	c.conn.(*net.TCPConn).SetLinger(0)
	c.conn.Close()
}

// logout ends the stream in order.
func (c *client) logout(t *testing.T) {
	t.Helper()
	c.send(t, `<presence type='unavailable'/></stream:stream>`)
	c.conn.Close()
}

// submit registers, or changes options, given as field=value.
func (c *client) submit(t *testing.T, fields ...string) {
	t.Helper()
	var form strings.Builder
	for _, f := range fields {
		name, value, _ := strings.Cut(f, "=")
		fmt.Fprintf(&form, `<field var='%s' type='boolean'><value>%s</value></field>`, name, value)
	}
	answer := c.iq(t, "set", testDomain, `<query xmlns='jabber:iq:register'><x xmlns='jabber:x:data' type='submit'>`+
		`<field var='FORM_TYPE' type='hidden'><value>jabber:iq:register</value></field>`+form.String()+`</x></query>`)
	if !strings.Contains(answer, `type='result'`) {
		t.Fatalf("submitting %q: %s", fields, answer)
	}
}

// join registers and accepts the contact request.
func (c *client) join(t *testing.T, fields ...string) {
	t.Helper()
	c.dropContact(t)
	c.submit(t, fields...)
	c.accept(t)
}

// accept waits for the contact request, grants it and asks for the same, as clients do.
func (c *client) accept(t *testing.T) {
	t.Helper()
	c.wait(t, "<presence", testDomain, "type='subscribe'")
	c.send(t, `<presence to='%s' type='subscribed'/><presence to='%s' type='subscribe'/>`, testDomain, testDomain)
	c.wait(t, "<presence", testDomain, "type='subscribed'")
}

// dropContact removes the component from the roster, where another test may have left it.
func (c *client) dropContact(t *testing.T) {
	t.Helper()
	c.iq(t, "set", "", `<query xmlns='jabber:iq:roster'><item jid='`+testDomain+`' subscription='remove'/></query>`)
	c.forget()
}
