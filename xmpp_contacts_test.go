package main

import (
	"context"
	"slices"
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
		`<presence from='webstatus.example.org/web' to='juliet@example.org'><status>People who publish their presence here: 1</status>…`)
	if _, err := f.comp.registry.Register(t.Context(), "romeo@example.org", ContactDomain, optionChange{}, "", false); err != nil {
		t.Fatal(err)
	}
	f.advance(time.Hour)
	eventually(t, "the maintenance has run", func() bool { seen, err := f.db.LinkSeen(t.Context()); return err == nil && seen.Equal(f.now()) })
	f.settled(juliet)
	f.send(`<presence type='probe' from='juliet@example.org/b' to='webstatus.example.org'/>`)
	f.want(`<presence from='webstatus.example.org/web' to='juliet@example.org/b'><status>People who publish their presence here: 2</status>…`)
}

// TestName checks the name under which clients list us.
func TestName(t *testing.T) { atEachAddress(t, testName) }

func testName(t *testing.T, f *fixture) {
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
	f.asks("juliet@example.org/b", "get", `<vCard xmlns='vcard-temp'/>`, `<FN>Web presence</FN>`)
}

// TestRegisterRepairsTheContact has a user withdraw the authorization and write "register" later: the contact request is repeated.
func TestRegisterRepairsTheContact(t *testing.T) { atEachAddress(t, testRegisterRepairsTheContact) }

func testRegisterRepairsTheContact(t *testing.T, f *fixture) {
	f.register("")
	f.send(`<presence type='unsubscribed' from='juliet@example.org' to='webstatus.example.org'/>`)
	f.want(`<message …`)
	if answer := f.write("register"); !strings.Contains(answer, "already registered") {
		t.Error(answer)
	}
	f.want(`<presence type='subscribe' from='webstatus.example.org' to='juliet@example.org'>…`)
}

// TestLostWithdrawal loses the connection after a contact has been withdrawn, before the server has handled that: the next link withdraws it
// again. Once the server has handled it, no link does.
func TestLostWithdrawal(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.deaf = true
	f.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><remove/></query></iq>`)
	f.want(`<iq type='result' id='r' from='webstatus.example.org' to='juliet@example.org/b'></iq>`)
	f.wantLeave(atDomain)
	f.stream.Close()
	f.accept()
	f.deaf = false
	f.wantLeave(atDomain)
	f.settled(juliet)
	eventually(t, "the withdrawal is recorded", func() bool { jids, err := f.db.Withdrawals(t.Context(), true); return err == nil && len(jids) == 0 })
	f.stream.Close()
	f.accept()
	f.settled(juliet)
}

// TestNoMessageAfterRemoval removes a registration by form: the contact is withdrawn, and no message makes the client list us again.
func TestNoMessageAfterRemoval(t *testing.T) { atEachAddress(t, testNoMessageAfterRemoval) }

func testNoMessageAfterRemoval(t *testing.T, f *fixture) {
	f.register("")
	f.send(`<iq type='set' id='x' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><remove/></query></iq>`)
	f.want(`<iq type='result' id='x' …`)
	f.wantLeave("webstatus.example.org")
	f.settled(juliet)
	// The maintenance may have read the list of withdrawals just before this one was carried out.
	f.comp.dispatcher.dispatch(t.Context(), juliet, func(ctx context.Context) { f.comp.contacts.withdraw(ctx, juliet) })
	f.settled(juliet)
}

// presence sends a presence from Juliet to one of the component's addresses.
func (f *fixture) presence(typ, resource, to string) {
	f.t.Helper()
	if typ != "" {
		typ = "type='" + typ + "' "
	}
	f.send(`<presence ` + typ + `from='` + strings.TrimSuffix(juliet+"/"+resource, "/") + `' to='` + to + `'/>`)
}

// TestFullJID checks that what is sent to the full JID of our presence is answered from it, and other resources do not exist.
func TestFullJID(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	for _, address := range []string{atDomain, atDomain + "/web", atBot, atBot + "/web"} {
		f.send(`<iq type='get' id='d' from='juliet@example.org/b' to='` + address + `'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>`)
		f.want(`<iq type='result' id='d' from='` + address + `' to='juliet@example.org/b'><query xmlns='http://jabber.org/protocol/disco#info'><identity …`)
		f.send(`<message type='chat' from='juliet@example.org/b' to='` + address + `'><body>status</body></message>`)
		f.want(`<message type='chat' from='` + address + `' to='juliet@example.org/b'>…`)
	}
	for _, address := range []string{atDomain + "/other", atBot + "/other", "robot@" + atDomain} {
		f.send(`<iq type='get' id='d' from='juliet@example.org/b' to='` + address + `'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>`)
		f.want(`<iq type='error' id='d' from='` + address + `' to='juliet@example.org/b'><error code='404' …`)
	}
	f.presence("subscribe", "", atDomain+"/other")
	f.want(`<presence type='unsubscribed' from='webstatus.example.org' to='juliet@example.org'></presence>`)
}

// TestBot registers through the address with a local part: everything that follows comes from it.
func TestBot(t *testing.T) {
	f := newFixture(t, nil)
	f.send(`<message type='chat' from='juliet@example.org/b' to='bot@webstatus.example.org'><body>register</body></message>`)
	f.want(`<message type='chat' from='bot@webstatus.example.org' to='juliet@example.org/b'>…`,
		`<presence type='subscribe' from='bot@webstatus.example.org' to='juliet@example.org'>…`)
	f.presence("subscribed", "", atBot)
	f.want(`<presence type='probe' from='bot@webstatus.example.org' to='juliet@example.org'></presence>`)
	f.presence("subscribe", "", atBot)
	f.want(`<presence type='subscribed' from='bot@webstatus.example.org' to='juliet@example.org'></presence>`,
		`<presence from='bot@webstatus.example.org/web' to='juliet@example.org'>…`)
	f.presence("", "b", atBot)
	f.presence("probe", "b", atBot)
	f.want(`<presence from='bot@webstatus.example.org/web' to='juliet@example.org/b'>…`)
	if s := f.status(); s.State != Available {
		t.Error(s)
	}
	f.presence("probe", "b", atDomain) // which is in no contact list
	f.want(`<presence type='unsubscribed' from='webstatus.example.org' to='juliet@example.org'></presence>`)

	f.stop() // the address survives a restart
	f.want(`<presence type='unavailable' from='bot@webstatus.example.org/web' to='juliet@example.org'></presence>`)
	f.start()
	f.want(`<presence from='bot@webstatus.example.org/web' to='juliet@example.org'>…`,
		`<presence type='probe' from='bot@webstatus.example.org' to='juliet@example.org'></presence>`)
	f.send(`<iq type='set' id='x' from='juliet@example.org/b' to='bot@webstatus.example.org'><query xmlns='jabber:iq:register'><remove/></query></iq>`)
	f.want(`<iq type='result' id='x' from='bot@webstatus.example.org' to='juliet@example.org/b'></iq>`)
	f.wantLeave(atBot)
}

// TestMoveToBot has someone whose presence the domain sees add the other address: the page stays current until that one sees it too, and
// then the domain leaves the contact list.
func TestMoveToBot(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	f.presence("subscribe", "", atBot)
	f.want(`<presence type='subscribed' from='bot@webstatus.example.org' to='juliet@example.org'></presence>`,
		`<presence from='bot@webstatus.example.org/web' to='juliet@example.org'>…`,
		`<presence type='subscribe' from='bot@webstatus.example.org' to='juliet@example.org'>…`)
	f.says("b", "", "<show>away</show>")
	if s := f.status(); s.State != Away {
		t.Error("before the new address is granted the presence:", s)
	}
	f.presence("subscribed", "", atBot)
	f.wantLeave(atDomain)
	f.want(`<presence type='probe' from='bot@webstatus.example.org' to='juliet@example.org'></presence>`)
	f.presence("unsubscribed", "", atDomain) // the client removes the old contact
	f.presence("unsubscribe", "", atDomain)
	f.presence("", "b", atBot)
	f.settled(juliet)
	if s := f.status(); s.State != Available {
		t.Error(s)
	}
}

// TestRefusedMove has someone refuse the contact request of the second address: the first one stays.
func TestRefusedMove(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	f.send(`<message type='chat' from='juliet@example.org/b' to='bot@webstatus.example.org'><body>register</body></message>`)
	f.want(`<message type='chat' from='bot@webstatus.example.org' to='juliet@example.org/b'>…`,
		`<presence type='subscribe' from='bot@webstatus.example.org' to='juliet@example.org'>…`)
	f.presence("unsubscribed", "", atBot)
	f.says("b", "", "<show>dnd</show>")
	if s := f.status(); s.State != DoNotDisturb {
		t.Error(s)
	}
	f.presence("subscribe", "", atDomain)
	f.want(`<presence type='subscribed' from='webstatus.example.org' to='juliet@example.org'></presence>`,
		`<presence from='webstatus.example.org/web' to='juliet@example.org'>…`)
}

// TestMoveBeforeGrant has someone who has not accepted the domain's contact request register with the other address: the domain leaves.
// Removing the registration while both addresses are in the contact list takes both out.
func TestMoveBeforeGrant(t *testing.T) {
	f := newFixture(t, nil)
	f.send(`<message type='chat' from='juliet@example.org/b' to='webstatus.example.org'><body>register</body></message>`)
	f.want(`<message …`, `<presence type='subscribe' from='webstatus.example.org' …`)
	f.send(`<message type='chat' from='juliet@example.org/b' to='bot@webstatus.example.org'><body>register</body></message>`)
	f.wantLeave(atDomain)
	f.want(`<message type='chat' from='bot@webstatus.example.org' to='juliet@example.org/b'>…`,
		`<presence type='subscribe' from='bot@webstatus.example.org' to='juliet@example.org'>…`)
	f.presence("subscribed", "", atBot)
	f.want(`<presence type='probe' …`)
	f.presence("subscribe", "", atDomain)
	f.want(`<presence type='subscribed' from='webstatus.example.org' to='juliet@example.org'></presence>`,
		`<presence from='webstatus.example.org/web' to='juliet@example.org'>…`,
		`<presence type='subscribe' from='webstatus.example.org' to='juliet@example.org'>…`)
	f.send(`<iq type='set' id='x' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><remove/></query></iq>`)
	f.want(`<iq type='result' id='x' …`)
	f.wantLeave(atDomain)
	f.wantLeave(atBot)
	f.settled(juliet)
}

// TestLogOff has a client log off from us, as from a gateway, and on again. Presence for all contacts is not answered.
func TestLogOff(t *testing.T) { atEachAddress(t, testLogOff) }

func testLogOff(t *testing.T, f *fixture) {
	f.register("")
	f.presence("subscribe", "", atDomain)
	f.want(`<presence type='subscribed' …`, `<presence from='webstatus.example.org/web' …`)
	f.says("b", "", "")
	f.presence("unavailable", "b", atDomain)
	f.want(`<presence type='unavailable' from='webstatus.example.org/web' to='juliet@example.org/b'></presence>`)
	if s := f.status(); s.State != Unavailable {
		t.Error(s)
	}
	f.presence("", "c", atDomain) // another client
	f.presence("", "b", atDomain)
	f.want(`<presence from='webstatus.example.org/web' to='juliet@example.org/b'>…`)
	f.presence("", "b", atDomain)
	f.settled(juliet)
	f.presence("", "b", atDomain+"/web") // to us alone
	f.want(`<presence from='webstatus.example.org/web' to='juliet@example.org/b'>…`)
	f.presence("unsubscribed", "", atDomain)
	f.want(`<message …`)          // which explains what that means
	f.presence("", "b", atDomain) // no subscription explains it
	f.want(`<presence from='webstatus.example.org/web' to='juliet@example.org/b'>…`)
}

// TestWithdrawnAuthorization checks that we explain once, to users who withdraw our authorization, what that means and how to undo it.
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
	f.wantLeave(atDomain)
	send("unsubscribed")
	f.settled(juliet)
}

// TestSubscriptionIsStoredLater answers contact requests and sends one while the database fails: nothing is confirmed. Once the database
// works, all is stored over the same link. Of two stanzas in the same direction, the later one counts.
func TestSubscriptionIsStoredLater(t *testing.T) { eachEngine(t, testSubscriptionIsStoredLater) }

func testSubscriptionIsStoredLater(t *testing.T, location string) {
	f := newFixtureOn(t, location, nil)
	f.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'/></iq>`)
	f.want(`<iq type='result' id='r' …`, `<presence type='subscribe' …`, `<message …`)
	whileBroken := func(types ...string) {
		t.Helper()
		repair := f.breakDatabase()
		for _, typ := range types {
			f.presence(typ, "", atDomain)
		}
		f.settled(juliet)
		repair()
	}
	wantStored := func(want Subscription) {
		t.Helper()
		eventually(t, "the subscription is "+string(want), func() bool {
			u, err := f.db.GetUser(t.Context(), juliet)
			return err == nil && u.Subscription == want && !u.Asked
		})
	}
	whileBroken("subscribed", "unsubscribed")
	wantStored(SubscriptionNone)
	f.settled(juliet)
	whileBroken("subscribed", "subscribe")
	got := []string{f.next(), f.next(), f.next()}
	for _, want := range []string{"<presence type='probe' ", "<presence type='subscribed' ", "<presence from='webstatus.example.org/web' "} {
		if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, want) }) {
			t.Errorf("%s is not in %q", want, got)
		}
	}
	wantStored(SubscriptionBoth)
}
