package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// A databaseFile watches the file of a database for what SQLite does not notice: that it, or a file that belongs to it, is no longer at its
// path, that another process keeps it locked, and why its disk fails.
type databaseFile struct {
	path     string
	opened   atomic.Pointer[openFiles] // nil before the first connection
	patience time.Duration             // for another process to unlock the file
	turn     chan struct{}             // held by the caller who tries to lock the file
	lock     atomic.Pointer[otherLock] // changed by the caller whose turn it is
}

// An otherLock says whether another process has locked the file.
type otherLock struct {
	since time.Time     // zero if none has
	lasts chan struct{} // closed once one has for as long as the patience
}

// openFiles are the files that the connection to a database has open, by fileSuffixes; nil for one that SQLite has not needed.
type openFiles [len(fileSuffixes)]os.FileInfo

// fileSuffixes follow the path of the database in the names of its files: the database itself, its write-ahead log, and the index of the
// log, which also holds the locks.
var fileSuffixes = [...]string{"", "-wal", "-shm"}

// Errors of the file. They are predicates of the database.
var (
	errReplaced = errors.New("file was deleted or replaced while in use, or its -wal or -shm file, so no change is stored: restore it, and restart webstatus")
	errLocked   = &explainedError{adviceLocked, ErrLocked, ErrLocked}
)

const (
	lockTimeout  = 10 * time.Second      // for another process to unlock the file when it is opened
	lockInterval = 20 * time.Millisecond // between two attempts to lock the file
)

func newDatabaseFile(path string) *databaseFile {
	f := &databaseFile{path: path, patience: queryTimeout, turn: make(chan struct{}, 1)}
	f.lock.Store(&otherLock{lasts: make(chan struct{})})
	return f
}

// note records which files a new connection has opened. The database stays the one of the first connection.
func (f *databaseFile) note() {
	var files openFiles
	for i, suffix := range fileSuffixes {
		files[i], _ = os.Stat(f.path + suffix) // nil if there is none
	}
	if before := f.opened.Load(); before != nil && before[0] != nil {
		files[0] = before[0]
	}
	f.opened.Store(&files)
}

// check returns errReplaced unless the files that the connection has opened are still at their paths. The caller holds the connection:
// closing and opening it removes and creates files.
func (f *databaseFile) check() error {
	if f == nil {
		return nil
	}
	for i, opened := range f.opened.Load() {
		if !f.isAtPath(i, opened) {
			return errReplaced
		}
	}
	return nil
}

// isAtPath reports whether a file is still at its path, if it was opened.
func (f *databaseFile) isAtPath(i int, opened os.FileInfo) bool {
	if opened == nil {
		return true
	}
	info, err := os.Stat(f.path + fileSuffixes[i])
	return err == nil && os.SameFile(info, opened)
}

// A fileConnector opens connections to the file of a database, but none to another file that has taken its place.
type fileConnector struct {
	driver.Connector
	file *databaseFile
}

// Connect opens a connection. The pragmas in its DSN make SQLite read the schema, and so open all files.
func (c fileConnector) Connect(ctx context.Context) (driver.Conn, error) {
	if opened := c.file.opened.Load(); opened != nil && !c.file.isAtPath(0, opened[0]) {
		return nil, errReplaced
	}
	conn, err := c.Connector.Connect(ctx)
	if err == nil {
		c.file.note()
	}
	return conn, err
}

// begin calls f, which begins a transaction, until no other process has locked the file. Only one caller tries at a time, and none holds
// the connection meanwhile. Once the lock has lasted for as long as the patience, nobody waits any longer: the callers get ErrLocked, and of
// later ones, one at a time tries once.
func (f *databaseFile) begin(ctx context.Context, begin func() error) error {
	if f == nil {
		return begin()
	}
	if err := f.takeTurn(ctx); err != nil {
		return err
	}
	defer func() { <-f.turn }()
	for {
		err := begin()
		if sqliteCode(err) != sqlite3.SQLITE_BUSY {
			if err == nil {
				f.noteUnlocked()
			}
			return err
		}
		if f.noteLocked() {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(lockInterval):
		}
	}
}

// takeTurn waits until the caller may try to lock the file.
func (f *databaseFile) takeTurn(ctx context.Context) error {
	select {
	case f.turn <- struct{}{}:
		return nil
	default:
	}
	lock := f.lock.Load()
	select {
	case f.turn <- struct{}{}:
		return nil
	case <-lock.lasts:
		return errLocked
	case <-ctx.Done():
	}
	if f.isLocked() {
		return errLocked
	}
	return errSlow
}

// isLocked reports whether another process has locked the file.
func (f *databaseFile) isLocked() bool { return f != nil && !f.lock.Load().since.IsZero() }

// noteLocked records that another process has locked the file, and reports whether that lasts too long to wait.
func (f *databaseFile) noteLocked() (lasts bool) {
	lock := f.lock.Load()
	if lock.since.IsZero() {
		lock = &otherLock{time.Now(), lock.lasts}
		f.lock.Store(lock)
	}
	if time.Since(lock.since) < f.patience {
		return false
	}
	select {
	case <-lock.lasts:
	default:
		close(lock.lasts)
	}
	return true
}

// noteUnlocked records that no other process has locked the file.
func (f *databaseFile) noteUnlocked() {
	lock := f.lock.Load()
	if lock.since.IsZero() {
		return
	}
	lasts := lock.lasts
	select {
	case <-lasts:
		lasts = make(chan struct{})
	default:
	}
	f.lock.Store(&otherLock{lasts: lasts})
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
