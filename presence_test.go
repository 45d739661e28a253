package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// at returns noon plus a number of minutes.
func at(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }

func TestParsePresence(t *testing.T) {
	tests := []struct {
		name, in string
		want     Presence
	}{
		{"plain", ``, Presence{State: Available}},
		{"show", `<show>xa</show>`, Presence{State: ExtendedAway}},
		{"show with space", "<show>\n dnd </show>", Presence{State: DoNotDisturb}},
		{"unknown show", `<show>gone fishing</show>`, Presence{State: Available}},
		{"show with a state that is not a show value", `<show>unavailable</show>`, Presence{State: Available}},
		{"empty show", `<show/>`, Presence{State: Available}},
		{"show of another namespace", `<x xmlns='x'><show>dnd</show></x><show xmlns='x'>dnd</show>`, Presence{State: Available}},
		{"priority", `<priority> -5 </priority>`, Presence{State: Available, Priority: -5}},
		{"priority too high", `<priority>999</priority>`, Presence{State: Available, Priority: 127}},
		{"priority too low", `<priority>-99999999999999999999</priority>`, Presence{State: Available, Priority: -128}},
		{"priority not a number", `<priority>abc</priority>`, Presence{State: Available}},
		{"messages", `<status>lunch</status><status xml:lang='de'>Mittag</status><status xml:lang='de'>noch einmal</status><status xml:lang='fr'> </status>`,
			Presence{State: Available, Messages: []Text{{"", "lunch"}, {"de", "Mittag"}}}},
		{"message too long", `<status>` + strings.Repeat("ä", 1000) + `</status>`,
			Presence{State: Available, Messages: []Text{{"", strings.Repeat("ä", 510) + "…"}}}},
		{"delay", `<delay xmlns='urn:xmpp:delay' stamp='2026-11-22T11:00:00Z'/>`, Presence{State: Available, Delayed: true, Since: at(-60)}},
		{"legacy delay", `<x xmlns='jabber:x:delay' stamp='20261122T11:00:00'/>`, Presence{State: Available, Delayed: true, Since: at(-60)}},
		{"delay in the future", `<delay xmlns='urn:xmpp:delay' stamp='2030-01-01T00:00:00Z'/>`, Presence{State: Available, Delayed: true}},
		{"malformed delay", `<delay xmlns='urn:xmpp:delay' stamp='yesterday'/>`, Presence{State: Available}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := decodeStanza([]byte(`<presence from='a@b/c' to='d'>` + tt.in + `</presence>`))
			if err != nil {
				t.Fatal(err)
			}
			want := tt.want
			want.Resource = "c"
			if want.Since.IsZero() {
				want.Since = noon
			}
			if diff := cmp.Diff(want, parsePresence(s, noon)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPresenceInheritsLanguage(t *testing.T) {
	s, err := decodeStanza([]byte(`<presence from='a@b/c' to='d' xml:lang='nl'><status>pauze</status><status xml:lang='en'>break</status></presence>`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Text{{"nl", "pauze"}, {"en", "break"}}, parsePresence(s, noon).Messages); diff != "" {
		t.Error(diff)
	}
}

func TestStatus(t *testing.T) {
	available := func(resource string, state State, priority int8, minute int) Presence {
		return Presence{Resource: resource, State: state, Priority: priority, Since: at(minute), Messages: []Text{{"", resource}}}
	}
	tests := []struct {
		name      string
		resources Resources
		want      string // the resource whose presence is used
		state     State
	}{
		{"none", nil, "", Unavailable},
		{"one", Resources{available("a", Away, 0, 0)}, "a", Away},
		{"highest priority", Resources{available("a", Chat, 0, 9), available("b", ExtendedAway, 5, 0)}, "b", ExtendedAway},
		{"negative priority alone", Resources{available("a", Available, -1, 0)}, "a", Available},
		{"negative priority beside another", Resources{available("a", Chat, -1, 0), available("b", DoNotDisturb, 0, 0)}, "b", DoNotDisturb},
		{"chat before available", Resources{available("a", Available, 0, 9), available("b", Chat, 0, 0)}, "b", Chat},
		{"available before away", Resources{available("a", Away, 0, 9), available("b", Available, 0, 0)}, "b", Available},
		{"away before xa", Resources{available("a", ExtendedAway, 0, 9), available("b", Away, 0, 0)}, "b", Away},
		{"xa before dnd", Resources{available("a", DoNotDisturb, 0, 9), available("b", ExtendedAway, 0, 0)}, "b", ExtendedAway},
		{"newest", Resources{available("a", Away, 0, 1), available("b", Away, 0, 2), available("c", Away, 0, 0)}, "b", Away},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.resources.Status()
			if got.State != tt.state || tt.want != "" && got.Messages[0].Body != tt.want {
				t.Errorf("%+v, want %s of %s", got, tt.state, tt.want)
			}
		})
	}
}

func TestResources(t *testing.T) {
	p := func(resource string, state State, minute int, delayed bool, link uint32) Presence {
		return Presence{Resource: resource, State: state, Since: at(minute), Delayed: delayed, Link: link}
	}
	tests := []struct {
		name string
		do   func(Resources) Resources
		want Resources
	}{
		{"another resource", func(r Resources) Resources { return r.Put(p("b", Away, 1, false, 1)) },
			Resources{p("a", Available, 0, false, 1), p("b", Away, 1, false, 1)}},
		{"a change", func(r Resources) Resources { return r.Put(p("a", Away, 1, false, 1)) }, Resources{p("a", Away, 1, false, 1)}},
		{"older probe response", func(r Resources) Resources { return r.Put(p("a", Away, -5, true, 1)) }, Resources{p("a", Available, 0, false, 1)}},
		{"newer probe response", func(r Resources) Resources { return r.Put(p("a", Away, 5, true, 1)) }, Resources{p("a", Away, 5, true, 1)}},
		{"older probe response over a new link", func(r Resources) Resources { return r.Put(p("a", Away, -5, true, 2)) }, Resources{p("a", Away, -5, true, 2)}},
		{"unavailable", func(r Resources) Resources { return r.Remove("a") }, Resources{}},
		{"unknown resource unavailable", func(r Resources) Resources { return r.Remove("b") }, Resources{p("a", Available, 0, false, 1)}},
		{"all unavailable", func(r Resources) Resources { return r.Put(p("b", Away, 1, false, 1)).Remove("") }, nil},
		{"no presence over this link", func(r Resources) Resources { return r.Put(p("b", Away, 1, false, 2)).OverLink(2) }, Resources{p("b", Away, 1, false, 2)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.do(Resources{p("a", Available, 0, false, 1)})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestResourcesAreBounded(t *testing.T) {
	var r Resources
	for i := range 1000 {
		r = r.Put(Presence{Resource: strings.Repeat("x", i), State: Away})
	}
	if len(r) != maxResources || r[len(r)-1].Resource != strings.Repeat("x", 999) {
		t.Errorf("%d resources", len(r))
	}
}

func TestStatusSince(t *testing.T) {
	tests := []struct {
		name          string
		before, after Status
		want          time.Time
	}{
		{"another state", Status{State: Away, Since: at(0)}, Status{State: Chat, Since: at(5)}, at(5)},
		{"another message", Status{State: Away, Since: at(0)}, Status{State: Away, Since: at(5)}, at(0)},
		{"an earlier time", Status{State: Away, Since: at(5)}, Status{State: Away, Since: at(0)}, at(0)},
		{"previous time unknown", Status{State: Away}, Status{State: Away, Since: at(5)}, at(5)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.after.After(tt.before).Since; !got.Equal(tt.want) {
				t.Errorf("since %v, want %v", got, tt.want)
			}
		})
	}
}
