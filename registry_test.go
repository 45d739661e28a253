package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"
)

// breakDatabase makes every write fail until repair is called.
func (f *fixture) breakDatabase() (repair func()) {
	f.t.Helper()
	execute := func(statement string) {
		f.t.Helper()
		if _, err := f.db.sql.ExecContext(context.Background(), statement); err != nil {
			f.t.Fatal(err)
		}
	}
	if isPostgres(f.dbPath) {
		execute("ALTER TABLE users RENAME TO elsewhere")
		return func() { execute("ALTER TABLE elsewhere RENAME TO users") }
	}
	execute("PRAGMA query_only = 1")
	return func() { execute("PRAGMA query_only = 0") }
}

// TestRemovalIsFinal checks a subscription change by a user whom another process has removed, before the component notices the removal.
func TestRemovalIsFinal(t *testing.T) { eachEngine(t, testRemovalIsFinal) }

func testRemovalIsFinal(t *testing.T, location string) {
	f := newFixtureOn(t, location, func(c *componentConfig) { c.syncTimes.poll = time.Hour })
	f.register("")
	f.settled(juliet)
	if err := f.db.DeleteUser(t.Context(), juliet); err != nil {
		t.Fatal(err)
	}
	f.send(`<presence type='subscribe' from='juliet@example.org' to='webstatus.example.org'/>`)
	f.settled(juliet) // no confirmation
	if _, err := f.db.GetUser(t.Context(), juliet); !errors.Is(err, ErrNotFound) {
		t.Errorf("the user is back: %v", err)
	}
	if w, err := f.db.Withdrawals(t.Context(), true); err != nil || len(w) != 1 {
		t.Errorf("withdrawals: %v %v", w, err)
	}
	if resp, _ := f.get(julietPage); resp.StatusCode != 404 {
		t.Errorf("the page is still there: %s", resp.Status)
	}
}

// TestSubscriptionIsStoredFirst checks that a subscription is confirmed only after it was written to the database.
func TestSubscriptionIsStoredFirst(t *testing.T) { eachEngine(t, testSubscriptionIsStoredFirst) }

func testSubscriptionIsStoredFirst(t *testing.T, location string) {
	f := newFixtureOn(t, location, nil)
	f.register("")
	f.settled(juliet)
	repair := f.breakDatabase()
	for range 2 {
		f.send(`<presence type='subscribe' from='juliet@example.org' to='webstatus.example.org'/>`)
		f.settled(juliet) // not confirmed
	}
	repair()
	f.send(`<presence type='subscribe' from='juliet@example.org' to='webstatus.example.org'/>`)
	f.want(`<presence type='subscribed' from='webstatus.example.org' to='juliet@example.org'></presence>`)
}

// TestOptionsDeleteAtOnce checks that disabling an option deletes its stored data before the change is confirmed.
func TestOptionsDeleteAtOnce(t *testing.T) { eachEngine(t, testOptionsDeleteAtOnce) }

func testOptionsDeleteAtOnce(t *testing.T, location string) {
	f := newFixtureOn(t, location, func(c *componentConfig) { c.syncTimes.save = time.Hour })
	f.register("")
	f.says("b", "", "")
	f.options("<show_nick>1</show_nick><show_status_msg>1</show_status_msg><show_mood>1</show_mood><show_tune>1</show_tune>")
	f.want(wantNick, wantMood, wantTune)
	f.says("b", "", "<status>secret message</status><nick xmlns='http://jabber.org/protocol/nick'>Jule</nick>")
	f.publishes(nsMood, mood("<happy/><text>secret mood</text>"))
	f.publishes(nsTune, tune("<title>Dance of the Knights</title>"))
	f.comp.registry.SavePresence(t.Context())
	heard := func(text string) (n int) {
		t.Helper()
		if f.comp.registry.cluster != nil {
			if err := f.db.sql.QueryRow("SELECT count(*) FROM resources WHERE strpos(resources, $1) > 0", text).Scan(&n); err != nil {
				t.Fatal(err)
			}
		}
		return n
	}
	if f.comp.registry.cluster != nil { // another node has heard the same, and is gone
		eventually(t, "the presence is stored", func() bool { return heard("secret message")*heard("secret mood")*heard("Knights") == 1 })
		if _, err := f.db.sql.Exec("INSERT INTO resources (jid, node, resources) SELECT jid, 'z', resources FROM resources"); err != nil {
			t.Fatal(err)
		}
	}
	u, err := f.db.GetUser(t.Context(), juliet)
	if err != nil || u.Profile == nil || len(u.Status.Messages) != 1 {
		t.Fatalf("not stored: %+v %v", u, err)
	}
	f.options("<show_nick>0</show_nick><show_status_msg>0</show_status_msg><show_mood>0</show_mood>")
	if n := heard("secret"); n != 0 {
		t.Errorf("%d nodes still have a message or a mood", n)
	}
	if isPostgres(location) && heard("Knights") != 2 {
		t.Error("the tune is gone, too")
	}
	if u, err = f.db.GetUser(t.Context(), juliet); err != nil || u.Profile != nil || len(u.Status.Messages) != 0 {
		t.Errorf("still stored: %+v %v", u, err)
	}
}

// inspect calls read with Juliet's entry, in her queue, once her stanzas are handled.
func (f *fixture) inspect(read func(e *entry)) {
	f.t.Helper()
	f.settled(juliet)
	done := make(chan struct{})
	f.comp.dispatcher.dispatch(f.t.Context(), juliet, func(context.Context) {
		defer close(done)
		read(f.comp.board.byJID(juliet))
	})
	<-done
}

// TestMessagesAreDropped checks that a message is kept in memory only while it is shown, and that switching the option on brings it back.
func TestMessagesAreDropped(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	wantMessages := func(want int) {
		t.Helper()
		f.inspect(func(e *entry) {
			n := len(e.snapshot.Load().status.Messages)
			for _, p := range e.resources {
				n += len(p.Messages)
			}
			if n != want {
				t.Errorf("%d messages are kept, want %d", n, want)
			}
		})
	}
	const lunch = "<status>lunch</status>"
	f.says("b", "", lunch)
	wantMessages(0)
	f.options("<show_status_msg>1</show_status_msg>")
	f.replays("b", lunch)
	wantMessages(2)
	if got := f.status().Message; got != "lunch" {
		t.Errorf("%q is shown after switching the option on", got)
	}
	f.options("<show_status_msg>0</show_status_msg>")
	wantMessages(0)
}

// TestPresenceBudget checks the memory that the presence of one user can take up, and the account of that of all users.
func TestPresenceBudget(t *testing.T) {
	f := newFixture(t, nil)
	f.register("<show_status_msg>1</show_status_msg><show_resources>1</show_resources>")
	total := &f.comp.registry.presenceBytes
	wantSize := func(most, resources int) {
		t.Helper()
		f.inspect(func(e *entry) {
			if size := e.resources.size(); size > most || len(e.resources) < resources || total.Load()%maxAllPresence != int64(size) {
				t.Errorf("%d bytes of %d resources, %d of all users", size, len(e.resources), total.Load())
			}
		})
	}
	var statuses strings.Builder
	for i := range maxLanguages {
		fmt.Fprintf(&statuses, "<status xml:lang='l%d'>%s</status>", i, strings.Repeat("x", maxMessageSize))
	}
	for i := range maxResources {
		f.send(fmt.Sprintf(`<presence from='juliet@example.org/%d' to='webstatus.example.org'>%s</presence>`, i, &statuses))
	}
	wantSize(maxPresence, maxResources)
	f.inspect(func(e *entry) {
		if len(e.resources[maxResources-1].Messages) == 0 || len(e.resources[0].Messages) > 0 {
			t.Error("not the messages of the newest presence are kept")
		}
	})
	for i := range maxResources {
		f.send(fmt.Sprintf(`<presence from='juliet@example.org/%s%d' to='webstatus.example.org'/>`, strings.Repeat("n", 1000), i))
	}
	wantSize(maxPresence, 2)
	total.Add(maxAllPresence)
	f.says("b", "", statuses.String())
	wantSize(scarcePresence, 1)
	total.Add(-maxAllPresence)
	f.send(`<presence from='juliet@example.org' type='unavailable' to='webstatus.example.org'/>`)
	wantSize(0, 0)
}

// TestLongStanzas checks that short texts do not keep the stanzas in memory that they were a part of.
func TestLongStanzas(t *testing.T) {
	f := newFixture(t, nil)
	f.register("<show_status_msg>1</show_status_msg><show_resources>1</show_resources>")
	const resources = 40
	padding := strings.Repeat(" ", 200<<10)
	send := func(i int) {
		f.send(fmt.Sprintf(`<presence from='juliet@example.org/%d' to='webstatus.example.org'><status>hi%s</status></presence>`, i, padding))
		f.settled(juliet)
	}
	send(0) // buffers grow
	before := heapSize()
	for i := range resources {
		send(i)
	}
	if kept := heapSize() - before; kept > 1<<20 {
		t.Errorf("%d bytes are kept", kept)
	}
	f.inspect(func(e *entry) {
		if len(e.resources) != resources || e.resources[0].Messages[0].Body != "hi" {
			t.Errorf("%d resources", len(e.resources))
		}
	})
}

// TestClockSetBack starts with times in the database that are in the future now.
func TestClockSetBack(t *testing.T) {
	db, _ := openTestDatabase(t)
	u := User{JID: juliet, Token: Token{1}, Subscription: SubscriptionBoth, Created: noon}
	if err := errors.Join(db.InsertUser(t.Context(), u),
		db.StorePresence(t.Context(), presenceBatch{statuses: map[string]Status{juliet: {State: Away, Since: noon}}, linkSeen: noon})); err != nil {
		t.Fatal(err)
	}
	now := noon.Add(-24 * time.Hour)
	r, err := newRegistry(t.Context(), registryConfig{now: func() time.Time { return now }, log: slog.New(slog.DiscardHandler)}, db)
	if err != nil {
		t.Fatal(err)
	}
	if since := r.board.byJID(juliet).snapshot.Load().status.Since; since.After(now) {
		t.Errorf("away since %v, in the future", since)
	}
	if down := r.board.link.Load().downSince; down.After(now) {
		t.Errorf("the link is down since %v, in the future: the status would not expire", down)
	}
}

// TestFutureStamps sends times that are in the future.
func TestFutureStamps(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	f.options("<show_last_seen>1</show_last_seen>")
	const stamp = `<delay xmlns='urn:xmpp:delay' stamp='9999-12-31T23:59:59Z'/>`
	f.says("b", "", stamp+`<idle xmlns='urn:xmpp:idle:1' since='9999-12-31T23:59:59Z'/>`)
	if s := f.status(); s.Since == "" || s.Since > formatTime(f.now()) || s.Idle != "" {
		t.Errorf("%+v", s)
	}
	f.says("b", "type='unavailable'", stamp)
	if s := f.status(); s.Seen != formatTime(f.now().Truncate(time.Minute)) {
		t.Errorf("%+v", s)
	}
}

// TestFailureLog checks the log of a failure that repeats for two minutes.
func TestFailureLog(t *testing.T) {
	var lines strings.Builder
	now := noon
	f := failureLog{log: slog.New(slog.NewTextHandler(&lines, nil)), now: func() time.Time { return now }, what: "the database"}
	for range 120 {
		f.report(t.Context(), "storing", errors.New("cannot grow"))
		now = now.Add(time.Second)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	f.report(ended, "storing", ended.Err()) // a shutdown
	f.report(t.Context(), "storing", nil)
	f.report(t.Context(), "storing", nil)
	got := strings.Count(lines.String(), "cannot grow")
	if got != 2 || strings.Contains(lines.String(), "canceled") || strings.Count(lines.String(), "works again") != 1 {
		t.Errorf("logged:\n%s", &lines)
	}
}

// TestFullDisk checks that failing writes are logged once, not at each attempt.
func TestFullDisk(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	repair := f.breakDatabase()
	f.says("b", "", "<show>away</show>")
	eventually(t, "the failure is logged", func() bool { return strings.Contains(f.log.String(), "level=ERROR") })
	for range 10 {
		f.comp.registry.SavePresence(t.Context())
	}
	if n := strings.Count(f.log.String(), "level=ERROR"); n != 1 {
		t.Errorf("%d errors are logged:\n%s", n, f.log)
	}
	repair()
	eventually(t, "the recovery is logged", func() bool { return strings.Contains(f.log.String(), "the database works again") })
}

// TestUnreachableDatabase kills PostgreSQL under a component. Pages are served, registrations are to be tried again, and nothing is
// confirmed that is not stored.
func TestUnreachableDatabase(t *testing.T) {
	t.Parallel()
	p := ownPostgres(t)
	// A node that returns to its database probes those who are online. Silence is to mean nothing.
	f := newFixtureOn(t, p.newDatabase(t), func(c *componentConfig) { c.syncTimes.probe = time.Hour })
	const romeo = `<iq type='set' id='r' from='romeo@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><show_full_jid>1</show_full_jid></query></iq>`
	kill := func() {
		t.Helper()
		p.end(syscall.SIGKILL)
		f.send(romeo)
		if got := f.next(); !strings.Contains(got, "<error code='500' type='wait'><resource-constraint") {
			t.Errorf("registration: %s", got)
		}
		health := collector{f.comp, f.site, f.db}.health(t.Context())
		if health.OK || !strings.Contains(health.Database.Problem, "is not reachable") || health.Database.Since == "" {
			t.Errorf("health: %+v", health)
		}
	}
	restart := func() {
		t.Helper()
		if err := p.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the database is healthy", func() bool { return collector{f.comp, f.site, f.db}.health(t.Context()).Database.OK })
	}
	kill()
	restart() // nothing is stored, since there is no user
	f.register("")
	f.says("b", "", "<show>away</show>")
	kill()
	if _, body := f.get(julietPage + ".json"); !strings.Contains(body, `"away"`) {
		t.Errorf("page: %s", body)
	}
	f.says("b", "", "<show>dnd</show>")
	restart()
	eventually(t, "the presence is stored", func() bool {
		u, err := f.db.GetUser(t.Context(), juliet)
		return err == nil && u.Status.State == DoNotDisturb
	})
	f.send(romeo)
	f.wantAfterProbes(`<iq type='result' id='r' from='webstatus.example.org' to='romeo@example.org/b'></iq>`)
	if strings.Contains(f.log.String(), postgresPassword) {
		t.Error("the password is in the log")
	}
}

// TestReadAhead checks that users are added in order, and that an error ends reading.
func TestReadAhead(t *testing.T) {
	for _, size := range []int{0, 1, 255, 256, 257, 1000} {
		failure := errors.New("failed")
		users := func(yield func(StoredUser, error) bool) {
			for i := range size {
				if !yield(StoredUser{User: User{JID: fmt.Sprint(i)}}, nil) {
					return
				}
			}
			if size == 1000 {
				yield(StoredUser{}, failure)
			}
		}
		added := 0
		err := readAhead(users, func(u *StoredUser) {
			if u.JID != fmt.Sprint(added) {
				t.Errorf("%s was added after %d others", u.JID, added)
			}
			added++
		})
		switch {
		case size == 1000 && !errors.Is(err, failure):
			t.Errorf("error %v", err)
		case size < 1000 && (err != nil || added != size):
			t.Errorf("%d of %d users were added, error %v", added, size, err)
		}
	}
}
