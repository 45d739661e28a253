package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// A databaseFile watches the file of a database for what SQLite does not notice: that it is no longer at its path, that another process
// keeps it locked, and why its disk fails.
type databaseFile struct {
	path string
	info os.FileInfo   // of the file that was opened
	wal  bool          // there is a write-ahead log
	turn chan struct{} // held by the caller who waits for another process to unlock the file
}

// Errors of the file. They are predicates of the database.
var (
	errReplaced = errors.New("file was deleted or replaced while in use, so no change is stored: restore it, and restart webstatus")
	errLocked   = errors.New("is locked by another process: stop that process first")
)

const (
	lockTimeout  = 10 * time.Second      // for another process to unlock the file when it is opened
	lockInterval = 20 * time.Millisecond // between two attempts to lock the file
)

// watchFile returns the file of a database that has been opened.
func watchFile(path string) (*databaseFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	_, walErr := os.Stat(path + "-wal")
	return &databaseFile{path: path, info: info, wal: walErr == nil, turn: make(chan struct{}, 1)}, nil
}

// check returns errReplaced unless the file is still at its path.
func (f *databaseFile) check() error {
	if f == nil {
		return nil
	}
	if info, err := os.Stat(f.path); err != nil || !os.SameFile(info, f.info) {
		return errReplaced
	}
	if _, err := os.Stat(f.path + "-wal"); f.wal && err != nil {
		return errReplaced
	}
	return nil
}

// begin calls f, which begins a transaction, until no other process has locked the file, or ctx is done. Only one caller tries at a time,
// and none holds the connection meanwhile.
func (f *databaseFile) begin(ctx context.Context, begin func() error) error {
	if f == nil {
		return begin()
	}
	select {
	case f.turn <- struct{}{}:
	case <-ctx.Done():
		return errLocked
	}
	defer func() { <-f.turn }()
	return whileLocked(ctx, begin)
}

// whileLocked calls f until it does not fail because another process has locked the file, or ctx is done.
func whileLocked(ctx context.Context, f func() error) error {
	for {
		err := f()
		if sqliteCode(err) != sqlite3.SQLITE_BUSY {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(lockInterval):
		}
	}
}

// sqliteCode returns the primary result code of an error of SQLite, -1 for any other error.
func sqliteCode(err error) int {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return -1
	}
	return e.Code() & 0xff
}

// explainDisk adds to an error of SQLite what is wrong with the disk, since SQLite does not report the reason.
func explainDisk(err error, path string) error {
	switch sqliteCode(err) {
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL:
	default:
		return err
	}
	switch disk := writeBeside(path); {
	case errors.Is(disk, syscall.EROFS):
		return &explainedError{"is on a read-only file system: make that writable", errReadOnly, err}
	case errors.Is(disk, syscall.EDQUOT):
		return &explainedError{"cannot grow: the disk quota of the user that runs webstatus is used up", ErrFull, err}
	case errors.Is(disk, syscall.ENOSPC):
		return &explainedError{adviceFull, ErrFull, err}
	}
	return err
}

// writeBeside writes a file next to another one and removes it. The error is what a write to the disk fails with.
func writeBeside(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".webstatus-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // best effort
	_, err = f.WriteAt(make([]byte, 4096), 0)
	return errors.Join(err, f.Sync(), f.Close())
}
