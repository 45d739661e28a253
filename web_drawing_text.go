package main

import (
	"strings"
	"sync"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"
	"golang.org/x/text/width"
)

// A typeface is a font with the widths of its common characters.
type typeface struct {
	*sfnt.Font
	widths [0x500]float64 // by character, up to Cyrillic, at size 1; 0 for characters that the font lacks
}

var (
	regularFace = sync.OnceValue(func() *typeface { return newTypeface(goregular.TTF) })
	boldFace    = sync.OnceValue(func() *typeface { return newTypeface(gobold.TTF) })
)

func newTypeface(ttf []byte) *typeface {
	parsed, err := opentype.Parse(ttf)
	if err != nil {
		panic(err) // the font is part of the program
	}
	f := &typeface{Font: parsed}
	for r := range f.widths {
		f.widths[r] = f.measure(rune(r))
	}
	return f
}

// measure returns the width of a character at size 1; 0 if the font lacks it.
func (f *typeface) measure(r rune) float64 {
	var buffer sfnt.Buffer
	const unit = 1000
	i, err := f.GlyphIndex(&buffer, r)
	if err != nil || i == 0 {
		return 0
	}
	advance, err := f.GlyphAdvance(&buffer, i, fixed.I(unit), font.HintingNone)
	if err != nil {
		return 0
	}
	return float64(advance) / 64 / unit
}

func (f *typeface) width(r rune) float64 {
	if int(r) < len(f.widths) {
		return f.widths[r]
	}
	return f.measure(r)
}

func (t text) face() *typeface {
	if t.bold {
		return boldFace()
	}
	return regularFace()
}

// width returns the width of the text by the font's metrics. Characters that the font lacks are guessed.
func (t text) width() (w float64) {
	f := t.face()
	for _, r := range t.string {
		if known := f.width(r); known > 0 {
			w += known
			continue
		}
		switch width.LookupRune(r).Kind() {
		case width.EastAsianWide, width.EastAsianFullwidth:
			w++
		default:
			w += .6
		}
	}
	return w * t.size
}

// fits shortens a text to a width in pixels.
func (t text) fits(w float64) text {
	if t.width() <= w {
		return t
	}
	characters := []rune(t.string)
	for n := len(characters) - 1; n > 0; n-- {
		if t.string = strings.TrimSpace(string(characters[:n])) + "…"; t.width() <= w {
			break
		}
	}
	return t
}

// canDraw reports whether the embedded fonts have every character of a text. In SVG the client's fonts do.
func canDraw(s string) bool {
	for _, r := range s {
		if regularFace().width(r) == 0 {
			return false
		}
	}
	return true
}
