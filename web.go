package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// A websiteConfig is the configuration of a website. Fields are required unless their comment says otherwise.
type websiteConfig struct {
	domain         string         // the component's JID, which pages name
	baseURL        string         // public URL of the web server, without a trailing slash
	jidLinks       bool           // JID-based URLs are answered
	frameAncestors string         // sources that may frame pages (frame-ancestors of CSP Level 3)
	proxies        []netip.Prefix // reverse proxies whose X-Forwarded-For is trusted; nil for none
	templates      string         // directory whose files replace embedded templates; empty for none
	webhookConfig  webhookConfig
	leads          func() bool // whether this node, of several, uses the webhook
	board          *board
	rooms          *roomBoard
	now            func() time.Time
	log            *slog.Logger
	closing        context.Context // its end ends the event streams
}

// A website answers HTTP requests from the board.
type website struct {
	websiteConfig
	renderer atomic.Pointer[renderer]
	element  *plainPage // the script with the custom element
	cache    *renderingCache
	limits   *limits
	answers  *answerCounts
	topics   *eventTopics
	webhook  *webhook // nil for none
}

// newWebsite returns a website that uses a renderer until the templates are reloaded.
func newWebsite(conf websiteConfig, r *renderer) *website {
	w := &website{websiteConfig: conf, element: newPlainPage(formatElement, []byte(elementSource)), cache: newRenderingCache(maxCacheWeight), limits: newLimits(), answers: new(answerCounts)}
	w.limits.connections = newConnectionLimit(w.isExempt, w.log)
	w.limits.streams.max = streamCapacity(w.limits.connections.open.max)
	w.topics = newEventTopics(w)
	if w.webhookConfig.url != "" {
		w.webhook = newWebhook(w.webhookConfig, w)
		w.board.observe = w.webhook.observe
	}
	w.use(r)
	return w
}

// use replaces the renderer.
func (w *website) use(r *renderer) {
	r.baseURL = w.baseURL
	r.setPolicies(w.frameAncestors)
	w.renderer.Store(r)
	w.cache.InvalidateAll() // no key of another renderer's catalogs is looked up again
}

// handler returns the handler of all routes.
func (w *website) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", w.index)
	mux.HandleFunc("GET "+oEmbedPath, w.oEmbed)
	mux.HandleFunc("GET /room/{address}", w.room)
	mux.HandleFunc("GET "+elementPath, func(rw http.ResponseWriter, r *http.Request) {
		w.send(rw, r, w.element.rendering(acceptsGzip(r)), http.StatusOK, true)
	})
	mux.HandleFunc("GET "+statusPath+"{address...}", w.status) // with its extension, /events, /embed, or a route of Prosody's module
	mux.HandleFunc("GET /presence/jid/{user}/{host}/{out...}", w.ejabberdPresence)
	mux.HandleFunc("GET /presence/{user}/{host}/{out...}", w.ejabberdPresence)
	mux.HandleFunc("GET /", w.notFound) // other methods get 405 from the mux
	// Status addresses bypass the mux, for two reasons. Padded base64 (RFC 4648 §4) can contain "//", which the mux would redirect
	// to "/". And matching a pattern takes 0.4 µs and five allocations, which is most of what a cached response takes without it.
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.TLS != nil {
			rw.Header()["Strict-Transport-Security"] = headerHSTS
		}
		if strings.HasPrefix(r.URL.Path, statusPath) && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
			w.status(rw, r)
			return
		}
		setErrorHeaders(rw.Header()) // until a handler replaces them
		omitRedirectBody(rw.Header())
		mux.ServeHTTP(rw, r)
	})
}

// status serves the addresses of one user, or of several separated by commas, with what may follow: an extension, /events, /embed.
// An address with an @ in it is a route of Prosody's module.
func (w *website) status(rw http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, statusPath)
	if strings.IndexByte(path, '@') >= 0 {
		w.prosodyPresence(rw, r, path)
		return
	}
	if address, ok := strings.CutSuffix(path, "/events"); ok {
		w.events(rw, r, address)
		return
	}
	if address, ok := strings.CutSuffix(path, "/embed"); ok {
		w.embed(rw, r, address)
		return
	}
	var one [1]*entry
	address, f := splitExtension(path)
	w.representation(rw, r, f, w.lookUpAll(address, one[:0]))
}

func (w *website) index(rw http.ResponseWriter, r *http.Request) {
	renderer := w.renderer.Load()
	page := renderer.index[renderer.languages.match(acceptedLanguages(r, r.URL.Query()))]
	w.send(rw, r, page.rendering(acceptsGzip(r)), http.StatusOK, true)
}

// notFound sends the same response for every address that shows nothing, so that one that was turned off cannot be told from one
// that never existed.
func (w *website) notFound(rw http.ResponseWriter, r *http.Request) {
	renderer := w.renderer.Load()
	page := renderer.notFound[renderer.languages.match(acceptedLanguages(r, r.URL.Query()))]
	w.send(rw, r, page.rendering(acceptsGzip(r)), http.StatusNotFound, true)
}

// maxPeople is the number of addresses that may be combined with commas.
const maxPeople = 50

// splitAddresses splits addresses separated by commas. The same address counts once, also if it is spelled in several ways; the
// token-based and the JID-based address of one person remain two, since a response must not reveal that they belong together. Only as
// many addresses are returned as show that there are too many.
func splitAddresses(addresses string) (all []string) {
	known := make(map[string]bool)
	isNew := func(spelling string) bool {
		before := len(known)
		known[spelling] = true
		return len(known) > before
	}
	for address := range strings.SplitSeq(addresses, ",") {
		if isNew(address) {
			all = append(all, address)
		}
		if len(all) > maxPeople { // decoding many more would take long
			return all
		}
	}
	clear(known)
	return slices.DeleteFunc(all, func(address string) bool { return !isNew(canonicalAddress(address)) })
}

// A target is the result of looking up addresses separated by commas.
type target struct {
	people []*entry // nil for each address that does not exist; empty if none of them exists
	many   bool     // there is more than one address
	byJID  bool     // at least one address is JID-based
}

// lookUpAll returns the target of addresses separated by commas. The entry of a single address is appended to buf.
func (w *website) lookUpAll(addresses string, buf []*entry) (t target) {
	if strings.IndexByte(addresses, ',') < 0 {
		e, byJID := w.lookUp(addresses)
		if e == nil {
			return target{}
		}
		return target{people: append(buf, e), byJID: byJID}
	}
	t.many = true
	all := splitAddresses(addresses)
	if len(all) > maxPeople {
		return t
	}
	var people []*entry
	found := false
	for _, address := range all {
		e, byJID := w.lookUp(address)
		people = append(people, e)
		found, t.byJID = found || e != nil, t.byJID || byJID
	}
	if found {
		t.people = people
	}
	return t
}

// lookUp returns the entry for an address, nil if it does not exist. The address is a token, or a bare JID in base64.
func (w *website) lookUp(address string) (e *entry, byJID bool) {
	if t, ok := parseToken(address); ok {
		if e := w.board.byToken(t); e != nil {
			return e, false
		}
	}
	bare, ok := decodeJID(address)
	if !ok {
		return nil, false
	}
	return w.lookUpJID(bare), true
}

// lookUpJID returns the entry of a bare JID, nil unless the user allows JID-based URLs.
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
