package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// Errors of opening a database. They are predicates of its name, which the wrapping error starts with.
var (
	errNewerSchema = errors.New("was written by a newer version of webstatus: use that version, or restore a backup")
	errOlderSchema = errors.New("has the schema of an older version: run `webstatus migrate`, which backs up a file first")
	errForeign     = errors.New("is not a webstatus database: choose another database with --db; this one was not changed")
	errNoDatabase  = errors.New("does not exist: run `webstatus serve` to create it, or choose another database with --db")
	errReadOnly    = errors.New("is not writable: give the user that runs webstatus write access to it and its directory")
)

// isPostgres reports whether the location of a database is the URL of a PostgreSQL database. Otherwise it is the path of a file.
func isPostgres(location string) bool {
	scheme, _, isURL := strings.Cut(strings.ToLower(location), "://")
	return isURL && (scheme == "postgres" || scheme == "postgresql")
}

// maybeSecret matches a location that may contain a password, in a URL that is not one of PostgreSQL or in keywords and values, and a text
// of several lines.
var maybeSecret = regexp.MustCompile(`://|:.*@|(?i)\bpassword\s*=|[\r\n]`)

// checkLocation checks the location of a database. A path is shown in errors and must not contain a password.
func checkLocation(location string) error {
	if isPostgres(location) {
		_, err := parsePostgres(location)
		return err
	}
	if maybeSecret.MatchString(location) {
		return errors.New("neither the path of a file nor a PostgreSQL URL such as postgres://webstatus@db.example.org/webstatus")
	}
	return nil
}

// databaseName returns the location of a database for people: without the password that a URL may contain.
func databaseName(location string) string {
	if isPostgres(location) {
		return postgresName(location)
	}
	return location
}

// openDatabase opens a database that has the schema of this version. If create is true, a missing one is created, and an existing
// file is checked for write access; if it is false, opening writes nothing. The errors are those above.
func openDatabase(ctx context.Context, location string, create bool) (*database, error) {
	db, version, err := inspectDatabase(ctx, location, create)
	if err != nil {
		return nil, err
	}
	switch {
	case version == 0:
		_, _, err = db.migrate(ctx)
	case version < len(db.migrations):
		err = errOlderSchema
	}
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("%s %w", databaseName(location), db.explain(err))
	}
	return db, nil
}

// migrateDatabase migrates a database to the schema of this version, and returns the schema versions before and after; before is 0
// for a new database. It backs a file up first, and reports that with logf.
func migrateDatabase(ctx context.Context, location string, logf func(format string, args ...any), progress func(done, total int)) (from, to int, err error) {
	db, from, err := inspectDatabase(ctx, location, true)
	if err != nil {
		return 0, 0, err
	}
	defer db.Close()
	if from > 0 && from < len(db.migrations) && !isPostgres(location) {
		saved := fmt.Sprintf("%s.schema%d", location, from)
		logf("backing it up to %s", saved)
		if err := db.backup(ctx, saved, progress); err != nil {
			return 0, 0, err
		}
	}
	db.timeout = bulkTimeout
	if from, to, err = db.migrate(ctx); err != nil {
		return 0, 0, fmt.Errorf("%s %w", databaseName(location), err)
	}
	return from, to, nil
}

// inspectDatabase opens a database of any known schema and returns the schema's version, 0 for an empty one. It refuses another
// program's database, and a newer schema, before writing anything.
func inspectDatabase(ctx context.Context, location string, create bool) (db *database, version int, err error) {
	if isPostgres(location) {
		return openPostgres(ctx, location, create)
	}
	return openSQLite(ctx, location, create)
}

// lockDatabase takes the exclusive lock of serve, migrate and import on a database. Closing the result releases the lock.
func lockDatabase(ctx context.Context, location string) (io.Closer, error) {
	if isPostgres(location) {
		return lockPostgres(ctx, location)
	}
	return lockFile(location)
}

// version returns the schema version, 0 for an empty database. It returns errForeign or errNewerSchema for one that must not be used.
func (db *database) version(ctx context.Context, q queryer) (version int, err error) {
	version, err = db.schemaVersion(ctx, q)
	if err == nil && version > len(db.migrations) {
		return 0, errNewerSchema
	}
	return version, err
}

// checkSchema returns an error unless the database has the schema of this version.
func (db *database) checkSchema(ctx context.Context) error {
	version, err := db.version(ctx, db.sql)
	switch {
	case err != nil:
		return err
	case version == 0:
		return errNoDatabase
	case version < len(db.migrations):
		return errOlderSchema
	}
	return nil
}

// migrate applies the migrations that are missing, in one transaction. It returns the schema versions before and after.
func (db *database) migrate(ctx context.Context) (from, to int, err error) {
	err = db.write(ctx, func(t *transaction) (err error) {
		if err := db.lockSchema(t); err != nil {
			return err
		}
		if from, err = db.version(t.ctx, t.tx); err != nil || from == len(db.migrations) {
			return err
		}
		for _, m := range db.migrations[from:] {
			if err := t.execute(m); err != nil {
				return err
			}
		}
		return db.setVersion(t, len(db.migrations))
	})
	return from, len(db.migrations), err
}
