package main

import (
	"context"
	"strings"
	"testing"
	"time"
)

// privilegeIn is what mod_privilege sends in a version of the namespace.
func privilegeIn(namespace string) string {
	return `<message from='example.org' to='webstatus.example.org'><privilege xmlns='` + namespace + `'><perm access='roster' type='set'/><perm access='presence' type='managed_entity'/></privilege></message>`
}

const julietReplayed = `<presence from='juliet@example.org/b' to='webstatus.example.org'><show>dnd</show><delay xmlns='urn:xmpp:delay' stamp='2026-11-22T11:00:00Z'/></presence>`

// softwareAsked is the question for the software of example.org.
const softwareAsked = `<iq type='get' id='software' from='webstatus.example.org' to='example.org'><query xmlns='jabber:iq:version'></query></iq>`

// isSoftware answers softwareAsked.
func (f *fixture) isSoftware(name string) {
	f.t.Helper()
	f.answerSoftware(name)
	f.settled("example.org")
}

// answerSoftware is like isSoftware, but does not wait: where Juliet is probed then, the probe may come first.
func (f *fixture) answerSoftware(name string) {
	f.t.Helper()
	f.want(softwareAsked)
	f.send(`<iq type='result' id='software' from='example.org' to='webstatus.example.org'><query xmlns='jabber:iq:version'><name>` + name + `</name></query></iq>`)
}

// relink cuts the link. Over the next one, Prosody sends a greeting, in which it lets us see the presence of everybody.
func (f *fixture) relink(greeting string) {
	f.t.Helper()
	f.stream.Close()
	f.greeting = greeting
	f.accept()
	if greeting != "" {
		f.isSoftware("Prosody")
	}
	f.settled(juliet)
}

// registerPrivileged registers Juliet, who gets no contact request.
func (f *fixture) registerPrivileged() {
	f.t.Helper()
	f.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'/></iq>`)
	f.want(`<iq type='result' id='r' from='webstatus.example.org' to='juliet@example.org/b'></iq>`,
		`<message type='chat' from='webstatus.example.org' to='juliet@example.org'><body>You are registered. You do not have to accept a contact request.…`)
}

// TestPrivilege registers somebody whose server lets us see the presence of everybody: there is no contact request and no probe.
func TestPrivilege(t *testing.T) {
	for _, namespace := range []string{"urn:xmpp:privilege:1", "urn:xmpp:privilege:2"} {
		t.Run(namespace, func(t *testing.T) {
			f := newFixture(t, nil)
			f.relink(privilegeIn(namespace) + julietReplayed) // unread
			f.registerPrivileged()
			f.wantState(Unknown)
			f.says("b", "", "<show>away</show>")
			f.wantState(Away)
			f.says("b", "type='unavailable'", "")
			f.wantState(Unavailable)
			f.says("b", "", "")

			// Over a new link, what is replayed counts, and who is not is offline.
			f.relink(privilegeIn(namespace) + julietReplayed)
			f.wantState(DoNotDisturb)
			f.relink(privilegeIn(namespace))
			eventually(t, "she is offline", func() bool { return f.status().State == Unavailable })

			f.says("b", "", "<show>chat</show>")
			f.stop()
			f.greeting = privilegeIn(namespace)
			f.start()
			f.wantState(Chat) // as stored, until the host has answered
			f.isSoftware("Prosody")
			eventually(t, "she is offline", func() bool { return f.status().State == Unavailable })
			if answer := f.write("register"); !strings.Contains(answer, "already registered") {
				t.Error(answer)
			}
			f.settled(juliet) // no contact request
		})
	}
}

// TestPrivilegeEnds has the operator take the privilege away: the presence is unknown until the user accepts a contact request.
func TestPrivilegeEnds(t *testing.T) {
	f := newFixture(t, nil)
	f.relink(privilegeIn(nsPrivilege))
	f.registerPrivileged()
	f.says("b", "", "<show>away</show>")
	f.stream.Close()
	f.greeting = ""
	f.accept()
	f.want(`<presence type='subscribe' from='webstatus.example.org' to='juliet@example.org'><status>Accept this request so that your page can show whether you are available.…`)
	f.wantState(Unknown)
	f.presence("subscribed", "", atDomain)
	f.replays("b", "<show>xa</show>")
	f.wantState(ExtendedAway)
	f.stream.Close()
	f.accept()
	f.replays("b", "<show>xa</show>")
}

// TestPrivilegeBegins has the operator give us the privilege: whoever has not answered the contact request need not do so.
func TestPrivilegeBegins(t *testing.T) {
	f := newFixture(t, nil)
	f.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'/></iq>`)
	f.want(`<iq type='result' …`, `<presence type='subscribe' …`, `<message …`)
	f.relink(privilegeIn(nsPrivilege))
	eventually(t, "the privilege is used", func() (privileged bool) {
		f.inspect(func(e *entry) { privileged = e.user.Privileged })
		return privileged
	})
	f.says("b", "", "<show>away</show>")
	f.wantState(Away)
	f.presence("subscribed", "", atDomain) // all the same
	f.replays("b", "<show>away</show>")
	f.wantState(Away)
}

// TestPrivilegeNotRelied does not rely on servers that do not send all presence, or may not do so.
func TestPrivilegeNotRelied(t *testing.T) {
	asked := func(f *fixture) {
		t.Helper()
		f.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'/></iq>`)
		f.want(`<iq type='result' …`, `<presence type='subscribe' …`, `<message …`)
	}
	t.Run("ejabberd", func(t *testing.T) {
		f := newFixture(t, nil)
		f.stream.Close()
		f.greeting = privilegeIn(nsPrivilegeOld)
		f.accept()
		f.isSoftware("ejabberd")
		asked(f)
	})
	t.Run("software hidden", func(t *testing.T) {
		f := newFixture(t, nil)
		f.stream.Close()
		f.greeting = privilegeIn(nsPrivilege)
		f.accept()
		f.want(softwareAsked)
		f.send(`<iq type='error' id='software' from='example.org' to='webstatus.example.org'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`)
		f.settled("example.org")
		asked(f)
	})
	t.Run("no answer", func(t *testing.T) {
		f := newFixture(t, func(c *componentConfig) { c.linkTimes.pong = 20 * time.Millisecond })
		f.register("")
		f.stream.Close()
		f.greeting = privilegeIn(nsPrivilege)
		f.accept()
		f.want(softwareAsked, `<presence type='probe' …`)
	})
	t.Run("no presence", func(t *testing.T) {
		f := newFixture(t, nil)
		f.stream.Close()
		f.greeting = strings.Replace(privilegeIn(nsPrivilege), "managed_entity", "none", 1)
		f.accept()
		asked(f)
	})
	for name, from := range map[string]string{"user": "romeo@example.org", "host too late": "example.org"} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			claim := strings.Replace(privilegeIn(nsPrivilege), "example.org", from, 1)
			if name == "user" {
				f.stream.Close()
				f.greeting = claim
				f.accept()
			} else {
				eventually(t, "the ping is handled", func() bool { _, known := f.comp.privileges.coverOver(1, juliet); return known })
				f.send(claim)
			}
			asked(f)
		})
	}
}

// TestPrivilegeWithContact has presence arrive twice, by the subscription of a contact and by the privilege. It counts once, and the user who
// ends the subscription is not seen by the privilege either.
func TestPrivilegeWithContact(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.stream.Close()
	f.greeting = privilegeIn(nsPrivilege)
	f.accept()
	f.answerSoftware("Prosody")
	f.replays("b", "<show>dnd</show>")
	f.says("b", "", "<show>away</show>")
	f.says("b", "", "<show>away</show>")
	f.wantState(Away)
	f.inspect(func(e *entry) {
		if len(e.resources) != 1 {
			t.Error(e.resources)
		}
	})
	for range 3 {
		f.says("b", "type='unavailable'", "")
		f.wantState(Unavailable)
	}
	f.presence("unsubscribed", "", atDomain)
	f.want(`<message …`)
	f.says("b", "", "<show>away</show>")
	f.wantState(Unknown)
	f.relink(privilegeIn(nsPrivilege) + julietReplayed)
	f.wantState(Unknown)
	if answer := f.write("register"); !strings.Contains(answer, "already registered") {
		t.Error(answer)
	}
	f.settled(juliet) // no contact request
	f.says("b", "", "<show>away</show>")
	f.wantState(Away)
}

// TestPrivilegeIsNotEnough switches on what only contacts may see: there is a contact request, whose refusal leaves the presence.
func TestPrivilegeIsNotEnough(t *testing.T) {
	f := newFixture(t, nil)
	f.relink(privilegeIn(nsPrivilege))
	f.registerPrivileged()
	f.says("b", "", "<show>away</show>")
	const request = `<presence type='subscribe' from='webstatus.example.org' to='juliet@example.org'><status>Accept this request so that your page can also show…`
	if answer := f.write("show mood on"); !strings.Contains(answer, "mood") {
		t.Error(answer)
	}
	f.want(request, `<iq type='get' id='mood' …`)
	f.presence("unsubscribed", "", atDomain)
	f.settled(juliet)
	f.wantState(Away)
	if answer := f.write("register"); !strings.Contains(answer, "already registered") {
		t.Error(answer)
	}
	f.want(request, `<iq type='get' id='mood' …`)
	f.presence("subscribed", "", atDomain)
	for range 2 {
		if got := f.next(); !strings.HasPrefix(got, "<presence type='probe'") && !strings.HasPrefix(got, "<iq type='get' id='mood'") {
			t.Error(got)
		}
	}
	f.presence("unsubscribed", "", atDomain) // takes back what was granted
	f.want(`<message …`)
	f.wantState(Unknown)
}

// TestPresenceOfStrangers sends the presence of people who have not registered: nothing of it is kept.
func TestPresenceOfStrangers(t *testing.T) {
	f := newFixture(t, nil)
	f.relink(privilegeIn(nsPrivilege))
	f.registerPrivileged()
	f.send(`<presence from='romeo@example.org/orchard' to='webstatus.example.org'><show>away</show></presence>`)
	f.settled("romeo@example.org")
	if f.comp.board.byJID("romeo@example.org") != nil || strings.Contains(f.log.String(), "orchard") {
		t.Error("the presence of a stranger was read")
	}
	f.stop()
	for u, err := range f.reopened().Users(context.Background(), userFilter{}) {
		if err != nil || u.JID != juliet {
			t.Error(u, err)
		}
	}
}

// reopened opens the database of a component that has been stopped.
func (f *fixture) reopened() *database {
	f.t.Helper()
	db, err := openDatabase(f.t.Context(), f.dbPath, false)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { db.Close() })
	return db
}
