package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/language"
)

// A view is everything of a user that may leave the process. All representations are made of it and of nothing else.
type view struct {
	State   State
	Label   string
	Message string       // empty if not shown
	Nick    string       // the same
	Avatar  *Avatar      // nil if not shown
	JID     string       // bare; empty if not shown
	Since   time.Time    // when the state began; zero if not known or not shown
	Idle    time.Time    // since when somebody who is online is not active, coarsely; zero if not shown
	Seen    time.Time    // when somebody who is offline was online last, coarsely; zero if not shown
	Active  string       // how long ago that was, in words; empty if neither is shown
	Ago     string       // the same without "last active"
	Clients []viewClient // nil if not shown
	AsOf    time.Time    // until when the state is known to be right; zero for now
	Listed  bool         // search engines may list the page
}

// A viewClient is one of several connected clients.
type viewClient struct {
	Resource string
	State    State
	Label    string
	Message  string // empty if not shown
	Priority int8
}

// A validity is what the time and the link to the XMPP server make of a snapshot.
type validity struct {
	lost   bool      // too old to be shown
	asOf   time.Time // when the link broke, zero while it is up
	active age       // how long ago the person was active, if that is shown
}

// An age is how long ago something was, as coarsely as we say it.
type age struct {
	count int
	unit  time.Duration // zero for no age
}

// ageOf returns how long ago a time was: in minutes, later in hours, then in days.
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

// in puts an age in words.
func (a age) in(lang *catalogue) string {
	names := map[time.Duration]string{time.Minute: "ago.minutes", time.Hour: "ago.hours", 24 * time.Hour: "ago.days"}
	return lang.text(names[a.unit], "count", strconv.Itoa(a.count))
}

// lastActive returns when the person was active last, if that is shown and not now.
func (s *snapshot) lastActive() time.Time {
	switch {
	case !s.options.ShowLastSeen:
		return time.Time{}
	case s.status.State == Unavailable:
		return s.status.Since
	}
	return s.status.Idle
}

func (s *snapshot) validity(l *linkState, now time.Time) validity {
	switch {
	case s.link < l.valid:
		return validity{lost: true}
	case s.status.State == Unknown:
		return validity{}
	}
	v := validity{asOf: l.since}
	if t := s.lastActive(); !t.IsZero() {
		v.active = ageOf(t, now)
	}
	return v
}

// view returns what may be shown, in a language, with the message that stands at an index.
func (s *snapshot) view(v validity, lang *catalogue, message int) view {
	shown := view{State: s.status.State, AsOf: v.asOf, Listed: s.options.SearchEngines}
	if v.lost {
		shown.State = Unknown
	}
	if shown.State.Online() {
		shown.Since = s.status.Since // else it would be the time when the user was last seen
		if s.options.ShowMessage && message < len(s.status.Messages) {
			shown.Message = s.status.Messages[message].Body
		}
		shown.Clients = s.viewClients(lang)
	}
	if v.active.unit > 0 {
		at := s.lastActive().UTC().Truncate(v.active.unit)
		if shown.Seen = at; shown.State.Online() {
			shown.Idle, shown.Seen = at, time.Time{}
		}
		shown.Ago = v.active.in(lang)
		shown.Active = lang.text("page.active", "ago", shown.Ago)
	}
	if s.options.ShowNick {
		shown.Nick = s.profile.orNone().Nick
	}
	if s.options.ShowAvatar {
		shown.Avatar = s.profile.orNone().Avatar
	}
	if s.options.ShowJID {
		shown.JID = s.jid
	}
	shown.Label = lang.text("state." + string(shown.State))
	return shown
}

// viewClients returns the connected clients as far as they are shown. Each has one message, the first.
func (s *snapshot) viewClients(lang *catalogue) (shown []viewClient) {
	for _, p := range s.clients {
		client := viewClient{Resource: p.Resource, State: p.State, Label: lang.text("state." + string(p.State)), Priority: p.Priority}
		if s.options.ShowMessage && len(p.Messages) > 0 {
			client.Message = p.Messages[0].Body
		}
		shown = append(shown, client)
	}
	return shown
}

// messageFor returns the index of the message that suits a reader best, given the languages that the reader asks for, the
// dearest first (RFC 9110 §12.5.4). The first message is for those whose language is not among them.
func (s *snapshot) messageFor(accepted []language.Tag) int {
	tags := make([]language.Tag, len(s.status.Messages))
	for i, m := range s.status.Messages {
		tags[i] = language.Make(m.Lang)
	}
	_, i, _ := language.NewMatcher(tags).Match(accepted...)
	return i
}

// isMultilingual reports whether the reader's language makes a difference.
func (s *snapshot) isMultilingual() bool { return s.options.ShowMessage && len(s.status.Messages) > 1 }

// A set of parts that an address asks for, none for all that are shown.
type parts uint8

// The parts of a status besides its state.
const (
	partMessage parts = 1 << iota
	partSince
	partNick
	partAvatar
	partJID
	partActive
	partResources
)

var partNames = []string{"message", "since", "nick", "avatar", "jid", "active", "resources"} // in the order of the constants

// parseParts reads names separated by commas; other words name nothing. The state alone is "state".
func parseParts(names string) (p parts) {
	for name := range strings.SplitSeq(names, ",") {
		if i := slices.Index(partNames, name); i >= 0 {
			p |= 1 << i
		}
	}
	if p == 0 && names != "" {
		p = 1 << len(partNames)
	}
	return p
}

// only leaves out the parts that are not wanted.
func (v view) only(wanted parts) view {
	if wanted == 0 {
		return v
	}
	if wanted&partMessage == 0 {
		v.Message = ""
		v.Clients = slices.Clone(v.Clients)
		for i := range v.Clients {
			v.Clients[i].Message = ""
		}
	}
	if wanted&partSince == 0 {
		v.Since = time.Time{}
	}
	if wanted&partNick == 0 {
		v.Nick = ""
	}
	if wanted&partAvatar == 0 {
		v.Avatar = nil
	}
	if wanted&partJID == 0 {
		v.JID = ""
	}
	if wanted&partActive == 0 {
		v.Idle, v.Seen, v.Active, v.Ago = time.Time{}, time.Time{}, "", ""
	}
	if wanted&partResources == 0 {
		v.Clients = nil
	}
	return v
}

// nobody is what is shown of an address that is nobody's.
func nobody(lang *catalogue) view { return view{State: Unknown, Label: lang.text("state.unknown")} }

// anyone sums up several people: the most available of them, and how many are there.
func anyone(views []view) view {
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
