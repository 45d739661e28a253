package main

import (
	"encoding/base64"
	"errors"
	"regexp"
	"strings"
	"testing"
)

// FuzzForm checks that a submitted form either changes the options that it contains or is refused with a stanza error.
func FuzzForm(f *testing.F) {
	for _, seed := range []string{
		`<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>jabber:iq:register</value></field><field var='jid_link'><value>0</value></field></x>`,
		`<x xmlns='jabber:x:data' type='submit'><field/><field/></x>`, `<x xmlns='jabber:x:data' type='cancel'/>`, `<show_full_jid>1</show_full_jid>`,
		`<x xmlns='jabber:x:data' type='submit'><field var='show_full_jid'><value> true </value></field></x><key/>`, `<username/><password>x</password>`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		s, err := decodeStanza([]byte(`<iq from='a@b' to='c' type='set'><query xmlns='jabber:iq:register'>` + string(content) + `</query></iq>`))
		if err != nil || len(s.children) == 0 {
			return
		}
		values := defaultOptions()
		cancelled, err := readOptions(&s.children[0], allFields, &values)
		var refused *stanzaError
		if err != nil && !errors.As(err, &refused) {
			t.Errorf("%s: %v", content, err)
		}
		if cancelled && values != defaultOptions() {
			t.Errorf("%s: canceled, but has values %+v", content, values)
		}
		if err != nil {
			return
		}
		again := values
		if _, err := readOptions(&s.children[0], allFields, &again); err != nil || again != values {
			t.Errorf("%s: %+v the first time, %+v, %v the second", content, values, again, err)
		}
	})
}

// TestLinkAlphabet checks that links use URL-safe base64, because some chat clients cut off a link at characters of the standard
// alphabet.
func TestLinkAlphabet(t *testing.T) {
	const bare = "jürgen~o?~~~@example.org"
	if standard := base64.StdEncoding.EncodeToString([]byte(bare)); !strings.ContainsAny(standard, "/+=") {
		t.Fatalf("%s does not show the problem", standard)
	}
	f := newFixture(t, nil)
	form := f.ask(bare, "get", `<query xmlns='jabber:iq:register'/>`)
	link := regexp.MustCompile(`https://status\.example\.org/status/([^<]*)`).FindStringSubmatch(form)
	if link == nil || !regexp.MustCompile(`^[A-Za-z0-9_-]+$`).MatchString(link[1]) {
		t.Fatalf("%q in %s", link, form)
	}
	if got, ok := decodeJID(link[1]); !ok || got != bare {
		t.Errorf("the link is for %q", got)
	}
}
