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

// backupStep is how many pages are copied between two looks at the progress.
const backupStep = 2000

// A backuper is what the driver's connections can do besides database/sql.
type backuper interface {
	NewBackup(target string) (*sqlite.Backup, error)
}

// backup copies a database into a new file, as it is at one moment, while others write to it. Progress, if not nil, hears how
// many pages are done of how many. There is either a whole copy in the end or none.
func (db *database) backup(ctx context.Context, target string, progress func(done, total int)) error {
	if _, err := os.Lstat(target); err == nil {
		return fmt.Errorf("%s is there already: choose another file, or remove it first", target)
	}
	partial := target + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return err
	}
	defer os.Remove(partial) // not there any more when all went well
	if err := db.copyTo(ctx, partial, progress); err != nil {
		return fmt.Errorf("%s cannot be written: %w", target, explain(err))
	}
	if err := syncFile(partial); err != nil {
		return err
	}
	if err := os.Rename(partial, target); err != nil {
		return err
	}
	return syncFile(filepath.Dir(target))
}

func (db *database) copyTo(ctx context.Context, path string, progress func(done, total int)) error {
	// The file is there first, so that only its owner can read it.
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
	// What this transaction sees does not change, whatever others write.
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

// syncFile sees to it that a file, or the names in a directory, are on the disk.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
