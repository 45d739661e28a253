package main

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

//go:embed schema.sql
var schema string

// migrations are the steps of schema.sql. The number of those applied is the file's user_version.
var migrations = strings.Split(schema, "\n-- Next step.\n")

const applicationID = 0x77537461 // "wSta", the SQLite header's mark of a file of ours

// Errors of opening a file. What is wrong with it stands in the error that wraps them.
var (
	errNewerSchema = errors.New("was written by a newer version of webstatus: use that one, or restore a backup")
	errOlderSchema = errors.New("has the schema of an older version: run `webstatus migrate`, which makes a copy first")
	errForeign     = errors.New("is not a webstatus database: choose another file with --db, it has not been touched")
	errNoDatabase  = errors.New("does not exist: `webstatus serve` creates it, or name another with --db")
	errReadOnly    = errors.New("cannot be written: give the user that runs webstatus write access to it and its directory")
)

// openDatabase opens a file that has this version's schema. A missing one is created if create says so; else it is not
// written to before the caller does.
func openDatabase(ctx context.Context, path string, create bool) (*database, error) {
	db, version, err := inspectDatabase(ctx, path, create)
	if err != nil {
		return nil, err
	}
	switch {
	case version == 0:
		_, err = db.migrate(ctx, 0)
	case version < len(migrations):
		err = errOlderSchema
	}
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("%s %w", path, explain(err))
	}
	return db, nil
}

// migrateDatabase brings a file to this version's schema, and returns the versions before and after. A copy of what is there is
// made first; say hears of that.
func migrateDatabase(ctx context.Context, path string, say func(format string, args ...any), progress func(done, total int)) (from, to int, err error) {
	db, from, err := inspectDatabase(ctx, path, true)
	if err != nil {
		return 0, 0, err
	}
	defer db.Close()
	if from > 0 && from < len(migrations) {
		saved := fmt.Sprintf("%s.schema%d", path, from)
		say("copying it to %s, in case you want to go back", saved)
		if err := db.backup(ctx, saved, progress); err != nil {
			return 0, 0, err
		}
	}
	if to, err = db.migrate(ctx, from); err != nil {
		return 0, 0, fmt.Errorf("%s %w", path, explain(err))
	}
	return from, to, nil
}

// inspectDatabase opens a file and returns its version, 0 for an empty one. A file that is not ours, or newer than we
// are, is refused before anything is written to it.
func inspectDatabase(ctx context.Context, path string, create bool) (db *database, version int, err error) {
	if err := checkHeader(path); errors.Is(err, os.ErrNotExist) && !create {
		return nil, 0, fmt.Errorf("%s %w", path, errNoDatabase)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, 0, fmt.Errorf("%s %w", path, err)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, 0, err
	}
	dsn := url.URL{Scheme: "file", Path: absolute, RawQuery: url.Values{
		"_pragma": {"busy_timeout(10000)", "foreign_keys(1)", "synchronous(FULL)"},
		"_txlock": {"immediate"},
	}.Encode()}
	pool, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, 0, err
	}
	pool.SetMaxOpenConns(1)
	db = newDatabase(pool)
	if version, err = db.version(ctx); err == nil && create {
		// It writes, and so tells a file that cannot be written before anything depends on it.
		_, err = pool.ExecContext(ctx, "PRAGMA journal_mode = WAL; PRAGMA user_version = "+fmt.Sprint(version))
	}
	if err != nil {
		db.Close()
		return nil, 0, fmt.Errorf("%s %w", path, explain(err))
	}
	return db, version, nil
}

// lockDatabase keeps a second serve away from a file, until the lock is closed. Other commands need no lock.
func lockDatabase(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("%s cannot be opened: create its directory, or give the user that runs webstatus access to it (%w)", path, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is in use by another `webstatus serve`: stop that one first, or choose another file with --db", path)
	}
	return f, nil
}

// checkHeader tells a file that is no SQLite database at all without opening it as one.
func checkHeader(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	const magic = "SQLite format 3\x00"
	header := make([]byte, len(magic))
	switch n, err := io.ReadFull(f, header); {
	case n == 0 && errors.Is(err, io.EOF):
		return nil // SQLite makes a database of an empty file
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return err
	case string(header) != magic:
		return errForeign
	}
	return nil
}

// version returns the file's schema version, 0 if it is empty, or an error if it is not ours to use.
func (db *database) version(ctx context.Context) (version int, err error) {
	var id, tables int
	err = db.sql.QueryRowContext(ctx, `SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)
		FROM pragma_application_id, pragma_user_version`).Scan(&id, &version, &tables)
	switch {
	case err != nil:
		return 0, err
	case id != applicationID && (id != 0 || version != 0 || tables != 0):
		return 0, errForeign
	case version > len(migrations):
		return 0, errNewerSchema
	}
	return version, nil
}

// migrate applies what is missing, all of it or nothing.
func (db *database) migrate(ctx context.Context, from int) (to int, err error) {
	err = db.write(ctx, func(tx *sql.Tx) error {
		for _, m := range migrations[from:] {
			if _, err := tx.Exec(m); err != nil {
				return err
			}
		}
		_, err := tx.Exec(fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, len(migrations)))
		return err
	})
	return len(migrations), err
}
