package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	queryTimeout = 30 * time.Second // for a query or a transaction of serve, and for another process to unlock the file
	bulkTimeout  = 24 * time.Hour   // for a transaction with all users, which an operator waits for
)

// errSlow is the error of a transaction that was given up. It is a predicate of the database.
var errSlow = errors.New("takes too long to store a change: check its disk, and what keeps the machine busy")

// A database is the SQLite file or the PostgreSQL database that holds the users. The two differ in the dialect only.
type database struct {
	*dialect
	sql        *sql.DB
	file       *databaseFile   // nil for PostgreSQL
	shared     *sharedDatabase // nil if no other node uses the database
	timeout    time.Duration   // for a query or a transaction
	statements statements
	failure    atomic.Pointer[dbFailure] // nil while transactions succeed
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
	lazily       string   // statement that lets a transaction commit before it is on the disk; empty if there is none

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

// write runs f in a transaction, which is on the disk when write returns nil. Errors are explained.
func (db *database) write(ctx context.Context, f func(*transaction) error) error {
	began := time.Now()
	err := db.explain(db.transact(ctx, f))
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

// begin begins a transaction on a connection of its own.
func (db *database) begin(ctx context.Context) (*transaction, error) {
	conn, err := db.sql.Conn(ctx)
	if err != nil {
		return nil, err
	}
	tx, err := conn.BeginTx(ctx, nil)
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
	ctx, cancel := context.WithTimeout(ctx, db.timeout)
	defer cancel()
	if err := db.file.check(); err != nil {
		return err
	}
	waiting, stop := context.WithTimeout(ctx, queryTimeout)
	defer stop()
	var t *transaction
	if err := db.file.begin(waiting, func() (err error) { t, err = db.begin(ctx); return err }); err != nil {
		return err
	}
	defer t.conn.Close()
	defer t.tx.Rollback() // a no-op after Commit
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

// An explainedError is an error of a driver in an operator's words.
type explainedError struct {
	advice string
	kind   error // ErrExists, ErrFull, ErrUnreachable, errReadOnly or errLocked; nil for other errors
	cause  error
}

// errFullDisk is the text of errors that say that the disk is full.
const errFullDisk = "cannot grow: free space on its disk"

func (e *explainedError) Error() string { return fmt.Sprintf("%s (%v)", e.advice, e.cause) }

func (e *explainedError) Unwrap() []error { return []error{e.kind, e.cause} }

// explain adds to an error of the driver what the operator can do about it. The text follows the name of the database.
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

// statements holds the SQL that depends on the table of fields.
type statements struct{ insertUser, updateUser, selectUser, selectUsers string }

func newStatements() statements {
	columns := append([]string{"jid", "token", "subscription", "asked", "created", "lang", "gone", "contact", "granted"}, optionNames(allFields)...)
	list := strings.Join(columns, ", ")
	var parameters, changes []string
	for i, column := range columns {
		parameter := fmt.Sprintf("$%d", i+1)
		parameters = append(parameters, parameter)
		if column != "jid" {
			changes = append(changes, column+" = "+parameter)
		}
	}
	return statements{
		insertUser: "INSERT INTO users (" + list + ") VALUES (" + strings.Join(parameters, ", ") + ")",
		updateUser: "UPDATE users SET " + strings.Join(changes, ", ") + " WHERE jid = $1",
		selectUser: "SELECT " + list + " FROM users WHERE jid = $1",
		selectUsers: "SELECT " + list + `, coalesce(state, 'unknown'), since, messages, nick, avatar, avatar_id, avatar_source
			FROM users LEFT JOIN presence USING (jid) LEFT JOIN profiles USING (jid)`,
	}
}

// userValues returns the values of a user's columns, in the order of the statements.
func userValues(u User) []any {
	values := []any{u.JID, u.Token[:], u.Subscription, u.Asked, u.Created.Unix(), u.Lang, optionalUnix(u.Gone), int64(u.Contact), int64(u.Granted)}
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

// userColumns scans the columns of a user, in the order of the statements.
type userColumns struct {
	user    User
	token   []byte
	created int64
	gone    sql.NullInt64
	options [32]bool
}

// pointers returns where to scan the columns.
func (c *userColumns) pointers() []any {
	pointers := []any{&c.user.JID, &c.token, &c.user.Subscription, &c.user.Asked, &c.created, &c.user.Lang, &c.gone, &c.user.Contact, &c.user.Granted}
	for i, f := range fields {
		if f.option != "" {
			pointers = append(pointers, &c.options[i])
		}
	}
	return pointers
}

// scanned returns the user whose columns have been scanned.
func (c *userColumns) scanned() User {
	copy(c.user.Token[:], c.token)
	c.user.Subscription = constant(c.user.Subscription, subscriptions)
	for i, on := range c.options {
		c.user.Options = c.user.Options.with(i, on)
	}
	c.user.Created = time.Unix(c.created, 0).UTC()
	if c.gone.Valid {
		c.user.Gone = time.Unix(c.gone.Int64, 0).UTC()
	}
	return c.user
}

// scanUser scans a row of selectUsers.
func scanUser(scan func(...any) error) (u StoredUser, err error) {
	var columns userColumns
	var since sql.NullInt64
	var avatar []byte
	var messages, nick, avatarID, avatarSource sql.NullString
	pointers := append(columns.pointers(), &u.Status.State, &since, &messages, &nick, &avatar, &avatarID, &avatarSource)
	if err := scan(pointers...); err != nil {
		return u, err
	}
	u.User, u.Status.State = columns.scanned(), constant(u.Status.State, states)
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
		u, err = scanUser(db.sql.QueryRowContext(ctx, db.statements.selectUsers+" WHERE jid = $1", bare).Scan)
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
func (f userFilter) clauses(d *dialect) (text string, values []any) {
	value := func(v any) string {
		values = append(values, v)
		return fmt.Sprintf("$%d", len(values))
	}
	conditions := []string{"jid > " + value(f.after)}
	if f.match != "" {
		conditions = append(conditions, fmt.Sprintf(d.contains, value(f.match)))
	}
	if len(f.states) > 0 {
		var wanted []string
		for _, s := range f.states {
			wanted = append(wanted, value(s))
		}
		conditions = append(conditions, "coalesce(state, 'unknown') IN ("+strings.Join(wanted, ", ")+")")
	}
	text = " WHERE " + strings.Join(conditions, " AND ") + " ORDER BY jid"
	if f.limit > 0 {
		text += " LIMIT " + value(f.limit)
	}
	return text, values
}

// Users iterates over users, sorted by JID. An error ends it, as the last pair.
func (db *database) Users(ctx context.Context, filter userFilter) iter.Seq2[StoredUser, error] {
	return func(yield func(StoredUser, error) bool) {
		clauses, values := filter.clauses(db.dialect)
		rows, err := db.sql.QueryContext(ctx, db.statements.selectUsers+clauses, values...)
		if err != nil {
			yield(StoredUser{}, db.explain(err))
			return
		}
		defer rows.Close()
		for rows.Next() {
			if u, err := scanUser(rows.Scan); !yield(u, db.explain(err)) || err != nil {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(StoredUser{}, db.explain(err))
		}
	}
}

// InsertUser registers a user, and cancels a withdrawal that has not been carried out.
func (db *database) InsertUser(ctx context.Context, u User) error {
	return db.write(ctx, func(t *transaction) error {
		if err := t.execute(db.statements.insertUser, userValues(u)...); err != nil {
			return err
		}
		return t.execute("DELETE FROM withdrawals WHERE jid = $1", u.JID)
	})
}

// InsertUsers registers several users, all of them or none. It returns how many it has registered, and the JIDs of those who
// were registered already; these stay as they are.
func (db *database) InsertUsers(ctx context.Context, users []User) (inserted int, existing []string, err error) {
	rows := func(yield func([]any) bool) {
		for _, u := range users {
			if !yield(userValues(u)) {
				return
			}
		}
	}
	err = db.write(ctx, func(t *transaction) error {
		return db.execEach(t, db.statements.insertUser+" ON CONFLICT (jid) DO NOTHING", rows, func(i int, affected int64) {
			if affected == 0 {
				existing = append(existing, users[i].JID)
			}
		})
	})
	return len(users) - len(existing), existing, err
}

// UpdateUser changes a user as stored, and returns the result. It returns ErrNotFound if the user has been removed meanwhile.
func (db *database) UpdateUser(ctx context.Context, bare string, change func(*User)) (u User, err error) {
	err = db.write(ctx, func(t *transaction) (err error) {
		u, err = db.updateUser(t, bare, change)
		return err
	})
	return u, err
}

// UpdateOptions changes a user's options as UpdateUser does, and stores the status and the profile that the options allow to keep, so
// that nothing that was switched off outlives a crash.
func (db *database) UpdateOptions(ctx context.Context, bare string, change func(*User), kept func(fieldSet) (Status, *Profile)) (u User, err error) {
	err = db.write(ctx, func(t *transaction) (err error) {
		if u, err = db.updateUser(t, bare, change); err != nil {
			return err
		}
		status, profile := kept(u.Options)
		return db.storePresence(t, presenceBatch{statuses: map[string]Status{bare: status}, profiles: map[string]*Profile{bare: profile}})
	})
	return u, err
}

// updateUser reads a user, who stays locked until the transaction ends, and stores the changed one.
func (db *database) updateUser(t *transaction, bare string, change func(*User)) (User, error) {
	var columns userColumns
	err := t.tx.QueryRowContext(t.ctx, db.statements.selectUser+db.forUpdate, bare).Scan(columns.pointers()...)
	if errors.Is(err, sql.ErrNoRows) {
		return User{}, ErrNotFound
	}
	if err != nil {
		return User{}, err
	}
	u := columns.scanned()
	change(&u)
	return u, t.execute(db.statements.updateUser, userValues(u)...)
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
	return db.write(ctx, func(t *transaction) error {
		err := mustAffect(t.exec(`INSERT INTO withdrawals (jid, contact, granted) SELECT jid, contact, granted FROM users WHERE jid = $1
			ON CONFLICT (jid) DO UPDATE SET contact = excluded.contact, granted = excluded.granted`, bare))
		if err != nil {
			return err
		}
		return t.execute("DELETE FROM users WHERE jid = $1", bare)
	})
}

// Withdrawals returns the bare JIDs of removed users whose contact this node is to withdraw. Only one of several nodes leads.
func (db *database) Withdrawals(ctx context.Context, leads bool) (jids []string, err error) {
	err = db.read(ctx, func(ctx context.Context) error {
		rows, err := db.sql.QueryContext(ctx, db.withdrawals, leads)
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
		err := db.sql.QueryRowContext(ctx, "SELECT contact, granted FROM withdrawals WHERE jid = $1", bare).Scan(&w.Contact, &w.Granted)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		return err
	})
	return w, err
}

// DeleteWithdrawal forgets a withdrawal that has been carried out.
func (db *database) DeleteWithdrawal(ctx context.Context, bare string) error {
	return db.write(ctx, func(t *transaction) error { return t.execute("DELETE FROM withdrawals WHERE jid = $1", bare) })
}

// DataVersion returns a number that changes whenever another process has removed users; it may change more often.
func (db *database) DataVersion(ctx context.Context, leads bool) (n int64, err error) {
	err = db.read(ctx, func(ctx context.Context) error {
		return db.sql.QueryRowContext(ctx, db.changes, leads).Scan(&n)
	})
	return n, err
}

// presenceBatch is what has changed of several users, by bare JID.
type presenceBatch struct {
	statuses  map[string]Status
	profiles  map[string]*Profile // nil for none
	resources map[string]string   // heard by this node, encoded; only for shared databases
}

// StorePresence stores what has changed of several users. Users who have been removed are skipped. In PostgreSQL, it may be lost in a
// crash of the server.
func (db *database) StorePresence(ctx context.Context, b presenceBatch) error {
	return db.write(ctx, func(t *transaction) error {
		if db.lazily != "" {
			if err := t.execute(db.lazily); err != nil {
				return err
			}
		}
		return db.storePresence(t, b)
	})
}

func (db *database) storePresence(t *transaction, b presenceBatch) error {
	for _, change := range []struct {
		statement string
		rows      iter.Seq[[]any]
	}{
		{`INSERT INTO presence (jid, state, since, messages)
			SELECT jid, $2, $3, $4 FROM users WHERE jid = $1
			ON CONFLICT (jid) DO UPDATE SET state = excluded.state, since = excluded.since, messages = excluded.messages`, statusRows(b.statuses)},
		{"DELETE FROM profiles WHERE jid = $1", profileRows(b.profiles, true)},
		{`INSERT INTO profiles (jid, nick, avatar, avatar_id, avatar_source)
			SELECT jid, $2, $3, $4, $5 FROM users WHERE jid = $1
			ON CONFLICT (jid) DO UPDATE SET nick = excluded.nick, avatar = excluded.avatar, avatar_id = excluded.avatar_id,
				avatar_source = excluded.avatar_source`, profileRows(b.profiles, false)},
		{db.resources, resourceRows(b.resources)},
	} {
		if err := db.execEach(t, change.statement, change.rows, nil); err != nil {
			return err
		}
	}
	return nil
}

// resourceRows returns the values of resources, by bare JID.
func resourceRows(resources map[string]string) iter.Seq[[]any] {
	return func(yield func([]any) bool) {
		for bare, encoded := range sorted(resources) {
			if !yield([]any{bare, encoded}) {
				return
			}
		}
	}
}

// sorted iterates over a map in the order of its keys, so that two transactions never wait for each other's locks.
func sorted[V any](m map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}

// statusRows returns the values of statuses, by bare JID.
func statusRows(statuses map[string]Status) iter.Seq[[]any] {
	return func(yield func([]any) bool) {
		for bare, s := range sorted(statuses) {
			messages, _ := json.Marshal(s.Messages) // strings alone
			if !yield([]any{bare, s.State, sql.NullInt64{Int64: s.Since.UnixMilli(), Valid: !s.Since.IsZero()}, string(messages)}) {
				return
			}
		}
	}
}

// profileRows returns the values of profiles, by bare JID; or the JIDs of those who have none.
func profileRows(profiles map[string]*Profile, none bool) iter.Seq[[]any] {
	return func(yield func([]any) bool) {
		for bare, p := range sorted(profiles) {
			if (p == nil) != none {
				continue
			}
			row := []any{bare}
			if p != nil {
				avatar := p.Avatar
				if avatar == nil {
					avatar = &Avatar{Data: []byte{}}
				}
				row = append(row, p.Nick, avatar.Data, avatar.ID, avatar.Source)
			}
			if !yield(row) {
				return
			}
		}
	}
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
	return db.write(ctx, func(t *transaction) error {
		return t.execute("INSERT INTO link (id, seen) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET seen = excluded.seen", at.Unix())
	})
}
