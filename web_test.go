package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/png"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
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

// TestLinkDown checks that a page indicates that it shows the last known state.
func TestLinkDown(t *testing.T) {
	f := newFixture(t, func(c *componentConfig) { c.linkTimes.retry = retryDelay{time.Hour, time.Hour} })
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
		if !strings.Contains(body.String(), `"message":"`+tt.want+`"`) || resp.Header.Get("Vary") != "Accept-Language" {
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

// TestNotFound checks that all URLs without a user get the same response.
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
}

// checkSecurityHeaders checks the headers that every response has.
func checkSecurityHeaders(t *testing.T, request string, status int, h http.Header) {
	t.Helper()
	if !strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src 'none'") || h.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%s: %v", request, h)
	}
	if status >= 400 && h.Get("Cache-Control") != "no-store" && !strings.HasPrefix(h.Get("Cache-Control"), "max-age=5") {
		t.Errorf("%s: Cache-Control of an error: %q", request, h.Get("Cache-Control"))
	}
}

// TestSecurityHeaders checks the headers of all kinds of responses, errors included.
func TestSecurityHeaders(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	f.site.proxies = loopbackProxies
	handler := f.site.handler()
	ask := func(method, path, from string) *httptest.ResponseRecorder {
		t.Helper()
		r := httptest.NewRequest(method, path, nil)
		r.RemoteAddr = "127.0.0.1:1"
		r.Header.Set("X-Forwarded-For", from)
		resp := httptest.NewRecorder()
		handler.ServeHTTP(resp, r)
		h := resp.Header()
		checkSecurityHeaders(t, method+" "+path, resp.Code, h)
		if isPage := resp.Code/100 != 3 && strings.HasPrefix(h.Get("Content-Type"), "text/html") && !strings.Contains(path, "@"); isPage != (h.Get("Referrer-Policy") == "no-referrer") {
			t.Errorf("%s %s: Referrer-Policy is %q", method, path, h.Get("Referrer-Policy"))
		}
		return resp
	}
	paths := []string{"/", julietPage, julietPage + "/embed", julietPage + ",x", "/presence/jid/juliet/example.org/xml", statusPath + juliet + "/html"}
	for _, format := range formats {
		if format.routes == routesStatus && format.name != "" {
			paths = append(paths, julietPage+"."+format.name)
		}
	}
	for _, path := range paths {
		for _, method := range []string{"GET", "HEAD"} {
			if resp := ask(method, path, "192.0.2.1"); resp.Code != http.StatusOK {
				t.Errorf("%s %s: %d", method, path, resp.Code)
			}
		}
		for _, method := range []string{"POST", "OPTIONS", "PUT"} {
			if resp := ask(method, path, "192.0.2.1"); resp.Code != http.StatusMethodNotAllowed || resp.Header().Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d, Allow is %q", method, path, resp.Code, resp.Header().Get("Allow"))
			}
		}
	}
	ask("HEAD", julietPage+"/events", "192.0.2.1")
	for path, want := range map[string]int{"/elsewhere": 404, "/status/nobody.png": 404, "/presence/jid/juliet/example.org/js?cb=1": 400, "//": 301} {
		if resp := ask("GET", path, "192.0.2.1"); resp.Code != want && resp.Code != 307 {
			t.Errorf("%s: %d, want %d", path, resp.Code, want)
		}
	}
	const exhausted = "192.0.2.9"
	for range 2 { // to below zero
		f.site.limits.charge(netip.MustParseAddr(exhausted), f.site.limits.now().Add(-budgetBurst))
	}
	for path, anyOrigin := range map[string]bool{julietPage + ".json?parts=nick": true, julietPage + ".js?lang=de": true, julietPage + ".txt?lang=de": true, julietPage + "?lang=de": false} {
		resp := ask("GET", path, exhausted)
		if resp.Code != http.StatusTooManyRequests || resp.Header().Get("Retry-After") == "" || (resp.Header().Get("Access-Control-Allow-Origin") == "*") != anyOrigin {
			t.Errorf("%s: %d %v", path, resp.Code, resp.Header())
		}
	}
	for range maxClientStreams {
		f.site.limits.streams.enter(netip.MustParseAddr(exhausted), 1)
	}
	if resp := ask("GET", julietPage+"/events", exhausted); resp.Code != http.StatusTooManyRequests || resp.Header().Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("events: %d %v", resp.Code, resp.Header())
	}
	secure := httptest.NewTLSServer(handler)
	defer secure.Close()
	for url, want := range map[string]string{secure.URL: "max-age=31536000", f.web.URL: ""} {
		resp, err := secure.Client().Get(url + julietPage)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Strict-Transport-Security"); got != want {
			t.Errorf("%s: Strict-Transport-Security is %q", url, got)
		}
	}
}

// TestDuplicateAddresses checks that an address that is given several times counts once, however it is spelled, but that two addresses
// of one person cannot be told from those of two people.
func TestDuplicateAddresses(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	id, upper := strings.TrimPrefix(julietPage, statusPath), encodeJID(strings.ToUpper(juliet))
	for addresses, want := range map[string]int{id + "," + id: 1, id + "," + id + "=," + id + "==," + upper + "," + upper + "=": 1, strings.Repeat(id+",", 3*maxPeople) + id: 1, id + "," + Token{}.String() + "," + id: 2, id + ",x,x": 2} {
		_, body := f.get(statusPath + addresses + ".json")
		var people []any
		if err := json.Unmarshal([]byte(body), &people); err != nil || len(people) != want {
			t.Errorf("%.80s: %d people, want %d (%v)", addresses, len(people), want, err)
		}
	}
	if resp, body := f.get(statusPath + id + "," + id + "=,x/embed"); resp.StatusCode != http.StatusOK || !strings.Contains(body, "iframe") {
		t.Errorf("the page with the snippets: %s", resp.Status)
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
	for _, want := range []string{`href="xmpp:webstatus.example.org?message;body=register"`, `href="xmpp:bot@webstatus.example.org?message;body=register"`} {
		if resp.StatusCode != 200 || !strings.Contains(body, want) {
			t.Errorf("%s %s\nwant %s", resp.Status, body, want)
		}
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
	if resp, err := http.Head(f.web.URL + julietPage + "/events"); err != nil || resp.StatusCode != 200 {
		t.Errorf("HEAD: %v %v", resp, err)
	}
	wantEvent(`{"version":1,"state":"available","label":"Available","message":"one\ntwo","since":"2026-11-22T12:00:00Z"}`)
	f.says("b", "", "<show>away</show>")
	wantEvent(`{"version":1,"state":"away","label":"Away","since":"2026-11-22T12:00:00Z"}`)
	f.says("b", "", "<show>away</show><priority>1</priority>") // no visible change
	f.says("b", "type='unavailable'", "")
	wantEvent(`{"version":1,"state":"unavailable","label":"Offline"}`)
	f.send(`<iq type='set' id='x' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><remove/></query></iq>`)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data:") {
			t.Errorf("after the last event: %s", lines.Text())
		}
	}
}

// events opens a live stream and returns its lines.
func (f *fixture) events(path, lastID, forwardedFor string) (*http.Response, *bufio.Scanner) {
	f.t.Helper()
	req, err := http.NewRequest("GET", f.web.URL+path+"/events", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Last-Event-ID", lastID)
	if forwardedFor != "" {
		req.Header.Set("X-Forwarded-For", forwardedFor)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { resp.Body.Close() })
	return resp, bufio.NewScanner(resp.Body)
}

// next returns the value of the next line of a field.
func next(t *testing.T, lines *bufio.Scanner, field string) string {
	t.Helper()
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), field+": "); ok {
			return value
		}
	}
	t.Fatalf("the stream has ended before %s", field)
	return ""
}

// TestEventIDs reconnects a client that has missed no change, and one that has.
func TestEventIDs(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	_, lines := f.events(julietPage, "", "")
	id := next(t, lines, "id")
	next(t, lines, "data")
	_, again := f.events(julietPage, id, "")
	next(t, again, "retry")
	f.says("b", "", "<show>dnd</show>")
	if data := next(t, again, "data"); !strings.Contains(data, `"dnd"`) {
		t.Errorf("an event that the client already has is sent again: %s", data)
	}
	_, late := f.events(julietPage, id, "")
	if data := next(t, late, "data"); !strings.Contains(data, `"dnd"`) {
		t.Errorf("%s", data)
	}
}

// TestEventsOfSeveral follows two people, one of whom is not registered.
func TestEventsOfSeveral(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	_, lines := f.events(julietPage+","+Token{9}.String(), "", "")
	for _, state := range []string{"available", "away", "dnd"} {
		if data := next(t, lines, "data"); !strings.HasPrefix(data, `[{"version":1,"state":"`+state+`"`) || !strings.HasSuffix(data, `{"version":1,"state":"unknown","label":"Unknown"}]`) {
			t.Errorf("%s, want %s", data, state)
		}
		f.says("b", "", "<show>"+map[string]string{"available": "away", "away": "dnd", "dnd": "xa"}[state]+"</show>")
	}
}

// TestEventsEndAtNewLink checks that replacing the token-based URL ends the streams at the old URL.
func TestEventsEndAtNewLink(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	_, lines := f.events("/status/"+Token{}.String(), "", "")
	next(t, lines, "data")
	f.write("newlink")
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data:") {
			t.Error(lines.Text())
		}
	}
}

// TestEventsAreMerged checks that a first change is sent at once, and that later ones are merged into the newest.
func TestEventsAreMerged(t *testing.T) {
	f := newFixture(t, nil)
	paused, proceed := make(chan time.Duration), make(chan time.Time)
	f.site.limits.after = func(d time.Duration) <-chan time.Time { paused <- d; return proceed }
	f.register("")
	f.says("b", "", "")
	_, lines := f.events(julietPage, "", "")
	next(t, lines, "data")
	for _, shows := range [][]string{{"away", "dnd", "xa"}, {"chat"}} {
		for _, show := range shows {
			f.says("b", "", "<show>"+show+"</show>")
			if show == shows[0] && len(shows) > 1 {
				if data := next(t, lines, "data"); !strings.Contains(data, show) {
					t.Errorf("the first change: %s, want %s", data, show)
				}
				if d := <-paused; d != eventPause {
					t.Errorf("a pause of %s", d)
				}
			}
		}
		proceed <- time.Time{}
		if data, want := next(t, lines, "data"), shows[len(shows)-1]; !strings.Contains(data, want) {
			t.Errorf("after the pause: %s, want %s", data, want)
		}
		<-paused
	}
}

// TestSharedEvents checks that streams of the same address and language share one topic, which ends with the last of them.
func TestSharedEvents(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	topics := func() int {
		f.site.topics.mu.Lock()
		defer f.site.topics.mu.Unlock()
		return len(f.site.topics.byKey)
	}
	var responses []*http.Response
	for i := range 20 {
		query := ""
		if i == 0 {
			query = "?lang=de"
		}
		resp, err := http.Get(f.web.URL + julietPage + "/events" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		responses = append(responses, resp)
		next(t, bufio.NewScanner(resp.Body), "data")
	}
	if n := topics(); n != 2 {
		t.Errorf("%d topics for two languages", n)
	}
	f.says("b", "", "<show>dnd</show>")
	for i, resp := range responses {
		if data := next(t, bufio.NewScanner(resp.Body), "data"); !strings.Contains(data, `"dnd"`) {
			t.Errorf("stream %d: %s", i, data)
		}
		resp.Body.Close()
	}
	eventually(t, "the topics and streams have ended", func() bool { return topics() == 0 && f.site.limits.streams.open() == 0 })
}

// TestStreamProtocols follows a stream with each version of HTTP, with TLS and without, and closes it.
func TestStreamProtocols(t *testing.T) {
	for name, protocol := range map[string]struct{ secure, http2 bool }{"HTTP/1.1": {}, "HTTP/1.1 with TLS": {secure: true}, "HTTP/2": {secure: true, http2: true}} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			f.register("")
			f.says("b", "", "")
			server := httptest.NewUnstartedServer(f.site.handler())
			server.EnableHTTP2 = protocol.http2
			if protocol.secure {
				server.StartTLS()
			} else {
				server.Start()
			}
			defer server.Close()
			resp, err := server.Client().Get(server.URL + julietPage + "/events")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Date") == "" || resp.ProtoMajor == 2 != protocol.http2 {
				t.Errorf("%s %v", resp.Proto, resp.Header)
			}
			lines := bufio.NewScanner(resp.Body)
			next(t, lines, "data")
			for _, show := range []string{"away", "dnd"} {
				f.says("b", "", "<show>"+show+"</show>")
				if data := next(t, lines, "data"); !strings.Contains(data, show) {
					t.Errorf("%s, want %s", data, show)
				}
			}
			resp.Body.Close()
			eventually(t, "the stream has ended", func() bool { return f.site.limits.streams.open() == 0 })
		})
	}
}

// TestTalkativeStream checks that a client that sends more over the connection of its stream loses it.
func TestTalkativeStream(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	conn, err := net.Dial("tcp", f.web.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s/events HTTP/1.1\r\nHost: x\r\n\r\n", julietPage)
	lines := bufio.NewScanner(conn)
	next(t, lines, "data")
	fmt.Fprint(conn, "GET / HTTP/1.1\r\n")
	for lines.Scan() {
	}
	eventually(t, "the stream has ended", func() bool { return f.site.limits.streams.open() == 0 })
}

// TestEventsAtShutdown checks that streams end with a short time to reconnect.
func TestEventsAtShutdown(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	_, lines := f.events(julietPage, "", "")
	next(t, lines, "data")
	go f.stop()
	if retry := next(t, lines, "retry"); retry != "1000" {
		t.Error(retry)
	}
}

var loopbackProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// TestStreamLimits reaches the limit on streams from one address, and checks that other addresses are not affected.
func TestStreamLimits(t *testing.T) {
	f := newFixture(t, nil)
	f.site.proxies = loopbackProxies
	f.register("")
	for range maxClientStreams {
		if resp, _ := f.events(julietPage, "", "8.8.8.8, 203.0.113.7"); resp.StatusCode != 200 {
			t.Fatal(resp.Status)
		}
	}
	for forwarded, want := range map[string]int{"203.0.113.7": 429, "198.51.100.1, 203.0.113.7": 429, "203.0.113.8": 200, "203.0.113.7, 203.0.113.9": 200, "": 200, "rubbish": 200} {
		resp, _ := f.events(julietPage, "", forwarded)
		if resp.StatusCode != want || want == 429 && resp.Header.Get("Retry-After") == "" {
			t.Errorf("%q: %s", forwarded, resp.Status)
		}
	}
}

// TestStreamLimit checks that closed streams do not count, and that there is a global limit on streams.
func TestStreamLimit(t *testing.T) {
	s := newOpenLimit(maxStreams, maxClientStreams)
	var leave []func()
	for range maxClientStreams {
		l, err := s.enter(netip.MustParseAddr("2001:db8::1"), 1)
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, l)
	}
	if _, err := s.enter(netip.MustParseAddr("2001:db8::2"), 1); !errors.Is(err, errOpen) {
		t.Errorf("the same prefix: %v", err)
	}
	leave[0]()
	if _, err := s.enter(netip.MustParseAddr("2001:db8::2"), 1); err != nil {
		t.Errorf("after one stream was closed: %v", err)
	}
	open := maxClientStreams
	for i := 1; ; i++ {
		if _, err := s.enter(netip.MustParseAddr(fmt.Sprintf("2001:db8:0:%x::1", i)), 1); errors.Is(err, errOpen) {
			break
		}
		open++
	}
	if open != siteShare*maxClientStreams {
		t.Errorf("a site has %d streams", open)
	}
	for s.total < maxStreams {
		s.enter(netip.Addr{}, 1)
	}
	if _, err := s.enter(netip.Addr{}, 1); !errors.Is(err, errBusy) {
		t.Errorf("above the global limit: %v", err)
	}
}

// TestGzip compares compressed and uncompressed responses, and their entity tags.
func TestGzip(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	ask := func(path, encoding, condition string) (*http.Response, string) {
		return f.get(path, "Accept-Encoding", encoding, "If-None-Match", condition) // keeps the client from decompressing
	}
	for _, path := range []string{julietPage, julietPage + ".svg", julietPage + ".js", "/", julietPage + "/embed"} {
		plain, body := ask(path, "identity", "")
		compressed, small := ask(path, "br, gzip", "")
		r, err := gzip.NewReader(strings.NewReader(small))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if decompressed, err := io.ReadAll(r); err != nil || string(decompressed) != body || len(small) >= len(body) || compressed.Header.Get("Content-Encoding") != "gzip" || plain.Header.Get("Content-Encoding") != "" {
			t.Errorf("%s: %v, %d and %d bytes", path, err, len(small), len(body))
		}
		tag := compressed.Header.Get("ETag")
		if tag != "" && tag == plain.Header.Get("ETag") {
			t.Errorf("%s: two encodings have the same entity tag", path)
		}
		if again, _ := ask(path, "gzip", tag); tag != "" && again.StatusCode != 304 {
			t.Errorf("%s: %s", path, again.Status)
		}
	}
	if resp, _ := ask(julietPage+".json", "gzip", ""); resp.Header.Get("Content-Encoding") != "" {
		t.Error("a small body is compressed")
	}
	_, id, text := encoded(t, func(b *bytes.Buffer) error { return png.Encode(b, noise()) })
	f.openAll()
	f.mayAnswer(askData)
	f.answers("result", "avatar-data", data(id, text))
	f.says("b", "", "<show>dnd</show><status>"+strings.Repeat("Rehearsing, ", 10)+"</status>")
	if _, body := ask(julietPage, "gzip", ""); len(body) > 7<<10 {
		t.Errorf("the page with all options has %d bytes compressed", len(body))
	}
}

// noise returns an image that is hard to compress.
func noise() image.Image {
	img := image.NewNRGBA(image.Rect(0, 0, 200, 200))
	random := rand.New(rand.NewPCG(1, 2))
	for i := range img.Pix {
		img.Pix[i] = uint8(random.Uint32()) | uint8(i%4/3*0xff)
	}
	return img
}

// TestSearchEngines checks that search engines may index only the pages of users who allow it.
func TestSearchEngines(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	listed := func(want bool) {
		t.Helper()
		_, page := f.get(julietPage)
		if got := !strings.Contains(page, `<meta name="robots" content="noindex">`); got != want {
			t.Errorf("the page: %t", got)
		}
		for _, ext := range []string{".json", ".txt", ".xml", ".js", ".svg", ".png"} {
			if resp, _ := f.get(julietPage + ext); (resp.Header.Get("X-Robots-Tag") != "noindex") != want {
				t.Errorf("%s: %q", ext, resp.Header.Get("X-Robots-Tag"))
			}
		}
	}
	listed(false)
	f.send(`<presence from='juliet@example.org/b' to='webstatus.example.org'/>`)
	f.options("<search_engines>1</search_engines>")
	f.settled(juliet)
	listed(true)
}

// TestTheme checks the theme query parameter of pages and images.
func TestTheme(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	for query, want := range map[string]string{"": `<html lang="en" dir="ltr" data-state="available">`, "?theme=dark": `<html lang="en" dir="ltr" data-theme="dark" data-state="available">`,
		"?theme=light&lang=fa": `<html lang="fa" dir="rtl" data-theme="light" data-state="available">`, "?theme=x%22": `<html lang="en" dir="ltr" data-state="available">`} {
		if _, page := f.get(julietPage + query); !strings.Contains(page, want) {
			t.Errorf("%s: no %s", query, want)
		}
	}
	_, auto := f.get(julietPage + ".svg?style=card")
	_, dark := f.get(julietPage + ".svg?style=card&theme=dark")
	if !strings.Contains(auto, "prefers-color-scheme:dark") || strings.Contains(dark, "prefers-color-scheme") || !strings.Contains(dark, "#1c222b") {
		t.Error("the card does not follow the theme")
	}
}
