package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Nodes keep the tables that they share in order: the one that joins, and once a minute the leader.

// renumberRows has the triggers number restored rows, some at a time. All other rows are older than the snapshot.
const renumberRows = `UPDATE %[1]s SET changed = changed
	WHERE ctid = ANY (ARRAY (SELECT ctid FROM %[1]s WHERE changed >= pg_snapshot_xmax(pg_current_snapshot()) LIMIT 5000))`

// renumber gives a transaction of this server to rows that have one of another server, which this one has not reached yet: those of a
// restored dump, or of a logical replica. They would be new to each node whenever it reads the changes.
func (m *membership) renumber(ctx context.Context) error {
	for _, table := range []string{"users", "profiles", "resources", "deletions"} {
		for found := true; found; {
			timed, cancel := context.WithTimeout(ctx, nodeTimeout)
			tag, err := m.conn.Exec(timed, fmt.Sprintf(renumberRows, table))
			cancel()
			if err != nil {
				return err
			}
			found = tag.RowsAffected() > 0
		}
	}
	return nil
}

// purgeBatch is the number of rows of a forgotten node that are deleted in one transaction.
const purgeBatch = 5000

// Purge deletes what no node needs any longer, and a node that has been gone for a day and is replaced, once its rows have been deleted.
func (db *database) Purge(ctx context.Context) error {
	return db.write(ctx, func(t *transaction) error {
		if err := t.execute("DELETE FROM deletions WHERE created < clock_timestamp() - interval '1 hour'"); err != nil {
			return err
		}
		var node string
		err := t.tx.QueryRowContext(t.ctx, `SELECT name FROM nodes WHERE seen < clock_timestamp() - interval '1 day'
			AND NOT EXISTS (SELECT FROM resources WHERE node = name AND resources <> '[]') LIMIT 1 FOR UPDATE`).Scan(&node)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		result, err := t.exec("DELETE FROM resources WHERE ctid = ANY (ARRAY (SELECT ctid FROM resources WHERE node = $1 AND resources = '[]' LIMIT $2))",
			node, purgeBatch)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == purgeBatch { // and there may be more
			return err
		}
		return t.execute("DELETE FROM nodes WHERE name = $1", node)
	})
}
