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

// A typeface is a font whose common characters have been measured.
type typeface struct {
	*sfnt.Font
	widths [0x500]float64 // of the characters up to Cyrillic, in parts of the size; 0 for those that it does not have
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

// measure returns how wide a character is, in parts of the size; 0 if the font does not have it.
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

// width measures the text with the font's own metrics, and guesses where the font has no such character.
func (t text) width() (w float64) {
	f := t.face()
	for _, r := range t.string {
		if own := f.width(r); own > 0 {
			w += own
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

// fits cuts a text to a width in pixels.
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

// canDraw reports whether our fonts have every character of a text; a reader's have more.
func canDraw(s string) bool {
	for _, r := range s {
		if regularFace().width(r) == 0 {
			return false
		}
	}
	return true
}
