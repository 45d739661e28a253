package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// A tlsConfig says where the web server's certificate comes from. The zero value means plain HTTP.
type tlsConfig struct {
	cert, key     string   // PEM files
	acmeDomains   []string // names of the certificate to get by ACME (RFC 8555)
	acmeCache     string   // directory of its keys and certificates, unless nodes share them in a database
	acmeDirectory string   // URL of the authority's directory
}

func (c tlsConfig) enabled() bool { return c.cert != "" || len(c.acmeDomains) > 0 }

// listenerConfig returns the configuration of the listener, nil for plain HTTP, and the handler of port 80: redirections, and the
// authority's challenges (RFC 8555 §8.3). What ACME needs is kept in shared, or in a directory if shared is nil.
func (c tlsConfig) listenerConfig(baseURL string, shared autocert.Cache, log *slog.Logger) (*tls.Config, http.Handler, error) {
	switch {
	case len(c.acmeDomains) > 0:
		cache := shared
		if cache == nil {
			if err := os.MkdirAll(c.acmeCache, 0o700); err != nil {
				return nil, nil, err
			}
			cache = autocert.DirCache(c.acmeCache)
		}
		manager := &autocert.Manager{Prompt: autocert.AcceptTOS, Cache: newGuardedCache(cache, log),
			HostPolicy: autocert.HostWhitelist(c.acmeDomains...), Client: &acme.Client{DirectoryURL: c.acmeDirectory}}
		return manager.TLSConfig(), withErrorHeaders(withoutPort(manager.HTTPHandler(redirect(baseURL)))), nil
	case c.cert != "":
		files := &certificateFiles{cert: c.cert, key: c.key, log: log}
		if err := files.load(); err != nil {
			return nil, nil, err
		}
		return &tls.Config{GetCertificate: files.get, NextProtos: []string{"h2", "http/1.1"}}, redirect(baseURL), nil
	}
	return nil, redirect(baseURL), nil
}

// withoutPort is middleware that removes the port from the host of a request: autocert compares it with bare names, and behind a
// forwarded port 80 it can have one.
func withoutPort(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if host, _, err := net.SplitHostPort(r.Host); err == nil {
			r.Host = host
		}
		handler.ServeHTTP(rw, r)
	})
}

// redirect redirects to the same path and query below a URL.
func redirect(baseURL string) http.Handler {
	base, err := url.Parse(baseURL)
	if err != nil {
		panic(err) // was validated with the configuration
	}
	return withErrorHeaders(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			rw.Header()["Allow"] = headerAllow
			http.Error(rw, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
			return
		}
		target := *base
		target.Path += r.URL.Path
		target.RawQuery = r.URL.RawQuery
		delete(rw.Header(), "Cache-Control") // clients may keep it
		omitRedirectBody(rw.Header())
		http.Redirect(rw, r, target.String(), http.StatusMovedPermanently)
	}))
}

// certificateFiles are a certificate and its key, reloaded when the files change.
type certificateFiles struct {
	cert, key string
	log       *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	changed [2]time.Time // modification times of the loaded files
	checked time.Time
}

// certificateCheck is the shortest time between checks for a change.
const certificateCheck = time.Second

func (f *certificateFiles) load() error {
	var changed [2]time.Time
	for i, name := range []string{f.cert, f.key} {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		changed[i] = info.ModTime()
	}
	if changed == f.changed {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return fmt.Errorf("%s with %s: %w", f.cert, f.key, err)
	}
	f.current, f.changed = &pair, changed
	return nil
}

// get returns the certificate of the files. If they do not fit together, as in the middle of a change, the one before stays.
func (f *certificateFiles) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.checked) >= certificateCheck {
		f.checked = now
		if err := f.load(); err != nil {
			f.log.Warn("cannot reload the certificate", "cause", err)
		}
	}
	return f.current, nil
}
