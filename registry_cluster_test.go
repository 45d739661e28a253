package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

// agree waits until all nodes show the same status of Juliet, with and without a text.
func agree(t *testing.T, with, without string, nodes ...*fixture) {
	t.Helper()
	var all []string
	defer func() {
		if t.Failed() {
			t.Logf("the nodes do not agree on %s without %s:\n%s", with, without, strings.Join(all, "\n"))
		}
	}()
	eventually(t, "the nodes agree", func() bool {
		all = nil
		for _, f := range nodes {
			_, body := f.get(julietPage + ".json")
			all = append(all, body)
		}
		return strings.Contains(all[0], with) && (without == "" || !strings.Contains(all[0], without)) && countEqual(all) == len(all)
	})
}

// countEqual returns how many texts are equal to the first one.
func countEqual(texts []string) (n int) {
	for _, text := range texts {
		if text == texts[0] {
			n++
		}
	}
	return n
}

// twoNodes starts two nodes, each with an XMPP server of its own, and registers Juliet at the first.
func twoNodes(t *testing.T, location string) (a, b *fixture) {
	t.Helper()
	return twoNodesWith(t, location, nil)
}

// twoNodesWith is like twoNodes, but changes the configuration of both.
func twoNodesWith(t *testing.T, location string, change func(*componentConfig)) (a, b *fixture) {
	t.Helper()
	a = newNode(t, location, "a", change)
	b = newNode(t, location, "b", change)
	eventually(t, "the nodes know each other", func() bool { return a.comp.board.link.Load().elsewhere && b.comp.board.link.Load().elsewhere })
	a.register("<show_status_msg>1</show_status_msg><show_resources>1</show_resources>")
	b.want(wantProbe) // it has heard that it may see her presence
	agree(t, `"state":"unavailable"`, "as_of", a, b)
	return a, b
}

// TestCluster changes a user at two nodes. Both show the same.
func TestCluster(t *testing.T) {
	t.Parallel()
	a, b := twoNodes(t, newPostgresDatabase(t))
	a.says("desk", "", "<show>away</show><status>lunch</status>")
	agree(t, `"message":"lunch"`, "as_of", a, b)
	b.says("phone", "", "<show>dnd</show><priority>5</priority><status>train</status>")
	agree(t, `"resources":[{"name":"phone","state":"dnd","label":"Do not disturb","message":"train","priority":5},{"name":"desk",`, "", a, b)

	b.says("phone", "type='unavailable'", "")
	agree(t, `"resources":[{"name":"desk"`, "phone", a, b)

	// What is switched off at one node disappears at the other, and from what it has stored.
	b.options("<show_status_msg>0</show_status_msg>")
	agree(t, `"state":"away"`, "lunch", a, b)
	eventually(t, "the message is deleted", func() bool {
		var n int
		err := a.db.sql.QueryRow("SELECT (SELECT count(*) FROM resources WHERE resources LIKE '%lunch%') + (SELECT count(*) FROM presence WHERE messages LIKE '%lunch%')").Scan(&n)
		return err == nil && n == 0
	})
	b.options("<show_status_msg>1</show_status_msg>")
	a.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
	a.says("desk", "", "<show>away</show><status>lunch</status>")
	agree(t, `"message":"lunch"`, "", a, b)

	a.send(`<presence type='unsubscribed' from='juliet@example.org' to='webstatus.example.org'/>`)
	agree(t, `"state":"unknown"`, "", a, b)
	eventually(t, "the presence is deleted", func() bool {
		heard, err := a.db.Heard(t.Context(), "")
		return err == nil && len(heard) == 0
	})

	token := b.comp.board.byJID(juliet).snapshot.Load().token
	b.comp.dispatcher.dispatch(t.Context(), juliet, func(ctx context.Context) {
		if err := b.comp.registry.RenewToken(ctx, b.comp.board.byJID(juliet)); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the old link ends and there is a new one", func() bool {
		fresh := b.comp.board.byJID(juliet).snapshot.Load().token
		old, _ := a.get("/status/" + token.String())
		next, _ := a.get("/status/" + fresh.String())
		return fresh != token && old.StatusCode == 404 && next.StatusCode == 200
	})

	a.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><remove/></query></iq>`)
	eventually(t, "the page ends everywhere", func() bool {
		here, _ := a.get(julietPage)
		there, _ := b.get(julietPage)
		return here.StatusCode == 404 && there.StatusCode == 404
	})
}

// TestPingElsewhere returns the pings of one node to the other, as ejabberd does with bare_source. They count all the same.
func TestPingElsewhere(t *testing.T) {
	t.Parallel()
	a, b := twoNodes(t, newPostgresDatabase(t))
	b.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><remove/></query></iq>`)
	b.deaf = true
	b.want(`<iq type='result' id='r' from='webstatus.example.org' to='juliet@example.org/b'></iq>`)
	b.wantLeave("webstatus.example.org")
	f, err := b.stream.framer.next()
	if err != nil || !bytes.Contains(f.data, []byte(nsPing)) {
		t.Fatalf("not a ping: %s %v", f.data, err)
	}
	withdrawals := func() int {
		jids, err := a.db.Withdrawals(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		return len(jids)
	}
	if n := withdrawals(); n != 0 && n != 1 || len(b.comp.links.open()) != 1 {
		t.Fatalf("%d withdrawals", n)
	}
	stream := b.comp.links.open()[0]
	before := stream.lastPong.Load()
	a.send(string(f.data))
	eventually(t, "the ping is a sign of life of the link that it was sent over", func() bool { return stream.lastPong.Load() > before })
	eventually(t, "the withdrawal is recorded", func() bool { return withdrawals() == 0 })
}

// TestRoomElsewhere lets a room that one node has asked answer at another, as ejabberd does if the room is there.
func TestRoomElsewhere(t *testing.T) {
	t.Parallel()
	location := newPostgresDatabase(t)
	rooms := func(c *componentConfig) { c.rooms = []string{"*@rooms.example.org"} }
	a, b := newNode(t, location, "a", rooms), newNode(t, location, "b", rooms)
	_, body := a.askRoom("/room/"+lobby+".json", func() {
		a.want(roomQuery)
		b.send(roomInfo("The lobby", "12", "muc_public"))
	})
	if !strings.Contains(body, `"occupants":12`) {
		t.Errorf("the room is %s", body)
	}
}

// TestLostLock checks that a node notices that it has lost the lock of the leader.
func TestLostLock(t *testing.T) {
	t.Parallel()
	location := newPostgresDatabase(t)
	var members []*membership
	for _, name := range []string{"a", "b"} {
		db, err := joinDatabase(t.Context(), location, name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		members = append(members, db.shared.first)
	}
	for i, m := range members {
		if err := m.lead(t.Context(), true); err != nil || m.leads != (i == 0) {
			t.Fatalf("%t %v", m.leads, err)
		}
	}
	if _, err := members[0].conn.Exec(t.Context(), "SELECT pg_advisory_unlock"+lockKeys, applicationID, "leader", ""); err != nil {
		t.Fatal(err)
	}
	if err := members[1].lead(t.Context(), true); err != nil || !members[1].leads {
		t.Fatalf("%t %v", members[1].leads, err)
	}
	members[0].checked = time.Time{}
	if err := members[0].lead(t.Context(), true); !errors.Is(err, errLockLost) || members[0].leads {
		t.Errorf("both lead: %v", err)
	}
}

// TestQuickQueries checks that PostgreSQL does not compile the queries that a node repeats, which takes longer than they do, and delays what
// the node hears of others.
func TestQuickQueries(t *testing.T) {
	t.Parallel()
	a := newNode(t, newPostgresDatabase(t), "a", nil)
	m, err := connect(t.Context(), a.db.shared.conf)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for query, values := range map[string][]any{endHungLeader: {applicationID}, selectChanges: {"1:1:", false}} {
		rows, err := m.conn.Query(t.Context(), "EXPLAIN (ANALYZE) "+query, values...)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, "JIT") }) {
			t.Errorf("%v %s", err, strings.Join(lines, "\n"))
		}
	}
}

// TestHungLeader suspends the process of the leader. Its connections stay open, and its locks held. Another node leads soon.
func TestHungLeader(t *testing.T) {
	t.Parallel()
	location := newPostgresDatabase(t)
	server, err := newLoopback(testDomain, testSecret)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.listener.Close() })
	go func() {
		for {
			s, err := server.accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				go io.Copy(s, s) // all that the nodes send is their pings
			}
		}
	}()
	var nodes [2]*appliance
	var metrics [2]string
	for i := range nodes {
		address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
		nodes[i] = newAppliance(t, server.address(), "WEBSTATUS_DB="+location, fmt.Sprintf("WEBSTATUS_NODE=%d", i), "WEBSTATUS_METRICS_LISTEN="+address)
		metrics[i] = "http://" + address + "/metrics"
	}
	leads := func(i int) bool {
		_, body := fetch(t, metrics[i])
		return strings.Contains(body, "\nwebstatus_node_leads 1\n")
	}
	eventually(t, "one node leads", func() bool { return leads(0) != leads(1) })
	leader := 0
	if leads(1) {
		leader = 1
	}
	nodes[leader].freeze()
	eventually(t, "the other node leads", func() bool { return leads(1 - leader) })
	nodes[leader].thaw()
	eventually(t, "only the other node leads", func() bool { return !leads(leader) && leads(1-leader) })
}

// answerProbes answers all further probes with the last stanza that was passed to the function it returns, which sends it, too. Nothing else
// may read from the stream.
func (f *fixture) answerProbes() (says func(stanza string)) {
	var presence atomic.Pointer[string]
	stream := f.stream
	go func() {
		for {
			received, err := stream.framer.next()
			if err != nil {
				return
			}
			if answer := presence.Load(); answer != nil && string(attribute(received.data, "type")) == "probe" {
				io.WriteString(stream, *answer)
			}
		}
	}()
	return func(stanza string) {
		presence.Store(&stanza)
		io.WriteString(stream, stanza) // an error ends the stream, which the test notices
	}
}

// TestMovedResource checks that a resource that has moved to another node is forgotten at the first one, which does not hear when it leaves.
func TestMovedResource(t *testing.T) {
	t.Parallel()
	a, b := twoNodes(t, newPostgresDatabase(t))
	a.says("phone", "", "<show>away</show>")
	agree(t, `"state":"away"`, "", a, b)
	says := b.answerProbes() // once the first has forgotten the resource, the second asks for it
	says(`<presence from='juliet@example.org/phone' to='webstatus.example.org'><show>dnd</show></presence>`)
	a.want(wantProbe)
	agree(t, `"state":"dnd"`, "", a, b)
	says(`<presence from='juliet@example.org/phone' to='webstatus.example.org' type='unavailable'/>`)
	agree(t, `"state":"unavailable"`, "", a, b)
}

// TestLateLogout moves a resource to another node before the first one hears that it has gone offline there. That is not the end of the new one.
func TestLateLogout(t *testing.T) {
	t.Parallel()
	a, b := twoNodes(t, newPostgresDatabase(t))
	b.says("phone", "", "<show>dnd</show>")
	agree(t, `"state":"dnd"`, "", a, b)
	says := a.answerProbes() // as often as the first one asks: when the second has the resource no longer, and when that has heard the logout
	says(`<presence from='juliet@example.org/phone' to='webstatus.example.org'><show>chat</show></presence>`)
	b.want(wantProbe)
	b.says("phone", "type='unavailable'", "")
	eventually(t, "the logout has been told", func() bool {
		b.comp.registry.cluster.mu.Lock()
		defer b.comp.registry.cluster.mu.Unlock()
		return len(b.comp.registry.cluster.logouts) == 0
	})
	agree(t, `"state":"chat"`, `"dnd"`, a, b)
	says(`<presence from='juliet@example.org/phone' to='webstatus.example.org' type='unavailable'/>`)
	agree(t, `"state":"unavailable"`, "", a, b)
}

// TestEqualResources has two clients at two nodes say in the same millisecond that they are away. Both nodes show the same one first.
func TestEqualResources(t *testing.T) {
	t.Parallel()
	a, b := twoNodes(t, newPostgresDatabase(t))
	a.advance(300 * time.Microsecond)
	b.advance(600 * time.Microsecond)
	a.says("desk", "", "<show>away</show><status>lunch</status>")
	b.says("phone", "", "<show>away</show><status>train</status>")
	agree(t, `"message":"lunch","since":"2026-11-22T12:00:00Z","resources":[{"name":"desk","state":"away","label":"Away","message":"lunch","priority":0},{"name":"phone",`, "", a, b)
}

// TestManyResources has more clients at two nodes than one may have. All nodes show all of them, with their messages.
func TestManyResources(t *testing.T) {
	t.Parallel()
	a, b := twoNodes(t, newPostgresDatabase(t))
	const each = 40
	for i := range each {
		for _, f := range []*fixture{a, b} {
			f.send(fmt.Sprintf(`<presence from='juliet@example.org/%s%d' to='webstatus.example.org'><status>%s</status></presence>`, f.node, i, strings.Repeat("x", 200)))
		}
	}
	eventually(t, "both nodes show all resources with their messages", func() bool {
		_, here := a.get(julietPage + ".json")
		_, there := b.get(julietPage + ".json")
		return here == there && strings.Count(here, strings.Repeat("x", 200)) == 2*each+1
	})
}

// TestLeaverAtNewLink has a client of one node come while that node has no link, so that the other node hears it, and leave right after
// the link has returned. The other node, which does not hear that, asks.
func TestLeaverAtNewLink(t *testing.T) {
	t.Parallel()
	a, b := twoNodes(t, newPostgresDatabase(t))
	b.stream.Close() // the next one is not accepted yet
	eventually(t, "there is no link", func() bool { return !b.comp.board.link.Load().isUp() })
	a.says("phone", "", "<show>dnd</show>")
	agree(t, `"state":"dnd"`, "", a, b)
	b.accept()
	b.want(wantProbe)
	b.says("phone", "type='unavailable'", "")
	agree(t, `"state":"unavailable"`, "", a, b)
}

// TestStrayLogout has a node hear that a client has gone offline which another node has heard before. The other one asks.
func TestStrayLogout(t *testing.T) {
	t.Parallel()
	a, b := twoNodes(t, newPostgresDatabase(t))
	a.says("phone", "", "<show>dnd</show>")
	agree(t, `"state":"dnd"`, "", a, b)
	b.says("phone", "type='unavailable'", "")
	a.want(wantProbe)
	agree(t, `"state":"unavailable"`, "", a, b)

	// The server answers if the client has come back.
	a.says("phone", "", "<show>away</show>")
	agree(t, `"state":"away"`, "", a, b)
	b.says("phone", "type='unavailable'", "")
	a.want(wantProbe)
	a.says("phone", "", "<show>chat</show>")
	agree(t, `"state":"chat"`, "", a, b)
}

// TestStalledNode has a node, the leader or not, stop handling stanzas. It closes its link and is replaced until it handles them again.
func TestStalledNode(t *testing.T) {
	t.Parallel()
	for _, leader := range []bool{true, false} {
		t.Run(fmt.Sprintf("leader=%t", leader), func(t *testing.T) {
			t.Parallel()
			a, b := twoNodesWith(t, newPostgresDatabase(t), func(c *componentConfig) {
				c.syncTimes.stalled, c.syncTimes.aliveWithin = 2*time.Second, 2*time.Second
			})
			eventually(t, "a node leads", func() bool { return a.comp.registry.Leads() || b.comp.registry.Leads() })
			if a.comp.registry.Leads() != leader {
				a, b = b, a
			}
			a.says("desk", "", "<show>dnd</show>")
			agree(t, `"state":"dnd"`, "", a, b)
			stalled, release := context.WithCancel(t.Context())
			defer release()
			for i := range maxWorkers {
				a.comp.dispatcher.dispatch(t.Context(), fmt.Sprintf("user%d@example.org", i), func(context.Context) { <-stalled.Done() })
			}
			if _, err := a.stream.framer.next(); err == nil {
				t.Error("the link of the stalled node is still open")
			}
			eventually(t, "the other node has replaced it", func() bool {
				_, body := b.get(julietPage + ".json")
				return strings.Contains(body, `"state":"unavailable"`)
			})
			release()
			a.accept()
			a.want(wantProbe)
			a.says("desk", "", "<show>dnd</show>")
			agree(t, `"state":"dnd"`, "", a, b)
		})
	}
}

// TestRichPresenceInCluster checks that all nodes show what one of them hears, for as long as it is to be shown.
func TestRichPresenceInCluster(t *testing.T) {
	t.Parallel()
	a, b := twoNodes(t, newPostgresDatabase(t))
	a.says("desk", "", "")
	agree(t, `"state":"available"`, "", a, b)
	a.options("<show_mood>1</show_mood><show_tune>1</show_tune>")
	a.want(wantMood, wantTune)
	a.publishes(nsMood, mood("<happy/><text>at last</text>"))
	agree(t, `"mood_text":"at last"`, "", a, b)
	b.says("phone", "", "") // does not change what the first node has heard
	agree(t, `"mood_text":"at last"`, "", a, b)
	b.says("phone", "", "<show>dnd</show><priority>5</priority>")
	agree(t, `"mood_text":"at last"`, "", a, b)
	b.publishes(nsTune, tune("<title>Dance of the Knights</title>"))
	agree(t, `"tune_title":"Dance of the Knights"`, "", a, b)
	agree(t, `"mood_text":"at last"`, "", a, b)
	a.says("desk", "", "<show>away</show>")
	b.publishes(nsTune, "<retract id='current'/>")
	agree(t, `"mood_text":"at last"`, "Knights", a, b)
	b.publishes(nsMood, "<retract id='current'/>")
	agree(t, `"state":"dnd"`, "at last", a, b)

	b.publishes(nsMood, mood("<happy/><text>again</text>"))
	agree(t, `"mood_text":"again"`, "", a, b)
	a.options("<show_mood>0</show_mood>")
	a.want(wantTune)
	agree(t, `"state":"dnd"`, "again", a, b)
	stored := func(text string) func() bool {
		return func() bool {
			var n int
			err := a.db.sql.QueryRow("SELECT count(*) FROM resources WHERE resources LIKE '%" + text + "%'").Scan(&n)
			return err == nil && n == 0
		}
	}
	eventually(t, "the mood is deleted", stored("again"))
	b.publishes(nsTune, tune("<title>Dance of the Knights</title>"))
	agree(t, `"tune_title":"Dance of the Knights"`, "", a, b)
	a.says("desk", "type='unavailable'", "")
	b.says("phone", "type='unavailable'", "")
	agree(t, `"state":"unavailable"`, "Knights", a, b)
	eventually(t, "the tune is deleted", stored("Knights"))
}

// TestLastSeenInCluster checks when a user was last seen who comes at one node and goes at the other.
func TestLastSeenInCluster(t *testing.T) {
	t.Parallel()
	a, b := twoNodes(t, newPostgresDatabase(t))
	a.options("<show_last_seen>1</show_last_seen>")
	agree(t, `"state":"unavailable"`, "", a, b)
	for _, f := range []*fixture{a, b} {
		go io.Copy(io.Discard, f.stream) // requests for the last activity
	}
	for _, f := range []*fixture{a, b, a} {
		io.WriteString(f.stream, `<presence from='juliet@example.org/desk' to='webstatus.example.org'/>`)
		agree(t, `"state":"available"`, "last_seen", a, b)
		f.advance(time.Hour)
		io.WriteString(f.stream, `<presence from='juliet@example.org/desk' to='webstatus.example.org' type='unavailable'/>`)
		agree(t, `"last_seen":"`+f.now().Format("2006-01-02T15"), "", a, b)
	}
}

// TestClusterStart starts a node when others have been running for a while.
func TestClusterStart(t *testing.T) {
	t.Parallel()
	location := newPostgresDatabase(t)
	a, b := twoNodes(t, location)
	a.says("desk", "", "<show>away</show><status>lunch</status>")
	b.says("phone", "", "<show>dnd</show><status>train</status>")
	agree(t, `"phone"`, "", a, b)
	c := newNode(t, location, "c", nil)
	c.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
	for _, f := range []*fixture{a, b} { // the clients may have left since, and only the new node hears that
		f.want(wantProbe)
	}
	a.says("desk", "", "<show>away</show><status>lunch</status>")
	b.says("phone", "", "<show>dnd</show><status>train</status>")
	agree(t, `"phone"`, "as_of", a, b, c)
	agree(t, `"desk"`, "as_of", a, b, c)
}

// TestNodeIsReplaced checks what becomes of the users of a node that loses its link, and of one that stops. The leader probes them.
func TestNodeIsReplaced(t *testing.T) {
	t.Parallel()
	location := newPostgresDatabase(t)
	a, b := twoNodes(t, location)
	eventually(t, "one node leads", func() bool { return a.comp.registry.Leads() != b.comp.registry.Leads() })
	if b.comp.registry.Leads() {
		a, b = b, a
	}
	a.says("desk", "", "<show>away</show><status>lunch</status>")
	b.says("phone", "", "<show>dnd</show><priority>5</priority><status>train</status>")
	agree(t, `"phone"`, "", a, b)
	// A transaction of some other program that does not end delays nothing.
	other, err := pgx.Connect(t.Context(), location)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.Background())
	if _, err := other.Exec(t.Context(), "BEGIN; SELECT pg_current_xact_id()"); err != nil {
		t.Fatal(err)
	}
	a.says("desk", "", "<show>away</show><status>lunch later</status>")
	b.says("phone", "", "<show>dnd</show><priority>5</priority><status>late train</status>")
	agree(t, `late train`, "", a, b)

	b.server.listener.Close()
	b.stream.Close()
	a.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
	a.says("desk", "", "<show>away</show><status>lunch</status>")
	eventually(t, "the silent resource is gone, on both nodes", func() bool {
		_, here := a.get(julietPage + ".json")
		_, there := b.get(julietPage + ".json")
		return here == there && strings.Contains(here, `"away"`) && !strings.Contains(here, "phone") && !strings.Contains(here, "as_of")
	})

	c := newNode(t, location, "c", nil)
	c.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
	a.want(wantProbe) // the client may have left since, and only the new node hears that
	a.says("desk", "", "<show>away</show><status>lunch</status>")
	agree(t, `"lunch"`, "as_of", a, c)
	a.stop()
	c.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
	agree(t, `"state":"unavailable"`, "as_of", c)
	if !c.comp.registry.Leads() {
		t.Error("the last node does not lead")
	}
}

// TestClusterWithoutDatabase kills PostgreSQL under two nodes and starts it again. Meanwhile each shows since when it knows nothing of
// the other.
func TestClusterWithoutDatabase(t *testing.T) {
	t.Parallel()
	p := ownPostgres(t)
	a, b := twoNodes(t, p.newDatabase(t))
	a.says("desk", "", "<show>away</show><status>lunch</status>")
	agree(t, `"lunch"`, "as_of", a, b)
	p.end(syscall.SIGKILL)
	agree(t, `"as_of":"`, "", a, b)
	fromDesk, fromPhone := a.answerProbes(), b.answerProbes()
	fromDesk(`<presence from='juliet@example.org/desk' to='webstatus.example.org'><show>xa</show><status>holiday</status></presence>`)
	fromPhone(`<presence from='juliet@example.org/phone' to='webstatus.example.org'><show>dnd</show><status>train</status></presence>`)
	if err := p.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	agree(t, `"holiday"`, "as_of", a, b)
	agree(t, `"train"`, "as_of", a, b)
	for _, f := range []*fixture{a, b} {
		if strings.Contains(f.log.String(), postgresPassword) {
			t.Error("the password is in the log")
		}
	}
	stored, err := a.db.Heard(t.Context(), juliet)
	if err != nil || len(stored) != 2 {
		t.Errorf("%v %v", stored, err)
	}
}

// TestRegisterTwice registers one person at two nodes at the same time, with different options. Both are on.
func TestRegisterTwice(t *testing.T) {
	t.Parallel()
	a, b := twoNodes(t, newPostgresDatabase(t))
	for f, option := range map[*fixture]string{a: "show_full_jid", b: "show_nick"} {
		f.send(`<iq type='set' id='r' from='romeo@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><` + option + `>1</` + option + `></query></iq>`)
	}
	for _, f := range []*fixture{a, b} {
		f.wantAfterProbes(`<iq type='result' id='r' from='webstatus.example.org' to='romeo@example.org/b'></iq>`)
	}
	options := defaultOptions().with(fieldJID, true).with(fieldNick, true)
	eventually(t, "both nodes have the page with both options", func() bool {
		here, there := a.comp.board.byJID("romeo@example.org"), b.comp.board.byJID("romeo@example.org")
		return here != nil && there != nil && here.snapshot.Load().options == options && there.snapshot.Load().options == options
	})
}

// TestRegisterElsewhere has a node register a user whom another node has registered a moment ago through our other address.
func TestRegisterElsewhere(t *testing.T) {
	t.Parallel()
	const romeo = "romeo@example.org"
	a, b := twoNodes(t, newPostgresDatabase(t))
	b.comp.registry.cluster.lookUps.SetBurst(0)
	handling, handle := context.WithCancel(t.Context())
	defer handle()
	b.comp.dispatcher.dispatch(t.Context(), romeo, func(context.Context) { <-handling.Done() })
	register := `<iq type='set' id='r' from='romeo@example.org/b' to='%s'><query xmlns='jabber:iq:register'><show_nick>%d</show_nick></query></iq>`
	b.send(fmt.Sprintf(register, "bot@webstatus.example.org", 1))
	eventually(t, "the stanza waits", func() bool {
		d := b.comp.dispatcher
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.queues[romeo] != nil && len(d.queues[romeo].waiting) > 0
	})
	a.send(fmt.Sprintf(register, "webstatus.example.org", 0))
	a.want(`<iq type='result' id='r' …`)
	handle()
	eventually(t, "both nodes have the option and the address", func() bool {
		here, there := a.comp.board.byJID(romeo), b.comp.board.byJID(romeo)
		u, err := a.db.GetUser(t.Context(), romeo)
		return err == nil && u.Contact == ContactBot && u.Options.has(fieldNick) && here.snapshot.Load().options == u.Options && there.snapshot.Load().options == u.Options
	})
}

// TestClusterCutOff cuts the connection between a node and PostgreSQL without closing it. The other nodes continue; the node
// says since when it knows nothing of them, and has everything right once the connection is back.
func TestClusterCutOff(t *testing.T) {
	t.Parallel()
	location := newPostgresDatabase(t)
	server := fmt.Sprintf("127.0.0.1:%d", startedPostgres.Load().port)
	wire := newCable(t, server)
	a := newNode(t, location, "a", nil)
	b := newNode(t, strings.Replace(location, server, wire.address(), 1), "b", nil)
	eventually(t, "the nodes know each other", func() bool { return a.comp.board.link.Load().elsewhere && b.comp.board.link.Load().elsewhere })
	a.register("<show_status_msg>1</show_status_msg><show_resources>1</show_resources>")
	b.want(wantProbe)
	a.says("desk", "", "<show>away</show><status>lunch</status>")
	agree(t, `"lunch"`, "as_of", a, b)
	wire.die()
	agree(t, `"as_of":"`, "", b)
	a.says("desk", "", "<show>xa</show><status>holiday</status>")
	b.answerProbes()(`<presence from='juliet@example.org/phone' to='webstatus.example.org'><show>dnd</show><status>train</status></presence>`)
	agree(t, `"holiday"`, "as_of", a)
	wire.plug()
	agree(t, `"train"`, "as_of", a, b)
	agree(t, `"holiday"`, "as_of", a, b)
}

// TestFailover has a node follow its database to a replica that is promoted after the primary was killed. What was confirmed is there, since
// the primary waited for the replica, and changes are stored again.
func TestFailover(t *testing.T) {
	t.Parallel()
	primary := ownPostgres(t)
	location := primary.newDatabase(t)
	replica := newReplica(t, primary, freePort(t))
	both := fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d", primary.port, replica.port)
	a := newNode(t, strings.Replace(location, fmt.Sprintf("127.0.0.1:%d", primary.port), both, 1)+"?target_session_attrs=read-write", "a", nil)
	a.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'/></iq>`)
	a.want(`<iq type='result' id='r' …`)
	primary.end(syscall.SIGKILL)
	if err := replica.execute(replica.url("postgres"), "SELECT pg_promote()"); err != nil {
		t.Fatal(err)
	}
	options := optionChange{}.with(fieldJID, true)
	eventually(t, "a change is stored in the replica", func() bool {
		stored := make(chan error, 1)
		a.comp.dispatcher.dispatch(t.Context(), juliet, func(ctx context.Context) {
			stored <- a.comp.registry.SetOptions(ctx, a.comp.board.byJID(juliet), options, "")
		})
		return <-stored == nil
	})
	db, err := openDatabase(t.Context(), replica.url(databaseIn(location)), false)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if u, err := db.GetUser(t.Context(), juliet); err != nil || !u.Options.has(fieldJID) {
		t.Errorf("the replica has %+v: %v", u, err)
	}
}

// TestSilentServer has nodes reach their database although the first host of the URL accepts connections but answers nothing, from the start
// or from some time on. A node without another host reports it.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	location := newPostgresDatabase(t)
	server := fmt.Sprintf("127.0.0.1:%d", startedPostgres.Load().port)
	wire := newCable(t, server)
	both := strings.Replace(location, server, wire.address()+","+server, 1)
	a := newNode(t, both, "a", nil)
	a.register("<show_status_msg>1</show_status_msg>")
	says := a.answerProbes()
	says(`<presence from='juliet@example.org/desk' to='webstatus.example.org'><status>lunch</status></presence>`)
	wire.die()
	b := newNode(t, both, "b", nil)
	b.want(wantProbe)
	says(`<presence from='juliet@example.org/desk' to='webstatus.example.org'><status>holiday</status></presence>`)
	agree(t, `"holiday"`, "as_of", a, b)
	db, err := joinDatabase(t.Context(), strings.Replace(location, server, wire.address(), 1), "c")
	if err == nil {
		db.Close()
	}
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("a node without another host: %v", err)
	}
}

// TestRestoredDatabase restores a dump on another server, which does not know the transactions of its rows yet. They are not new for ever, and
// presence among them can be replaced.
func TestRestoredDatabase(t *testing.T) {
	t.Parallel()
	location := newPostgresDatabase(t)
	// Transactions of the new server have smaller ids.
	if err := startedPostgres.Load().execute(location, "DO 'BEGIN FOR i IN 1..10000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END'"); err != nil {
		t.Fatal(err)
	}
	a := newNode(t, location, "a", nil)
	a.register("")
	a.says("desk", "", "")
	a.options("<show_nick>1</show_nick>")
	a.want(wantNick)
	a.says("desk", "", "<nick xmlns='http://jabber.org/protocol/nick'>Jule</nick>")
	a.send(`<iq type='set' id='r' from='romeo@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'/></iq>`)
	a.want(`<iq type='result' id='r' …`)
	if err := a.db.DeleteUser(t.Context(), "romeo@example.org"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the nickname is stored", func() bool {
		u, err := a.db.GetUser(t.Context(), juliet)
		return err == nil && u.Profile.orEmpty().Nick == "Jule"
	})
	a.stop()
	dump := exec.Command(postgresProgram("pg_dump"), "--no-owner", location)
	dump.Stderr = os.Stderr
	saved, err := dump.Output()
	if err != nil {
		t.Fatal(err)
	}
	location = ownPostgres(t).newDatabase(t)
	restore := exec.Command(postgresProgram("psql"), "--quiet", "--set=ON_ERROR_STOP=1", location)
	restore.Stdin = bytes.NewReader(saved)
	if out, err := restore.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	b, err := joinDatabase(t.Context(), location, "b")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	snapshot, err := b.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if again, _, err := b.shared.first.changes(t.Context(), snapshot, false); err != nil || len(again.users)+len(again.presence) != 0 {
		t.Errorf("what was restored is new: %+v %v", again, err)
	}
	if jids, err := b.ReleaseOrphans(t.Context(), "a", snapshot); err != nil || len(jids) != 1 {
		t.Errorf("released %v %v", jids, err)
	}
}

// TestMigratedMeanwhile has a node return to a database that another version has migrated. The node ends instead of changing it.
func TestMigratedMeanwhile(t *testing.T) {
	t.Parallel()
	location := newPostgresDatabase(t)
	p := startedPostgres.Load()
	f := newNode(t, location, "a", nil)
	f.stop()
	for version, want := range map[int]error{99: errNewerSchema, 1: errOlderSchema} {
		db, err := joinDatabase(t.Context(), location, "a")
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		users, err := newRegistry(t.Context(), registryConfig{now: f.now, random: f.random, log: f.conf.log}, db)
		if err != nil {
			t.Fatal(err)
		}
		set := func(version int) {
			if err := p.execute(location, fmt.Sprintf("UPDATE webstatus SET version = %d", version)); err != nil {
				t.Fatal(err)
			}
		}
		set(version)
		if err := p.execute(location, fmt.Sprintf("SELECT pg_terminate_backend(%d)", db.shared.pid)); err != nil {
			t.Fatal(err)
		}
		if err := newComponent(f.conf, users).run(t.Context()); !errors.Is(err, want) {
			t.Errorf("the node ended: %v", err)
		}
		set(len(postgresDialect.migrations))
		db.Close()
	}
}

// TestForgottenNode checks that nothing is left of a node that is forgotten. Its rows are deleted some at a time.
func TestForgottenNode(t *testing.T) {
	t.Parallel()
	db, err := joinDatabase(t.Context(), newPostgresDatabase(t), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	users := make([]User, purgeBatch+1)
	for i := range users {
		users[i] = User{JID: fmt.Sprintf("user%d@example.org", i), Token: Token{byte(i), byte(i >> 8)}, Subscription: SubscriptionBoth}
	}
	if _, _, err := db.InsertUsers(t.Context(), users); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"INSERT INTO resources (jid, node, resources) SELECT jid, name, '[]' FROM users, unnest(ARRAY['a', 'gone', 'late']) AS name",
		"INSERT INTO nodes VALUES ('a', clock_timestamp(), true), ('late', clock_timestamp(), false), ('gone', clock_timestamp() - interval '25 hours', false)",
	} {
		if _, err := db.sql.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []map[string]int{{"a": len(users), "late": len(users), "gone": 1}, {"a": len(users), "late": len(users)}, {"a": len(users), "late": len(users)}} {
		if err := db.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := make(map[string]int)
		err := query(t.Context(), db.sql, func(scan func(...any) error) error {
			var node string
			var n int
			err := scan(&node, &n)
			got[node] = n
			return err
		}, "SELECT node, count(*) FROM resources GROUP BY node")
		if err != nil || !cmp.Equal(want, got) {
			t.Errorf("%d: %v %s", i, err, cmp.Diff(want, got))
		}
		var known int
		if err := db.sql.QueryRow("SELECT count(*) FROM nodes").Scan(&known); err != nil || known != len(want) {
			t.Errorf("%d: %d nodes are known, want %d: %v", i, known, len(want), err)
		}
	}
}

// newReplica starts a streaming replica of a server, which confirms nothing from then on that the replica does not have.
func newReplica(t *testing.T, primary *postgresServer, port int) *postgresServer {
	t.Helper()
	dir, err := os.MkdirTemp("", "webstatus-postgres-")
	if err != nil {
		t.Fatal(err)
	}
	r := &postgresServer{dir: dir, password: primary.password, port: port}
	t.Cleanup(r.remove)
	if os.Getuid() == 0 {
		if err := os.Chown(dir, uidNobody, uidNobody); err != nil {
			t.Fatal(err)
		}
	}
	backup := postgresCommand(t.Context(), "pg_basebackup", "-d", primary.url("postgres"), "-D", filepath.Join(dir, "data"), "-R", "--checkpoint=fast", "--no-sync")
	if out, err := backup.CombinedOutput(); err != nil {
		t.Fatalf("pg_basebackup: %v: %s", err, out)
	}
	if err := r.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	location := primary.url("postgres")
	for _, command := range []string{"ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"} {
		if err := primary.execute(location, command); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the primary waits for the replica", func() bool {
		return primary.execute(location, "SELECT 1 / count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == nil // not a division by zero
	})
	return r
}
