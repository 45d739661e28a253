package main

import (
	"context"
	"database/sql"
	"errors"

	"golang.org/x/crypto/acme/autocert"
)

// sharedCertificates is an autocert.Cache in a PostgreSQL database. Any node answers the challenges of another, and one certificate
// serves all of them.
type sharedCertificates struct{ db *database }

// Get returns the content under a name, or autocert.ErrCacheMiss.
func (s sharedCertificates) Get(ctx context.Context, name string) (content []byte, err error) {
	err = s.db.read(ctx, func(ctx context.Context) error {
		err := s.db.sql.QueryRowContext(ctx, "SELECT content FROM acme WHERE name = $1", name).Scan(&content)
		if errors.Is(err, sql.ErrNoRows) {
			return autocert.ErrCacheMiss
		}
		return err
	})
	return content, err
}

// Put stores content under a name, and replaces what was there.
func (s sharedCertificates) Put(ctx context.Context, name string, content []byte) error {
	return s.db.write(ctx, func(t *transaction) error {
		return t.execute("INSERT INTO acme (name, content) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET content = excluded.content", name, content)
	})
}

// Delete deletes the content under a name, if there is any.
func (s sharedCertificates) Delete(ctx context.Context, name string) error {
	return s.db.write(ctx, func(t *transaction) error { return t.execute("DELETE FROM acme WHERE name = $1", name) })
}
