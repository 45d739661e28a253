package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
)

// An elementSite is a site that shows a person with custom elements, with a Content-Security-Policy that forbids all else. Below
// /status/ it is a proxy of the service, and counts the event streams.
type elementSite struct {
	*httptest.Server
	streams atomic.Int32
}

func newElementSite(t *testing.T, a *appliance, page string) *elementSite {
	t.Helper()
	target, err := url.Parse(a.url)
	if err != nil {
		t.Fatal(err)
	}
	site, mux := &elementSite{}, http.NewServeMux()
	proxy := httputil.NewSingleHostReverseProxy(target)
	mux.HandleFunc("/status/", func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/events") {
			site.streams.Add(1)
		}
		proxy.ServeHTTP(rw, r)
	})
	mux.HandleFunc("/", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'none'; script-src "+a.url+"; connect-src 'self' "+a.url+
			"; img-src data:; require-trusted-types-for 'script'")
		path := strings.TrimPrefix(page, a.url)
		fmt.Fprintf(rw, `<!DOCTYPE html><title>x</title><script src="%s/webstatus.js" async></script>
			<p><xmpp-status id="badge" src="%s"></xmpp-status>
			<p><xmpp-status id="card" src="%[2]s" look="card" lang="de">Karte</xmpp-status>
			<p>Juliet is <xmpp-status id="line" src="%[2]s?parts=state" look="line"></xmpp-status> now.
			<p><xmpp-status id="dark" src="%[3]s" look="card" theme="dark"></xmpp-status>
			<p><xmpp-status id="same" src="%[3]s" look="card" label="x"></xmpp-status>
			<p><xmpp-status id="nobody" src="%[4]s/status/nobody">nobody is here</xmpp-status>
			<p><xmpp-status id="script" src="javascript:window.hurt=1">no address</xmpp-status>`, a.url, page, path, a.url)
	})
	site.Server = httptest.NewServer(mux)
	t.Cleanup(site.Close)
	return site
}

// TestE2EElement shows the custom element in a site with a strict Content-Security-Policy while presence changes.
func TestE2EElement(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)
	s := newServer(t, "prosody")
	a := newAppliance(t, s.componentAddress())
	c := s.login(t, "user1", "desk")
	const hostile = `<img src=x onerror="window.hurt=1">`
	c.send(t, `<presence><show>away</show><status>%s</status></presence>`, strings.ReplaceAll(hostile, "<", "&lt;"))
	c.join(t, "show_status_msg=1")
	a.want(t, c.bare, shown{state: "away", message: hostile})
	site := newElementSite(t, a, a.url+jidPath(c.bare))
	tab := newTab(t, browser, site.URL)
	text := func(id string) string {
		return `[...(document.getElementById("` + id + `").shadowRoot?.querySelectorAll("[part=name], [part=label], [part=message]") || [])].map(e => e.textContent).join("|")`
	}
	tab.wants(t, text("badge"), "XMPP|Away")
	tab.wants(t, text("card"), "Abwesend|"+hostile)
	tab.wants(t, text("line"), "Away")
	tab.wants(t, text("same"), "Away|"+hostile)
	for id, want := range map[string]string{"nobody": "nobody is here", "script": "no address"} {
		tab.wants(t, `document.getElementById("`+id+`").shadowRoot.querySelector("slot").assignedNodes()[0].textContent`, want)
	}
	tab.wants(t, `document.getElementById("badge").getAttribute("state") + document.getElementById("badge").shadowRoot.querySelector("a").href`, "away"+a.url+jidPath(c.bare))
	if n := site.streams.Load(); n != 1 {
		t.Errorf("two elements with the same URL opened %d streams", n)
	}
	const ground = `getComputedStyle(document.getElementById("%s").shadowRoot.querySelector("a")).backgroundColor`
	light, dark := "rgb(255, 255, 255)", "rgb(28, 34, 43)"
	for scheme, want := range map[string]string{"light": light, "dark": dark} {
		tab.emulate(t, colorScheme(scheme))
		tab.wants(t, fmt.Sprintf(ground, "card"), want)
		tab.wants(t, fmt.Sprintf(ground, "dark"), dark)
		tab.picture(t, "element-"+scheme+".png")
	}

	c.submit(t, "show_activity=1", "show_mood=1", "show_tune=1")
	c.publishRich(t)
	details := strings.ReplaceAll(text("card"), "[part=name], [part=label], [part=message]", "[part=detail]")
	tab.wants(t, details, "Beim Lesen – <b>sonnets</b>|Verliebt|♫ Prokofiev – Dance of the Knights")
	tab.picture(t, "element-rich.png")

	c.send(t, `<presence><show>dnd</show></presence>`)
	tab.wants(t, text("badge"), "XMPP|Do not disturb")
	tab.wants(t, text("card"), "Bitte nicht stören")
	tab.wants(t, text("dark"), "Do not disturb")
	tab.run(t, `document.getElementById("badge").setAttribute("label", ""); document.getElementById("badge").lang = "fr"`)
	tab.wants(t, text("badge"), "Ne pas déranger")
	tab.run(t, `document.getElementById("dark").remove()`)
	c.send(t, `<presence><show>xa</show></presence>`)
	tab.wants(t, text("same"), "Away for a while") // another element still uses the stream
	tab.wants(t, `String(window.hurt)`, "undefined")

	// The preview on the page with the snippets, where the address contains a JID that is not shown.
	tab.goTo(t, a.url+jidPath(c.bare)+"/embed?style=card&theme=dark")
	tab.wants(t, `[...document.querySelectorAll(".preview xmpp-status")].map(e => e.shadowRoot?.querySelector("[part=label]")?.textContent).join()`, "Away for a while")
	tab.wants(t, `document.querySelectorAll("pre")[3].textContent`, `<script src="`+a.url+`/webstatus.js" async></script>`+"\n"+
		`<xmpp-status src="`+a.url+jidPath(c.bare)+`" look="card" theme="dark"></xmpp-status>`)
}

// TestE2ENPMPackage packs the npm package.
func TestE2ENPMPackage(t *testing.T) {
	npm := need(t, "npm")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "pack", "--json", "--dry-run")
	cmd.Dir = "dist/npm"
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var packed []struct {
		Name  string
		Files []struct{ Path string }
	}
	if err := json.Unmarshal(out, &packed); err != nil || len(packed) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	var names []string
	for _, file := range packed[0].Files {
		names = append(names, file.Path)
	}
	if got := packed[0].Name + ": " + strings.Join(names, " "); got != "xmpp-status: README.md package.json webstatus.js" {
		t.Error(got)
	}
}
