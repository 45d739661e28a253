package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"strings"
)

// A format is a form that a status is shown in.
type format struct {
	extension   string // of the address
	contentType []string
	cache       []string // Cache-Control
	zips        bool     // it gets much smaller by gzip
	write       func(r *renderer, key renderingKey, views []view, many bool) ([]byte, error)
}

// How long others may keep an answer. Pages and scripts hear of changes by themselves; an image is asked for again by those who
// look at the site that it is on, and by proxies of code hosts.
var (
	cacheData  = []string{"max-age=2, stale-while-revalidate=5"}
	cacheImage = []string{"max-age=20, stale-while-revalidate=30"}
)

// The formats.
var (
	asPage   = &format{"", []string{"text/html; charset=utf-8"}, cacheData, true, writePage}
	asJSON   = &format{".json", []string{"application/json"}, cacheData, true, writeJSON}
	asText   = &format{".txt", []string{"text/plain; charset=utf-8"}, cacheData, true, writeText}
	asXML    = &format{".xml", []string{"application/xml; charset=utf-8"}, cacheData, true, writeXML}
	asScript = &format{".js", []string{"text/javascript; charset=utf-8"}, cacheData, true, writeScript}
	asSVG    = &format{".svg", []string{"image/svg+xml"}, cacheImage, true, writeSVG}
	asPNG    = &format{".png", []string{"image/png"}, cacheImage, false, writePNG}
)

// formatOf tells an address from the extension behind it.
func formatOf(path string) (address string, as *format) {
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		for _, f := range []*format{asJSON, asText, asXML, asScript, asSVG, asPNG} {
			if path[i:] == f.extension {
				return path[:i], f
			}
		}
	}
	return path, asPage
}

func writePage(r *renderer, key renderingKey, views []view, many bool) ([]byte, error) {
	return r.page("status.html", r.statusPage(key, views, many))
}

// A statusJSON is the status for scripts. What is not shown or not known has no key. docs/status.schema.json describes it.
type statusJSON struct {
	Version int          `json:"version" xml:"version,attr"`
	State   State        `json:"state" xml:"state"`
	Label   string       `json:"label" xml:"label"`
	Message string       `json:"message,omitempty" xml:"message,omitempty"`
	Nick    string       `json:"nick,omitempty" xml:"nick,omitempty"`
	Avatar  string       `json:"avatar,omitempty" xml:"avatar,omitempty"` // as a data: URI
	JID     string       `json:"jid,omitempty" xml:"jid,omitempty"`
	Since   string       `json:"since,omitempty" xml:"since,omitempty"`           // RFC 3339, UTC
	Idle    string       `json:"idle_since,omitempty" xml:"idle_since,omitempty"` // the same, rounded to what is shown
	Seen    string       `json:"last_seen,omitempty" xml:"last_seen,omitempty"`   // the same
	AsOf    string       `json:"as_of,omitempty" xml:"as_of,omitempty"`           // RFC 3339, UTC
	Clients []clientJSON `json:"resources,omitempty" xml:"-"`
}

// A clientJSON is one connected client.
type clientJSON struct {
	Name     string `json:"name" xml:"name"`
	State    State  `json:"state" xml:"state"`
	Label    string `json:"label" xml:"label"`
	Message  string `json:"message,omitempty" xml:"message,omitempty"`
	Priority int8   `json:"priority" xml:"priority"`
}

func newStatusJSON(v view) statusJSON {
	s := statusJSON{Version: 1, State: v.State, Label: v.Label, Message: v.Message, Nick: v.Nick, Avatar: v.Avatar.URI(), JID: v.JID,
		Since: formatTime(v.Since), Idle: formatTime(v.Idle), Seen: formatTime(v.LastSeen), AsOf: formatTime(v.AsOf)}
	for _, client := range v.Resources {
		s.Clients = append(s.Clients, clientJSON{client.Name, client.State, client.Label, client.Message, client.Priority})
	}
	return s
}

func newStatusesJSON(views []view) (all []statusJSON) {
	for _, v := range views {
		all = append(all, newStatusJSON(v))
	}
	return all
}

// writeJSON writes an object, or an array for several people.
func writeJSON(_ *renderer, key renderingKey, views []view, many bool) ([]byte, error) {
	switch {
	case key.look.shields:
		return json.Marshal(newShields(key.look, views, many))
	case many:
		return json.Marshal(newStatusesJSON(views))
	}
	return json.Marshal(newStatusJSON(views[0]))
}

// A shields is what shields.io makes a badge of (its endpoint badge, schema 1).
type shields struct {
	Version int    `json:"schemaVersion"`
	Label   string `json:"label"`
	Message string `json:"message"`
	Colour  string `json:"color"`
}

func newShields(l look, views []view, many bool) shields {
	v := views[0]
	if many {
		v = aggregate(views)
	}
	return shields{1, l.labelOr(defaultLabel), v.Label, strings.TrimPrefix(hexColour(statePaints[v.State].light), "#")}
}

// writeText writes a line for the state, and one for each of the message and when the person was there last. Of several people
// each has one line.
func writeText(_ *renderer, _ renderingKey, views []view, many bool) ([]byte, error) {
	var b bytes.Buffer
	between := "\n"
	if many {
		between = " – "
	}
	for _, v := range views {
		b.WriteString(v.Label)
		for _, more := range []string{v.Nick, v.Message, v.LastActive, v.JID} {
			if more != "" {
				b.WriteString(between + strings.Join(strings.Fields(more), " "))
			}
		}
		b.WriteByte('\n')
	}
	return b.Bytes(), nil
}

// writeXML writes the same names as the JSON.
func writeXML(_ *renderer, _ renderingKey, views []view, many bool) ([]byte, error) {
	type resources struct {
		Resource []clientJSON `xml:"resource"`
	}
	type status struct {
		XMLName xml.Name `xml:"status"`
		statusJSON
		Resources *resources `xml:"resources"`
	}
	var all []status
	for _, s := range newStatusesJSON(views) {
		one := status{statusJSON: s}
		if s.Clients != nil {
			one.Resources = &resources{s.Clients}
		}
		all = append(all, one)
	}
	var document any = all[0]
	if many {
		document = struct {
			XMLName xml.Name `xml:"statuses"`
			Status  []status
		}{Status: all}
	}
	b, err := xml.Marshal(document)
	return append([]byte(xml.Header), append(b, '\n')...), err
}

// writeScript writes a script that puts the status into the elements of the page that it is on.
func writeScript(r *renderer, _ renderingKey, views []view, _ bool) ([]byte, error) {
	data, err := json.Marshal(newStatusesJSON(views)) // which escapes what means something to HTML
	if err != nil {
		return nil, err
	}
	return []byte(strings.Replace(r.sources["script.js"], "STATUS", string(data), 1)), nil
}

func drawn(key renderingKey, views []view, many bool) *picture {
	v := views[0]
	if many {
		v = aggregate(views)
	}
	return badge(v, key.look)
}

func writeSVG(_ *renderer, key renderingKey, views []view, many bool) ([]byte, error) {
	p := drawn(key, views, many)
	return p.writeSVG(key.look.theme, key.look.height(p)), nil
}

// writePNG writes what our own fonts can. A state in a script that they do not have is in English; a message, a name or a label
// is left out.
func writePNG(r *renderer, key renderingKey, views []view, many bool) ([]byte, error) {
	english := r.languages.english()
	for i := range views {
		v := &views[i]
		if !canDraw(v.Label) {
			v.Label = english.text("state." + string(v.State))
		}
		for _, s := range []*string{&v.Message, &v.Nick, &v.LastActive, &v.JID} {
			if !canDraw(*s) {
				*s = ""
			}
		}
	}
	if !canDraw(key.look.label) {
		key.look.label, key.look.labelled = "", false
	}
	p := drawn(key, views, many)
	return p.writePNG(&r.encoder, key.look.theme, key.look.height(p))
}
