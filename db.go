package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	queryTimeout = 30 * time.Second // for a query or a transaction of serve, and for another process to unlock the file
	bulkTimeout  = 24 * time.Hour   // for a transaction with all users, which an operator waits for
)

// While another process has locked the file, or transactions would have to wait for longer than maxWait, given how long others have taken, at
// most maxWaiting wait, and more are rejected. Each of them keeps a worker of the component from handling the stanzas of others.
const (
	maxWait    = 2 * time.Second
	maxWaiting = 128
)

// errSlow is the error of a transaction that was given up or rejected. It is a predicate of the database.
var errSlow = &explainedError{"takes too long to store a change: check its disk and the load of the machine", ErrSlow, ErrSlow}

// A database is the SQLite file or the PostgreSQL database that holds the users. The two differ in the dialect only.
type database struct {
	*dialect
	sql        *sql.DB
	file       *databaseFile   // nil for PostgreSQL
	shared     *sharedDatabase // nil if no other node uses the database
	timeout    time.Duration   // for a query or a transaction
	statements statements
	failure    atomic.Pointer[dbFailure] // nil while transactions succeed
	writers    atomic.Int64              // transactions that wait or run
	pace       atomic.Int64              // how long a transaction takes, in nanoseconds: a moving average
	durations  prometheus.Histogram      // of transactions, in seconds
}

// A dialect is what differs between SQLite and PostgreSQL. Both take parameters as $1, $2, …
type dialect struct {
	migrations   []string // in order
	contains     string   // condition that a JID contains a text, a format of the parameter's name
	changes      string   // query of a number that changes when another process has removed users; $1 says whether we lead
	withdrawals  string   // query of the JIDs of removed users whose contact is to be withdrawn; $1 says whether we lead
	resources    string   // statement that stores the presence of resources; empty if there are no other nodes
	canInterrupt bool     // the deadline of a transaction interrupts a running statement; otherwise the next one fails
	forUpdate    string   // end of a SELECT that locks the row; empty if the transaction has locked the database
	lazily       string   // statement that lets a transaction commit before it is on the disk, and tells other nodes of it; empty if there is none

	// schemaVersion returns the number of migrations applied, 0 for an empty database, or errForeign. setVersion records it. lockSchema keeps
	// other processes from migrating until the transaction ends.
	schemaVersion func(context.Context, queryer) (int, error)
	setVersion    func(*transaction, int) error
	lockSchema    func(*transaction) error

	// execEach executes a statement for each row of values, and calls affected, unless nil, with the index of the row and the number of
	// rows that it has changed.
	execEach func(t *transaction, statement string, rows iter.Seq[[]any], affected func(i int, n int64)) error

	// advise returns what the operator can do about an error of the driver, and its kind; no advice if it is another error.
	advise func(error) (advice string, kind error)
}

// A queryer is a database or a transaction.
type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// A dbFailure says since when no transaction has succeeded.
type dbFailure struct {
	err   error
	since time.Time
}

func newDatabase(d *dialect, pool *sql.DB) *database {
	return &database{dialect: d, sql: pool, timeout: queryTimeout, statements: newStatements(), durations: prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "webstatus_database_transaction_seconds", Help: "Duration of database transactions.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}})}
}

// failing returns why nothing can be written, and since when; nil if the last transaction succeeded.
func (db *database) failing() *dbFailure { return db.failure.Load() }

func (db *database) Close() error {
	if db.shared != nil && db.shared.first != nil {
		db.shared.first.Close() // a no-op if it has ended
	}
	return db.sql.Close()
}

// A transaction is a running transaction.
type transaction struct {
	ctx  context.Context // of the statements
	conn *sql.Conn
	tx   *sql.Tx
}

// exec executes a statement.
func (t *transaction) exec(statement string, values ...any) (sql.Result, error) {
	return t.tx.ExecContext(t.ctx, statement, values...)
}

// execute executes a statement whose result does not matter.
func (t *transaction) execute(statement string, values ...any) error {
	_, err := t.exec(statement, values...)
	return err
}

// errConflict is the kind of the error of a transaction that another one has prevented, and that can be repeated.
var errConflict = errors.New("conflicting transactions")

// conflictAttempts is how often a transaction is tried that others prevent.
const conflictAttempts = 5

// write runs f in a transaction, which is on the disk when write returns nil. It runs f again in a new one after a conflict with another
// transaction. Errors are explained.
func (db *database) write(ctx context.Context, f func(*transaction) error) error {
	began := time.Now()
	err := db.explain(db.transact(ctx, f))
	for attempt := 1; attempt < conflictAttempts && errors.Is(err, errConflict) && ctx.Err() == nil; attempt++ {
		err = db.explain(db.transact(ctx, f))
	}
	db.durations.Observe(time.Since(began).Seconds())
	if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrExists) { // the database works
		db.failure.Store(nil)
	} else {
		db.fails(err, began)
	}
	return err
}

// fails records a failure, unless one lasts.
func (db *database) fails(err error, since time.Time) {
	db.failure.CompareAndSwap(nil, &dbFailure{err, since})
}

// responds records that the database is reachable and stores changes in time, which ends such a failure.
func (db *database) responds() {
	if f := db.failing(); f != nil && (errors.Is(f.err, ErrUnreachable) || errors.Is(f.err, errSlow)) {
		db.failure.CompareAndSwap(f, nil)
	}
}

// begin begins a transaction on a connection of its own.
func (db *database) begin(ctx context.Context) (*transaction, error) {
	conn, err := db.sql.Conn(ctx)
	if err != nil {
		return nil, err
	}
	var tx *sql.Tx
	if err = db.file.check(); err == nil {
		tx, err = conn.BeginTx(ctx, nil)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	t := &transaction{context.Background(), conn, tx}
	if db.canInterrupt {
		t.ctx = ctx
	}
	return t, nil
}

func (db *database) transact(ctx context.Context, f func(*transaction) error) error {
	defer db.writers.Add(-1)
	if n := db.writers.Add(1); n > maxWaiting {
		switch {
		case db.file.isLocked():
			return errLocked
		case time.Duration(n*db.pace.Load()/int64(db.sql.Stats().MaxOpenConnections)) > maxWait:
			return errSlow
		}
	}
	ctx, cancel := context.WithTimeout(ctx, db.timeout)
	defer cancel()
	waiting, stop := context.WithTimeout(ctx, queryTimeout)
	defer stop()
	var t *transaction
	if err := db.file.begin(waiting, func() (err error) { t, err = db.begin(ctx); return err }); err != nil {
		return err
	}
	defer t.conn.Close()
	defer t.tx.Rollback() // a no-op after Commit
	began := time.Now()
	defer func() { db.pace.Store((7*db.pace.Load() + int64(time.Since(began))) / 8) }()
	err := f(t)
	if err == nil {
		err = t.tx.Commit()
	}
	switch {
	case errors.Is(err, sql.ErrTxDone) && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return errSlow // and the transaction was rolled back
	case err != nil:
		return err
	}
	return db.file.check() // or the transaction is lost when the process ends
}

// read runs f with a deadline. Errors are explained.
func (db *database) read(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, db.timeout)
	defer cancel()
	return db.explain(whileLocked(ctx, func() error { return f(ctx) }))
}

// An explainedError is an error of a driver with advice for the operator.
type explainedError struct {
	advice string
	kind   error // ErrExists, ErrFull, ErrUnreachable, ErrLocked, ErrSlow, errReadOnly or errConflict; nil for other errors
	cause  error
}

// Advice for which there are several places.
const (
	adviceLocked = "is locked by another process: stop that process first"
	adviceFull   = "cannot grow: free space on its disk"
	adviceExists = "has the user or the token already"
)

func (e *explainedError) Error() string { return fmt.Sprintf("%s (%v)", e.advice, e.cause) }

func (e *explainedError) Unwrap() []error { return []error{e.kind, e.cause} }

// explain adds advice for the operator to an error of the driver. The text follows the name of the database.
func (db *database) explain(err error) error {
	var explained *explainedError
	if db.file != nil {
		err = explainDisk(err, db.file.path)
	}
	if err == nil || errors.As(err, &explained) {
		return err
	}
	if advice, kind := db.advise(err); advice != "" {
		return &explainedError{advice, kind, err}
	}
	return err
}
