package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestDecodeStanza(t *testing.T) {
	deep := strings.Repeat("<a>", 20000) + strings.Repeat("</a>", 20000)
	s, err := decodeStanza([]byte(`<iq from='A@b/c' to='d' id='1' type='get' xml:lang='de'><q xmlns='x'>on<b/>e</q>` + deep + `<q/></iq>`))
	if err != nil {
		t.Fatal(err)
	}
	if s.from.String() != "a@b/c" || s.to.bare != "d" || s.id != "1" || s.typ != "get" || s.lang("") != "de" {
		t.Errorf("%+v", s)
	}
	if q := s.child("x", "q"); q == nil || q.text != "one" {
		t.Errorf("q: %+v", q)
	}
	if len(s.children) != 3 || s.child(nsComponent, "q") == nil {
		t.Errorf("%d children", len(s.children))
	}
	s, err = decodeStanza([]byte(`<message xmlns='jabber:client' from='a@b' to='d'><body>1</body><x xmlns='y'><body xmlns='jabber:client'/></x></message>`))
	if err != nil || s.name.Space != nsComponent || s.childText(nsComponent, "body") != "1" || s.child("y", "x").child(nsComponent, "body") != nil {
		t.Errorf("with the namespace that jabberd2 uses: %v, %+v", err, s)
	}
	for in, want := range map[string]error{
		`<iq from='a@b' id='1' type='get'><a></b></iq>`: errNotWellFormed,
		`<iq from='a@b' id='1' type='get'>`:             errNotWellFormed,
		`<iq id='1' type='get'/>`:                       errNoSender,
		`<iq from='@' id='1' type='get'/>`:              errNoSender,
	} {
		if s, err := decodeStanza([]byte(in)); !errors.Is(err, want) || s.id != "1" || s.typ != "get" {
			t.Errorf("%s: %v, %+v", in, err, s)
		}
	}
}

// FuzzStanza checks that decoding a stanza never panics, and that the reply is well-formed XML.
func FuzzStanza(f *testing.F) {
	for _, seed := range []string{
		`<presence from='a@b/c' to='d'><show>away</show><priority>999</priority></presence>`,
		`<message from='a@b' to='d'><y xmlns='jabber:component:accept'><presence/></y></message>`,
		`<iq from='a@b' to='d' type='get' id='"&amp;&lt;' xml:lang='&#x9;'><query xmlns='jabber:iq:register'/></iq>`,
		`<presence from='a@b' to='d'><delay xmlns='urn:xmpp:delay' stamp='x'/></presence>`, `<a:b xmlns:a='c'/>`, `<?x?><a/>`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeStanza(data)
		parsePresence(s, noon)
		if err != nil {
			return
		}
		s.name = xml.Name{Local: "iq"}
		answer := s.reply("error", badRequest()).encode()
		if err := xml.Unmarshal(answer, new(struct{})); err != nil {
			t.Errorf("reply to %q is %q: %v", data, answer, err)
		}
	})
}

// FuzzStreamHeader checks that any header that the framer finds is parsed or refused, and that one with an ID is a stream.
func FuzzStreamHeader(f *testing.F) {
	for _, seed := range []string{
		`<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:component:accept' from='d' id='x&amp;y'>`,
		`<stream:stream id='1' id='2'>`, `<stream>`, `<a:stream xml:id='1'>`, `</stream:stream>`, `<!DOCTYPE a><stream>`, `HTTP/1.1 400 Bad Request`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		header, err := newFramer(bytes.NewReader(data), maxStanza).header()
		if err != nil {
			return
		}
		if id, err := parseStreamHeader(header); id != "" && (err != nil || !bytes.Contains(header, []byte("stream"))) {
			t.Errorf("%q has the ID %q: %v", header, id, err)
		}
	})
}

// FuzzPresence checks that the presence in a stanza stays within the bounds of RFC 6121 §4.7, of our memory and of the clock.
func FuzzPresence(f *testing.F) {
	for _, seed := range []string{
		`<show>chat</show><status>hi</status><status xml:lang='de'>hallo</status><priority>-128</priority>`, `<show>x</show><priority>1e3</priority>`,
		`<idle xmlns='urn:xmpp:idle:1' since='2999-01-01T00:00:00Z'/>`, `<delay xmlns='urn:xmpp:delay' stamp='2026-11-22T11:42:17.123+14:00'/>`,
		`<x xmlns='jabber:x:delay' stamp='20261122T11:42:17'/>`, `<status>&#x202e;&#x2066;</status>`, `<c xmlns='http://jabber.org/protocol/caps' node='x'/>`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, content string) {
		s, err := decodeStanza([]byte(`<presence from='a@b/c' to='d'>` + content + `</presence>`))
		if err != nil {
			return
		}
		p := parsePresence(s, noon)
		if p.Since.After(noon) || p.Idle.After(noon) {
			t.Errorf("%q: since %s, idle since %s", content, p.Since, p.Idle)
		}
		if !p.State.Online() {
			t.Errorf("%q: %s", content, p.State)
		}
		all := Resources{}.Put(p).Fit(maxPresence)
		if all.size() > maxPresence {
			t.Errorf("%q takes %d bytes", content, all.size())
		}
		for _, m := range p.Messages {
			if !utf8.ValidString(m.Body) || strings.ContainsAny(m.Body, "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069") {
				t.Errorf("%q: message %q", content, m.Body)
			}
		}
	})
}
