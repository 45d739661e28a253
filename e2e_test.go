package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestE2E runs everything against real servers, with clients that are logged in.
func TestE2E(t *testing.T) {
	for _, name := range []string{"prosody", "ejabberd"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, name)
			t.Run("article", func(t *testing.T) { testArticle(t, s) })
			t.Run("presence", func(t *testing.T) { testPresence(t, s) })
			t.Run("slixmpp", func(t *testing.T) { testSlixmpp(t, s) })
			t.Run("abuse", func(t *testing.T) { testAbuse(t, s) })
			t.Run("refused", func(t *testing.T) { testRefused(t, s) })
			t.Run("killed", func(t *testing.T) { testKilled(t, s) })
			t.Run("server gone", func(t *testing.T) { testServerGone(t, s) })
			t.Run("server frozen", func(t *testing.T) { testServerFrozen(t, s) })
		})
	}
}

func jidPath(bare string) string {
	return "/status/" + base64.StdEncoding.EncodeToString([]byte(bare))
}

var statePattern = regexp.MustCompile(`<html[^>]* data-state="([a-z]+)"`)

// wantStatus waits until page and JSON of a bare JID show a state, message and JID ("" for none).
func (a *appliance) wantStatus(t *testing.T, bare string, state State, message, jid string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s is %s %q %q", bare, state, message, jid), func() bool {
		code, page := a.get(t, jidPath(bare))
		_, data := a.get(t, jidPath(bare)+".json")
		var got statusJSON
		if code != http.StatusOK || json.Unmarshal([]byte(data), &got) != nil {
			return false
		}
		shown := statePattern.FindStringSubmatch(page)
		return got.State == state && got.Message == message && got.JID == jid && len(shown) == 2 && shown[1] == string(state) &&
			strings.Contains(page, message) && (jid != "" || !strings.Contains(page, bare))
	})
}

func (a *appliance) wantCode(t *testing.T, path string, code int) {
	t.Helper()
	if got, _ := a.get(t, path); got != code {
		t.Errorf("%s: %d, want %d", path, got, code)
	}
}

// testArticle is the exchange of the article that the system was described in.
func testArticle(t *testing.T, s *server) {
	a := newAppliance(t, s.componentAddress())
	c := s.login(t, "user1", "p1t1")
	c.send(t, `<presence/>`)
	path := jidPath(c.bare)

	items := c.iq(t, "get", "localhost", `<query xmlns='http://jabber.org/protocol/disco#items'/>`)
	if !strings.Contains(items, testDomain) {
		t.Errorf("the server does not list the component: %s", items)
	}
	info := c.iq(t, "get", testDomain, `<query xmlns='http://jabber.org/protocol/disco#info'/>`)
	for _, want := range []string{"category='component'", "type='presence'", "name='web presence'", "jabber:iq:register",
		"http://jabber.org/protocol/disco#info", "http://jabber.org/protocol/disco#items", "urn:xmpp:ping"} {
		if !strings.Contains(info, want) {
			t.Errorf("no %s in %s", want, info)
		}
	}

	a.wantCode(t, path, 404)
	form := c.iq(t, "get", testDomain, `<query xmlns='jabber:iq:register'/>`)
	for _, want := range []string{"Use the enclosed form to register", "Once registered, your web status URL will be: " + a.url + path,
		"FORM_TYPE", "label='Show status msg'", "label='Show full JID'", "<value>0</value>"} {
		if !strings.Contains(form, want) {
			t.Errorf("no %s in %s", want, form)
		}
	}
	if strings.Contains(form, "registered/>") {
		t.Errorf("registered already: %s", form)
	}
	c.join(t, "show_status_msg=1", "show_full_jid=0")
	a.wantStatus(t, c.bare, Available, "", "")

	form = c.iq(t, "get", testDomain, `<query xmlns='jabber:iq:register'/>`)
	token := regexp.MustCompile(`/status/[a-z2-7]{26}`).FindString(form)
	if !strings.Contains(form, "<registered") || token == "" {
		t.Errorf("not registered, or no address: %s", form)
	}
	a.wantCode(t, token, 200)
	a.wantCode(t, path, 200)

	c.forget()
	c.iq(t, "set", testDomain, `<query xmlns='jabber:iq:register'><remove/></query>`)
	a.wantCode(t, path, 404)
	a.wantCode(t, token, 404)
	for _, typ := range []string{"unsubscribe", "unsubscribed", "unavailable"} {
		c.wait(t, "<presence", testDomain, "type='"+typ+"'")
	}
}

// testPresence follows a person through a day.
func testPresence(t *testing.T, s *server) {
	a := newAppliance(t, s.componentAddress())
	c := s.login(t, "user2", "desk")
	c.send(t, `<presence/>`)
	c.join(t, "show_status_msg=1", "show_full_jid=1")
	a.wantStatus(t, c.bare, Available, "", c.bare)
	c.send(t, `<presence><show>away</show><status>lunch &lt;b&gt;</status></presence>`)
	eventuallyJSON(t, a, c.bare, Away, "lunch <b>")
	c.submit(t, "show_full_jid=0") // leaves the message as it is
	a.wantCode(t, jidPath(c.bare), 200)
	eventuallyJSON(t, a, c.bare, Away, "lunch <b>")
	if _, page := a.get(t, jidPath(c.bare)); strings.Contains(page, c.bare) {
		t.Error("the JID is shown after it was switched off")
	}
	c.submit(t, "show_status_msg=false")
	a.wantStatus(t, c.bare, Away, "", "")
	c.send(t, `<presence><show>dnd</show></presence>`)
	a.wantStatus(t, c.bare, DoNotDisturb, "", "")
	phone := s.login(t, "user2", "phone")
	phone.send(t, `<presence><show>chat</show><priority>10</priority></presence>`)
	a.wantStatus(t, c.bare, Chat, "", "")
	phone.send(t, `<presence type='unavailable'/>`)
	a.wantStatus(t, c.bare, DoNotDisturb, "", "")
	phone.send(t, `<presence><show>xa</show><priority>10</priority></presence>`)
	a.wantStatus(t, c.bare, ExtendedAway, "", "")
	phone.cut()
	a.wantStatus(t, c.bare, DoNotDisturb, "", "")
	c.logout(t)
	a.wantStatus(t, c.bare, Unavailable, "", "")

	c = s.login(t, "user2", "desk")
	c.send(t, `<presence/>`)
	a.wantStatus(t, c.bare, Available, "", "")
	c.submit(t, "jid_link=0")
	a.wantCode(t, jidPath(c.bare), 404)
	c.submit(t, "jid_link=1")
	c.send(t, `<presence to='%s' type='unsubscribed'/>`, testDomain)
	a.wantStatus(t, c.bare, Unknown, "", "")
	c.forget()
	c.join(t)
	a.wantStatus(t, c.bare, Available, "", "")
}

func eventuallyJSON(t *testing.T, a *appliance, bare string, state State, message string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s is %s %q", bare, state, message), func() bool {
		var got statusJSON
		_, data := a.get(t, jidPath(bare)+".json")
		return json.Unmarshal([]byte(data), &got) == nil && got.State == state && got.Message == message
	})
}

// testSlixmpp has a client that nobody here wrote discover us, register, chat, run commands and leave.
func testSlixmpp(t *testing.T, s *server) {
	const python = "/usr/bin/python3" // Debian's, which has Debian's packages
	if err := exec.Command(python, "-c", "import slixmpp").Run(); err != nil {
		if os.Getenv("WEBSTATUS_E2E") == "require" {
			t.Fatal("python3-slixmpp is missing, and WEBSTATUS_E2E=require")
		}
		t.Skip("python3-slixmpp is missing")
	}
	newAppliance(t, s.componentAddress(), "WEBSTATUS_ADMIN=user4@localhost")
	s.login(t, "user4", "cleanup").dropContact(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "testdata/e2e/client.py", "127.0.0.1", strconv.Itoa(s.c2s), "user4@localhost/slixmpp", "pass-user4", testDomain)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "done\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

// testAbuse sends what has ended other components.
func testAbuse(t *testing.T, s *server) {
	a := newAppliance(t, s.componentAddress())
	c := s.login(t, "user3", "desk")
	c.send(t, `<presence/>`)
	c.join(t, "show_status_msg=1")
	a.wantStatus(t, c.bare, Available, "", "")
	stranger := s.login(t, "stranger", "x")
	for _, stanza := range []string{
		`<presence to='%s'><priority>999</priority></presence>`,
		`<message to='%s'><y xmlns='jabber:component:accept'><presence/></y></message>`,
		`<presence to='%s'><y xmlns='jabber:component:accept'><presence/></y></presence>`,
		`<iq type='get' id='rsm' to='%s'><query xmlns='http://jabber.org/protocol/disco#items'><set xmlns='http://jabber.org/protocol/rsm'><max>abc</max></set></query></iq>`,
		`<presence to='%s'><x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='abc'/></x></presence>`,
		`<presence to='%s'><priority>abc</priority></presence>`,
		`<presence to='%s'><show>gone fishing</show></presence>`,
		`<presence to='%s'><show/></presence>`,
	} {
		stranger.send(t, stanza, testDomain)
		c.send(t, stanza, testDomain)
	}
	c.send(t, `<presence><show>away</show><status>%s</status></presence>`, strings.Repeat("a", 200<<10))
	if s.nested {
		c.send(t, `<message to='%s'>%s%s</message>`, testDomain, strings.Repeat("<a>", 20000), strings.Repeat("</a>", 20000))
		stranger.send(t, `<presence to='%s'><status>%s</status></presence>`, testDomain, strings.Repeat("a", 1<<20))
	}
	for i := range 10000 {
		switch i % 3 {
		case 0:
			stranger.send(t, `<presence to='%s'><show>dnd</show></presence>`, testDomain)
		case 1:
			stranger.send(t, `<message to='%s'><body>hello</body></message>`, testDomain)
		case 2:
			stranger.send(t, `<iq type='get' id='n%d' to='%s'><query xmlns='x:unknown'/></iq>`, i, testDomain)
		}
	}
	stranger.wait(t, "n9998", "resource-constraint")
	if answer := c.iq(t, "get", testDomain, `<ping xmlns='urn:xmpp:ping'/>`); !strings.Contains(answer, "type='result'") {
		t.Errorf("ping: %s", answer)
	}
	c.send(t, `<presence><show>dnd</show><status>still here</status></presence>`)
	a.wantStatus(t, c.bare, DoNotDisturb, "still here", "")
	if a.countLog("linked to the XMPP server") != 1 || a.countLog("no link") != 0 {
		t.Errorf("the link did not last:\n%s", a.out)
	}
	if answer := stranger.iq(t, "get", testDomain, `<query xmlns='jabber:iq:register'/>`); strings.Contains(answer, "<registered") {
		t.Errorf("a stranger is registered: %s", answer)
	}
}

// testRefused looks at what an operator is told whose configuration is wrong.
func testRefused(t *testing.T, s *server) {
	unknown := "knows no component"
	if s.name == "ejabberd" {
		unknown = "refuses the secret for nobody.localhost" // all that it says
	}
	a := newAppliance(t, s.componentAddress())
	tests := []struct {
		name string
		env  []string
		want []string
	}{
		{"wrong secret", []string{"WEBSTATUS_SECRET=wrong"}, []string{"refuses the secret for " + testDomain, "that the secret is the one"}},
		{"unknown host", []string{"WEBSTATUS_DOMAIN=nobody.localhost"}, []string{unknown}},
		{"refused", []string{"WEBSTATUS_SERVER=127.0.0.1:1"}, []string{"connection refused", "that the XMPP server runs"}},
		{"conflict", nil, []string{"another connection holds the place", "second webstatus"}},
	}
	for _, tt := range tests {
		if tt.name == "conflict" && s.name == "ejabberd" {
			continue // allows it
		}
		b := &appliance{env: append(append([]string{}, a.env...), append([]string{"WEBSTATUS_LISTEN=127.0.0.1:0",
			"WEBSTATUS_DB=" + t.TempDir() + "/webstatus.db"}, tt.env...)...)}
		b.process = start(t, b.command("serve"))
		b.waitLog(t, append(tt.want, "level=WARN")...)
		b.end(syscall.SIGTERM)
		if code := b.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("%s: exit status %d after SIGTERM", tt.name, code)
		}
		if strings.Contains(b.out.String(), testSecret) {
			t.Errorf("%s: the log has the secret", tt.name)
		}
		if tt.name == "conflict" {
			continue // check takes that for a sign that the secret is right
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
	<-second.done
	if code := second.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(second.out.String(), "in use by another") {
		t.Errorf("a second serve: exit status %d\n%s", code, second.out)
	}
}

// testKilled kills webstatus right after what it has confirmed.
func testKilled(t *testing.T, s *server) {
	a := newAppliance(t, s.componentAddress())
	stays, leaves, revokes := s.login(t, "user1", "a"), s.login(t, "user2", "a"), s.login(t, "user3", "a")
	for _, c := range []*client{stays, leaves, revokes} {
		c.send(t, `<presence/>`)
		c.dropContact(t)
		c.submit(t, "show_status_msg=1")
		a.end(syscall.SIGKILL)
		a.start(t)
		a.wantCode(t, jidPath(c.bare), 200)
		c.accept(t)
		a.wantStatus(t, c.bare, Available, "", "")
	}
	a.end(syscall.SIGKILL)
	stays.send(t, `<presence><show>away</show><status>meanwhile</status></presence>`)
	leaves.logout(t)
	revokes.send(t, `<presence to='%s' type='unsubscribed'/>`, testDomain)
	a.start(t)
	a.wantStatus(t, stays.bare, Away, "meanwhile", "")
	a.wantStatus(t, leaves.bare, Unavailable, "", "")
	a.wantStatus(t, revokes.bare, Unavailable, "", "") // silence cannot be told apart from being offline

	if out, err := a.command("users", "list").CombinedOutput(); err != nil || strings.Count(string(out), "@localhost") != 3 {
		t.Errorf("users list: %v\n%s", err, out)
	}
	stays.forget()
	if out, err := a.command("users", "remove", stays.bare).CombinedOutput(); err != nil {
		t.Errorf("users remove: %v\n%s", err, out)
	}
	for _, typ := range []string{"unsubscribe", "unsubscribed", "unavailable"} {
		stays.wait(t, "<presence", testDomain, "type='"+typ+"'")
	}
	a.wantCode(t, jidPath(stays.bare), 404)
}

// testServerGone ends the XMPP server, in order and not.
func testServerGone(t *testing.T, s *server) {
	a := newAppliance(t, s.componentAddress())
	c, other := s.login(t, "user4", "a"), s.login(t, "user1", "a")
	for _, c := range []*client{c, other} {
		c.send(t, `<presence/>`)
		c.join(t)
		a.wantStatus(t, c.bare, Available, "", "")
	}
	for i, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		lost := a.countLog("no link")
		s.process.end(signal)
		a.waitLogs(t, lost+1, "no link")
		if _, data := a.get(t, jidPath(c.bare)+".json"); !strings.Contains(data, `"as_of"`) {
			t.Errorf("nothing says since when the link is down: %s", data)
		}
		s.start(t)
		a.waitLogs(t, i+2, "linked to the XMPP server")
		c = s.login(t, "user4", "a")
		c.send(t, `<presence><show>away</show></presence>`)
		a.wantStatus(t, c.bare, Away, "", "")
		a.wantStatus(t, other.bare, Unavailable, "", "") // has not come back
	}
}

// testServerFrozen stops the XMPP server from doing anything, and cuts the connection to it.
func testServerFrozen(t *testing.T, s *server) {
	cable := newCable(t, s.componentAddress())
	a := newAppliance(t, cable.address())
	c := s.login(t, "user2", "a")
	c.send(t, `<presence/>`)
	c.join(t)
	a.wantStatus(t, c.bare, Available, "", "")

	linked := a.countLog("linked to the XMPP server")
	cable.cut()
	a.waitLogs(t, linked+1, "linked to the XMPP server")
	c.send(t, `<presence><show>xa</show></presence>`)
	a.wantStatus(t, c.bare, ExtendedAway, "", "")

	s.process.signal(syscall.SIGSTOP)
	a.waitLog(t, "no link", "has been silent")
	s.process.signal(syscall.SIGCONT)
	a.waitLogs(t, linked+2, "linked to the XMPP server")
	c.send(t, `<presence><show>dnd</show></presence>`)
	a.wantStatus(t, c.bare, DoNotDisturb, "", "")
}

// TestE2EConnections has several connections to one ejabberd, which gives each stanza to any of them.
func TestE2EConnections(t *testing.T) {
	t.Parallel()
	s := newServer(t, "ejabberd")
	a := newAppliance(t, s.componentAddress(), "WEBSTATUS_CONNECTIONS=3")
	a.waitLogs(t, 3, "linked to the XMPP server")
	for i, user := range accounts {
		c := s.login(t, user, "a")
		c.send(t, `<presence/>`)
		c.join(t)
		a.wantStatus(t, c.bare, Available, "", "")
		c.send(t, `<presence><priority>%d</priority><show>away</show></presence>`, i)
		a.wantStatus(t, c.bare, Away, "", "")
	}
}

// TestE2EBrowser looks at pages with a browser while people come and go.
func TestE2EBrowser(t *testing.T) {
	t.Parallel()
	s := newServer(t, "prosody")
	a := newAppliance(t, s.componentAddress())
	c := s.login(t, "user1", "desk")
	c.send(t, `<presence/>`)
	c.join(t, "show_status_msg=1", "show_full_jid=1")
	a.wantStatus(t, c.bare, Available, "", c.bare)

	page := a.url + jidPath(c.bare)
	embedding := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, `<!DOCTYPE html><iframe src="%s" width="200" height="60"></iframe>`, page)
	}))
	t.Cleanup(embedding.Close)
	browser := newBrowser(t)
	alone, framed := newTab(t, browser, page), newTab(t, browser, embedding.URL)
	alone.wants(t, `document.documentElement.dataset.state`, "available")

	c.send(t, `<presence><show>dnd</show><status>in a &lt;i>meeting&lt;/i></status></presence>`)
	const message = "in a <i>meeting</i>"
	alone.wants(t, `document.documentElement.dataset.state`, "dnd")
	alone.wants(t, `document.getElementById("message").innerText`, message)
	alone.wants(t, `document.title`, "Do not disturb – "+message)
	alone.wants(t, `document.querySelector("#jid a").href`, "xmpp:"+c.bare)
	framed.wantsFramed(t, "#message", message)

	c.submit(t, "show_status_msg=0", "show_full_jid=0")
	alone.wants(t, `document.body.innerText.trim().split(" ")[0]`, "Do")
	alone.wants(t, `document.documentElement.outerHTML.includes("`+c.bare+`") || document.body.innerText.includes("meeting") ? "shown" : "hidden"`, "hidden")
	a.end(syscall.SIGKILL)
	c.send(t, `<presence><show>away</show></presence>`)
	a.start(t)
	alone.wants(t, `document.documentElement.dataset.state`, "away") // the page has come back by itself
	c.iq(t, "set", testDomain, `<query xmlns='jabber:iq:register'><remove/></query>`)
	alone.wants(t, `document.title`, "Not found")
}

// newBrowser starts a browser until the test ends.
func newBrowser(t *testing.T) context.Context {
	t.Helper()
	options := []chromedp.ExecAllocatorOption{chromedp.ExecPath(need(t, "chromium")), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.UserDataDir(t.TempDir())}
	for _, flag := range []string{"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage"} {
		options = append(options, chromedp.Flag(flag, true))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, _ = chromedp.NewContext(ctx) // ended by Cancel, which waits for it
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Log(err)
		}
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx
}

// A tab is a page in a browser.
type tab struct{ context.Context }

func newTab(t *testing.T, browser context.Context, url string) tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
		t.Fatal(err)
	}
	return tab{ctx}
}

// wants waits until a JavaScript expression has a value.
func (tab tab) wants(t *testing.T, expression, want string) {
	t.Helper()
	eventually(t, expression+" is "+want, func() bool {
		got, err := chromedp.Run(tab, chromedp.Evaluate[string](expression))
		return err == nil && got == want // an error while the page loads anew
	})
}

// wantsFramed waits until an element in the first iframe has a text.
func (tab tab) wantsFramed(t *testing.T, selector, want string) {
	t.Helper()
	eventually(t, selector+" is "+want, func() bool {
		frames, err := chromedp.Run(tab, chromedp.Nodes("iframe"))
		if err != nil || len(frames) == 0 {
			return false
		}
		got, err := chromedp.Run(tab, chromedp.Text(selector, chromedp.FromNode(frames[0])))
		return err == nil && got == want
	})
}
