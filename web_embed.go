package main

import (
	"cmp"
	_ "embed"
	"fmt"
	"html"
	"html/template"
	"net/http"
	"net/url"
	"strings"
)

// elementPath is the path of the script that defines the custom element xmpp-status. Unlike /status/ID.js, it is the same for everyone.
const elementPath = "/webstatus.js"

// elementSource is that script, which is also the content of the npm package.
//
//go:embed dist/npm/webstatus.js
var elementSource string

// embedPage is the data of templates/embed.html.
type embedPage struct {
	Lang      *catalog
	Languages []*catalog // to choose from
	Asked     embedQuery
	Styles    []badgeStyle
	Fields    []embedField
	Page      string // relative address of the page, with the query
	Image     string // the same of the image
	IsHidden  bool   // the address contains the JID, which is not shown: a script puts it in, from the browser's own
	Snippets  []snippet
	Style     template.CSS
	Script    template.JS
	Element   template.JS // defines xmpp-status
	Look      string      // of the element
}

// An embedQuery holds the values of the page's form.
type embedQuery struct {
	Style, Label, Size, Theme, Lang string
}

// An embedField is a field that can be selected.
type embedField struct {
	Name    string // in ?parts=
	Label   string
	Checked bool
}

// A snippet is text to copy into another site.
type snippet struct {
	Name string
	Text string
}

// embed sends the page that previews a status as other sites can show it, with snippets to copy. It is not cached, since it
// depends on the address and the whole query.
func (w *website) embed(rw http.ResponseWriter, r *http.Request, address string) {
	t := w.lookUpAll(address, nil)
	if t.people == nil {
		w.notFound(rw, r)
		return
	}
	var n *rendering
	err := w.limits.render(r.Context(), w.client(r), formatEmbed.slot, func() error {
		renderer := w.renderer.Load()
		body, err := renderer.page(r.Context(), "embed.html", w.embedPage(renderer, r, address, t.people, t.many))
		n = newRendering(formatEmbed, body, acceptsGzip(r))
		return err
	})
	if err != nil {
		w.fail(rw, r, formatEmbed, err)
		return
	}
	w.send(rw, r, n, http.StatusOK, true)
}

func (w *website) embedPage(renderer *renderer, r *http.Request, address string, people []*entry, many bool) embedPage {
	query := r.URL.Query()
	page := embedPage{Lang: renderer.languages.match(acceptedLanguages(r, query)), Languages: renderer.languages.all, Styles: append([]badgeStyle{"flat"}, badgeStyles...),
		Asked: embedQuery{query.Get("style"), singleLine(query.Get("label"), maxLabel), query.Get("size"), query.Get("theme"), query.Get("lang")},
		Style: template.CSS(renderer.sources["index.css"]), Script: template.JS(renderer.sources["embed.js"]), Element: template.JS(elementSource)}
	chosen := parseFields(strings.Join(query["parts"], ","))
	for i, f := range fields {
		if f.query != "" && f.option != "" {
			page.Fields = append(page.Fields, embedField{f.query, page.Lang.text("option." + f.option), query.Has("parts") && chosen.has(i)})
		}
	}
	for i, one := range splitAddresses(address) {
		if people[i] == nil {
			continue
		}
		s := people[i].snapshot.Load()
		page.IsHidden = page.IsHidden || s == nil || !s.options.has(fieldJID) && one != s.token.String()
	}
	if page.IsHidden {
		address = "ID"
	}
	page.addSnippets(w.baseURL, address, chosen, many)
	return page
}

// addSnippets adds the snippets, and the addresses of the previews.
func (page *embedPage) addSnippets(baseURL, address string, chosen fieldSet, many bool) {
	parts := partsQuery(chosen.with(fieldSince, true)) // the form does not offer it
	asked := page.Asked
	style := asked.Style
	if style == "flat" {
		style = ""
	}
	pageQuery := encodeQuery("theme", asked.Theme, "lang", asked.Lang, "parts", parts)
	imageQuery := encodeQuery("style", style, "label", asked.Label, "size", asked.Size, "theme", asked.Theme, "lang", asked.Lang, "parts", parts)
	relative := "../" + address[strings.LastIndexByte(address, '/')+1:]
	page.Page, page.Image = relative+pageQuery, relative+".svg"+imageQuery
	base := baseURL + statusPath + strings.ReplaceAll(url.PathEscape(address), "%2C", ",")
	target, svg, png := base+pageQuery, base+".svg"+imageQuery, base+".png"+imageQuery
	height := 60
	if many {
		height = 180
	}
	page.Look = elementLook(badgeStyle(asked.Style))
	element := fmt.Sprintf("<script src=\"%s\" async></script>\n<xmpp-status src=\"%s\" look=\"%s\"", html.EscapeString(baseURL+elementPath),
		html.EscapeString(base+encodeQuery("parts", parts)), page.Look)
	for _, attribute := range [][2]string{{"label", asked.Label}, {"theme", asked.Theme}, {"lang", asked.Lang}} {
		if attribute[1] != "" {
			element += " " + attribute[0] + `="` + html.EscapeString(attribute[1]) + `"`
		}
	}
	page.Snippets = []snippet{
		{"HTML <iframe>", fmt.Sprintf(`<iframe src="%s" width="200" height="%d" style="border:0" title="XMPP"></iframe>`, html.EscapeString(target), height)},
		{"HTML <img>", fmt.Sprintf(`<a href="%s"><img src="%s" alt="XMPP"></a>`, html.EscapeString(target), html.EscapeString(svg))},
		{"HTML <script>", fmt.Sprintf("<span data-webstatus=\"label\"></span>\n<script src=\"%s\" async></script>", html.EscapeString(base+".js"+encodeQuery("lang", asked.Lang)))},
		{"HTML <xmpp-status>", element + "></xmpp-status>"},
		{"Markdown", fmt.Sprintf("[![XMPP](%s)](%s)", svg, target)},
		{"BBCode", fmt.Sprintf("[url=%s][img]%s[/img][/url]", target, png)},
		{"reStructuredText", fmt.Sprintf(".. image:: %s\n   :target: %s\n   :alt: XMPP", svg, target)},
		{"MediaWiki", fmt.Sprintf("[%s %s]", target, png)},
		{"DokuWiki", fmt.Sprintf("[[%s|{{%s}}]]", target, png)},
	}
}

// elementLook returns the look of the custom element that is closest to a badge style.
func elementLook(style badgeStyle) string {
	switch style {
	case styleCard:
		return "card"
	case styleDot:
		return "line"
	}
	return "badge"
}

// partsQuery returns a set as the value of ?parts=; empty for all fields.
func partsQuery(s fieldSet) string {
	if s == allFields {
		return ""
	}
	var names []string
	for i, f := range fields {
		if f.query != "" && s.has(i) {
			names = append(names, f.query)
		}
	}
	return cmp.Or(strings.Join(names, ","), "state")
}

// encodeQuery returns a query with a leading question mark, of names and values that alternate. Empty values are left out.
func encodeQuery(namesAndValues ...string) string {
	var b strings.Builder
	for i := 0; i < len(namesAndValues); i += 2 {
		if namesAndValues[i+1] == "" {
			continue
		}
		separator := "?"
		if b.Len() > 0 {
			separator = "&"
		}
		b.WriteString(separator + namesAndValues[i] + "=" + strings.ReplaceAll(url.QueryEscape(namesAndValues[i+1]), "%2C", ","))
	}
	return b.String()
}
