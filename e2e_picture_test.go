package main

import (
	"bytes"
	"cmp"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/gif"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"testing"

	"github.com/chromedp/chromedp"
)

// pageActs are the frames of docs/page.gif: what the client does, and the label that its page shows then.
var pageActs = []struct{ client, attributes, content, label string }{
	{"comes online", "", "", "Available"},
	{"is away: feeding the cat", "", "<show>away</show><status>feeding the cat</status>", "Away"},
	{"is busy: in a meeting", "", "<show>dnd</show><status>in a meeting</status>", "Do not disturb"},
	{"wants to chat", "", "<show>chat</show>", "Free to chat"},
	{"goes offline", "type='unavailable'", "", "Offline"},
}

// TestPagePicture checks docs/page.gif, which shows a page that follows a client. With -update, a browser records it.
func TestPagePicture(t *testing.T) {
	const file = "docs/page.gif"
	if *update {
		if err := os.WriteFile(file, recordPage(t), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	picture, err := gif.DecodeAll(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if len(picture.Image) != len(pageActs) || picture.LoopCount != 0 || len(content) > 64<<10 {
		t.Errorf("%d frames, %d loops, %d bytes", len(picture.Image), picture.LoopCount, len(content))
	}
}

// recordPage returns an animated GIF of a page in an iframe of another site.
func recordPage(t *testing.T) []byte {
	browser := newBrowser(t)
	f := newFixture(t, nil)
	f.register("<show_status_msg>1</show_status_msg><show_full_jid>1</show_full_jid>")
	f.says("desk", "type='unavailable'", "")
	site := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, `<!DOCTYPE html><body style="margin: 14px; font: 16px sans-serif"><p style="margin: 0 0 12px">Juliet’s client <b></b></p>
			<iframe src="%s?theme=light" width="400" height="72" style="border: 0"></iframe>`, f.web.URL+julietPage)
	}))
	t.Cleanup(site.Close)
	tab := newTab(t, browser, site.URL)
	tab.emulate(t, mediaFeature("prefers-reduced-motion", "reduce")) // no frame in the middle of a transition
	tab.emulate(t, chromedp.EmulateViewport(430, 128, chromedp.EmulateScale(2)))
	tab.wantsFramed(t, ".label", "Offline")
	var frames []image.Image
	for _, act := range pageActs {
		f.says("desk", act.attributes, act.content)
		tab.run(t, fmt.Sprintf("document.querySelector('b').textContent = %q", act.client))
		tab.wantsFramed(t, ".label", act.label)
		screenshot, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		frame, err := png.Decode(bytes.NewReader(screenshot))
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, frame)
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, animation(frames)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// animation returns an endless animation of frames, in their 64 most frequent colors.
func animation(frames []image.Image) *gif.GIF {
	counts := make(map[color.RGBA]int)
	for _, frame := range frames {
		for y := range frame.Bounds().Dy() {
			for x := range frame.Bounds().Dx() {
				counts[color.RGBAModel.Convert(frame.At(x, y)).(color.RGBA)]++
			}
		}
	}
	var palette color.Palette
	for c := range counts {
		palette = append(palette, c)
	}
	slices.SortFunc(palette, func(a, b color.Color) int {
		x, y := a.(color.RGBA), b.(color.RGBA)
		return cmp.Or(counts[y]-counts[x], bytes.Compare([]byte{x.R, x.G, x.B}, []byte{y.R, y.G, y.B}))
	})
	palette = palette[:min(len(palette), 64)]
	g := &gif.GIF{}
	for _, frame := range frames {
		p := image.NewPaletted(frame.Bounds(), palette)
		draw.Draw(p, p.Bounds(), frame, image.Point{}, draw.Src)
		g.Image, g.Delay = append(g.Image, p), append(g.Delay, 180) // hundredths of a second
	}
	return g
}
