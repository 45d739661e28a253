package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Link previews: what a site shows where someone pastes the address of a status page. It reads the Open Graph and Twitter card tags
// of the page (ogp.me), or follows its oEmbed link (oembed.com).

// The image of a preview is the card. Several sites ignore images with a width below 600 pixels.
const (
	previewWidth  = "960" // pixels
	previewHeight = "240"
)

// favicons are the icons of status pages as data: URIs: the glyph of a state on its color. They need no escaping in an attribute.
var favicons = func() map[State]string {
	icons := make(map[State]string)
	for _, s := range states {
		icons[s] = "data:image/svg+xml," + strings.NewReplacer("<", "%3C", ">", "%3E", "#", "%23").Replace(fmt.Sprintf(
			`<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'><circle cx='12' cy='12' r='12' fill='%s'/>`+
				`<path d='%s' fill='none' stroke='white' stroke-width='2.4' stroke-linecap='round' stroke-linejoin='round'/></svg>`,
			hexColor(stateColors[s].light), pathData(glyphs[s])))
	}
	return icons
}()

// selfLinks are the absolute addresses of a status, with the options of the request.
type selfLinks struct {
	page      string
	card      string // as PNG, for previews
	thumbnail string // the card in its natural size
	oEmbed    string
}

// selfLinks returns the addresses of views. It is not ok if one of the views must not name its address.
func (r *renderer) selfLinks(spec *renderSpec, views []view) (l selfLinks, ok bool) {
	self := r.baseURL + statusPath
	for i := range views {
		if views[i].Address == "" {
			return selfLinks{}, false
		}
		if i > 0 {
			self += ","
		}
		self += views[i].Address
	}
	theme, lang, parts := string(spec.options.theme), spec.lang.Tag, partsQuery(spec.options.fields)
	if spec.lang == r.languages.english() {
		lang = "" // the default
	}
	query := encodeQuery("theme", theme, "lang", lang, "parts", parts)
	l.page, l.thumbnail = self+query, self+".png?style="+string(styleCard)+strings.Replace(query, "?", "&", 1)
	l.card = l.thumbnail + "&size=" + previewHeight
	l.oEmbed = r.baseURL + oEmbedPath + "?url=" + url.QueryEscape(l.page)
	return l, true
}

// head returns the part of a page's head that depends on the status: the icon, and the tags for previews. It is no template, because
// that would take several times as long.
func (r *renderer) head(spec *renderSpec, views []view) template.HTML {
	v := summary(spec, views)
	b := make([]byte, 0, 2<<10)
	tag := func(name, content string) {
		b = append(append(append(append(append(b, "\n<meta "...), name...), ` content="`...), content...), `">`...)
	}
	b = append(append(append(b, `<link rel="icon" href="`...), favicons[v.State]...), `">`...)
	name := html.EscapeString(title("", v))
	tag(`property="og:type"`, "profile")
	tag(`property="og:title"`, name)
	if text := cmp.Or(strings.Join(strings.Fields(v.Message), " "), v.detailsText(), v.LastActive); text != "" {
		tag(`property="og:description"`, html.EscapeString(text))
	}
	l, ok := r.selfLinks(spec, views)
	if !ok {
		tag(`name="twitter:card"`, "summary")
		return template.HTML(b)
	}
	tag(`property="og:url"`, html.EscapeString(l.page))
	tag(`property="og:image"`, html.EscapeString(l.card))
	tag(`property="og:image:type"`, headerPNG[0])
	tag(`property="og:image:width"`, previewWidth)
	tag(`property="og:image:height"`, previewHeight)
	tag(`property="og:image:alt"`, name)
	tag(`name="twitter:card"`, "summary_large_image")
	b = append(append(append(b, "\n<link rel=\"alternate\" type=\"application/json+oembed\" href=\""...), html.EscapeString(l.oEmbed)...), `">`...)
	return template.HTML(b)
}

// oEmbedPath is the path of the oEmbed endpoint.
const oEmbedPath = "/oembed"

// Sizes of the iframe that oEmbed hands out, in pixels, unless the site allows less.
const (
	embedWidth      = 320
	embedHeight     = 80
	embedHeightMany = 180
)

// oEmbed answers a site that has the URL of a status page, in the parameter url, and wants to show it (oembed.com §2.2). It serves
// the URL with the format of oEmbed instead of a page's.
func (w *website) oEmbed(rw http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if format := query.Get("format"); format != "" && format != "json" {
		note(rw, formatOEmbed.metric)
		http.Error(rw, http.StatusText(http.StatusNotImplemented), http.StatusNotImplemented) // oembed.com §2.3.3
		return
	}
	shown, err := url.Parse(query.Get("url"))
	address, ours := strings.CutPrefix(query.Get("url"), w.baseURL+statusPath)
	if err != nil || !ours {
		w.notFound(rw, r)
		return
	}
	address, _, _ = strings.Cut(address, "?")
	if address, err = url.PathUnescape(address); err != nil {
		w.notFound(rw, r)
		return
	}
	values := shown.Query()
	values.Set("maxwidth", query.Get("maxwidth"))
	values.Set("maxheight", query.Get("maxheight"))
	inner := r.Clone(r.Context())
	inner.URL.RawQuery = values.Encode()
	w.representation(rw, inner, formatOEmbed, w.lookUpAll(address, nil))
}

func oEmbedOptions(query url.Values) (renderOptions, error) {
	o, err := pageOptions(query)
	o.maxWidth, o.maxHeight = parseLimit(query.Get("maxwidth"), embedWidth), parseLimit(query.Get("maxheight"), embedHeightMany)
	return o, err
}

// parseLimit parses a length that a site allows. One that is missing, malformed or larger than what we want is no limit.
func parseLimit(s string, want int) int {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n < want {
		return n
	}
	return want
}

// An oEmbedRich is a response of the type rich (oembed.com §2.3.4).
type oEmbedRich struct {
	Version         string `json:"version"`
	Type            string `json:"type"`
	Title           string `json:"title"`
	ProviderName    string `json:"provider_name"`
	ProviderURL     string `json:"provider_url"`
	HTML            string `json:"html"`
	Width           int    `json:"width"`
	Height          int    `json:"height"`
	ThumbnailURL    string `json:"thumbnail_url,omitempty"`
	ThumbnailWidth  int    `json:"thumbnail_width,omitempty"`
	ThumbnailHeight int    `json:"thumbnail_height,omitempty"`
}

// errNoAddress means that a representation would have to contain an address that it must not name.
var errNoAddress = errors.New("the address is not shown")

func writeOEmbed(r *renderer, spec *renderSpec, views []view) ([]byte, error) {
	l, ok := r.selfLinks(spec, views)
	if !ok {
		return nil, errNoAddress
	}
	o := &spec.options
	rich := oEmbedRich{Version: "1.0", Type: "rich", Title: title("", summary(spec, views)), ProviderName: "webstatus", ProviderURL: r.baseURL + "/",
		Width: o.maxWidth, Height: min(o.maxHeight, embedHeight)}
	if spec.many {
		rich.Height = o.maxHeight
	}
	rich.HTML = fmt.Sprintf(`<iframe src="%s" width="%d" height="%d" style="border:0" title="%s"></iframe>`,
		html.EscapeString(l.page), rich.Width, rich.Height, html.EscapeString(rich.Title))
	if o.maxWidth >= cardWidth && o.maxHeight >= cardHeight {
		rich.ThumbnailURL, rich.ThumbnailWidth, rich.ThumbnailHeight = l.thumbnail, cardWidth, cardHeight
	}
	return json.Marshal(rich)
}
