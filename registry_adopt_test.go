package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

const wantProbe = `<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`

// early sends a stanza of Juliet's that the component handles before it hears of what other nodes do until the result is called.
func (f *fixture) early(stanza string) (handle func()) {
	f.t.Helper()
	handle = sync.OnceFunc(f.block(juliet))
	f.t.Cleanup(handle) // or the component does not stop after a failure
	f.send(stanza)
	f.settled("romeo@example.org") // the stanza is in Juliet's queue
	return handle
}

// wantVisible waits until all nodes know whether Juliet lets us see her presence.
func wantVisible(t *testing.T, want bool, nodes ...*fixture) {
	t.Helper()
	for _, f := range nodes {
		eventually(t, "the node knows the subscription", func() bool {
			known := make(chan bool)
			f.comp.dispatcher.dispatch(t.Context(), juliet, func(context.Context) { known <- f.comp.board.byJID(juliet).user.Subscription.To() })
			return <-known == want
		})
	}
}

// TestAnswerBeforeRegistration answers the contact request at a node that does not know yet that the user has registered at another.
func TestAnswerBeforeRegistration(t *testing.T) {
	t.Parallel()
	a, b := twoNodes(t, newPostgresDatabase(t))
	unregister := func() {
		t.Helper()
		a.send(`<iq type='set' id='u' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><remove/></query></iq>`)
		a.want(`<iq type='result' id='u' from='webstatus.example.org' to='juliet@example.org/b'></iq>`)
		a.wantLeave("webstatus.example.org")
		eventually(t, "the page has ended", func() bool { return b.comp.board.byJID(juliet) == nil })
	}
	unregister()
	handle := b.early(`<presence type='subscribed' from='juliet@example.org' to='webstatus.example.org'/>`)
	a.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'/></iq>`)
	a.want(`<iq type='result' id='r' from='webstatus.example.org' to='juliet@example.org/b'></iq>`,
		`<presence type='subscribe' from='webstatus.example.org' to='juliet@example.org'><status>Accept this request…`,
		`<message type='chat' from='webstatus.example.org' to='juliet@example.org'><body>You are registered.…`)
	handle()
	b.want(wantProbe)
	b.says("desk", "", "<show>away</show>")
	a.want(wantProbe)
	agree(t, `"state":"away"`, "as_of", a, b)

	// Those who are not registered are still told so, and what the other way round comes too early is not lost either.
	b.send(`<presence type='subscribe' from='romeo@example.org' to='webstatus.example.org'/>`)
	b.want(`<presence type='unsubscribed' from='webstatus.example.org' to='romeo@example.org'></presence>`,
		`<message type='chat' from='webstatus.example.org' to='romeo@example.org'>…`)
	unregister()
	handle = b.early(`<iq type='set' id='u' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><remove/></query></iq>`)
	a.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'/></iq>`)
	a.want(`<iq type='result' id='r' from='webstatus.example.org' to='juliet@example.org/b'></iq>`)
	handle()
	b.want(`<iq type='result' id='u' from='webstatus.example.org' to='juliet@example.org/b'></iq>`)
	eventually(t, "the page ends everywhere", func() bool { return a.comp.board.byJID(juliet) == nil && b.comp.board.byJID(juliet) == nil })
}

// TestPresenceBeforeSubscription sends presence to a node that does not know yet that the user lets us see it. The node asks for it.
func TestPresenceBeforeSubscription(t *testing.T) {
	t.Parallel()
	a, b := twoNodes(t, newPostgresDatabase(t))
	a.send(`<presence type='unsubscribed' from='juliet@example.org' to='webstatus.example.org'/>`)
	a.want(`<message type='chat' from='webstatus.example.org' to='juliet@example.org'>…`)
	wantVisible(t, false, a, b)
	handle := b.early(`<presence from='juliet@example.org/phone' to='webstatus.example.org'><show>dnd</show></presence>`)
	a.send(`<presence type='subscribed' from='juliet@example.org' to='webstatus.example.org'/>`)
	a.want(wantProbe)
	handle()
	b.want(`<presence from='webstatus.example.org/web' to='juliet@example.org/phone'>…`, wantProbe)
	b.says("phone", "", "<show>dnd</show>")
	agree(t, `"state":"dnd"`, "as_of", a, b)
}

// TestOutdatedNode changes a user at a node that does not know yet what another node has stored. Nothing that either has confirmed is lost.
func TestOutdatedNode(t *testing.T) {
	t.Parallel()
	a, b := twoNodes(t, newPostgresDatabase(t))

	// Permission is given at one node and taken back at the other.
	a.send(`<presence type='unsubscribed' from='juliet@example.org' to='webstatus.example.org'/>`)
	a.want(`<message type='chat' from='webstatus.example.org' to='juliet@example.org'>…`)
	wantVisible(t, false, a, b)
	handle := b.early(`<presence type='unsubscribed' from='juliet@example.org' to='webstatus.example.org'/>`)
	a.send(`<presence type='subscribed' from='juliet@example.org' to='webstatus.example.org'/>`)
	a.want(wantProbe)
	a.says("desk", "", "<show>away</show>")
	handle()
	b.want(wantProbe)
	wantVisible(t, false, a, b)
	agree(t, `"state":"unknown"`, "", a, b)

	// Permission is taken back at one node and given again at the other.
	a.send(`<presence type='subscribed' from='juliet@example.org' to='webstatus.example.org'/>`)
	a.want(wantProbe)
	b.want(wantProbe)
	wantVisible(t, true, a, b)
	handle = b.early(`<presence type='subscribed' from='juliet@example.org' to='webstatus.example.org'/>`)
	a.send(`<presence type='unsubscribed' from='juliet@example.org' to='webstatus.example.org'/>`)
	a.want(`<message type='chat' from='webstatus.example.org' to='juliet@example.org'>…`)
	handle()
	b.want(wantProbe)
	a.want(wantProbe)
	wantVisible(t, true, a, b)
	a.says("desk", "", "<show>xa</show>")
	agree(t, `"state":"xa"`, "", a, b)

	// An option is switched on and off.
	const set = `<iq type='set' id='%s' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><show_full_jid>%d</show_full_jid></query></iq>`
	handle = b.early(fmt.Sprintf(set, "off", 0))
	a.options("<show_full_jid>1</show_full_jid>")
	handle()
	b.want(`<iq type='result' id='off' from='webstatus.example.org' to='juliet@example.org/b'></iq>`)
	agree(t, `"state":"xa"`, "juliet", a, b)

	// A new link is made just before an option is changed at a node that still knows the old link.
	old := b.comp.board.byJID(juliet).snapshot.Load().token
	handle = b.early(fmt.Sprintf(set, "on", 1))
	renewed := make(chan Token, 1)
	a.comp.dispatcher.dispatch(t.Context(), juliet, func(ctx context.Context) {
		e := a.comp.board.byJID(juliet)
		if err := a.comp.registry.RenewToken(ctx, e); err != nil {
			t.Error(err)
		}
		renewed <- e.user.Token
	})
	fresh := <-renewed
	handle()
	b.want(`<iq type='result' id='on' from='webstatus.example.org' to='juliet@example.org/b'></iq>`)
	agree(t, `"jid":"juliet@example.org"`, "", a, b)
	for _, f := range []*fixture{a, b} {
		f.wantNotFound("/status/" + old.String())
		if resp, _ := f.get("/status/" + fresh.String()); resp.StatusCode != 200 {
			t.Errorf("the new link: %s", resp.Status)
		}
	}
}

// TestOptionsOfTwoNodes changes an option at a node that does not know yet that another option has been changed at the other node. Both
// changes stay.
func TestOptionsOfTwoNodes(t *testing.T) {
	t.Parallel()
	a, b := twoNodes(t, newPostgresDatabase(t))
	a.says("desk", "", "<show>away</show>")
	agree(t, `"state":"away"`, "", a, b)
	command := b.asks(juliet, "set", commandXML("options", "", ""), `status='executing'`)
	session := regexp.MustCompile(`sessionid='([^']*)'`).FindStringSubmatch(command)
	if session == nil {
		t.Fatal(command)
	}
	const iq, message = `<iq type='set' id='q' from='juliet@example.org/b' to='webstatus.example.org'>%s</iq>`,
		`<message type='chat' from='juliet@example.org/b' to='webstatus.example.org'><body>%s</body></message>`
	form := `<x xmlns='jabber:x:data' type='submit'><field var='show_full_jid'><value>1</value></field></x>`
	before := wantStored(t, a, b).Options
	for _, change := range []struct {
		stanza, answer string
		changed        bool
	}{
		{fmt.Sprintf(iq, "<query xmlns='jabber:iq:register'>"+form+"</query>"), `<iq type='result' …`, true},
		{fmt.Sprintf(iq, commandXML("options", "action='complete' sessionid='"+session[1]+"'", form)), `<iq type='result' …`, true},
		{fmt.Sprintf(message, "show jid on"), `<message …`, true},
		{fmt.Sprintf(message, "register"), `<message …`, false},
	} {
		handle := b.early(change.stanza)
		a.options("<search_engines>1</search_engines>")
		handle()
		b.want(change.answer)
		if got, want := wantStored(t, a, b).Options, before.with(fieldSearchEngines, true).with(fieldJID, change.changed); got != want {
			t.Errorf("%s\ngot  %v\nwant %v", change.stanza, optionNames(got), optionNames(want))
		}
		a.options("<search_engines>0</search_engines><show_full_jid>0</show_full_jid>")
		wantStored(t, a, b)
	}
}

// TestFailedReload has a node fail to read what another node has changed, although its connection for news works. It reads that again.
func TestFailedReload(t *testing.T) {
	t.Parallel()
	a, b := twoNodes(t, newPostgresDatabase(t))
	a.says("desk", "", "<show>away</show>")
	agree(t, `"state":"away"`, "juliet", a, b)
	rename := func(from, to string) {
		t.Helper()
		if _, err := a.db.sql.ExecContext(t.Context(), "ALTER TABLE profiles RENAME "+from+" TO "+to); err != nil {
			t.Fatal(err)
		}
	}
	rename("nick", "nickname")
	a.options("<show_full_jid>1</show_full_jid>")
	eventually(t, "the failure is logged", func() bool { return strings.Contains(b.log.String(), "reading a changed user") })
	rename("nickname", "nick")
	agree(t, `"jid":"juliet@example.org"`, "", a, b)
}

// A commitCutter forwards connections to PostgreSQL. When it is armed, it cuts the next one over which a user's change is committed, before the
// client knows. The server commits at once, or later if delay is set: once that channel is closed.
type commitCutter struct {
	listener net.Listener
	to       string
	armed    atomic.Bool
	delay    chan struct{}
}

func newCommitCutter(t *testing.T, to string) *commitCutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := &commitCutter{listener: l, to: to}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go c.forward(client)
		}
	}()
	return c
}

func (c *commitCutter) forward(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer server.Close()
	var isCut atomic.Bool
	go func() {
		defer server.Close()
		buf := make([]byte, 32<<10)
		isChange := false
		for {
			n, err := client.Read(buf)
			isChange = !bytes.Contains(buf[:n], []byte("begin")) && (isChange || bytes.Contains(buf[:n], []byte("@example.org")))
			if isChange && bytes.Contains(buf[:n], []byte("commit\x00")) && c.armed.CompareAndSwap(true, false) {
				isCut.Store(true)
				if c.delay != nil {
					client.Close()
					<-c.delay
				}
			}
			if _, writeErr := server.Write(buf[:n]); err != nil || writeErr != nil {
				return
			}
		}
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := server.Read(buf)
		if isCut.Load() {
			return
		}
		if _, writeErr := client.Write(buf[:n]); err != nil || writeErr != nil {
			return
		}
	}
}

// TestUnknownOutcome cuts the connection to the database just after a change is committed. The node, which has to report a failure, shows
// soon what is stored.
func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	location := newPostgresDatabase(t)
	server := fmt.Sprintf("127.0.0.1:%d", startedPostgres.Load().port)
	cutter := newCommitCutter(t, server)
	f := newNode(t, strings.Replace(location, server, cutter.listener.Addr().String(), 1), "a", nil)
	f.register("")
	f.says("desk", "", "")
	eventually(t, "presence is stored", func() bool {
		u, err := f.db.GetUser(t.Context(), juliet)
		return err == nil && u.Status.State == Available && f.comp.registry.Backlog() == 0
	})
	arm := func() { // when no other transaction is to come
		f.settled(juliet)
		f.settled("romeo@example.org")
		f.comp.registry.SavePresence(t.Context())
		cutter.armed.Store(true)
	}
	arm()
	f.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><show_full_jid>1</show_full_jid></query></iq>`)
	f.want(`<iq type='error' id='r' …`)
	if u := wantStored(t, f); !u.Options.has(fieldJID) {
		t.Error("the change is not stored")
	}

	arm()
	f.send(`<iq type='set' id='r' from='romeo@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'/></iq>`)
	f.want(`<iq type='error' id='r' …`)
	eventually(t, "the new user has a page", func() bool { return f.comp.board.byJID("romeo@example.org") != nil })

	cutter.delay = make(chan struct{})
	arm()
	f.send(`<iq type='set' id='r' from='romeo@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><show_full_jid>1</show_full_jid></query></iq>`)
	f.want(`<iq type='error' id='r' …`)
	eventually(t, "the user has been read again", func() bool {
		c := f.comp.registry.cluster
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.doubted) == 0
	})
	f.settled("romeo@example.org")
	close(cutter.delay)
	eventually(t, "the page shows what was committed later", func() bool { return f.comp.board.byJID("romeo@example.org").snapshot.Load().options.has(fieldJID) })

	cutter.delay = nil
	arm()
	f.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><remove/></query></iq>`)
	f.want(`<iq type='error' id='r' …`)
	eventually(t, "the page of the removed user has ended", func() bool { return f.comp.board.byJID(juliet) == nil })
}

// TestConflictingChanges has two nodes change one user at the same time, again and again. Each time, both show what the database has, and
// no change is lost.
func TestConflictingChanges(t *testing.T) {
	t.Parallel()
	location := newPostgresDatabase(t)
	a, b := newNode(t, location, "a", nil), newNode(t, location, "b", nil)
	change := func(f *fixture, run func(context.Context, *registry, *entry) error) (result error) {
		done := make(chan struct{})
		f.comp.dispatcher.dispatch(t.Context(), juliet, func(ctx context.Context) {
			defer close(done)
			result = run(ctx, f.comp.registry, f.comp.board.byJID(juliet))
		})
		<-done
		return result
	}
	both := func(first, second func(context.Context, *registry, *entry) error) (atA, atB error) {
		var g sync.WaitGroup
		g.Go(func() { atA = change(a, first) })
		g.Go(func() { atB = change(b, second) })
		g.Wait()
		return atA, atB
	}
	options := func(change optionChange) func(context.Context, *registry, *entry) error {
		return func(ctx context.Context, r *registry, e *entry) error {
			if e == nil { // the other node has removed the user already
				return ErrNotFound
			}
			return r.SetOptions(ctx, e, change, "")
		}
	}
	remove := func(ctx context.Context, r *registry, e *entry) error { return r.Remove(ctx, e) }
	renew := func(ctx context.Context, r *registry, e *entry) error { return r.RenewToken(ctx, e) }
	const rounds = 40
	for n := range rounds {
		err := change(a, func(ctx context.Context, r *registry, _ *entry) error {
			_, err := r.Register(ctx, juliet, ContactDomain, optionChange{}, "", false)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "both nodes know the user", func() bool { return b.comp.board.byJID(juliet) != nil })
		changed := optionChange{}.with(fieldJID, true)
		if atA, atB := both(options(changed), renew); atA != nil || atB != nil {
			t.Fatalf("round %d: %v, %v", n, atA, atB)
		}
		wantStored(t, a, b)
		other := optionChange{}.with(fieldNick, true)
		if atA, atB := both(options(changed), options(other)); atA != nil || atB != nil {
			t.Fatalf("round %d: %v, %v", n, atA, atB)
		}
		if u := wantStored(t, a, b); u.Options != other.apply(changed.apply(defaultOptions())) {
			t.Errorf("round %d: the options are %v", n, u.Options)
		}
		if atA, atB := both(options(changed), remove); atA != nil && !errors.Is(atA, ErrNotFound) || atB != nil {
			t.Fatalf("round %d: %v, %v", n, atA, atB)
		}
		if u := wantStored(t, a, b); u.JID != "" {
			t.Errorf("round %d: the user has been removed and is still there", n)
		}
	}
}

// wantStored waits until nodes show Juliet as she is stored, and returns that; the zero User if she is not registered.
func wantStored(t *testing.T, nodes ...*fixture) User {
	t.Helper()
	stored, err := nodes[0].db.GetUser(t.Context(), juliet)
	if err != nil && !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	eventually(t, "the nodes show what is stored", func() bool {
		for _, f := range nodes {
			e := f.comp.board.byJID(juliet)
			if e == nil || stored.JID == "" {
				if e != nil || stored.JID != "" {
					return false
				}
				continue
			}
			s := e.snapshot.Load()
			resp, body := f.get("/status/" + stored.Token.String() + ".json")
			if s == nil || s.options != stored.Options || resp.StatusCode != 200 || strings.Contains(body, juliet) != stored.Options.has(fieldJID) {
				return false
			}
		}
		return true
	})
	return stored.User
}
