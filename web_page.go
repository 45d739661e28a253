package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html"
	"html/template"
	"io/fs"
	"net/url"
	"strings"
	"sync"
	"text/template/parse"
	"time"

	"rsc.io/qr"
)

// A renderer writes all representations and pages. It belongs to one set of templates and languages.
type renderer struct {
	languages *languages
	templates *template.Template
	baseURL   string            // of the web server, without a trailing slash
	sources   map[string]string // styles and scripts, by file name
	glyphs    template.HTML     // an SVG symbol for each state
	index     map[*catalog]*plainPage
	notFound  map[*catalog]*plainPage
	buffers   sync.Pool // of *bytes.Buffer, for pages
	policies  [policyCount][]string
}

// A plainPage is a page that is the same for all clients of a language.
type plainPage struct {
	identity *rendering
	gzip     func() *rendering // compresses at the first call
}

func newPlainPage(f *format, body []byte) *plainPage {
	return &plainPage{newRendering(f, body, false), sync.OnceValue(func() *rendering { return newRendering(f, body, true) })}
}

func (p *plainPage) rendering(compressed bool) *rendering {
	if compressed {
		return p.gzip()
	}
	return p.identity
}

// render renders a representation of views. It returns the error of ctx if that ends first.
func (r *renderer) render(ctx context.Context, spec *renderSpec, views []view) (*rendering, error) {
	spec.ctx = ctx
	if spec.options.fields != allFields {
		for i := range views {
			views[i].hideAllBut(spec.options.fields)
		}
	}
	body, err := spec.format.write(r, spec, views)
	if err != nil {
		return nil, err
	}
	return newRendering(spec.format, body, spec.compress), nil
}

func writePage(r *renderer, spec *renderSpec, views []view) ([]byte, error) {
	return r.page(spec.ctx, "status.html", r.statusPage(spec, views))
}

// statusPage is the data of templates/status.html.
type statusPage struct {
	Lang   *catalog
	Theme  string
	Title  string
	Listed bool          // search engines may index the page
	Many   bool          // several people
	State  string        // of the first of them
	Head   template.HTML // the icon, and tags for link previews
	People []person
	Glyphs template.HTML // an SVG symbol for each state
	Style  template.CSS
	Script template.JS

	WriteLabel string // of the links that write to people
}

// A person is one of the people on a status page. It copies a view, because methods and embedded fields are slow in templates. Fields
// that are not shown are empty. A whole attribute is printed faster than its value.
type person struct {
	State   string
	Label   string
	Nick    string
	Message string
	Avatar  template.URL
	Since   moment
	Active  moment
	AsOf    moment
	Details []viewDetail
	Clients []viewResource
	JID     string
	Card    bool              // a microformat h-card, since there is a name or an address to put into it
	URL     string            // of the person's page, in a card; empty if it must not be named
	Link    template.HTMLAttr // href of the xmpp: link to the JID
	Mark    template.HTMLAttr // href of the state's glyph
}

// A moment is a time with the words around it.
type moment struct {
	Before string
	At     string // RFC 3339; empty if the time is not shown
	Text   string
	After  string
}

func newMoment(lang *catalog, name string, at time.Time, text string) moment {
	around := lang.Around(name)
	return moment{around[0], formatTime(at), text, around[1]}
}

// clock formats a time for clients without JavaScript; the page's script replaces it by local time.
func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2 Jan 15:04 UTC")
}

func (r *renderer) newPerson(v *view, lang *catalog) person {
	active := v.LastSeen
	if !v.Idle.IsZero() {
		active = v.Idle
	}
	p := person{State: string(v.State), Mark: template.HTMLAttr(`href="#` + v.State + `"`), Label: v.Label, Nick: v.Nick, Message: v.Message, Avatar: template.URL(v.Avatar.URI()),
		Since: newMoment(lang, "page.since", v.Since, clock(v.Since)), Active: newMoment(lang, "page.active", active, v.Ago),
		AsOf: newMoment(lang, "page.as_of", v.AsOf, clock(v.AsOf)), Details: v.details(), Clients: v.Resources, JID: v.JID}
	if p.Card = v.Nick != "" || v.JID != ""; p.Card && v.Address != "" {
		p.URL = r.baseURL + statusPath + v.Address
	}
	if v.JID != "" {
		p.Link = template.HTMLAttr(`href="xmpp:` + html.EscapeString(url.PathEscape(v.JID)) + `?message"`)
	}
	return p
}

func (r *renderer) statusPage(spec *renderSpec, views []view) statusPage {
	page := statusPage{Lang: spec.lang, Theme: string(spec.options.theme), Many: spec.many, Listed: true, Glyphs: r.glyphs,
		Style: template.CSS(r.sources["status.css"]), Script: template.JS(r.sources["status.js"]), WriteLabel: spec.lang.texts["page.message"]}
	for i := range views {
		page.People = append(page.People, r.newPerson(&views[i], spec.lang))
		page.Listed = page.Listed && views[i].Indexed
	}
	page.State, page.Head = page.People[0].State, r.head(spec, views)
	page.Title = views[0].Label
	switch {
	case spec.many:
		page.Title = aggregate(views).Label
	case views[0].Nick != "":
		page.Title = views[0].Nick + ": " + page.Title
	}
	if m := views[0].Message; m != "" && !spec.many {
		page.Title += " – " + m
	}
	return page
}

// plainData is the data of templates/index.html and templates/notfound.html.
type plainData struct {
	Lang        *catalog
	Domain      string       // the component's JID
	Bot         string       // its second JID
	RegisterURI template.URL // xmpp: link that opens a chat with the word that registers
	BotURI      template.URL // the same at the second JID
	QRSize      int
	QRPath      string   // RegisterURI as a QR code, as SVG path data
	Commands    []string // titles of the commands that the component has for users
	Style       template.CSS
}

// commandTitles are the names of the titles of the commands for users, in the order of clients' menus. They are no links: no client
// follows xmpp: links to commands (XEP-0147 §8.1).
var commandTitles = []string{"command.page", "command.options", "command.newlink", "command.stop"}

// registerURI returns an xmpp: link that opens a chat with a JID, with the word "register" filled in (XEP-0147). Links with ?register
// or ?command open an empty window, or nothing, in most clients.
func registerURI(jid string) template.URL {
	return template.URL("xmpp:" + url.PathEscape(jid) + "?message;body=register")
}

// newRenderer returns a renderer with the files of a directory like templates.
func newRenderer(domain string, files fs.FS) (*renderer, error) {
	languages, err := loadLanguages(files)
	if err != nil {
		return nil, err
	}
	templates, err := template.ParseFS(files, "*.html")
	if err != nil {
		return nil, err
	}
	r := &renderer{languages: languages, templates: templates, sources: make(map[string]string),
		index: make(map[*catalog]*plainPage), notFound: make(map[*catalog]*plainPage),
		buffers: sync.Pool{New: func() any { return new(bytes.Buffer) }}}
	for _, name := range []string{"status.css", "status.js", "index.css", "embed.js", "script.js"} {
		source, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		r.sources[name] = string(source)
	}
	for _, s := range states {
		r.glyphs += template.HTML(fmt.Sprintf(`<symbol id="%s" viewBox="0 0 24 24"><path d="%s"/></symbol>`, s, pathData(glyphs[s])))
	}
	if err := r.inlineSources(); err != nil {
		return nil, err
	}
	return r, r.renderPlainPages(domain)
}

// inlineSources makes the style, the script and the glyphs, which are the same on every status page, part of its template. Printed as data,
// they would be copied twice more.
func (r *renderer) inlineSources() error {
	spec := &renderSpec{format: formatPage, lang: r.languages.english(), options: defaultRenderOptions}
	page := r.statusPage(spec, []view{unknownView(spec.lang)})
	if _, err := r.page(context.Background(), "status.html", page); err != nil { // adds the escaping to the template
		return err
	}
	texts := map[string]string{"Style": string(page.Style), "Script": string(page.Script), "Glyphs": string(page.Glyphs)}
	nodes := r.templates.Lookup("status.html").Tree.Root.Nodes
	for i, node := range nodes {
		action, ok := node.(*parse.ActionNode)
		if !ok {
			continue
		}
		if field, ok := action.Pipe.Cmds[0].Args[0].(*parse.FieldNode); ok && len(field.Ident) == 1 {
			if text, ok := texts[field.Ident[0]]; ok {
				nodes[i] = &parse.TextNode{NodeType: parse.NodeText, Pos: node.Position(), Text: []byte(text)}
			}
		}
	}
	return nil
}

func (r *renderer) renderPlainPages(domain string) error {
	register := registerURI(domain)
	code, err := qr.Encode(string(register), qr.M)
	if err != nil {
		return err
	}
	for _, lang := range r.languages.all {
		bot := ContactBot.jid(domain)
		data := plainData{Lang: lang, Domain: domain, Bot: bot, RegisterURI: register, BotURI: registerURI(bot), QRSize: code.Size,
			QRPath: qrPath(code), Style: template.CSS(r.sources["index.css"])}
		for _, name := range commandTitles {
			data.Commands = append(data.Commands, lang.text(name))
		}
		index, err := r.page(context.Background(), "index.html", data)
		if err != nil {
			return err
		}
		notFound, err := r.page(context.Background(), "notfound.html", data)
		if err != nil {
			return err
		}
		r.index[lang], r.notFound[lang] = newPlainPage(formatIndex, index), newPlainPage(formatNotFound, notFound)
	}
	return nil
}

// setPolicies sets the values of Content-Security-Policy. Inline styles and scripts are allowed by their hashes.
func (r *renderer) setPolicies(frameAncestors string) {
	page := func(sources string) []string {
		return []string{"default-src 'none'; " + sources + "; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors " + frameAncestors}
	}
	r.policies = [policyCount][]string{
		policyNothing: headerNothing,
		policyImage:   {"default-src 'none'; style-src 'unsafe-inline'; img-src data:"},
		policyStatus:  page("style-src " + r.hash("status.css") + "; script-src " + r.hash("status.js") + "; connect-src 'self'"),
		policyEmbed:   page("style-src " + r.hash("index.css") + "; script-src " + r.hash("embed.js") + " " + sourceHash(elementSource) + "; connect-src 'self'; frame-src 'self'"),
		policyPlain:   page("style-src " + r.hash("index.css")),
	}
}

// check renders each page that newRenderer does not, so that an error in a template shows at once.
func (r *renderer) check() error {
	v := view{State: Away, Label: "x", Message: "x", Nick: "x", Avatar: &Avatar{}, JID: "x@y", Since: time.Unix(1, 0), Idle: time.Unix(1, 0),
		LastActive: "x", Ago: "x", Resources: []viewResource{{Name: "x", State: Away, Label: "x", Message: "x"}}, AsOf: time.Unix(1, 0),
		Rich: RichPresence{Mood: Mood{Name: "happy", Text: "x"}}, MoodLabel: "x"}
	for _, lang := range r.languages.all {
		for _, views := range [][]view{{v}, {unknownView(lang), v}} {
			spec := &renderSpec{format: formatPage, lang: lang, many: len(views) > 1, options: renderOptions{imageOptions: imageOptions{theme: themeDark}, fields: allFields}}
			if _, err := r.render(context.Background(), spec, views); err != nil {
				return err
			}
		}
		if _, err := r.page(context.Background(), "embed.html", embedPage{Lang: lang, Languages: r.languages.all, IsHidden: true, Styles: badgeStyles,
			Fields: []embedField{{}}, Snippets: []snippet{{}}}); err != nil {
			return err
		}
	}
	return nil
}

// qrPath returns the dark squares of a QR code as SVG path data.
func qrPath(code *qr.Code) string {
	var b strings.Builder
	for y := range code.Size {
		for x := range code.Size {
			if code.Black(x, y) {
				fmt.Fprintf(&b, "M%d %dh1v1h-1z", x, y)
			}
		}
	}
	return b.String()
}

// page executes the template of a name. It returns the error of ctx if that ends first.
func (r *renderer) page(ctx context.Context, name string, data any) ([]byte, error) {
	if r.templates.Lookup(name) == nil {
		return nil, fmt.Errorf("%s is missing", name)
	}
	b := r.buffers.Get().(*bytes.Buffer)
	defer r.buffers.Put(b)
	b.Reset()
	err := r.templates.ExecuteTemplate(&pageWriter{ctx, b, 0}, name, data)
	return bytes.Clone(b.Bytes()), err
}

// A pageWriter collects a page until its context ends, which ends the template as well.
type pageWriter struct {
	ctx  context.Context
	to   *bytes.Buffer
	next int // size of the page at which to look at the context again
}

func (w *pageWriter) Write(p []byte) (int, error) {
	if w.to.Len() >= w.next {
		if err := w.ctx.Err(); err != nil {
			return 0, err
		}
		w.next += 4 << 10
	}
	return w.to.Write(p)
}

// hash returns the source that allows an inline style or script (CSP Level 3 §2.3.1).
func (r *renderer) hash(name string) string { return sourceHash(r.sources[name]) }

func sourceHash(source string) string {
	sum := sha256.Sum256([]byte(source))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
