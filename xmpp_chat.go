package main

import (
	"context"
	"encoding/xml"
	"errors"
	"html"
	"strings"
)

// tell writes to somebody unasked.
func (c *component) tell(to, lang, text string) {
	c.send(envelope{XMLName: xml.Name{Local: "message"}, Type: "chat", From: c.domain, To: to, Lang: lang, Payload: body(text)}) // without a link nobody is told
}

type bodyElement struct {
	XMLName xml.Name `xml:"body"`
	Text    string   `xml:",chardata"`
}

func body(text string) bodyElement { return bodyElement{Text: text} }

// A conversation is one message and what is needed to answer it.
type conversation struct {
	*received
	lang  *catalog
	entry *entry // nil if the sender is not registered
	words []string
}

// A reply answers what somebody has written. What is to be done once the answer has been sent, it returns as well.
type reply func(c *component, ctx context.Context, m conversation) (text string, then func(), err error)

// replies are the words that we know. Those that are true are for people who are registered.
var replies = map[string]struct {
	registered bool
	answer     reply
}{
	"help":       {false, (*component).chatHelp},
	"register":   {false, (*component).chatRegister},
	"status":     {true, (*component).chatStatus},
	"link":       {true, (*component).chatLink},
	"newlink":    {true, (*component).chatNewLink},
	"show":       {true, (*component).chatShow},
	"unregister": {true, (*component).chatUnregister},
}

// handleMessage answers what a person writes. Servers, other components and rooms get no answer, nor does what has no text.
func (c *component) handleMessage(ctx context.Context, s *received) {
	if s.child(nsPubSubEvent, "event") != nil {
		if e := c.board.byJID(s.from.bare); e != nil && s.from.resource == "" && s.to == c.domain {
			c.handleEvent(ctx, e, s)
		}
		return
	}
	text := s.child(nsComponent, "body")
	if s.typ != "" && s.typ != "chat" && s.typ != "normal" || text == nil || strings.TrimSpace(text.text) == "" || s.from.local() == "" {
		return
	}
	if s.to != c.domain {
		c.refuse(s, itemNotFound())
		return
	}
	m := conversation{received: s, lang: c.languages.match(s.lang("")), entry: c.board.byJID(s.from.bare),
		words: strings.Fields(strings.ToLower(truncate(text.text, maxMessageSize)))}
	answer, then := c.converse(ctx, m)
	if answer == "" {
		return
	}
	out := s.answer(s.typ, []any{body(answer)})
	if thread := s.child(nsComponent, "thread"); thread != nil {
		out.Payload = []any{body(answer), threadElement{Text: thread.text}}
	}
	out.ID = ""
	c.send(out) // without a link there is nobody to tell
	if then != nil {
		then()
	}
}

type threadElement struct {
	XMLName xml.Name `xml:"thread"`
	Text    string   `xml:",chardata"`
}

// converse finds the answer to a message; none if there has been enough talk.
func (c *component) converse(ctx context.Context, m conversation) (answer string, then func()) {
	r, known := replies[m.words[0]]
	switch {
	case !known:
		now := c.now()
		if now.Sub(m.visitor.confused) < confusion {
			return "", nil
		}
		m.visitor.confused = now
		return m.lang.text("chat.unknown"), nil
	case r.registered && m.entry == nil:
		return m.lang.text("chat.not_registered"), nil
	}
	answer, then, err := r.answer(c, ctx, m)
	if err != nil {
		c.log.Error("a request failed", "from", m.from.bare, "cause", explain(err))
		return m.lang.text("chat.failed"), nil
	}
	return answer, then
}

func (c *component) chatHelp(_ context.Context, m conversation) (string, func(), error) {
	return m.lang.text("chat.help"), nil, nil
}

func (c *component) chatRegister(ctx context.Context, m conversation) (string, func(), error) {
	if m.entry != nil {
		return m.lang.text("chat.already") + "\n" + c.linkText(m.lang, m.entry), func() { c.askAll(ctx, m.entry) }, nil
	}
	if !c.allow.allows(m.from) {
		return m.lang.text("chat.forbidden"), nil, nil
	}
	e, err := c.enrol(ctx, m.from.bare, defaultOptions(), c.spoken(m.received))
	if err != nil {
		return "", nil, err
	}
	return c.welcome(m.lang, e), func() { c.askAll(ctx, e) }, nil
}

// welcome is what somebody is told who has registered.
func (c *component) welcome(lang *catalog, e *entry) string {
	return lang.text("chat.welcome") + "\n" + strings.Join(c.addresses(lang, e.jid, e), "\n")
}

func (c *component) chatStatus(_ context.Context, m conversation) (string, func(), error) {
	return c.statusText(m.lang, m.entry), nil, nil
}

// statusText says what the world sees of a user.
func (c *component) statusText(lang *catalog, e *entry) string {
	s := e.snapshot.Load()
	shown := s.view(s.freshness(c.board.link.Load(), c.now()), lang, 0)
	parts := []string{shown.Label}
	for _, more := range []string{shown.Message, shown.LastActive, shown.Nick, shown.JID} {
		if more != "" {
			parts = append(parts, more)
		}
	}
	for _, client := range shown.Resources {
		parts = append(parts, client.Name+": "+client.Label)
	}
	return lang.text("chat.status", "status", strings.Join(parts, " – "))
}

func (c *component) chatLink(_ context.Context, m conversation) (string, func(), error) {
	return c.linkText(m.lang, m.entry), nil, nil
}

// linkText names a user's addresses, and what to paste.
func (c *component) linkText(lang *catalog, e *entry) string {
	snippet := `<iframe src="` + html.EscapeString(c.pageURL(e.user.Token)) + `" width="200" height="60" style="border:0"></iframe>`
	return strings.Join(c.addresses(lang, e.jid, e), "\n") + "\n" + lang.text("chat.snippet", "html", snippet)
}

func (c *component) chatNewLink(ctx context.Context, m conversation) (string, func(), error) {
	if err := c.renewLink(ctx, m.entry); err != nil {
		return "", nil, err
	}
	return m.lang.text("chat.newlink") + "\n" + c.linkText(m.lang, m.entry), nil, nil
}

// chatShow switches options on or off: "show nick on", or several at once, "show nick avatar on".
func (c *component) chatShow(ctx context.Context, m conversation) (string, func(), error) {
	names, last := m.words[1:], m.words[len(m.words)-1]
	values := m.entry.user.Options
	if len(names) < 2 || last != "on" && last != "off" {
		return m.lang.text("chat.show_usage"), nil, nil
	}
	for _, name := range names[:len(names)-1] {
		i := fieldIndex(func(f field) bool { return f.chat == name })
		if i < 0 {
			return m.lang.text("chat.show_usage"), nil, nil
		}
		values = values.with(i, last == "on")
	}
	if err := c.setOptions(ctx, m.entry, values, ""); err != nil {
		return "", nil, err
	}
	return shownText(m.lang, values), func() { c.askAll(ctx, m.entry) }, nil
}

// shownText names what a user shows.
func shownText(lang *catalog, values fieldSet) string {
	var names []string
	for i, f := range fields {
		if f.chat != "" && values.has(i) {
			names = append(names, lang.text("option."+f.option))
		}
	}
	if len(names) == 0 {
		return lang.text("chat.shown_nothing")
	}
	return lang.text("chat.shown", "options", strings.Join(names, ", "))
}

// chatUnregister asks once whether that is meant.
func (c *component) chatUnregister(ctx context.Context, m conversation) (string, func(), error) {
	if now := c.now(); now.After(m.visitor.leaving) {
		m.visitor.leaving = now.Add(hesitation)
		return m.lang.text("chat.confirm"), nil, nil
	}
	m.visitor.leaving = c.now()
	if err := c.remove(ctx, m.entry); err != nil && !errors.Is(err, ErrNotFound) {
		return "", nil, err
	}
	return m.lang.text("chat.goodbye"), func() { c.withdraw(ctx, m.from.bare) }, nil
}
