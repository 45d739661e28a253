package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzRequest sends requests with any path, query and headers to the website. No response may be an internal error, lack the headers that
// protect browsers, or show anything of somebody who shows nothing.
func FuzzRequest(f *testing.F) {
	fixture := newFixture(f, nil)
	fixture.register(`<show_status_msg>0</show_status_msg>`)
	fixture.says("Balkon", "", "<show>away</show><status>Rendezvous</status>")
	site := fixture.site.handler()
	for _, path := range allPaths() {
		f.Add(path, "de-CH,*;q=0.1", "gzip;q=0", `W/"x"`)
	}
	for _, path := range []string{"/status/a,b,,c.png?size=1e9&style=card&theme=x&label=%00", "/status//../..//", "/%2e%2e/", "/status/%FF.json?lang=%FF", "/oembed?url=http://%zz&maxwidth=-1",
		"/presence/jid/a/b/js?cb=alert(1)//", "/status/" + strings.Repeat("A,", 60)} {
		f.Add(path, "x;q=2,\xff", "*", "*")
	}
	f.Fuzz(func(t *testing.T, target, languages, encodings, tags string) {
		if !strings.HasPrefix(target, "/") || strings.HasSuffix(strings.SplitN(target, "?", 2)[0], "/events") {
			return // a stream of events does not end
		}
		r, err := http.NewRequest("GET", "http://x"+target, nil)
		if err != nil {
			return // refused by the server
		}
		r.RequestURI, r.RemoteAddr = target, "127.0.0.1:1"
		r.Header.Set("Accept-Language", languages)
		r.Header.Set("Accept-Encoding", encodings)
		r.Header.Set("If-None-Match", tags)
		w := httptest.NewRecorder()
		site.ServeHTTP(w, r)
		body, header := w.Body.String(), w.Result().Header
		if w.Code >= 500 && w.Code != http.StatusServiceUnavailable {
			t.Errorf("%q: %d", target, w.Code)
		}
		if header.Get("X-Content-Type-Options") != "nosniff" || header.Get("Content-Security-Policy") == "" {
			t.Errorf("%q: %d with %v", target, w.Code, header)
		}
		if header.Get("Content-Encoding") == "" && (strings.Contains(body, "Rendezvous") || strings.Contains(body, "Balkon")) {
			t.Errorf("%q shows %q", target, body)
		}
		if contentType := header.Get("Content-Type"); strings.Contains(contentType, "utf-8") && header.Get("Content-Encoding") == "" && !utf8.ValidString(body) {
			t.Errorf("%q: %q is not UTF-8", target, body)
		}
	})
}

// FuzzForwarded checks that a client has an address whatever is forwarded, so that it is never exempt from limits, and that only trusted
// proxies are believed.
func FuzzForwarded(f *testing.F) {
	fixture := newFixture(f, nil)
	proxy := netip.MustParsePrefix("192.0.2.0/24")
	for _, seed := range [][2]string{{"203.0.113.1", ""}, {"127.0.0.1, 2.2.2.2:4711", ""}, {"[64:ff9b::1.2.3.4]:80,192.0.2.2", ""}, {"", `for="[2001:db8::1%eth0]:80";proto=https, for=192.0.2.3`}, {"::ffff:127.0.0.1", "for=unknown"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, forwardedFor, forwarded string) {
		for _, peer := range []string{"192.0.2.1:1", "198.51.100.1:1"} {
			fixture.site.proxies = []netip.Prefix{proxy}
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = peer
			if forwardedFor != "" {
				r.Header.Set("X-Forwarded-For", forwardedFor)
			}
			r.Header.Set("Forwarded", forwarded)
			client := fixture.site.client(r)
			if !client.IsValid() || client.Zone() != "" {
				t.Errorf("%q %q from %s: %s", forwardedFor, forwarded, peer, client)
			}
			if peer == "198.51.100.1:1" && client.String() != "198.51.100.1" {
				t.Errorf("%q %q are believed to %s: %s", forwardedFor, forwarded, peer, client)
			}
		}
	})
}

// FuzzConversation sends any content in a stanza from a registered user to the component. Each reply must be well-formed and go to that
// user, and the next ping must be answered.
func FuzzConversation(f *testing.F) {
	fixture := newFixture(f, func(c *componentConfig) { c.log = slog.New(slog.DiscardHandler) }) // or it takes gigabytes of memory
	fixture.register("")
	for _, name := range []string{"iq", "message", "presence"} {
		for _, seed := range []string{
			`<body>help</body>`, `<body>message on</body><request xmlns='urn:xmpp:receipts'/>`, `<command xmlns='http://jabber.org/protocol/commands' node='options'/>`,
			`<query xmlns='jabber:iq:register'/>`, `<vCard xmlns='vcard-temp'/>`, `<ping xmlns='urn:xmpp:ping'/>`, `<show>dnd</show>`,
		} {
			for _, typ := range []string{"get", "set", "chat", "result"} {
				f.Add(name, typ, seed)
			}
		}
	}
	f.Fuzz(func(t *testing.T, name, typ, content string) {
		fixture.t = t // the methods of F cannot be called here
		stanza := `<` + name + ` type='` + typ + `' id='x' from='juliet@example.org/b' to='webstatus.example.org'>` + content + `</` + name + `>`
		got, err := frames(newFramer(strings.NewReader(stanza), maxStanza))
		if err != nil && err != io.EOF || !slices.Equal(got, []string{stanza}) {
			return // no server sends it
		}
		if typ == "subscribe" || typ == "unsubscribe" || strings.Contains(content, "remove") || strings.Contains(content, "stop") {
			return // it would end the registration
		}
		fixture.advance(1e9)
		fixture.send(stanza)
		fixture.send(`<iq type='get' id='barrier' from='juliet@example.org/barrier' to='webstatus.example.org'><ping xmlns='urn:xmpp:ping'/></iq>`)
		for {
			reply := fixture.next()
			n, err := decodeStanza([]byte(reply))
			if err != nil || n.to.bare != juliet {
				t.Fatalf("%q is answered with %q: %v", stanza, reply, err)
			}
			if n.id == "barrier" {
				return
			}
		}
	})
}
