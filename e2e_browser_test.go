package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// TestE2EBrowser opens pages in a browser while presence changes. WEBSTATUS_SCREENSHOTS names a directory for screenshots.
func TestE2EBrowser(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)
	s := newServer(t, "prosody")
	a := newAppliance(t, s.componentAddress())
	c := s.login(t, "user1", "desk")
	c.send(t, `<presence/>`)
	c.join(t, "show_status_msg=1", "show_full_jid=1")
	a.want(t, c.bare, shown{state: "available", jid: c.bare})

	page := a.url + jidPath(c.bare)
	embedding := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, `<!DOCTYPE html><p>Elsewhere:</p><iframe src="%s" width="200" height="60"></iframe>`, page)
	}))
	t.Cleanup(embedding.Close)
	alone, framed := newTab(t, browser, page), newTab(t, browser, embedding.URL)
	alone.wants(t, `document.documentElement.dataset.state`, "available")
	framed.wantsFramed(t, ".label", "Available")

	c.send(t, `<presence><show>dnd</show><status>in a &lt;i>meeting&lt;/i></status></presence>`)
	const message = "in a <i>meeting</i>"
	alone.wants(t, `document.documentElement.dataset.state`, "dnd")
	alone.wants(t, `document.querySelector(".message").innerText`, message)
	alone.wants(t, `document.title`, "Do not disturb – "+message)
	alone.wants(t, `document.querySelector(".jid a").href`, "xmpp:"+c.bare+"?message")
	framed.wantsFramed(t, ".label", "Do not disturb")
	framed.wantsFramed(t, ".message", message)
	alone.wants(t, `String(document.querySelector("link[rel=icon]").href.includes("%23c0303a") && document.querySelector("link[rel=icon]").href.includes("`+pathData(glyphs[DoNotDisturb])+`"))`, "true")
	c.submit(t, "show_activity=1", "show_mood=1", "show_tune=1")
	details := `[...document.querySelectorAll(".details:not([hidden]) li")].map(e => e.innerText).join("|")`
	c.publishRich(t)
	alone.wants(t, details, "Reading – <b>sonnets</b>|In love|♫ Prokofiev – Dance of the Knights")
	alone.picture(t, "page.png")
	framed.picture(t, "iframe.png")
	newTab(t, browser, page).wants(t, details, "Reading – <b>sonnets</b>|In love|♫ Prokofiev – Dance of the Knights")
	c.submit(t, "show_activity=0", "show_mood=0", "show_tune=0")
	alone.wants(t, details, "")

	c.submit(t, "show_status_msg=0", "show_full_jid=0")
	alone.wants(t, `document.querySelector(".message").innerText + document.querySelector(".jid span").innerText`, "")
	alone.wants(t, `String(document.documentElement.outerHTML.includes("`+c.bare+`") || document.documentElement.outerHTML.includes("meeting"))`, "false")
	a.end(t, syscall.SIGKILL)
	c.send(t, `<presence><show>away</show></presence>`)
	a.start(t)
	alone.wants(t, `document.documentElement.dataset.state`, "away") // the page has reconnected by itself
	framed.wantsFramed(t, ".label", "Away")
	c.request(t, "set", testDomain, `<query xmlns='jabber:iq:register'><remove/></query>`)
	alone.wants(t, `document.title`, "Not found")
}

// newBrowser starts a browser that runs until the test ends.
func newBrowser(t testing.TB) context.Context {
	t.Helper()
	options := []chromedp.ExecAllocatorOption{chromedp.ExecPath(need(t, "chromium")), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.UserDataDir(t.TempDir())}
	for _, flag := range []string{"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage"} {
		options = append(options, chromedp.Flag(flag, true))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*patience)
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

func newTab(t testing.TB, browser context.Context, url string) tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(480, 240), chromedp.Navigate(url)); err != nil {
		t.Fatal(err)
	}
	return tab{ctx}
}

// wants waits until a JavaScript expression has a value.
func (tab tab) wants(t testing.TB, expression, want string) {
	t.Helper()
	eventually(t, expression+" is "+want, func() bool {
		got, err := chromedp.Run(tab, chromedp.Evaluate[string](expression))
		return err == nil && got == want // an error while the page reloads
	})
}

// wantsFramed waits until an element in the first iframe has a text.
func (tab tab) wantsFramed(t testing.TB, selector, want string) {
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

// picture saves a screenshot of the tab if WEBSTATUS_SCREENSHOTS is set.
func (tab tab) picture(t testing.TB, name string) {
	t.Helper()
	dir := os.Getenv("WEBSTATUS_SCREENSHOTS")
	if dir == "" {
		return
	}
	picture, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name), picture, 0o644)
	}
	if err != nil {
		t.Error(err)
	}
}

// emulate applies an emulation setting to the tab.
func (tab tab) emulate(t testing.TB, action chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(tab, action); err != nil {
		t.Fatal(err)
	}
}

// goTo opens another page in the tab.
func (tab tab) goTo(t testing.TB, url string) {
	t.Helper()
	tab.emulate(t, chromedp.Navigate(url))
}

// run evaluates JavaScript.
func (tab tab) run(t testing.TB, script string) {
	t.Helper()
	if _, err := chromedp.Run(tab, chromedp.Evaluate[any](script)); err != nil {
		t.Fatal(err)
	}
}

// colorScheme emulates the system's color scheme.
func colorScheme(scheme string) chromedp.Action[chromedp.Void] {
	return mediaFeature("prefers-color-scheme", scheme)
}

// mediaFeature emulates a feature of the system, by its name in CSS.
func mediaFeature(name, value string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: name, Value: value}}})
		return err
	})
}

// withoutScripts disables or enables JavaScript.
func withoutScripts(off bool) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: off})
		return err
	})
}

// TestE2EReaders checks pages in dark mode, in a right-to-left language, without JavaScript, for accessibility, and embedded in a site
// with a strict Content-Security-Policy.
func TestE2EReaders(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)
	axe := axeCore(t)
	s := newServer(t, "prosody")
	a := newAppliance(t, s.componentAddress())
	c := s.login(t, "user1", "desk")
	const hostile = `"><img src=x onerror="window.hurt=1"></title></script><script>window.hurt=1</script>`
	c.send(t, `<presence><show>away</show><status>%s</status></presence>`, strings.ReplaceAll(hostile, "<", "&lt;"))
	c.join(t, "show_status_msg=1", "show_full_jid=1", "show_resources=1", "show_last_seen=1")
	a.want(t, c.bare, shown{"away", hostile, c.bare})
	page := a.url + jidPath(c.bare)
	tab := newTab(t, browser, page)

	const ground = `getComputedStyle(document.body).backgroundColor`
	for _, scheme := range []string{"light", "dark"} {
		other := map[string]string{"light": "dark", "dark": "light"}[scheme]
		colors := map[string]string{"light": "rgb(238, 241, 245)", "dark": "rgb(18, 22, 28)"}
		tab.emulate(t, colorScheme(scheme))
		tab.goTo(t, page)
		tab.wants(t, ground, colors[scheme])
		tab.goTo(t, page+"?theme="+other)
		tab.wants(t, ground, colors[other])
		for _, path := range []string{page, page + "," + strings.TrimPrefix(jidPath(c.bare), "/status/"), page + "/embed", a.url + "/", a.url + "/nowhere", page + "?lang=fa"} {
			tab.accessible(t, axe, path)
		}
	}

	tab.goTo(t, page+"?lang=ar")
	tab.wants(t, `document.dir + (document.querySelector(".face").getBoundingClientRect().left > document.querySelector(".label").getBoundingClientRect().left)`, "rtltrue")
	tab.wants(t, `getComputedStyle(document.querySelector(".message")).direction + String(window.hurt)`, "ltrundefined")

	tab.emulate(t, withoutScripts(true))
	tab.goTo(t, page)
	if text, err := chromedp.Run(tab, chromedp.Text(".message")); err != nil || text != hostile {
		t.Errorf("without JavaScript: %q %v", text, err)
	}
	c.send(t, `<presence><show>dnd</show></presence>`)
	eventually(t, "the page is renewed without JavaScript", func() bool {
		text, err := chromedp.Run(tab, chromedp.Text(".label"))
		return err == nil && text == "Do not disturb"
	})
	tab.emulate(t, withoutScripts(false))

	testScriptElsewhere(t, tab, a, c, page, hostile)

	// The snippets are updated from the form and can be copied.
	tab.goTo(t, page+"/embed")
	tab.run(t, `navigator.clipboard.writeText = async text => { window.copied = text }`)
	tab.wants(t, `document.querySelectorAll("pre")[4].textContent`, "[![XMPP]("+page+".svg)]("+page+")")
	tab.run(t, `document.querySelector("#style").value = "card"; document.querySelector("#label").value = "A & B"; document.querySelector("#label").dispatchEvent(new Event("input", {bubbles: true}))`)
	const card = ".svg?style=card&label=A+%26+B"
	tab.wants(t, `document.querySelectorAll("pre")[4].textContent`, "[![XMPP]("+page+card+")]("+page+")")
	tab.wants(t, `document.querySelector(".preview img").src + document.querySelector(".preview img").complete`, page+card+"true")
	tab.run(t, `document.querySelectorAll(".snippet button")[4].click()`)
	tab.wants(t, `window.copied + document.querySelectorAll(".snippet button")[4].textContent`, "[![XMPP]("+page+card+")]("+page+")Copied")
	tab.picture(t, "embed.png")
}

// testScriptElsewhere embeds the script in a site with a strict Content-Security-Policy, and loads images with a hostile text.
func testScriptElsewhere(t *testing.T, tab tab, a *appliance, c *client, page, hostile string) {
	c.send(t, `<presence><show>away</show><status>%s</status></presence>`, strings.ReplaceAll(hostile, "<", "&lt;"))
	a.want(t, c.bare, shown{"away", hostile, c.bare})
	site := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Security-Policy", "default-src 'none'; script-src "+a.url+"; connect-src "+a.url+"; img-src "+a.url)
		fmt.Fprintf(rw, `<!DOCTYPE html><title>x</title><b data-webstatus="label"></b> <i data-webstatus="message"></i> <a data-webstatus="jid"></a><script src="%s.js?lang=de" async></script><img src="%[1]s.svg?style=card">`, page)
	}))
	defer site.Close()
	tab.goTo(t, site.URL)
	tab.wants(t, `document.querySelector("b").textContent + document.querySelector("i").textContent`, "Abwesend"+hostile)
	tab.wants(t, `document.querySelector("a").href`, "xmpp:"+c.bare)
	tab.wants(t, `document.querySelector("img").naturalWidth + String(window.hurt)`, "320undefined")
	c.send(t, `<presence><show>dnd</show></presence>`)
	tab.wants(t, `document.querySelector("b").textContent + document.querySelector("b").dataset.webstatusState`, "Bitte nicht störendnd")
	c.send(t, `<presence><show>away</show><status>%s</status></presence>`, strings.ReplaceAll(hostile, "<", "&lt;"))
	a.want(t, c.bare, shown{"away", hostile, c.bare})
	for _, style := range []string{"flat", "card"} {
		tab.goTo(t, page+".svg?style="+style+"&label=%3Cscript%3Ewindow.hurt=1%3C/script%3E")
		tab.wants(t, `document.documentElement.localName + document.querySelectorAll("script, img").length + String(window.hurt)`, "svg0undefined")
	}
}

// axeCore returns the source of the accessibility checker axe-core, installed by npm.
func axeCore(t testing.TB) string {
	t.Helper()
	npm := need(t, "npm")
	dir := t.TempDir()
	cmd := exec.Command(npm, "pack", "--silent", "axe-core@4.10.3")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm: %v %s", err, out)
	}
	cmd = exec.Command("tar", "-xzf", "axe-core-4.10.3.tgz", "package/axe.min.js")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v %s", err, out)
	}
	source, err := os.ReadFile(filepath.Join(dir, "package", "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	return string(source)
}

// accessible opens a page and checks its accessibility.
func (tab tab) accessible(t testing.TB, axe, url string) {
	t.Helper()
	tab.goTo(t, url)
	tab.run(t, axe+"; 0")
	tab.run(t, `axe.run({iframes: false}).then(r => window.axeFound = JSON.stringify(r.violations.map(v => v.id + ": " + v.nodes.map(n => n.html).join(" "))), e => window.axeFound = String(e)); 0`)
	tab.wants(t, `String(!!window.axeFound)`, "true")
	if found, err := chromedp.Run(tab, chromedp.Evaluate[string](`window.axeFound`)); err != nil || found != "[]" {
		t.Errorf("%s: %s %v", url, found, err)
	}
}
