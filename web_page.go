package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html/template"
	"image/png"
	"io/fs"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"rsc.io/qr"
)

// render makes a representation of one view, or of several people's.
func (r *renderer) render(key renderingKey, views []view, many bool) (*rendering, error) {
	for i := range views {
		views[i] = views[i].only(key.look.fields)
	}
	body, err := key.as.write(r, key, views, many)
	if err != nil {
		return nil, err
	}
	return &rendering{renderingKey: key, body: body, etag: []string{etag(body, "")}, length: []string{strconv.Itoa(len(body))}}, nil
}

// A renderer makes representations out of views, and the pages that are the same for everybody.
type renderer struct {
	languages     *languages
	pages         *template.Template
	sources       map[string]string // of styles and scripts, by name
	glyphs        template.HTML     // a symbol of each state
	index         map[*catalog][]byte
	notFound      map[*catalog][]byte
	kept          cache
	buffers       sync.Pool   // of *bytes.Buffer, in which pages are made
	encoder       png.Encoder // which keeps its buffers as well
	statusSources string      // of style and script in a status page, as directives of a Content-Security-Policy
	embedSources  string      // the same of the page with the snippets
	otherSources  string      // the same of the other pages

	// The policies themselves, as the header's values.
	statusPolicy, embedPolicy, otherPolicy []string
}

// statusPage is the data of templates/status.html.
type statusPage struct {
	Lang   *catalog
	Theme  string
	Title  string
	Listed bool   // search engines may list the page
	Many   bool   // several people
	State  string // of the first of them
	People []person
	Glyphs template.HTML // a symbol of each state
	Style  template.CSS
	Script template.JS

	WriteLabel string // of the links that write to people
}

// A person is one of those on a status page. It is written out, since templates are slow at methods and embedded fields.
type person struct {
	State   string
	Label   string
	Nick    string // empty if not shown, as the others
	Message string
	Avatar  template.URL
	Since   moment
	Active  moment
	AsOf    moment
	Clients []viewResource
	JID     string
	Write   template.URL // xmpp: link to the JID
}

// A moment is a time, and what is said around it.
type moment struct {
	Before string
	At     string // RFC 3339, empty if the time is not shown
	Text   string
	After  string
}

func newMoment(lang *catalog, name string, at time.Time, text string) moment {
	around := lang.Around(name)
	return moment{around[0], formatTime(at), text, around[1]}
}

// clock puts a time in figures that everybody reads, until the page's script has those of the reader.
func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2 Jan 15:04 UTC")
}

func newPerson(v view, lang *catalog) person {
	active := v.LastSeen
	if !v.Idle.IsZero() {
		active = v.Idle
	}
	p := person{State: string(v.State), Label: v.Label, Nick: v.Nick, Message: v.Message, Avatar: template.URL(v.Avatar.URI()),
		Since: newMoment(lang, "page.since", v.Since, clock(v.Since)), Active: newMoment(lang, "page.active", active, v.Ago),
		AsOf: newMoment(lang, "page.as_of", v.AsOf, clock(v.AsOf)), Clients: v.Resources, JID: v.JID}
	if v.JID != "" {
		p.Write = template.URL("xmpp:" + url.PathEscape(v.JID) + "?message")
	}
	return p
}

func (r *renderer) statusPage(key renderingKey, views []view, many bool) statusPage {
	page := statusPage{Lang: key.lang, Theme: string(key.look.theme), Many: many, Listed: true, Glyphs: r.glyphs,
		Style: template.CSS(r.sources["status.css"]), Script: template.JS(r.sources["status.js"]), WriteLabel: key.lang.texts["page.message"]}
	for _, v := range views {
		page.People = append(page.People, newPerson(v, key.lang))
		page.Listed = page.Listed && v.Indexed
	}
	page.State = page.People[0].State
	page.Title = views[0].Label
	switch {
	case many:
		page.Title = aggregate(views).Label
	case views[0].Nick != "":
		page.Title = views[0].Nick + ": " + page.Title
	}
	if m := views[0].Message; m != "" && !many {
		page.Title += " – " + m
	}
	return page
}

// plainPage is the data of templates/index.html and templates/notfound.html.
type plainPage struct {
	Lang        *catalog
	Domain      string       // the component's JID
	RegisterURI template.URL // xmpp: link that registers
	QRSize      int
	QRPath      string // the same link as a QR code, as the data of an SVG path
	Commands    []commandLink
	Style       template.CSS
}

// A commandLink is an xmpp: link that runs a command (XEP-0147).
type commandLink struct {
	URI   template.URL
	Title string
}

// commandLinks are those that users may run.
func commandLinks(domain string, lang *catalog) (links []commandLink) {
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

// newRenderer makes a renderer of the files in a directory like templates.
func newRenderer(domain string, files fs.FS) (*renderer, error) {
	languages, err := loadLanguages(files)
	if err != nil {
		return nil, err
	}
	pages, err := template.ParseFS(files, "*.html")
	if err != nil {
		return nil, err
	}
	r := &renderer{languages: languages, pages: pages, sources: make(map[string]string),
		index: make(map[*catalog][]byte), notFound: make(map[*catalog][]byte), kept: cache{max: maxCache},
		buffers: sync.Pool{New: func() any { return new(bytes.Buffer) }}, encoder: png.Encoder{BufferPool: new(pngBuffers)}}
	for _, name := range []string{"status.css", "status.js", "index.css", "embed.js", "script.js"} {
		source, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		r.sources[name] = compact(string(source))
	}
	for _, s := range states {
		r.glyphs += template.HTML(fmt.Sprintf(`<symbol id="%s" viewBox="0 0 24 24"><path d="%s"/></symbol>`, s, pathData(glyphs[s])))
	}
	r.statusSources = "style-src " + r.hash("status.css") + "; script-src " + r.hash("status.js") + "; connect-src 'self'"
	r.embedSources = "style-src " + r.hash("index.css") + "; script-src " + r.hash("embed.js") + "; connect-src 'self'; frame-src 'self'"
	r.otherSources = "style-src " + r.hash("index.css")
	code, err := qr.Encode(string(componentURI(domain, "register")), qr.M)
	if err != nil {
		return nil, err
	}
	for _, lang := range languages.all {
		page := plainPage{lang, domain, componentURI(domain, "register"), code.Size, qrPath(code), commandLinks(domain, lang),
			template.CSS(r.sources["index.css"])}
		for name, into := range map[string]map[*catalog][]byte{"index.html": r.index, "notfound.html": r.notFound} {
			if into[lang], err = r.page(name, page); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}

// check makes one of each page that is made later, so that what is wrong with a template shows at once.
func (r *renderer) check() error {
	v := view{State: Away, Label: "x", Message: "x", Nick: "x", Avatar: &Avatar{}, JID: "x@y", Since: time.Unix(1, 0), Idle: time.Unix(1, 0),
		LastActive: "x", Ago: "x", Resources: []viewResource{{Name: "x", State: Away, Label: "x", Message: "x"}}, AsOf: time.Unix(1, 0)}
	for _, lang := range r.languages.all {
		key := renderingKey{as: asPage, lang: lang, look: look{theme: themeDark}}
		for _, views := range [][]view{{v}, {unknownView(lang), v}} {
			if _, err := r.render(key, views, len(views) > 1); err != nil {
				return err
			}
		}
		if _, err := r.page("embed.html", embedPage{Lang: lang, Languages: r.languages.all, IsHidden: true, Styles: badgeStyles,
			Parts: []embedPart{{}}, Snippets: []snippet{{}}}); err != nil {
			return err
		}
	}
	return nil
}

// compact leaves out of a style or a script what is there for those who write it: indents, and lines that are comments.
func compact(source string) string {
	var b strings.Builder
	for line := range strings.Lines(source) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// qrPath draws the dark squares of a QR code.
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

// page makes a page of the template of that name.
func (r *renderer) page(name string, data any) ([]byte, error) {
	if r.pages.Lookup(name) == nil {
		return nil, fmt.Errorf("%s is missing", name)
	}
	b := r.buffers.Get().(*bytes.Buffer)
	defer r.buffers.Put(b)
	b.Reset()
	err := r.pages.ExecuteTemplate(b, name, data)
	return bytes.Clone(b.Bytes()), err
}

// pngBuffers are those of an encoder, each of which has a megabyte.
type pngBuffers struct{ sync.Pool }

func (p *pngBuffers) Get() *png.EncoderBuffer {
	b, _ := p.Pool.Get().(*png.EncoderBuffer)
	return b
}

func (p *pngBuffers) Put(b *png.EncoderBuffer) { p.Pool.Put(b) }

// hash allows one inline style or script (CSP Level 3 §2.3.1).
func (r *renderer) hash(name string) string {
	sum := sha256.Sum256([]byte(r.sources[name]))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
