package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	stopTime  = 5 * time.Second // for accepted connections and running requests to finish at shutdown
	graceTime = time.Second     // of it, for accepted connections to send a request
)

// newHTTPServer returns a server with the time-outs that all have.
func newHTTPServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          stdlog.New(serverLog{log}, "", 0),
	}
}

// A serverLog is the log of a server: what clients do wrong is logged at debug level, panics are errors.
type serverLog struct{ to *slog.Logger }

func (l serverLog) Write(message []byte) (int, error) {
	level, text := slog.LevelDebug, string(message)
	if strings.HasPrefix(text, "http: panic serving ") || strings.HasPrefix(text, "http2: panic serving ") {
		level = slog.LevelError
	}
	l.to.Log(context.Background(), level, strings.TrimSpace(text))
	return len(message), nil
}

// serveWeb serves HTTP, or HTTPS with a TLS configuration, within a limit on connections until ctx is done, and then finishes running
// requests.
func serveWeb(ctx context.Context, listener net.Listener, secure *tls.Config, handler http.Handler, connections *connectionLimit, log *slog.Logger) error {
	listener = connections.listener(listener)
	var open sync.WaitGroup // connections
	server := newHTTPServer(handler, log)
	server.TLSConfig = secure
	server.ConnState = func(conn net.Conn, state http.ConnState) {
		connections.noteState(conn, state)
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed, http.StateHijacked:
			open.Done()
		}
	}
	served := make(chan error, 1)
	go func() {
		if secure != nil {
			served <- server.ServeTLS(listener, "", "")
		} else {
			served <- server.Serve(listener)
		}
	}()
	select {
	case err := <-served:
		return fmt.Errorf("the web server failed: %w", err)
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	// Shutdown closes connections whose request has not been read yet. Accepted clients must be answered, since at an upgrade the
	// next process only answers the others.
	listener.Close()
	<-served
	server.SetKeepAlivesEnabled(false)
	answered := make(chan struct{})
	go func() { open.Wait(); close(answered) }()
	select {
	case <-answered:
	case <-time.After(graceTime):
	}
	if server.Shutdown(ctx) != nil {
		server.Close() // ends the requests that still run
	}
	return nil
}

// serveAuxiliary serves HTTP until ctx is done and does not wait for running requests then: metrics and redirections. It returns
// at once if there is no listener. The limit on connections is nil for none.
func serveAuxiliary(ctx context.Context, listener net.Listener, handler http.Handler, connections *connectionLimit, log *slog.Logger) error {
	if listener == nil {
		return nil
	}
	server := newHTTPServer(handler, log)
	if connections != nil {
		listener, server.ConnState = connections.listener(listener), connections.noteState
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("the web server at %s failed: %w", listener.Addr(), err)
	}
	return nil
}
