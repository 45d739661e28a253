package main

import (
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
<script type="module">
import "/dist/converse.min.js";
converse.plugins.add("test", {
	initialize() {
		window.inner = this._converse;
		inner.api.listen.on("rosterContactsFetched", () => window.ready = "ready");
	},
});
converse.initialize({
	whitelisted_plugins: ["test"], authentication: "login", auto_login: true, jid: "user1@localhost/converse", password: "pass-user1",
	websocket_url: "ws://127.0.0.1:%d/xmpp-websocket", discover_connection_methods: false, allow_user_defined_connection_url: false,
	assets_path: "/dist/", i18n: "en", loglevel: "debug", view_mode: "fullscreen", enable_smacks: false, persistent_store: "none", play_sounds: false,
});
window.text = (selector) => document.querySelector(selector)?.innerText ?? "";
window.find = (selector, text) => Array.from(document.querySelectorAll(selector)).find((e) => e.innerText.includes(text));
window.use = (tool) => document.querySelector("#tools").replaceChildren(document.createElement(tool));
window.iq = (type, payload) => inner.api.sendIQ(new DOMParser().parseFromString('<iq xmlns="jabber:client" type="' + type +
	'" to="%[2]s"><query xmlns="jabber:iq:register">' + payload + "</query></iq>", "text/xml").documentElement);
</script>`

// TestE2EConverse uses the service with Converse.js in a browser.
func TestE2EConverse(t *testing.T) {
	for _, name := range []string{"prosody", "prosody@trixie"} {
		t.Run(name, func(t *testing.T) { t.Parallel(); testConverse(t, newServer(t, name)) })
	}
}

func testConverse(t *testing.T, s *server) {
	modules := needModules(t)
	browser := newBrowser(t)
	a := newAppliance(t, s.componentAddress())
	mux := http.NewServeMux()
	mux.Handle("/dist/", http.FileServer(http.Dir(filepath.Join(modules, "converse.js"))))
	mux.HandleFunc("/{$}", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintf(rw, conversePage, s.web, testDomain) })
	site := httptest.NewServer(mux)
	t.Cleanup(site.Close)
	const bare = "user1@localhost"
	tab := newTab(t, browser, site.URL)
	t.Cleanup(func() {
		if t.Failed() {
			said, _ := chromedp.Run(tab, chromedp.Evaluate[string](`said.slice(-100).join("\n")`)) // empty if the page did not get that far
			t.Logf("Converse said:\n%s", said)
			tab.picture(t, "converse.png")
		}
	})
	tab.wants(t, `window.ready`, "ready")

	// Converse's service browser lists the component.
	tab.run(t, `use("converse-disco-browser"); 0`)
	tab.wants(t, `String(!!find(".disco-items a", "`+testDomain+`"))`, "true")
	tab.run(t, `find(".disco-items a", "`+testDomain+`").click()`)
	tab.wants(t, `String(text(".identities").includes("web presence") && text(".features").includes("jabber:iq:register"))`, "true")

	// Converse has no form for registering with a service, so the test uses its API.
	tab.run(t, `iq("set", "<show_status_msg>1</show_status_msg>").then(() => window.registered = "yes", e => window.registered = String(e)); 0`)
	tab.wants(t, `window.registered`, "yes")

	// The subscription request is accepted in the roster. Converse 14 does not request the same in return, so the contact stays offline.
	tab.wants(t, `String(!!document.querySelector(".accept-xmpp-request"))`, "true")
	tab.run(t, `document.querySelector(".accept-xmpp-request").click()`)
	tab.wants(t, `String(!!document.querySelector("converse-accept-contact-request-modal form"))`, "true")
	tab.run(t, `document.querySelector("converse-accept-contact-request-modal form").requestSubmit()`)
	a.want(t, bare, shown{state: "available"})

	// Converse's api.user.status.set("away") means dnd, so the test changes the profile as the dialog does.
	tab.run(t, `inner.state.profile.save({show: "away", status_message: "feeding the cat"}); 0`)
	a.want(t, bare, shown{state: "away", message: "feeding the cat"})
	tab.picture(t, "converse.png")

	// Converse's ad-hoc command dialog changes an option and then unregisters.
	tab.run(t, `use("converse-adhoc-commands"); 0`)
	tab.wants(t, `String(!!document.querySelector("converse-adhoc-commands input[name=jid]"))`, "true")
	tab.run(t, `document.querySelector("converse-adhoc-commands input[name=jid]").value = "`+testDomain+`"; document.querySelector("converse-adhoc-commands form").requestSubmit()`)
	tab.wants(t, `String(!!document.querySelector("[data-command-node=options]"))`, "true")
	tab.run(t, `document.querySelector("[data-command-node=options]").click()`)
	tab.wants(t, `String(!!document.querySelector("[name=show_status_msg]") && document.querySelector("[name=show_status_msg]").checked)`, "true")
	tab.run(t, `document.querySelector("[name=show_status_msg]").checked = false; document.querySelector("[data-action=complete], [data-action=execute]").click()`)
	a.want(t, bare, shown{state: "away"})
	tab.run(t, `document.querySelector("[data-command-node=stop]").click()`)
	tab.wants(t, `String(!!document.querySelector("[data-action=complete]"))`, "true")
	tab.run(t, `document.querySelector("[data-action=complete]").click()`)
	eventually(t, "there is no page", func() bool { code, _ := a.get(t, jidPath(bare)); return code == http.StatusNotFound })
}
