package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestE2E runs the tests against real servers with logged-in clients.
func TestE2E(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"prosody", "ejabberd", "prosody@trixie", "ejabberd@trixie"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, name)
			t.Log(s.root.versions(s.name))
			for i, service := range []string{testDomain, "bot@" + testDomain} {
				t.Run("article at "+service, func(t *testing.T) { testArticle(t, s, service) })
				t.Run("presence at "+service, func(t *testing.T) { testPresence(t, s, service) })
				t.Run("xmpp.js at "+service, func(t *testing.T) { testXMPPJS(t, s, service) })
				t.Run("profanity at "+service, func(t *testing.T) { testProfanity(t, s, service) })
				t.Run("slixmpp at "+service, func(t *testing.T) { testSlixmpp(t, s, []string{"user4", "user3"}[i], service) })
			}
			t.Run("last seen", func(t *testing.T) { testLastSeen(t, s) })
			t.Run("rich presence", func(t *testing.T) { testRichPresence(t, s) })
			t.Run("abuse", func(t *testing.T) { testAbuse(t, s) })
			t.Run("refused", func(t *testing.T) { testRefused(t, s) })
			t.Run("killed", func(t *testing.T) { testKilled(t, s) })
			t.Run("link cut", func(t *testing.T) { testLinkCut(t, s) })
			t.Run("server gone", func(t *testing.T) { testServerGone(t, s) })
			// These tests wait for long timeouts, each with its own server.
			t.Run("server frozen", func(t *testing.T) { t.Parallel(); testServerFrozen(t, newServer(t, name)) })
			t.Run("link dead", func(t *testing.T) { t.Parallel(); testLinkDead(t, newServer(t, name)) })
		})
	}
}

// TestE2EJabberd2 runs the tests that need only registration and presence against jabberd2.
func TestE2EJabberd2(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"jabberd2", "jabberd2@trixie"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, name)
			t.Log(s.root.versions(s.name))
			for _, service := range []string{testDomain, "bot@" + testDomain} {
				t.Run("article at "+service, func(t *testing.T) { testArticle(t, s, service) })
				t.Run("presence at "+service, func(t *testing.T) { testPresence(t, s, service) })
			}
			t.Run("last seen", func(t *testing.T) { testLastSeen(t, s) })
			t.Run("killed", func(t *testing.T) { testKilled(t, s) })
			t.Run("link cut", func(t *testing.T) { testLinkCut(t, s) })
			t.Run("server gone", func(t *testing.T) { testServerGone(t, s) })
		})
	}
}

const (
	linked = "linked to the XMPP server" // log message
	noLink = "no link to the XMPP server"
)

func jidPath(bare string) string {
	return "/status/" + base64.StdEncoding.EncodeToString([]byte(bare))
}

// A shown is the visible status of a user; message and jid are empty if they are hidden.
type shown struct{ state, message, jid string }

var (
	statePattern   = regexp.MustCompile(`<html[^>]* data-state="([a-z]+)"`)
	addressPattern = regexp.MustCompile(`\S+/status/\S+`)
)

// look returns the status at a path, and an error unless the page and the JSON are valid and agree.
func (a *appliance) look(t testing.TB, path string) (shown, error) {
	t.Helper()
	code, page := a.get(t, path)
	jsonCode, data := a.get(t, path+".json")
	state := statePattern.FindStringSubmatch(page)
	if code != http.StatusOK || jsonCode != http.StatusOK || state == nil {
		return shown{}, fmt.Errorf("page %d, JSON %d, %q", code, jsonCode, state)
	}
	var keys map[string]any
	if err := json.Unmarshal([]byte(data), &keys); err != nil {
		return shown{}, fmt.Errorf("%w: %s", err, data)
	}
	if keys["version"] != 1.0 {
		return shown{}, fmt.Errorf("version is not 1: %s", data)
	}
	delete(keys, "version")
	delete(keys, "resources") // the only one that is not a string
	text := make(map[string]string)
	for key, value := range keys {
		if text[key], _ = value.(string); text[key] == "" {
			return shown{}, fmt.Errorf("%s is not a string: %s", key, data)
		}
	}
	if since, ok := text["since"]; ok {
		if at, err := time.Parse(time.RFC3339, since); err != nil || at.Location() != time.UTC {
			return shown{}, fmt.Errorf("since is not a time in UTC: %s", data)
		}
	}
	got := shown{text["state"], text["message"], text["jid"]}
	switch {
	case got.state != state[1]:
		return got, fmt.Errorf("the page shows %q", state[1])
	case text["as_of"] != "":
		return got, fmt.Errorf("the link is down: %s", data)
	case text["label"] == "":
		return got, fmt.Errorf("no label: %s", data)
	}
	for _, value := range []string{text["label"], got.message, got.jid} {
		if !strings.Contains(page, html.EscapeString(value)) {
			return got, fmt.Errorf("the page does not show %q", value)
		}
	}
	return got, nil
}

// want waits until the page and the JSON of a bare JID show a status.
func (a *appliance) want(t testing.TB, bare string, want shown) {
	t.Helper()
	a.wantAny(t, bare, want)
}

// wantAny is like want with several acceptable statuses.
func (a *appliance) wantAny(t testing.TB, bare string, wants ...shown) {
	t.Helper()
	var got shown
	var err error
	settled := false
	defer func() {
		if !settled {
			t.Logf("last seen: %+v, %v", got, err)
		}
	}()
	eventually(t, fmt.Sprintf("%s is %+v", bare, wants), func() bool {
		got, err = a.look(t, jidPath(bare))
		return err == nil && slices.Contains(wants, got)
	})
	settled = true
}

func (a *appliance) wantCode(t testing.TB, path string, code int) {
	t.Helper()
	if got, _ := a.get(t, path); got != code {
		t.Errorf("%s: %d, want %d", path, got, code)
	}
}

// testArticle runs the exchange in the article that describes the system.
func testArticle(t *testing.T, s *server, service string) {
	a := newAppliance(t, s.componentAddress())
	c := s.login(t, "user1", "p1t1")
	c.service = service
	c.send(t, `<presence/>`)
	path := jidPath(c.bare)

	items := c.request(t, "get", "localhost", `<query xmlns='http://jabber.org/protocol/disco#items'/>`)
	if !slices.Contains(items.find("query").values("item", "jid"), testDomain) {
		t.Errorf("the server does not list the component: %s", items)
	}
	info := c.request(t, "get", service, `<query xmlns='http://jabber.org/protocol/disco#info'/>`).find("query")
	identity := info.find("identity")
	if identity.attr("category") != "component" || identity.attr("type") != "presence" || identity.attr("name") != "web presence" {
		t.Errorf("wrong identity: %s", info)
	}
	for _, want := range []string{"jabber:iq:register", "http://jabber.org/protocol/disco#info", "http://jabber.org/protocol/disco#items", "urn:xmpp:ping"} {
		if !slices.Contains(info.values("feature", "var"), want) {
			t.Errorf("no feature %s: %s", want, info)
		}
	}

	a.wantCode(t, path, http.StatusNotFound)
	query := c.request(t, "get", service, `<query xmlns='jabber:iq:register'/>`).find("query")
	if query.has("registered") || query.find("instructions").Text != "Use the enclosed form to register" || query.find("x").attr("type") != "form" ||
		!strings.Contains(query.find("x").find("instructions").Text, "Once registered, your web status URL will be: "+a.url+path) {
		t.Errorf("the form before registration: %s", query)
	}
	wantValues := func(want map[string]string) {
		t.Helper()
		form := query.find("x")
		for name, value := range want {
			if i := slices.Index(form.values("field", "var"), name); i < 0 || form.nth("field", i).find("value").Text != value {
				t.Errorf("no %s with the value %q: %s", name, value, query)
			}
		}
	}
	wantValues(map[string]string{"FORM_TYPE": "jabber:iq:register", "show_status_msg": "0", "show_full_jid": "0", "jid_link": "1"})

	c.join(t, "show_status_msg=1", "show_full_jid=0")
	a.want(t, c.bare, shown{state: "available"})
	query = c.request(t, "get", service, `<query xmlns='jabber:iq:register'/>`).find("query")
	token, ok := strings.CutPrefix(addressPattern.FindString(query.find("x").find("instructions").Text), a.url)
	if !query.has("registered") || !ok || token == path {
		t.Fatalf("the form after registration: %s", query)
	}
	wantValues(map[string]string{"FORM_TYPE": "jabber:iq:register", "show_status_msg": "1", "show_full_jid": "0", "jid_link": "1"})
	for _, address := range []string{token, path} {
		if got, err := a.look(t, address); err != nil || got.state != "available" {
			t.Errorf("%s: %+v, %v", address, got, err)
		}
	}

	c.forget()
	c.request(t, "set", service, `<query xmlns='jabber:iq:register'><remove/></query>`)
	a.wantCode(t, path, http.StatusNotFound)
	a.wantCode(t, token, http.StatusNotFound)
	c.waitPresence(t, "unsubscribe", "unsubscribed", "unavailable")
}

// testPresence follows a user's presence changes over a day.
func testPresence(t *testing.T, s *server, service string) {
	a := newAppliance(t, s.componentAddress())
	c := s.login(t, "user2", "desk")
	c.service = service
	c.send(t, `<presence/>`)
	c.join(t)
	a.want(t, c.bare, shown{state: "available"})
	c.send(t, `<presence><show>away</show><status>lunch &lt;b></status></presence>`)
	a.want(t, c.bare, shown{state: "away"})
	wantHidden := func(words ...string) {
		t.Helper()
		for _, path := range []string{jidPath(c.bare), jidPath(c.bare) + ".json"} {
			_, body := a.get(t, path)
			for _, w := range words {
				if strings.Contains(body, w) {
					t.Errorf("%s shows %q without the option", path, w)
				}
			}
		}
	}
	wantHidden("lunch", c.bare)
	c.submit(t, "show_status_msg=1", "show_full_jid=true")
	a.want(t, c.bare, shown{"away", "lunch <b>", c.bare})
	c.submit(t, "show_full_jid=0") // does not change the message
	a.want(t, c.bare, shown{"away", "lunch <b>", ""})
	wantHidden(c.bare)
	c.submit(t, "show_status_msg=false")
	a.want(t, c.bare, shown{state: "away"})
	wantHidden("lunch", c.bare)

	c.send(t, `<presence><show>dnd</show></presence>`)
	a.want(t, c.bare, shown{state: "dnd"})
	phone := s.login(t, "user2", "phone")
	phone.service = service
	phone.send(t, `<presence><show>chat</show><priority>10</priority></presence>`)
	a.want(t, c.bare, shown{state: "chat"})
	phone.send(t, `<presence type='unavailable'/>`)
	a.want(t, c.bare, shown{state: "dnd"})
	phone.send(t, `<presence><show>xa</show><priority>10</priority></presence>`)
	a.want(t, c.bare, shown{state: "xa"})
	phone.cut()
	a.want(t, c.bare, shown{state: "dnd"})
	c.logout(t)
	a.want(t, c.bare, shown{state: "unavailable"})

	c = s.login(t, "user2", "desk")
	c.service = service
	c.send(t, `<presence/>`)
	a.want(t, c.bare, shown{state: "available"})
	c.submit(t, "jid_link=0")
	a.wantCode(t, jidPath(c.bare), http.StatusNotFound)
	c.submit(t, "jid_link=1")
	c.revoke(t)
	a.want(t, c.bare, shown{state: "unknown"})
	c.forget()
	c.join(t)
	a.want(t, c.bare, shown{state: "available"})
	c.cut()
	a.want(t, c.bare, shown{state: "unavailable"})
}

// python is Debian's Python, which finds Debian's packages.
const python = "/usr/bin/python3"

// testSlixmpp discovers the component, registers, chats, runs commands and unregisters with slixmpp, as a user who has published nothing
// yet.
func testSlixmpp(t *testing.T, s *server, user, service string) {
	if err := exec.Command(python, "-c", "import slixmpp").Run(); err != nil {
		missing(t, "python3-slixmpp is missing")
	}
	newAppliance(t, s.componentAddress(), "WEBSTATUS_ADMIN="+user+"@localhost",
		"WEBSTATUS_CONTACT=mailto:admin@example.org,abuse=mailto:abuse@example.org,abuse=https://example.org/?abuse=1,security=mailto:security@example.org")
	s.login(t, user, "cleanup").dropContact(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "testdata/e2e/client.py", "127.0.0.1", strconv.Itoa(s.c2s), user+"@localhost/slixmpp", "pass-"+user, service)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "done\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

// testLastSeen checks that the server is queried for the time of a logout while webstatus was down.
func testLastSeen(t *testing.T, s *server) {
	a := newAppliance(t, s.componentAddress())
	c := s.login(t, "user1", "seen")
	c.dropContact(t)
	c.send(t, `<presence/>`)
	c.join(t, "show_last_seen=1")
	a.want(t, c.bare, shown{state: "available"})
	a.end(t, syscall.SIGKILL)
	c.send(t, `<presence type='unavailable'/></stream:stream>`)
	a.start(t)
	eventually(t, "the server says when", func() bool {
		_, data := a.get(t, jidPath(c.bare)+".json")
		return strings.Contains(data, `"state":"unavailable"`) && strings.Contains(data, `"last_seen":"`)
	})
	s.login(t, "user1", "cleanup").dropContact(t)
}

// testAbuse sends input that has crashed other components.
func testAbuse(t *testing.T, s *server) {
	a := newAppliance(t, s.componentAddress())
	c := s.login(t, "user3", "desk")
	c.send(t, `<presence/>`)
	c.join(t, "show_status_msg=1")
	a.want(t, c.bare, shown{state: "available"})
	strangers := []*client{s.login(t, "stranger", "x"), s.login(t, "user4", "y")}
	everybody := append([]*client{c}, strangers...)
	for _, stanza := range []string{
		`<presence to='%s'><priority>999</priority></presence>`,
		`<message to='%s'><y xmlns='jabber:component:accept'><presence/></y></message>`,
		`<presence to='%s'><y xmlns='jabber:component:accept'><presence/></y></presence>`,
		`<iq type='get' id='rsm' to='%s'><query xmlns='http://jabber.org/protocol/disco#items'><set xmlns='http://jabber.org/protocol/rsm'><max>abc</max></set></query></iq>`,
		`<presence to='%s'><x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='abc'/></x></presence>`,
		`<presence to='%s'><priority>abc</priority></presence>`,
		`<presence to='%s'><show>gone fishing</show></presence>`,
		`<presence to='%s'><show/></presence>`,
		`<presence to='%s'><status>` + strings.Repeat("a", 200<<10) + `</status></presence>`,
	} {
		for _, who := range everybody {
			who.send(t, stanza, testDomain)
		}
	}
	if s.large {
		for _, who := range everybody {
			who.send(t, `<message to='%s'>%s%s</message>`, testDomain, strings.Repeat("<a>", 20000), strings.Repeat("</a>", 20000))
			who.send(t, `<presence to='%s'><status>%s</status></presence>`, testDomain, strings.Repeat("a", 1<<20))
		}
	}
	contents := []string{`<priority>999</priority>`}
	if s.name == "prosody" { // ejabberd does not forward the others
		contents = append(contents, `<priority>abc</priority>`, `<show>gone fishing</show>`)
	}
	for _, content := range contents {
		c.send(t, `<presence><show>xa</show></presence>`)
		a.want(t, c.bare, shown{state: "xa"})
		c.send(t, `<presence>%s</presence>`, content)
		a.want(t, c.bare, shown{state: "available"})
	}
	for i := range 10000 {
		who := strangers[i%len(strangers)]
		switch i % 3 {
		case 0:
			who.send(t, `<presence to='%s'><show>dnd</show></presence>`, testDomain)
		case 1:
			who.send(t, `<message to='%s'><body>hello</body></message>`, testDomain)
		case 2:
			who.send(t, `<iq type='get' id='flood' to='%s'><query xmlns='x:unknown'/></iq>`, testDomain)
		}
	}
	for _, who := range strangers {
		// Errors are expected because of the rate limit.
		who.answer(t, who.ask(t, "get", testDomain, `<ping xmlns='urn:xmpp:ping'/>`))
	}
	c.request(t, "get", testDomain, `<ping xmlns='urn:xmpp:ping'/>`) // other users are not limited
	c.send(t, `<presence><show>dnd</show><status>still here</status></presence>`)
	a.want(t, c.bare, shown{state: "dnd", message: "still here"})
	if a.countLog(linked) != 1 || a.countLog(noLink) != 0 {
		t.Errorf("the link was lost:\n%s", a.out)
	}
	for _, who := range strangers {
		a.wantCode(t, jidPath(who.bare), http.StatusNotFound)
		var form *node
		eventually(t, who.bare+" is heard again", func() bool {
			form = who.answer(t, who.ask(t, "get", testDomain, `<query xmlns='jabber:iq:register'/>`))
			return form.attr("type") == "result"
		})
		if form.has("registered") {
			t.Errorf("a stranger is registered: %s", form)
		}
	}
}

// testRefused checks the diagnosis of each configuration error.
func testRefused(t *testing.T, s *server) {
	unknown := "host-unknown: the server has no component"
	if s.name == "ejabberd" {
		unknown = "refuses the secret for nobody.localhost" // ejabberd gives no other reason
	}
	a := newAppliance(t, s.componentAddress())
	tests := []struct {
		name string
		env  []string
		want []string
	}{
		{"wrong secret", []string{"WEBSTATUS_SECRET=wrong"}, []string{"refuses the secret for " + testDomain, "that the secret is the one"}},
		{"unknown host", []string{"WEBSTATUS_DOMAIN=nobody.localhost"}, []string{unknown}},
		{"refused", []string{"WEBSTATUS_SERVER=127.0.0.1:1"}, []string{"connection refused", "that the XMPP server is running"}},
		{"conflict", nil, []string{"conflict: another connection is using", "second webstatus"}},
	}
	for _, tt := range tests {
		if tt.name == "conflict" && s.name == "ejabberd" {
			continue // not an error
		}
		b := &appliance{env: slices.Concat(a.env, []string{"WEBSTATUS_LISTEN=127.0.0.1:0",
			"WEBSTATUS_DB=" + filepath.Join(t.TempDir(), "webstatus.db")}, tt.env)}
		b.process = start(t, b.command("serve"))
		b.waitLog(t, append(tt.want, noLink, "level=WARN")...)
		b.signal(syscall.SIGTERM)
		if code := b.wait(t); code != 0 {
			t.Errorf("%s: exit status %d after SIGTERM", tt.name, code)
		}
		if strings.Contains(b.out.String(), testSecret) {
			t.Errorf("%s: the log contains the secret", tt.name)
		}
		if tt.name == "conflict" {
			continue // check accepts this as proof of the secret
		}
		out, err := b.command("check").CombinedOutput()
		if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 || !strings.Contains(string(out), tt.want[0]) {
			t.Errorf("%s: check: %v\n%s", tt.name, err, out)
		}
	}
	if out, err := a.command("check").CombinedOutput(); err != nil {
		t.Errorf("check: %v\n%s", err, out)
	}
	second := start(t, a.command("serve"))
	if code := second.wait(t); code != 1 || !strings.Contains(second.out.String(), "in use by another") {
		t.Errorf("a second serve: exit status %d\n%s", code, second.out)
	}
}

// A company is three users whose presence webstatus must recover after an interruption.
type company struct{ stays, leaves, revokes *client }

// gather registers a company.
func gather(t testing.TB, s *server, a *appliance) *company {
	t.Helper()
	p := &company{s.login(t, "user1", "stays"), s.login(t, "user2", "leaves"), s.login(t, "user3", "revokes")}
	for _, c := range []*client{p.stays, p.leaves, p.revokes} {
		c.send(t, `<presence/>`)
		c.join(t, "show_status_msg=1")
		a.want(t, c.bare, shown{state: "available"})
	}
	return p
}

// part changes their presence and subscriptions during the interruption.
func (p *company) part(t testing.TB) {
	t.Helper()
	p.stays.send(t, `<presence><show>away</show><status>meanwhile</status></presence>`)
	p.leaves.logout(t)
	p.revokes.revoke(t)
}

// wantParted waits until webstatus shows these changes, and then checks that it follows new ones.
func (p *company) wantParted(t testing.TB, a *appliance) {
	t.Helper()
	a.want(t, p.stays.bare, shown{state: "away", message: "meanwhile"})
	a.want(t, p.leaves.bare, shown{state: "unavailable"})
	// An unanswered probe can mean a revoked subscription or an offline user.
	a.wantAny(t, p.revokes.bare, shown{state: "unavailable"}, shown{state: "unknown"})
	p.stays.send(t, `<presence><show>dnd</show></presence>`)
	a.want(t, p.stays.bare, shown{state: "dnd"})
}

// meetAgain restores their presence and subscriptions.
func (p *company) meetAgain(t testing.TB, s *server, a *appliance) {
	t.Helper()
	p.leaves = s.login(t, "user2", "leaves")
	p.leaves.send(t, `<presence/>`)
	a.want(t, p.leaves.bare, shown{state: "available"})
	p.revokes.join(t)
	a.want(t, p.revokes.bare, shown{state: "available"})
}

// testKilled kills webstatus immediately after it confirmed changes.
func testKilled(t *testing.T, s *server) {
	a := newAppliance(t, s.componentAddress())
	p := &company{s.login(t, "user1", "stays"), s.login(t, "user2", "leaves"), s.login(t, "user3", "revokes")}
	for _, c := range []*client{p.stays, p.leaves, p.revokes} {
		c.send(t, `<presence/>`)
		c.dropContact(t)
		c.submit(t, "show_status_msg=1")
		a.end(t, syscall.SIGKILL)
		a.start(t)
		a.wantCode(t, jidPath(c.bare), http.StatusOK)
		c.accept(t)
		a.want(t, c.bare, shown{state: "available"})
	}
	a.end(t, syscall.SIGKILL)
	p.part(t)
	a.start(t)
	p.wantParted(t, a)
	p.meetAgain(t, s, a)

	if out, err := a.command("users", "list").CombinedOutput(); err != nil || strings.Count(string(out), "@localhost") != 3 {
		t.Errorf("users list: %v\n%s", err, out)
	}
	p.stays.forget()
	if out, err := a.command("users", "remove", p.stays.bare).CombinedOutput(); err != nil {
		t.Errorf("users remove: %v\n%s", err, out)
	}
	p.stays.waitPresence(t, "unsubscribe", "unsubscribed", "unavailable")
	a.wantCode(t, jidPath(p.stays.bare), http.StatusNotFound)

	// A confirmed removal persists as well.
	p.leaves.forget()
	p.leaves.request(t, "set", testDomain, `<query xmlns='jabber:iq:register'><remove/></query>`)
	a.end(t, syscall.SIGKILL)
	a.start(t)
	a.wantCode(t, jidPath(p.leaves.bare), http.StatusNotFound)
	p.leaves.waitPresence(t, "unsubscribe", "unsubscribed", "unavailable")
}

// testLinkCut breaks the connection to the XMPP server, first briefly and then for longer.
func testLinkCut(t *testing.T, s *server) {
	cable := newCable(t, s.componentAddress())
	a := newAppliance(t, cable.address())
	p := gather(t, s, a)
	cable.cut()
	a.waitLogs(t, 2, linked)
	p.stays.send(t, `<presence><show>xa</show></presence>`)
	a.want(t, p.stays.bare, shown{state: "xa"})

	cable.unplug()
	a.waitLogs(t, 2, noLink)
	p.part(t)
	if _, data := a.get(t, jidPath(p.leaves.bare)+".json"); !strings.Contains(data, `"as_of"`) {
		t.Errorf("the time of the link failure is missing: %s", data)
	}
	cable.plug()
	a.waitLogs(t, 3, linked)
	p.wantParted(t, a)
	p.meetAgain(t, s, a)
}

// testServerGone stops the XMPP server, cleanly and by a crash.
func testServerGone(t *testing.T, s *server) {
	a := newAppliance(t, s.componentAddress())
	p := gather(t, s, a)
	for i, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		lost := a.countLog(noLink)
		s.process.end(t, signal)
		a.waitLogs(t, lost+1, noLink)
		s.start(t)
		p.stays, p.leaves, p.revokes = s.login(t, "user1", "stays"), s.login(t, "user2", "leaves"), s.login(t, "user3", "revokes")
		p.revokes.send(t, `<presence/>`)
		p.part(t)
		a.waitLogs(t, i+2, linked)
		p.wantParted(t, a)
		p.meetAgain(t, s, a)
	}
}

// testServerFrozen suspends the XMPP server until webstatus closes the link.
func testServerFrozen(t *testing.T, s *server) {
	a := newAppliance(t, s.componentAddress())
	p := gather(t, s, a)
	s.process.freeze()
	a.waitLog(t, noLink, "no stanza from the server for")
	p.part(t) // processed when the server is resumed
	s.process.thaw()
	a.waitLogs(t, 2, linked)
	p.wantParted(t, a)
	p.meetAgain(t, s, a)
}

// testLinkDead lets the network drop everything, so that the server still considers the old connection open afterwards.
func testLinkDead(t *testing.T, s *server) {
	cable := newCable(t, s.componentAddress())
	a := newAppliance(t, cable.address())
	p := gather(t, s, a)
	cable.die()
	a.waitLog(t, noLink, "no stanza from the server for")
	p.part(t)
	if s.name == "prosody" { // ejabberd allows a second connection
		cable.plug()
		a.waitLog(t, noLink, "conflict: another connection is using")
	}
	cable.cut()
	a.waitLogs(t, 2, linked)
	p.wantParted(t, a)
	p.meetAgain(t, s, a)
}

// TestE2EConnections uses several connections to one ejabberd, which distributes stanzas randomly or by JID.
func TestE2EConnections(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"random":   "",
		"balanced": "domain_balancing: {" + testDomain + ": {type: bare_source, component_number: 2}}\n",
	}
	for name, balancing := range tests {
		for _, ejabberd := range []string{"ejabberd", "ejabberd@trixie"} {
			t.Run(name+" "+ejabberd, func(t *testing.T) {
				t.Parallel()
				testConnections(t, newServer(t, ejabberd, balancing), balancing != "")
			})
		}
	}
}

func testConnections(t *testing.T, s *server, balanced bool) {
	cable := newCable(t, s.componentAddress())
	a := newAppliance(t, cable.address(), "WEBSTATUS_CONNECTIONS=2")
	a.waitLogs(t, 2, linked)
	p := gather(t, s, a)
	for range 10 {
		p.stays.send(t, `<presence><show>dnd</show></presence>`)
		a.want(t, p.stays.bare, shown{state: "dnd"})
		p.stays.send(t, `<presence/>`)
		a.want(t, p.stays.bare, shown{state: "available"})
	}
	if balanced { // otherwise the order is not preserved
		for i := range 1000 {
			p.stays.send(t, `<presence><show>away</show><status>%d</status></presence>`, i)
		}
		a.want(t, p.stays.bare, shown{state: "away", message: "999"})
	}
	cable.unplug()
	a.waitLogs(t, 2, noLink)
	p.part(t)
	cable.plug()
	a.waitLogs(t, 4, linked)
	p.wantParted(t, a)
	p.meetAgain(t, s, a)
}
