package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/image/draw"
	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"
	"golang.org/x/text/width"
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

type svgWriter struct {
	bytes.Buffer
	theme  theme
	paints []paint // those that have a class
	count  int     // of ids
}

// writeSVG writes a picture at a height in pixels.
func (p *picture) writeSVG(t theme, height float64) []byte {
	s := &svgWriter{theme: t}
	for _, part := range p.parts {
		part.svg(s)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%s" height="%s" viewBox="0 0 %s %s" role="img" aria-label="%s"><title>%[5]s</title>`,
		number(p.width*height/p.height), number(height), number(p.width), number(p.height), escaped(p.title))
	if len(s.paints) > 0 {
		b.WriteString("<style>")
		for i, p := range s.paints {
			fmt.Fprintf(&b, ".f%d{fill:%s}.s%[1]d{stroke:%[2]s}", i, hexColour(p.light))
		}
		b.WriteString("@media(prefers-color-scheme:dark){")
		for i, p := range s.paints {
			fmt.Fprintf(&b, ".f%d{fill:%s}.s%[1]d{stroke:%[2]s}", i, hexColour(p.dark))
		}
		b.WriteString("}</style>")
	}
	b.Write(s.Bytes())
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// number writes a length as briefly as it can be.
func number(f float64) string {
	if whole := math.Trunc(f); whole == f {
		return strconv.Itoa(int(whole))
	}
	return strconv.FormatFloat(math.Round(f*100)/100, 'f', -1, 64)
}

func escaped(text string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(text)) // writing to a builder cannot fail
	return b.String()
}

// colour returns the attribute that paints a fill or a stroke: a class where the reader's system decides.
func (s *svgWriter) colour(attribute string, p paint) string {
	if s.theme != themeAuto || p.light == p.dark {
		return fmt.Sprintf(`%s="%s"`, attribute, hexColour(p.in(s.theme)))
	}
	for i, known := range s.paints {
		if known == p {
			return fmt.Sprintf(`class="%c%d"`, attribute[0], i)
		}
	}
	s.paints = append(s.paints, p)
	return s.colour(attribute, p)
}

// outline is the box as the data of a path.
func (b box) outline() string {
	l, r := 0.0, 0.0
	if b.left {
		l = b.radius
	}
	if b.right {
		r = b.radius
	}
	var path strings.Builder
	fmt.Fprintf(&path, "M%s %sH%s", number(b.x+l), number(b.y), number(b.x+b.w-r))
	if r > 0 {
		fmt.Fprintf(&path, "a%s %[1]s 0 0 1 %[1]s %[1]s", number(r))
	}
	fmt.Fprintf(&path, "V%s", number(b.y+b.h-r))
	if r > 0 {
		fmt.Fprintf(&path, "a%s %[1]s 0 0 1 -%[1]s %[1]s", number(r))
	}
	fmt.Fprintf(&path, "H%s", number(b.x+l))
	if l > 0 {
		fmt.Fprintf(&path, "a%s %[1]s 0 0 1 -%[1]s -%[1]s", number(l))
	}
	fmt.Fprintf(&path, "V%s", number(b.y+l))
	if l > 0 {
		fmt.Fprintf(&path, "a%s %[1]s 0 0 1 %[1]s -%[1]s", number(l))
	}
	path.WriteString("z")
	return path.String()
}

func (b box) svg(s *svgWriter) {
	fmt.Fprintf(s, `<path d="%s" %s/>`, b.outline(), s.colour("fill", b.fill))
}

func (sh shade) svg(s *svgWriter) {
	s.count++
	stop := func(at int, opacity float64) string {
		colour := "#fff"
		if opacity < 0 {
			colour = "#000"
		}
		return fmt.Sprintf(`<stop offset="%d" stop-color="%s" stop-opacity="%s"/>`, at, colour, number(math.Abs(opacity)))
	}
	fmt.Fprintf(s, `<linearGradient id="g%d" x2="0" y2="1">%s%s</linearGradient><path d="%s" fill="url(#g%[1]d)"/>`,
		s.count, stop(0, sh.top), stop(1, sh.bottom), sh.outline())
}

func (d disc) svg(s *svgWriter) {
	if d.line == 0 {
		fmt.Fprintf(s, `<circle cx="%s" cy="%s" r="%s" %s/>`, number(d.centre.x), number(d.centre.y), number(d.radius), s.colour("fill", d.fill))
		return
	}
	fmt.Fprintf(s, `<circle cx="%s" cy="%s" r="%s" fill="none" stroke-width="%s" %s/>`, number(d.centre.x), number(d.centre.y),
		number(d.radius-d.line/2), number(d.line), s.colour("stroke", d.fill))
}

// pathData is the lines as the data of a path.
func pathData(paths [][]point) string {
	var b strings.Builder
	for _, path := range paths {
		for i, p := range path {
			b.WriteString(map[bool]string{true: "M", false: "L"}[i == 0] + number(p.x) + " " + number(p.y))
		}
	}
	return b.String()
}

func (l lines) svg(s *svgWriter) {
	fmt.Fprintf(s, `<path d="%s" fill="none" stroke-width="%s" stroke-linecap="round" stroke-linejoin="round" %s/>`,
		pathData(l.paths), number(l.stroke), s.colour("stroke", l.fill))
}

func (t text) svg(s *svgWriter) {
	weight := ""
	if t.bold {
		weight = ` font-weight="700"`
	}
	write := func(dy float64, paint string) {
		// With the length the text is as wide as measured, whatever font the reader has.
		fmt.Fprintf(s, `<text x="%s" y="%s" font-family="Helvetica,Arial,sans-serif" font-size="%s"%s textLength="%s" lengthAdjust="spacingAndGlyphs" %s>%s</text>`,
			number(t.at.x), number(t.at.y+dy), number(t.size), weight, number(t.width()), paint, escaped(t.string))
	}
	if t.shadow {
		write(1, `fill="#010101" fill-opacity=".3" aria-hidden="true"`)
	}
	write(0, s.colour("fill", t.fill))
}

func (p portrait) svg(s *svgWriter) {
	s.count++
	fmt.Fprintf(s, `<clipPath id="p%d"><circle cx="%s" cy="%s" r="%s"/></clipPath><image x="%s" y="%s" width="%s" height="%[7]s" clip-path="url(#p%[1]d)" href="data:%s;base64,%s"/>`,
		s.count, number(p.centre.x), number(p.centre.y), number(p.radius), number(p.centre.x-p.radius), number(p.centre.y-p.radius), number(2*p.radius),
		http.DetectContentType(p.data), base64.StdEncoding.EncodeToString(p.data))
}

// PNG.

// A canvas is what a picture is drawn on, so many times its natural size.
type canvas struct {
	img   *image.NRGBA
	scale float64
	theme theme
}

const maxDrawn = 2 << 20 // of a PNG, so that a stranger cannot ask for more memory than that

// writePNG writes a picture at a height in pixels, or at a smaller one if it would have too many of them.
func (p *picture) writePNG(e *png.Encoder, t theme, height float64) ([]byte, error) {
	scale := min(height/p.height, math.Sqrt(maxDrawn/(p.width*p.height)))
	c := &canvas{image.NewNRGBA(image.Rect(0, 0, int(math.Ceil(p.width*scale)), int(math.Ceil(p.height*scale)))), scale, t}
	for _, part := range p.parts {
		part.png(c)
	}
	var b bytes.Buffer
	err := e.Encode(&b, c.img)
	return b.Bytes(), err
}

// fill paints every pixel within bounds as far as it is covered: a shape is given by how far inside of it a point is, below
// zero outside.
func (c *canvas) fill(x1, y1, x2, y2 float64, paint func(y float64) color.NRGBA, inside func(p point) float64) {
	bounds := image.Rect(int(x1*c.scale)-1, int(y1*c.scale)-1, int(x2*c.scale)+2, int(y2*c.scale)+2).Intersect(c.img.Rect)
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		p := point{y: (float64(y) + .5) / c.scale}
		colour := paint(p.y)
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			p.x = (float64(x) + .5) / c.scale
			switch covered := min(max(inside(p)*c.scale+.5, 0), 1); {
			case covered == 1 && colour.A == 255:
				c.img.SetNRGBA(x, y, colour)
			case covered > 0:
				c.img.SetNRGBA(x, y, over(colour, c.img.NRGBAAt(x, y), covered*float64(colour.A)/255))
			}
		}
	}
}

// over lays a colour over another, as opaque as is said.
func over(top, bottom color.NRGBA, opacity float64) color.NRGBA {
	under := float64(bottom.A) / 255 * (1 - opacity)
	alpha := opacity + under
	if alpha == 0 {
		return color.NRGBA{}
	}
	mix := func(a, b uint8) uint8 { return uint8(math.Round((float64(a)*opacity + float64(b)*under) / alpha)) }
	return color.NRGBA{mix(top.R, bottom.R), mix(top.G, bottom.G), mix(top.B, bottom.B), uint8(math.Round(255 * alpha))}
}

func (c *canvas) evenly(p paint) func(float64) color.NRGBA {
	colour := p.in(c.theme)
	return func(float64) color.NRGBA { return colour }
}

// inside returns how far a point is inside the box.
func (b box) inside(p point) float64 {
	radius := 0.0
	if p.x < b.x+b.w/2 && b.left || p.x >= b.x+b.w/2 && b.right {
		radius = b.radius
	}
	dx := math.Abs(p.x-b.x-b.w/2) - b.w/2 + radius
	dy := math.Abs(p.y-b.y-b.h/2) - b.h/2 + radius
	return radius - math.Hypot(max(dx, 0), max(dy, 0)) - min(max(dx, dy), 0)
}

func (b box) png(c *canvas) { c.fill(b.x, b.y, b.x+b.w, b.y+b.h, c.evenly(b.fill), b.inside) }

func (sh shade) png(c *canvas) {
	c.fill(sh.x, sh.y, sh.x+sh.w, sh.y+sh.h, func(y float64) color.NRGBA {
		share := min(max((y-sh.y)/sh.h, 0), 1)
		white, black := max(sh.top, 0)*(1-share)+max(sh.bottom, 0)*share, max(-sh.top, 0)*(1-share)+max(-sh.bottom, 0)*share
		level := uint8(math.Round(255 * white / max(white+black, 1e-9)))
		return color.NRGBA{level, level, level, uint8(math.Round(255 * (white + black)))}
	}, sh.inside)
}

func (d disc) png(c *canvas) {
	x, y, r := d.centre.x, d.centre.y, d.radius
	c.fill(x-r, y-r, x+r, y+r, c.evenly(d.fill), func(p point) float64 {
		inside := r - math.Hypot(p.x-x, p.y-y)
		if d.line > 0 {
			inside = min(inside, d.line-inside)
		}
		return inside
	})
}

func (l lines) png(c *canvas) {
	x1, y1, x2, y2 := math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)
	for _, path := range l.paths {
		for _, p := range path {
			x1, y1, x2, y2 = min(x1, p.x), min(y1, p.y), max(x2, p.x), max(y2, p.y)
		}
	}
	c.fill(x1-l.stroke, y1-l.stroke, x2+l.stroke, y2+l.stroke, c.evenly(l.fill), func(p point) float64 {
		nearest := math.Inf(1)
		for _, path := range l.paths {
			for i := 1; i < len(path); i++ {
				nearest = min(nearest, distance(p, path[i-1], path[i]))
			}
		}
		return l.stroke/2 - nearest
	})
}

// distance returns how far a point is from a line between two others.
func distance(p, a, b point) float64 {
	dx, dy := b.x-a.x, b.y-a.y
	t := min(max(((p.x-a.x)*dx+(p.y-a.y)*dy)/(dx*dx+dy*dy), 0), 1)
	return math.Hypot(p.x-a.x-t*dx, p.y-a.y-t*dy)
}

func (t text) png(c *canvas) {
	face, err := opentype.NewFace(t.face().Font, &opentype.FaceOptions{Size: t.size * c.scale, DPI: 72})
	if err != nil {
		panic(err) // the font is part of the program
	}
	defer face.Close()
	write := func(dy float64, colour color.NRGBA) {
		d := font.Drawer{Dst: c.img, Src: image.NewUniform(colour), Face: face,
			Dot: fixed.Point26_6{X: fixed.Int26_6(t.at.x * c.scale * 64), Y: fixed.Int26_6((t.at.y + dy) * c.scale * 64)}}
		d.DrawString(t.string)
	}
	if t.shadow {
		write(1, color.NRGBA{1, 1, 1, 0x4c})
	}
	write(0, t.fill.in(c.theme))
}

func (p portrait) png(c *canvas) {
	img, _, err := image.Decode(bytes.NewReader(p.data))
	if err != nil {
		return // we have encoded it ourselves
	}
	size := int(math.Round(2 * p.radius * c.scale))
	scaled := image.NewNRGBA(image.Rect(0, 0, size, size))
	draw.CatmullRom.Scale(scaled, scaled.Rect, img, img.Bounds(), draw.Src, nil)
	left, top := int((p.centre.x-p.radius)*c.scale), int((p.centre.y-p.radius)*c.scale)
	for y := range size {
		for x := range size {
			at := point{float64(x) + .5 - float64(size)/2, float64(y) + .5 - float64(size)/2}
			covered := min(max(float64(size)/2-math.Hypot(at.x, at.y)+.5, 0), 1)
			colour := scaled.NRGBAAt(x, y)
			c.img.SetNRGBA(left+x, top+y, over(colour, c.img.NRGBAAt(left+x, top+y), covered*float64(colour.A)/255))
		}
	}
}

// Text.

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
