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

// A typeface is a font with the widths of its characters.
type typeface struct {
	*sfnt.Font
	widths [0x500]float64   // by character, up to Cyrillic, at size 1; 0 for characters that the font lacks
	others map[rune]float64 // the same for all characters after these
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
	f := &typeface{Font: parsed, others: make(map[rune]float64)}
	var buffer sfnt.Buffer
	for r := range rune(0x10000) { // the embedded fonts have no characters above
		w := f.measure(&buffer, r)
		switch {
		case int(r) < len(f.widths):
			f.widths[r] = w
		case w > 0:
			f.others[r] = w
		}
	}
	return f
}

// measure returns the width of a character at size 1; 0 if the font lacks it.
func (f *typeface) measure(buffer *sfnt.Buffer, r rune) float64 {
	const unit = 1000
	i, err := f.GlyphIndex(buffer, r)
	if err != nil || i == 0 {
		return 0
	}
	advance, err := f.GlyphAdvance(buffer, i, fixed.I(unit), font.HintingNone)
	if err != nil {
		return 0
	}
	return float64(advance) / 64 / unit
}

// has reports whether the font has a character.
func (f *typeface) has(r rune) bool { return f.known(r) > 0 }

// known returns the width of a character at size 1; 0 if the font lacks it.
func (f *typeface) known(r rune) float64 {
	if int(r) < len(f.widths) {
		return f.widths[r]
	}
	return f.others[r]
}

// width returns the width of a character at size 1. It is guessed for a character that the font lacks.
func (f *typeface) width(r rune) float64 {
	if w := f.known(r); w > 0 {
		return w
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 1
	}
	return .6
}

func (t text) face() *typeface {
	if t.bold {
		return boldFace()
	}
	return regularFace()
}

// width returns the width of the text by the font's metrics.
func (t text) width() (w float64) {
	f := t.face()
	for _, r := range t.string {
		w += f.width(r)
	}
	return w * t.size
}

// fits shortens a text to a width in pixels.
func (t text) fits(w float64) text {
	const ellipsis = '…'
	f := t.face()
	left, end := w/t.size, 0 // end is where the text may be cut
	for i, r := range t.string {
		if f.width(ellipsis) <= left {
			end = i
		}
		if left -= f.width(r); left < 0 {
			t.string = strings.TrimSpace(t.string[:end]) + string(ellipsis)
			break
		}
	}
	return t
}

// canDraw reports whether the embedded fonts have every character of a text. In SVG the client's fonts do.
func canDraw(s string) bool {
	for _, r := range s {
		if !regularFace().has(r) {
			return false
		}
	}
	return true
}
