package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	queryTimeout = 30 * time.Second // for a query or a transaction of serve, and for another process to unlock the file
	bulkTimeout  = 24 * time.Hour   // for a transaction with all users, which an operator waits for
)

// errSlow is the error of a transaction that was given up. It is a predicate of the database.
var errSlow = errors.New("takes too long to store a change: check its disk, and what keeps the machine busy")

// A database is the SQLite file. It has one connection, so that all changes are serialized.
type database struct {
	sql        *sql.DB
	file       *databaseFile
	timeout    time.Duration // for a query or a transaction
	statements statements
	failure    atomic.Pointer[dbFailure] // nil while transactions succeed
	durations  prometheus.Histogram      // of transactions, in seconds
}

// A dbFailure says since when no transaction has succeeded.
type dbFailure struct {
	err   error
	since time.Time
}

func newDatabase(pool *sql.DB) *database {
	return &database{sql: pool, timeout: queryTimeout, statements: newStatements(), durations: prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "webstatus_database_transaction_seconds", Help: "Duration of database transactions.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}})}
}

// failing returns why nothing can be written, and since when; nil if the last transaction succeeded.
func (db *database) failing() *dbFailure { return db.failure.Load() }

func (db *database) Close() error { return db.sql.Close() }

// write runs f in a transaction, which is on the disk when write returns nil. Errors are explained.
func (db *database) write(ctx context.Context, f func(*sql.Tx) error) error {
	began := time.Now()
	err := explain(explainDisk(db.transact(ctx, f), db.file.path))
	db.durations.Observe(time.Since(began).Seconds())
	if err == nil || errors.Is(err, ErrNotFound) {
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

func (db *database) transact(ctx context.Context, f func(*sql.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, db.timeout)
	defer cancel()
	if err := db.file.check(); err != nil {
		return err
	}
	waiting, stop := context.WithTimeout(ctx, queryTimeout)
	defer stop()
	var tx *sql.Tx
	if err := db.file.begin(waiting, func() (err error) { tx, err = db.sql.BeginTx(ctx, nil); return err }); err != nil {
		return err
	}
	defer tx.Rollback() // a no-op after Commit
	err := f(tx)
	if err == nil {
		err = tx.Commit()
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
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	if err := db.file.check(); err != nil {
		db.fails(err, time.Now())
		return err
	}
	return explain(whileLocked(ctx, func() error { return f(ctx) }))
}

// An explainedError is an error of SQLite in an operator's words.
type explainedError struct {
	advice string
	kind   error // ErrFull, errReadOnly or errLocked; nil for other errors
	cause  error
}

// errFullDisk is the text of errors that say that the disk is full.
const errFullDisk = "cannot grow: free space on its disk"

func (e *explainedError) Error() string { return fmt.Sprintf("%s (%v)", e.advice, e.cause) }

func (e *explainedError) Unwrap() []error { return []error{e.kind, e.cause} }

// explain adds to an error of SQLite what the operator can do about it. The text follows the name of the file.
func explain(err error) error {
	var explained *explainedError
	code := sqliteCode(err)
	if code < 0 || errors.As(err, &explained) {
		return err
	}
	switch code {
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return &explainedError{errReadOnly.Error(), errReadOnly, err}
	case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
		return &explainedError{"is damaged: restore a backup", nil, err}
	case sqlite3.SQLITE_BUSY:
		return &explainedError{errLocked.Error(), errLocked, err}
	case sqlite3.SQLITE_FULL:
		return &explainedError{errFullDisk, ErrFull, err}
	}
	return &explainedError{"failed", nil, err}
}

// statements holds the SQL that depends on the table of fields.
type statements struct{ insertUser, updateUser, selectUsers string }

func newStatements() statements {
	columns := append([]string{"jid", "token", "subscription", "asked", "created", "lang", "gone", "contact", "granted"}, optionNames(allFields)...)
	list := strings.Join(columns, ", ")
	var changes []string
	for i, column := range columns {
		if column != "jid" && column != "created" {
			changes = append(changes, fmt.Sprintf("%s = ?%d", column, i+1))
		}
	}
	return statements{
		insertUser: "INSERT INTO users (" + list + ") VALUES (?" + strings.Repeat(", ?", len(columns)-1) + ")",
		updateUser: "UPDATE users SET " + strings.Join(changes, ", ") + " WHERE jid = ?1",
		selectUsers: "SELECT " + list + `, coalesce(state, 'unknown'), since, messages, nick, avatar, avatar_id, avatar_source
			FROM users LEFT JOIN presence USING (jid) LEFT JOIN profiles USING (jid)`,
	}
}

// userValues returns the values of a user's columns, in the order of the statements.
func userValues(u User) []any {
	values := []any{u.JID, u.Token[:], u.Subscription, u.Asked, u.Created.Unix(), u.Lang, optionalUnix(u.Gone), u.Contact, u.Granted}
	for i, f := range fields {
		if f.option != "" {
			values = append(values, u.Options.has(i))
		}
	}
	return values
}

func optionalUnix(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.Unix(), Valid: !t.IsZero()}
}

// scanUser scans a row of selectUsers.
func scanUser(scan func(...any) error) (u StoredUser, err error) {
	var token, avatar []byte
	var created int64
	var gone, since sql.NullInt64
	var messages, nick, avatarID, avatarSource sql.NullString
	columns := []any{&u.JID, &token, &u.Subscription, &u.Asked, &created, &u.Lang, &gone, &u.Contact, &u.Granted}
	options := make([]bool, len(fields))
	for i, f := range fields {
		if f.option != "" {
			columns = append(columns, &options[i])
		}
	}
	columns = append(columns, &u.Status.State, &since, &messages, &nick, &avatar, &avatarID, &avatarSource)
	if err := scan(columns...); err != nil {
		return u, err
	}
	u.Subscription, u.Status.State = constant(u.Subscription, subscriptions), constant(u.Status.State, states)
	copy(u.Token[:], token)
	for i, on := range options {
		u.Options = u.Options.with(i, on)
	}
	u.Created = time.Unix(created, 0).UTC()
	if gone.Valid {
		u.Gone = time.Unix(gone.Int64, 0).UTC()
	}
	if since.Valid {
		u.Status.Since = time.UnixMilli(since.Int64).UTC()
	}
	if nick.Valid {
		u.Profile = &Profile{Nick: nick.String}
		if len(avatar) > 0 {
			u.Profile.Avatar = &Avatar{ID: avatarID.String, Source: AvatarSource(avatarSource.String), Data: avatar}
		}
	}
	if messages.Valid {
		err = json.Unmarshal([]byte(messages.String), &u.Status.Messages)
	}
	return u, err
}

// constant returns the equal one of some constants, so that not every user has a copy of its own.
func constant[T comparable](v T, constants []T) T {
	if i := slices.Index(constants, v); i >= 0 {
		return constants[i]
	}
	return v
}

// GetUser returns the user with a bare JID, or ErrNotFound.
func (db *database) GetUser(ctx context.Context, bare string) (u StoredUser, err error) {
	err = db.read(ctx, func(ctx context.Context) error {
		u, err = scanUser(db.sql.QueryRowContext(ctx, db.statements.selectUsers+" WHERE jid = ?", bare).Scan)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		return err
	})
	return u, err
}

// A userFilter selects users; the zero one selects all.
type userFilter struct {
	match  string  // part of the JID; empty for any
	states []State // last known state; empty for any
	after  string  // only JIDs that sort after this one
	limit  int     // maximum number of users; 0 for all
}

// clauses returns the clauses that follow FROM, and their values.
func (f userFilter) clauses() (text string, values []any) {
	conditions := []string{"jid > ?"}
	values = append(values, f.after)
	if f.match != "" {
		conditions = append(conditions, "instr(jid, ?) > 0")
		values = append(values, f.match)
	}
	if len(f.states) > 0 {
		conditions = append(conditions, "coalesce(state, 'unknown') IN (?"+strings.Repeat(", ?", len(f.states)-1)+")")
		for _, s := range f.states {
			values = append(values, s)
		}
	}
	text = " WHERE " + strings.Join(conditions, " AND ") + " ORDER BY jid"
	if f.limit > 0 {
		text += " LIMIT ?"
		values = append(values, f.limit)
	}
	return text, values
}

// Users iterates over users, sorted by JID. An error ends it, as the last pair.
func (db *database) Users(ctx context.Context, filter userFilter) iter.Seq2[StoredUser, error] {
	return func(yield func(StoredUser, error) bool) {
		clauses, values := filter.clauses()
		rows, err := db.sql.QueryContext(ctx, db.statements.selectUsers+clauses, values...)
		if err != nil {
			yield(StoredUser{}, explain(err))
			return
		}
		defer rows.Close()
		for rows.Next() {
			if u, err := scanUser(rows.Scan); !yield(u, explain(err)) || err != nil {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(StoredUser{}, explain(err))
		}
	}
}

// InsertUser registers a user, and cancels a withdrawal that has not been carried out.
func (db *database) InsertUser(ctx context.Context, u User) error {
	return db.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.Exec(db.statements.insertUser, userValues(u)...); err != nil {
			return err
		}
		return execute(tx, "DELETE FROM withdrawals WHERE jid = ?", u.JID)
	})
}

// InsertUsers registers several users, all of them or none. It returns how many it has registered, and the JIDs of those who
// were registered already; these stay as they are.
func (db *database) InsertUsers(ctx context.Context, users []User) (inserted int, existing []string, err error) {
	err = db.write(ctx, func(tx *sql.Tx) error {
		for _, u := range users {
			switch err := mustAffect(tx.Exec(db.statements.insertUser+" ON CONFLICT (jid) DO NOTHING", userValues(u)...)); {
			case err == nil:
				inserted++
			case errors.Is(err, ErrNotFound):
				existing = append(existing, u.JID)
			default:
				return fmt.Errorf("%s: %w", u.JID, err)
			}
		}
		return nil
	})
	return inserted, existing, err
}

// UpdateUser stores the columns of a user. It returns ErrNotFound if the user has been removed meanwhile.
func (db *database) UpdateUser(ctx context.Context, u User) error {
	return db.write(ctx, func(tx *sql.Tx) error { return db.updateUser(tx, u) })
}

// UpdateOptions stores a user's options, and with them the status and the profile that the options allow to keep, so that nothing
// that was switched off outlives a crash. It returns ErrNotFound if the user has been removed meanwhile.
func (db *database) UpdateOptions(ctx context.Context, u StoredUser) error {
	return db.write(ctx, func(tx *sql.Tx) error {
		if err := db.updateUser(tx, u.User); err != nil {
			return err
		}
		if err := storeStatuses(tx, map[string]Status{u.JID: u.Status}); err != nil {
			return err
		}
		return storeProfile(tx, u.JID, u.Profile)
	})
}

func (db *database) updateUser(tx *sql.Tx, u User) error {
	return mustAffect(tx.Exec(db.statements.updateUser, userValues(u)...))
}

// execute runs a statement whose result does not matter.
func execute(tx *sql.Tx, statement string, values ...any) error {
	_, err := tx.Exec(statement, values...)
	return err
}

// mustAffect returns ErrNotFound if a statement has changed no row.
func mustAffect(result sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, ErrNotFound)
	}
	return nil
}

// DeleteUser removes a user and everything known of them, and records that the contact is still to be withdrawn. It returns
// ErrNotFound if there is no such user.
func (db *database) DeleteUser(ctx context.Context, bare string) error {
	return db.write(ctx, func(tx *sql.Tx) error {
		err := mustAffect(tx.Exec("INSERT OR REPLACE INTO withdrawals (jid, contact, granted) SELECT jid, contact, granted FROM users WHERE jid = ?", bare))
		if err != nil {
			return err
		}
		return execute(tx, "DELETE FROM users WHERE jid = ?", bare)
	})
}

// Withdrawals returns the bare JIDs of removed users whose contact is still to be withdrawn.
func (db *database) Withdrawals(ctx context.Context) (jids []string, err error) {
	err = db.read(ctx, func(ctx context.Context) error {
		rows, err := db.sql.QueryContext(ctx, "SELECT jid FROM withdrawals")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var bare string
			if err := rows.Scan(&bare); err != nil {
				return err
			}
			jids = append(jids, bare)
		}
		return rows.Err()
	})
	return jids, err
}

// GetWithdrawal returns the withdrawal of a removed user. It returns ErrNotFound if there is none, or none any more.
func (db *database) GetWithdrawal(ctx context.Context, bare string) (w Withdrawal, err error) {
	err = db.read(ctx, func(ctx context.Context) error {
		err := db.sql.QueryRowContext(ctx, "SELECT contact, granted FROM withdrawals WHERE jid = ?", bare).Scan(&w.Contact, &w.Granted)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		return err
	})
	return w, err
}

// DeleteWithdrawal forgets a withdrawal that has been carried out.
func (db *database) DeleteWithdrawal(ctx context.Context, bare string) error {
	return db.write(ctx, func(tx *sql.Tx) error { return execute(tx, "DELETE FROM withdrawals WHERE jid = ?", bare) })
}

// DataVersion returns a number that changes whenever another process writes to the file.
func (db *database) DataVersion(ctx context.Context) (n int64, err error) {
	err = db.read(ctx, func(ctx context.Context) error {
		return db.sql.QueryRowContext(ctx, "PRAGMA data_version").Scan(&n)
	})
	return n, err
}

// StorePresence stores the statuses and profiles of several users, by bare JID. Users who have been removed are skipped.
func (db *database) StorePresence(ctx context.Context, statuses map[string]Status, profiles map[string]*Profile) error {
	return db.write(ctx, func(tx *sql.Tx) error {
		if err := storeStatuses(tx, statuses); err != nil {
			return err
		}
		for bare, p := range profiles {
			if err := storeProfile(tx, bare, p); err != nil {
				return err
			}
		}
		return nil
	})
}

func storeStatuses(tx *sql.Tx, statuses map[string]Status) error {
	insert, err := tx.Prepare(`INSERT INTO presence (jid, state, since, messages)
		SELECT jid, ?2, ?3, ?4 FROM users WHERE jid = ?1
		ON CONFLICT (jid) DO UPDATE SET state = excluded.state, since = excluded.since, messages = excluded.messages`)
	if err != nil {
		return err
	}
	defer insert.Close()
	for bare, s := range statuses {
		messages, err := json.Marshal(s.Messages)
		if err != nil {
			return err
		}
		since := sql.NullInt64{Int64: s.Since.UnixMilli(), Valid: !s.Since.IsZero()}
		if _, err := insert.Exec(bare, s.State, since, string(messages)); err != nil {
			return err
		}
	}
	return nil
}

// storeProfile stores a user's profile, nil for none.
func storeProfile(tx *sql.Tx, bare string, p *Profile) error {
	if p == nil {
		return execute(tx, "DELETE FROM profiles WHERE jid = ?", bare)
	}
	avatar := p.Avatar
	if avatar == nil {
		avatar = &Avatar{Data: []byte{}}
	}
	return execute(tx, `INSERT OR REPLACE INTO profiles (jid, nick, avatar, avatar_id, avatar_source)
		SELECT jid, ?2, ?3, ?4, ?5 FROM users WHERE jid = ?1`, bare, p.Nick, avatar.Data, avatar.ID, avatar.Source)
}

// LinkSeen returns when the link to the XMPP server was last known to be up; the zero time if it never was.
func (db *database) LinkSeen(ctx context.Context) (seen time.Time, err error) {
	err = db.read(ctx, func(ctx context.Context) error {
		var unix int64
		err := db.sql.QueryRowContext(ctx, "SELECT seen FROM link").Scan(&unix)
		if err == nil {
			seen = time.Unix(unix, 0).UTC()
		}
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return seen, err
}

// StoreLinkSeen records that the link to the XMPP server was up at a time.
func (db *database) StoreLinkSeen(ctx context.Context, at time.Time) error {
	return db.write(ctx, func(tx *sql.Tx) error {
		return execute(tx, "INSERT INTO link (id, seen) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET seen = excluded.seen", at.Unix())
	})
}
