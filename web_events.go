package main

import (
	"bytes"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"
)

const (
	eventComment = 15 * time.Second // between comments that keep proxies from closing a quiet stream
	eventWrite   = 10 * time.Second // for a reader to take an event
	eventRetry   = "retry: 3000\n\n"
	eventBye     = "retry: 1000\n\n" // when we stop: come again soon
)

// events sends the status now and each change of it as server-sent events, until the reader goes or the address does.
func (w *website) events(rw http.ResponseWriter, r *http.Request, address string) {
	h := rw.Header()
	h["Content-Type"] = typeEvents
	h["Cache-Control"] = noStore
	h["X-Accel-Buffering"] = noBuffering
	h["Access-Control-Allow-Origin"] = anyOrigin
	h["X-Content-Type-Options"] = noSniff
	if r.Method == http.MethodHead {
		return
	}
	leave, status := w.streams.enter(w.client(r))
	if status != http.StatusOK {
		refuse(rw, status)
		return
	}
	defer leave()
	control := http.NewResponseController(rw)
	send := func(format string, args ...any) bool {
		control.SetWriteDeadline(time.Now().Add(eventWrite)) // where there is none to set, the server's own holds
		_, err := fmt.Fprintf(rw, format, args...)
		return err == nil && control.Flush() == nil
	}
	if !send(eventRetry) {
		return
	}
	comment := time.NewTicker(eventComment)
	defer comment.Stop()
	last := []byte(r.Header.Get("Last-Event-ID"))
	for {
		people, many := w.lookUpAll(address, nil)
		link := w.board.link.Load()
		// What is shown is looked up after its successor is waited for, so that none is missed.
		news := append(changes(people), link.replaced)
		if again, _ := w.lookUpAll(address, nil); !slices.Equal(people, again) {
			continue
		}
		maker := w.renderer.Load()
		made, _, err := w.render(maker, w.key(maker, r, asJSON), people, many, accepted(r), nil)
		if err != nil {
			w.log.Error("a status could not be rendered", "cause", err)
		}
		if made == nil {
			return // whoever comes again finds nothing there
		}
		if id := []byte(strings.Trim(made.etag[0], `"`)); !bytes.Equal(id, last) {
			if last = id; !send("id: %s\ndata: %s\n\n", id, made.body) {
				return
			}
		}
		switch await(append(news, comment.C, r.Context().Done(), w.closing.Done())...) - len(news) {
		case 0:
			if !send(":\n\n") {
				return
			}
		case 1:
			return
		case 2:
			send(eventBye)
			return
		}
	}
}

// changes returns a channel for each of those who are somebody, to be closed at the next change.
func changes(people []*entry) (channels []any) {
	for _, e := range people {
		if e != nil {
			channels = append(channels, e.successor())
		}
	}
	return channels
}

// await waits for the first of several channels, and returns its index.
func await(channels ...any) int {
	cases := make([]reflect.SelectCase, len(channels))
	for i, ch := range channels {
		cases[i] = reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(ch)}
	}
	first, _, _ := reflect.Select(cases)
	return first
}
