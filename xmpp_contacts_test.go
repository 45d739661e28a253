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
	f.want(`<message …`)
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

// TestWithdrawnAuthorization checks that users who withdraw our authorization are told once what that means, and how to undo it.
func TestWithdrawnAuthorization(t *testing.T) {
	f := newFixture(t, nil)
	send := func(typ string) {
		f.send(`<presence type='` + typ + `' from='juliet@example.org' to='webstatus.example.org'/>`)
	}
	const explanation = `<message type='chat' from='webstatus.example.org' to='juliet@example.org' xml:lang='de'>` +
		`<body>Ich sehe nicht mehr, ob du erreichbar bist. Deshalb zeigt deine Seite deinen Status als unbekannt. ` +
		`Um das zu ändern, schreib „register“ und nimm meine Kontaktanfrage an.</body></message>`
	const register = `<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org' xml:lang='de'><query xmlns='jabber:iq:register'>`
	f.send(register + `</query></iq>`)
	f.want(`<iq type='result' …`, `<presence type='subscribe' …`, `<message …`)
	send("unsubscribed") // refuses the request, which withdraws nothing
	f.settled(juliet)
	for range 2 {
		send("subscribed")
		f.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
		send("unsubscribed")
		f.want(explanation)
		f.wantState(Unknown)
		send("unsubscribed") // repeated by the server
		f.settled(juliet)
	}
	send("subscribed")
	f.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
	f.send(register + `<remove/></query></iq>`)
	f.want(`<iq type='result' …`)
	for _, typ := range []string{"unsubscribe", "unsubscribed", "unavailable"} {
		f.want(`<presence type='` + typ + `' from='webstatus.example.org' to='juliet@example.org'></presence>`)
	}
	send("unsubscribed")
	f.settled(juliet)
}
