package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// eachEngine runs a test on SQLite and on PostgreSQL, each with the location of a new database.
func eachEngine(t *testing.T, f func(t *testing.T, location string)) {
	t.Run("sqlite", func(t *testing.T) { f(t, filepath.Join(t.TempDir(), "webstatus.db")) })
	t.Run("postgres", func(t *testing.T) { f(t, newPostgresDatabase(t)) })
}

// postgresPassword is the password of the tests' PostgreSQL. It must not occur in any output.
const postgresPassword = "pa55word"

// sharedPostgres starts the server that the tests of this process share.
var sharedPostgres = sync.OnceValues(func() (*postgresServer, error) {
	p, err := newPostgresServer(context.Background(), postgresPassword)
	if err == nil {
		startedPostgres.Store(p)
	}
	return p, err
})

// startedPostgres is the shared server, nil before its start.
var startedPostgres atomic.Pointer[postgresServer]

var postgresDatabases atomic.Int64 // created so far

// newPostgresDatabase returns the URL of a new, empty database on the shared server.
func newPostgresDatabase(t testing.TB) string {
	t.Helper()
	p, err := sharedPostgres()
	if errors.Is(err, errNoPostgres) {
		missing(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	return p.newDatabase(t)
}

// newDatabase returns the URL of a new, empty database.
func (p *postgresServer) newDatabase(t testing.TB) string {
	t.Helper()
	location, err := p.createDatabase()
	if err != nil {
		t.Fatal(err)
	}
	return location
}

// createDatabase creates a database and returns its URL.
func (p *postgresServer) createDatabase() (string, error) {
	location := p.url(fmt.Sprintf("test%d", postgresDatabases.Add(1)))
	return location, p.execute(p.url("postgres"), "CREATE DATABASE "+databaseIn(location))
}

// databaseIn returns the name of the database in a URL.
func databaseIn(location string) string { return location[strings.LastIndex(location, "/")+1:] }

// execute executes a statement in the database of a URL.
func (p *postgresServer) execute(location, statement string) error {
	conn, err := pgx.Connect(context.Background(), location)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	_, err = conn.Exec(context.Background(), statement)
	return err
}

// A postgresStopper runs the tests and then stops the shared server.
type postgresStopper struct{ m *testing.M }

func (s postgresStopper) Run() int {
	defer func() {
		if p := startedPostgres.Load(); p != nil {
			p.remove()
		}
	}()
	return s.m.Run()
}

// TestPostgresURL checks that no error shows the password of a URL, and that the name of the database does not either.
func TestPostgresURL(t *testing.T) {
	for location, name := range map[string]string{
		"postgres://me:pa55word@db.example.org/webstatus":                                          "postgres://db.example.org:5432/webstatus",
		"postgres://me:pa55word@a.example.org:1,b.example.org:2/w?target_session_attrs=read-write": "postgres://a.example.org:1/w",
		"postgresql:///w?host=/run/postgresql&user=me&password=pa55word":                           "postgres:///w",
		"postgres://me:pa55word@a b:c/w":                                                           "the PostgreSQL database",
		"postgres://me:pa55word@127.0.0.1:1/w":                                                     "postgres://127.0.0.1:1/w",
		"postgres://me:pa55word@127.0.0.1:1/w?sslmode=pa55word":                                    "the PostgreSQL database",
		"Postgres://me:pa55word@127.0.0.1:1/w":                                                     "postgres://127.0.0.1:1/w",
		"POSTGRESQL://127.0.0.1:1/w?user=me&password=pa55word":                                     "postgres://127.0.0.1:1/w",
	} {
		if got := databaseName(location); got != name {
			t.Errorf("%s is named %s", location, got)
		}
		if !hasPassword(location) || hasPassword(strings.Replace(strings.Replace(location, ":pa55word", "", 1), "password=", "", 1)) {
			t.Errorf("%s: the password is not noticed, or its absence is not", location)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		db, err := openDatabase(ctx, location, true)
		if err == nil {
			db.Close()
		}
		_, lockErr := lockDatabase(ctx, location)
		for _, err := range []error{err, lockErr} {
			if err == nil || strings.Contains(err.Error(), "pa55word") {
				t.Errorf("error %v", err)
			}
		}
	}
}

// TestDatabaseLocation checks that a location that looks like a URL but is none is not taken for the path of a file, which errors show.
func TestDatabaseLocation(t *testing.T) {
	for location, valid := range map[string]bool{
		"webstatus.db":                                        true,
		"/srv/status of a@b/web.db":                           true,
		"/srv/host=a/C:/web.db":                               true,
		"postgres://me:pa55word@db/w":                         true,
		"PostgreSQL://me:pa55word@db/w":                       true,
		"DATABASE_URL=postgres://me:pa55word@db/w":            false,
		"postgresql+psycopg://me:pa55word@db/w":               false,
		"postgres:me:pa55word@db/w":                           false,
		"me:pa55word@db/w":                                    false,
		"# the database\npostgres://me:pa55word@db/w":         false,
		"pa55word\nwebstatus.db":                              false,
		"host=db user=me password=pa55word":                   false,
		"host=db user=me Password = 'pa55word' sslmode=allow": false,
		"postgres://me:pa55word@a b:c/w":                      false,
	} {
		conf, problems := config{db: location}, &usageError{}
		conf.resolveDB(problems)
		err := problems.orNil()
		if (err == nil) != valid || err != nil && strings.Contains(err.Error(), "pa55word") {
			t.Errorf("%q: %v", location, err)
		}
	}
}

// TestPostgresAdvice checks the advice to an operator whose PostgreSQL cannot be used.
func TestPostgresAdvice(t *testing.T) {
	good := newPostgresDatabase(t)
	p := startedPostgres.Load()
	for location, want := range map[string]string{
		p.url("nowhere"): "does not exist: create it with createdb",
		strings.Replace(good, postgresPassword, "wrong", 1):                    "refuses the login",
		strings.Replace(good, fmt.Sprint(p.port), fmt.Sprint(unusedPort()), 1): "is not reachable: check that PostgreSQL is running",
		good + "?default_transaction_read_only=on":                             "is a replica",
	} {
		db, err := openDatabase(t.Context(), location, true)
		if err == nil {
			db.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), postgresPassword) || strings.Contains(err.Error(), "wrong") {
			t.Errorf("want %s, got %v", want, err)
		}
	}
}

// TestMigrateTwice migrates a database from several processes at once.
func TestMigrateTwice(t *testing.T) {
	location := newPostgresDatabase(t)
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			db, err := openDatabase(t.Context(), location, true)
			if err != nil {
				t.Error(err)
				return
			}
			db.Close()
		})
	}
	g.Wait()
}

// TestMigrateWaits starts a migration while another one is running. It waits, and then has nothing to do.
func TestMigrateWaits(t *testing.T) {
	t.Parallel()
	location := newPostgresDatabase(t)
	p, schemas := startedPostgres.Load(), postgresDialect.migrations
	if err := p.execute(location, schemas[0]+"; INSERT INTO webstatus VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	reader, err := pgx.Connect(t.Context(), location) // which delays the first migration
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close(context.Background())
	if _, err := reader.Exec(t.Context(), "BEGIN; SELECT FROM users"); err != nil {
		t.Fatal(err)
	}
	waits := func(locktype string) func() bool {
		return func() bool {
			var n int
			err := reader.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = $1
				AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, locktype).Scan(&n)
			return err == nil && n == 1
		}
	}
	said := make([]strings.Builder, 2)
	var g errgroup.Group
	for i, locktype := range []string{"relation", "advisory"} {
		g.Go(func() error { return migrate(t.Context(), config{db: location}, &said[i], nil) })
		eventually(t, "the migration waits", waits(locktype))
	}
	if _, err := reader.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	first, second := fmt.Sprintf("migrated from schema 1 to schema %d\n", len(schemas)), fmt.Sprintf("already has schema %d, nothing to do\n", len(schemas))
	if !strings.HasSuffix(said[0].String(), first) || !strings.HasSuffix(said[1].String(), second) {
		t.Errorf("%q and %q", said[0].String(), said[1].String())
	}
}

// TestConflictingTransactions checks that a transaction that another one prevents is repeated, but not forever.
func TestConflictingTransactions(t *testing.T) {
	t.Parallel()
	db, err := openDatabase(t.Context(), newPostgresDatabase(t)+"?deadlock_timeout=100ms", true)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.write(t.Context(), func(t *transaction) error {
		return t.execute("INSERT INTO acme VALUES ('a', ''), ('b', '')")
	}); err != nil {
		t.Fatal(err)
	}
	var locked, done sync.WaitGroup
	var attempts atomic.Int32
	locked.Add(2)
	for _, order := range [][]string{{"a", "b"}, {"b", "a"}} {
		done.Go(func() {
			first := sync.OnceFunc(func() { locked.Done(); locked.Wait() })
			err := db.write(t.Context(), func(t *transaction) error {
				attempts.Add(1)
				for _, name := range order {
					if err := t.execute("UPDATE acme SET content = content || '1' WHERE name = $1", name); err != nil {
						return err
					}
					first()
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	var content []byte
	if err := db.sql.QueryRow("SELECT string_agg(content, '') FROM acme").Scan(&content); err != nil || string(content) != "1111" || attempts.Load() < 3 {
		t.Errorf("%s %v after %d attempts", content, err, attempts.Load())
	}
	attempts.Store(0)
	err = db.write(t.Context(), func(t *transaction) error {
		attempts.Add(1)
		return t.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")
	})
	if !errors.Is(err, errConflict) || attempts.Load() != conflictAttempts {
		t.Errorf("%v after %d attempts", err, attempts.Load())
	}
}

// TestExclusiveDatabase checks that a command has a database for itself. Nodes share theirs.
func TestExclusiveDatabase(t *testing.T) {
	eachEngine(t, func(t *testing.T, location string) {
		serve := func() (io.Closer, error) { return lockDatabase(t.Context(), location) }
		if isPostgres(location) {
			serve = func() (io.Closer, error) { return joinDatabase(t.Context(), location, "a") }
		}
		for range 2 {
			running, err := serve()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := lockDatabase(t.Context(), location); err == nil || !strings.Contains(err.Error(), "is in use by another `webstatus serve`") {
				t.Errorf("a command beside serve: %v", err)
			}
			if err := running.Close(); err != nil {
				t.Error(err)
			}
			command, err := lockDatabase(t.Context(), location)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := serve(); err == nil || !strings.Contains(err.Error(), "is in use by") {
				t.Errorf("serve beside a command: %v", err)
			}
			if err := command.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// ownPostgres starts a server that the test may stop.
func ownPostgres(t testing.TB) *postgresServer {
	t.Helper()
	p, err := newPostgresServer(context.Background(), postgresPassword)
	if errors.Is(err, errNoPostgres) {
		missing(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.remove)
	return p
}
