package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

//go:embed schema_postgres.sql
var schemaPostgres string

var postgresDialect = &dialect{
	migrations:  strings.Split(schemaPostgres, "\n-- Next migration.\n"),
	contains:    "strpos(jid, %s) > 0",
	changes:     "SELECT coalesce(sum(hashtext(jid)::bigint), 0)::bigint FROM withdrawals WHERE " + dueWithdrawals, // usually empty
	withdrawals: "SELECT jid FROM withdrawals WHERE " + dueWithdrawals,
	resources: `INSERT INTO resources (jid, node, resources)
		SELECT jid, current_setting('webstatus.node'), $2 FROM users WHERE jid = $1
		ON CONFLICT (jid, node) DO UPDATE SET resources = excluded.resources`,
	canInterrupt:  true,
	forUpdate:     " FOR NO KEY UPDATE",
	lazily:        "SELECT set_config('synchronous_commit', 'off', true), pg_notify('" + notifyChannel + "', coalesce(current_setting('webstatus.node', true), ''))",
	schemaVersion: postgresVersion,
	setVersion: func(t *transaction, version int) error {
		if err := t.execute("DELETE FROM webstatus"); err != nil {
			return err
		}
		return t.execute("INSERT INTO webstatus VALUES ($1)", version)
	},
	lockSchema: func(t *transaction) error {
		return t.execute("SELECT pg_advisory_xact_lock($1, hashtext('migrate ' || current_schema()))", applicationID)
	},
	execEach: execEachPipelined,
	advise:   advisePostgres,
}

// dueWithdrawals is the condition that a withdrawal is for this node to carry out: its own, and as the leader those of commands and of
// nodes that have not done it.
const dueWithdrawals = `origin = coalesce(current_setting('webstatus.node', true), '')
	OR $1 AND (origin = '' OR created < clock_timestamp() - interval '5 seconds')`

const (
	postgresConnections = 10              // in the pool
	postgresDial        = 2 * time.Second // longest wait for a connection to one host
)

// postgresParameters are set for each session unless the URL sets them. The server ends the session some seconds after this machine has
// stopped, and its locks with it.
var postgresParameters = map[string]string{"synchronous_commit": "on", "application_name": "webstatus",
	"tcp_keepalives_idle": "2", "tcp_keepalives_interval": "1", "tcp_keepalives_count": "3", "tcp_user_timeout": "5000"}

// parsePostgres parses the URL of a database. The error says nothing about it, since it may contain a password.
func parsePostgres(location string) (*pgx.ConnConfig, error) {
	scheme, rest, _ := strings.Cut(location, "://")
	conf, err := pgx.ParseConfig(strings.ToLower(scheme) + "://" + rest)
	if err != nil {
		return nil, errors.New("not a PostgreSQL URL such as postgres://webstatus@db.example.org/webstatus")
	}
	dial := dialTimeout(conf)
	if conf.ConnectTimeout == 0 || conf.ConnectTimeout > dial {
		conf.ConnectTimeout = dial
	}
	for name, value := range postgresParameters {
		if conf.RuntimeParams[name] == "" {
			conf.RuntimeParams[name] = value
		}
	}
	return conf, nil
}

// dialTimeout returns how long to wait for each host, so that there is time for all of them and for a query in nodeTimeout.
func dialTimeout(conf *pgx.ConnConfig) time.Duration {
	type address struct {
		host string
		port uint16
	}
	hosts := map[address]bool{{conf.Host, conf.Port}: true}
	for _, f := range conf.Fallbacks { // the same host again, without TLS, or another one
		hosts[address{f.Host, f.Port}] = true
	}
	return min(postgresDial, nodeTimeout/time.Duration(len(hosts)+1))
}

// postgresName returns the URL of a database without user, password and parameters.
func postgresName(location string) string {
	conf, err := parsePostgres(location)
	if err != nil {
		return "the PostgreSQL database"
	}
	if strings.HasPrefix(conf.Host, "/") {
		return "postgres:///" + conf.Database
	}
	return fmt.Sprintf("postgres://%s/%s", net.JoinHostPort(conf.Host, fmt.Sprint(conf.Port)), conf.Database)
}

// openPostgres opens a database of any known schema.
func openPostgres(ctx context.Context, location string, create bool) (db *database, version int, err error) {
	conf, err := parsePostgres(location)
	if err != nil {
		return nil, 0, err
	}
	pool := openPool(conf)
	db = newDatabase(postgresDialect, pool)
	err = db.read(ctx, func(ctx context.Context) (err error) { version, err = db.version(ctx, pool); return err })
	if err == nil && version == 0 && !create {
		err = errNoDatabase
	}
	if err != nil {
		db.Close()
		return nil, 0, fmt.Errorf("%s %w", postgresName(location), db.explain(err))
	}
	return db, version, nil
}

// lockPostgres takes a lock that lasts as long as its connection, once no other command has it. No node must be running.
func lockPostgres(ctx context.Context, location string) (io.Closer, error) {
	conf, err := parsePostgres(location)
	if err != nil {
		return nil, err
	}
	m, err := connect(ctx, conf)
	if err == nil {
		_, err = m.conn.Exec(ctx, "SELECT pg_advisory_lock"+lockKeys, applicationID, "command", "")
		if err == nil {
			err = m.lockDatabase(ctx, false)
		}
		if err != nil {
			m.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s %w", postgresName(location), explainPostgres(err))
	}
	return m, nil
}

func postgresVersion(ctx context.Context, q queryer) (version int, err error) {
	var ours bool
	var tables int
	err = q.QueryRowContext(ctx, `SELECT to_regclass(format('%I.webstatus', current_schema())) IS NOT NULL, count(*)
		FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace`).Scan(&ours, &tables)
	switch {
	case err != nil || !ours && tables == 0:
		return 0, err
	case !ours:
		return 0, errForeign
	}
	err = q.QueryRowContext(ctx, "SELECT version FROM webstatus").Scan(&version)
	return version, err
}

// pipelined is the number of statements that are sent before their results are read.
const pipelined = 1000

// execEachPipelined sends statements without waiting for the results of those before.
func execEachPipelined(t *transaction, statement string, rows iter.Seq[[]any], affected func(i int, n int64)) error {
	sent := 0
	batch := &pgx.Batch{}
	flush := func() error {
		results := batch
		batch = &pgx.Batch{}
		if results.Len() == 0 {
			return nil
		}
		return t.conn.Raw(func(driver any) error { return driver.(*stdlib.Conn).Conn().SendBatch(t.ctx, results).Close() })
	}
	for row := range rows {
		i := sent
		sent++
		queued := batch.Queue(statement, row...)
		if affected != nil {
			queued.Exec(func(tag pgconn.CommandTag) error { affected(i, tag.RowsAffected()); return nil })
		}
		if batch.Len() == pipelined {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// explainPostgres adds advice for the operator to an error.
func explainPostgres(err error) error {
	return (&database{dialect: postgresDialect}).explain(err)
}

func advisePostgres(err error) (advice string, kind error) {
	var e *pgconn.PgError
	var network net.Error
	var connect *pgconn.ConnectError
	const unreachable = "is not reachable: check that PostgreSQL is running and accepts connections from this host"
	switch {
	case errors.As(err, &e):
	case errors.As(err, &connect), errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, driver.ErrBadConn), errors.Is(err, pgconn.ErrConnClosed), errors.Is(err, net.ErrClosed), errors.Is(err, sql.ErrConnDone):
		return unreachable, ErrUnreachable
	default:
		return "", nil
	}
	switch e.Code {
	case "28000", "28P01": // invalid_authorization_specification, invalid_password
		return "refuses the login: check the user and the password, and pg_hba.conf", nil
	case "3D000": // invalid_catalog_name
		return "does not exist: create it with createdb", nil
	case "42501": // insufficient_privilege
		return "refuses access: give the user that the URL names the right to create and change tables", errReadOnly
	case "25006": // read_only_sql_transaction
		return "is a replica: name the primary server, or add target_session_attrs=read-write to the URL", ErrUnreachable
	case "23505": // unique_violation
		return adviceExists, ErrExists
	case "23503", "40001", "40P01": // foreign_key_violation, by the removal of a user meanwhile; serialization_failure, deadlock_detected
		return "has too many conflicting changes: check what else uses it", errConflict
	case "53100": // disk_full
		return "cannot grow: free space on its disk", ErrFull
	case "53300", "57P01", "57P02", "57P03": // too_many_connections, admin_shutdown, crash_shutdown, cannot_connect_now
		return unreachable, ErrUnreachable
	}
	return "failed", nil
}
