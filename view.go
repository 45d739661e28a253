package main

import (
	"bytes"
	"cmp"
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
	Message string       // empty if not shown
	Nick    string       // the same
	Avatar  *Avatar      // nil if not shown
	JID     string       // bare; empty if not shown
	Since   time.Time    // when the state began; zero if not known or not shown
	Idle    time.Time    // since when somebody who is online is not active, coarsely; zero if not shown
	Seen    time.Time    // when somebody who is offline was online last, coarsely; zero if not shown
	Active  string       // how long ago that was, in words; empty if neither is shown
	Ago     string       // the same without "last active"
	Clients []viewClient // nil if not shown
	AsOf    time.Time    // until when the state is known to be right; zero for now
	Listed  bool         // search engines may list the page
}

// A viewClient is one of several connected clients.
type viewClient struct {
	Resource string
	State    State
	Label    string
	Message  string // empty if not shown
	Priority int8
}

// A validity is what the time and the link to the XMPP server make of a snapshot.
type validity struct {
	lost   bool      // too old to be shown
	asOf   time.Time // when the link broke, zero while it is up
	active age       // how long ago the person was active, if that is shown
}

// An age is how long ago something was, as coarsely as we say it.
type age struct {
	count int
	unit  time.Duration // zero for no age
}

// coarse returns how long ago a time was in minutes, later in hours, then in days, and the time as exactly as that says.
func coarse(t, now time.Time) (time.Time, age) {
	unit := time.Minute
	switch d := now.Sub(t); {
	case d >= 24*time.Hour:
		unit = 24 * time.Hour
	case d >= time.Hour:
		unit = time.Hour
	}
	t = t.UTC().Truncate(unit)
	return t, age{max(1, int(now.Sub(t)/unit)), unit}
}

// in puts an age in words.
func (a age) in(lang *catalogue) string {
	names := map[time.Duration]string{time.Minute: "ago.minutes", time.Hour: "ago.hours", 24 * time.Hour: "ago.days"}
	return lang.text(names[a.unit], "count", strconv.Itoa(a.count))
}

// lastActive returns when the person was active last, if that is shown and not now.
func (s *snapshot) lastActive() time.Time {
	switch {
	case !s.options.ShowLastSeen:
		return time.Time{}
	case s.status.State == Unavailable:
		return s.status.Since
	}
	return s.status.Idle
}

func (s *snapshot) validity(l *linkState, now time.Time) validity {
	switch {
	case s.link < l.valid:
		return validity{lost: true}
	case s.status.State == Unknown:
		return validity{}
	}
	v := validity{asOf: l.since}
	if t := s.lastActive(); !t.IsZero() {
		_, v.active = coarse(t, now)
	}
	return v
}

// view returns what may be shown, in a language, with the message that stands at an index.
func (s *snapshot) view(v validity, lang *catalogue, message int) view {
	shown := view{State: s.status.State, AsOf: v.asOf, Listed: s.options.SearchEngines}
	if v.lost {
		shown.State = Unknown
	}
	if shown.State.Online() {
		shown.Since = s.status.Since // else it would be the time when the user was last seen
		if s.options.ShowMessage && message < len(s.status.Messages) {
			shown.Message = s.status.Messages[message].Body
		}
		shown.Clients = s.viewClients(lang)
	}
	if v.active.unit > 0 {
		at := s.lastActive().UTC().Truncate(v.active.unit)
		if shown.Seen = at; shown.State.Online() {
			shown.Idle, shown.Seen = at, time.Time{}
		}
		shown.Ago = v.active.in(lang)
		shown.Active = lang.text("page.active", "ago", shown.Ago)
	}
	if s.options.ShowNick {
		shown.Nick = s.profile.orNone().Nick
	}
	if s.options.ShowAvatar {
		shown.Avatar = s.profile.orNone().Avatar
	}
	if s.options.ShowJID {
		shown.JID = s.jid
	}
	shown.Label = lang.text("state." + string(shown.State))
	return shown
}

// viewClients returns the connected clients as far as they are shown. Each has one message, the first.
func (s *snapshot) viewClients(lang *catalogue) (shown []viewClient) {
	for _, p := range s.clients {
		client := viewClient{Resource: p.Resource, State: p.State, Label: lang.text("state." + string(p.State)), Priority: p.Priority}
		if s.options.ShowMessage && len(p.Messages) > 0 {
			client.Message = p.Messages[0].Body
		}
		shown = append(shown, client)
	}
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
	Lang      *catalogue
	JIDURI    template.URL // xmpp: link to the JID, empty if that is not shown
	AvatarURI template.URL
	ActiveAt  string // RFC 3339
	Style     template.CSS
	Script    template.JS
}

// plainPage is the data of templates/index.html and templates/notfound.html.
type plainPage struct {
	Lang        *catalogue
	Domain      string       // the component's JID
	RegisterURI template.URL // xmpp: link that registers
	Commands    []commandLink
	Style       template.CSS
}

// A commandLink is an xmpp: link that runs a command (XEP-0147).
type commandLink struct {
	URI   template.URL
	Title string
}

// commandLinks are those that users may run.
func commandLinks(domain string, lang *catalogue) (links []commandLink) {
	for _, cmd := range commands {
		if !cmd.admin {
			links = append(links, commandLink{componentURI(domain, "command;node="+cmd.node), cmd.title(lang)})
		}
	}
	return links
}

// componentURI links to the component with a query (RFC 5122 §2.5).
func componentURI(domain, query string) template.URL {
	return template.URL("xmpp:" + url.PathEscape(domain) + "?" + query)
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
		page := plainPage{lang, domain, componentURI(domain, "register"), commandLinks(domain, lang), template.CSS(sources[2])}
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
		page := statusPage{view: v, Lang: lang, Style: r.style, Script: r.script, AvatarURI: template.URL(v.Avatar.URI()),
			ActiveAt: cmp.Or(optionalTime(v.Idle), optionalTime(v.Seen))}
		if v.JID != "" {
			page.JIDURI = template.URL("xmpp:" + url.PathEscape(v.JID))
		}
		var b bytes.Buffer
		err := r.status.Execute(&b, page)
		return b.Bytes(), err
	case asJSON:
		return json.Marshal(newStatusJSON(v))
	}
	return nil, fmt.Errorf("no representation %d", as)
}

// A statusJSON is the status for scripts. What is not shown or not known has no key.
type statusJSON struct {
	Version int          `json:"version"`
	State   State        `json:"state"`
	Label   string       `json:"label"`
	Message string       `json:"message,omitempty"`
	Nick    string       `json:"nick,omitempty"`
	Avatar  string       `json:"avatar,omitempty"` // as a data: URI
	JID     string       `json:"jid,omitempty"`
	Since   string       `json:"since,omitempty"`      // RFC 3339, UTC
	Idle    string       `json:"idle_since,omitempty"` // the same, rounded to what is shown
	Seen    string       `json:"last_seen,omitempty"`  // the same
	AsOf    string       `json:"as_of,omitempty"`      // RFC 3339, UTC
	Clients []clientJSON `json:"resources,omitempty"`
}

// A clientJSON is one connected client.
type clientJSON struct {
	Name     string `json:"name"`
	State    State  `json:"state"`
	Label    string `json:"label"`
	Message  string `json:"message,omitempty"`
	Priority int8   `json:"priority"`
}

func newStatusJSON(v view) statusJSON {
	s := statusJSON{Version: 1, State: v.State, Label: v.Label, Message: v.Message, Nick: v.Nick, Avatar: v.Avatar.URI(), JID: v.JID,
		Since: optionalTime(v.Since), Idle: optionalTime(v.Idle), Seen: optionalTime(v.Seen), AsOf: optionalTime(v.AsOf)}
	for _, client := range v.Clients {
		s.Clients = append(s.Clients, clientJSON{client.Resource, client.State, client.Label, client.Message, client.Priority})
	}
	return s
}

func optionalTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
