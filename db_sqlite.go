package main

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

//go:embed schema.sql
var schema string

var sqliteDialect = &dialect{
	migrations:    strings.Split(schema, "\n-- Next migration.\n"),
	contains:      "instr(jid, %s) > 0",
	changes:       "SELECT data_version FROM pragma_data_version WHERE $1",
	withdrawals:   "SELECT jid FROM withdrawals WHERE $1",
	schemaVersion: sqliteVersion,
	setVersion: func(t *transaction, version int) error {
		return t.execute(fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, version))
	},
	lockSchema: func(*transaction) error { return nil }, // the transaction has the only write lock
	execEach:   execEachPrepared,
	advise:     adviseSQLite,
}

const applicationID = 0x77537461 // "wSta": marks the file as a database of webstatus in the SQLite header

// openSQLite opens a file of any known schema. If create is true, a missing file is created, and an existing one is checked for
// write access. The database has one connection, so that all changes are serialized.
func openSQLite(ctx context.Context, path string, create bool) (db *database, version int, err error) {
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
	connector, err := sqlite.NewConnector(dsn.String())
	if err != nil {
		return nil, 0, err
	}
	file := newDatabaseFile(absolute)
	pool := sql.OpenDB(fileConnector{connector, file})
	pool.SetMaxOpenConns(1)
	db = newDatabase(sqliteDialect, pool)
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	err = whileLocked(ctx, func() error {
		if version, err = db.version(ctx, pool); err == nil && create {
			// Rewriting user_version makes a read-only file fail now rather than at the first change.
			_, err = pool.ExecContext(ctx, "PRAGMA journal_mode = WAL; PRAGMA user_version = "+fmt.Sprint(version))
		}
		return err
	})
	db.file = file
	if err != nil {
		db.Close()
		return nil, 0, fmt.Errorf("%s %w", path, db.explain(err))
	}
	file.note() // the log, which the first connection has only now
	return db, version, nil
}

// lockFile takes the exclusive lock of serve, migrate and import on a file, and creates it if it is missing. Closing the result
// releases the lock. Other commands need no lock: SQLite has its own.
func lockFile(path string) (io.Closer, error) {
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

func sqliteVersion(ctx context.Context, q queryer) (version int, err error) {
	var id, tables int
	err = q.QueryRowContext(ctx, `SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)
		FROM pragma_application_id, pragma_user_version`).Scan(&id, &version, &tables)
	if err == nil && id != applicationID && (id != 0 || version != 0 || tables != 0) {
		return 0, errForeign
	}
	return version, err
}

// execEachPrepared prepares a statement and executes it for one row after the other.
func execEachPrepared(t *transaction, statement string, rows iter.Seq[[]any], affected func(i int, n int64)) (err error) {
	var prepared *sql.Stmt
	i := 0
	for row := range rows {
		if prepared == nil {
			if prepared, err = t.tx.PrepareContext(t.ctx, statement); err != nil {
				return err
			}
			defer prepared.Close()
		}
		result, err := prepared.ExecContext(t.ctx, row...)
		if err != nil {
			return err
		}
		if affected != nil {
			n, err := result.RowsAffected()
			if err != nil {
				return err
			}
			affected(i, n)
		}
		i++
	}
	return nil
}

func adviseSQLite(err error) (advice string, kind error) {
	var e *sqlite.Error
	if errors.As(err, &e) && (e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY || e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE) {
		return adviceExists, ErrExists
	}
	switch sqliteCode(err) {
	case -1:
		return "", nil
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return errReadOnly.Error(), errReadOnly
	case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
		return "is damaged: restore a backup", nil
	case sqlite3.SQLITE_BUSY:
		return adviceLocked, ErrLocked
	case sqlite3.SQLITE_FULL:
		return adviceFull, ErrFull
	}
	return "failed", nil
}
