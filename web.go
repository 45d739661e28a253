package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"
)

// A website answers for the board.
type website struct {
	board    *board
	renderer *renderer
	jidLinks bool // whether addresses made from the JID are answered
	now      func() time.Time
	log      *slog.Logger
	closing  context.Context // done when event streams are to end

	// Values of headers, made once.
	statusPolicy []string // Content-Security-Policy of a status page
	otherPolicy  []string // the same of the other pages
}

// newWebsite makes a website whose pages may be framed by the given sources (CSP's frame-ancestors).
func newWebsite(c *component, r *renderer, frameAncestors string, closing context.Context) *website {
	policy := func(sources string) []string {
		return []string{"default-src 'none'; " + sources + "; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors " + frameAncestors}
	}
	return &website{board: c.board, renderer: r, jidLinks: c.jidLinks, now: c.now, closing: closing, log: c.log,
		statusPolicy: policy(r.statusSources), otherPolicy: policy(r.otherSources)}
}

// handler has all the routes.
func (w *website) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", w.index)
	mux.HandleFunc("GET /status/", w.status)
	mux.HandleFunc("/", w.notFound)
	return mux
}

// Values of headers. They are shared by all answers, and must not be changed.
var (
	typeHTML    = []string{"text/html; charset=utf-8"}
	typeJSON    = []string{"application/json"}
	typeEvents  = []string{"text/event-stream"}
	noCache     = []string{"no-cache"}
	noStore     = []string{"no-store"}
	noSniff     = []string{"nosniff"}
	noIndex     = []string{"noindex"}
	noReferrer  = []string{"no-referrer"}
	anyOrigin   = []string{"*"}
	byLanguage  = []string{"Accept-Language"}
	noBuffering = []string{"no"} // for proxies such as nginx
)

func (w *website) index(rw http.ResponseWriter, r *http.Request) {
	h := rw.Header()
	h["Cache-Control"] = []string{"max-age=300"}
	w.plainHeader(h)
	rw.Write(w.renderer.index[w.renderer.languages.match(accepted(r))]) // a reader who has gone needs no answer
}

// notFound answers for everything that is not there, in one and the same way: nobody can tell an address that has never been
// from one that is switched off.
func (w *website) notFound(rw http.ResponseWriter, r *http.Request) {
	h := rw.Header()
	h["Cache-Control"] = noStore
	w.plainHeader(h)
	rw.WriteHeader(http.StatusNotFound)
	rw.Write(w.renderer.notFound[w.renderer.languages.match(accepted(r))]) // a reader who has gone needs no answer
}

func (w *website) plainHeader(h http.Header) {
	h["Content-Type"] = typeHTML
	h["Vary"] = byLanguage
	h["Content-Security-Policy"] = w.otherPolicy
	h["X-Content-Type-Options"] = noSniff
	h["Referrer-Policy"] = noReferrer
}

// status answers at an address and at what may follow it: /events, .json.
func (w *website) status(rw http.ResponseWriter, r *http.Request) {
	address := strings.TrimPrefix(r.URL.Path, "/status/")
	address, isStream := strings.CutSuffix(address, "/events")
	address, isJSON := strings.CutSuffix(address, ".json")
	e := w.lookUp(address)
	switch {
	case e == nil || isStream && isJSON:
		w.notFound(rw, r)
	case isStream:
		w.events(rw, r, address, e)
	case isJSON:
		w.representation(rw, r, e, asJSON)
	default:
		w.representation(rw, r, e, asPage)
	}
}

// lookUp returns whose address it is, nil if nobody's: a token, or a bare JID in base64 for those who allow it.
func (w *website) lookUp(address string) *entry {
	if t, ok := parseToken(address); ok {
		if e := w.board.byToken(t); e != nil {
			return e
		}
	}
	bare, ok := decodeJID(address)
	if !ok || !w.jidLinks {
		return nil
	}
	e := w.board.byJID(bare)
	if e == nil {
		return nil
	}
	if s := e.current.Load(); s == nil || !s.options.JIDLink {
		return nil
	}
	return e
}

func (w *website) representation(rw http.ResponseWriter, r *http.Request, e *entry, as representation) {
	s := e.current.Load()
	if s == nil {
		w.notFound(rw, r)
		return
	}
	h := rw.Header()
	lang := accepted(r)
	key := renderingKey{as: as, lang: w.renderer.languages.match(lang), validity: s.validity(w.board.link.Load(), w.now())}
	if s.isMultilingual() {
		key.message = s.messageFor(parseAccepted(lang))
	}
	h["Vary"] = byLanguage
	made, err := s.render(key, w.renderer)
	if err != nil {
		w.log.Error("a status could not be rendered", "cause", err)
		http.Error(rw, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	h["Etag"] = made.etag
	h["Cache-Control"] = noCache
	h["X-Content-Type-Options"] = noSniff
	// No more than eight headers: with a ninth, their map costs more than all of them.
	switch as {
	case asPage: // which says by itself that it is not to be indexed
		h["Content-Type"] = typeHTML
		h["Content-Security-Policy"] = w.statusPolicy
		h["Referrer-Policy"] = noReferrer
	case asJSON:
		h["Content-Type"] = typeJSON
		if !s.options.SearchEngines {
			h["X-Robots-Tag"] = noIndex
		}
		h["Access-Control-Allow-Origin"] = anyOrigin
	}
	if matches(r.Header["If-None-Match"], made.etag[0]) {
		rw.WriteHeader(http.StatusNotModified)
		return
	}
	h["Content-Length"] = made.length
	rw.Write(made.body) // a reader who has gone needs no answer
}

// matches reports whether one of the tags in If-None-Match is ours (RFC 9110 §13.1.2).
func matches(conditions []string, etag string) bool {
	for _, c := range conditions {
		for tag := range strings.SplitSeq(c, ",") {
			tag = strings.TrimSpace(tag)
			if tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
				return true
			}
		}
	}
	return false
}

// accepted returns the languages that a reader asks for: in the address, else in the header.
func accepted(r *http.Request) string {
	if r.URL.RawQuery != "" {
		if lang := r.URL.Query().Get("lang"); lang != "" {
			return lang
		}
	}
	if header := r.Header["Accept-Language"]; len(header) > 0 {
		return header[0]
	}
	return ""
}

const (
	eventComment = 15 * time.Second // between comments that keep proxies from closing a quiet stream
	eventWrite   = 10 * time.Second // for a reader to take an event
)

// events sends the status now and each change of it as server-sent events, until the reader goes or the address does.
func (w *website) events(rw http.ResponseWriter, r *http.Request, address string, e *entry) {
	h := rw.Header()
	h["Content-Type"] = typeEvents
	h["Cache-Control"] = noStore
	h["X-Accel-Buffering"] = noBuffering
	h["Access-Control-Allow-Origin"] = anyOrigin
	h["X-Content-Type-Options"] = noSniff
	control := http.NewResponseController(rw)
	send := func(format string, args ...any) bool {
		control.SetWriteDeadline(time.Now().Add(eventWrite)) // where there is none to set, the server's own holds
		_, err := fmt.Fprintf(rw, format, args...)
		return err == nil && control.Flush() == nil
	}
	lang := accepted(r)
	comment := time.NewTicker(eventComment)
	defer comment.Stop()
	var last []byte
	for {
		s, changed := e.watch()
		link := w.board.link.Load()
		if s == nil || w.lookUp(address) != e {
			return // whoever comes again finds nothing there
		}
		key := renderingKey{as: asJSON, lang: w.renderer.languages.match(lang), validity: s.validity(link, w.now())}
		if s.isMultilingual() {
			key.message = s.messageFor(parseAccepted(lang))
		}
		made, err := s.render(key, w.renderer)
		if err != nil {
			w.log.Error("a status could not be rendered", "cause", err)
			return
		}
		if !bytes.Equal(made.body, last) {
			if last = made.body; !send("data: %s\n\n", last) {
				return
			}
		}
		select {
		case <-changed:
		case <-link.changed:
		case <-comment.C:
			if !send(":\n\n") {
				return
			}
		case <-r.Context().Done():
			return
		case <-w.closing.Done():
			return
		}
	}
}

// stopTime is how long running requests may take when the server stops.
const stopTime = 5 * time.Second

// serveWeb answers at a listener until ctx is done, and finishes what runs then.
func serveWeb(ctx context.Context, listener net.Listener, handler http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // what strangers do wrong
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close() // those who are still not done
		}
	})
	err := server.Serve(listener)
	if !stop() {
		<-stopped
		return nil
	}
	return fmt.Errorf("the web server failed: %w", err)
}
