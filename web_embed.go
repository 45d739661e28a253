package main

import (
	"fmt"
	"html"
	"html/template"
	"net/http"
	"net/url"
	"strings"
)

// embedPage is the data of templates/embed.html.
type embedPage struct {
	Lang      *catalog
	Languages []*catalog // to choose from
	Theme     theme
	Asked     embedQuery
	Styles    []badgeStyle
	Parts     []embedPart
	Page      string // relative address of the page, with the query
	Image     string // the same of the image
	IsHidden  bool   // the address has the JID in it, which is not to be shown: the reader's browser puts it in
	Snippets  []snippet
	Style     template.CSS
	Script    template.JS
}

// An embedQuery is what the form of the page sends.
type embedQuery struct {
	Style, Label, Size, Theme, Lang string
}

// An embedPart is a part of the status that can be chosen.
type embedPart struct {
	Name    string
	Label   string
	Checked bool
}

// A snippet is something to copy into another site.
type snippet struct {
	Name string
	Text string
}

// embed answers with the page that shows how a status looks elsewhere, and what to copy for that.
func (w *website) embed(rw http.ResponseWriter, r *http.Request, address string, people []*entry, many bool) {
	maker := w.renderer.Load()
	query := r.URL.Query()
	page := embedPage{Lang: maker.languages.match(accepted(r)), Languages: maker.languages.all, Styles: append([]badgeStyle{"flat"}, badgeStyles...),
		Asked: embedQuery{query.Get("style"), singleLine(query.Get("label"), maxLabel), query.Get("size"), query.Get("theme"), query.Get("lang")},
		Style: template.CSS(maker.sources["index.css"]), Script: template.JS(maker.sources["embed.js"])}
	page.Theme = parseLook(query).theme
	chosen := parseFields(strings.Join(query["parts"], ","))
	for i, f := range fields {
		if f.query != "" && f.option != "" {
			page.Parts = append(page.Parts, embedPart{f.query, page.Lang.text("option." + f.option), query.Has("parts") && chosen.has(i)})
		}
	}
	for i, one := range strings.Split(address, ",") {
		if people[i] == nil {
			continue
		}
		s := people[i].snapshot.Load()
		page.IsHidden = page.IsHidden || s == nil || !s.options.has(fieldJID) && one != s.token.String()
	}
	if page.IsHidden {
		address = "ID"
	}
	page.snippets(w.baseURL, address, chosen, many)
	body, err := maker.page("embed.html", page)
	if err != nil {
		w.fail(rw, err)
		return
	}
	h := rw.Header()
	h["Content-Type"] = typeHTML
	h["Cache-Control"] = noStore
	h["Vary"] = byHeaders
	h["Content-Security-Policy"] = maker.embedPolicy
	h["X-Content-Type-Options"] = noSniff
	h["Referrer-Policy"] = noReferrer
	w.send(rw, r, body)
}

// snippets fills in what is to be copied, and the addresses of what is previewed.
func (page *embedPage) snippets(baseURL, address string, chosen fieldSet, many bool) {
	var names []string
	if chosen != allFields {
		for i, f := range fields {
			if f.query != "" && chosen.has(i) {
				names = append(names, f.query)
			}
		}
		names = append(names, "since")
	}
	asked := page.Asked
	pageQuery := encodeQuery("theme", asked.Theme, "lang", asked.Lang, "parts", strings.Join(names, ","))
	style := asked.Style
	if style == "flat" {
		style = ""
	}
	imageQuery := encodeQuery("style", style, "label", asked.Label, "size", asked.Size, "theme", asked.Theme, "lang", asked.Lang, "parts", strings.Join(names, ","))
	page.Page, page.Image = "../"+last(address)+pageQuery, "../"+last(address)+".svg"+imageQuery
	base := baseURL + "/status/" + url.PathEscape(address)
	base = strings.ReplaceAll(base, "%2C", ",")
	target, image, picture := base+pageQuery, base+".svg"+imageQuery, base+".png"+imageQuery
	height := 60
	if many {
		height = 180
	}
	page.Snippets = []snippet{
		{"HTML <iframe>", fmt.Sprintf(`<iframe src="%s" width="200" height="%d" style="border:0" title="XMPP"></iframe>`, html.EscapeString(target), height)},
		{"HTML <img>", fmt.Sprintf(`<a href="%s"><img src="%s" alt="XMPP"></a>`, html.EscapeString(target), html.EscapeString(image))},
		{"HTML <script>", fmt.Sprintf("<span data-webstatus=\"label\"></span>\n<script src=\"%s\" async></script>", html.EscapeString(base+".js"+encodeQuery("lang", asked.Lang)))},
		{"Markdown", fmt.Sprintf("[![XMPP](%s)](%s)", image, target)},
		{"BBCode", fmt.Sprintf("[url=%s][img]%s[/img][/url]", target, picture)},
		{"reStructuredText", fmt.Sprintf(".. image:: %s\n   :target: %s\n   :alt: XMPP", image, target)},
		{"MediaWiki", fmt.Sprintf("[%s %s]", target, picture)},
		{"DokuWiki", fmt.Sprintf("[[%s|{{%s}}]]", target, picture)},
	}
}

// last is what stands behind the last slash.
func last(address string) string { return address[strings.LastIndexByte(address, '/')+1:] }

// encodeQuery makes the query of an address of names and values, without those that are empty.
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
