package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"
)

const (
	eventComment  = 15 * time.Second // between comments that keep proxies from closing a quiet stream
	eventWrite    = 10 * time.Second // for a client to take an event
	eventBusy     = time.Second      // until a rendering is tried again that found no slot
	eventRetry    = "retry: 3000\n\n"
	eventShutdown = "retry: 1000\n\n" // the next process takes over soon
)

// An eventStream is a live stream of one client: server-sent events (HTML Living Standard §9.2).
type eventStream struct {
	w       *website
	rw      http.ResponseWriter
	r       *http.Request
	client  netip.Addr
	address string
	comment *time.Ticker
	last    []byte // id of the last event that the client has
}

// events sends the status of an address now and after each change, until the client goes away or the address ends.
func (w *website) events(rw http.ResponseWriter, r *http.Request, address string) {
	people, _ := w.lookUpAll(address, nil)
	if people == nil {
		w.notFound(rw, r)
		return
	}
	note(rw, formatEvents.metric)
	h := rw.Header()
	h["Content-Type"], h["Cache-Control"] = formatEvents.contentType, formatEvents.cacheControl
	h["Content-Security-Policy"], h["X-Content-Type-Options"] = headerNothing, headerNoSniff
	h["X-Accel-Buffering"], h["Access-Control-Allow-Origin"] = headerNo, headerAnyOrigin
	if r.Method == http.MethodHead {
		return
	}
	s := &eventStream{w: w, rw: rw, r: r, client: w.client(r), address: address, last: []byte(r.Header.Get("Last-Event-ID"))}
	leave, err := w.limits.streams.enter(s.client)
	if err != nil {
		w.fail(rw, r, formatEvents, err)
		return
	}
	defer leave()
	s.comment = time.NewTicker(eventComment)
	defer s.comment.Stop()
	if s.send(eventRetry) {
		s.run()
	}
}

// send writes to the client, and reports whether it has taken it.
func (s *eventStream) send(format string, args ...any) bool {
	control := http.NewResponseController(s.rw)
	control.SetWriteDeadline(time.Now().Add(eventWrite)) // where none can be set, the server's own applies
	_, err := fmt.Fprintf(s.rw, format, args...)
	return err == nil && control.Flush() == nil
}

// run sends events until the stream ends.
func (s *eventStream) run() {
	for {
		if delay := s.w.limits.delay(s.client); delay > 0 {
			if !s.wait(s.w.limits.after(delay)) {
				return
			}
			continue
		}
		began := s.w.limits.now()
		people, many := s.w.lookUpAll(s.address, nil)
		// The successor is waited for before the state is read, so that no change is missed.
		changes := append(successors(people), s.w.board.link.Load().replaced)
		if again, _ := s.w.lookUpAll(s.address, nil); !slices.Equal(people, again) {
			continue
		}
		if people == nil {
			return // a client that comes again gets 404
		}
		n, err := s.render(people, many, began)
		switch {
		case s.r.Context().Err() != nil:
			return
		case err != nil:
			// The stream goes on with whatever the state is when the client's budget or a slot allows it.
			if !s.wait(s.w.limits.after(eventBusy)) {
				return
			}
			continue
		case n == nil: // the user was removed just now
			continue
		}
		if id := []byte(strings.Trim(n.etag[0], `"`)); !bytes.Equal(id, s.last) {
			if s.last = id; !s.send("id: %s\ndata: %s\n\n", id, n.body) {
				return
			}
		}
		if !s.wait(changes...) {
			return
		}
	}
}

// render returns the state of people as JSON; nil if there is none anymore. The time since began is charged to the client,
// also if the rendering is cached: many streams of many people cost time even so.
func (s *eventStream) render(people []*entry, many bool, began time.Time) (*rendering, error) {
	renderer := s.w.renderer.Load()
	spec, err := specOf(renderer, s.r, formatJSON, many)
	if err != nil {
		return nil, err
	}
	spec.compress = false // events are not compressed: proxies would hold them back
	subjects, _ := s.w.subjectsOf(people, spec.accepted, nil)
	if !many && subjects[0].snapshot == nil {
		return nil, nil
	}
	key := spec.key(subjects)
	n, ok := s.w.cache.GetIfPresent(key)
	s.w.limits.charge(s.client, began)
	if ok {
		return n, nil
	}
	n, err = s.w.render(s.r.Context(), s.client, renderer, spec, key, subjects)
	if err != nil && !isLimit(err) && s.r.Context().Err() == nil {
		s.w.log.Error("a status could not be rendered", "cause", err)
	}
	return n, err
}

// wait waits until one of several channels has something or is closed. It sends comments meanwhile, and reports whether the stream
// goes on.
func (s *eventStream) wait(channels ...any) bool {
	for {
		switch await(append(channels, s.comment.C, s.r.Context().Done(), s.w.closing.Done())...) - len(channels) {
		case 0:
			if !s.send(":\n\n") {
				return false
			}
		case 1:
			return false
		case 2:
			s.send(eventShutdown)
			return false
		default:
			return true
		}
	}
}

// successors returns a channel for each user, which is closed at the next change.
func successors(people []*entry) (channels []any) {
	for _, e := range people {
		if e != nil {
			channels = append(channels, e.successor())
		}
	}
	return channels
}

// await returns the index of the first of several channels that is ready to receive from.
func await(channels ...any) int {
	cases := make([]reflect.SelectCase, len(channels))
	for i, ch := range channels {
		cases[i] = reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(ch)}
	}
	first, _, _ := reflect.Select(cases)
	return first
}
