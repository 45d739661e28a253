package main

import (
	"cmp"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// A badgeStyle is how a status looks as an image.
type badgeStyle string

// The styles of badges.
const (
	styleFlat       badgeStyle = ""
	styleFlatSquare badgeStyle = "flat-square"
	stylePlastic    badgeStyle = "plastic"
	styleDot        badgeStyle = "dot"
	styleCard       badgeStyle = "card"
)

// badgeStyles are those that can be asked for. An address that asks for none, or for "flat", gets the flat one.
var badgeStyles = []badgeStyle{styleFlatSquare, stylePlastic, styleDot, styleCard}

// statePaints are the colours of the states, as the pages have them.
var statePaints = map[State]paint{
	Chat:         {rgb(0x1a7f4b), rgb(0x46c183)},
	Available:    {rgb(0x1a7f4b), rgb(0x46c183)},
	Away:         {rgb(0xa86500), rgb(0xefb042)},
	ExtendedAway: {rgb(0xa0522d), rgb(0xdd9468)},
	DoNotDisturb: {rgb(0xc0303a), rgb(0xf27d84)},
	Unavailable:  {rgb(0x667182), rgb(0x97a3b3)},
	Unknown:      {rgb(0x667182), rgb(0x97a3b3)},
}

// Colours of cards, as the pages have them.
var (
	cardGround = paint{rgb(0xffffff), rgb(0x1c222b)}
	cardEdge   = paint{rgb(0xdde2ea), rgb(0x2f3845)}
	cardText   = paint{rgb(0x1d2430), rgb(0xeceff4)}
	cardSoft   = paint{rgb(0x5a6473), rgb(0xa3adbb)}
	onState    = paint{rgb(0xffffff), rgb(0x12161c)} // what stands on a state's colour
	white      = solid(0xffffff)
	labelGrey  = solid(0x4a4f57)
)

// glyphs tell the states apart for those who do not see colours: lines in a square of 24.
var glyphs = map[State][][]point{
	Chat:         {{{6.5, 7.5}, {17.5, 7.5}, {17.5, 14.5}, {11.5, 14.5}, {8.5, 17.5}, {8.5, 14.5}, {6.5, 14.5}, {6.5, 7.5}}},
	Available:    {{{7, 12.5}, {10.5, 16}, {17, 9}}},
	Away:         {{{12, 6.5}, {12, 12}, {15.5, 14.5}}},
	ExtendedAway: {{{8.5, 7.5}, {15.5, 7.5}, {8.5, 16.5}, {15.5, 16.5}}},
	DoNotDisturb: {{{7, 12}, {17, 12}}},
	Unavailable:  {{{8.5, 8.5}, {15.5, 15.5}}, {{15.5, 8.5}, {8.5, 15.5}}},
	Unknown: {append(arc(point{12, 9.5}, 3, -180, 65), point{12.3, 12.9}, point{12, 14}),
		{{12, 16.7}, {12, 17}}},
}

// arc returns points of an arc, from one angle to another in degrees, clockwise from the right.
func arc(centre point, radius, from, to float64) (points []point) {
	const steps = 12
	for i := range steps + 1 {
		a := (from + (to-from)*float64(i)/steps) * math.Pi / 180
		points = append(points, point{centre.x + radius*math.Cos(a), centre.y + radius*math.Sin(a)})
	}
	return points
}

// mark draws a state: a disc with its glyph, or a ring for those who are not there.
func mark(state State, centre point, radius float64) []part {
	scale := radius / 11
	var paths [][]point
	for _, path := range glyphs[state] {
		var moved []point
		for _, p := range path {
			moved = append(moved, point{centre.x + (p.x-12)*scale, centre.y + (p.y-12)*scale})
		}
		paths = append(paths, moved)
	}
	glyph := lines{paths: paths, stroke: 2.2 * scale, fill: onState}
	if state.Online() {
		return []part{disc{centre: centre, radius: radius, fill: statePaints[state]}, glyph}
	}
	glyph.fill = statePaints[state]
	return []part{disc{centre: centre, radius: radius, line: 2 * scale, fill: statePaints[state]}, glyph}
}

// A look is what an address asks for besides the status itself.
type look struct {
	style    badgeStyle
	label    string // what stands before the state
	labelled bool   // there is a label, which may be empty
	size     int    // height in pixels, 0 for the natural one
	theme    theme
	fields   fieldSet // parts of the status that are wanted
	shields  bool     // JSON as shields.io wants it
}

// parseLook reads the query of an address. What makes no sense is as if it were not there, since an image is to be an image.
func parseLook(query url.Values) (l look) {
	if s := badgeStyle(query.Get("style")); slices.Contains(badgeStyles, s) {
		l.style = s
	}
	if query.Has("label") {
		l.label, l.labelled = singleLine(query.Get("label"), maxLabel), true
	}
	if size, err := strconv.Atoi(query.Get("size")); err == nil {
		l.size = min(max(size, minSize), maxSize)
	}
	if t := theme(query.Get("theme")); t == themeLight || t == themeDark {
		l.theme = t
	}
	l.fields = parseFields(query.Get("parts"))
	l.shields = query.Get("format") == "shields"
	return l
}

// labelOr returns the label, or another if there is none.
func (l look) labelOr(other string) string {
	if l.labelled {
		return l.label
	}
	return other
}

// height returns the height in pixels of a picture.
func (l look) height(p *picture) float64 {
	if l.size > 0 {
		return float64(l.size)
	}
	return p.height
}

const (
	defaultLabel  = "XMPP"
	maxLabel      = 64  // bytes
	minSize       = 8   // pixels
	maxSize       = 480 // the same
	cardWidth     = 320
	cardHeight    = 80
	badgeHeight   = 20
	plasticHeight = 18
)

// badge draws a status.
func badge(v view, l look) *picture {
	switch l.style {
	case styleDot:
		return &picture{width: badgeHeight, height: badgeHeight, title: title(l.label, v), parts: mark(v.State, point{10, 10}, 9.2)}
	case styleCard:
		return card(v, l)
	}
	return twoParts(v, l)
}

// title is what a badge says to those who do not see it.
func title(label string, v view) string {
	if label = cmp.Or(label, v.Nick); label != "" {
		return label + ": " + v.Label
	}
	return v.Label
}

// twoParts draws the badge that code hosts have made common: a label, and the state on its colour.
func twoParts(v view, l look) *picture {
	const margin = 6
	p := &picture{height: badgeHeight, title: title(l.labelOr(defaultLabel), v)}
	radius, baseline := 3.0, 14.0
	switch l.style {
	case styleFlatSquare:
		radius = 0
	case stylePlastic:
		p.height, radius, baseline = plasticHeight, 4, 13
	}
	shadowed := l.style != styleFlatSquare
	label := text{at: point{margin, baseline}, size: 11, string: l.labelOr(defaultLabel), fill: white, shadow: shadowed}
	left := 0.0
	if label.string != "" {
		left = math.Ceil(label.width()) + 2*margin - 1
	}
	state := text{at: point{left + margin, baseline}, size: 11, string: v.Label, fill: white, shadow: shadowed}
	right := math.Ceil(state.width()) + 2*margin
	p.width = left + right
	if label.string != "" {
		p.parts = append(p.parts, box{0, 0, left, p.height, radius, true, false, labelGrey})
	}
	p.parts = append(p.parts, box{left, 0, right, p.height, radius, label.string == "", true, paint{statePaints[v.State].light, statePaints[v.State].light}})
	whole := box{0, 0, p.width, p.height, radius, true, true, paint{}}
	switch l.style {
	case styleFlat:
		p.parts = append(p.parts, shade{whole, .08, -.08})
	case stylePlastic:
		p.parts = append(p.parts, shade{whole, .35, -.3})
	}
	if label.string != "" {
		p.parts = append(p.parts, label)
	}
	p.parts = append(p.parts, state)
	return p
}

// card draws a wide picture with all that is shown.
func card(v view, l look) *picture {
	p := &picture{width: cardWidth, height: cardHeight, title: title(l.label, v), parts: []part{
		box{0, 0, cardWidth, cardHeight, 12, true, true, cardEdge},
		box{1, 1, cardWidth - 2, cardHeight - 2, 11, true, true, cardGround},
	}}
	const faceX, faceY, left, right = 42, 40, 84, 16
	if v.Avatar != nil {
		p.parts = append(p.parts, portrait{point{faceX, faceY}, 27, v.Avatar.Data}, disc{centre: point{faceX + 20, faceY + 19}, radius: 11.5, fill: cardGround})
		p.parts = append(p.parts, mark(v.State, point{faceX + 20, faceY + 19}, 9.5)...)
	} else {
		p.parts = append(p.parts, mark(v.State, point{faceX, faceY}, 24)...)
	}
	rows := cardRows(v, cmp.Or(l.label, v.Nick))
	y := (cardHeight - 19*float64(len(rows)) + 15) / 2
	for _, row := range rows {
		row.at = point{left, y + 5}
		p.parts = append(p.parts, row.fits(cardWidth-left-right))
		y += 19
	}
	return p
}

// cardRows are the lines of a card: who, the state, and the message or when the person was there last.
func cardRows(v view, name string) (rows []text) {
	big := text{size: 16, bold: true, string: v.Label, fill: statePaints[v.State]}
	if name != "" {
		rows = append(rows, text{size: 16, bold: true, string: name, fill: cardText})
		big.size = 13
	}
	rows = append(rows, big)
	for _, more := range []string{strings.Join(strings.Fields(v.Message), " "), v.LastActive, v.JID} {
		if more != "" && len(rows) < 3 {
			rows = append(rows, text{size: 13, string: more, fill: cardSoft})
		}
	}
	return rows
}
