package main

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// execute executes statements in the database at a location.
func execute(t *testing.T, location, statements string) {
	t.Helper()
	if isPostgres(location) {
		if err := startedPostgres.Load().execute(location, statements); err != nil {
			t.Fatal(err)
		}
		return
	}
	pool, err := sql.Open("sqlite", location)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(statements); err != nil {
		t.Fatal(err)
	}
}

func TestOpenDatabase(t *testing.T) { eachEngine(t, testOpenDatabase) }

func testOpenDatabase(t *testing.T, location string) {
	setVersion := "PRAGMA user_version = 99"
	if isPostgres(location) {
		setVersion = "UPDATE webstatus SET version = 99"
	}
	edit := func(statement string) func(*testing.T, string) {
		return func(t *testing.T, location string) { execute(t, location, statement) }
	}
	write := func(content string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	valid := func(t *testing.T, location string) {
		db, err := openDatabase(t.Context(), location, true)
		if err != nil {
			t.Fatal(err)
		}
		db.Close()
	}
	type prepare []func(*testing.T, string)
	tests := []struct {
		name   string
		isFile bool // there is no such PostgreSQL database
		make   prepare
		err    error
		want   string
	}{
		{"missing", false, nil, nil, ""},
		{"empty", true, prepare{write("")}, nil, ""},
		{"valid", false, prepare{valid}, nil, ""},
		{"text", true, prepare{write("dear diary, today I have written more than sixteen bytes")}, errForeign, "another database with --db"},
		{"database of another program", false, prepare{edit("CREATE TABLE t (x INTEGER)")}, errForeign, "another database with --db"},
		{"application ID of another program", true, prepare{edit("PRAGMA application_id = 7")}, errForeign, "another database with --db"},
		{"newer", false, prepare{valid, edit(setVersion)}, errNewerSchema, "newer version"},
		{"damaged", true, prepare{write("SQLite format 3\x00" + strings.Repeat("garbage", 1000))}, nil, "damaged"},
	}
	for _, tt := range tests {
		if tt.isFile && isPostgres(location) {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			location := location
			if isPostgres(location) {
				location = newPostgresDatabase(t)
			} else {
				location = filepath.Join(t.TempDir(), "webstatus.db")
			}
			for _, make := range tt.make {
				make(t, location)
			}
			before := contentOf(t, location)
			db, err := openDatabase(t.Context(), location, true)
			if err == nil {
				db.Close()
			}
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || tt.err != nil && !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), databaseName(location)) {
				t.Errorf("error %v", err)
			}
			if contentOf(t, location) != before {
				t.Error("the database was changed")
			}
		})
	}
}

// contentOf returns the content of a database file, empty if there is none, or the schema of a PostgreSQL database.
func contentOf(t *testing.T, location string) string {
	t.Helper()
	if !isPostgres(location) {
		content, err := os.ReadFile(location)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return string(content)
	}
	conf, err := parsePostgres(location)
	if err != nil {
		t.Fatal(err)
	}
	pool := openPool(conf)
	defer pool.Close()
	return strings.Join(schemaOf(t, newDatabase(postgresDialect, pool)), "\n")
}

func TestMissingDatabase(t *testing.T) {
	eachEngine(t, func(t *testing.T, location string) {
		if _, err := openDatabase(t.Context(), location, false); !errors.Is(err, errNoDatabase) {
			t.Errorf("error %v", err)
		}
		if contentOf(t, location) != "" {
			t.Error("it was created")
		}
	})
}

// TestMigration migrates a database from the first released schema to the current one.
func TestMigration(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "webstatus.db")
		for _, left := range []string{".schema1", ".schema1.partial", ".schema1.partial-journal"} { // by one that was killed
			if err := os.WriteFile(path+left, []byte("part of a backup"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		testMigration(t, path, "testdata/schema1.sql", filepath.Join(t.TempDir(), "fresh.db"))
		if saved, version, err := inspectDatabase(t.Context(), path+".schema1", false); err != nil || version != 1 {
			t.Errorf("the backup has schema %d: %v", version, err)
		} else {
			saved.Close()
		}
	})
	t.Run("postgres", func(t *testing.T) {
		testMigration(t, newPostgresDatabase(t), "testdata/schema1_postgres.sql", newPostgresDatabase(t))
	})
}

// testMigration migrates a new database, which a file of statements fills, and compares it with a fresh one.
func testMigration(t *testing.T, location, first, freshLocation string) {
	statements, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	execute(t, location, string(statements))
	if _, err := openDatabase(t.Context(), location, true); !errors.Is(err, errOlderSchema) {
		t.Errorf("before registration: %v", err)
	}
	fresh := openAt(t, freshLocation)
	if from, to, err := migrateDatabase(t.Context(), location, t.Logf, nil); err != nil || from != 1 || to != len(fresh.migrations) {
		t.Fatalf("from %d to %d: %v", from, to, err)
	}
	migrated := openAt(t, location)
	token := Token{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	want := StoredUser{User{JID: juliet, Token: token, Options: setOf(fieldMessage, fieldJIDLink), Subscription: SubscriptionBoth,
		Created: time.Unix(1764000000, 0).UTC()}, Status{State: Away, Since: time.UnixMilli(1764003600500).UTC(), Messages: []Text{{"de", "Mittag"}}}, nil}
	if got, err := migrated.GetUser(t.Context(), juliet); err != nil || !cmp.Equal(want, got) {
		t.Errorf("%v %s", err, cmp.Diff(want, got))
	}
	if w, err := migrated.Withdrawals(t.Context(), true); err != nil || !cmp.Equal(w, []string{"romeo@example.org"}) {
		t.Errorf("withdrawals: %v %v", w, err)
	}
	if seen, err := migrated.LinkSeen(t.Context()); err != nil || seen.Unix() != 1764003700 {
		t.Errorf("link seen: %v %v", seen, err)
	}
	if diff := cmp.Diff(schemaOf(t, fresh), schemaOf(t, migrated)); diff != "" {
		t.Errorf("differs from a new database: %s", diff)
	}
}

// postgresSchema selects what a PostgreSQL schema consists of.
const postgresSchema = `WITH tables AS (SELECT oid, relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'v'))
	SELECT relname || ' ' || attnum || ' ' || attname || ' ' || format_type(atttypid, atttypmod) || ' ' || attnotnull || ' ' || attcollation || ' ' || coalesce(pg_get_expr(adbin, adrelid), '')
		FROM tables JOIN pg_attribute ON attrelid = oid AND attnum > 0 LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
	UNION ALL SELECT relname || ' ' || pg_get_constraintdef(c.oid) FROM tables JOIN pg_constraint c ON conrelid = tables.oid
	UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema()
	UNION ALL SELECT pg_get_triggerdef(g.oid) FROM tables JOIN pg_trigger g ON tgrelid = tables.oid AND NOT tgisinternal
	UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = current_schema()::regnamespace
	UNION ALL SELECT definition FROM pg_views WHERE schemaname = current_schema()
	ORDER BY 1`

func schemaOf(t *testing.T, db *database) (statements []string) {
	t.Helper()
	query := "SELECT coalesce(sql, name) FROM sqlite_schema ORDER BY name"
	if db.dialect == postgresDialect {
		query = postgresSchema
	}
	rows, err := db.sql.Query(query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var statement string
		if err := rows.Scan(&statement); err != nil {
			t.Fatal(err)
		}
		statements = append(statements, statement)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return statements
}
