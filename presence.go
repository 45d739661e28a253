package main

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// A State is the availability of a user or of one resource.
type State string

// The states. The first five are available presence: without a show element, or with one of the values of RFC 6121 §4.7.2.1.
const (
	Chat         State = "chat"
	Available    State = "available"
	Away         State = "away"
	ExtendedAway State = "xa"
	DoNotDisturb State = "dnd"
	Unavailable  State = "unavailable"
	Unknown      State = "unknown" // no subscription
)

// states lists all states, the most available first.
var states = []State{Chat, Available, Away, ExtendedAway, DoNotDisturb, Unavailable, Unknown}

// Online reports whether the state is one of available presence.
func (s State) Online() bool { return s != Unavailable && s != Unknown }

// A Text is a status message in one language.
type Text struct {
	Lang string `json:"lang,omitempty"` // BCP 47, empty if the stanza has no xml:lang
	Body string `json:"body"`
}

// compare orders messages by their languages and their texts.
func (t Text) compare(o Text) int {
	return cmp.Or(cmp.Compare(t.Lang, o.Lang), cmp.Compare(t.Body, o.Body))
}

// A Presence is the last available presence of one resource (RFC 6121 §4.7).
type Presence struct {
	Resource string
	State    State
	Priority int8
	Messages []Text
	Since    time.Time // when the resource sent it, in milliseconds
	Idle     time.Time // last user interaction (XEP-0319), in milliseconds; zero if not specified
	Delayed  bool      // the stanza had a delay stamp (XEP-0203): the server replayed it
	Stripped bool      // the messages were not kept, because the user does not show them
	Node     uint16    // number of the node of a cluster that received it; 0 for this one
	Link     uint32    // number of the link over which it was last received
}

// A Status is the aggregate presence of a user's resources.
type Status struct {
	State     State
	Messages  []Text
	Since     time.Time     // when the state began, zero if unknown; for an unavailable user, the time of the last available presence
	Idle      time.Time     // last user interaction (XEP-0319); zero if not specified
	Rich      *RichPresence // of an online user; nil for none
	Resources []Presence    // in descending order; nil if they are not shown
}

// Equal reports whether the two are the same to a client, apart from their times.
func (p Presence) Equal(o Presence) bool {
	return p.Resource == o.Resource && p.State == o.State && p.Priority == o.Priority && slices.Equal(p.Messages, o.Messages)
}

// Limits on the memory that a user can take up, far above normal use. In a cluster, they hold for what each node receives, so that all nodes
// keep the same.
const (
	maxResources    = 64
	maxLanguages    = 16
	maxMessageSize  = 1024     // bytes
	maxMessages     = 8 << 10  // bytes of the messages of one presence
	maxPresence     = 16 << 10 // bytes of a user's resources
	scarcePresence  = 1 << 10  // the same while those of all users are beyond maxAllPresence
	presenceSize    = 128      // bytes of a Presence, without its texts
	messageOverhead = 32       // bytes of a Text, without its texts
)

// size returns the approximate size of the presence in memory, in bytes.
func (p Presence) size() int { return presenceSize + len(p.Resource) + p.messageSize() }

func (p Presence) messageSize() (size int) {
	for _, m := range p.Messages {
		size += messageOverhead + len(m.Lang) + len(m.Body)
	}
	return size
}

// strip removes the messages.
func (p *Presence) strip() {
	p.Stripped = p.Stripped || len(p.Messages) > 0
	p.Messages = nil
}

// addMessage adds a status message, trimmed and truncated, unless there is already one in its language.
func (p *Presence) addMessage(lang, body string) {
	body = truncate(strings.TrimSpace(withoutDirection(body)), maxMessageSize)
	if body == "" || len(p.Messages) == maxLanguages || len(lang) > 64 || p.messageSize()+len(body) > maxMessages {
		return
	}
	for _, m := range p.Messages {
		if strings.EqualFold(m.Lang, lang) {
			return
		}
	}
	p.Messages = append(p.Messages, Text{lang, body})
}

// Resources holds the presence of a user's available resources, the least recently received first.
type Resources []Presence

// Put returns r with the presence of a resource added or replaced. A delayed presence, sent in response to a probe, does not replace a
// newer one that the resource itself sent over the same link, unless that has lost its messages. If this node has received as many as it may,
// the least recently received one is dropped.
func (r Resources) Put(p Presence) Resources {
	i := slices.IndexFunc(r, func(q Presence) bool { return q.Resource == p.Resource && q.Node == p.Node })
	switch {
	case i < 0 && !r.isFull():
		return append(r, p)
	case i < 0:
		i = slices.IndexFunc(r, func(q Presence) bool { return q.Node == 0 })
	case p.Delayed && !r[i].Delayed && !r[i].Stripped && r[i].Link == p.Link && r[i].Since.After(p.Since):
		return r
	}
	return append(slices.Delete(r, i, i+1), p)
}

// isFull reports whether this node has received the presence of as many resources as it may.
func (r Resources) isFull() bool {
	own := 0
	for i := range r {
		if r[i].Node == 0 {
			own++
		}
	}
	return own >= maxResources
}

// Remove returns r without what this node has received of a resource, or of all resources if resource is empty.
func (r Resources) Remove(resource string) Resources {
	r = slices.DeleteFunc(r, func(p Presence) bool { return p.Node == 0 && (p.Resource == resource || resource == "") })
	if len(r) == 0 && resource == "" {
		return nil
	}
	return r
}

// Of returns what a node has received.
func (r Resources) Of(node uint16) (received []Presence) {
	for _, p := range r {
		if p.Node == node {
			received = append(received, p)
		}
	}
	return received
}

// Replace returns r with what a node has received replaced.
func (r Resources) Replace(node uint16, received []Presence) Resources {
	r = slices.DeleteFunc(r, func(p Presence) bool { return p.Node == node })
	for _, p := range received[:min(len(received), maxResources)] {
		p.Node = node
		r = append(r, p)
	}
	return r
}

// Doubt marks what this node has received of some resources as outdated, so that only another presence over the link keeps it. It reports
// whether there was any that was not.
func (r Resources) Doubt(resources []Presence) (doubted bool) {
	for i := range r {
		isDoubted := r[i].Node == 0 && r[i].Link != 0 && slices.ContainsFunc(resources, func(p Presence) bool { return p.Resource == r[i].Resource })
		if isDoubted {
			r[i].Link, doubted = 0, true
		}
	}
	return doubted
}

// distinct returns r without the older of two presences of one resource, which a client that reconnects to another node leaves.
func (r Resources) distinct() Resources {
	if !slices.ContainsFunc(r, func(p Presence) bool { return p.Node != 0 }) {
		return r
	}
	var kept Resources
	for _, p := range r {
		switch i := slices.IndexFunc(kept, func(q Presence) bool { return q.Resource == p.Resource }); {
		case i < 0:
			kept = append(kept, p)
		case p.compareSame(kept[i]) > 0:
			kept[i] = p
		}
	}
	return kept
}

// OverLink returns the presence that was received over a link. A server answers a probe with the presence of every available
// resource, so after the answer all others are unavailable. Other nodes know about theirs.
func (r Resources) OverLink(link uint32) Resources {
	return slices.DeleteFunc(r, func(p Presence) bool { return p.Node == 0 && p.Link != link })
}

// Strip removes all messages.
func (r Resources) Strip() {
	for i := range r {
		r[i].strip()
	}
}

// IsStripped reports whether any presence that this node has received has lost its messages.
func (r Resources) IsStripped() bool {
	return slices.ContainsFunc(r, func(p Presence) bool { return p.Node == 0 && p.Stripped })
}

// size returns the approximate size of the resources in memory, in bytes.
func (r Resources) size() (size int) {
	for _, p := range r {
		size += p.size()
	}
	return size
}

// Fit returns r with what this node has received within a number of bytes: without the messages of the least recently received presences,
// and then without these presences. The last one always stays.
func (r Resources) Fit(most int) Resources {
	size, own := 0, 0
	for _, p := range r {
		if p.Node == 0 {
			size += p.size()
			own++
		}
	}
	if size <= most {
		return r
	}
	for i := 0; i < len(r) && size > most; i++ {
		if r[i].Node == 0 {
			size -= r[i].messageSize()
			r[i].Messages = nil
		}
	}
	return slices.DeleteFunc(r, func(p Presence) bool {
		isDropped := p.Node == 0 && own > 1 && size > most
		if isDropped {
			size -= p.size()
			own--
		}
		return isDropped
	})
}

// Status returns the presence of the resource with the highest priority; among equals, the most available, then the newest, then the first
// by name. A negative priority counts too: it only excludes the resource from message delivery (RFC 6121 §4.7.2.3).
func (r Resources) Status() Status {
	if len(r) == 0 {
		return Status{State: Unavailable}
	}
	top := slices.MaxFunc(r.distinct(), Presence.compare)
	return Status{State: top.State, Messages: top.Messages, Since: top.Since, Idle: top.Idle}
}

// compare orders the presences of different resources for Status, which uses the greatest one.
func (p Presence) compare(o Presence) int {
	return cmp.Or(
		cmp.Compare(p.Priority, o.Priority),
		cmp.Compare(slices.Index(states, o.State), slices.Index(states, p.State)),
		p.Since.Compare(o.Since),
		cmp.Compare(o.Resource, p.Resource),
	)
}

// compareSame orders the presences of one resource for distinct, which keeps the greatest one. Every node decides alike.
func (p Presence) compareSame(o Presence) int {
	return cmp.Or(p.Since.Compare(o.Since), p.compare(o), p.Idle.Compare(o.Idle), slices.CompareFunc(p.Messages, o.Messages, Text.compare))
}

// Sorted returns a copy in descending order: the presence that Status uses comes first.
func (r Resources) Sorted() []Presence {
	return slices.SortedFunc(slices.Values(r.distinct()), func(a, b Presence) int { return b.compare(a) })
}

// After returns s with the time at which its state began, given the previous status. A change of the message or of the resource does
// not restart the state.
func (s Status) After(before Status) Status {
	switch {
	case s.State != before.State || before.Since.IsZero():
	case s.Since.IsZero(), s.State.Online() && before.Since.Before(s.Since):
		s.Since = before.Since
	}
	return s
}

// Equal reports whether the two are the same to a client.
func (s Status) Equal(o Status) bool {
	return s.State == o.State && s.Since.Equal(o.Since) && s.Idle.Equal(o.Idle) && slices.Equal(s.Messages, o.Messages) && s.Rich.orEmpty() == o.Rich.orEmpty() &&
		slices.EqualFunc(s.Resources, o.Resources, Presence.Equal)
}
