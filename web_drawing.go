package main

import (
	"encoding/hex"
	"image/color"
)

// A drawing can be written as SVG or PNG. Its lengths are in pixels at its natural size.
type drawing struct {
	width, height float64
	title         string  // alternative text
	shapes        []shape // from back to front
}

// A shape is one element of a drawing.
type shape interface {
	svg(s *svgWriter)
	png(c *canvas)
}

// A theme is the kind of background that a drawing or a page is for.
type theme string

// The themes. The automatic theme follows the client's system if the format can; a PNG is light.
const (
	themeAuto  theme = ""
	themeLight theme = "light"
	themeDark  theme = "dark"
)

// A colorPair is a color for light and one for dark backgrounds.
type colorPair struct{ light, dark color.NRGBA }

// rgb returns the color 0xRRGGBB.
func rgb(hex uint32) color.NRGBA {
	return color.NRGBA{uint8(hex >> 16), uint8(hex >> 8), uint8(hex), 0xff}
}

// solid returns a pair of the same color for all backgrounds.
func solid(hex uint32) colorPair { return colorPair{rgb(hex), rgb(hex)} }

// in returns the color for a theme.
func (p colorPair) in(t theme) color.NRGBA {
	if t == themeDark {
		return p.dark
	}
	return p.light
}

// hexColor returns a color as #rrggbb, without its opacity.
func hexColor(c color.NRGBA) string { return "#" + hex.EncodeToString([]byte{c.R, c.G, c.B}) }

// A point is a position, from the top left.
type point struct{ x, y float64 }

// A box is a rectangle with round corners.
type box struct {
	x, y, w, h, radius float64
	left, right        bool // the corners on that side are round
	fill               colorPair
}

// A shade is a vertical gradient of white or black over the shapes behind it.
type shade struct {
	box
	top, bottom float64 // opacity: of white above zero, of black below
}

// A disc is a circle, filled or outlined.
type disc struct {
	center point
	radius float64
	line   float64 // width of the outline; 0 for a filled disc
	fill   colorPair
}

// lines are polylines with round ends.
type lines struct {
	paths  [][]point
	stroke float64 // width
	fill   colorPair
}

// A text is one line of text.
type text struct {
	at     point // start of the baseline
	size   float64
	bold   bool
	string string
	fill   colorPair
	shadow bool // a soft shadow below it
}

// A portrait is an image cut to a circle.
type portrait struct {
	center point
	radius float64
	data   []byte // PNG or JPEG
}
