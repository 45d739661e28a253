package main

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
)

// An svgWriter collects the elements of a drawing.
type svgWriter struct {
	bytes.Buffer
	theme  theme
	colors []colorPair // the pairs that have a class, by its number
	count  int         // of ids
}

// writeSVG returns a drawing as SVG at a height in pixels.
func (d *drawing) writeSVG(t theme, height float64) []byte {
	s := &svgWriter{theme: t}
	s.Grow(2 << 10) // for most
	for _, shape := range d.shapes {
		shape.svg(s)
	}
	var b bytes.Buffer
	b.Grow(s.Len() + 1<<10)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%s" height="%s" viewBox="0 0 %s %s" role="img" aria-label="%s"><title>%[5]s</title>`,
		number(d.width*height/d.height), number(height), number(d.width), number(d.height), escaped(d.title))
	if len(s.colors) > 0 {
		b.WriteString("<style>")
		for i, p := range s.colors {
			fmt.Fprintf(&b, ".f%d{fill:%s}.s%[1]d{stroke:%[2]s}", i, hexColor(p.light))
		}
		b.WriteString("@media(prefers-color-scheme:dark){")
		for i, p := range s.colors {
			fmt.Fprintf(&b, ".f%d{fill:%s}.s%[1]d{stroke:%[2]s}", i, hexColor(p.dark))
		}
		b.WriteString("}</style>")
	}
	b.Write(s.Bytes())
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// number formats a length with at most two decimals.
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

// paint returns the attribute that colors a fill or a stroke: a class where the client's system decides between light and dark.
func (s *svgWriter) paint(attribute string, p colorPair) string {
	if s.theme != themeAuto || p.light == p.dark {
		return fmt.Sprintf(`%s="%s"`, attribute, hexColor(p.in(s.theme)))
	}
	for i, known := range s.colors {
		if known == p {
			return fmt.Sprintf(`class="%c%d"`, attribute[0], i)
		}
	}
	s.colors = append(s.colors, p)
	return s.paint(attribute, p)
}

// outline returns the edge of the box as path data (SVG 2 §9.3).
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
	fmt.Fprintf(s, `<path d="%s" %s/>`, b.outline(), s.paint("fill", b.fill))
}

func (sh shade) svg(s *svgWriter) {
	s.count++
	stop := func(at int, opacity float64) string {
		stopColor := "#fff"
		if opacity < 0 {
			stopColor = "#000"
		}
		return fmt.Sprintf(`<stop offset="%d" stop-color="%s" stop-opacity="%s"/>`, at, stopColor, number(math.Abs(opacity)))
	}
	fmt.Fprintf(s, `<linearGradient id="g%d" x2="0" y2="1">%s%s</linearGradient><path d="%s" fill="url(#g%[1]d)"/>`,
		s.count, stop(0, sh.top), stop(1, sh.bottom), sh.outline())
}

func (d disc) svg(s *svgWriter) {
	if d.line == 0 {
		fmt.Fprintf(s, `<circle cx="%s" cy="%s" r="%s" %s/>`, number(d.center.x), number(d.center.y), number(d.radius), s.paint("fill", d.fill))
		return
	}
	fmt.Fprintf(s, `<circle cx="%s" cy="%s" r="%s" fill="none" stroke-width="%s" %s/>`, number(d.center.x), number(d.center.y),
		number(d.radius-d.line/2), number(d.line), s.paint("stroke", d.fill))
}

// pathData returns polylines as path data (SVG 2 §9.3).
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
		pathData(l.paths), number(l.stroke), s.paint("stroke", l.fill))
}

func (t text) svg(s *svgWriter) {
	weight := ""
	if t.bold {
		weight = ` font-weight="700"`
	}
	write := func(dy float64, paint string) {
		// textLength keeps the text as wide as measured, whichever font the client has.
		fmt.Fprintf(s, `<text x="%s" y="%s" font-family="Helvetica,Arial,sans-serif" font-size="%s"%s textLength="%s" lengthAdjust="spacingAndGlyphs" %s>%s</text>`,
			number(t.at.x), number(t.at.y+dy), number(t.size), weight, number(t.width()), paint, escaped(t.string))
	}
	if t.shadow {
		write(1, `fill="#010101" fill-opacity=".3" aria-hidden="true"`)
	}
	write(0, s.paint("fill", t.fill))
}

func (p portrait) svg(s *svgWriter) {
	s.count++
	fmt.Fprintf(s, `<clipPath id="p%d"><circle cx="%s" cy="%s" r="%s"/></clipPath><image x="%s" y="%s" width="%s" height="%[7]s" clip-path="url(#p%[1]d)" href="data:%s;base64,%s"/>`,
		s.count, number(p.center.x), number(p.center.y), number(p.radius), number(p.center.x-p.radius), number(p.center.y-p.radius), number(2*p.radius),
		http.DetectContentType(p.data), base64.StdEncoding.EncodeToString(p.data))
}
