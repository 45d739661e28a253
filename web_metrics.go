package main

import (
	"net/http"
	"slices"
	"sync/atomic"
)

// answerCounts counts responses, by representation and class of the status.
type answerCounts [len(representations)][6]atomic.Uint64

// representations are the values of the label "representation": those of the formats, and events.
var representations = [...]string{"page", "json", "txt", "xml", "js", "svg", "png", "events", "embed", "oembed", "element", "room", "index", "legacy", "none"}

// representationIndex returns the index of a value, that of "none" for others.
func representationIndex(name string) int {
	if i := slices.Index(representations[:], name); i >= 0 {
		return i
	}
	return len(representations) - 1
}

// A countedResponse notes what is sent.
type countedResponse struct {
	http.ResponseWriter
	status         int
	representation string
}

func (c *countedResponse) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (c *countedResponse) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// note notes what a request asks for, if responses are counted.
func note(rw http.ResponseWriter, representation string) {
	if c, ok := rw.(*countedResponse); ok {
		c.representation = representation
	}
}

// count is middleware that counts responses.
func (a *answerCounts) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		response := countedResponse{ResponseWriter: rw, status: http.StatusOK}
		next.ServeHTTP(&response, r)
		a[representationIndex(response.representation)][min(response.status/100, 5)].Add(1)
	})
}
