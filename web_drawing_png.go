package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"math"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zlib"
	"golang.org/x/image/draw"
	"golang.org/x/image/font"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

// A canvas is an image that shapes are drawn on.
type canvas struct {
	img   *image.NRGBA
	scale float64 // pixels for each unit of the drawing
	theme theme
}

// maxPNGPixels bounds the pixels of a PNG, and so the memory of a rendering to 1 MiB and its time to about 5 ms. A card of three
// times its natural size has that many pixels, and so has a disc 480 pixels high. Larger images are scaled down.
const maxPNGPixels = 480 * 480

// writePNG encodes a drawing at a height in pixels, or at a smaller one if it would have more than maxPNGPixels. It returns the error
// of ctx if that ends first.
func (d *drawing) writePNG(ctx context.Context, t theme, height float64) ([]byte, error) {
	scale := min(height/d.height, math.Sqrt(maxPNGPixels/(d.width*d.height)))
	c := &canvas{image.NewNRGBA(image.Rect(0, 0, int(math.Ceil(d.width*scale)), int(math.Ceil(d.height*scale)))), scale, t}
	for _, s := range d.shapes {
		if err := yield(ctx); err != nil {
			return nil, err
		}
		s.png(c)
	}
	return encodePNG(ctx, c.img)
}

// yield lets ordinary pages go first, since the scheduler itself would let them wait for 10 ms. It returns the error of ctx.
func yield(ctx context.Context) error {
	runtime.Gosched()
	return ctx.Err()
}

// pngWriters keeps compressors, each of which has some 600 KiB of tables. Their format is that of zlib (RFC 1950).
var pngWriters = sync.Pool{New: func() any {
	w, err := zlib.NewWriterLevel(nil, zlib.BestSpeed)
	if err != nil {
		panic(err) // the level is valid
	}
	return w
}}

// encodePNG encodes an image as PNG, in a fifth of the time that image/png takes: the rows are not filtered, which makes drawings
// neither larger nor smaller. It returns the error of ctx if that ends first.
func encodePNG(ctx context.Context, img *image.NRGBA) ([]byte, error) {
	var pixels bytes.Buffer
	w := pngWriters.Get().(*zlib.Writer)
	defer pngWriters.Put(w)
	w.Reset(&pixels)
	size := img.Rect.Size()
	for y := range size.Y {
		if y%encodedRows == 0 {
			if err := yield(ctx); err != nil {
				return nil, err
			}
		}
		w.Write([]byte{0}) // no filter; writing to a buffer cannot fail
		w.Write(img.Pix[y*img.Stride:][:4*size.X])
	}
	w.Close()
	header := binary.BigEndian.AppendUint32(nil, uint32(size.X))
	header = binary.BigEndian.AppendUint32(header, uint32(size.Y))
	header = append(header, 8, 6, 0, 0, 0) // 8 bits for each of red, green, blue and opacity
	out := append(make([]byte, 0, pixels.Len()+57), "\x89PNG\r\n\x1a\n"...)
	out = appendPNGChunk(out, "IHDR", header)
	out = appendPNGChunk(out, "IDAT", pixels.Bytes())
	return appendPNGChunk(out, "IEND", nil), nil
}

// encodedRows is how many rows are encoded before others may go first: less than half a millisecond's work.
const encodedRows = 32

// appendPNGChunk appends a chunk (PNG Third Edition §5.3).
func appendPNGChunk(b []byte, name string, data []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	start := len(b)
	b = append(append(b, name...), data...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[start:]))
}

// fill colors the pixels within bounds by how much of each is covered. A shape is defined by the distance of a point inside its
// edge, below zero outside. Pixels of the core are known to be covered, which saves most of the time.
func (c *canvas) fill(x1, y1, x2, y2 float64, core image.Rectangle, colorAt func(y float64) color.NRGBA, inside func(p point) float64) {
	bounds := image.Rect(int(x1*c.scale)-1, int(y1*c.scale)-1, int(x2*c.scale)+2, int(y2*c.scale)+2).Intersect(c.img.Rect)
	core = core.Intersect(bounds)
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		p := point{y: (float64(y) + .5) / c.scale}
		tint := colorAt(p.y)
		left, right := bounds.Max.X, bounds.Max.X // of the core in this row
		if core.Min.Y <= y && y < core.Max.Y {
			left, right = core.Min.X, core.Max.X
			c.cover(y, left, right, tint)
		}
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			if x == left {
				if x = right; x == bounds.Max.X {
					break
				}
			}
			p.x = (float64(x) + .5) / c.scale
			if covered := min(max(inside(p)*c.scale+.5, 0), 1); covered > 0 {
				c.blend(x, y, tint, covered)
			}
		}
	}
}

// cover colors the pixels of a row from left to right.
func (c *canvas) cover(y, left, right int, tint color.NRGBA) {
	if tint.A == 255 {
		row := c.img.Pix[c.img.PixOffset(left, y):c.img.PixOffset(right, y)]
		for done := copy(row, []byte{tint.R, tint.G, tint.B, tint.A}); done < len(row); done *= 2 {
			copy(row[done:], row[:done])
		}
		return
	}
	var below, composed color.NRGBA // the last pixel, since most have the same color
	for x := left; x < right; x++ {
		at := c.img.Pix[c.img.PixOffset(x, y):][:4:4]
		if pixel := (color.NRGBA{at[0], at[1], at[2], at[3]}); x == left || pixel != below {
			below, composed = pixel, over(tint, pixel, 1)
		}
		at[0], at[1], at[2], at[3] = composed.R, composed.G, composed.B, composed.A
	}
}

// blend composes a color over a pixel, of which a share is covered.
func (c *canvas) blend(x, y int, tint color.NRGBA, covered float64) {
	c.img.SetNRGBA(x, y, over(tint, c.img.NRGBAAt(x, y), covered))
}

// pixels returns the pixels that are at least one pixel inside of a rectangle.
func (c *canvas) pixels(x1, y1, x2, y2 float64) image.Rectangle {
	r := image.Rectangle{image.Point{int(math.Ceil(x1*c.scale)) + 1, int(math.Ceil(y1*c.scale)) + 1},
		image.Point{int(math.Floor(x2*c.scale)) - 1, int(math.Floor(y2*c.scale)) - 1}}
	if r.Empty() {
		return image.Rectangle{}
	}
	return r
}

// over composes a color over another, of which a share is covered.
func over(top, bottom color.NRGBA, covered float64) color.NRGBA {
	opacity := covered * float64(top.A) / 255
	if opacity == 1 {
		return top
	}
	under := float64(bottom.A) / 255 * (1 - opacity)
	alpha := opacity + under
	if alpha == 0 {
		return color.NRGBA{}
	}
	mix := func(a, b uint8) uint8 { return uint8((float64(a)*opacity+float64(b)*under)/alpha + .5) }
	return color.NRGBA{mix(top.R, bottom.R), mix(top.G, bottom.G), mix(top.B, bottom.B), uint8(255*alpha + .5)}
}

// plain returns the same color at every height.
func (c *canvas) plain(p colorPair) func(float64) color.NRGBA {
	tint := p.in(c.theme)
	return func(float64) color.NRGBA { return tint }
}

// inside returns the distance of a point from the edge of the box, below zero outside.
func (b box) inside(p point) float64 {
	radius := 0.0
	if p.x < b.x+b.w/2 && b.left || p.x >= b.x+b.w/2 && b.right {
		radius = b.radius
	}
	dx := math.Abs(p.x-b.x-b.w/2) - b.w/2 + radius
	dy := math.Abs(p.y-b.y-b.h/2) - b.h/2 + radius
	return radius - math.Hypot(max(dx, 0), max(dy, 0)) - min(max(dx, dy), 0)
}

// core returns pixels that the box covers: all but the columns with corners.
func (b box) core(c *canvas) image.Rectangle {
	return c.pixels(b.x+b.radius, b.y, b.x+b.w-b.radius, b.y+b.h)
}

func (b box) png(c *canvas) {
	c.fill(b.x, b.y, b.x+b.w, b.y+b.h, b.core(c), c.plain(b.fill), b.inside)
}

func (sh shade) png(c *canvas) {
	c.fill(sh.x, sh.y, sh.x+sh.w, sh.y+sh.h, sh.core(c), func(y float64) color.NRGBA {
		share := min(max((y-sh.y)/sh.h, 0), 1)
		white, black := max(sh.top, 0)*(1-share)+max(sh.bottom, 0)*share, max(-sh.top, 0)*(1-share)+max(-sh.bottom, 0)*share
		level := uint8(math.Round(255 * white / max(white+black, 1e-9)))
		return color.NRGBA{level, level, level, uint8(math.Round(255 * (white + black)))}
	}, sh.inside)
}

func (d disc) png(c *canvas) {
	x, y, r := d.center.x, d.center.y, d.radius
	var core image.Rectangle // a square in the disc
	if half := r * math.Sqrt2 / 2; d.line == 0 {
		core = c.pixels(x-half, y-half, x+half, y+half)
	}
	c.fill(x-r, y-r, x+r, y+r, core, c.plain(d.fill), func(p point) float64 {
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
	c.fill(x1-l.stroke, y1-l.stroke, x2+l.stroke, y2+l.stroke, image.Rectangle{}, c.plain(l.fill), func(p point) float64 {
		nearest := math.Inf(1)
		for _, path := range l.paths {
			for i := 1; i < len(path); i++ {
				nearest = min(nearest, distance(p, path[i-1], path[i]))
			}
		}
		return l.stroke/2 - nearest
	})
}

// distance returns the distance of a point from the line between two others.
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
	// The glyphs are drawn once, for the shadow and for the text.
	at := fixed.Point26_6{X: fixed.Int26_6(t.at.x * c.scale * 64), Y: fixed.Int26_6(t.at.y * c.scale * 64)}
	metrics, width := face.Metrics(), fixed.Int26_6(t.width()*c.scale*64)
	bounds := image.Rect((at.X - metrics.Height).Floor(), (at.Y - metrics.Height).Floor(), (at.X + width + metrics.Height).Ceil(), (at.Y + metrics.Height).Ceil())
	glyphs := image.NewAlpha(bounds.Intersect(c.img.Rect))
	d := font.Drawer{Dst: glyphs, Src: image.Opaque, Face: face, Dot: at}
	d.DrawString(t.string)
	if t.shadow {
		c.stencil(glyphs, int(math.Round(c.scale)), color.NRGBA{1, 1, 1, 0x4c})
	}
	c.stencil(glyphs, 0, t.fill.in(c.theme))
}

// stencil colors the pixels that a mask covers, which is moved down.
func (c *canvas) stencil(mask *image.Alpha, down int, tint color.NRGBA) {
	bounds := mask.Rect.Add(image.Point{Y: down}).Intersect(c.img.Rect)
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		row := mask.Pix[mask.PixOffset(bounds.Min.X, y-down):][:bounds.Dx()]
		for i, covered := range row {
			if covered > 0 {
				c.blend(bounds.Min.X+i, y, tint, float64(covered)/255)
			}
		}
	}
}

func (p portrait) png(c *canvas) {
	img, _, err := image.Decode(bytes.NewReader(p.data))
	if err != nil {
		return // cannot happen: avatars have been encoded by this program
	}
	size := int(math.Round(2 * p.radius * c.scale))
	scaled := image.NewNRGBA(image.Rect(0, 0, size, size))
	draw.CatmullRom.Scale(scaled, scaled.Rect, img, img.Bounds(), draw.Src, nil)
	left, top := int((p.center.x-p.radius)*c.scale), int((p.center.y-p.radius)*c.scale)
	for y := range size {
		for x := range size {
			at := point{float64(x) + .5 - float64(size)/2, float64(y) + .5 - float64(size)/2}
			covered := min(max(float64(size)/2-math.Hypot(at.x, at.y)+.5, 0), 1)
			tint := scaled.NRGBAAt(x, y)
			c.blend(left+x, top+y, tint, covered)
		}
	}
}
