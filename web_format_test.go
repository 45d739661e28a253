package main

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"image/png"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	xhtml "golang.org/x/net/html"
)

// A statusJSON is the decoded JSON of a status.
type statusJSON struct {
	Version int    `json:"version"`
	State   State  `json:"state"`
	Label   string `json:"label"`
	Message string `json:"message"`
	Nick    string `json:"nick"`
	Avatar  string `json:"avatar"`

	Activity         string `json:"activity"`
	SpecificActivity string `json:"activity_specific"`
	ActivityLabel    string `json:"activity_label"`
	ActivityText     string `json:"activity_text"`
	Mood             string `json:"mood"`
	MoodLabel        string `json:"mood_label"`
	MoodText         string `json:"mood_text"`
	Tune             string `json:"tune"`
	Artist           string `json:"tune_artist"`
	Title            string `json:"tune_title"`
	Source           string `json:"tune_source"`

	JID     string       `json:"jid"`
	Since   string       `json:"since"`
	Idle    string       `json:"idle_since"`
	Seen    string       `json:"last_seen"`
	AsOf    string       `json:"as_of"`
	Clients []clientJSON `json:"resources"`
}

type clientJSON = resourceData

// sourceNames are the styles and scripts, which are omitted from golden files.
var sourceNames = []string{"status.css", "status.js", "index.css", "embed.js"}

// withoutSources removes the styles and scripts from a page, and fails if they differ from the files.
func withoutSources(t *testing.T, page string) string {
	t.Helper()
	for _, name := range sourceNames {
		source, err := fs.ReadFile(embeddedTemplates, name)
		if err != nil {
			t.Fatal(err)
		}
		page = strings.ReplaceAll(page, string(source), "")
	}
	page = strings.ReplaceAll(page, elementSource, "")
	if strings.Contains(page, "{ color-scheme") || strings.Contains(page, "use strict") {
		t.Error("a style or a script in the page differs from its file")
	}
	return page
}

// everything is the form of a user who shows everything.
const everything = `<show_status_msg>1</show_status_msg><show_full_jid>1</show_full_jid><show_nick>1</show_nick><show_avatar>1</show_avatar>` +
	`<show_activity>1</show_activity><show_mood>1</show_mood><show_tune>1</show_tune>` +
	`<show_last_seen>1</show_last_seen><show_resources>1</show_resources>`

// openAll enables all of Juliet's options, and publishes a nickname, rich presence and an avatar.
func (f *fixture) openAll() {
	f.t.Helper()
	_, id, text := encoded(f.t, func(b *bytes.Buffer) error { return png.Encode(b, plain(8, 8, red)) })
	f.options(everything)
	f.want(wantNick, wantMetadata, wantActivity, wantMood, wantTune)
	f.publishes(nsNick, `<item id='x'>`+nick+`Giulietta &lt;3</nick></item>`)
	f.publishesRich()
	f.answers("result", "avatar", items(nsAvatarMetadata, metadata(id, "100")))
	f.want(wantData(id))
	f.answers("result", "avatar-data", data(id, text))
	f.wantColor("red")
}

// publishesRich publishes an activity, a mood and a tune.
func (f *fixture) publishesRich() {
	f.t.Helper()
	f.publishes(nsActivity, activity(`<relaxing><reading/></relaxing><text>sonnets &amp; &lt;letters></text>`))
	f.publishes(nsMood, mood(`<in_love/><text>with "him"</text>`))
	f.publishes(nsTune, tune(`<artist>Prokofiev</artist><title>Dance of the Knights</title><source>Ballet</source>`))
	f.settled(juliet)
}

// juliets sets Juliet's state, with two resources if she is online.
func (f *fixture) juliets(state State) {
	f.t.Helper()
	f.advance(time.Minute) // stay below the rate limit
	for _, resource := range []string{"balcony", "phone"} {
		f.says(resource, "type='unavailable'", "")
	}
	if state.Online() {
		show := `<show>` + string(state) + `</show>`
		if state == Available {
			show = ""
		}
		f.send(`<presence from='juliet@example.org/phone' to='webstatus.example.org'><show>xa</show><priority>-1</priority></presence>`)
		if f.comp.board.byJID(juliet).snapshot.Load().options.has(fieldMood) {
			f.want(wantActivity, wantMood, wantTune)
		}
		f.says("balcony", "", show+`<status>At &lt;the&gt; "ball" &amp; back</status><status xml:lang='de'>Beim Ball</status><priority>5</priority>`+
			`<idle xmlns='urn:xmpp:idle:1' since='2026-11-22T09:42:00Z'/>`)
		f.publishesRich()
	}
	if state == Unknown {
		f.send(`<presence type='error' from='juliet@example.org' to='webstatus.example.org'/>`)
		f.settled(juliet)
	}
}

// TestFormats compares every format of every state with a golden file, for a user who shows nothing and for one who shows
// everything. The JSON is validated with the schema.
func TestFormats(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	schema := statusSchema(t)
	for _, options := range []string{"private", "open"} {
		f.advance(time.Minute)
		f.says("balcony", "", "")
		if options == "open" {
			f.openAll()
		}
		for _, state := range states {
			f.juliets(state)
			var all strings.Builder
			section := func(name, query string) {
				resp, body := f.get(julietPage + name + query)
				if resp.StatusCode != http.StatusOK {
					t.Errorf("%s%s: %s", name, query, resp.Status)
				}
				if name == ".png" {
					img, err := png.Decode(strings.NewReader(body))
					if err != nil {
						t.Fatal(err)
					}
					body = fmt.Sprintf("%v, SHA-1 of the pixels %x\n", img.Bounds().Size(), sha1.Sum(fmt.Append(nil, img)))
				}
				if name == ".json" && query == "" {
					validate(t, schema, body)
				}
				fmt.Fprintf(&all, "== %s%s\n%s\n", name, query, strings.TrimSuffix(withoutSources(t, body), "\n"))
			}
			for _, query := range []string{"", "?lang=ar&theme=dark", "?parts=message,nick"} {
				section("", query)
			}
			for _, query := range []string{"", "?lang=de", "?format=shields&label=me", "?parts=state"} {
				section(".json", query)
			}
			section(".txt", "")
			section(".txt", "?lang=ja")
			section(".xml", "")
			for _, style := range []string{"flat", "flat-square", "plastic", "dot", "card"} {
				section(".svg", "?style="+style)
				section(".png", "?style="+style)
			}
			for _, query := range []string{"?label=&size=40", "?style=card&theme=dark&label=Me", "?lang=zh", "?style=none&size=x&theme=y&label=%3Cscript%3E"} {
				section(".svg", query)
				section(".png", query)
			}
			golden(t, string(state)+"-"+options+".txt", all.String())
		}
	}
}

func statusSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	schema, err := compiler.Compile("docs/status.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func validate(t *testing.T, schema *jsonschema.Schema, body string) {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
	if err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if err := schema.Validate(value); err != nil {
		t.Errorf("%v: %s", err, body)
	}
}

// TestSchemaIsStrict checks that the schema rejects invalid objects.
func TestSchemaIsStrict(t *testing.T) {
	schema := statusSchema(t)
	for _, wrong := range []string{`{}`, `[]`, `{"version":2,"state":"away","label":"x"}`, `{"version":1,"state":"gone","label":"x"}`,
		`{"version":1,"state":"away","label":"x","more":1}`, `{"version":1,"state":"away","label":"x","since":"yesterday"}`} {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(wrong))
		if err != nil {
			t.Fatal(err)
		}
		if schema.Validate(value) == nil {
			t.Errorf("%s is valid", wrong)
		}
	}
}

// allPaths returns all paths that represent Juliet's status.
func allPaths() (paths []string) {
	for _, id := range []string{julietPage, "/status/" + Token{}.String(), julietPage + "," + Token{}.String()} {
		for _, rest := range []string{"", ".json", ".txt", ".xml", ".js", ".svg", ".png", "/embed", "/events", ".json?format=shields", ".svg?style=card",
			".png?style=card", ".svg?style=dot", "?lang=fa", ".xml?parts=message,since,nick,avatar,activity,mood,tune,jid,active,resources"} {
			paths = append(paths, id+rest)
		}
	}
	for _, page := range []string{julietPage, "/status/" + Token{}.String(), "/status/" + Token{}.String() + "?parts=jid,nick"} {
		paths = append(paths, "/oembed?url="+url.QueryEscape("https://status.example.org"+page))
	}
	for _, name := range []string{"juliet@example.org.svg", "juliet@example.org.png?style=card", "juliet@example.org.json"} {
		paths = append(paths, "/room/"+name)
	}
	for _, rest := range []string{"", "/image", "/html", "/text", "/message", "/json", "/xml", "/other"} {
		paths = append(paths, "/status/juliet@example.org"+rest)
	}
	for _, base := range []string{"/presence/jid/juliet/example.org/", "/presence/juliet/example.org/"} {
		for _, rest := range []string{"image", "image/any.png", "image/theme/jsf", "xml", "js?cb=f", "text", "avatar", "avatar/any.png"} {
			paths = append(paths, base+rest)
		}
	}
	return paths
}

// whole returns a response with its headers. It reads an event stream up to the first event.
func (f *fixture) whole(path string) string {
	f.t.Helper()
	resp, err := http.Get(f.web.URL + path)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if err := resp.Header.Write(&b); err != nil {
		f.t.Fatal(err)
	}
	buffer := make([]byte, 1)
	for {
		n, err := resp.Body.Read(buffer)
		b.Write(buffer[:n])
		if err == io.EOF || strings.HasSuffix(path, "/events") && bytes.Contains(b.Bytes(), []byte("data:")) && bytes.HasSuffix(b.Bytes(), []byte("\n\n")) {
			return b.String()
		}
		if err != nil {
			f.t.Fatal(err)
		}
	}
}

// TestNothingLeaks enables one option at a time and checks that no representation contains the values of the other options.
func TestNothingLeaks(t *testing.T) { atEachAddress(t, testNothingLeaks) }

func testNothingLeaks(t *testing.T, f *fixture) {
	f.register("")
	f.says("Balkon", "", "")
	f.openAll()
	const presence = `<show>away</show><status>Rendezvous</status><priority>7</priority><idle xmlns='urn:xmpp:idle:1' since='2026-11-22T09:42:00Z'/>`
	f.says("Balkon", "", presence)
	_, avatar, _ := strings.Cut(f.status().Avatar, ",")
	hash := sha1.Sum([]byte(juliet))
	encodings := []string{juliet, "juliet", "Juliet@", hex.EncodeToString(hash[:])}
	for shift := range 3 { // base64 depends on the offset of the text
		text := base64.StdEncoding.EncodeToString(append(make([]byte, shift), juliet...))
		encodings = append(encodings, text[4:len(text)-4])
	}
	secrets := map[string][]string{
		"show_full_jid": encodings, "show_status_msg": {"Rendezvous"}, "show_nick": {"Giulietta"}, "show_avatar": {avatar},
		"show_activity": {"relaxing", "reading", "Reading", "sonnets"}, "show_mood": {"in_love", "In love", "him"},
		"show_tune": {"Prokofiev", "Knights", "Ballet"}, "show_resources": {"Balkon"}, "show_last_seen": {"2026-11-22T09", "min ago", "h ago"},
	}
	search := func(open string) {
		t.Helper()
		for _, path := range append(allPaths(), "webhook") {
			got := ""
			if path == "webhook" {
				got = f.posted()
			} else {
				got = f.whole(path)
			}
			for option, texts := range secrets {
				if option == open || option == "show_full_jid" && open == "show_status_msg" {
					continue
				}
				for _, secret := range texts {
					if strings.Contains(got, secret) {
						t.Errorf("%s with only %s: contains %q:\n%s", path, open, secret, withoutSources(t, got))
					}
				}
			}
		}
	}
	f.options(strings.ReplaceAll(everything, ">1<", ">0<"))
	for option := range secrets {
		fields := ""
		for other := range secrets {
			value := "0"
			if other == option {
				value = "1"
			}
			fields += "<" + other + ">" + value + "</" + other + ">"
		}
		f.advance(avatarInterval) // or the avatar is requested at any later time
		f.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'>` + fields + `</query></iq>`)
		f.want(`<iq type='result' id='r' from='webstatus.example.org' to='juliet@example.org/b'></iq>`)
		switch option {
		case "show_nick":
			f.want(wantNick)
		case "show_activity":
			f.want(wantActivity)
			f.publishesRich()
		case "show_mood":
			f.want(wantMood)
			f.publishesRich()
		case "show_tune":
			f.want(wantTune)
			f.publishesRich()
		case "show_avatar":
			f.want(wantMetadata)
			f.send(`<presence from='juliet@example.org/Balkon' to='webstatus.example.org'>` + presence + `</presence>`)
		case "show_status_msg":
			f.replays("Balkon", presence)
		}
		search(option)
	}
}

// TestDirectionControls checks that no text changes the direction of what follows it, in any representation.
func TestDirectionControls(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	f.openAll()
	const text = "\u202etxt\u202cexe\u2066\u2067\u2068\u2069\u202a\u202b\u202d"
	f.says("b", "", `<status>`+text+`</status>`+nick+text+`</nick>`)
	f.says("\u202ec", "", `<status>`+text+`</status>`)
	f.publishes(nsMood, mood(`<happy/><text>`+text+`</text>`))
	f.publishes(nsTune, tune(`<artist>`+text+`</artist><title>`+text+`</title>`))
	f.settled(juliet)
	if s := f.status(); s.Message != "txtexe" || s.Nick != "txtexe" {
		t.Errorf("%+v", s)
	}
	for _, path := range append(allPaths(), julietPage+".svg?label="+url.QueryEscape(text)) {
		if got := f.whole(path); strings.ContainsAny(got, directionControls) || strings.Contains(strings.ToLower(got), "202e") {
			t.Errorf("%s contains a control character for the direction of text", path)
		}
	}
}

// hostile lists texts that break pages without proper escaping.
var hostile = []string{
	`<script>window.hurt = 1</script>`, `"><img src=x onerror="window.hurt=1">`, `'><svg onload='window.hurt=1'>`, `</title></style></script><script>window.hurt=1</script>`,
	`]]><x/>`, `<!--`, `-->`, `{{.JID}}`, `${window.hurt=1}`, "`;window.hurt=1//", `\"};window.hurt=1//`, `javascript:window.hurt=1`, `&lt;b&gt;&#x27;&amp;`,
	"line one\nline two\r\n\tthree", "\u202eright to left\u202c", "\u2028\u2029", "zero\u200bwidth\u0301\u0301\u0301", "\ufffd\ufffe", "😀👩‍👩‍👧‍👦", strings.Repeat("W", 900),
	`*/window.hurt=1/*`, `%3Cscript%3E`, `data:text/html,<script>`, "\\u003cscript\\u003e", `<?xml version="1.0"?><!DOCTYPE x [<!ENTITY y "z">]>&y;`,
}

// TestHostileTexts renders hostile messages, nicknames, resources and rich presence in every representation, and checks that each is parsed as plain
// text.
func TestHostileTexts(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	f.openAll()
	for _, text := range hostile {
		var escapedText bytes.Buffer
		if err := xml.EscapeText(&escapedText, []byte(text)); err != nil {
			t.Fatal(err)
		}
		f.advance(time.Minute)
		resource := strings.Map(func(r rune) rune {
			if r < ' ' {
				return -1
			}
			return r
		}, escapedText.String())
		f.send(`<presence to='webstatus.example.org' from='juliet@example.org/` + truncate(strings.ReplaceAll(resource, "&#x", "&#x"), 500) + `'><status>` +
			escapedText.String() + `</status>` + nick + escapedText.String() + `</nick></presence>`)
		f.publishes(nsActivity, activity(`<working/><text>`+escapedText.String()+`</text>`))
		f.publishes(nsMood, mood(`<happy/><text>`+escapedText.String()+`</text>`))
		f.publishes(nsTune, tune(`<title>`+escapedText.String()+`</title>`))
		f.settled(juliet)
		shown := f.status()
		if shown.State != Available {
			f.says("plain", "", `<status>`+escapedText.String()+`</status>`) // an invalid resource
			shown = f.status()
		}
		for _, id := range []string{julietPage, julietPage + "," + Token{}.String()} {
			_, page := f.get(id)
			checkHTML(t, text, page, shown.Message)
			for _, path := range []string{".xml", ".svg", ".svg?style=card", ".svg?style=card&label=" + strings.ReplaceAll(`%22%3E%3Cscript%3E`, " ", "")} {
				_, body := f.get(id + path)
				checkXML(t, text, body)
			}
			for _, path := range []string{".json", ".json?format=shields&label=%22%3C"} {
				if _, body := f.get(id + path); !json.Valid([]byte(body)) {
					t.Errorf("%q: %s", text, body)
				}
			}
			_, script := f.get(id + ".js")
			if strings.Contains(script, "</") || strings.Contains(script, "\u2028") || strings.Contains(script, "<!--") {
				t.Errorf("%q: the script could end an enclosing script: %s", text, script)
			}
		}
		for _, path := range []string{"/status/juliet@example.org/xml", "/presence/jid/juliet/example.org/xml"} {
			_, body := f.get(path)
			checkXML(t, text, body)
		}
		_, fragment := f.get("/status/juliet@example.org/html")
		checkHTML(t, text, fragment, shown.Message)
		for _, path := range []string{".txt"} {
			if _, body := f.get(julietPage + path); strings.Count(body, "\n") != len(slices.DeleteFunc([]string{shown.Label, shown.Nick, shown.Message, shown.Activity, shown.Mood, shown.Tune, shown.JID}, func(s string) bool { return s == "" })) {
				t.Errorf("%q: wrong number of lines: %q", text, body)
			}
		}
	}
}

// checkHTML parses a page and checks that it contains the message as text, and that no elements, attributes or scripts were injected.
func checkHTML(t *testing.T, hostile, page, message string) {
	t.Helper()
	document, err := xhtml.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for n := range document.Descendants() {
		switch {
		case n.Type == xhtml.TextNode && strings.TrimSpace(n.Data) == strings.TrimSpace(strings.ReplaceAll(message, "\r\n", "\n")):
			found = true
		case n.Type == xhtml.ElementNode:
			for _, a := range n.Attr {
				if strings.HasPrefix(a.Key, "on") || a.Key == "src" && !strings.HasPrefix(a.Val, "data:image/") || strings.HasPrefix(strings.TrimSpace(a.Val), "javascript:") && a.Key == "href" {
					t.Errorf("%q: %s has %s=%q", hostile, n.Data, a.Key, a.Val)
				}
			}
			if n.Data == "script" && !strings.HasPrefix(n.FirstChild.Data, `"use strict";`) {
				t.Errorf("%q: injected script: %s", hostile, n.FirstChild.Data)
			}
		}
	}
	if !found && message != "" {
		t.Errorf("%q: the message %q is not in the page: %s", hostile, message, withoutSources(t, page))
	}
}

func checkXML(t *testing.T, hostile, body string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(body))
	for {
		token, err := d.Token()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Errorf("%q: %v: %s", hostile, err, body)
			return
		}
		if start, ok := token.(xml.StartElement); ok && (start.Name.Local == "script" || start.Name.Local == "b" || start.Name.Local == "x") {
			t.Errorf("%q: injected element %s: %s", hostile, start.Name.Local, body)
		}
	}
}

// TestSeveral requests the status of several people at once.
func TestSeveral(t *testing.T) {
	f := newFixture(t, nil)
	f.register("<show_status_msg>1</show_status_msg>")
	f.says("b", "", "<show>away</show><status>lunch</status>")
	nobody := "/status/" + Token{9}.String()
	both := julietPage + "," + Token{9}.String()
	schema := statusSchema(t)
	_, body := f.get(both + ".json")
	validate(t, schema, body)
	if want := `[{"version":1,"state":"away","label":"Away","message":"lunch","since":"2026-11-22T12:00:00Z"},{"version":1,"state":"unknown","label":"Unknown"}]`; body != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
	for path, want := range map[string]string{
		both + ".txt": "Away – lunch\nUnknown\n", both + ".json?format=shields": `{"schemaVersion":1,"label":"XMPP","message":"Away 1/2","color":"a86500"}`,
	} {
		if resp, body := f.get(path); body != want || resp.StatusCode != 200 {
			t.Errorf("%s: %s %q", path, resp.Status, body)
		}
	}
	for _, ext := range []string{"", ".xml", ".js", ".svg", ".png", "/embed"} {
		if resp, body := f.get(both + ext); resp.StatusCode != 200 || ext == "" && strings.Count(body, `<article class="person"`) != 2 {
			t.Errorf("%s: %s", ext, resp.Status)
		}
	}
	for _, path := range []string{nobody + "," + Token{8}.String(), nobody + ",.json", nobody + ",,", both + strangers(maxPeople-1)} {
		if resp, _ := f.get(path); resp.StatusCode != 404 {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	list := julietPage + strings.Repeat(","+strings.TrimPrefix(julietPage, statusPath), 3) + strangers(maxPeople-1) // Juliet counts once
	if resp, body := f.get(list + ".json"); resp.StatusCode != 200 || strings.Count(body, "label") != maxPeople || strings.Count(body, "lunch") != 1 {
		t.Errorf("%d people: %s", maxPeople, resp.Status)
	}
}

// strangers returns a list of tokens that do not exist, each after a comma.
func strangers(n int) (list string) {
	for i := range n {
		list += "," + Token{10, byte(i)}.String()
	}
	return list
}

// TestImageOfNobody checks that URLs without a user have an image too, which is the same for all of them.
func TestImageOfNobody(t *testing.T) {
	f := newFixture(t, nil)
	f.register("<jid_link>0</jid_link>")
	for ext, contentType := range map[string]string{".svg": "image/svg+xml", ".png": "image/png"} {
		var bodies []string
		for _, id := range []string{julietPage, "/status/" + Token{9}.String(), "/status/rubbish"} {
			resp, body := f.get(id + ext)
			if resp.StatusCode != 404 || resp.Header.Get("Content-Type") != contentType {
				t.Errorf("%s%s: %s %v", id, ext, resp.Status, resp.Header)
			}
			bodies = append(bodies, body)
		}
		if bodies[0] != bodies[1] || bodies[1] != bodies[2] || bodies[0] == "" {
			t.Errorf("%s differs between unknown users", ext)
		}
	}
}

// TestColorsAgree checks that images and pages have the same colors.
func TestColorsAgree(t *testing.T) {
	css, err := fs.ReadFile(embeddedTemplates, "status.css")
	if err != nil {
		t.Fatal(err)
	}
	for state, p := range stateColors {
		pair := "light-dark(" + hexColor(p.light) + ", " + hexColor(p.dark) + ")"
		if !strings.Contains(string(css), pair) {
			t.Errorf("%s: the page has no %s", state, pair)
		}
	}
}

// TestLegacyRoutes checks the routes of both modules called mod_webpresence, for a user who shows everything.
func TestLegacyRoutes(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("Work", "", "")
	f.options(everything)
	f.want(wantNick, wantMetadata, wantActivity, wantMood, wantTune)
	f.says("Work", "", `<show>away</show><status>lunch &amp; "more"</status><priority>5</priority>`)
	const user, prosody = "/presence/jid/juliet/example.org/", "/status/juliet@example.org/"
	sum := sha1.Sum([]byte(juliet))
	h := hex.EncodeToString(sum[:])
	resource := `{"name":"Work","show":"away","priority":5,"long_show":"Away","status":"lunch \u0026 \"more\"","image":"image"}`
	variables := "var jabber_user = \"juliet\";\nvar jabber_server = \"example.org\";\nvar jabber_resources = [" + resource + "];\n"
	tests := []struct{ path, contentType, want string }{
		{user + "xml", "text/xml; charset=utf-8", `<?xml version='1.0' encoding='utf-8'?><presence user="juliet" server="example.org"><resource name="Work" show="away" priority="5">lunch &amp; &#34;more&#34;</resource></presence>`},
		{user + "js", "text/javascript; charset=utf-8", variables},
		{user + "js?cb=done.fn", "text/javascript; charset=utf-8", variables + "done.fn();\n"},
		{user + "text", "text/plain; charset=utf-8", `lunch & "more"`},
		{"/presence/juliet/example.org/text", "text/plain; charset=utf-8", `lunch & "more"`},
		{prosody + "text", "text/plain; charset=utf-8", "away"},
		{prosody + "message", "text/plain; charset=utf-8", `lunch & "more"`},
		{prosody + "json", "application/json", `{"jid":"juliet@example.org","show":"away","status":"lunch \u0026 \"more\""}`},
		{prosody + "xml", "application/xml; charset=utf-8", `<?xml version="1.0" encoding="utf-8"?><result><jid>juliet@example.org</jid><show>away</show><status>lunch &amp; &#34;more&#34;</status></result>`},
		{prosody + "html", "text/html; charset=utf-8", `<div id='` + h + `_status' class='xmpp_status'><img id='` + h + `_img' class='xmpp_status_image xmpp_status_away' alt='away' src='data:image/png;base64,…'/>` +
			`<span id='` + h + `_status_name' class='xmpp_status_name'>Away</span><span id='` + h + `_status_message' class='xmpp_status_message'>lunch &amp; &#34;more&#34;</span></div>`},
	}
	image := regexp.MustCompile(`base64,[^']*`)
	for _, tt := range tests {
		resp, body := f.get(tt.path)
		if body = image.ReplaceAllString(body, "base64,…"); resp.StatusCode != 200 || body != tt.want || resp.Header.Get("Content-Type") != tt.contentType {
			t.Errorf("%s: %s %s\ngot  %s\nwant %s", tt.path, resp.Status, resp.Header.Get("Content-Type"), body, tt.want)
		}
	}
	for _, path := range []string{user + "image", user + "image/x.png", user + "image/theme/jsf", user + "avatar/x.png", "/status/juliet@example.org", prosody + "image", prosody + "other"} {
		resp, body := f.get(path)
		if _, err := png.Decode(strings.NewReader(body)); err != nil || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "image/png" {
			t.Errorf("%s: %s %v", path, resp.Status, err)
		}
	}
	if resp, _ := f.get(user + "js?cb=alert(1)//"); resp.StatusCode != 400 {
		t.Errorf("malformed callback: %s", resp.Status)
	}
	words := map[State][2]string{Available: {"available", "online"}, Chat: {"chat", "chat"}, ExtendedAway: {"xa", "xa"}, DoNotDisturb: {"dnd", "dnd"}, Unavailable: {"", "offline"}, Unknown: {"", "offline"}}
	f.says("Work", "type='unavailable'", "")
	for state, want := range words {
		f.juliets(state)
		_, xmlBody := f.get(user + "xml")
		_, show := f.get(prosody + "text")
		if want[0] == "" && xmlBody != `<?xml version='1.0' encoding='utf-8'?><presence user="juliet" server="example.org"></presence>` ||
			want[0] != "" && !strings.Contains(xmlBody, `name="balcony" show="`+want[0]+`" priority="5"`) || show != want[1] {
			t.Errorf("%s: %s %s", state, xmlBody, show)
		}
		if _, text := f.get(user + "text"); !state.Online() && text != "unavailable" {
			t.Errorf("%s: %s", state, text)
		}
	}

	// An unknown user, and one who disallows JID-based URLs, is offline for Prosody's routes and not found for ejabberd's.
	f.options("<jid_link>0</jid_link><show_nick>0</show_nick><show_avatar>0</show_avatar><show_last_seen>0</show_last_seen>")
	for _, someone := range []string{"juliet", "nobody"} {
		if resp, body := f.get("/status/" + someone + "@example.org/json"); resp.StatusCode != 200 || body != `{"jid":"","show":"offline","status":""}` {
			t.Errorf("%s: %s %s", someone, resp.Status, body)
		}
		for _, out := range []string{"xml", "js", "text", "image", "avatar", "", "x"} {
			if resp, _ := f.get("/presence/jid/" + someone + "/example.org/" + out); resp.StatusCode != 404 {
				t.Errorf("%s %s: %s", someone, out, resp.Status)
			}
		}
	}
	for _, path := range []string{"/status/@", "/status/a@/json", "/presence/", "/presence/jid/", "/presence/a", "/presence/jid/a b/c/xml"} {
		if resp, _ := f.get(path); resp.StatusCode != 404 {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

// TestEmbed requests the page with snippets.
func TestEmbed(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	token := "/status/" + Token{}.String()
	_, body := f.get(token + "/embed?style=card&label=%22%3E%3Cb%3E&size=60&theme=dark&lang=de&parts=message&parts=nick")
	golden(t, "embed.html", withoutSources(t, body))
	_, hidden := f.get(julietPage + "/embed")
	if !strings.Contains(hidden, "https://status.example.org/status/ID") || strings.Contains(hidden, Token{}.String()) {
		t.Error("the page at the JID-based URL contains one of the two URLs")
	}
	f.options("<show_full_jid>1</show_full_jid>")
	f.settled(juliet)
	if _, open := f.get(julietPage + "/embed"); !strings.Contains(open, "https://status.example.org"+julietPage) {
		t.Error("the page of a user who shows the JID does not contain the URL")
	}
	if resp, _ := f.get("/status/" + Token{9}.String() + "/embed"); resp.StatusCode != 404 {
		t.Error(resp.Status)
	}
}

func TestTextWidths(t *testing.T) {
	narrow, wide := text{size: 11, string: "iiii"}.width(), text{size: 11, string: "WWWW"}.width()
	if !(narrow > 5 && narrow < wide && wide < 60) {
		t.Errorf("%f and %f", narrow, wide)
	}
	if w := (text{size: 10, string: "在席"}).width(); w != 20 {
		t.Errorf("two wide characters are %f wide", w)
	}
	if got := (text{size: 13, string: strings.Repeat("long ", 100)}).fits(100); got.width() > 100 || !strings.HasSuffix(got.string, "…") {
		t.Errorf("%q", got.string)
	}
	for given, want := range map[string]string{"在席中": "在席中", "在席中。": "在席…", "在 席中。": "在…", "": "", strings.Repeat("在", 1<<20): "在在…"} { // the last would take hours if the time were not linear
		if got := (text{size: 10, string: given}).fits(30).string; got != want {
			t.Errorf("%.20q is shortened to %q, want %q", given, got, want)
		}
	}
}

func TestParts(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	f.openAll()
	f.says("b", "", "<status>lunch</status>")
	keys := func(query string) []string {
		_, body := f.get(julietPage + ".json" + query)
		var all map[string]any
		if err := json.Unmarshal([]byte(body), &all); err != nil {
			t.Fatal(err)
		}
		var names []string
		for name := range all {
			names = append(names, name)
		}
		slices.Sort(names)
		return names
	}
	all := []string{"activity", "activity_label", "activity_specific", "activity_text", "avatar", "jid", "label", "message", "mood", "mood_label", "mood_text",
		"nick", "resources", "since", "state", "tune", "tune_artist", "tune_source", "tune_title", "version"}
	for query, want := range map[string][]string{
		"":                              all,
		"?parts=":                       all,
		"?parts=state":                  {"label", "state", "version"},
		"?parts=nick,since":             {"label", "nick", "since", "state", "version"},
		"?parts=message,jid,avatar,bad": {"avatar", "jid", "label", "message", "state", "version"},
	} {
		if diff := cmp.Diff(want, keys(query)); diff != "" {
			t.Errorf("%s: %s", query, diff)
		}
	}
	if _, body := f.get(julietPage + ".json?parts=resources"); strings.Contains(body, "lunch") || !strings.Contains(body, `"name":"b"`) {
		t.Error(body)
	}
}

// TestImageSize requests images with a height, including one that would have too many pixels.
func TestImageSize(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	for query, want := range map[string]int{"style=dot&size=480": 480, "style=card&size=240": 240, "style=card&size=480": 240, "size=80": 80,
		"size=480&style=plastic&label=" + strings.Repeat("m", maxLabel): 80} {
		_, body := f.get(julietPage + ".png?" + query)
		drawn, err := png.DecodeConfig(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if pixels := drawn.Width * drawn.Height; drawn.Height != want || pixels > maxPNGPixels*101/100 {
			t.Errorf("%s: %d by %d pixels", query, drawn.Width, drawn.Height)
		}
	}
}

// TestDocumentedSchema checks that the README names the schema that responses are tested with.
func TestDocumentedSchema(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "docs/status.schema.json") {
		t.Error("the README does not name docs/status.schema.json")
	}
}

// TestLegacyCaching checks that the legacy routes support entity tags, 304 Not Modified and Cache-Control like all representations.
func TestLegacyCaching(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	for _, format := range formats {
		path := statusPath + juliet + "/" + format.name
		switch format.routes {
		case routesStatus, routesRoom:
			continue
		case routesEjabberd:
			path = "/presence/jid/juliet/example.org/" + format.name
		}
		resp, _ := f.get(path)
		tag := resp.Header.Get("ETag")
		if resp.StatusCode != http.StatusOK || tag == "" || resp.Header.Get("Cache-Control") == "" {
			t.Errorf("%s: %s %v", path, resp.Status, resp.Header)
		}
		again, body := f.get(path, "If-None-Match", tag)
		if again.StatusCode != http.StatusNotModified || body != "" || again.Header.Get("ETag") != tag {
			t.Errorf("%s again: %s %v", path, again.Status, again.Header)
		}
	}
}

// TestFormatRows checks that each representation has a unique name and is complete.
func TestFormatRows(t *testing.T) {
	for i, f := range formats {
		if formatNamed(f.routes, f.name) != f {
			t.Errorf("row %d has the duplicate name %q", i, f.name)
		}
		if f.write == nil || f.cacheControl == nil || representations[representationIndex(f.metric)] != f.metric || f.metric == "none" {
			t.Errorf("row %d, %q, is not complete", i, f.name)
		}
	}
}
