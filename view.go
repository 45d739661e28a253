package main

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/text/language"
)

//go:embed templates
var templates embed.FS

// A view is everything of a user that may leave the process. All representations are made of it and of nothing else.
type view struct {
	State   State
	Label   string
	Message string    // empty if not shown
	JID     string    // bare; empty if not shown
	Since   time.Time // when the state began; zero if not known or not shown
	AsOf    time.Time // until when the state is known to be right; zero for now
}

// A validity is what the link to the XMPP server makes of a snapshot.
type validity struct {
	lost bool      // too old to be shown
	asOf time.Time // when the link broke, zero while it is up
}

func (s *snapshot) validity(l *linkState) validity {
	switch {
	case s.link < l.valid:
		return validity{lost: true}
	case s.status.State == Unknown:
		return validity{}
	}
	return validity{asOf: l.since}
}

// view returns what may be shown, in a language, with the message that stands at an index.
func (s *snapshot) view(v validity, lang *catalogue, message int) view {
	shown := view{State: s.status.State, AsOf: v.asOf}
	if v.lost {
		shown.State = Unknown
	}
	if shown.State.Online() {
		shown.Since = s.status.Since // else it would be the time when the user was last seen
		if s.options.ShowMessage && message < len(s.status.Messages) {
			shown.Message = s.status.Messages[message].Body
		}
	}
	if s.options.ShowJID {
		shown.JID = s.jid
	}
	shown.Label = lang.text("state." + string(shown.State))
	return shown
}

// messageFor returns the index of the message that suits a reader best, given the languages that the reader asks for, the
// dearest first (RFC 9110 §12.5.4). The first message is for those whose language is not among them.
func (s *snapshot) messageFor(accepted []language.Tag) int {
	tags := make([]language.Tag, len(s.status.Messages))
	for i, m := range s.status.Messages {
		tags[i] = language.Make(m.Lang)
	}
	_, i, _ := language.NewMatcher(tags).Match(accepted...)
	return i
}

// isMultilingual reports whether the reader's language makes a difference.
func (s *snapshot) isMultilingual() bool { return s.options.ShowMessage && len(s.status.Messages) > 1 }

// A representation is a form that a status is shown in.
type representation int

const (
	asPage representation = iota
	asJSON
)

// A rendering is one representation of a snapshot, ready to be sent. It never changes.
type rendering struct {
	renderingKey
	body   []byte
	etag   []string // as the header's values
	length []string // of the body, the same
	next   *rendering
}

type renderingKey struct {
	as       representation
	lang     *catalogue
	message  int // its index
	validity validity
}

// render returns a representation, which is made when it is first asked for.
func (s *snapshot) render(key renderingKey, r *renderer) (*rendering, error) {
	made := s.renderings.Load()
	for n := made; n != nil; n = n.next {
		if n.renderingKey == key {
			return n, nil
		}
	}
	body, err := r.render(key.as, key.lang, s.view(key.validity, key.lang, key.message))
	if err != nil {
		return nil, err
	}
	n := &rendering{renderingKey: key, body: body, etag: []string{etag(body)}, length: []string{strconv.Itoa(len(body))}}
	if made != nil && made.validity == key.validity {
		n.next = made // those of another validity are not needed again
	}
	s.renderings.CompareAndSwap(made, n) // whoever was faster, both are right
	return n, nil
}

func etag(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
}

// A renderer makes representations out of views, and the pages that are the same for everybody.
type renderer struct {
	status        *template.Template
	style         template.CSS
	script        template.JS
	languages     *languages
	index         map[*catalogue][]byte
	notFound      map[*catalogue][]byte
	statusSources string // of style and script in a status page, as directives of a Content-Security-Policy
	otherSources  string // the same of the other pages
}

// statusPage is the data of templates/status.html.
type statusPage struct {
	view
	Lang   *catalogue
	JIDURI template.URL // xmpp: link to the JID, empty if that is not shown
	Style  template.CSS
	Script template.JS
}

// plainPage is the data of templates/index.html and templates/notfound.html.
type plainPage struct {
	Lang        *catalogue
	Domain      string       // the component's JID
	RegisterURI template.URL // xmpp: link that registers
	Style       template.CSS
}

func newRenderer(domain string, languages *languages) (*renderer, error) {
	parsed, err := template.ParseFS(templates, "templates/*.html")
	if err != nil {
		return nil, err
	}
	var sources [3]string
	for i, name := range []string{"status.css", "status.js", "index.css"} {
		source, err := templates.ReadFile("templates/" + name)
		if err != nil {
			return nil, err
		}
		sources[i] = string(source)
	}
	r := &renderer{
		languages:     languages,
		index:         make(map[*catalogue][]byte),
		notFound:      make(map[*catalogue][]byte),
		status:        parsed.Lookup("status.html"),
		style:         template.CSS(sources[0]),
		script:        template.JS(sources[1]),
		statusSources: "style-src " + sourceHash(sources[0]) + "; script-src " + sourceHash(sources[1]) + "; connect-src 'self'",
		otherSources:  "style-src " + sourceHash(sources[2]),
	}
	for _, lang := range languages.all {
		page := plainPage{lang, domain, template.URL("xmpp:" + url.PathEscape(domain) + "?register"), template.CSS(sources[2])}
		for name, into := range map[string]map[*catalogue][]byte{"index.html": r.index, "notfound.html": r.notFound} {
			var b bytes.Buffer
			if err := parsed.ExecuteTemplate(&b, name, page); err != nil {
				return nil, err
			}
			into[lang] = b.Bytes()
		}
	}
	return r, nil
}

// sourceHash allows one inline style or script (CSP Level 3 §2.3.1).
func sourceHash(source string) string {
	sum := sha256.Sum256([]byte(source))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func (r *renderer) render(as representation, lang *catalogue, v view) ([]byte, error) {
	switch as {
	case asPage:
		page := statusPage{view: v, Lang: lang, Style: r.style, Script: r.script}
		if v.JID != "" {
			page.JIDURI = template.URL("xmpp:" + url.PathEscape(v.JID))
		}
		var b bytes.Buffer
		err := r.status.Execute(&b, page)
		return b.Bytes(), err
	case asJSON:
		return json.Marshal(statusJSON{1, v.State, v.Label, v.Message, v.JID, optionalTime(v.Since), optionalTime(v.AsOf)})
	}
	return nil, fmt.Errorf("no representation %d", as)
}

// A statusJSON is the status for scripts. What is not shown or not known has no key.
type statusJSON struct {
	Version int    `json:"version"`
	State   State  `json:"state"`
	Label   string `json:"label"`
	Message string `json:"message,omitempty"`
	JID     string `json:"jid,omitempty"`
	Since   string `json:"since,omitempty"` // RFC 3339, UTC
	AsOf    string `json:"as_of,omitempty"` // the same
}

func optionalTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
