package main

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// A State is the one word that a person's presence adds up to.
type State string

// The states. All but the last two are what RFC 6121 §4.7.2.1 has for somebody who is online.
const (
	Chat         State = "chat"
	Available    State = "available"
	Away         State = "away"
	ExtendedAway State = "xa"
	DoNotDisturb State = "dnd"
	Unavailable  State = "unavailable"
	Unknown      State = "unknown" // we may not see it
)

// states lists them by how available they are.
var states = []State{Chat, Available, Away, ExtendedAway, DoNotDisturb, Unavailable, Unknown}

// Online reports whether the state is that of a connected client.
func (s State) Online() bool { return s != Unavailable && s != Unknown }

// A Text is a status message in one language.
type Text struct {
	Lang string `json:"lang,omitempty"` // BCP 47, empty if the client named none
	Body string `json:"body"`
}

// A Presence is what one resource has said last (RFC 6121 §4.7).
type Presence struct {
	Resource string
	State    State
	Priority int8
	Messages []Text
	Since    time.Time // when the resource said so
	Idle     time.Time // since when the person has not used it (XEP-0319); zero if it does not say so
	Delayed  bool      // it came with a delay stamp: the server repeated it
	Link     uint32    // the link, counted from the first, over which it was last heard
}

// A Status is what the presence of all resources of a person adds up to.
type Status struct {
	State    State
	Messages []Text
	Since    time.Time // when the state began, zero if unknown; of somebody who is unavailable: when they were last seen
	Idle     time.Time // since when the person is not active, zero if they are
}

// Equal reports whether nobody could tell the two apart.
func (p Presence) Equal(o Presence) bool {
	return p.Resource == o.Resource && p.State == o.State && p.Priority == o.Priority && slices.Equal(p.Messages, o.Messages)
}

// Bounds of what is kept, far above what people use, for those who would fill our memory.
const (
	maxResources   = 64
	maxLanguages   = 16
	maxMessageSize = 1024 // bytes
)

// addMessage keeps the first message of each language.
func (p *Presence) addMessage(lang, body string) {
	body = truncate(strings.TrimSpace(body), maxMessageSize)
	if body == "" || len(p.Messages) == maxLanguages || len(lang) > 64 {
		return
	}
	for _, m := range p.Messages {
		if strings.EqualFold(m.Lang, lang) {
			return
		}
	}
	p.Messages = append(p.Messages, Text{lang, body})
}

// Resources are the connected clients of one person.
type Resources []Presence

// Put takes in what a resource says. What the server repeats after a probe does not overwrite what the resource has said
// itself since.
func (r Resources) Put(p Presence) Resources {
	i := slices.IndexFunc(r, func(q Presence) bool { return q.Resource == p.Resource })
	switch {
	case i < 0 && len(r) < maxResources:
		return append(r, p)
	case i < 0:
		i = 0 // the one that was heard of first
	case p.Delayed && !r[i].Delayed && r[i].Link == p.Link && r[i].Since.After(p.Since):
		return r
	}
	return append(slices.Delete(r, i, i+1), p)
}

// Remove takes out one resource, or all of them when it is empty.
func (r Resources) Remove(resource string) Resources {
	if resource == "" {
		return nil
	}
	return slices.DeleteFunc(r, func(p Presence) bool { return p.Resource == resource })
}

// Silent takes out those that have not been heard of over this link: a server answers a probe with all that are there, or
// with nothing.
func (r Resources) Silent(link uint32) Resources {
	return slices.DeleteFunc(r, func(p Presence) bool { return p.Link != link })
}

// Status returns what the resources add up to: the highest priority speaks, among equals the more available, then the
// newest. A negative priority, which only keeps messages away (RFC 6121 §4.7.2.3), speaks as well.
func (r Resources) Status() Status {
	if len(r) == 0 {
		return Status{State: Unavailable}
	}
	top := slices.MaxFunc(r, Presence.compare)
	return Status{top.State, top.Messages, top.Since, top.Idle}
}

// compare says which of two resources speaks: it is the greater one.
func (p Presence) compare(o Presence) int {
	return cmp.Or(
		cmp.Compare(p.Priority, o.Priority),
		cmp.Compare(slices.Index(states, o.State), slices.Index(states, p.State)),
		p.Since.Compare(o.Since),
	)
}

// Sorted returns a copy in which the one that speaks is the first.
func (r Resources) Sorted() []Presence {
	return slices.SortedFunc(slices.Values(r), func(a, b Presence) int { return b.compare(a) })
}

// After returns the status with the time at which its state began, given the status before it: a person who changes the
// message or the client stays away since the same time.
func (s Status) After(before Status) Status {
	switch {
	case s.State != before.State || before.Since.IsZero():
	case s.Since.IsZero(), s.State.Online() && before.Since.Before(s.Since):
		s.Since = before.Since
	}
	return s
}

// Equal reports whether nobody could tell the two apart.
func (s Status) Equal(o Status) bool {
	return s.State == o.State && s.Since.Equal(o.Since) && s.Idle.Equal(o.Idle) && slices.Equal(s.Messages, o.Messages)
}
