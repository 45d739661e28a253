package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestPanic checks that a panic in a handler is logged as an error, and that the server keeps running.
func TestPanic(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var log lockedBuffer
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a programming error") })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serveAuxiliary(ctx, listener, handler, nil, slog.New(slog.NewTextHandler(&log, nil))) }()
	for range 2 {
		if resp, err := http.Get("http://" + listener.Addr().String()); err == nil {
			t.Errorf("the response is %s", resp.Status)
			resp.Body.Close()
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "level=ERROR msg=\"http: panic serving 127.0.0.1:"); n < 2 || !strings.Contains(log.String(), "a programming error") {
		t.Errorf("%d panics are logged: %s", n, log.String())
	}
}
