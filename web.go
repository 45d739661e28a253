package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A website answers for the board.
type website struct {
	websiteConfig
	board    *board
	renderer atomic.Pointer[renderer]
	streams  *streams
	rations  *rations
	jidLinks bool // whether addresses made from the JID are answered
	baseURL  string
	now      func() time.Time
	log      *slog.Logger
	closing  context.Context // done when event streams are to end
}

// A websiteConfig is what a website needs to know besides the component.
type websiteConfig struct {
	frameAncestors string         // who may frame pages (CSP's frame-ancestors)
	proxies        []netip.Prefix // whose X-Forwarded-For is believed
	templates      string         // directory with files in place of the embedded ones, empty for none
}

// newWebsite makes a website that shows what a component learns.
func newWebsite(c *component, r *renderer, conf websiteConfig, closing context.Context) *website {
	w := &website{websiteConfig: conf, board: c.board, streams: newStreams(), rations: newRations(), jidLinks: c.jidLinks, baseURL: c.baseURL, now: c.now,
		log: c.log, closing: closing}
	w.use(r)
	return w
}

// use has the website make its pages with another renderer.
func (w *website) use(r *renderer) {
	policy := func(sources string) []string {
		return []string{"default-src 'none'; " + sources + "; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors " + w.frameAncestors}
	}
	r.statusPolicy, r.embedPolicy, r.otherPolicy = policy(r.statusSources), policy(r.embedSources), policy(r.otherSources)
	w.renderer.Store(r)
}

// handler has all the routes.
func (w *website) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", w.index)
	mux.HandleFunc("GET /presence/", w.atCost(w.ejabberdPresence))
	mux.HandleFunc("/", w.notFound)
	// What is asked for most does not pay for the mux, which costs as much as the rest of our own work.
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, statusPath) && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
			w.status(rw, r)
			return
		}
		mux.ServeHTTP(rw, r)
	})
}

// Values of headers. They are shared by all answers, and must not be changed.
var (
	typeHTML     = []string{"text/html; charset=utf-8"}
	typeEvents   = []string{"text/event-stream"}
	noStore      = []string{"no-store"}
	noSniff      = []string{"nosniff"}
	noIndex      = []string{"noindex"}
	noReferrer   = []string{"no-referrer"}
	anyOrigin    = []string{"*"}
	byLanguage   = []string{"Accept-Language"}
	byHeaders    = []string{"Accept-Language, Accept-Encoding"}
	byGzip       = []string{"gzip"}
	noBuffering  = []string{"no"} // for proxies such as nginx
	imagePolicy  = []string{"default-src 'none'; style-src 'unsafe-inline'; img-src data:"}
	cachePlain   = []string{"max-age=300"}
	cacheNothing = []string{"max-age=5"} // of an image that is nobody's
)

func (w *website) index(rw http.ResponseWriter, r *http.Request) {
	h := rw.Header()
	h["Cache-Control"] = cachePlain
	w.plainHeader(h)
	maker := w.renderer.Load()
	w.send(rw, r, maker.index[maker.languages.match(accepted(r))])
}

// notFound answers for everything that is not there, in one and the same way: nobody can tell an address that has never been
// from one that is switched off.
func (w *website) notFound(rw http.ResponseWriter, r *http.Request) {
	h := rw.Header()
	h["Cache-Control"] = noStore
	w.plainHeader(h)
	rw.WriteHeader(http.StatusNotFound)
	maker := w.renderer.Load()
	rw.Write(maker.notFound[maker.languages.match(accepted(r))]) // a reader who has gone needs no answer
}

func (w *website) plainHeader(h http.Header) {
	h["Content-Type"] = typeHTML
	h["Vary"] = byHeaders
	h["Content-Security-Policy"] = w.renderer.Load().otherPolicy
	h["X-Content-Type-Options"] = noSniff
	h["Referrer-Policy"] = noReferrer
}

// status answers at an address, or at several with commas between them, and at what may follow: an extension, /events, /embed.
func (w *website) status(rw http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, statusPath)
	if strings.Contains(path, "@") {
		w.atCost(w.prosodyPresence)(rw, r)
		return
	}
	if address, ok := strings.CutSuffix(path, "/events"); ok {
		if people, _ := w.lookUpAll(address, nil); people != nil {
			w.events(rw, r, address)
			return
		}
	} else if address, ok := strings.CutSuffix(path, "/embed"); ok {
		if people, many := w.lookUpAll(address, nil); people != nil {
			w.atCost(func(rw http.ResponseWriter, r *http.Request) { w.embed(rw, r, address, people, many) })(rw, r)
			return
		}
	} else {
		var one [1]*entry
		address, as := formatOf(path)
		people, many := w.lookUpAll(address, one[:0])
		w.representation(rw, r, people, many, as)
		return
	}
	w.notFound(rw, r)
}

// maxPeople is how many addresses may stand in one.
const maxPeople = 50

// lookUpAll returns whose addresses they are, with nil for nobody's; no people at all if they are all nobody's.
// They are put into room, if there is any.
func (w *website) lookUpAll(addresses string, room []*entry) (people []*entry, many bool) {
	if strings.IndexByte(addresses, ',') < 0 {
		if e := w.lookUp(addresses); e != nil {
			return append(room, e), false
		}
		return nil, false
	}
	all := strings.Split(addresses, ",")
	if len(all) > maxPeople {
		return nil, true
	}
	found := false
	for _, address := range all {
		e := w.lookUp(address)
		people = append(people, e)
		found = found || e != nil
	}
	if !found {
		return nil, true
	}
	return people, true
}

// lookUp returns whose address it is, nil if nobody's: a token, or a bare JID in base64 for those who allow it.
func (w *website) lookUp(address string) *entry {
	if t, ok := parseToken(address); ok {
		if e := w.board.byToken(t); e != nil {
			return e
		}
	}
	bare, ok := decodeJID(address)
	if !ok {
		return nil
	}
	return w.lookUpJID(bare)
}

// lookUpJID returns who is to be found by a bare JID, nil for nobody.
func (w *website) lookUpJID(bare string) *entry {
	e := w.board.byJID(bare)
	if e == nil || !w.jidLinks {
		return nil
	}
	if s := e.snapshot.Load(); s == nil || !s.options.has(fieldJIDLink) {
		return nil
	}
	return e
}

// representation answers in a format. An image is an image also where there is nobody.
func (w *website) representation(rw http.ResponseWriter, r *http.Request, people []*entry, many bool, as *format) {
	maker := w.renderer.Load()
	key := w.key(maker, r, as)
	made, listed, err := w.render(maker, key, people, many, accepted(r), r)
	switch {
	case err != nil:
		w.fail(rw, err)
		return
	case made == nil && (as == asSVG || as == asPNG):
		w.noImage(rw, maker, key, r)
		return
	case made == nil:
		w.notFound(rw, r)
		return
	}
	h := rw.Header()
	// Each header costs as much as all of our own work, and a ninth more than all of them, since their map has to grow.
	h["Content-Type"] = as.contentType
	h["Cache-Control"] = as.cache
	h["Vary"] = byLanguage
	switch as {
	case asPage: // which says by itself whether it is to be indexed
		h["Content-Security-Policy"] = maker.statusPolicy
		h["X-Content-Type-Options"] = noSniff
	case asSVG:
		h["Content-Security-Policy"] = imagePolicy
	case asPNG: // which is nothing else, whatever a browser may guess
		h["Access-Control-Allow-Origin"] = anyOrigin
	default:
		h["Access-Control-Allow-Origin"] = anyOrigin
		h["X-Content-Type-Options"] = noSniff
	}
	if as != asPage && !listed {
		h["X-Robots-Tag"] = noIndex
	}
	body, tag, size := made.body, made.etag, made.length
	if made.worthZipping() {
		h["Vary"] = byHeaders
		if takesGzip(r) {
			body, tag, size = made.gzipped(), made.zipTag, made.zipSize
			h["Content-Encoding"] = byGzip
		}
	}
	h["Etag"] = tag
	if matches(r.Header["If-None-Match"], made) {
		delete(h, "Content-Encoding")
		rw.WriteHeader(http.StatusNotModified)
		return
	}
	if len(body) >= ownLength || r.Method == http.MethodHead {
		h["Content-Length"] = size
	}
	rw.Write(body) // a reader who has gone needs no answer
}

// ownLength is the size in bytes of a body below which net/http counts by itself, at less cost.
const ownLength = 2048

// key says which rendering a reader asks for.
func (w *website) key(maker *renderer, r *http.Request, as *format) renderingKey {
	key := renderingKey{as: as, lang: maker.languages.match(accepted(r))}
	if r.URL.RawQuery != "" {
		key.look = parseLook(r.URL.Query())
	}
	return key
}

// fail answers where nothing has been made: the reader has asked for too much, or something is wrong with us.
func (w *website) fail(rw http.ResponseWriter, err error) {
	if errors.Is(err, errRation) {
		refuse(rw, http.StatusTooManyRequests)
		return
	}
	w.log.Error("a status could not be rendered", "cause", err)
	http.Error(rw, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
}

// refuse answers somebody who is to come again later.
func refuse(rw http.ResponseWriter, status int) {
	rw.Header()["Retry-After"] = []string{"30"}
	http.Error(rw, http.StatusText(status), status)
}

// atCost makes a handler of one whose answers are made anew each time, which is at the reader's cost.
func (w *website) atCost(handler http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		err := w.rations.spend(w.client(r), func() error { handler(rw, r); return nil })
		if err != nil {
			w.fail(rw, err)
		}
	}
}

// spend has a representation made at the cost of whose request it is, of nobody if that is nil.
func (w *website) spend(payer *http.Request, render func() (*rendering, error)) (made *rendering, err error) {
	if payer == nil {
		return render()
	}
	err = w.rations.spend(w.client(payer), func() (err error) {
		made, err = render()
		return err
	})
	return made, err
}

// render returns a representation of people, nil if there is nobody, and whether search engines may list it. What is not there yet
// is made at the cost of a payer.
func (w *website) render(maker *renderer, key renderingKey, people []*entry, many bool, lang string, payer *http.Request) (made *rendering, listed bool, err error) {
	link := w.board.link.Load()
	listed = true
	var views []view
	for _, e := range people {
		var s *snapshot
		if e != nil {
			s = e.snapshot.Load()
		}
		if s == nil {
			views = append(views, unknownView(key.lang))
			continue
		}
		listed = listed && s.options.has(fieldSearchEngines)
		one := key
		one.freshness = s.freshness(link, w.now())
		if s.isMultilingual() {
			one.message = s.messageFor(parseAccepted(lang))
		}
		if !many {
			if made = s.made(one); made == nil {
				wanted := one // what a function has hold of costs memory, and most requests do not come here
				made, err = w.spend(payer, func() (*rendering, error) { return s.render(wanted, maker) })
			}
			return made, listed, err
		}
		views = append(views, s.view(one.freshness, one.lang, one.message))
	}
	if !many || len(views) == 0 {
		return nil, false, nil
	}
	made, err = w.spend(payer, func() (*rendering, error) { return maker.render(key, views, true) })
	return made, listed, err
}

// noImage answers with a neutral image where there is nobody.
func (w *website) noImage(rw http.ResponseWriter, maker *renderer, key renderingKey, payer *http.Request) {
	made, err := w.spend(payer, func() (*rendering, error) { return maker.render(key, []view{unknownView(key.lang)}, false) })
	if err != nil {
		w.fail(rw, err)
		return
	}
	h := rw.Header()
	h["Content-Type"] = key.as.contentType
	h["Cache-Control"] = cacheNothing
	h["Vary"] = byHeaders
	h["X-Robots-Tag"] = noIndex
	rw.WriteHeader(http.StatusNotFound)
	rw.Write(made.body) // a reader who has gone needs no answer
}

// send writes what is not kept, as gzip where the reader takes that.
func (w *website) send(rw http.ResponseWriter, r *http.Request, body []byte) {
	made := rendering{renderingKey: renderingKey{as: asPage}, body: body}
	if made.worthZipping() && takesGzip(r) {
		rw.Header()["Content-Encoding"] = byGzip
		body = made.gzipped()
	}
	rw.Write(body) // a reader who has gone needs no answer
}

func takesGzip(r *http.Request) bool {
	header := r.Header["Accept-Encoding"]
	return len(header) > 0 && strings.Contains(header[0], "gzip")
}

// matches reports whether one of the tags in If-None-Match is that of a rendering, zipped or not (RFC 9110 §13.1.2).
func matches(conditions []string, made *rendering) bool {
	for _, c := range conditions {
		for tag := range strings.SplitSeq(c, ",") {
			tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
			if tag == "*" || tag == made.etag[0] || made.zipTag != nil && tag == made.zipTag[0] {
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
	stopTime  = 5 * time.Second // for running requests when the server stops
	graceTime = time.Second     // for what has been accepted then to be asked for
)

// serveWeb answers at a listener, by HTTPS if there is a configuration for that, until ctx is done, and finishes what runs then.
func serveWeb(ctx context.Context, listener net.Listener, secure *tls.Config, handler http.Handler, log *slog.Logger) error {
	var open sync.WaitGroup // connections
	server := &http.Server{
		Handler:           handler,
		TLSConfig:         secure,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				open.Add(1)
			case http.StateClosed, http.StateHijacked:
				open.Done()
			}
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), // what strangers do wrong
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
	// Shutdown hangs up on those whose request it has not read yet. Whoever has been accepted is to be answered, since at an
	// upgrade the next process answers whoever has not.
	listener.Close()
	<-served
	server.SetKeepAlivesEnabled(false)
	answered := make(chan struct{})
	go func() { open.Wait(); close(answered) }()
	select {
	case <-answered:
	case <-time.After(graceTime):
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		server.Close() // those who are still not done
	}
	return nil
}

// serveBeside answers at a listener of less weight, whose readers need not be waited for, until ctx is done; at once if there is
// none.
func serveBeside(ctx context.Context, listener net.Listener, handler http.Handler) error {
	if listener == nil {
		return nil
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("the web server at %s failed: %w", listener.Addr(), err)
	}
	return nil
}
