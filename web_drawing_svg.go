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
