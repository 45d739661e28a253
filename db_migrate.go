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

// migrations holds the migrations in schema.sql. A database's user_version is the number of those applied to it.
var migrations = strings.Split(schema, "\n-- Next migration.\n")

const applicationID = 0x77537461 // "wSta": marks the file as a database of webstatus in the SQLite header

// Errors of opening a database. They are predicates of the path, which the wrapping error starts with.
var (
	errNewerSchema = errors.New("was written by a newer version of webstatus: use that one, or restore a backup")
	errOlderSchema = errors.New("has the schema of an older version: run `webstatus migrate`, which backs it up first")
	errForeign     = errors.New("is not a webstatus database: choose another file with --db; this one was not changed")
	errNoDatabase  = errors.New("does not exist: run `webstatus serve` to create it, or name another file with --db")
	errReadOnly    = errors.New("is not writable: give the user that runs webstatus write access to it and its directory")
)

// openDatabase opens a database that has the schema of this version. If create is true, a missing database is created, and an
// existing one is checked for write access; if it is false, opening writes nothing. The errors are those above.
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

// migrateDatabase migrates a database to the schema of this version, and returns the schema versions before and after; before is 0
// for a new database. It backs the file up first, and reports that with logf.
func migrateDatabase(ctx context.Context, path string, logf func(format string, args ...any), progress func(done, total int)) (from, to int, err error) {
	db, from, err := inspectDatabase(ctx, path, true)
	if err != nil {
		return 0, 0, err
	}
	defer db.Close()
	if from > 0 && from < len(migrations) {
		saved := fmt.Sprintf("%s.schema%d", path, from)
		logf("backing it up to %s", saved)
		if err := db.backup(ctx, saved, progress); err != nil {
			return 0, 0, err
		}
	}
	db.timeout = bulkTimeout
	if to, err = db.migrate(ctx, from); err != nil {
		return 0, 0, fmt.Errorf("%s %w", path, explain(err))
	}
	return from, to, nil
}

// inspectDatabase opens a database of any known schema and returns the schema's version, 0 for an empty file. It refuses another
// program's file, and a newer schema, before writing anything.
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
		"_pragma": {"busy_timeout(100)", "foreign_keys(1)", "synchronous(FULL)", "journal_size_limit(4194304)"},
		"_txlock": {"immediate"},
	}.Encode()}
	pool, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, 0, err
	}
	pool.SetMaxOpenConns(1)
	db = newDatabase(pool)
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	err = whileLocked(ctx, func() error {
		if version, err = db.version(ctx); err == nil && create {
			// Rewriting user_version makes a read-only file fail now rather than at the first change.
			_, err = pool.ExecContext(ctx, "PRAGMA journal_mode = WAL; PRAGMA user_version = "+fmt.Sprint(version))
		}
		return err
	})
	if err == nil {
		db.file, err = watchFile(absolute)
	}
	if err != nil {
		db.Close()
		return nil, 0, fmt.Errorf("%s %w", path, explain(explainDisk(err, absolute)))
	}
	return db, version, nil
}

// lockDatabase takes the exclusive lock of serve, migrate and import on a database, and creates the file if it is missing. Closing
// the result releases the lock. Other commands need no lock: SQLite has its own.
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
		return nil, fmt.Errorf("%s is in use by another `webstatus serve`: stop it first, or choose another file with --db", path)
	}
	return f, nil
}

// checkHeader returns errForeign for a file that is neither empty nor an SQLite database. It reads without SQLite, which might write.
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
		return nil // an empty file is a valid SQLite database
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return err
	case string(header) != magic:
		return errForeign
	}
	return nil
}

// version returns the schema version, 0 for an empty database. It returns errForeign or errNewerSchema for one that must not be used.
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

// migrate applies the migrations after the first from ones, in one transaction.
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
