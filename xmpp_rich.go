package main

// Nodes of rich presence, whose names are also the namespaces of the payloads.
const (
	nsActivity = "http://jabber.org/protocol/activity" // XEP-0108
	nsMood     = "http://jabber.org/protocol/mood"     // XEP-0107
	nsTune     = "http://jabber.org/protocol/tune"     // XEP-0118
)

// A richNode is a PEP node of rich presence.
type richNode struct {
	node     string
	field    int // the option that shows it
	question question
	read     func(p *RichPresence, item *element) // puts the payload of an item, or none, into a rich presence
}

var richNodes = []richNode{
	{nsActivity, fieldActivity, askActivity, (*RichPresence).readActivity},
	{nsMood, fieldMood, askMood, (*RichPresence).readMood},
	{nsTune, fieldTune, askTune, (*RichPresence).readTune},
}

// requestRich requests the rich presence that a user shows. Offline users have none.
func (p *pep) requestRich(e *entry) {
	for _, n := range richNodes {
		if e.user.Subscription.To() && e.user.Options.has(n.field) && len(e.resources) > 0 {
			p.send(e, n.question, newestItem(n.node))
		}
	}
}

// onRich handles an item of rich presence, in an event or in an answer. It does not read the item of a node that the user does not show.
func (p *pep) onRich(e *entry, s *received, space string) {
	for _, n := range richNodes {
		if !e.user.Options.has(n.field) {
			continue
		}
		if item, ok := s.item(space, n.node); ok {
			rich := e.extras.orEmpty().rich.orEmpty()
			n.read(&rich, item)
			p.registry.SetRichPresence(e, rich)
		}
	}
}

// readActivity reads an activity (XEP-0108 §2.1). Specific activities of other namespaces are ignored.
func (p *RichPresence) readActivity(item *element) {
	p.Activity = Activity{}
	payload := item.child(nsActivity, "activity")
	if payload == nil {
		return
	}
	general, name := payload.firstNamed(nsActivity, activities)
	if general == nil {
		return
	}
	_, specific := general.firstNamed(nsActivity, specificActivities)
	p.Activity = Activity{name, specific, singleLine(payload.childText(nsActivity, "text"), maxRichText)}
}

// readMood reads a mood (XEP-0107 §2.1).
func (p *RichPresence) readMood(item *element) {
	p.Mood = Mood{}
	payload := item.child(nsMood, "mood")
	if payload == nil {
		return
	}
	if _, name := payload.firstNamed(nsMood, moods); name != "" {
		p.Mood = Mood{name, singleLine(payload.childText(nsMood, "text"), maxRichText)}
	}
}

// readTune reads a tune (XEP-0118 §2.1).
func (p *RichPresence) readTune(item *element) {
	p.Tune = Tune{}
	if payload := item.child(nsTune, "tune"); payload != nil {
		text := func(name string) string { return singleLine(payload.childText(nsTune, name), maxRichText) }
		p.Tune = Tune{text("artist"), text("title"), text("source")}
	}
}

// firstNamed returns the first direct child with one of some names, and its name; nil and empty if there is none.
func (e *element) firstNamed(space string, names []string) (*element, string) {
	for i := range e.children {
		c := &e.children[i]
		if c.name.Space != space {
			continue
		}
		if name := knownName(c.name.Local, names); name != "" {
			return c, name
		}
	}
	return nil, ""
}
