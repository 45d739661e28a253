package main

import (
	"encoding/xml"
	"errors"
	"strings"
	"testing"
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
