package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
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
		options, cancelled, err := readOptions(&s.children[0], allFields)
		var refused *stanzaError
		if err != nil && !errors.As(err, &refused) {
			t.Errorf("%s: %v", content, err)
		}
		if (cancelled || err != nil) && options != (optionChange{}) {
			t.Errorf("%s: canceled or refused, but changes %+v", content, options)
		}
		if options.values&^options.changed != 0 {
			t.Errorf("%s: switches on what it does not change: %+v", content, options)
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

// TestRegistrationQuota checks that the people of a domain that only "*" admits can fill neither the disk nor the log.
func TestRegistrationQuota(t *testing.T) {
	f := newFixture(t, func(c *componentConfig) { c.allow = allowList{"*", "example.org"} })
	register := func(who string) (registered bool) {
		f.send(`<iq type='set' id='r' from='` + who + `/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'/></iq>`)
		answer := f.next()
		if strings.HasPrefix(answer, `<iq type='result' id='r' `) {
			f.next() // contact request
			f.next() // welcome
			return true
		}
		if !strings.Contains(answer, "<error code='500' type='wait'><resource-constraint") {
			t.Errorf("%s: %s", who, answer)
		}
		return false
	}
	for i := range registrationsPerHour {
		if !register(fmt.Sprintf("u%d@h%d.hostile.example", i, i)) { // subdomains count as one domain
			t.Fatalf("refused after %d registrations", i)
		}
	}
	for i := range 3 {
		if register(fmt.Sprintf("v%d@hostile.example", i)) {
			t.Error("registered beyond the limit")
		}
	}
	f.send(`<message type='chat' from='w@hostile.example/b' to='webstatus.example.org'><body>register</body></message>`)
	f.want(`<message type='chat' from='webstatus.example.org' to='w@hostile.example/b'><body>That did not work.…`)
	if log := f.log.String(); strings.Count(log, "rejecting registrations: too many users of a domain") != 1 || strings.Contains(log, "level=ERROR") {
		t.Error(log)
	}
	for i := range registrationsPerHour + 1 {
		if !register(fmt.Sprintf("u%d@example.org", i)) {
			t.Fatalf("a person of our own domain is refused after %d registrations", i)
		}
	}
	if !register("u@elsewhere.example") {
		t.Error("a person of another domain is refused")
	}
	f.advance(2 * time.Hour / registrationsPerHour)
	if !register("v1@hostile.example") {
		t.Error("still refused later")
	}
}

// TestMaxUsers checks the limit of all users, also under concurrent registrations.
func TestMaxUsers(t *testing.T) {
	const most = 10
	f := newFixture(t, func(c *componentConfig) { c.maxUsers = most })
	for i := range 3 * most {
		f.send(fmt.Sprintf(`<iq type='set' id='r' from='u%d@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'/></iq>`, i))
	}
	registered, refused := 0, 0
	for registered+refused < 3*most {
		switch answer := f.next(); {
		case strings.HasPrefix(answer, `<iq type='result' id='r' `):
			registered++
		case strings.Contains(answer, "<resource-constraint"):
			refused++
		}
	}
	if n := f.comp.board.count(); n > most || n != registered {
		t.Errorf("%d users, %d registrations confirmed", n, registered)
	}
	if !strings.Contains(f.log.String(), "the limit of --max-users is reached") {
		t.Error(f.log)
	}
}
