package main

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"html"
	"image/png"
	"net/http"
	"regexp"
	"strings"
)

// What follows answers at the addresses, and in the words, of the two modules that are called mod_webpresence, so that pages made
// for them go on working. Only those are found whose JID is an address, and what is not switched on is left out.

// oldView returns what is shown of somebody in English, and whether there is anybody.
func (w *website) oldView(bare string) (v view, ok bool) {
	e := w.lookUpJID(bare)
	english := w.renderer.Load().languages.english()
	if e == nil {
		return unknownView(english), false
	}
	s := e.snapshot.Load()
	if s == nil {
		return unknownView(english), false
	}
	return s.view(s.freshness(w.board.link.Load(), w.now()), english, 0), true
}

// sendOld answers with a document.
func (w *website) sendOld(rw http.ResponseWriter, as *format, status int, body []byte, err error) {
	if err != nil {
		w.fail(rw, err)
		return
	}
	h := rw.Header()
	h["Content-Type"] = as.contentType
	h["Cache-Control"] = as.cache
	h["X-Content-Type-Options"] = noSniff
	h["X-Robots-Tag"] = noIndex
	h["Content-Security-Policy"] = imagePolicy
	h["Access-Control-Allow-Origin"] = anyOrigin
	rw.WriteHeader(status)
	rw.Write(body) // a reader who has gone needs no answer
}

// sendPicture answers with a PNG.
func (w *website) sendPicture(rw http.ResponseWriter, status int, p *picture) {
	body, err := p.writePNG(&w.renderer.Load().encoder, themeLight, p.height)
	w.sendOld(rw, asPNG, status, body, err)
}

// Prosody's: /status/JID[/image|html|text|message|json|xml]. Who is not known is offline there.

// prosodyShow is the state in Prosody's words.
func prosodyShow(s State) string {
	switch s {
	case Available:
		return "online"
	case Unavailable, Unknown:
		return "offline"
	}
	return string(s)
}

func (w *website) prosodyPresence(rw http.ResponseWriter, r *http.Request) {
	bare, typ, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, statusPath), "/")
	j, err := parseJID(bare)
	if err != nil || j.local() == "" {
		w.notFound(rw, r)
		return
	}
	v, _ := w.oldView(j.bare)
	show := prosodyShow(v.State)
	var body []byte
	as := asText
	switch typ {
	case "text":
		body = []byte(show)
	case "message":
		body = []byte(v.Message)
	case "json":
		as = asJSON
		body, err = json.Marshal(struct {
			JID    string `json:"jid"`
			Show   string `json:"show"`
			Status string `json:"status"`
		}{v.JID, show, v.Message})
	case "xml":
		as = asXML
		body, err = xml.Marshal(struct {
			XMLName xml.Name `xml:"result"`
			JID     string   `xml:"jid"`
			Show    string   `xml:"show"`
			Status  string   `xml:"status"`
		}{JID: v.JID, Show: show, Status: v.Message})
		body = append([]byte(`<?xml version="1.0" encoding="utf-8"?>`), body...)
	case "html":
		as = asPage
		body, err = prosodyHTML(v, show)
	default:
		w.sendPicture(rw, http.StatusOK, badge(v, look{style: styleDot}))
		return
	}
	w.sendOld(rw, as, http.StatusOK, body, err)
}

// prosodyHTML is the fragment that pages fetch and put into themselves. Its ids have the hash of the JID, if that is shown.
func prosodyHTML(v view, show string) ([]byte, error) {
	id := "webstatus"
	if v.JID != "" {
		sum := sha1.Sum([]byte(v.JID))
		id = hex.EncodeToString(sum[:])
	}
	image, err := badge(v, look{style: styleDot}).writePNG(new(png.Encoder), themeLight, badgeHeight)
	return fmt.Appendf(nil, `<div id='%[1]s_status' class='xmpp_status'><img id='%[1]s_img' class='xmpp_status_image xmpp_status_%[2]s' alt='%[2]s' src='data:image/png;base64,%[3]s'/>`+
		`<span id='%[1]s_status_name' class='xmpp_status_name'>%[4]s</span><span id='%[1]s_status_message' class='xmpp_status_message'>%[5]s</span></div>`,
		id, show, base64.StdEncoding.EncodeToString(image), html.EscapeString(v.Label), html.EscapeString(v.Message)), err
}

// ejabberd's: /presence/jid/USER/HOST/OUT, and /presence/USER/HOST/OUT before it. OUT is image[/NAME.png], image/theme/THEME, xml,
// js, text or avatar[/NAME.png].

func (w *website) ejabberdPresence(rw http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/presence/"), "jid/")
	user, rest, _ := strings.Cut(path, "/")
	host, out, _ := strings.Cut(rest, "/")
	j, err := parseJID(user + "@" + host)
	out, _, _ = strings.Cut(out, "/")
	v, ok := w.oldView(j.bare)
	ok = ok && err == nil
	status := http.StatusOK
	if !ok {
		status = http.StatusNotFound
	}
	switch {
	case out == "image":
		w.sendPicture(rw, status, badge(v, look{}))
	case out == "avatar":
		w.ejabberdAvatar(rw, status, v)
	case !ok:
		w.notFound(rw, r)
	case out == "xml":
		body, err := ejabberdXML(v)
		as := *asXML
		as.contentType = []string{"text/xml; charset=utf-8"}
		w.sendOld(rw, &as, status, body, err)
	case out == "js":
		w.ejabberdScript(rw, r, v)
	case out == "text":
		text := cmp.Or(v.Message, string(v.State))
		if !v.State.Online() {
			text = string(Unavailable)
		}
		w.sendOld(rw, asText, status, []byte(text), nil)
	default:
		w.notFound(rw, r)
	}
}

// ejabberdAvatar answers with the picture, or with one that is nobody's.
func (w *website) ejabberdAvatar(rw http.ResponseWriter, status int, v view) {
	if v.Avatar == nil {
		w.sendPicture(rw, status, &picture{width: avatarSize, height: avatarSize, parts: []part{
			disc{centre: point{40, 40}, radius: 40, fill: solid(0x97a3b3)},
			disc{centre: point{40, 31}, radius: 14, fill: white},
			box{16, 50, 48, 34, 17, true, true, white},
		}})
		return
	}
	as := *asPNG
	as.contentType = []string{v.Avatar.ContentType()}
	w.sendOld(rw, &as, status, v.Avatar.Data, nil)
}

// An ejabberdResource is one connected client.
type ejabberdResource struct {
	Name     string `xml:"name,attr" json:"name"`
	Show     State  `xml:"show,attr" json:"show"`
	Priority int8   `xml:"priority,attr" json:"priority"`
	LongShow string `xml:"-" json:"long_show"`
	Status   string `xml:",chardata" json:"status"`
	Image    string `xml:"-" json:"image"`
}

// ejabberdResources are the clients if they are shown, else one that has no name.
func ejabberdResources(v view) []ejabberdResource {
	clients := v.Resources
	if v.State.Online() && len(clients) == 0 {
		clients = []viewResource{{State: v.State, Label: v.Label, Message: v.Message}}
	}
	resources := []ejabberdResource{}
	for _, c := range clients {
		resources = append(resources, ejabberdResource{c.Name, c.State, c.Priority, c.Label, c.Message, "image"})
	}
	return resources
}

// ejabberdUser is the JID in two parts, empty if it is not shown.
func ejabberdUser(v view) (user, host string) {
	user, host, _ = strings.Cut(v.JID, "@")
	return user, host
}

func ejabberdXML(v view) ([]byte, error) {
	user, host := ejabberdUser(v)
	body, err := xml.Marshal(struct {
		XMLName  xml.Name           `xml:"presence"`
		User     string             `xml:"user,attr"`
		Server   string             `xml:"server,attr"`
		Resource []ejabberdResource `xml:"resource"`
	}{User: user, Server: host, Resource: ejabberdResources(v)})
	return append([]byte("<?xml version='1.0' encoding='utf-8'?>"), body...), err
}

// callback is what may be called after the script's variables are set.
var callback = regexp.MustCompile(`^[A-Za-z_$][A-Za-z0-9_$.]{0,63}$`)

func (w *website) ejabberdScript(rw http.ResponseWriter, r *http.Request, v view) {
	after := r.URL.Query().Get("cb")
	if after != "" && !callback.MatchString(after) {
		http.Error(rw, "cb is not the name of a function", http.StatusBadRequest)
		return
	}
	user, host := ejabberdUser(v)
	var b bytes.Buffer
	for _, variable := range []struct {
		name  string
		value any
	}{{"jabber_user", user}, {"jabber_server", host}, {"jabber_resources", ejabberdResources(v)}} {
		value, err := json.Marshal(variable.value) // which escapes what means something to HTML
		if err != nil {
			w.sendOld(rw, asScript, 0, nil, err)
			return
		}
		fmt.Fprintf(&b, "var %s = %s;\n", variable.name, value)
	}
	if after != "" {
		fmt.Fprintf(&b, "%s();\n", after)
	}
	w.sendOld(rw, asScript, http.StatusOK, b.Bytes(), nil)
}
