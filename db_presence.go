package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"slices"
	"time"
)

// presenceBatch is what has changed of several users, by bare JID.
type presenceBatch struct {
	statuses  map[string]Status
	profiles  map[string]*Profile // nil for none
	resources map[string]string   // received by this node, encoded; only for shared databases
	linkSeen  time.Time           // when the link to the XMPP server was up, and the statuses known to be current; zero to keep what is stored
}

// StorePresence stores what has changed of several users, and tells other nodes. Users who have been removed are skipped. In PostgreSQL, it
// may be lost in a crash of the server.
func (db *database) StorePresence(ctx context.Context, b presenceBatch) error {
	return db.write(ctx, func(t *transaction) error {
		if db.lazily != "" {
			if err := t.execute(db.lazily); err != nil {
				return err
			}
		}
		if !b.linkSeen.IsZero() {
			if err := t.execute("INSERT INTO link (id, seen) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET seen = excluded.seen", b.linkSeen.Unix()); err != nil {
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

// stripResources removes what the options do not allow to keep from the presence that nodes have stored of a user.
func stripResources(t *transaction, bare string, options fieldSet) error {
	changed := make(map[string]string) // by node
	err := query(t.ctx, t.tx, func(scan func(...any) error) error {
		var node, encoded string
		if err := scan(&node, &encoded); err != nil {
			return err
		}
		var stored []storedPresence
		if err := json.Unmarshal([]byte(encoded), &stored); err != nil {
			return err
		}
		for i := range stored {
			stored[i].strip(options)
		}
		stripped, _ := json.Marshal(stored) // strings and numbers alone
		if string(stripped) != encoded {
			changed[node] = string(stripped)
		}
		return nil
	}, "SELECT node, resources FROM resources WHERE jid = $1 FOR UPDATE", bare)
	if err != nil {
		return err
	}
	for node, encoded := range sorted(changed) {
		if err := t.execute("UPDATE resources SET resources = $3 WHERE jid = $1 AND node = $2", bare, node, encoded); err != nil {
			return err
		}
	}
	return nil
}

// strip removes what the options do not allow to keep.
func (p *storedPresence) strip(options fieldSet) {
	if !options.has(fieldMessage) {
		p.Messages = nil
	}
	if p.Rich == nil {
		return
	}
	if rich := p.Rich.only(options); rich == (RichPresence{}) {
		p.Rich = nil
	} else {
		p.Rich = &rich
	}
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
