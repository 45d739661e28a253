package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// queryTime is how long any one query may take.
const queryTime = 30 * time.Second

// A database is the SQLite file. It has one connection, so that whatever changes it goes in turn.
type database struct {
	sql    *sql.DB
	failed atomic.Pointer[dbFailure] // nil while all is well
	times  histogram                 // of transactions
}

// A dbFailure says since when no transaction has succeeded.
type dbFailure struct {
	err   error
	since time.Time
}

// failing returns since when, and why, nothing can be written; nil if the last transaction succeeded.
func (db *database) failing() *dbFailure { return db.failed.Load() }

func (db *database) Close() error { return db.sql.Close() }

// write runs f in a transaction, which is on the disk when write returns without an error.
func (db *database) write(ctx context.Context, f func(*sql.Tx) error) error {
	began := time.Now()
	err := db.transact(ctx, f)
	db.times.add(time.Since(began))
	switch before := db.failed.Load(); {
	case err == nil || errors.Is(err, ErrNotFound):
		db.failed.Store(nil)
	case before == nil:
		db.failed.Store(&dbFailure{err, began})
	}
	return err
}

func (db *database) transact(ctx context.Context, f func(*sql.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	tx, err := db.sql.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after a commit it does nothing
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// explain puts SQLite's errors in an operator's words.
func explain(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return fmt.Errorf("%w (%w)", errReadOnly, err)
	case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
		return fmt.Errorf("is damaged: restore a backup (%w)", err)
	case sqlite3.SQLITE_BUSY:
		return fmt.Errorf("is held by another process: stop that one first (%w)", err)
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("cannot grow: make room on its disk (%w)", err)
	}
	return fmt.Errorf("failed: %w", err)
}

// isFull reports whether the disk has no room left.
func isFull(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_FULL
}

// userColumns are those of a User; the options have the names of the form's fields.
var userColumns = append([]string{"jid", "token", "subscription", "asked", "created", "lang", "gone"}, optionNames(allFields)...)

// values returns what the columns of a user hold.
func (u *User) values() []any {
	values := []any{u.JID, u.Token[:], u.Subscription, u.Asked, u.Created.Unix(), u.Lang, optionalUnix(u.Gone)}
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

func scanUser(scan func(...any) error, more ...any) (u User, err error) {
	var token []byte
	var created int64
	var gone sql.NullInt64
	columns := []any{&u.JID, &token, &u.Subscription, &u.Asked, &created, &u.Lang, &gone}
	options := make([]bool, len(fields))
	for i, f := range fields {
		if f.option != "" {
			columns = append(columns, &options[i])
		}
	}
	err = scan(append(columns, more...)...)
	for i, on := range options {
		u.Options = u.Options.with(i, on)
	}
	copy(u.Token[:], token)
	u.Created = time.Unix(created, 0).UTC()
	if gone.Valid {
		u.Gone = time.Unix(gone.Int64, 0).UTC()
	}
	return u, err
}

// GetUser returns who is registered with a bare JID, or ErrNotFound.
func (db *database) GetUser(ctx context.Context, bare string) (User, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	u, err := scanUser(db.sql.QueryRowContext(ctx, "SELECT "+strings.Join(userColumns, ", ")+" FROM users WHERE jid = ?", bare).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return User{}, ErrNotFound
	}
	return u, err
}

// GetStoredUser returns who is registered with a bare JID and the last status that was written down, or ErrNotFound.
func (db *database) GetStoredUser(ctx context.Context, bare string) (StoredUser, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	u, err := scanStoredUser(db.sql.QueryRowContext(ctx, selectStoredUser+" WHERE jid = ?", bare).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return StoredUser{}, ErrNotFound
	}
	return u, err
}

// StoreUser registers a user, or changes one. It is on the disk when it returns without an error.
func (db *database) StoreUser(ctx context.Context, u User) error {
	return db.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec(upsertUser, u.values()...)
		if err == nil {
			_, err = tx.Exec("DELETE FROM withdrawals WHERE jid = ?", u.JID)
		}
		return err
	})
}

var insertUser = "INSERT INTO users (" + strings.Join(userColumns, ", ") + ") VALUES (?" + strings.Repeat(", ?", len(userColumns)-1) + ")"

var upsertUser = func() string {
	var changes []string
	for _, column := range userColumns {
		if column != "jid" && column != "created" {
			changes = append(changes, column+" = excluded."+column)
		}
	}
	return insertUser + " ON CONFLICT (jid) DO UPDATE SET " + strings.Join(changes, ", ")
}()

// DeleteUser removes a user and all that is known of them, and notes that the contact is to be withdrawn. It returns
// ErrNotFound if there is no such user.
func (db *database) DeleteUser(ctx context.Context, bare string) error {
	return db.write(ctx, func(tx *sql.Tx) error {
		result, err := tx.Exec("DELETE FROM users WHERE jid = ?", bare)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, ErrNotFound)
		}
		_, err = tx.Exec("INSERT OR IGNORE INTO withdrawals (jid) VALUES (?)", bare)
		return err
	})
}

// Withdrawals returns the bare JIDs of those who have left and whose contact is still to be withdrawn.
func (db *database) Withdrawals(ctx context.Context) (jids []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	rows, err := db.sql.QueryContext(ctx, "SELECT jid FROM withdrawals")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var bare string
		if err := rows.Scan(&bare); err != nil {
			return nil, err
		}
		jids = append(jids, bare)
	}
	return jids, rows.Err()
}

// Withdrawn forgets a withdrawal that has been made.
func (db *database) Withdrawn(ctx context.Context, bare string) error {
	return db.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec("DELETE FROM withdrawals WHERE jid = ?", bare)
		return err
	})
}

// Changes returns a number that differs from the one before when another process has written to the file.
func (db *database) Changes(ctx context.Context) (n int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	err = db.sql.QueryRowContext(ctx, "PRAGMA data_version").Scan(&n)
	return n, err
}

// A userFilter says which users are wanted; the zero one all of them.
type userFilter struct {
	match  string  // part of the JID, empty for any
	states []State // last known, none for any
	after  string  // only those behind this JID, in the order of the list
	limit  int     // at most so many, 0 for all
}

// where makes the rest of a query.
func (f userFilter) where() (clause string, values []any) {
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
	clause = " WHERE " + strings.Join(conditions, " AND ") + " ORDER BY jid"
	if f.limit > 0 {
		clause += " LIMIT ?"
		values = append(values, f.limit)
	}
	return clause, values
}

// Users goes through users with their last status, by JID. An error ends it, as the last pair.
func (db *database) Users(ctx context.Context, filter userFilter) iter.Seq2[StoredUser, error] {
	return func(yield func(StoredUser, error) bool) {
		clause, values := filter.where()
		rows, err := db.sql.QueryContext(ctx, selectStoredUser+clause, values...)
		if err != nil {
			yield(StoredUser{}, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			if u, err := scanStoredUser(rows.Scan); !yield(u, err) || err != nil {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(StoredUser{}, err)
		}
	}
}

var selectStoredUser = "SELECT " + strings.Join(userColumns, ", ") + `, coalesce(state, 'unknown'), since, messages,
	nick, avatar, avatar_id, avatar_source FROM users LEFT JOIN presence USING (jid) LEFT JOIN profiles USING (jid)`

func scanStoredUser(scan func(...any) error) (u StoredUser, err error) {
	var since sql.NullInt64
	var messages, nick, avatarID, avatarSource sql.NullString
	var avatar []byte
	if u.User, err = scanUser(scan, &u.Status.State, &since, &messages, &nick, &avatar, &avatarID, &avatarSource); err != nil {
		return u, err
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

// StorePresence writes down statuses and profiles of several users at once, by bare JID. Those who have left meanwhile are
// passed over.
func (db *database) StorePresence(ctx context.Context, statuses map[string]Status, profiles map[string]*Profile) error {
	return db.write(ctx, func(tx *sql.Tx) error {
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
		for bare, p := range profiles {
			if err := storeProfile(tx, bare, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// storeProfile writes down a user's profile, nil for none.
func storeProfile(tx *sql.Tx, bare string, p *Profile) error {
	if p == nil {
		_, err := tx.Exec("DELETE FROM profiles WHERE jid = ?", bare)
		return err
	}
	avatar := p.Avatar
	if avatar == nil {
		avatar = &Avatar{Data: []byte{}}
	}
	_, err := tx.Exec(`INSERT OR REPLACE INTO profiles (jid, nick, avatar, avatar_id, avatar_source)
		SELECT jid, ?2, ?3, ?4, ?5 FROM users WHERE jid = ?1`, bare, p.Nick, avatar.Data, avatar.ID, avatar.Source)
	return err
}

// LinkSeen returns when the link to the XMPP server was last known to be up, the zero time if it never was.
func (db *database) LinkSeen(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	var seen int64
	err := db.sql.QueryRowContext(ctx, "SELECT seen FROM link").Scan(&seen)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	return time.Unix(seen, 0).UTC(), err
}

// StoreLinkSeen notes that the link to the XMPP server was up at that time.
func (db *database) StoreLinkSeen(ctx context.Context, at time.Time) error {
	return db.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec("INSERT INTO link (id, seen) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET seen = excluded.seen", at.Unix())
		return err
	})
}

// AddUsers registers several users, all of them or none, and returns how many, and who was registered already.
func (db *database) AddUsers(ctx context.Context, users []User) (registered int, kept []string, err error) {
	err = db.write(ctx, func(tx *sql.Tx) error {
		for _, u := range users {
			result, err := tx.Exec(insertUser+" ON CONFLICT (jid) DO NOTHING", u.values()...)
			if err != nil {
				return fmt.Errorf("%s: %w", u.JID, err)
			}
			n, err := result.RowsAffected()
			if err != nil {
				return err
			}
			if n == 0 {
				kept = append(kept, u.JID)
			}
			registered += int(n)
		}
		return nil
	})
	return registered, kept, err
}
