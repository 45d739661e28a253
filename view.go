package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/language"
)

// A view contains everything about a user that may leave the process. Every representation is rendered only from views.
type view struct {
	State      State
	Label      string         // the state in the client's language
	Message    string         // empty if not shown
	Nick       string         // empty if not shown
	Avatar     *Avatar        // nil if not shown
	JID        string         // bare; empty if not shown
	Since      time.Time      // when the state began; zero if unknown or not shown
	Idle       time.Time      // since when an online user has been idle, rounded down; zero if not shown
	LastSeen   time.Time      // when an offline user was last online, rounded down; zero if not shown
	LastActive string         // how long ago either of these was, as a sentence; empty if not shown
	Ago        string         // the same as a duration only
	Resources  []viewResource // nil if not shown
	AsOf       time.Time      // time up to which the state is known to be current; zero if it is current now
	Indexed    bool           // search engines may index the page
	Room       *Room          // the view is that of a room; nil for a person
	Address    string         // by which the representation may name itself: a token, or the JID in base64; empty for none

	Rich          RichPresence // without the fields that are not shown
	ActivityLabel string       // the activity in the client's language; empty if not shown
	MoodLabel     string       // the mood in the client's language; empty if not shown
}

// A viewResource is one connected resource.
type viewResource struct {
	Name     string
	State    State
	Label    string
	Message  string // empty if not shown
	Priority int8
}

// A viewDetail is an activity, a mood or a tune.
type viewDetail struct {
	Label string
	Text  string // the user's own text; empty for none
}

// String returns the detail in one line.
func (d viewDetail) String() string {
	if d.Text == "" {
		return d.Label
	}
	return d.Label + " – " + d.Text
}

// tuneMark stands before a tune in texts for people.
const tuneMark = "♫ "

// details returns the activity, the mood and the tune, those of them that are shown.
func (v *view) details() (all []viewDetail) {
	if v.ActivityLabel != "" {
		all = append(all, viewDetail{v.ActivityLabel, v.Rich.Activity.Text})
	}
	if v.MoodLabel != "" {
		all = append(all, viewDetail{v.MoodLabel, v.Rich.Mood.Text})
	}
	if tune := v.Rich.Tune.String(); tune != "" {
		all = append(all, viewDetail{tuneMark + tune, ""})
	}
	return all
}

// detailsText returns the details in one line, empty if there are none.
func (v *view) detailsText() string {
	var b strings.Builder
	for i, d := range v.details() {
		if i > 0 {
			b.WriteString(" · ")
		}
		b.WriteString(d.String())
	}
	return b.String()
}

// A freshness is what the clock and the link to the XMPP server contribute to a view: everything that can change while the
// snapshot does not.
type freshness struct {
	expired bool      // too old to be shown
	asOf    time.Time // when the link broke; zero while it is up
	active  age       // how long ago the user was active, if that is shown
}

// An age is a duration, rounded as it is shown.
type age struct {
	count int
	unit  time.Duration // zero for no age
}

// ageOf returns how long ago t was: in minutes, after an hour in hours, after a day in days.
func ageOf(t, now time.Time) age {
	unit := time.Minute
	switch d := now.Sub(t); {
	case d >= 24*time.Hour:
		unit = 24 * time.Hour
	case d >= time.Hour:
		unit = time.Hour
	}
	return age{max(1, int(now.Sub(t.Truncate(unit))/unit)), unit}
}

// in returns the age in words.
func (a age) in(lang *catalog) string {
	names := map[time.Duration]string{time.Minute: "ago.minutes", time.Hour: "ago.hours", 24 * time.Hour: "ago.days"}
	return lang.text(names[a.unit], "count", strconv.Itoa(a.count))
}

// lastActive returns when the user was last active; zero if that is now or not shown.
func (s *snapshot) lastActive() time.Time {
	switch {
	case !s.options.has(fieldLastSeen):
		return time.Time{}
	case s.status.State == Unavailable:
		return s.status.Since
	}
	return s.status.Idle
}

// freshness returns the freshness of a snapshot at a time.
func (s *snapshot) freshness(l *linkState, now time.Time) freshness {
	switch {
	case s.link < l.oldestValid:
		return freshness{expired: true}
	case s.status.State == Unknown:
		return freshness{}
	}
	f := freshness{asOf: l.staleSince()}
	if t := s.lastActive(); !t.IsZero() {
		f.active = ageOf(t, now)
	}
	return f
}

// state returns the state that may be shown.
func (s *snapshot) state(f freshness) State {
	if f.expired {
		return Unknown
	}
	return s.status.State
}

// fill sets a view to what may be shown, in a language, with the message of an index. (A view that is returned would be allocated twice.)
func (s *snapshot) fill(v *view, f freshness, lang *catalog, message int) {
	*v = view{State: s.state(f), AsOf: f.asOf, Indexed: s.options.has(fieldSearchEngines), Nick: s.profile.orEmpty().Nick,
		Avatar: s.profile.orEmpty().Avatar, JID: s.jid}
	if v.State.Online() {
		v.Since = s.status.Since // of an offline user it is the time when they were last seen
		if message < len(s.status.Messages) {
			v.Message = s.status.Messages[message].Body
		}
		v.Resources = viewResources(s.status.Resources, lang)
		if s.status.Rich != nil {
			v.Rich = *s.status.Rich
			v.ActivityLabel, v.MoodLabel = v.Rich.Activity.label(lang), v.Rich.Mood.label(lang)
		}
	}
	if f.active.unit > 0 {
		at := s.lastActive().UTC().Truncate(f.active.unit)
		if v.LastSeen = at; v.State.Online() {
			v.Idle, v.LastSeen = at, time.Time{}
		}
		v.Ago = f.active.in(lang)
		v.LastActive = lang.text("page.active", "ago", v.Ago)
	}
	v.Label = lang.Text("state." + string(v.State))
	v.hideAllBut(s.options | fieldsAlwaysShown)
}

// address returns the address by which a page that was found by JID, or by token, may name itself: neither reveals the other, and
// the JID-based one is empty unless the JID is shown.
func (s *snapshot) address(byJID bool) string {
	switch {
	case !byJID:
		return s.token.String()
	case s.options.has(fieldJID):
		return encodeJID(s.jid)
	}
	return ""
}

// viewResources returns the connected resources, each with its first message.
func viewResources(resources []Presence, lang *catalog) (shown []viewResource) {
	for _, p := range resources {
		r := viewResource{Name: withoutDirection(p.Resource), State: p.State, Label: lang.Text("state." + string(p.State)), Priority: p.Priority}
		if len(p.Messages) > 0 {
			r.Message = p.Messages[0].Body
		}
		shown = append(shown, r)
	}
	return shown
}

// fieldsAlwaysShown is the set of the fields that no option controls.
var fieldsAlwaysShown = fieldsWhere(func(f field) bool { return f.option == "" })

// hideAllBut hides every field that is not in a set.
func (v *view) hideAllBut(shown fieldSet) {
	for i := range fields {
		if hide := fields[i].hide; hide != nil && !shown.has(i) {
			hide(v)
		}
	}
}

func (v *view) hideMessage() {
	v.Message = ""
	v.Resources = slices.Clone(v.Resources)
	for i := range v.Resources {
		v.Resources[i].Message = ""
	}
}

func (v *view) hideActivity() { v.Rich.Activity, v.ActivityLabel = Activity{}, "" }

func (v *view) hideMood() { v.Rich.Mood, v.MoodLabel = Mood{}, "" }

func (v *view) hideLastActive() {
	v.Idle, v.LastSeen, v.LastActive, v.Ago = time.Time{}, time.Time{}, "", ""
}

// messageFor returns the index of the message that fits best the languages that a client accepts, in order of preference
// (RFC 9110 §12.5.4). The first message serves clients that accept none of them.
func (s *snapshot) messageFor(accepted []language.Tag) int {
	tags := make([]language.Tag, len(s.status.Messages))
	for i, m := range s.status.Messages {
		tags[i] = language.Make(m.Lang)
	}
	_, i, _ := language.NewMatcher(tags).Match(accepted...)
	return i
}

// isMultilingual reports whether the message depends on the client's language.
func (s *snapshot) isMultilingual() bool {
	return s.options.has(fieldMessage) && len(s.status.Messages) > 1
}

// parseFields parses the names of fields, separated by commas, as ?parts= has them; unknown names are ignored, so "state" alone
// stands for no field. An empty list stands for all fields.
func parseFields(names string) (s fieldSet) {
	if names == "" {
		return allFields
	}
	for name := range strings.SplitSeq(names, ",") {
		if i := fieldIndex(func(f field) bool { return f.query == name && name != "" }); i >= 0 {
			s = s.with(i, true)
		}
	}
	return s
}

// labelIn returns the label in another language.
func (v *view) labelIn(lang *catalog) string {
	if v.Room != nil {
		return v.Room.label(lang)
	}
	return lang.text("state." + string(v.State))
}

// unknownView is shown at addresses that do not exist.
func unknownView(lang *catalog) view { return view{State: Unknown, Label: lang.Text("state.unknown")} }

// aggregate summarizes several users: the most available state, and how many of them are online.
func aggregate(views []view) view {
	best, online := views[0], 0
	for _, v := range views {
		if slices.Index(states, v.State) < slices.Index(states, best.State) {
			best = v
		}
		if v.State.Online() {
			online++
		}
	}
	return view{State: best.State, Label: fmt.Sprintf("%s %d/%d", best.Label, online, len(views))}
}
