package main

import (
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"html"
	"slices"
	"strings"
)

const nsReceipts = "urn:xmpp:receipts" // XEP-0184

// sendChat sends a message that answers no message.
func (s *service) sendChat(from Contact, to, lang, text string) {
	s.sendMessage(envelope{XMLName: xml.Name{Local: "message"}, Type: "chat", From: from.jid(s.domain), To: to, Lang: lang, Payload: bodyElement{Text: text}})
}

// sendMessage sends a message with an ID of its own, because clients refer to it in receipts and chat markers.
func (s *service) sendMessage(e envelope) {
	e.ID = rand.Text()
	s.links.send(e)
}

type bodyElement struct {
	XMLName xml.Name `xml:"body"`
	Text    string   `xml:",chardata"`
}

type threadElement struct {
	XMLName xml.Name `xml:"thread"`
	Text    string   `xml:",chardata"`
}

// A receivedElement says that a message has been delivered (XEP-0184).
type receivedElement struct {
	XMLName xml.Name `xml:"urn:xmpp:receipts received"`
	ID      string   `xml:"id,attr"`
}

// A noStoreElement keeps a message that is useless later out of archives (XEP-0334 §4.2).
type noStoreElement struct {
	XMLName xml.Name `xml:"urn:xmpp:hints no-store"`
}

// chat replies to the messages that people send us.
type chat struct {
	*service
	accounts *accounts
}

// A chatMessage is a message with what is needed to answer it.
type chatMessage struct {
	*received
	contact Contact // that the message is addressed to
	sender  *sender
	lang    *catalog // of the sender
	entry   *entry   // nil if the sender is not registered
	words   []string // lower case, at least one
}

// A chatWord handles a word that we understand. It returns the answer, and a function to run after the answer has been sent, if any.
type chatWord struct {
	registered bool // only for registered users
	kept       bool // the answer is worth keeping in an archive
	answer     func(c *chat, ctx context.Context, m chatMessage) (text string, afterReply func(), err error)
}

var chatWords = map[string]chatWord{
	"help":       {answer: (*chat).help},
	"register":   {kept: true, answer: (*chat).register},
	"status":     {registered: true, answer: (*chat).status},
	"link":       {registered: true, kept: true, answer: (*chat).link},
	"newlink":    {registered: true, kept: true, answer: (*chat).newLink},
	"show":       {registered: true, answer: (*chat).show},
	"unregister": {registered: true, answer: (*chat).unregister},
}

// handle answers a person's message. Servers, components and rooms get no answer, and neither do messages without text.
func (c *chat) handle(ctx context.Context, s *received, sender *sender) {
	text := s.child(nsComponent, "body")
	if s.typ != "" && s.typ != "chat" && s.typ != "normal" || text == nil || strings.TrimSpace(text.text) == "" || s.from.local() == "" {
		return
	}
	contact, exists := c.contactAt(s.to)
	if !exists {
		c.refuse(s, itemNotFound())
		return
	}
	if s.id != "" && s.child(nsReceipts, "request") != nil {
		c.sendMessage(s.reply(s.typ, receivedElement{ID: s.id}))
	}
	if sender.isRepeated(s, c.now()) {
		return
	}
	answer, kept, afterReply := c.answer(ctx, chatMessage{received: s, contact: contact, sender: sender, lang: c.languages.match(s.lang("")), entry: c.board.byJID(s.from.bare),
		words: strings.Fields(strings.ToLower(truncate(text.text, maxMessageSize)))})
	if answer == "" {
		return
	}
	payload := []any{bodyElement{Text: answer}}
	if thread := s.child(nsComponent, "thread"); thread != nil {
		payload = append(payload, threadElement{Text: thread.text})
	}
	if !kept {
		payload = append(payload, noStoreElement{})
	}
	c.sendMessage(s.reply(s.typ, payload))
	if afterReply != nil {
		afterReply()
	}
}

// answer returns the answer to a message, empty for none, and whether it is worth keeping in an archive.
func (c *chat) answer(ctx context.Context, m chatMessage) (text string, kept bool, afterReply func()) {
	word, known := chatWords[m.words[0]]
	switch {
	case !known && !m.sender.mayAnswerUnknown(c.now()):
		return "", false, nil
	case !known && m.entry == nil:
		return c.introduction(m.lang, m.from), false, nil
	case !known:
		return m.lang.text("chat.unknown"), false, nil
	case word.registered && m.entry == nil:
		return m.lang.text("chat.not_registered"), false, nil
	}
	text, afterReply, err := word.answer(c, ctx, m)
	if errors.Is(err, ErrNotFound) {
		return m.lang.text("chat.not_registered"), false, nil // removed by another process meanwhile
	}
	if err != nil {
		return m.lang.text("chat.failed"), false, nil
	}
	return text, word.kept, afterReply
}

// introduction explains to someone who is not registered what we are and how to register.
func (c *chat) introduction(lang *catalog, to jid) string {
	next := "chat.not_registered"
	if !c.allow.allows(to) {
		next = "chat.forbidden"
	}
	return lang.text("index.what") + "\n" + lang.text(next)
}

// introduce sends the introduction, once, to someone who is not registered and asks for our presence; sender is nil for those who are
// registered (see admit).
func (c *chat) introduce(s *received, sender *sender) {
	contact, exists := c.contactAt(s.to)
	if s.typ != "subscribe" || !exists || s.from.local() == "" || sender == nil || sender.introduced {
		return
	}
	sender.introduced = true
	c.sendChat(contact, s.from.bare, s.lang(""), c.introduction(c.languages.match(s.lang("")), s.from))
}

func (c *chat) help(_ context.Context, m chatMessage) (string, func(), error) {
	var options []string
	for _, f := range fields {
		if f.chat != "" {
			options = append(options, "show "+f.chat+" on, show "+f.chat+" off – "+m.lang.text("option."+f.option))
		}
	}
	return m.lang.text("chat.help", "options", strings.Join(options, "\n")), nil, nil
}

func (c *chat) register(ctx context.Context, m chatMessage) (string, func(), error) {
	if m.entry != nil {
		// Whether the contact has been lost is decided as if the options had been submitted again.
		if err := c.accounts.registerAgain(ctx, m.entry, m.contact, optionChange{}, ""); err != nil {
			return "", nil, err
		}
		return m.lang.text("chat.already") + "\n" + c.accounts.linkText(m.lang, m.entry), func() { c.accounts.contacts.ask(ctx, m.entry) }, nil
	}
	if !c.allow.allows(m.from) {
		return m.lang.text("chat.forbidden"), nil, nil
	}
	e, err := c.accounts.register(ctx, m.from, m.contact, optionChange{}, c.accounts.languageOf(m.received))
	if err != nil {
		return "", nil, err
	}
	return c.accounts.welcome(m.lang, e), func() { c.accounts.contacts.ask(ctx, e) }, nil
}

func (c *chat) status(_ context.Context, m chatMessage) (string, func(), error) {
	return c.accounts.status(m.lang, m.entry), nil, nil
}

// status describes what is shown of a user.
func (a *accounts) status(lang *catalog, e *entry) string {
	s := e.snapshot.Load()
	var v view
	s.fill(&v, s.freshness(a.board.link.Load(), a.now()), lang, 0)
	parts := []string{v.Label, v.Message, v.detailsText(), v.LastActive, v.Nick, v.JID}
	for _, r := range v.Resources {
		parts = append(parts, r.Name+": "+r.Label)
	}
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	return lang.text("chat.status", "status", strings.Join(parts, " – "))
}

func (c *chat) link(_ context.Context, m chatMessage) (string, func(), error) {
	return c.accounts.linkText(m.lang, m.entry), nil, nil
}

// linkText names a user's addresses, and a snippet of HTML to paste.
func (a *accounts) linkText(lang *catalog, e *entry) string {
	snippet := `<iframe src="` + html.EscapeString(tokenURL(a.baseURL, e.user.Token)) + `" width="200" height="60" style="border:0"></iframe>`
	return a.addressText(lang, e) + "\n" + lang.text("chat.snippet") + "\n" + snippet
}

func (c *chat) newLink(ctx context.Context, m chatMessage) (string, func(), error) {
	if err := c.registry.RenewToken(ctx, m.entry); err != nil {
		return "", nil, err
	}
	return m.lang.text("chat.newlink") + "\n" + c.accounts.linkText(m.lang, m.entry), nil, nil
}

// show switches options on or off: "show nick on", or several at once, "show nick avatar on".
func (c *chat) show(ctx context.Context, m chatMessage) (string, func(), error) {
	names, last := m.words[1:], m.words[len(m.words)-1]
	if len(names) < 2 || last != "on" && last != "off" {
		return m.lang.text("chat.show_usage"), nil, nil
	}
	var options optionChange
	for _, name := range names[:len(names)-1] {
		i := fieldIndex(func(f field) bool { return f.chat == name })
		if i < 0 {
			return m.lang.text("chat.show_usage"), nil, nil
		}
		options = options.with(i, last == "on")
	}
	if err := c.registry.SetOptions(ctx, m.entry, options, ""); err != nil {
		return "", nil, err
	}
	return shownText(m.lang, m.entry.user.Options), func() { c.accounts.contacts.ask(ctx, m.entry) }, nil
}

// shownText lists the fields that are shown.
func shownText(lang *catalog, options fieldSet) string {
	var names []string
	for i, f := range fields {
		if f.chat != "" && options.has(i) {
			names = append(names, lang.text("option."+f.option))
		}
	}
	if len(names) == 0 {
		return lang.text("chat.shown_nothing")
	}
	return lang.text("chat.shown", "options", strings.Join(names, ", "))
}

// unregister asks for confirmation once.
func (c *chat) unregister(ctx context.Context, m chatMessage) (string, func(), error) {
	if now := c.now(); now.After(m.sender.confirmBefore) {
		m.sender.confirmBefore = now.Add(confirmInterval)
		return m.lang.text("chat.confirm"), nil, nil
	}
	m.sender.confirmBefore = c.now()
	if err := c.registry.Remove(ctx, m.entry); err != nil {
		return "", nil, err
	}
	return m.lang.text("chat.goodbye"), func() { c.accounts.contacts.withdraw(ctx, m.from.bare) }, nil
}
