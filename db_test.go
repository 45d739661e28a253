package main

import (
	"context"
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// openTestDatabase opens an SQLite database.
func openTestDatabase(t *testing.T) (*database, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "webstatus.db")
	return openAt(t, path), path
}

// openAt opens a database, and creates it if it is missing.
func openAt(t *testing.T, location string) *database {
	t.Helper()
	db, err := openDatabase(t.Context(), location, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestUsers(t *testing.T) {
	eachEngine(t, func(t *testing.T, location string) { testUsers(t, openAt(t, location)) })
}

func testUsers(t *testing.T, db *database) {
	ctx := t.Context()
	if _, err := db.GetUser(ctx, juliet); !errors.Is(err, ErrNotFound) {
		t.Errorf("before registration: %v", err)
	}
	u := User{JID: juliet, Token: Token{1}, Options: setOf(fieldJID), Subscription: SubscriptionNone, Asked: true, Created: noon}
	replace := func(ctx context.Context, u User) error {
		_, err := db.UpdateUser(ctx, u.JID, func(stored *User) { *stored = u })
		return err
	}
	if err := replace(ctx, u); !errors.Is(err, ErrNotFound) {
		t.Errorf("update before registration: %v", err)
	}
	for _, store := range []func(context.Context, User) error{db.InsertUser, replace} {
		if err := store(ctx, u); err != nil {
			t.Fatal(err)
		}
		if err := db.InsertUser(ctx, u); !errors.Is(err, ErrExists) || db.failing() != nil {
			t.Errorf("registered again: %v, and the database fails: %+v", err, db.failing())
		}
		got, err := db.GetUser(ctx, juliet)
		if diff := cmp.Diff(u, got.User); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
		u.Options, u.Subscription, u.Asked, u.Token = setOf(fieldMessage, fieldJIDLink, fieldResources), SubscriptionBoth, false, Token{2}
		u.Lang, u.Gone, u.Contact, u.Granted = "de", noon, ContactBot, ContactBot
	}
	profile := &Profile{Nick: "Jule", Avatar: &Avatar{ID: "x", Source: AvatarPEP, Data: []byte("picture")}}
	status := Status{State: Away, Since: at(1), Messages: []Text{{"de", "Mittag"}}}
	if err := db.StorePresence(ctx, presenceBatch{statuses: map[string]Status{juliet: status, "nobody@example.org": {State: Chat}},
		profiles: map[string]*Profile{juliet: profile, "nobody@example.org": profile}}); err != nil {
		t.Fatal(err)
	}
	var all []StoredUser
	for got, err := range db.Users(ctx, userFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, got)
	}
	stored := u
	if diff := cmp.Diff([]StoredUser{{stored, status, profile}}, all); diff != "" {
		t.Error(diff)
	}

	if err := db.DeleteUser(ctx, juliet); err != nil {
		t.Fatal(err)
	}
	if err := db.DeleteUser(ctx, juliet); !errors.Is(err, ErrNotFound) {
		t.Errorf("second removal: %v", err)
	}
	if w, err := db.Withdrawals(ctx, true); err != nil || !cmp.Equal(w, []string{juliet}) {
		t.Errorf("withdrawals: %v %v", w, err)
	}
	if err := db.InsertUser(ctx, u); err != nil {
		t.Fatal(err)
	}
	if w, err := db.Withdrawals(ctx, true); err != nil || len(w) != 0 {
		t.Errorf("withdrawals after registering again: %v %v", w, err)
	}
	if got, err := db.GetUser(ctx, juliet); err != nil || got.Status.State != Unknown {
		t.Errorf("the presence was not deleted: %v %v", got, err)
	}
}

// TestUserFilter lists users by parts of their JIDs and by states, in the order of the JIDs' bytes.
func TestUserFilter(t *testing.T) {
	eachEngine(t, func(t *testing.T, location string) {
		db := openAt(t, location)
		var users []User
		statuses := make(map[string]Status)
		for i, bare := range []string{"Z@example.org", "a%_@example.org", "a@example.org", "b@example.org", "é@example.org"} {
			users = append(users, User{JID: bare, Token: Token{byte(i)}, Subscription: SubscriptionNone, Created: noon})
			statuses[bare] = Status{State: []State{Away, Chat, Unavailable}[i%3]}
		}
		if n, existing, err := db.InsertUsers(t.Context(), users); n != len(users) || existing != nil || err != nil {
			t.Fatalf("%d %v %v", n, existing, err)
		}
		if err := db.StorePresence(t.Context(), presenceBatch{statuses: statuses}); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			filter userFilter
			want   []string
		}{
			{userFilter{}, []string{"Z@example.org", "a%_@example.org", "a@example.org", "b@example.org", "é@example.org"}},
			{userFilter{match: "%_"}, []string{"a%_@example.org"}},
			{userFilter{match: "a", limit: 2}, []string{"Z@example.org", "a%_@example.org"}},
			{userFilter{after: "a@example.org"}, []string{"b@example.org", "é@example.org"}},
			{userFilter{states: []State{Away, Unavailable}, after: "Z@example.org", limit: 2}, []string{"a@example.org", "b@example.org"}},
		} {
			var got []string
			for u, err := range db.Users(t.Context(), tt.filter) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, u.JID)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%+v: %s", tt.filter, diff)
			}
		}
		users[0].Token = Token{100}
		more := append(users[:1:1], User{JID: "c@example.org", Token: Token{101}, Subscription: SubscriptionNone, Created: noon})
		if n, existing, err := db.InsertUsers(t.Context(), more); n != 1 || !cmp.Equal(existing, []string{"Z@example.org"}) || err != nil {
			t.Errorf("registered again: %d %v %v", n, existing, err)
		}
		more = []User{{JID: "d@example.org", Token: Token{102}, Subscription: SubscriptionNone}, {JID: "e@example.org", Token: Token{101}, Subscription: SubscriptionNone}}
		if _, _, err := db.InsertUsers(t.Context(), more); err == nil {
			t.Error("two users have one token")
		}
		if _, err := db.GetUser(t.Context(), "d@example.org"); !errors.Is(err, ErrNotFound) {
			t.Errorf("half of the users were registered: %v", err)
		}
	})
}

// TestStores checks the operations that concern no single user.
func TestStores(t *testing.T) {
	eachEngine(t, func(t *testing.T, location string) {
		db := openAt(t, location)
		ctx := t.Context()
		if seen, err := db.LinkSeen(ctx); err != nil || !seen.IsZero() {
			t.Errorf("the link has never been up: %v %v", seen, err)
		}
		for i := range 2 {
			if err := db.StorePresence(ctx, presenceBatch{linkSeen: at(i)}); err != nil {
				t.Fatal(err)
			}
			if seen, err := db.LinkSeen(ctx); err != nil || !seen.Equal(at(i)) {
				t.Errorf("the link was seen at %v, %v", seen, err)
			}
		}
		u := User{JID: juliet, Token: Token{1}, Options: setOf(fieldNick), Subscription: SubscriptionBoth, Created: noon}
		if err := db.InsertUser(ctx, u); err != nil {
			t.Fatal(err)
		}
		stored := StoredUser{u, Status{State: Chat, Since: noon}, &Profile{Nick: "Jule"}}
		updateOptions := func() {
			t.Helper()
			change, kept := func(u *User) { u.Options = stored.Options }, func(fieldSet) (Status, *Profile) { return stored.Status, stored.Profile }
			if u, err := db.UpdateOptions(ctx, juliet, change, kept); err != nil || u != stored.User {
				t.Fatalf("%+v %v", u, err)
			}
		}
		updateOptions()
		if got, err := db.GetUser(ctx, juliet); err != nil || !cmp.Equal(got, stored) {
			t.Errorf("%v %s", err, cmp.Diff(got, stored))
		}
		stored.Profile = nil
		updateOptions()
		if got, err := db.GetUser(ctx, juliet); err != nil || got.Profile != nil {
			t.Errorf("the profile was not deleted: %v %v", got.Profile, err)
		}
		before, err := db.DataVersion(ctx, true)
		if err != nil {
			t.Fatal(err)
		}
		other := openAt(t, location)
		if err := other.DeleteUser(ctx, juliet); err != nil {
			t.Fatal(err)
		}
		if after, err := db.DataVersion(ctx, true); err != nil || after == before {
			t.Errorf("a removal by another process is not noticed: %v", err)
		}
		if _, err := db.GetWithdrawal(ctx, juliet); err != nil {
			t.Errorf("no withdrawal: %v", err)
		}
		if err := db.DeleteWithdrawal(ctx, juliet); err != nil {
			t.Fatal(err)
		}
		if _, err := db.GetWithdrawal(ctx, juliet); !errors.Is(err, ErrNotFound) {
			t.Errorf("still a withdrawal: %v", err)
		}
	})
}

// TestConcurrentUpdates changes different things of one user at the same time. No change is lost.
func TestConcurrentUpdates(t *testing.T) {
	eachEngine(t, func(t *testing.T, location string) {
		db := openAt(t, location)
		if err := db.InsertUser(t.Context(), User{JID: juliet, Subscription: SubscriptionNone, Created: noon}); err != nil {
			t.Fatal(err)
		}
		var g sync.WaitGroup
		for i, f := range fields {
			if f.option == "" {
				continue
			}
			g.Go(func() {
				if _, err := db.UpdateUser(t.Context(), juliet, func(u *User) { u.Options = u.Options.with(i, true) }); err != nil {
					t.Error(err)
				}
			})
		}
		g.Wait()
		if u, err := db.GetUser(t.Context(), juliet); err != nil || len(optionNames(u.Options)) != len(optionNames(allFields)) {
			t.Errorf("options %v, %v", optionNames(u.Options), err)
		}
	})
}

// TestDurable checks the settings that keep committed transactions across a power failure.
func TestDurable(t *testing.T) {
	db, _ := openTestDatabase(t)
	var journal string
	var synchronous int
	if err := db.sql.QueryRow("SELECT journal_mode, synchronous FROM pragma_journal_mode, pragma_synchronous").Scan(&journal, &synchronous); err != nil {
		t.Fatal(err)
	}
	if journal != "wal" || synchronous != 2 {
		t.Errorf("journal %s, synchronous %d, want wal and 2 (FULL)", journal, synchronous)
	}
	var commit string
	location := newPostgresDatabase(t)
	if err := startedPostgres.Load().execute(location, "ALTER ROLE webstatus IN DATABASE "+databaseIn(location)+" SET synchronous_commit = off"); err != nil {
		t.Fatal(err)
	}
	if err := openAt(t, location).sql.QueryRow("SHOW synchronous_commit").Scan(&commit); err != nil || commit != "on" {
		t.Errorf("synchronous_commit is %s (%v)", commit, err)
	}
}

// TestSchemaComments checks that every column has a comment.
func TestSchemaComments(t *testing.T) {
	column := regexp.MustCompile(` (TEXT|INTEGER|BLOB|BYTEA|BIGINT|SMALLINT|BOOLEAN)\b`)
	for line := range strings.Lines(schema + schemaPostgres) {
		line = strings.TrimSpace(line)
		if column.MatchString(line) && !strings.Contains(line, " -- ") {
			t.Errorf("no comment: %s", line)
		}
	}
}

func TestFailingDatabase(t *testing.T) { eachEngine(t, testFailingDatabase) }

func testFailingDatabase(t *testing.T, location string) {
	f := newFixtureOn(t, location, nil)
	f.register("")
	f.says("b", "", "")
	repair := f.breakDatabase()
	for _, query := range []string{`<show_full_jid>1</show_full_jid>`, `<remove/>`} {
		f.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'>` + query + `</query></iq>`)
		if got := f.next(); !strings.Contains(got, "<error code='500' type='wait'><internal-server-error") {
			t.Errorf("%s: %s", query, got)
		}
	}
	if _, body := f.get(julietPage + ".json"); !strings.Contains(body, `"available"`) || strings.Contains(body, juliet) {
		t.Errorf("uncommitted state is shown: %s", body)
	}
	repair()
}
