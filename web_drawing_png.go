package main

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"math"

	"golang.org/x/image/draw"
	"golang.org/x/image/font"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

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
