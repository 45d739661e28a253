package main

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"
)

// A renderSpec says what to render, but for whom: the part of a request that a representation depends on.
type renderSpec struct {
	format   *format
	lang     *catalog
	accepted string // languages that the client accepts, for the choice of a message
	options  renderOptions
	compress bool            // the client accepts gzip and the format is compressible
	many     bool            // several people
	ctx      context.Context // of the request, set while it is rendered
	byJID    bool            // at a JID-based address; only of formats that name themselves
}

// specOf returns what a request asks for in a format.
func specOf(renderer *renderer, r *http.Request, f *format, many bool) (spec renderSpec, err error) {
	spec = renderSpec{format: f, lang: renderer.languages.english(), options: defaultRenderOptions, compress: f.compressible && acceptsGzip(r), many: many}
	var query url.Values
	if r.URL.RawQuery != "" {
		query = r.URL.Query()
	}
	if !f.english {
		spec.accepted = acceptedLanguages(r, query)
		spec.lang = renderer.languages.match(spec.accepted)
	}
	if f.options != nil && query != nil {
		spec.options, err = f.options(query)
	}
	return spec, err
}

// slot returns the kind of slot that rendering takes.
func (spec *renderSpec) slot() slotClass {
	switch {
	case spec.many && spec.format.slot == slotSingle:
		return slotList
	case spec.format.slot == slotPNG && !spec.many && spec.options.isSmall():
		return slotSingle
	}
	return spec.format.slot
}

// key returns the key of a rendering of subjects.
func (spec *renderSpec) key(subjects []subject) renderingKey {
	key := renderingKey{format: spec.format, lang: spec.lang, options: spec.options.key(), compress: spec.compress, many: spec.many, byJID: spec.byJID}
	if !spec.many {
		key.person = subjects[0].key
		if shared := spec.format.stateOnly; shared != nil && shared(spec.options.imageOptions) {
			key.person = personKey{state: uint8(1 + slices.Index(states, subjects[0].state()))}
		}
		return key
	}
	var buf [1024]byte
	b := buf[:0]
	for i := range subjects {
		b = subjects[i].key.append(b)
	}
	key.people = string(b)
	return key
}

// A subject is a user as a request finds it, a room, or the unknown view.
type subject struct {
	room      *Room     // nil for a person
	snapshot  *snapshot // nil for a room and for the unknown view
	freshness freshness
	key       personKey
}

func (s *subject) state() State {
	if s.snapshot == nil {
		return Unknown
	}
	return s.snapshot.state(s.freshness)
}

// fill sets the view to render. Only a representation that names itself gets the address.
func (s *subject) fill(v *view, spec *renderSpec) {
	switch {
	case s.room != nil:
		*v = s.room.view(spec.lang)
	case s.snapshot == nil:
		*v = unknownView(spec.lang)
	default:
		s.snapshot.fill(v, s.freshness, spec.lang, int(s.key.message))
		if spec.format.namesItself {
			v.Address = s.snapshot.address(spec.byJID)
		}
	}
}

// subjectsOf appends what is now known of people to buf, and reports whether search engines may index all of it.
func (w *website) subjectsOf(people []*entry, accepted string, buf []subject) (subjects []subject, indexed bool) {
	link := w.board.link.Load()
	indexed = len(people) > 0
	for _, e := range people {
		var s *snapshot
		if e != nil {
			s = e.snapshot.Load()
		}
		if s == nil {
			buf = append(buf, subject{})
			continue
		}
		indexed = indexed && s.options.has(fieldSearchEngines)
		message := 0
		if s.isMultilingual() {
			message = s.messageFor(parseAccepted(accepted))
		}
		var now time.Time
		if !s.lastActive().IsZero() { // otherwise the time changes nothing, and reading the clock is a tenth of a lookup's time
			now = w.now()
		}
		f := s.freshness(link, now)
		buf = append(buf, subject{snapshot: s, freshness: f, key: newPersonKey(s, f, message)})
	}
	return buf, indexed
}

// representation sends a representation of a target in a format.
func (w *website) representation(rw http.ResponseWriter, r *http.Request, f *format, t target) {
	if len(t.people) == 0 && f.unknown == 0 {
		w.notFound(rw, r)
		return
	}
	renderer := w.renderer.Load()
	spec, err := specOf(renderer, r, f, t.many && len(t.people) > 0)
	if err != nil {
		w.fail(rw, r, f, err)
		return
	}
	spec.byJID = f.namesItself && t.byJID
	var one [1]subject
	subjects, indexed := w.subjectsOf(t.people, spec.accepted, one[:0])
	status := http.StatusOK
	switch {
	case len(subjects) == 0:
		subjects, status = append(subjects, subject{}), f.unknown
	case !t.many && subjects[0].snapshot == nil: // was removed just now
		w.notFound(rw, r)
		return
	}
	key := spec.key(subjects)
	n, ok := w.cache.GetIfPresent(key)
	if !ok {
		if n, err = w.render(r.Context(), w.client(r), renderer, spec, key, subjects); err != nil {
			w.fail(rw, r, f, err)
			return
		}
	}
	w.send(rw, r, n, status, indexed)
}

// render renders what the cache does not have, at the expense of a client, and caches it. Clients that want the same meanwhile
// wait for it, but for an ordinary page: rendering that twice takes less than arranging to wait does.
func (w *website) render(ctx context.Context, client netip.Addr, renderer *renderer, spec renderSpec, key renderingKey, subjects []subject) (*rendering, error) {
	people := slices.Clone(subjects) // lets the caller's stay on its stack
	if spec.slot() == slotSingle {
		var n *rendering
		err := w.limits.render(ctx, client, slotSingle, func() (err error) {
			n, err = w.renderNow(ctx, renderer, &spec, key, people)
			return err
		})
		if err == nil {
			w.cache.Set(key, n)
		}
		return n, err
	}
	for {
		own := false
		n, err := w.cache.Get(ctx, key, otter.LoaderFunc[renderingKey, *rendering](func(ctx context.Context, key renderingKey) (n *rendering, err error) {
			own = true
			err = w.limits.render(ctx, client, spec.slot(), func() error {
				n, err = w.renderNow(ctx, renderer, &spec, key, people)
				return err
			})
			return n, err
		}))
		// Another client's budget says nothing about this one's.
		if own || !errors.Is(err, errBudget) {
			return n, err
		}
	}
}

// renderNow renders, or compresses a body that is cached without compression.
func (w *website) renderNow(ctx context.Context, renderer *renderer, spec *renderSpec, key renderingKey, people []subject) (*rendering, error) {
	if key.compress {
		key.compress = false
		if n, ok := w.cache.GetIfPresent(key); ok {
			return newRendering(spec.format, n.body, true), nil
		}
	}
	views := make([]view, len(people))
	for i := range people {
		people[i].fill(&views[i], spec)
	}
	return renderer.render(ctx, spec, views)
}

// send sends a rendering with the headers of its format, or 304 to a client that has it.
func (w *website) send(rw http.ResponseWriter, r *http.Request, n *rendering, status int, indexed bool) {
	f := n.format
	note(rw, f.metric)
	if w.limits.sending.isLarge(n) && r.Method != http.MethodHead {
		leave, err := w.limits.sending.enter(n, w.client(r))
		if err != nil {
			w.fail(rw, r, f, err)
			return
		}
		defer leave()
	}
	// Each header costs as much as looking up a rendering does, and a ninth header more than all others, since the map grows.
	h := rw.Header()
	h["Content-Type"], h["Cache-Control"] = n.contentType, f.cacheControl
	if n.vary != nil {
		h["Vary"] = n.vary
	}
	h["Content-Security-Policy"], h["X-Content-Type-Options"] = w.renderer.Load().policies[f.policy], headerNoSniff
	if f.noReferrer {
		h["Referrer-Policy"] = headerNoRefer
	}
	if f.anyOrigin {
		h["Access-Control-Allow-Origin"] = headerAnyOrigin
	}
	if !indexed && f.policy != policyStatus { // which has a meta element
		h["X-Robots-Tag"] = headerNoIndex
	}
	if status == http.StatusOK {
		h["Etag"] = n.etag
		if isUnchanged(r, n) {
			rw.WriteHeader(http.StatusNotModified)
			return
		}
	} else if f.unknown != 0 {
		h["Cache-Control"] = cacheUnknown
	}
	if n.encoding != nil {
		h["Content-Encoding"] = n.encoding
	}
	if len(n.body) >= counted || r.Method == http.MethodHead {
		h["Content-Length"] = n.length
	}
	if status != http.StatusOK {
		rw.WriteHeader(status)
	}
	rw.Write(n.body) // an error means that the client has gone
}

// counted is the size in bytes of a body below which net/http finds out its length by itself, which is cheaper.
const counted = 2048

// isUnchanged evaluates If-None-Match (RFC 9110 §13.1.2).
func isUnchanged(r *http.Request, n *rendering) bool {
	for _, header := range r.Header["If-None-Match"] {
		for tag := range strings.SplitSeq(header, ",") {
			if tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/"); tag == "*" || n.matches(tag) {
				return true
			}
		}
	}
	return false
}

// fail sends an error response where nothing was rendered.
func (w *website) fail(rw http.ResponseWriter, r *http.Request, f *format, err error) {
	note(rw, f.metric)
	switch {
	case r.Context().Err() != nil: // nobody reads the response
	case errors.Is(err, errNoAddress):
		w.notFound(rw, r)
	case errors.Is(err, errCallback):
		sendError(rw, f, http.StatusBadRequest, err.Error())
	case errors.Is(err, errBudget), errors.Is(err, errOpen):
		refuse(rw, f, http.StatusTooManyRequests, 30)
	case errors.Is(err, errBusy):
		refuse(rw, f, http.StatusServiceUnavailable, 2)
	default:
		w.log.Error("cannot render a status", "cause", err)
		sendError(rw, f, http.StatusInternalServerError, http.StatusText(http.StatusInternalServerError))
	}
}

// refuse sends a status that asks the client to come again after some seconds.
func refuse(rw http.ResponseWriter, f *format, status, seconds int) {
	rw.Header()["Retry-After"] = []string{strconv.Itoa(seconds)}
	sendError(rw, f, status, http.StatusText(status))
}

// sendError sends an error as text in place of a format.
func sendError(rw http.ResponseWriter, f *format, status int, text string) {
	setErrorHeaders(rw.Header())
	if f.anyOrigin { // so that a script can read the status and Retry-After
		rw.Header()["Access-Control-Allow-Origin"] = headerAnyOrigin
		rw.Header()["Access-Control-Expose-Headers"] = headerRetryAfter
	}
	http.Error(rw, text, status)
}

// setErrorHeaders sets the headers of all errors.
func setErrorHeaders(h http.Header) {
	h["Cache-Control"], h["Content-Security-Policy"], h["X-Content-Type-Options"] = headerNoStore, headerNothing, headerNoSniff
}

// withErrorHeaders is middleware that sets the headers of all errors before a handler runs, which can replace them.
func withErrorHeaders(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		setErrorHeaders(rw.Header())
		handler.ServeHTTP(rw, r)
	})
}

// omitRedirectBody keeps http.Redirect from sending a body, which would repeat the query with all bytes that the client has sent.
func omitRedirectBody(h http.Header) { h["Content-Type"] = nil }

// acceptedLanguages returns the languages that a client asks for: in the query, else in the header.
func acceptedLanguages(r *http.Request, query url.Values) string {
	if lang := query.Get("lang"); lang != "" {
		return lang
	}
	if header := r.Header["Accept-Language"]; len(header) > 0 {
		return header[0]
	}
	return ""
}
