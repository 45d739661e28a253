package main

import (
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestReplacedFile deletes the database file and those beside it, replaces them, and lets another process create them again, while they are in
// use.
func TestReplacedFile(t *testing.T) {
	register := func(f *fixture, who string) string {
		f.send(`<iq type='set' id='r' from='` + who + `/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'/></iq>`)
		return f.next()
	}
	deleted := func(*testing.T, string, string) {}
	replaced := func(t *testing.T, _, file string) {
		content, err := os.ReadFile(filepath.Join(filepath.Dir(file), "away"))
		if err := errors.Join(err, os.WriteFile(file, content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	recreated := func(t *testing.T, path, file string) {
		exec.Command(need(t, "webstatus"), "users", "list", "--db", path).Run() // it may fail, because the files do not match
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
	tests := []struct {
		name, suffix string
		follow       func(t *testing.T, path, file string)
	}{
		{"deleted", "", deleted}, {"replaced", "", replaced}, {"log deleted", "-wal", deleted}, {"log replaced", "-wal", replaced},
		{"log recreated", "-wal", recreated}, {"index deleted", "-shm", deleted}, {"index replaced", "-shm", replaced}, {"index recreated", "-shm", recreated},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, nil)
			f.register("")
			monitoring := httptest.NewServer(collector{f.comp, f.site, f.db}.handler())
			defer monitoring.Close()
			wantHealth := func(ok bool) (h health) {
				t.Helper()
				_, body := fetch(t, monitoring.URL+"/healthz")
				if err := json.Unmarshal([]byte(body), &h); err != nil || h.Database.OK != ok {
					t.Errorf("%s %v", body, err)
				}
				return h
			}
			wantHealth(true)
			file, away := f.dbPath+tt.suffix, filepath.Join(filepath.Dir(f.dbPath), "away")
			if err := os.Rename(file, away); err != nil {
				t.Fatal(err)
			}
			tt.follow(t, f.dbPath, file)
			eventually(t, "the fault is logged without any change of a user", func() bool {
				return strings.Contains(f.log.String(), "level=ERROR msg=\"the database file was deleted or replaced")
			})
			if h := wantHealth(false); !strings.Contains(h.Database.Problem, "the database file was deleted or replaced") {
				t.Errorf("%+v", h)
			}
			if got := register(f, "romeo@example.org"); !strings.Contains(got, "<internal-server-error") {
				t.Errorf("confirmed: %s", got)
			}
			if resp, _ := f.get(julietPage); resp.StatusCode != 200 {
				t.Errorf("the page: %s", resp.Status)
			}
			if err := os.Rename(away, file); err != nil {
				t.Fatal(err)
			}
			if got := register(f, "romeo@example.org"); !strings.HasPrefix(got, "<iq type='result'") {
				t.Errorf("refused after the file is back: %s", got)
			}
			wantHealth(true)
		})
	}
}

// TestNewConnection checks that the files that SQLite creates for a new connection count as its own, but not those of another database.
func TestNewConnection(t *testing.T) {
	db, path := openTestDatabase(t)
	lose := func() {
		conn, err := db.sql.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conn.Raw(func(any) error { return driver.ErrBadConn }) // closes the connection, and the last one removes the log and its index
	}
	store := func() error { return db.StorePresence(t.Context(), presenceBatch{linkSeen: noon}) }
	for range 3 {
		if err := store(); err != nil {
			t.Fatal(err)
		}
		lose()
	}
	if err := store(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+"-wal", path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := store(); !errors.Is(err, errReplaced) {
		t.Errorf("the log of the new connection: %v", err)
	}
	if err := os.Rename(path+".away", path+"-wal"); err != nil {
		t.Fatal(err)
	}
	lose()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := store(); !errors.Is(err, errReplaced) {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a new database was created: %v", err)
	}
}

// lock locks a database file as another process does, until release is called.
func lock(t *testing.T, path string) (release func()) {
	t.Helper()
	pool, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(60000)")
	if err != nil {
		t.Fatal(err)
	}
	pool.SetMaxOpenConns(1)
	if _, err := pool.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestLockedFile checks that only changes wait while another process has locked the database file, and that the shutdown does not.
func TestLockedFile(t *testing.T) {
	f := newFixture(t, func(c *componentConfig) { c.syncTimes.shutdown = 10 * time.Millisecond })
	f.register("")
	f.settled(juliet)
	release := lock(t, f.dbPath)
	const waiting = 5 * workerCount
	for i := range waiting {
		f.send(fmt.Sprintf(`<iq type='set' id='r%d' from='u%d@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'/></iq>`, i, i))
	}
	f.settled("romeo@example.org")
	f.says("b", "", "<show>away</show>")
	f.wantState(Away)
	if !f.comp.isAlive(t.Context()) {
		t.Error("the watchdog is not fed")
	}
	if jids, err := f.comp.registry.Withdrawals(t.Context()); err != nil || len(jids) > 0 {
		t.Errorf("reading: %v %v", jids, err)
	}
	release()
	for range 3 * waiting { // result, contact request and welcome
		if got := f.next(); strings.HasPrefix(got, "<iq type='error'") {
			t.Fatal(got)
		}
	}
	defer lock(t, f.dbPath)()
	f.says("b", "", "<show>dnd</show>")
	f.stop()
}

// TestLongLock locks the database file for longer than changes wait, while more people than there are workers change something. Everybody
// gets an answer meanwhile. A subscription that could not be stored is stored afterwards.
func TestLongLock(t *testing.T) {
	f := newFixture(t, nil)
	f.stop()
	f.lockPatience = 100 * time.Millisecond
	f.start()
	f.register("")
	f.settled(juliet)
	f.comp.registry.SavePresence(t.Context()) // once the last one has ended
	release := lock(t, f.dbPath)
	f.send(`<presence type='subscribe' from='juliet@example.org' to='webstatus.example.org'/>`)
	const people, changes = maxWorkers + 100, 2
	for i := range people {
		for range changes {
			f.send(fmt.Sprintf(`<iq type='set' id='r' from='u%d@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'/></iq>`, i))
		}
	}
	for range people * changes {
		if got := f.next(); !strings.HasPrefix(got, "<iq type='error'") || !strings.Contains(got, "type='wait'><resource-constraint") {
			t.Fatal(got)
		}
	}
	f.settled("romeo@example.org")
	if !f.comp.isAlive(t.Context()) {
		t.Error("the watchdog is not fed")
	}
	const problem = "the database is locked by another process"
	if h := (collector{f.comp, f.site, f.db}).databaseHealth(t.Context()); h.OK || !strings.HasPrefix(h.Problem, problem) {
		t.Errorf("%+v", h)
	}
	eventually(t, "the lock is logged", func() bool { return strings.Contains(f.log.String(), `level=ERROR msg="`+problem) })
	if n := strings.Count(f.log.String(), "level=ERROR"); n != 1 {
		t.Errorf("%d errors are logged, want 1 until a minute has passed", n)
	}
	release()
	f.want(`<presence type='subscribed' from='webstatus.example.org' to='juliet@example.org'></presence>`,
		`<presence from='webstatus.example.org/web' to='juliet@example.org'>…`)
	if h := (collector{f.comp, f.site, f.db}).databaseHealth(t.Context()); !h.OK {
		t.Errorf("%+v", h)
	}
}

// TestManyWriters has more people than there are workers change something while each change takes a second. Few of them wait, and everybody
// else gets an answer.
func TestManyWriters(t *testing.T) {
	f := newFixture(t, nil)
	f.db.pace.Store(int64(time.Second))
	f.db.file.turn <- struct{}{} // held by a transaction that takes long
	const people = maxWorkers + 100
	for i := range people {
		f.send(fmt.Sprintf(`<iq type='set' id='r' from='u%d@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'/></iq>`, i))
	}
	for range people - maxWaiting {
		if got := f.next(); !strings.HasPrefix(got, "<iq type='error'") || !strings.Contains(got, "type='wait'><resource-constraint") {
			t.Fatal(got)
		}
	}
	f.settled("romeo@example.org")
	if h := (collector{f.comp, f.site, f.db}).databaseHealth(t.Context()); !strings.HasPrefix(h.Problem, "the database takes too long") {
		t.Errorf("%+v", h)
	}
	<-f.db.file.turn
	eventually(t, "those who waited are registered", func() bool { return f.comp.board.count() >= maxWaiting-1 })
}

// TestWithdrawalDuringLock has the server handle a withdrawal while another process has locked the database file. That is recorded afterwards,
// and the contact is not withdrawn again.
func TestWithdrawalDuringLock(t *testing.T) {
	f := newFixture(t, nil)
	f.stop()
	f.lockPatience = time.Millisecond
	f.start()
	f.register("")
	f.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><remove/></query></iq>`)
	f.want(`<iq type='result' id='r' from='webstatus.example.org' to='juliet@example.org/b'></iq>`)
	f.wantLeave(atDomain)
	release := lock(t, f.dbPath)
	f.settled("romeo@example.org") // after the ping that confirms the withdrawal
	f.settled(juliet)
	release()
	eventually(t, "the withdrawal is recorded", func() bool { jids, err := f.db.Withdrawals(t.Context(), true); return err == nil && len(jids) == 0 })
	f.settled(juliet)
}

// TestShutdownStoresOnce checks that the shutdown stores the last presence and the time of the link in one transaction, because each could wait
// for a locked file.
func TestShutdownStoresOnce(t *testing.T) {
	f := newFixture(t, func(c *componentConfig) { c.syncTimes.save = time.Hour })
	f.register("")
	f.says("b", "", "<show>away</show>")
	f.advance(time.Hour)
	f.settled(juliet)
	stored := func() int {
		recorder := httptest.NewRecorder()
		collector{f.comp, f.site, f.db}.handler().ServeHTTP(recorder, httptest.NewRequest("GET", "/metrics", nil))
		var n int
		_, line, _ := strings.Cut(recorder.Body.String(), "webstatus_database_transaction_seconds_count ")
		if _, err := fmt.Sscan(line, &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := stored()
	f.stop()
	if n := stored() - before; n != 1 {
		t.Errorf("%d transactions", n)
	}
	db := openAt(t, f.dbPath)
	if u, err := db.GetUser(t.Context(), juliet); err != nil || u.Status.State != Away {
		t.Errorf("%+v %v", u, err)
	}
	if seen, err := db.LinkSeen(t.Context()); err != nil || !seen.Equal(f.now()) {
		t.Errorf("%v %v", seen, err)
	}
}

// TestSlowDisk checks that a transaction that takes too long is given up, and that the error says so.
func TestSlowDisk(t *testing.T) {
	db, _ := openTestDatabase(t)
	db.timeout = 250 * time.Millisecond
	err := db.write(t.Context(), func(t *transaction) (err error) {
		for err == nil {
			err = t.execute("SELECT 1")
		}
		return err
	})
	if !errors.Is(err, errSlow) {
		t.Error(err)
	}
}

// TestFailingDisk injects errors into the writes of a command and checks that it names them.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	strace := need(t, "strace")
	if err := exec.Command(strace, "-qq", "-o", os.DevNull, "true").Run(); err != nil {
		t.Skipf("strace does not work here: %v", err)
	}
	const line = `{"jid":"juliet@example.org","token":"aaaaaaaaaaaaaaaaaaaaaaaaaa","options":{},"subscription":"none","asked":true,"registered":"2026-11-22T12:00:00Z"}`
	for errno, want := range map[string]string{"EDQUOT": "cannot grow: the disk quota", "ENOSPC": "cannot grow: free space", "EROFS": "is on a read-only file system",
		"EIO": "disk I/O error"} {
		t.Run(errno, func(t *testing.T) {
			db, path := openTestDatabase(t)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(strace, "-f", "-qq", "-o", os.DevNull, "-e", "trace=pwrite64", "-e", "inject=pwrite64:error="+errno, need(t, "webstatus"), "users", "import", "--db", path)
			cmd.Stdin = strings.NewReader(line)
			out, _ := cmd.CombinedOutput() // the exit status is checked below
			if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), want) {
				t.Errorf("%v\n%s", cmd.ProcessState, out)
			}
		})
	}
}

// TestLogShrinks checks that the write-ahead log shrinks after a reader has kept it from being reset during many changes.
func TestLogShrinks(t *testing.T) {
	t.Parallel()
	db, path := openTestDatabase(t)
	for i := range 200 {
		if err := db.InsertUser(t.Context(), User{JID: fmt.Sprintf("u%d@example.org", i), Token: Token{byte(i), byte(i >> 8)}, Subscription: SubscriptionNone, Created: noon}); err != nil {
			t.Fatal(err)
		}
	}
	reader, err := openDatabase(t.Context(), path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	round := 0
	change := func() (size int64) {
		round++
		statuses := make(map[string]Status)
		for i := range 200 {
			statuses[fmt.Sprintf("u%d@example.org", i)] = Status{State: Away, Messages: []Text{{"", strings.Repeat("x", 1000)}, {"de", fmt.Sprint(round)}}}
		}
		if err := db.StorePresence(t.Context(), presenceBatch{statuses: statuses}); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	const large, small = 16 << 20, 5 << 20
	for range reader.Users(t.Context(), userFilter{}) { // a paused export
		for change() < large {
		}
		break
	}
	change()
	if size := change(); size > small {
		t.Errorf("the log has %d bytes", size)
	}
}
