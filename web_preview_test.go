package main

import (
	"encoding/json"
	"fmt"
	"image/png"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/dyatlov/go-opengraph/opengraph"
	"github.com/google/go-cmp/cmp"
	xhtml "golang.org/x/net/html"
	"willnorris.com/go/microformats"
)

const (
	testToken   = "aaaaaaaaaaaaaaaaaaaaaaaaaa" // of Juliet
	testBaseURL = "https://status.example.org"
)

// openGraph returns what an Open Graph parser finds in a page.
func openGraph(t *testing.T, page string) *opengraph.OpenGraph {
	t.Helper()
	og := opengraph.NewOpenGraph()
	if err := og.ProcessHTML(strings.NewReader(page)); err != nil {
		t.Fatal(err)
	}
	return og
}

// headElements returns the elements of a name in a page, each as the value of one attribute by that of another.
func headElements(t *testing.T, page, element, key, value string) map[string]string {
	t.Helper()
	document, err := xhtml.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for n := range document.Descendants() {
		if n.Type != xhtml.ElementNode || n.Data != element {
			continue
		}
		attributes := make(map[string]string)
		for _, a := range n.Attr {
			attributes[a.Key] = a.Val
		}
		if name := attributes[key]; name != "" {
			found[name] = attributes[value]
		}
	}
	return found
}

// TestLinkPreview reads the tags of a page with an Open Graph parser, at both addresses of a user, as more and more is shown.
func TestLinkPreview(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", `<show>away</show><status>lunch at "Luigi’s" &amp; more</status>`)
	byToken, byJID := statusPath+testToken, statusPath+encodeJID(juliet)
	check := func(address, title, description, named, twitter string) {
		t.Helper()
		_, page := f.get(address)
		og := openGraph(t, page)
		got := []string{og.Type, og.Title, og.Description, og.URL}
		want := []string{"profile", title, description, ""}
		oEmbed := ""
		if named != "" {
			want[3], oEmbed = testBaseURL+named, testBaseURL+"/oembed?url="+url.QueryEscape(testBaseURL+named)
			want = append(want, testBaseURL+named+".png?style=card&size=240 960 240 image/png")
		}
		for _, image := range og.Images {
			got = append(got, fmt.Sprint(image.URL, " ", image.Width, " ", image.Height, " ", image.Type))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", address, diff)
		}
		if got := headElements(t, page, "meta", "name", "content")["twitter:card"]; got != twitter {
			t.Errorf("%s: the Twitter card is %q", address, got)
		}
		if got := headElements(t, page, "link", "type", "href")["application/json+oembed"]; got != oEmbed {
			t.Errorf("%s: oEmbed is at %q", address, got)
		}
		if other := map[string]string{byToken: byJID, byJID: testToken}[address]; strings.Contains(page, other) {
			t.Errorf("%s: the page contains the other address", address)
		}
	}
	check(byToken, "Away", "", byToken, "summary_large_image")
	check(byJID, "Away", "", "", "summary") // the address would reveal the JID
	f.options("<show_status_msg>1</show_status_msg><show_full_jid>1</show_full_jid>")
	f.want(`<presence type='probe' …`) // for the message
	f.says("b", "", `<show>away</show><status>lunch at "Luigi’s" &amp; more</status>`)
	check(byToken, "Away", `lunch at "Luigi’s" & more`, byToken, "summary_large_image")
	check(byJID, "Away", `lunch at "Luigi’s" & more`, byJID, "summary_large_image")

	_, page := f.get(byToken + "?lang=de&theme=dark&parts=nick")
	og := openGraph(t, page)
	if want := testBaseURL + byToken + ".png?style=card&theme=dark&lang=de&parts=nick&size=240"; og.Title != "Abwesend" || og.Description != "" || og.Images[0].URL != want {
		t.Errorf("with parameters: %s", og)
	}
	resp, image := f.get(strings.TrimPrefix(og.Images[0].URL, testBaseURL))
	if drawn, err := png.DecodeConfig(strings.NewReader(image)); err != nil || drawn.Width != 960 || drawn.Height != 240 {
		t.Errorf("%s %+v %v", resp.Status, drawn, err)
	}
	_, page = f.get(byToken + "," + Token{9}.String())
	if og := openGraph(t, page); og.Title != "Away 1/2" || og.URL != "" {
		t.Errorf("two people, one of whom is unknown: %s", og)
	}
}

// TestFavicon checks that the icon has the color of the state and that the page's policy allows it.
func TestFavicon(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	for _, state := range states {
		f.juliets(state)
		resp, page := f.get(julietPage)
		icon := headElements(t, page, "link", "rel", "href")["icon"]
		svg, ok := strings.CutPrefix(icon, "data:image/svg+xml,")
		svg, err := url.PathUnescape(svg)
		if !ok || err != nil || !strings.Contains(svg, "fill='"+hexColor(stateColors[state].light)+"'") || !strings.Contains(svg, pathData(glyphs[state])) {
			t.Errorf("%s: %s %v", state, icon, err)
		}
		checkXML(t, string(state), svg)
		if policy := resp.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "img-src 'self' data:;") {
			t.Error(policy)
		}
	}
}

// TestMicroformats reads the h-card of a page with a microformats parser.
func TestMicroformats(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	at, err := url.Parse(testBaseURL)
	if err != nil {
		t.Fatal(err)
	}
	parse := func(address string) *microformats.Data {
		_, page := f.get(address)
		return microformats.Parse(strings.NewReader(page), at)
	}
	if data := parse(julietPage); len(data.Items) != 0 || len(data.Rels["me"]) != 0 {
		t.Errorf("of a user who shows nothing: %+v", data)
	}
	f.openAll()
	f.says("b", "", "<status>lunch</status>")
	data := parse(statusPath + testToken)
	if len(data.Items) != 1 || !slices.Equal(data.Items[0].Type, []string{"h-card"}) {
		t.Fatalf("%+v", data.Items)
	}
	photos := data.Items[0].Properties["photo"]
	delete(data.Items[0].Properties, "photo")
	want := map[string][]any{"name": {"Giulietta <3"}, "note": {"lunch"}, "impp": {"xmpp:juliet@example.org?message"},
		"url": {testBaseURL + statusPath + testToken}}
	if diff := cmp.Diff(want, data.Items[0].Properties); diff != "" {
		t.Error(diff)
	}
	if len(photos) != 1 {
		t.Errorf("photos: %.100v", photos)
	}
	if me := data.Rels["me"]; !slices.Equal(me, []string{"xmpp:juliet@example.org?message"}) {
		t.Errorf("rel=me: %q", me)
	}
	if data := parse(julietPage + "?parts=nick"); len(data.Items) != 1 || len(data.Items[0].Properties["impp"]) != 0 || len(data.Rels["me"]) != 0 {
		t.Errorf("without the JID: %+v", data)
	}
}

// TestOEmbed follows the oEmbed link of a page, as a site does that shows it.
func TestOEmbed(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	f.options("<show_nick>1</show_nick>")
	f.want(wantNick)
	f.says("b", "", nick+`Juliet "&lt;b>" Capulet</nick><show>dnd</show>`)
	ask := func(page, more string) (*http.Response, map[string]any) {
		t.Helper()
		resp, body := f.get("/oembed?url=" + url.QueryEscape(page) + more)
		var object map[string]any
		if resp.StatusCode == http.StatusOK {
			if err := json.Unmarshal([]byte(body), &object); err != nil {
				t.Fatal(err)
			}
		}
		return resp, object
	}
	page := testBaseURL + statusPath + testToken
	_, body := f.get(statusPath + testToken + "?lang=fr")
	link := headElements(t, body, "link", "type", "href")["application/json+oembed"]
	resp, body := f.get(strings.TrimPrefix(link, testBaseURL) + "&format=json")
	if resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(body, "Ne pas déranger") {
		t.Errorf("%v %s", resp.Header, body)
	}
	_, object := ask(page, "&maxwidth=900&maxheight=x")
	want := map[string]any{"version": "1.0", "type": "rich", "title": `Juliet "<b>" Capulet: Do not disturb`, "provider_name": "webstatus",
		"provider_url": testBaseURL + "/", "width": 320.0, "height": 80.0,
		"html":          `<iframe src="` + page + `" width="320" height="80" style="border:0" title="Juliet &#34;&lt;b&gt;&#34; Capulet: Do not disturb"></iframe>`,
		"thumbnail_url": page + ".png?style=card", "thumbnail_width": 320.0, "thumbnail_height": 80.0}
	if diff := cmp.Diff(want, object); diff != "" {
		t.Error(diff)
	}
	if _, object := ask(page+"?theme=dark&parts=state", "&maxwidth=200&maxheight=60"); object["width"] != 200.0 || object["height"] != 60.0 || object["thumbnail_url"] != nil ||
		!strings.Contains(object["html"].(string), `src="`+page+`?theme=dark&amp;parts=state" width="200" height="60"`) {
		t.Errorf("smaller: %v", object)
	}
	for wrong, status := range map[string]int{
		"": 404, "https://elsewhere.example/status/" + testToken: 404, testBaseURL + "/": 404, testBaseURL + statusPath + Token{9}.String(): 404, page + ".json": 404,
		page + "%zz": 404, testBaseURL + julietPage: 404, // the response would have to name the JID
	} {
		if resp, _ := ask(wrong, ""); resp.StatusCode != status {
			t.Errorf("%s: %s", wrong, resp.Status)
		}
	}
	if resp, _ := ask(page, "&format=xml"); resp.StatusCode != http.StatusNotImplemented {
		t.Errorf("XML: %s", resp.Status)
	}
}
