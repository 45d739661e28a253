package main

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// Several nodes may share a PostgreSQL database. Each change carries the transaction and the node that made it; a node reads what the
// others have changed since its last snapshot, as soon as one of them says that there is something.

// notifyChannel is the channel on which nodes say that there are changes.
const notifyChannel = "webstatus"

// answerChannel is the channel on which nodes pass on answers that have come to them but that another node has asked for.
const answerChannel = "webstatus_answer"

// linkChannel is the channel on which a node says that it has a new link to the XMPP server.
const linkChannel = "webstatus_link"

// logoutChannel is the channel on which nodes say of whom they have heard a logout: by full JID, or by bare JID for several resources.
const logoutChannel = "webstatus_logout"

// lockCheck is how often a node asks whether it still holds its locks.
const lockCheck = time.Second

// maxMessage is the number of bytes in a message to other nodes: PostgreSQL's limit is 8,000.
const maxMessage = 7999

// errLockLost says that the server has given the session of this node, or its locks, to another one.
var errLockLost = errors.New("has released the locks of this node: connect to PostgreSQL directly, not through a pooler")

// errNameTaken is returned if another node has the name of this one.
var errNameTaken = errors.New("already has a node with this name: choose another name with --node")

// A membership is a connection that holds locks: those of a node that is alive, or the exclusive one of a command. It hears of changes.
type membership struct {
	conn    *pgx.Conn
	node    string
	leads   bool      // it holds the lock of the leader
	checked time.Time // when it was last known to hold its locks
	news    bool      // another node has said that there are changes, since they were last read
	answers []string  // stanzas that have come to other nodes

	relinked bool     // another node has a new link
	logouts  []string // JIDs of which nodes have heard a logout
}

// connect opens a connection for locks and news. It reads few rows of large tables, over their indexes, and so often that it must not be
// planned each time. Plans that are off seem expensive when they are used all the same, as for pg_locks, and would be compiled each time.
func connect(ctx context.Context, conf *pgx.ConnConfig) (m *membership, err error) {
	conf, m = conf.Copy(), &membership{node: conf.RuntimeParams["webstatus.node"]}
	for name, value := range map[string]string{"synchronous_commit": "off", "plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off"} {
		conf.RuntimeParams[name] = value
	}
	conf.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) {
		switch n.Channel {
		case answerChannel:
			m.answers = append(m.answers, n.Payload)
		case linkChannel:
			m.relinked = m.relinked || n.Payload != m.node
		case logoutChannel:
			m.logouts = append(m.logouts, n.Payload)
		default:
			m.news = m.news || n.Payload != m.node
		}
	}
	m.conn, err = pgx.ConnectConfig(ctx, conf)
	return m, err
}

// Close ends the membership. The server releases the locks of a closed connection a little later, so they are released first.
func (m *membership) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	m.conn.Exec(ctx, "SELECT pg_advisory_unlock_all()") // fails if the connection is broken
	return m.conn.Close(ctx)
}

// join joins the cluster as the node that the database was opened for. The error is errNameTaken if there is one of its name, and
// errNewerSchema or errOlderSchema if this version cannot use the database any longer.
func (db *database) join(ctx context.Context) (*membership, error) {
	timed, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	// The server may have stopped answering. Each connection to it that is used again would cost a timeout.
	db.sql.SetMaxIdleConns(0)
	db.sql.SetMaxIdleConns(postgresConnections)
	m, err := connect(timed, db.shared.conf)
	if err != nil {
		return nil, db.explain(err)
	}
	locked, err := m.tryLock(timed, "", "node", db.shared.node)
	if err == nil && !locked {
		// Our last connection may have been cut without the server having noticed.
		_, err = m.conn.Exec(timed, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1 AND pid = $2 LIMIT 1",
			applicationID, db.shared.pid)
		err = cmp.Or(err, errNameTaken)
	}
	if err == nil {
		db.shared.pid = m.conn.PgConn().PID()
		err = m.lockDatabase(timed, true)
	}
	if err == nil {
		err = db.checkSchema(timed) // which another version may have migrated meanwhile
	}
	if err == nil {
		_, err = m.conn.Exec(timed, "LISTEN "+notifyChannel+"; LISTEN "+answerChannel+"; LISTEN "+linkChannel+"; LISTEN "+logoutChannel)
	}
	if err == nil {
		err = m.renumber(ctx)
	}
	if err != nil {
		m.Close()
		return nil, db.explain(err)
	}
	return m, nil
}

// lockDatabase takes the lock of all nodes, or that of a command, which excludes them.
func (m *membership) lockDatabase(ctx context.Context, node bool) error {
	shared := ""
	if node {
		shared = "_shared"
	}
	locked, err := m.tryLock(ctx, shared, "database", "")
	switch {
	case err != nil:
		return err
	case !locked && node:
		return errors.New("is in use by `webstatus migrate` or `webstatus users import`: try again when it has finished")
	case !locked:
		return errors.New("is in use by another `webstatus serve`: stop it first, or choose another database with --db")
	}
	return nil
}

// tryLock takes an advisory lock of a kind and a name, in the schema. Suffix is "_shared" or empty.
func (m *membership) tryLock(ctx context.Context, suffix, kind, name string) (locked bool, err error) {
	err = m.conn.QueryRow(ctx, "SELECT pg_try_advisory_lock"+suffix+lockKeys, applicationID, kind, name).Scan(&locked)
	return locked, err
}

// lockKeys are the keys of a lock.
const lockKeys = "($1, hashtext($2 || ' ' || current_schema() || ' ' || $3))"

// endHungLeader ends the session of the leader if its last heartbeat is too old (see live_nodes). The kernel keeps the connections of a process
// that hangs, so PostgreSQL would not release the lock.
const endHungLeader = `WITH held AS (SELECT pid, objid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid = $1
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
	SELECT pg_terminate_backend(pid) FROM held JOIN nodes ON objid = (hashtext('node ' || current_schema() || ' ' || name)::bigint & 4294967295)::oid
	WHERE seen < clock_timestamp() - interval '5 seconds'
		AND pid IN (SELECT pid FROM held WHERE objid = (hashtext('leader ' || current_schema() || ' ')::bigint & 4294967295)::oid)`

// lead takes the lock of the leader if it is free, or releases it. Each lockCheck, it ends a leader that hangs, and asks whether the locks are
// still held, since two nodes would lead otherwise.
func (m *membership) lead(ctx context.Context, want bool) (err error) {
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	switch {
	case want && !m.leads:
		m.leads, err = m.tryLock(ctx, "", "leader", "")
	case !want && m.leads:
		_, err = m.conn.Exec(ctx, "SELECT pg_advisory_unlock"+lockKeys, applicationID, "leader", "")
		m.leads = false
	}
	if err != nil || time.Since(m.checked) < lockCheck {
		return err
	}
	m.checked = time.Now()
	if want && !m.leads {
		if _, err := m.conn.Exec(ctx, endHungLeader, applicationID); err != nil {
			return err
		}
	}
	held, err := m.holds(ctx, "node", m.node)
	if err == nil && held && m.leads {
		held, err = m.holds(ctx, "leader", "")
	}
	if err == nil && !held {
		err = errLockLost
	}
	m.leads = m.leads && err == nil
	return err
}

// holds reports whether the session has an advisory lock of a kind and a name.
func (m *membership) holds(ctx context.Context, kind, name string) (held bool, err error) {
	err = m.conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory' AND objsubid = 2 AND granted
		AND classid = $1 AND objid = (hashtext($2 || ' ' || current_schema() || ' ' || $3)::bigint & 4294967295)::oid)`, applicationID, kind, name).Scan(&held)
	return held, err
}

// wait waits until another node has changed something, has passed an answer on, has a new link or has heard of a logout, or for a while.
func (m *membership) wait(ctx context.Context, atMost time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	for !m.news && !m.relinked && len(m.answers) == 0 && len(m.logouts) == 0 {
		_, err := m.conn.WaitForNotification(waiting)
		if waiting.Err() != nil && !m.conn.IsClosed() {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A nodeState is another node, as its last heartbeat says.
type nodeState struct {
	name   string
	alive  bool
	linked bool // it has a link to the XMPP server
}

// Beat records that this node is alive, and returns the others.
func (db *database) Beat(ctx context.Context, linked bool) (others []nodeState, err error) {
	err = db.read(ctx, func(ctx context.Context) error {
		_, err := db.sql.ExecContext(ctx, `INSERT INTO nodes (name, seen, linked) VALUES ($1, clock_timestamp(), $2)
			ON CONFLICT (name) DO UPDATE SET seen = excluded.seen, linked = excluded.linked`, db.shared.node, linked)
		if err != nil {
			return err
		}
		db.responds()
		return query(ctx, db.sql, func(scan func(...any) error) error {
			var n nodeState
			err := scan(&n.name, &n.alive, &n.linked)
			others = append(others, n)
			return err
		}, "SELECT name, live_nodes.name IS NOT NULL, coalesce(live_nodes.linked, false) FROM nodes LEFT JOIN live_nodes USING (name) WHERE name <> $1", db.shared.node)
	})
	return others, err
}

// query runs a query and calls f for each row.
func query(ctx context.Context, q interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}, f func(scan func(...any) error) error, text string, values ...any) error {
	rows, err := q.QueryContext(ctx, text, values...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Notify tells the other nodes that there are changes.
func (db *database) Notify(ctx context.Context) error {
	return db.read(ctx, func(ctx context.Context) error {
		_, err := db.sql.ExecContext(ctx, db.lazily)
		return err
	})
}

// Tell sends all nodes messages on a channel, in one transaction. A message has at most maxMessage bytes.
func (db *database) Tell(ctx context.Context, channel string, messages ...string) error {
	return db.read(ctx, func(ctx context.Context) error {
		_, err := db.sql.ExecContext(ctx, "SELECT pg_notify($1, message) FROM unnest($2::text[]) AS message", channel, messages)
		return err
	})
}

// A heardPresence is the presence of a user's resources, as received by one node.
type heardPresence struct {
	jid       string // bare
	node      string
	resources []Presence
	status    Status // of the user, as computed by that node
}

// changes is what other nodes have changed.
type changes struct {
	users    []string // bare JIDs whose user or profile has been changed, added or removed
	presence []heardPresence
}

// Snapshot returns the current state of the database, for Changes.
func (db *database) Snapshot(ctx context.Context) (snapshot string, err error) {
	err = db.read(ctx, func(ctx context.Context) error {
		return db.sql.QueryRowContext(ctx, "SELECT pg_current_snapshot()::text").Scan(&snapshot)
	})
	return snapshot, err
}

// newRows is the condition that a row has been changed since a snapshot; newForeignRows, that another node has done so; newUserRows, that
// another node has, or any node, as is asked.
const (
	newRows        = ` changed >= pg_snapshot_xmin($1::text::pg_snapshot) AND NOT pg_visible_in_snapshot(changed, $1::text::pg_snapshot)`
	newForeignRows = newRows + ` AND origin <> current_setting('webstatus.node')`
	newUserRows    = newRows + ` AND ($2 OR origin <> current_setting('webstatus.node'))`
)

// selectChanges selects the current snapshot in the place of a JID (0), the users whom other nodes, or all, have changed since an earlier
// snapshot (1), and what other nodes have heard since (2).
const selectChanges = `SELECT 0, pg_current_snapshot()::text, '', '[]', '', NULL::bigint, '[]'
	UNION ALL SELECT 1, jid, '', '[]', '', NULL::bigint, '[]' FROM (
		SELECT jid FROM users WHERE` + newUserRows + ` UNION SELECT jid FROM profiles WHERE` + newUserRows + ` UNION SELECT jid FROM deletions WHERE` + newUserRows + `) AS changed_users
	UNION ALL SELECT 2, ` + heardColumns + ` WHERE resources.changed IS NOT NULL AND` + newForeignRows

// changes returns what other nodes have changed since a snapshot, and the snapshot to continue from. With own, the users whom this node has
// changed are among them.
func (m *membership) changes(ctx context.Context, since string, own bool) (c changes, next string, err error) {
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	m.news = false
	rows, err := m.conn.Query(ctx, selectChanges, since, own)
	if err != nil {
		return c, "", err
	}
	defer rows.Close()
	for rows.Next() {
		var kind int
		var h heardPresence
		if err := h.scan(func(columns ...any) error { return rows.Scan(append([]any{&kind}, columns...)...) }); err != nil {
			return c, "", err
		}
		switch kind {
		case 0:
			next = h.jid
		case 1:
			c.users = append(c.users, h.jid)
		default:
			c.presence = append(c.presence, h)
		}
	}
	return c, next, rows.Err()
}

// Heard returns what nodes have heard: of one user, or of all who are online if bare is empty.
func (db *database) Heard(ctx context.Context, bare string) (all []heardPresence, err error) {
	text, values := "SELECT "+heardColumns+" WHERE resources <> '[]'", []any(nil)
	if bare != "" {
		text, values = "SELECT "+heardColumns+" WHERE jid = $1", []any{bare}
	}
	err = db.read(ctx, func(ctx context.Context) (err error) {
		return query(ctx, db.sql, func(scan func(...any) error) error {
			var h heardPresence
			err := h.scan(scan)
			all = append(all, h)
			return err
		}, text, values...)
	})
	return all, err
}

// heardColumns are the columns of a heardPresence, and their tables.
const heardColumns = "jid, node, resources, coalesce(state, 'unknown'), since, coalesce(messages, '[]') FROM resources LEFT JOIN presence USING (jid)"

// scan scans the columns.
func (h *heardPresence) scan(scan func(...any) error) error {
	var encoded, messages string
	var since sql.NullInt64
	if err := scan(&h.jid, &h.node, &encoded, &h.status.State, &since, &messages); err != nil {
		return err
	}
	if since.Valid {
		h.status.Since = time.UnixMilli(since.Int64).UTC()
	}
	if err := json.Unmarshal([]byte(messages), &h.status.Messages); err != nil {
		return err
	}
	var stored []storedPresence
	if err := json.Unmarshal([]byte(encoded), &stored); err != nil {
		return err
	}
	for _, p := range stored {
		h.resources = append(h.resources, p.presence())
		h.status.Rich = cmp.Or(h.status.Rich, p.Rich)
	}
	return nil
}

// A storedPresence is the presence of one resource in the database.
type storedPresence struct {
	Resource string `json:"r"`
	State    State  `json:"s"`
	Priority int8   `json:"p,omitempty"`
	Messages []Text `json:"m,omitempty"`
	Since    int64  `json:"t"`           // Unix time in milliseconds
	Idle     int64  `json:"i,omitempty"` // Unix time in milliseconds

	Rich *RichPresence `json:"x,omitempty"` // of the user, in the first presence of the node that has heard it
}

func (p storedPresence) presence() Presence {
	q := Presence{Resource: p.Resource, State: p.State, Priority: p.Priority, Messages: p.Messages, Since: time.UnixMilli(p.Since).UTC()}
	if p.Idle != 0 {
		q.Idle = time.UnixMilli(p.Idle).UTC()
	}
	return q
}

// encodeResources encodes the presence of resources for the database, with the messages if they are to be kept, and with the user's rich
// presence if this node has heard it.
func encodeResources(resources []Presence, withMessages bool, rich *RichPresence) string {
	stored := make([]storedPresence, 0, len(resources))
	for _, p := range resources {
		s := storedPresence{Resource: p.Resource, State: p.State, Priority: p.Priority, Since: p.Since.UnixMilli()}
		if withMessages {
			s.Messages = p.Messages
		}
		if !p.Idle.IsZero() {
			s.Idle = p.Idle.UnixMilli()
		}
		stored = append(stored, s)
	}
	if rich.orEmpty().own && len(stored) > 0 {
		stored[0].Rich = rich
	}
	encoded, _ := json.Marshal(stored) // strings and numbers alone
	return string(encoded)
}

// Orphans returns the bare JIDs of the users whose presence was received by a node that has failed or has no link, and the snapshot of the
// database that is taken into account.
func (db *database) Orphans(ctx context.Context, node string) (jids []string, before string, err error) {
	err = db.read(ctx, func(ctx context.Context) error {
		if err := db.sql.QueryRowContext(ctx, "SELECT pg_current_snapshot()::text").Scan(&before); err != nil {
			return err
		}
		return query(ctx, db.sql, func(scan func(...any) error) error {
			var bare string
			err := scan(&bare)
			jids = append(jids, bare)
			return err
		}, "SELECT jid FROM resources WHERE node = $1 AND resources <> '[]'", node)
	})
	return jids, before, err
}

// ReleaseOrphans deletes the presence that a node received before a snapshot, unless the node has a link again. It returns the bare JIDs.
func (db *database) ReleaseOrphans(ctx context.Context, node, before string) (jids []string, err error) {
	err = db.write(ctx, func(t *transaction) error {
		jids = nil
		return query(t.ctx, t.tx, func(scan func(...any) error) error {
			var bare string
			err := scan(&bare)
			jids = append(jids, bare)
			return err
		}, `WITH released AS (SELECT jid FROM resources WHERE node = $1 AND resources <> '[]' AND pg_visible_in_snapshot(changed, $2::text::pg_snapshot)
				AND NOT EXISTS (SELECT FROM live_nodes WHERE name = $1 AND linked) ORDER BY jid FOR UPDATE)
			UPDATE resources SET resources = '[]' FROM released WHERE resources.jid = released.jid AND node = $1 RETURNING resources.jid`, node, before)
	})
	return jids, err
}

// A sharedDatabase is what a node knows of a database that it shares with others.
type sharedDatabase struct {
	conf  *pgx.ConnConfig
	node  string      // its name
	first *membership // with which the node has joined
	pid   uint32      // of the server's process for its last membership
}

const (
	nodeTimeout  = 5 * time.Second        // for a query of a node, so that it soon notices that the database does not answer
	joinPatience = 5 * time.Second        // for the end of a node of the same name, which may be this one, before a restart
	rejoinDelay  = 200 * time.Millisecond // between two attempts to join the cluster
)

// joinDatabase opens a PostgreSQL database as a node of a name.
func joinDatabase(ctx context.Context, location, node string) (*database, error) {
	conf, err := parsePostgres(location)
	if err != nil {
		return nil, err
	}
	db, err := openDatabase(ctx, location, true)
	if err != nil {
		return nil, err
	}
	db.Close()
	conf.RuntimeParams["webstatus.node"] = node
	conf.RuntimeParams["idle_in_transaction_session_timeout"] = "10000" // milliseconds; a node that is cut off must not keep others waiting
	db = newDatabase(postgresDialect, openPool(conf))
	db.shared, db.timeout = &sharedDatabase{conf: conf, node: node}, nodeTimeout
	for range int(joinPatience / rejoinDelay) {
		if db.shared.first, err = db.join(ctx); !errors.Is(err, errNameTaken) || ctx.Err() != nil {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(rejoinDelay):
		}
	}
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("%s %w", postgresName(location), err)
	}
	return db, nil
}

func openPool(conf *pgx.ConnConfig) *sql.DB {
	pool := stdlib.OpenDB(*conf)
	pool.SetMaxOpenConns(postgresConnections)
	pool.SetMaxIdleConns(postgresConnections)
	pool.SetConnMaxIdleTime(time.Minute)
	return pool
}
