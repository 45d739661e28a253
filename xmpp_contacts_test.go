package main

import (
	"context"
	"strings"
	"testing"
	"time"
)

// TestCountIsNotBroadcast checks that a registration, which changes the user count in the component's presence, sends no presence to
// the other users.
func TestCountIsNotBroadcast(t *testing.T) {
	f := newFixture(t, func(c *componentConfig) { c.syncTimes.linkSeen = time.Millisecond })
	f.register("")
	f.says("b", "", "")
	f.send(`<presence type='subscribe' from='juliet@example.org' to='webstatus.example.org'/>`)
	f.want(`<presence type='subscribed' from='webstatus.example.org' to='juliet@example.org'></presence>`,
		`<presence from='webstatus.example.org' to='juliet@example.org'><status>People who publish their presence here: 1</status>…`)
	if _, err := f.comp.registry.Register(t.Context(), "romeo@example.org", 0, ""); err != nil {
		t.Fatal(err)
	}
	f.advance(time.Hour)
	eventually(t, "the maintenance has run", func() bool { seen, err := f.db.LinkSeen(t.Context()); return err == nil && seen.Equal(f.now()) })
	f.settled(juliet)
	f.send(`<presence type='probe' from='juliet@example.org/b' to='webstatus.example.org'/>`)
	f.want(`<presence from='webstatus.example.org' to='juliet@example.org/b'><status>People who publish their presence here: 2</status>…`)
}

// TestName checks the name under which clients list us.
func TestName(t *testing.T) {
	f := newFixture(t, nil)
	const nick = `<nick xmlns='http://jabber.org/protocol/nick'>Web presence</nick>`
	f.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'/></iq>`)
	f.want(`<iq type='result' id='r' …`)
	if got := f.next(); !strings.Contains(got, `type='subscribe'`) || !strings.Contains(got, nick) {
		t.Error(got)
	}
	f.want(`<message …`)
	f.send(`<presence type='subscribe' from='juliet@example.org' to='webstatus.example.org'/>`)
	f.want(`<presence type='subscribed' …`)
	if got := f.next(); !strings.Contains(got, nick) {
		t.Error(got)
	}
}

// TestRegisterRepairsTheContact has a user withdraw the authorization and write "register" later: the contact request is repeated.
func TestRegisterRepairsTheContact(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.send(`<presence type='unsubscribed' from='juliet@example.org' to='webstatus.example.org'/>`)
	f.settled(juliet)
	if answer := f.write("register"); !strings.Contains(answer, "already registered") {
		t.Error(answer)
	}
	f.want(`<presence type='subscribe' from='webstatus.example.org' to='juliet@example.org'>…`)
}

// TestNoMessageAfterRemoval removes a registration by form: the contact is withdrawn, and no message makes the client list us again.
func TestNoMessageAfterRemoval(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.send(`<iq type='set' id='x' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><remove/></query></iq>`)
	f.want(`<iq type='result' id='x' …`)
	for _, typ := range []string{"unsubscribe", "unsubscribed", "unavailable"} {
		f.want(`<presence type='` + typ + `' from='webstatus.example.org' to='juliet@example.org'></presence>`)
	}
	f.settled(juliet)
	// The maintenance may have read the list of withdrawals just before this one was carried out.
	f.comp.dispatcher.dispatch(t.Context(), juliet, func(ctx context.Context) { f.comp.contacts.withdraw(ctx, juliet) })
	f.settled(juliet)
}
