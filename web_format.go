package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// A format is a representation of a status. This table is the only place that distinguishes formats: a new one needs a
// row here and a function that writes it. Caching, conditional requests, compression and limits are the same for all.
type format struct {
	routes       routes
	name         string // in addresses of its routes: the extension without its dot, or the last segment of a module's path
	metric       string // value of the label "representation"
	contentType  []string
	cacheControl []string
	policy       policy
	compressible bool // gzip makes it much smaller
	anyOrigin    bool // scripts of all sites may read it (CORS)
	namesItself  bool // contains its own address, so it depends on the kind of address that it is at
	noReferrer   bool // sends Referrer-Policy: pages have links, and addresses are secret
	english      bool // in English for all clients, as the modules were
	unknown      int  // status of the unknown view at an address that does not exist; 0 for the not-found page
	slot         slotClass
	most         int                                     // bytes after which a JSON array is given up, since no client may have it; 0 for no limit
	options      func(url.Values) (renderOptions, error) // reads the query; nil if the format has no options
	stateOnly    func(imageOptions) bool                 // whether nothing of a person is shown but the state, so that people share the rendering; nil for never
	write        func(r *renderer, spec *renderSpec, views []view) ([]byte, error)
}

// Routes are sets of addresses with their own names of formats.
type routes uint8

const (
	routesStatus   routes = 1 + iota // /status/ID.NAME
	routesProsody                    // /status/JID/NAME
	routesEjabberd                   // /presence/jid/USER/HOST/NAME
	routesRoom                       // /room/ROOM@SERVICE.NAME
)

// Values of headers. All responses share them, so they must not be changed.
var (
	headerHTML       = []string{"text/html; charset=utf-8"}
	headerJSON       = []string{"application/json"}
	headerText       = []string{"text/plain; charset=utf-8"}
	headerXML        = []string{"application/xml; charset=utf-8"}
	headerTextXML    = []string{"text/xml; charset=utf-8"}
	headerScript     = []string{"text/javascript; charset=utf-8"}
	headerSVG        = []string{"image/svg+xml"}
	headerPNG        = []string{"image/png"}
	headerEvents     = []string{"text/event-stream"}
	headerNoStore    = []string{"no-store"}
	headerNoSniff    = []string{"nosniff"}
	headerNoIndex    = []string{"noindex"}
	headerNoRefer    = []string{"no-referrer"}
	headerAnyOrigin  = []string{"*"}
	headerNo         = []string{"no"} // X-Accel-Buffering: keeps nginx from buffering events
	headerGzip       = []string{"gzip"}
	headerRetryAfter = []string{"Retry-After"}
	headerAllow      = []string{"GET, HEAD"}
	headerNothing    = []string{"default-src 'none'"}
	headerHSTS       = []string{"max-age=31536000"} // a year (RFC 6797 §6.1)

	varyLanguage = []string{"Accept-Language"}
	varyEncoding = []string{"Accept-Encoding"}
	varyBoth     = []string{"Accept-Language, Accept-Encoding"}
)

// Values of Cache-Control (RFC 9111 §5.2.2, RFC 5861 §3). Pages and scripts learn changes from events; an image is only requested
// again with the site that shows it, or by the image proxy of a code host.
var (
	cacheData    = []string{"max-age=2, stale-while-revalidate=5"}
	cacheImage   = []string{"max-age=20, stale-while-revalidate=30"}
	cacheUnknown = []string{"max-age=5"}  // for the image at an address that does not exist, but may soon
	cacheOEmbed  = []string{"max-age=60"} // the page in the iframe updates itself
	cacheRoom    = []string{"max-age=60"} // rooms are asked no more often
	cachePlain   = []string{"max-age=300"}
)

// The formats.
var (
	formatPage = &format{routes: routesStatus, metric: "page", contentType: headerHTML, cacheControl: cacheData, policy: policyStatus, compressible: true,
		noReferrer: true, namesItself: true, options: pageOptions, write: writePage}
	formatJSON = &format{routes: routesStatus, name: "json", metric: "json", contentType: headerJSON, cacheControl: cacheData, compressible: true, anyOrigin: true,
		options: dataOptions, write: writeJSON}
	formatText = &format{routes: routesStatus, name: "txt", metric: "txt", contentType: headerText, cacheControl: cacheData, compressible: true, anyOrigin: true,
		options: fieldOptions, write: writeText}
	formatXML = &format{routes: routesStatus, name: "xml", metric: "xml", contentType: headerXML, cacheControl: cacheData, compressible: true, anyOrigin: true,
		options: fieldOptions, write: writeXML}
	formatScript = &format{routes: routesStatus, name: "js", metric: "js", contentType: headerScript, cacheControl: cacheData, compressible: true, anyOrigin: true,
		options: fieldOptions, write: writeScript}
	formatSVG = &format{routes: routesStatus, name: "svg", metric: "svg", contentType: headerSVG, cacheControl: cacheImage, policy: policyImage, compressible: true,
		unknown: http.StatusNotFound, options: badgeOptions, stateOnly: isNamelessBadge, write: writeSVG}
	formatPNG = &format{routes: routesStatus, name: "png", metric: "png", contentType: headerPNG, cacheControl: cacheImage, anyOrigin: true,
		unknown: http.StatusNotFound, slot: slotPNG, options: badgeOptions, stateOnly: isBadge, write: writePNG}
	formatOEmbed = &format{metric: "oembed", contentType: headerJSON, cacheControl: cacheOEmbed, compressible: true, anyOrigin: true,
		namesItself: true, options: oEmbedOptions, write: writeOEmbed}

	formatRoomSVG = &format{routes: routesRoom, name: "svg", metric: "room", contentType: headerSVG, cacheControl: cacheRoom, policy: policyImage, compressible: true,
		unknown: http.StatusNotFound, options: badgeOptions, write: writeSVG}
	formatRoomPNG = &format{routes: routesRoom, name: "png", metric: "room", contentType: headerPNG, cacheControl: cacheRoom, anyOrigin: true,
		unknown: http.StatusNotFound, slot: slotPNG, options: badgeOptions, write: writePNG}
	formatRoomJSON = &format{routes: routesRoom, name: "json", metric: "room", contentType: headerJSON, cacheControl: cacheRoom, compressible: true, anyOrigin: true,
		options: dataOptions, write: writeRoomJSON}

	// Prosody's mod_webpresence reports unknown users as offline.
	formatProsodyImage = &format{routes: routesProsody, name: "image", metric: "legacy", contentType: headerPNG, cacheControl: cacheImage, policy: policyImage,
		anyOrigin: true, english: true, unknown: http.StatusOK, slot: slotPNG, stateOnly: isBadge, write: writeProsodyImage}
	formatProsodyHTML = &format{routes: routesProsody, name: "html", metric: "legacy", contentType: headerHTML, cacheControl: cacheData, policy: policyImage,
		compressible: true, anyOrigin: true, english: true, unknown: http.StatusOK, write: writeProsodyHTML}
	formatProsodyText = &format{routes: routesProsody, name: "text", metric: "legacy", contentType: headerText, cacheControl: cacheData,
		anyOrigin: true, english: true, unknown: http.StatusOK, write: writeProsodyText}
	formatProsodyMessage = &format{routes: routesProsody, name: "message", metric: "legacy", contentType: headerText, cacheControl: cacheData,
		compressible: true, anyOrigin: true, english: true, unknown: http.StatusOK, write: writeProsodyMessage}
	formatProsodyJSON = &format{routes: routesProsody, name: "json", metric: "legacy", contentType: headerJSON, cacheControl: cacheData,
		compressible: true, anyOrigin: true, english: true, unknown: http.StatusOK, write: writeProsodyJSON}
	formatProsodyXML = &format{routes: routesProsody, name: "xml", metric: "legacy", contentType: headerXML, cacheControl: cacheData,
		compressible: true, anyOrigin: true, english: true, unknown: http.StatusOK, write: writeProsodyXML}

	formatEjabberdImage = &format{routes: routesEjabberd, name: "image", metric: "legacy", contentType: headerPNG, cacheControl: cacheImage, policy: policyImage,
		anyOrigin: true, english: true, unknown: http.StatusNotFound, slot: slotPNG, stateOnly: isBadge, write: writeEjabberdImage}
	formatEjabberdAvatar = &format{routes: routesEjabberd, name: "avatar", metric: "legacy", cacheControl: cacheImage, policy: policyImage,
		anyOrigin: true, english: true, unknown: http.StatusNotFound, slot: slotPNG, write: writeEjabberdAvatar}
	formatEjabberdXML = &format{routes: routesEjabberd, name: "xml", metric: "legacy", contentType: headerTextXML, cacheControl: cacheData,
		compressible: true, anyOrigin: true, english: true, write: writeEjabberdXML}
	formatEjabberdScript = &format{routes: routesEjabberd, name: "js", metric: "legacy", contentType: headerScript, cacheControl: cacheData,
		compressible: true, anyOrigin: true, english: true, options: scriptOptions, write: writeEjabberdScript}
	formatEjabberdText = &format{routes: routesEjabberd, name: "text", metric: "legacy", contentType: headerText, cacheControl: cacheData,
		compressible: true, anyOrigin: true, english: true, write: writeEjabberdText}

	// Pages that are no representation of a status are sent by the same code.
	formatIndex = &format{metric: "index", contentType: headerHTML, cacheControl: cachePlain, policy: policyPlain, compressible: true, noReferrer: true}
	formatEmbed = &format{metric: "embed", contentType: headerHTML, cacheControl: headerNoStore, policy: policyEmbed, compressible: true, noReferrer: true,
		slot: slotList}
	formatEvents   = &format{metric: "events", contentType: headerEvents, cacheControl: headerNoStore, anyOrigin: true, most: maxClientEvents, options: dataOptions, write: writeEvent}
	formatElement  = &format{metric: "element", contentType: headerScript, cacheControl: cachePlain, compressible: true, anyOrigin: true, english: true}
	formatNotFound = &format{metric: "none", contentType: headerHTML, cacheControl: headerNoStore, policy: policyPlain, compressible: true, noReferrer: true}
)

// formats are the rows that addresses name.
var formats = []*format{formatPage, formatJSON, formatText, formatXML, formatScript, formatSVG, formatPNG,
	formatRoomSVG, formatRoomPNG, formatRoomJSON,
	formatProsodyImage, formatProsodyHTML, formatProsodyText, formatProsodyMessage, formatProsodyJSON, formatProsodyXML,
	formatEjabberdImage, formatEjabberdAvatar, formatEjabberdXML, formatEjabberdScript, formatEjabberdText}

// formatNamed returns the format of a name, nil if the routes have none.
func formatNamed(rs routes, name string) *format {
	for _, f := range formats {
		if f.routes == rs && f.name == name {
			return f
		}
	}
	return nil
}

// splitExtension splits the last segment of a path into an address and the format that its extension names. Without a known
// extension, all of it is the address of a page.
func splitExtension(path string) (address string, f *format) {
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		if f := formatNamed(routesStatus, path[i+1:]); f != nil && f != formatPage {
			return path[:i], f
		}
	}
	return path, formatPage
}

// A policy is a Content-Security-Policy.
type policy uint8

const (
	policyNothing policy = iota // of data and of errors, which browsers may show as documents
	policyImage                 // of images, which they may show as well
	policyStatus                // of status pages
	policyEmbed                 // of the page with the snippets
	policyPlain                 // of the other pages
	policyCount
)

// renderOptions are the options in the query of a URL. Each format reads only its own options, so that no client can
// fill the cache with copies of a rendering.
type renderOptions struct {
	imageOptions
	fields   fieldSet // fields that are wanted
	shields  bool     // JSON for shields.io
	callback string   // function that ejabberd's script calls; empty for none

	maxWidth, maxHeight int // of oEmbed's iframe, in pixels
}

// isBadge reports whether an image is a badge, which shows the state, and not a card.
func isBadge(o imageOptions) bool { return o.style != styleCard }

// isNamelessBadge reports whether an image is a badge with a label, which takes the place of the nickname in its alternative text.
func isNamelessBadge(o imageOptions) bool {
	return isBadge(o) && (o.label != "" || o.style != styleDot && !o.labelled)
}

// defaultRenderOptions are those of an address without a query.
var defaultRenderOptions = renderOptions{fields: allFields}

// key returns a string that differs for different options; the empty one for the default.
func (o *renderOptions) key() string {
	if *o == defaultRenderOptions {
		return ""
	}
	return fmt.Sprintf("%q%q%t%d%q%d%t%q%d %d", o.style, o.label, o.labelled, o.size, o.theme, o.fields, o.shields, o.callback, o.maxWidth, o.maxHeight)
}

// errCallback is the only error in a query that is reported.
var errCallback = errors.New("cb is not the name of a function")

func fieldOptions(query url.Values) (renderOptions, error) {
	return renderOptions{fields: parseFields(query.Get("parts"))}, nil
}

func pageOptions(query url.Values) (renderOptions, error) {
	return renderOptions{imageOptions: imageOptions{theme: parseTheme(query)}, fields: parseFields(query.Get("parts"))}, nil
}

func badgeOptions(query url.Values) (renderOptions, error) {
	return renderOptions{imageOptions: parseImageOptions(query), fields: parseFields(query.Get("parts"))}, nil
}

func dataOptions(query url.Values) (renderOptions, error) {
	o := renderOptions{fields: parseFields(query.Get("parts")), shields: query.Get("format") == "shields"}
	if o.shields {
		image := parseImageOptions(query)
		o.label, o.labelled = image.label, image.labelled
	}
	return o, nil
}

func scriptOptions(query url.Values) (renderOptions, error) {
	callback := query.Get("cb")
	if callback != "" && !callbackName.MatchString(callback) {
		return renderOptions{}, errCallback
	}
	return renderOptions{fields: allFields, callback: callback}, nil
}
