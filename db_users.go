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
	"time"
)

// statements holds the SQL that depends on the table of fields.
type statements struct{ insertUser, updateUser, updateToken, selectUser, selectUsers string }

func newStatements() statements {
	columns := []string{"jid", "token", "subscription", "asked", "created", "lang", "gone", "contact", "granted", "privileged"}
	selected := strings.Join(columns, ", ") + ", 0" // and the options as a fieldSet, since reading many columns takes long
	for i, f := range fields {
		if f.option != "" {
			columns = append(columns, f.option)
			selected += fmt.Sprintf(" + CASE WHEN %s THEN %d ELSE 0 END", f.option, fieldSet(0).with(i, true))
		}
	}
	var parameters, changes []string
	for i, column := range columns {
		parameter := fmt.Sprintf("$%d", i+1)
		parameters = append(parameters, parameter)
		if column != "jid" && column != "token" {
			changes = append(changes, column+" = "+parameter)
		}
	}
	return statements{
		insertUser: "INSERT INTO users (" + strings.Join(columns, ", ") + ") VALUES (" + strings.Join(parameters, ", ") + ")",
		// A statement that assigns a unique column, even its old value, makes PostgreSQL lock the user against nodes that store presence.
		updateUser:  "UPDATE users SET " + strings.Join(changes, ", ") + " WHERE jid = $1 AND token = $2",
		updateToken: "UPDATE users SET token = $2 WHERE jid = $1",
		selectUser:  "SELECT " + selected + " FROM users WHERE jid = $1",
		selectUsers: "SELECT " + selected + `, coalesce(state, 'unknown'), since, messages, nick, avatar, avatar_id, avatar_source
			FROM users LEFT JOIN presence USING (jid) LEFT JOIN profiles USING (jid)`,
	}
}

// userValues returns the values of a user's columns, in the order of the statements.
func userValues(u User) []any {
	values := []any{u.JID, u.Token[:], u.Subscription.String(), u.Asked, u.Created.Unix(), u.Lang, optionalUnix(u.Gone), int64(u.Contact), int64(u.Granted), u.Privileged}
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

// A userScanner scans rows of selectUser and selectUsers, one after the other.
type userScanner struct {
	pointers []any // where to scan the columns to, in the order of the statements

	user                                   User
	token                                  []byte
	subscription                           string
	created, contact, granted, options     int64
	gone                                   sql.NullInt64
	state                                  State
	since                                  sql.NullInt64
	avatar                                 []byte
	messages, nick, avatarID, avatarSource sql.NullString
}

func newUserScanner() *userScanner {
	c := &userScanner{}
	c.pointers = []any{&c.user.JID, &c.token, &c.subscription, &c.user.Asked, &c.created, &c.user.Lang, &c.gone, &c.contact, &c.granted, &c.user.Privileged, &c.options}
	return c
}

// scan scans a row of selectUser.
func (c *userScanner) scan(scan func(...any) error) (u User, err error) {
	if err := scan(c.pointers...); err != nil {
		return u, err
	}
	u = c.user
	u.Contact, u.Granted, u.Options = Contact(c.contact), Contact(c.granted), fieldSet(c.options)
	copy(u.Token[:], c.token)
	u.Created = time.Unix(c.created, 0).UTC()
	if c.gone.Valid {
		u.Gone = time.Unix(c.gone.Int64, 0).UTC()
	}
	u.Subscription, err = parseSubscription(c.subscription)
	return u, err
}

// newStoredUserScanner returns a scanner of rows of selectUsers.
func newStoredUserScanner() *userScanner {
	c := newUserScanner()
	c.pointers = append(c.pointers, &c.state, &c.since, &c.messages, &c.nick, &c.avatar, &c.avatarID, &c.avatarSource)
	return c
}

// scanStored scans a row of selectUsers.
func (c *userScanner) scanStored(scan func(...any) error) (u StoredUser, err error) {
	if u.User, err = c.scan(scan); err != nil {
		return u, err
	}
	u.Status.State = constant(c.state, states)
	if c.since.Valid {
		u.Status.Since = time.UnixMilli(c.since.Int64).UTC()
	}
	if c.nick.Valid {
		u.Profile = &Profile{Nick: c.nick.String}
		if len(c.avatar) > 0 {
			u.Profile.Avatar = &Avatar{ID: c.avatarID.String, Source: AvatarSource(c.avatarSource.String), Data: c.avatar}
		}
	}
	if c.messages.Valid && c.messages.String != noMessages {
		var messages []Text
		err = json.Unmarshal([]byte(c.messages.String), &messages)
		u.Status.Messages = messages
	}
	return u, err
}

// noMessages is what is stored for no status messages.
const noMessages = "null"

// constant returns the constant that equals v, so that users share its memory.
func constant[T comparable](v T, constants []T) T {
	if i := slices.Index(constants, v); i >= 0 {
		return constants[i]
	}
	return v
}

// GetUser returns the user with a bare JID, or ErrNotFound.
func (db *database) GetUser(ctx context.Context, bare string) (u StoredUser, err error) {
	err = db.read(ctx, func(ctx context.Context) error {
		u, err = newStoredUserScanner().scanStored(db.sql.QueryRowContext(ctx, db.statements.selectUsers+" WHERE jid = $1", bare).Scan)
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
		scanner := newStoredUserScanner()
		for rows.Next() {
			u, err := scanner.scanStored(rows.Scan)
			if err != nil {
				yield(u, db.explain(err))
				return
			}
			if !yield(u, nil) {
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
		existing = nil
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

// UpdateOptions changes a user's options as UpdateUser does, and stores the status, the profile and the presence of resources that the
// options allow to keep, so that nothing that was turned off survives a crash.
func (db *database) UpdateOptions(ctx context.Context, bare string, change func(*User), kept func(fieldSet) (Status, *Profile)) (u User, err error) {
	err = db.write(ctx, func(t *transaction) (err error) {
		if u, err = db.updateUser(t, bare, change); err != nil {
			return err
		}
		status, profile := kept(u.Options)
		batch := presenceBatch{statuses: map[string]Status{bare: status}, profiles: map[string]*Profile{bare: profile}}
		if err := db.storePresence(t, batch); err != nil || db.shared == nil {
			return err
		}
		return stripResources(t, bare, u.Options)
	})
	return u, err
}

// updateUser reads a user, who stays locked until the transaction ends, and stores the changed one, unless nothing has changed.
func (db *database) updateUser(t *transaction, bare string, change func(*User)) (User, error) {
	u, err := newUserScanner().scan(t.tx.QueryRowContext(t.ctx, db.statements.selectUser+db.forUpdate, bare).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return User{}, ErrNotFound
	}
	if err != nil {
		return User{}, err
	}
	before := u
	if change(&u); u == before {
		return u, nil
	}
	if u.Token != before.Token {
		if err := t.execute(db.statements.updateToken, u.JID, u.Token[:]); err != nil {
			return User{}, err
		}
	}
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

// DeleteUser removes a user and all data about the user, and records that the contact still has to be withdrawn. It returns
// ErrNotFound if there is no such user.
func (db *database) DeleteUser(ctx context.Context, bare string) error {
	return db.write(ctx, func(t *transaction) error {
		err := mustAffect(t.exec(`INSERT INTO withdrawals (jid, contact, granted) SELECT jid, contact, granted FROM users WHERE jid = $1`+db.forUpdate+`
			ON CONFLICT (jid) DO UPDATE SET contact = excluded.contact, granted = excluded.granted`, bare))
		if err != nil {
			return err
		}
		// Presence goes first. A node that is storing it has its lock, and would otherwise wait for the user's, which the removal has.
		if err := t.execute("DELETE FROM presence WHERE jid = $1", bare); err != nil {
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
