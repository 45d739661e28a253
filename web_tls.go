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

// A tlsConfig says how the web server comes by its certificate. The zero one means plain HTTP.
type tlsConfig struct {
	cert, key     string   // PEM files
	acmeDomains   []string // to get a certificate for (RFC 8555)
	acmeCache     string   // directory for keys and certificates
	acmeDirectory string   // of the authority
}

func (c tlsConfig) enabled() bool { return c.cert != "" || len(c.acmeDomains) > 0 }

// listenerConfig returns the configuration of the listener, nil for plain HTTP, and what answers at port 80: a redirection, and
// the authority's questions.
func (c tlsConfig) listenerConfig(baseURL string, log *slog.Logger) (*tls.Config, http.Handler, error) {
	switch {
	case len(c.acmeDomains) > 0:
		if err := os.MkdirAll(c.acmeCache, 0o700); err != nil {
			return nil, nil, err
		}
		manager := &autocert.Manager{Prompt: autocert.AcceptTOS, Cache: autocert.DirCache(c.acmeCache),
			HostPolicy: autocert.HostWhitelist(c.acmeDomains...), Client: &acme.Client{DirectoryURL: c.acmeDirectory}}
		return manager.TLSConfig(), withoutPort(manager.HTTPHandler(redirect(baseURL))), nil
	case c.cert != "":
		files := &certificateFiles{cert: c.cert, key: c.key, log: log}
		if err := files.load(); err != nil {
			return nil, nil, err
		}
		return &tls.Config{GetCertificate: files.get, NextProtos: []string{"h2", "http/1.1"}}, redirect(baseURL), nil
	}
	return nil, redirect(baseURL), nil
}

// withoutPort takes the port from the host that is asked for, which the authority names where port 80 is another one here.
func withoutPort(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if host, _, err := net.SplitHostPort(r.Host); err == nil {
			r.Host = host
		}
		handler.ServeHTTP(rw, r)
	})
}

// redirect sends everybody to the same path below a URL.
func redirect(baseURL string) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		target, err := url.Parse(baseURL)
		if err != nil || r.Method != http.MethodGet && r.Method != http.MethodHead {
			http.Error(rw, http.StatusText(http.StatusBadRequest), http.StatusBadRequest)
			return
		}
		target.Path += r.URL.Path
		target.RawQuery = r.URL.RawQuery
		http.Redirect(rw, r, target.String(), http.StatusMovedPermanently)
	})
}

// certificateFiles are a certificate and its key, which are read again when the files change.
type certificateFiles struct {
	cert, key string
	log       *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	changed [2]time.Time // of the files that were read
	looked  time.Time
}

// certificateCheck is how often the files are looked at.
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

// get returns the certificate as the files have it now. While they are not right, as in the middle of a change, the one before
// stays.
func (f *certificateFiles) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.looked) >= certificateCheck {
		f.looked = now
		if err := f.load(); err != nil {
			f.log.Warn("the certificate has not been read again", "cause", err)
		}
	}
	return f.current, nil
}
