package main

import (
	"bufio"
	"encoding/base64"
	"flag"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares a body with a file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: %s", name, diff)
	}
}

// withoutSources leaves out style and script, which have files of their own.
func withoutSources(t *testing.T, page string) string {
	t.Helper()
	for _, name := range []string{"status.css", "status.js"} {
		source, err := fs.ReadFile(embeddedTemplates, name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(page, string(source)) {
			t.Errorf("%s is not in the page as it is", name)
		}
		page = strings.Replace(page, string(source), "", 1)
	}
	return page
}

func TestRepresentations(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	set := func(fields string) {
		f.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'>` + fields + `</query></iq>`)
		f.want(`<iq type='result' id='r' from='webstatus.example.org' to='juliet@example.org/b'></iq>`)
		f.settled(juliet)
	}
	compare := func(name string) {
		t.Helper()
		resp, page := f.get(julietPage)
		golden(t, name+".html", withoutSources(t, page))
		_, data := f.get(julietPage + ".json")
		golden(t, name+".json", data)
		if strings.Contains(page, julietPage) || strings.Contains(page, Token{}.String()) {
			t.Errorf("%s: the page has an address in it", name)
		}
		if h := resp.Header.Get("Content-Security-Policy"); !strings.HasPrefix(h, "default-src 'none'; ") || !strings.HasSuffix(h, "; frame-ancestors *") {
			t.Errorf("%s: policy %q", name, h)
		}
	}
	f.says("b", "", `<show>away</show><status>&lt;script>alert("lunch")&lt;/script></status>`)
	compare("away-private")
	set("<show_status_msg>1</show_status_msg><show_full_jid>1</show_full_jid>")
	compare("away-open")
	f.says("b", "type='unavailable'", "")
	compare("offline-open")
	f.says("b", "", "")
	set("<show_full_jid>0</show_full_jid>")
	f.send(`<presence type='unsubscribed' from='juliet@example.org' to='webstatus.example.org'/>`)
	f.settled(juliet)
	compare("unknown-private")
}

// TestLinkDown has the page say that what it shows is the last known.
func TestLinkDown(t *testing.T) {
	f := newFixture(t, func(c *componentConfig) { c.times.retry = time.Hour; c.times.most = time.Hour })
	f.register("")
	f.says("b", "", "")
	f.stream.Close()
	eventually(t, "the page says that the link is down", func() bool {
		_, data := f.get(julietPage + ".json")
		return strings.Contains(data, `"state":"available"`) && strings.Contains(data, `"as_of":"2026-11-22T12:00:00Z"`)
	})
	_, page := f.get(julietPage)
	golden(t, "link-down.html", withoutSources(t, page))
}

func TestLanguages(t *testing.T) {
	f := newFixture(t, nil)
	f.register("<show_status_msg>1</show_status_msg>")
	f.says("b", "", `<status>lunch</status><status xml:lang='de'>Mittag</status><status xml:lang='pt-BR'>almoço</status>`)
	tests := []struct{ query, header, want string }{
		{"", "", "lunch"}, {"", "de-AT,de;q=0.9,en;q=0.5", "Mittag"}, {"", "pt", "almoço"}, {"", "ja", "lunch"},
		{"?lang=de", "pt", "Mittag"}, {"", "rubbish;q=x", "lunch"}, {"", strings.Repeat("de,", 1000), "lunch"}, {"?lang=%00", "", "lunch"},
	}
	for _, tt := range tests {
		req, err := http.NewRequest("GET", f.web.URL+julietPage+".json"+tt.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept-Language", tt.header)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var body strings.Builder
		if err := resp.Write(&body); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if !strings.Contains(body.String(), `"message":"`+tt.want+`"`) || resp.Header.Get("Vary") != "Accept-Language, Accept-Encoding" {
			t.Errorf("%s %.20s: %s, want %s", tt.query, tt.header, body.String(), tt.want)
		}
	}
}

func TestCaching(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	for path, show := range map[string]string{julietPage: "away", julietPage + ".json": "dnd"} {
		resp, _ := f.get(path)
		tag := resp.Header.Get("ETag")
		ask := func(method, condition string) *http.Response {
			req, err := http.NewRequest(method, f.web.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("If-None-Match", condition)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			return resp
		}
		for condition, want := range map[string]int{tag: 304, `"x", W/` + tag: 304, "*": 304, `"x"`: 200, "": 200} {
			if resp := ask("GET", condition); resp.StatusCode != want || resp.Header.Get("ETag") != tag || resp.Header.Get("Cache-Control") != cacheData[0] {
				t.Errorf("%s if not %q: %s %v", path, condition, resp.Status, resp.Header)
			}
		}
		if resp := ask("HEAD", ""); resp.StatusCode != 200 || resp.ContentLength <= 0 {
			t.Errorf("HEAD %s: %s, %d bytes", path, resp.Status, resp.ContentLength)
		}
		f.says("b", "", "<show>"+show+"</show>")
		if resp := ask("GET", tag); resp.StatusCode != 200 || resp.Header.Get("ETag") == tag {
			t.Errorf("%s after a change: %s", path, resp.Status)
		}
	}
}

// TestNotFound has the same answer for all that is not there.
func TestNotFound(t *testing.T) {
	f := newFixture(t, nil)
	f.register("<jid_link>0</jid_link>")
	paths := []string{julietPage, julietPage + ".json", julietPage + "/events", "/status/" + encodeJID("nobody@example.org"), "/status/",
		"/status/" + Token{9}.String(), "/status/aaaa", "/status/%00", "/status/a/b", "/elsewhere", "/status/" + Token{}.String() + ".exe",
		"/status/" + strings.ToUpper(Token{}.String()), "/status/" + Token{}.String() + ".json/events"}
	first, body := f.get(paths[0])
	first.Header.Del("Date")
	for _, path := range paths {
		resp, got := f.get(path)
		resp.Header.Del("Date")
		if resp.StatusCode != 404 || got != body || !cmp.Equal(first.Header, resp.Header) {
			t.Errorf("%s: %s %v, not the same as %s", path, resp.Status, resp.Header, paths[0])
		}
	}
	if !strings.Contains(body, "Not found") || strings.Contains(body, "example.org") {
		t.Error(body)
	}
	resp, err := http.Post(f.web.URL+"/status/"+Token{}.String(), "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed && resp.StatusCode != http.StatusNotFound {
		t.Errorf("POST: %s", resp.Status)
	}
}

func TestNoJIDLinks(t *testing.T) {
	f := newFixture(t, func(c *componentConfig) { c.jidLinks = false })
	f.register("<jid_link>1</jid_link>")
	if resp, _ := f.get(julietPage); resp.StatusCode != 404 {
		t.Errorf("by JID: %s", resp.Status)
	}
	if resp, _ := f.get("/status/" + Token{}.String()); resp.StatusCode != 200 {
		t.Errorf("by token: %s", resp.Status)
	}
	f.send(`<iq type='get' id='q' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'/></iq>`)
	if form := f.next(); strings.Contains(form, "jid_link") || strings.Contains(form, base64.StdEncoding.EncodeToString([]byte(juliet))) {
		t.Error(form)
	}
}

func TestIndex(t *testing.T) {
	f := newFixture(t, nil)
	resp, body := f.get("/")
	if resp.StatusCode != 200 || !strings.Contains(body, `href="xmpp:webstatus.example.org?register"`) {
		t.Errorf("%s %s", resp.Status, body)
	}
}

// TestEvents reads the live stream from the first event to the end.
func TestEvents(t *testing.T) {
	f := newFixture(t, nil)
	f.register("<show_status_msg>1</show_status_msg>")
	f.says("b", "", "<status>one\ntwo</status>")
	resp, err := http.Get(f.web.URL + julietPage + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Error(resp.Header)
	}
	lines := bufio.NewScanner(resp.Body)
	wantEvent := func(want string) {
		t.Helper()
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if data != want {
					t.Fatalf("got  %s\nwant %s", data, want)
				}
				return
			}
		}
		t.Fatalf("the stream has ended, want %s", want)
	}
	wantEvent(`{"version":1,"state":"available","label":"Available","message":"one\ntwo","since":"2026-11-22T12:00:00Z"}`)
	f.says("b", "", "<show>away</show>")
	wantEvent(`{"version":1,"state":"away","label":"Away","since":"2026-11-22T12:00:00Z"}`)
	f.says("b", "", "<show>away</show><priority>1</priority>") // nothing that anybody could see
	f.says("b", "type='unavailable'", "")
	wantEvent(`{"version":1,"state":"unavailable","label":"Offline"}`)
	f.send(`<iq type='set' id='x' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><remove/></query></iq>`)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data:") {
			t.Errorf("after the end: %s", lines.Text())
		}
	}
}
