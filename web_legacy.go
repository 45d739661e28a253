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
	"net/http"
	"regexp"
	"strings"
)

// The routes and the vocabulary of the two modules that are called mod_webpresence, so that pages written for them keep working
// after a migration. They find users by JID, and only those who allow JID-based URLs. Fields that are not shown are empty.

// Prosody: /status/JID[/image|html|text|message|json|xml]. An unknown name means the image, an unknown user is offline.

// prosodyPresence serves a path after /status/.
func (w *website) prosodyPresence(rw http.ResponseWriter, r *http.Request, path string) {
	jid, name, _ := strings.Cut(path, "/")
	j, err := parseJID(jid)
	if err != nil || j.local() == "" {
		w.notFound(rw, r)
		return
	}
	f := formatNamed(routesProsody, name)
	if f == nil {
		f = formatProsodyImage
	}
	w.legacyPresence(rw, r, f, j.bare)
}

// legacyPresence sends a representation of the user with a bare JID.
func (w *website) legacyPresence(rw http.ResponseWriter, r *http.Request, f *format, bare string) {
	var room [1]*entry
	people := room[:0]
	if e := w.lookUpJID(bare); e != nil {
		people = append(people, e)
	}
	w.representation(rw, r, f, target{people: people})
}

// prosodyShow returns a state in Prosody's words.
func prosodyShow(s State) string {
	switch s {
	case Available:
		return "online"
	case Unavailable, Unknown:
		return "offline"
	}
	return string(s)
}

func writeProsodyText(_ *renderer, _ *renderSpec, views []view) ([]byte, error) {
	return []byte(prosodyShow(views[0].State)), nil
}

func writeProsodyMessage(_ *renderer, _ *renderSpec, views []view) ([]byte, error) {
	return []byte(views[0].Message), nil
}

func writeProsodyJSON(_ *renderer, _ *renderSpec, views []view) ([]byte, error) {
	return json.Marshal(struct {
		JID    string `json:"jid"`
		Show   string `json:"show"`
		Status string `json:"status"`
	}{views[0].JID, prosodyShow(views[0].State), views[0].Message})
}

func writeProsodyXML(_ *renderer, _ *renderSpec, views []view) ([]byte, error) {
	body, err := xml.Marshal(struct {
		XMLName xml.Name `xml:"result"`
		JID     string   `xml:"jid"`
		Show    string   `xml:"show"`
		Status  string   `xml:"status"`
	}{JID: views[0].JID, Show: prosodyShow(views[0].State), Status: views[0].Message})
	return append([]byte(`<?xml version="1.0" encoding="utf-8"?>`), body...), err
}

// writeProsodyHTML writes the fragment that pages fetch and put into themselves. Its ids contain the SHA-1 of the JID, if that is
// shown.
func writeProsodyHTML(r *renderer, spec *renderSpec, views []view) ([]byte, error) {
	v, id := views[0], "webstatus"
	if v.JID != "" {
		sum := sha1.Sum([]byte(v.JID))
		id = hex.EncodeToString(sum[:])
	}
	image, err := writeProsodyImage(r, spec, views)
	return fmt.Appendf(nil, `<div id='%[1]s_status' class='xmpp_status'><img id='%[1]s_img' class='xmpp_status_image xmpp_status_%[2]s' alt='%[2]s' src='data:image/png;base64,%[3]s'/>`+
		`<span id='%[1]s_status_name' class='xmpp_status_name'>%[4]s</span><span id='%[1]s_status_message' class='xmpp_status_message'>%[5]s</span></div>`,
		id, prosodyShow(v.State), base64.StdEncoding.EncodeToString(image), html.EscapeString(v.Label), html.EscapeString(v.Message)), err
}

func writeProsodyImage(_ *renderer, spec *renderSpec, views []view) ([]byte, error) {
	return drawPNG(spec.ctx, badge(views[0], imageOptions{style: styleDot}), imageOptions{})
}

// ejabberd: /presence/jid/USER/HOST/OUT, and its older form without jid. OUT is image[/NAME.png], image/theme/THEME, xml, js, text
// or avatar[/NAME.png].

// ejabberdPresence serves a path with the segments user, host and out.
func (w *website) ejabberdPresence(rw http.ResponseWriter, r *http.Request) {
	name, _, _ := strings.Cut(r.PathValue("out"), "/")
	f := formatNamed(routesEjabberd, name)
	j, err := parseJID(r.PathValue("user") + "@" + r.PathValue("host"))
	if f == nil || err != nil && f.unknown == 0 {
		w.notFound(rw, r)
		return
	}
	w.legacyPresence(rw, r, f, j.bare)
}

func writeEjabberdImage(_ *renderer, spec *renderSpec, views []view) ([]byte, error) {
	return drawPNG(spec.ctx, badge(views[0], imageOptions{}), imageOptions{})
}

// writeEjabberdAvatar writes the avatar, or a placeholder for a user who shows none.
func writeEjabberdAvatar(_ *renderer, spec *renderSpec, views []view) ([]byte, error) {
	if a := views[0].Avatar; a != nil {
		return a.Data, nil
	}
	return drawPNG(spec.ctx, avatarPlaceholder(), imageOptions{})
}

func writeEjabberdText(_ *renderer, _ *renderSpec, views []view) ([]byte, error) {
	if v := views[0]; v.State.Online() {
		return []byte(cmp.Or(v.Message, string(v.State))), nil
	}
	return []byte(Unavailable), nil
}

// An ejabberdResource is one connected resource.
type ejabberdResource struct {
	Name     string `xml:"name,attr" json:"name"`
	Show     State  `xml:"show,attr" json:"show"`
	Priority int8   `xml:"priority,attr" json:"priority"`
	LongShow string `xml:"-" json:"long_show"`
	Status   string `xml:",chardata" json:"status"`
	Image    string `xml:"-" json:"image"`
}

// ejabberdResources returns the resources if they are shown, else one without a name for a user who is online.
func ejabberdResources(v view) []ejabberdResource {
	shown := v.Resources
	if v.State.Online() && len(shown) == 0 {
		shown = []viewResource{{State: v.State, Label: v.Label, Message: v.Message}}
	}
	resources := []ejabberdResource{}
	for _, c := range shown {
		resources = append(resources, ejabberdResource{c.Name, c.State, c.Priority, c.Label, c.Message, "image"})
	}
	return resources
}

// ejabberdUser returns the parts of the JID, empty if it is not shown.
func ejabberdUser(v view) (user, host string) {
	user, host, _ = strings.Cut(v.JID, "@")
	return user, host
}

func writeEjabberdXML(_ *renderer, _ *renderSpec, views []view) ([]byte, error) {
	user, host := ejabberdUser(views[0])
	body, err := xml.Marshal(struct {
		XMLName  xml.Name           `xml:"presence"`
		User     string             `xml:"user,attr"`
		Server   string             `xml:"server,attr"`
		Resource []ejabberdResource `xml:"resource"`
	}{User: user, Server: host, Resource: ejabberdResources(views[0])})
	return append([]byte("<?xml version='1.0' encoding='utf-8'?>"), body...), err
}

// callbackName matches the functions that ?cb= may name. Anything else could run as code on the page that includes the script.
var callbackName = regexp.MustCompile(`^[A-Za-z_$][A-Za-z0-9_$.]{0,63}$`)

func writeEjabberdScript(_ *renderer, spec *renderSpec, views []view) ([]byte, error) {
	user, host := ejabberdUser(views[0])
	var b bytes.Buffer
	for _, variable := range []struct {
		name  string
		value any
	}{{"jabber_user", user}, {"jabber_server", host}, {"jabber_resources", ejabberdResources(views[0])}} {
		b.WriteString("var " + variable.name + " = ")
		if err := appendJSONValue(&b, variable.value); err != nil {
			return nil, err
		}
		b.WriteString(";\n")
	}
	if spec.options.callback != "" {
		b.WriteString(spec.options.callback + "();\n")
	}
	return b.Bytes(), nil
}
