package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"modernc.org/sqlite"
)

// backupStep is the number of database pages copied at a time, between checks of the context and progress reports.
const backupStep = 2000

// A backuper is a connection of the driver with access to SQLite's online backup API.
type backuper interface {
	NewBackup(target string) (*sqlite.Backup, error)
}

// backup writes a consistent copy of the database to a file, which it replaces, while others may write to the database. It calls progress,
// unless nil, with the numbers of pages. On error the file is unchanged. If the process is killed, the next call removes what is left.
func (db *database) backup(ctx context.Context, target string, progress func(done, total int)) error {
	partial := target + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return err
	}
	defer os.Remove(partial) // fails after the rename, as intended
	if err := db.copyTo(ctx, partial, progress); err != nil {
		return fmt.Errorf("%s cannot be written: %w", target, db.explain(err))
	}
	if err := syncFile(partial); err != nil {
		return err
	}
	if err := os.Rename(partial, target); err != nil {
		return err
	}
	return syncFile(filepath.Dir(target))
}

// copyTo writes a copy of the database to a file that must not exist.
func (db *database) copyTo(ctx context.Context, path string, progress func(done, total int)) error {
	// Create the file here, because SQLite would make it readable for others.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	absolute, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	conn, err := db.sql.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	// A read transaction: the copy is of this snapshot, whatever other connections commit.
	for _, statement := range []string{"BEGIN", "SELECT count(*) FROM sqlite_schema"} {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	defer conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK") // nothing was written
	return conn.Raw(func(driver any) error {
		target := url.URL{Scheme: "file", Path: absolute}
		b, err := driver.(backuper).NewBackup(target.String())
		if err != nil {
			return err
		}
		for more := true; more && err == nil; {
			if err = ctx.Err(); err != nil {
				break
			}
			if more, err = b.Step(backupStep); err == nil && progress != nil {
				progress(b.PageCount()-b.Remaining(), b.PageCount())
			}
		}
		return errors.Join(err, b.Finish())
	})
}

// syncFile flushes a file, or the entries of a directory, to the disk.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
