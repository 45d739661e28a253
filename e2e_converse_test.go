package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

// conversePage logs in with Converse and shows its two dialogs for services. A plugin exposes the API, which only plugins get.
const conversePage = `<!DOCTYPE html><meta charset="utf-8"><title>Converse</title>
<script>
window.said = [];
for (const level of ["debug", "info", "log", "warn", "error"]) console[level] = (...args) => said.push(level + ": " + args.map(String).join(" "));
for (const type of ["error", "unhandledrejection"]) addEventListener(type, (e) => said.push(type + ": " + (e.message ?? e.reason)));
</script>
<link rel="stylesheet" href="/dist/converse.min.css">
<main id="tools"></main><div id="conversejs"></div>
<script type="module" src="/dist/converse.min.js"></script>
<script type="module">
converse.plugins.add("test", {
	initialize() {
		window.inner = this._converse;
		inner.api.listen.on("rosterContactsFetched", () => window.ready = "ready");
	},
});
converse.initialize({
	whitelisted_plugins: ["test"], authentication: "login", auto_login: true, jid: "%[3]s@localhost/converse", password: "pass-%[3]s",
	websocket_url: "ws://127.0.0.1:%[1]d/xmpp-websocket", discover_connection_methods: false, allow_user_defined_connection_url: false,
	assets_path: "/dist/", i18n: "en", loglevel: "debug", view_mode: "fullscreen", enable_smacks: false, persistent_store: "none", play_sounds: false,
});
window.text = (selector) => document.querySelector(selector)?.innerText ?? "";
window.find = (selector, text) => Array.from(document.querySelectorAll(selector)).find((e) => e.innerText.includes(text));
window.use = (tool) => document.querySelector("#tools").replaceChildren(document.createElement(tool));
window.iq = (type, payload) => inner.api.sendIQ(new DOMParser().parseFromString('<iq xmlns="jabber:client" type="' + type +
	'" to="%[2]s"><query xmlns="jabber:iq:register">' + payload + "</query></iq>", "text/xml").documentElement);
</script>`

// TestE2EConverse uses the service with Converse.js in a browser, at each of its addresses.
func TestE2EConverse(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"prosody", "prosody@trixie"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, name)
			browser := newBrowser(t)
			a := newAppliance(t, s.componentAddress())
			t.Run("domain", func(t *testing.T) { testConverseDomain(t, a, openConverse(t, s, browser, "user1", testDomain)) })
			t.Run("bot", func(t *testing.T) { testConverseBot(t, a, openConverse(t, s, browser, "user2", "bot@"+testDomain)) })
		})
	}
}

// A converse is Converse in a browser's tab.
type converse struct {
	tab
	bare, service string // JIDs of the user and of the service
}

// openConverse opens a tab with Converse, logged in as a user.
func openConverse(t *testing.T, s *server, browser context.Context, user, service string) *converse {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/dist/", http.FileServer(http.Dir(filepath.Join(needModules(t), "converse.js"))))
	mux.HandleFunc("/{$}", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintf(rw, conversePage, s.web, service, user) })
	site := httptest.NewServer(mux)
	t.Cleanup(site.Close)
	c := &converse{tab: newTab(t, browser, site.URL), bare: user + "@localhost", service: service}
	t.Cleanup(func() {
		if t.Failed() {
			said, _ := chromedp.Run(c, chromedp.Evaluate[string](`said.slice(-100).join("\n")`)) // empty if the page did not get that far
			t.Logf("Converse said:\n%s", said)
			c.picture(t, user+"-converse.png")
		}
	})
	c.emulate(t, chromedp.EmulateViewport(1000, 700))
	c.wants(t, `window.ready`, "ready")
	return c
}

// testConverseDomain registers at the domain, which Converse does not accept as a contact.
func testConverseDomain(t *testing.T, a *appliance, c *converse) {
	// Converse's service browser lists the component.
	c.run(t, `use("converse-disco-browser"); 0`)
	c.wants(t, `String(!!find(".disco-items a", "`+c.service+`"))`, "true")
	c.run(t, `find(".disco-items a", "`+c.service+`").click()`)
	c.wants(t, `String(text(".identities").includes("web presence") && text(".features").includes("jabber:iq:register"))`, "true")

	// Converse has no form for registering with a service, so the test uses its API.
	c.run(t, `iq("set", "<show_status_msg>1</show_status_msg>").then(() => window.registered = "yes", e => window.registered = String(e)); 0`)
	c.wants(t, `window.registered`, "yes")
	c.accept(t)
	a.want(t, c.bare, shown{state: "available"})
	c.setAway(t)
	a.want(t, c.bare, shown{state: "away", message: "feeding the cat"})

	c.runCommand(t, "options", `document.querySelector("[name=show_status_msg]").checked = false`)
	a.want(t, c.bare, shown{state: "away"})
	c.runCommand(t, "stop", ``)
	c.isGone(t, a)
}

// testConverseBot chats with the second address, which needs no form.
func testConverseBot(t *testing.T, a *appliance, c *converse) {
	c.run(t, `document.querySelector(".new-chat").click()`)
	c.wants(t, `String(!!document.querySelector("converse-new-chat-modal input[name=jid]"))`, "true")
	c.run(t, `document.querySelector("converse-new-chat-modal input[name=jid]").value = "`+c.service+`"; document.querySelector("converse-new-chat-modal form").requestSubmit()`)
	c.wants(t, `String(!!document.querySelector("textarea.chat-textarea"))`, "true")
	c.write(t, "hello", "You are not registered.")
	c.write(t, "register", "You are registered.")

	// Converse accepts the subscription request of a contact that one chats with.
	a.want(t, c.bare, shown{state: "available"})
	c.setAway(t)
	a.want(t, c.bare, shown{state: "away"})
	c.runCommand(t, "options", `document.querySelector("[name=show_status_msg]").checked = true`)
	a.want(t, c.bare, shown{state: "away", message: "feeding the cat"})
	c.write(t, "unregister", "unregister” again")
	c.write(t, "unregister", "You are no longer registered.")
	c.isGone(t, a)
}

// write sends a message in the open chat, and waits for an answer with a text.
func (c *converse) write(t testing.TB, text, answer string) {
	t.Helper()
	c.run(t, `document.querySelector("textarea.chat-textarea").value = "`+text+`"; document.querySelector(".send-button").click()`)
	c.wants(t, `String(!!find(".chat-msg__text", "`+answer+`"))`, "true")
}

// accept accepts the contact request in the roster. Converse 14 does not request the same in return, so the contact stays offline.
func (c *converse) accept(t testing.TB) {
	t.Helper()
	c.wants(t, `String(!!document.querySelector(".accept-xmpp-request"))`, "true")
	c.run(t, `document.querySelector(".accept-xmpp-request").click()`)
	c.wants(t, `String(!!document.querySelector("converse-accept-contact-request-modal form"))`, "true")
	c.run(t, `document.querySelector("converse-accept-contact-request-modal form").requestSubmit()`)
}

// setAway changes the profile as the dialog does. Converse's api.user.status.set("away") means dnd.
func (c *converse) setAway(t testing.TB) {
	t.Helper()
	c.run(t, `inner.state.profile.save({show: "away", status_message: "feeding the cat"}); 0`)
}

// runCommand runs a command in the ad-hoc command dialog, after a script has filled in its form.
func (c *converse) runCommand(t testing.TB, node, script string) {
	t.Helper()
	c.run(t, `use("converse-adhoc-commands"); 0`)
	c.wants(t, `String(!!document.querySelector("converse-adhoc-commands input[name=jid]"))`, "true")
	c.run(t, `document.querySelector("converse-adhoc-commands input[name=jid]").value = "`+c.service+`"; document.querySelector("converse-adhoc-commands form").requestSubmit()`)
	c.wants(t, `String(!!document.querySelector("[data-command-node=`+node+`]"))`, "true")
	c.run(t, `document.querySelector("[data-command-node=`+node+`]").click()`)
	c.wants(t, `String(!!document.querySelector("[data-action=complete]"))`, "true")
	c.run(t, script+`; document.querySelector("[data-action=complete]").click()`)
}

// isGone checks that the page is gone.
func (c *converse) isGone(t testing.TB, a *appliance) {
	t.Helper()
	eventually(t, "there is no page", func() bool { code, _ := a.get(t, jidPath(c.bare)); return code == http.StatusNotFound })
}
