package main

import (
	"context"
	"io"
	"log/slog"
	"regexp"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestE2EDemo opens the page of the demo and checks that each form shows Juliet's status, and that she goes on to the next one.
func TestE2EDemo(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)
	ctx, cancel := context.WithCancel(t.Context())
	out, done := &lockedBuffer{}, make(chan error, 1)
	go func() {
		done <- demo(ctx, config{listen: "127.0.0.1:0"}, true, out, slog.New(slog.NewTextHandler(io.Discard, nil)))
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	pageURL := regexp.MustCompile(`http://\S+/demo`)
	eventually(t, "the demo prints its address", func() bool { return pageURL.MatchString(out.String()) })
	tab := newTab(t, browser, pageURL.FindString(out.String()))
	tab.emulate(t, chromedp.EmulateViewport(1000, 1060))
	// All forms show the same state at some time.
	const shown = `(() => {
		const status = JSON.parse(document.querySelector("#json pre").textContent || "{}"), label = status.label;
		const frames = [...document.querySelectorAll("iframe")].map(f => f.contentDocument?.querySelector(".label")?.textContent);
		const elements = [...document.querySelectorAll("xmpp-status")].map(e => e.shadowRoot?.querySelector("[part=label]")?.textContent);
		const images = [...document.querySelectorAll("img")];
		const agree = frames.length === 2 && frames.every(f => f === label) && elements.length === 3 && elements.every(e => e === label) &&
			document.querySelector("#text pre").textContent.startsWith(label) && images.length === 6 && images.every(i => i.complete && i.naturalWidth > 0);
		if (agree) (window.seen ||= new Set()).add(status.state);
		return String(window.seen ? window.seen.size : 0);
	})()`
	tab.wants(t, shown, "1")
	tab.picture(t, "demo.png")
	tab.wants(t, shown, "2")
}
