package main

import (
	"context"
	"errors"
	"log/slog"
	"regexp"
	"time"

	"golang.org/x/crypto/acme/autocert"
)

// A guardedCache is the ACME cache as clients can reach it: by the names for which they request a certificate, and by the paths of
// challenges. They cannot overload it, since there is only one read at a time, and its errors appear only in the log.
type guardedCache struct {
	cache    autocert.Cache
	failures failureLog
	reading  chan struct{} // holds one element while the cache is read
}

func newGuardedCache(cache autocert.Cache, log *slog.Logger) *guardedCache {
	return &guardedCache{cache: cache, failures: failureLog{log: log, now: time.Now, what: "the certificate store"}, reading: make(chan struct{}, 1)}
}

// errCertificates is the error that clients may see.
var errCertificates = errors.New("the certificate store failed")

// cacheName matches all names that autocert uses: of hosts, and tokens (RFC 8555 §8.3), with suffixes.
var cacheName = regexp.MustCompile(`^[A-Za-z0-9._+-]{1,200}$`)

// Get implements autocert.Cache.
func (g *guardedCache) Get(ctx context.Context, name string) ([]byte, error) {
	if !cacheName.MatchString(name) {
		return nil, autocert.ErrCacheMiss
	}
	select {
	case g.reading <- struct{}{}:
		defer func() { <-g.reading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	content, err := g.cache.Get(ctx, name)
	if errors.Is(err, autocert.ErrCacheMiss) {
		g.failures.report(ctx, "", nil)
		return nil, autocert.ErrCacheMiss
	}
	return content, g.note(ctx, "reading", err)
}

// Put implements autocert.Cache.
func (g *guardedCache) Put(ctx context.Context, name string, content []byte) error {
	return g.note(ctx, "storing", g.cache.Put(ctx, name, content))
}

// Delete implements autocert.Cache.
func (g *guardedCache) Delete(ctx context.Context, name string) error {
	return g.note(ctx, "deleting", g.cache.Delete(ctx, name))
}

// note logs an error, unless the client is gone, and returns the one that clients may see.
func (g *guardedCache) note(ctx context.Context, operation string, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	g.failures.report(ctx, operation, err)
	if err != nil {
		return errCertificates
	}
	return nil
}
