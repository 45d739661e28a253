package main

import (
	"encoding/hex"
	"image/color"
)

// A picture is a drawing that can be written as SVG and as PNG alike. Its lengths are in pixels at its natural size.
type picture struct {
	width, height float64
	title         string // what it shows, for those who do not see it
	parts         []part // from the back to the front
}

// A part of a picture can be written in both formats.
type part interface {
	svg(s *svgWriter)
	png(c *canvas)
}

// A theme says for which background a picture or a page is.
type theme string

// The themes. The automatic one follows the reader's system, where the format can.
const (
	themeAuto  theme = ""
	themeLight theme = "light"
	themeDark  theme = "dark"
)

// A paint is a colour for light and one for dark backgrounds.
type paint struct{ light, dark color.NRGBA }

// rgb makes a colour of 0xRRGGBB.
func rgb(hex uint32) color.NRGBA {
	return color.NRGBA{uint8(hex >> 16), uint8(hex >> 8), uint8(hex), 0xff}
}

// solid is the same on all backgrounds.
func solid(hex uint32) paint { return paint{rgb(hex), rgb(hex)} }

func (p paint) in(t theme) color.NRGBA {
	if t == themeDark {
		return p.dark
	}
	return p.light
}

func hexColour(c color.NRGBA) string { return "#" + hex.EncodeToString([]byte{c.R, c.G, c.B}) }

// A point is a place in a picture, from its top left.
type point struct{ x, y float64 }

// A box is a rectangle with round corners.
type box struct {
	x, y, w, h, radius float64
	left, right        bool // on which sides the corners are round
	fill               paint
}

// A shade darkens what is behind it from the top to the bottom.
type shade struct {
	box
	top, bottom float64 // opacity: above zero of white, below of black
}

// A disc is a circle, filled, or drawn with a line of the given width.
type disc struct {
	centre point
	radius float64
	line   float64 // 0 for filled
	fill   paint
}

// Lines are drawn with round ends.
type lines struct {
	paths  [][]point
	stroke float64 // width
	fill   paint
}

// A text is one line.
type text struct {
	at     point // where its baseline begins
	size   float64
	bold   bool
	string string
	fill   paint
	shadow bool // a soft one below it
}

// A portrait is a round picture in the picture.
type portrait struct {
	centre point
	radius float64
	data   []byte // PNG or JPEG
}

// SVG.

// PNG.

// Text.
