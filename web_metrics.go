package main

import (
	"net/http"
	"strings"
)

// answerKinds are what may be asked for.
var answerKinds = [...]string{"page", "json", "txt", "xml", "js", "svg", "png", "events", "embed", "index", "compatible", "none"}

// answerKind returns the index of what a path asks for.
func answerKind(path string) int {
	if path == "/" {
		return 9
	}
	if strings.HasPrefix(path, "/presence/") || strings.Contains(path, "@") {
		return 10
	}
	if !strings.HasPrefix(path, statusPath) {
		return 11
	}
	end := path[strings.LastIndexAny(path, "./")+1:]
	for i, kind := range answerKinds[:9] {
		if end == kind {
			return i
		}
	}
	return 0
}

// A counted answer remembers its status.
type counted struct {
	http.ResponseWriter
	status int
}

func (c *counted) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController through.
func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// count counts the answers of a handler.
func (c *counters) count(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		answer := counted{rw, http.StatusOK}
		handler.ServeHTTP(&answer, r)
		c.answers[answerKind(r.URL.Path)][min(answer.status/100, 5)].Add(1)
	})
}
