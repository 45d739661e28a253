package main

import (
	"cmp"
	"context"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// A badgeStyle is a value of ?style= of an image.
type badgeStyle string

// The styles of badges.
const (
	styleFlat       badgeStyle = ""
	styleFlatSquare badgeStyle = "flat-square"
	stylePlastic    badgeStyle = "plastic"
	styleDot        badgeStyle = "dot"
	styleCard       badgeStyle = "card"
)

// badgeStyles are the styles that a query can name. Without one of them, as with "flat", a badge is flat.
var badgeStyles = []badgeStyle{styleFlatSquare, stylePlastic, styleDot, styleCard}

// stateColors are the colors of the states, the same as in templates/status.css.
var stateColors = map[State]colorPair{
	Chat:         {rgb(0x1a7f4b), rgb(0x46c183)},
	Available:    {rgb(0x1a7f4b), rgb(0x46c183)},
	Away:         {rgb(0xa86500), rgb(0xefb042)},
	ExtendedAway: {rgb(0xa0522d), rgb(0xdd9468)},
	DoNotDisturb: {rgb(0xc0303a), rgb(0xf27d84)},
	Unavailable:  {rgb(0x667182), rgb(0x97a3b3)},
	Unknown:      {rgb(0x667182), rgb(0x97a3b3)},
}

// Colors of cards, the same as in templates/status.css.
var (
	cardGround = colorPair{rgb(0xffffff), rgb(0x1c222b)}
	cardEdge   = colorPair{rgb(0xdde2ea), rgb(0x2f3845)}
	cardText   = colorPair{rgb(0x1d2430), rgb(0xeceff4)}
	cardSoft   = colorPair{rgb(0x5a6473), rgb(0xa3adbb)}
	onState    = colorPair{rgb(0xffffff), rgb(0x12161c)} // text and glyphs on the color of a state
	white      = solid(0xffffff)
	labelGray  = solid(0x4a4f57)
)

// glyphs tell the states apart without colors (WCAG 2.2 §1.4.1): lines in a square of 24.
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

// arc returns points on an arc between two angles, in degrees clockwise from the right.
func arc(center point, radius, from, to float64) (points []point) {
	const steps = 12
	for i := range steps + 1 {
		a := (from + (to-from)*float64(i)/steps) * math.Pi / 180
		points = append(points, point{center.x + radius*math.Cos(a), center.y + radius*math.Sin(a)})
	}
	return points
}

// stateMark draws a state: a disc with its glyph, or a ring for states that are not online.
func stateMark(state State, center point, radius float64) []shape {
	scale := radius / 11
	var paths [][]point
	for _, path := range glyphs[state] {
		var moved []point
		for _, p := range path {
			moved = append(moved, point{center.x + (p.x-12)*scale, center.y + (p.y-12)*scale})
		}
		paths = append(paths, moved)
	}
	glyph := lines{paths: paths, stroke: 2.2 * scale, fill: onState}
	if state.Online() {
		return []shape{disc{center: center, radius: radius, fill: stateColors[state]}, glyph}
	}
	glyph.fill = stateColors[state]
	return []shape{disc{center: center, radius: radius, line: 2 * scale, fill: stateColors[state]}, glyph}
}

// imageOptions are the options in the query of an image's URL.
type imageOptions struct {
	style    badgeStyle
	label    string // text before the state
	labelled bool   // the query names a label, which may be empty
	size     int    // height in pixels, 0 for the natural one
	theme    theme
}

// parseImageOptions reads a query. Invalid values are ignored, because a request for an image must always return one.
func parseImageOptions(query url.Values) (o imageOptions) {
	if s := badgeStyle(query.Get("style")); slices.Contains(badgeStyles, s) {
		o.style = s
	}
	if query.Has("label") {
		o.label, o.labelled = singleLine(query.Get("label"), maxLabel), true
	}
	if size, err := strconv.Atoi(query.Get("size")); err == nil {
		o.size = min(max(size, minSize), maxSize)
	}
	o.theme = parseTheme(query)
	return o
}

func parseTheme(query url.Values) theme {
	if t := theme(query.Get("theme")); t == themeLight || t == themeDark {
		return t
	}
	return themeAuto
}

// labelOr returns the label, or a default if the query names none.
func (o imageOptions) labelOr(label string) string {
	if o.labelled {
		return o.label
	}
	return label
}

// maxSmall is the height in pixels of a badge that a PNG renders about as fast as a page: twice the natural height.
const maxSmall = 2 * badgeHeight

// isSmall reports whether the image is a badge of at most twice its natural size.
func (o imageOptions) isSmall() bool { return o.style != styleCard && o.size <= maxSmall }

// height returns the requested height of a drawing in pixels.
func (o imageOptions) height(d *drawing) float64 {
	if o.size > 0 {
		return float64(o.size)
	}
	return d.height
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

// badge draws a view as a badge or a card.
func badge(v view, o imageOptions) *drawing {
	switch o.style {
	case styleDot:
		return &drawing{width: badgeHeight, height: badgeHeight, title: title(o.label, v), shapes: stateMark(v.State, point{10, 10}, 9.2)}
	case styleCard:
		return card(v, o)
	}
	return labelBadge(v, o)
}

// title returns the alternative text of a badge.
func title(label string, v view) string {
	if label = cmp.Or(label, v.Nick); label != "" {
		return label + ": " + v.Label
	}
	return v.Label
}

// labelBadge draws a badge as is common on code hosts: a label, and the state on its color.
func labelBadge(v view, o imageOptions) *drawing {
	const margin = 6
	d := &drawing{height: badgeHeight, title: title(o.labelOr(defaultLabel), v)}
	radius, baseline := 3.0, 14.0
	switch o.style {
	case styleFlatSquare:
		radius = 0
	case stylePlastic:
		d.height, radius, baseline = plasticHeight, 4, 13
	}
	shadowed := o.style != styleFlatSquare
	label := text{at: point{margin, baseline}, size: 11, string: o.labelOr(defaultLabel), fill: white, shadow: shadowed}
	left := 0.0
	if label.string != "" {
		left = math.Ceil(label.width()) + 2*margin - 1
	}
	state := text{at: point{left + margin, baseline}, size: 11, string: v.Label, fill: white, shadow: shadowed}
	right := math.Ceil(state.width()) + 2*margin
	d.width = left + right
	if label.string != "" {
		d.shapes = append(d.shapes, box{0, 0, left, d.height, radius, true, false, labelGray})
	}
	d.shapes = append(d.shapes, box{left, 0, right, d.height, radius, label.string == "", true, colorPair{stateColors[v.State].light, stateColors[v.State].light}})
	whole := box{0, 0, d.width, d.height, radius, true, true, colorPair{}}
	switch o.style {
	case styleFlat:
		d.shapes = append(d.shapes, shade{whole, .08, -.08})
	case stylePlastic:
		d.shapes = append(d.shapes, shade{whole, .35, -.3})
	}
	if label.string != "" {
		d.shapes = append(d.shapes, label)
	}
	d.shapes = append(d.shapes, state)
	return d
}

// card draws a card with the name, the state and further fields.
func card(v view, o imageOptions) *drawing {
	d := &drawing{width: cardWidth, height: cardHeight, title: title(o.label, v), shapes: []shape{
		box{0, 0, cardWidth, cardHeight, 12, true, true, cardEdge},
		box{1, 1, cardWidth - 2, cardHeight - 2, 11, true, true, cardGround},
	}}
	const faceX, faceY, left, right = 42, 40, 84, 16
	if v.Avatar != nil {
		d.shapes = append(d.shapes, portrait{point{faceX, faceY}, 27, v.Avatar.Data}, disc{center: point{faceX + 20, faceY + 19}, radius: 11.5, fill: cardGround})
		d.shapes = append(d.shapes, stateMark(v.State, point{faceX + 20, faceY + 19}, 9.5)...)
	} else {
		d.shapes = append(d.shapes, stateMark(v.State, point{faceX, faceY}, 24)...)
	}
	rows := cardRows(v, cmp.Or(o.label, v.Nick))
	pitch := 19.0
	if len(rows) > 3 {
		pitch = 17
	}
	y := (cardHeight - pitch*float64(len(rows)) + pitch - 4) / 2
	for _, row := range rows {
		row.at = point{left, y + 5}
		d.shapes = append(d.shapes, row.fits(cardWidth-left-right))
		y += pitch
	}
	return d
}

// cardRows returns the lines of a card, at most three: the name, the state, and the message, the last activity or the JID. The activity,
// the mood and the tune have a further line.
func cardRows(v view, name string) (rows []text) {
	big := text{size: 16, bold: true, string: v.Label, fill: stateColors[v.State]}
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
	if details := v.detailsText(); details != "" {
		rows = append(rows, text{size: 13, string: details, fill: cardSoft})
	}
	return rows
}

// avatarPlaceholder draws the avatar of a user who shows none: a head and shoulders.
func avatarPlaceholder() *drawing {
	return &drawing{width: avatarSize, height: avatarSize, shapes: []shape{
		disc{center: point{40, 40}, radius: 40, fill: solid(0x97a3b3)},
		disc{center: point{40, 31}, radius: 14, fill: white},
		box{16, 50, 48, 34, 17, true, true, white},
	}}
}

// logo draws the logo of the service, a tick on a green disc. docs/logo.svg is a copy.
func logo() *drawing {
	return &drawing{width: 96, height: 96, title: "webstatus", shapes: []shape{
		disc{center: point{48, 48}, radius: 46, fill: solid(0x1a7f4b)},
		lines{paths: [][]point{{{28, 50}, {42, 64}, {69, 35}}}, stroke: 10, fill: solid(0xffffff)},
	}}
}

// serviceAvatar returns the avatar of the service itself, the logo, as a PNG of 96 × 96 pixels.
func serviceAvatar() ([]byte, error) {
	d := logo()
	return d.writePNG(context.Background(), themeLight, d.height)
}
