package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"gosrc.io/xmpp/stanza"
)

// A registration query as we answer it (XEP-0077 §3.1).
type registration struct {
	XMLName      xml.Name  `xml:"jabber:iq:register query"`
	Registered   *struct{} `xml:"registered"`
	Instructions string    `xml:"instructions"`
	Form         *stanza.Form
}

// options returns those that the form offers.
func (c *component) options() fieldSet {
	return fieldsWhere(func(f field) bool { return f.option != "" }).with(fieldJIDLink, c.jidLinks)
}

// An allowList says who may register.
type allowList []string // domains and bare JIDs, normalised; "*" for anyone

func (a allowList) allows(j jid) bool {
	return j.local() != "" && (slices.Contains(a, "*") || slices.Contains(a, j.bare) || slices.Contains(a, j.domain()))
}

// parseAllow normalises one entry of an allowList.
func parseAllow(s string) (string, error) {
	if s == "*" {
		return s, nil
	}
	j, err := parseJID(s)
	if err == nil && j.resource != "" {
		err = errors.New(strconv.Quote(s) + " has a resource; a domain, a bare JID or * is wanted")
	}
	return j.bare, err
}

// registrationForm answers with the form: empty for who may register, with the current values for who has.
func (c *component) registrationForm(_ context.Context, s *received, _ *element) (any, func(), error) {
	e := c.board.byJID(s.from.bare)
	if e == nil && !c.allow.allows(s.from) {
		return nil, nil, forbidden()
	}
	lang := c.languages.match(s.lang(""))
	answer := &registration{Instructions: lang.text("form.instructions")}
	values := defaultOptions()
	if e != nil {
		answer.Registered = &struct{}{}
		values = e.user.Options
	}
	answer.Form = c.optionsForm(lang, nsRegister, values)
	answer.Form.Instructions = c.addresses(lang, s.from.bare, e)
	return answer, nil, nil
}

// optionsForm makes a form of the options (XEP-0004).
func (c *component) optionsForm(lang *catalog, formType string, values fieldSet) *stanza.Form {
	form := stanza.NewForm([]*stanza.Field{{Type: stanza.FieldTypeHidden, Var: "FORM_TYPE", ValuesList: []string{formType}}}, stanza.FormTypeForm)
	for i, f := range fields {
		if !c.options().has(i) {
			continue
		}
		value := "0"
		if values.has(i) {
			value = "1"
		}
		form.Fields = append(form.Fields,
			&stanza.Field{Type: stanza.FieldTypeBool, Label: lang.text("option." + f.option), Var: f.option, ValuesList: []string{value}})
	}
	return form
}

// addresses says where somebody's page is or will be.
func (c *component) addresses(lang *catalog, bare string, e *entry) []string {
	byJID := c.baseURL + "/status/" + base64.StdEncoding.EncodeToString([]byte(bare))
	switch {
	case e == nil && c.jidLinks:
		return []string{lang.text("form.before", "url", byJID)}
	case e == nil:
		return []string{lang.text("form.before_token")}
	}
	lines := []string{lang.text("form.after", "url", c.pageURL(e.user.Token))}
	if c.jidLinks && e.user.Options.has(fieldJIDLink) {
		lines = append(lines, lang.text("form.also", "url", byJID))
	}
	return lines
}

// pageURL is the address that is handed out.
func (c *component) pageURL(t Token) string { return c.baseURL + "/status/" + t.String() }

// register takes in a form or plain fields, a removal or a cancellation.
func (c *component) register(ctx context.Context, s *received, query *element) (any, func(), error) {
	e := c.board.byJID(s.from.bare)
	if e == nil && !c.allow.allows(s.from) {
		return nil, nil, forbidden()
	}
	if query.child(nsRegister, "remove") != nil {
		return c.unregister(ctx, s, query, e)
	}
	values := defaultOptions()
	if e != nil {
		values = e.user.Options
	}
	cancelled, err := readOptions(query, c.options(), &values)
	if err != nil || cancelled {
		return nil, nil, err
	}
	if e != nil {
		err := c.setOptions(ctx, e, values, c.spoken(s))
		return nil, func() { c.askAll(ctx, e) }, err
	}
	if e, err = c.enrol(ctx, s.from.bare, values, c.spoken(s)); err != nil {
		return nil, nil, err
	}
	return nil, func() {
		c.askAll(ctx, e)
		c.tell(e.jid, s.lang(""), c.welcome(c.languages.match(s.lang("")), e))
	}, nil
}

// spoken returns in which of our languages a stanza is, empty if it does not say.
func (c *component) spoken(s *received) string {
	if lang := s.lang(""); lang != "" {
		return c.languages.match(lang).Tag
	}
	return ""
}

// enrol makes somebody a user.
func (c *component) enrol(ctx context.Context, bare string, values fieldSet, lang string) (*entry, error) {
	token, err := newToken(c.random)
	if err != nil {
		return nil, err
	}
	u := User{JID: bare, Token: token, Options: values, Subscription: SubscriptionNone, Asked: true, Created: c.now(), Lang: lang}
	if err := c.db.StoreUser(ctx, u); err != nil {
		return nil, err
	}
	e := c.board.add(u, Status{State: Unknown}, nil)
	e.announced = c.board.link.Load().number
	c.counted.Store(false)
	c.log.Info("a user has registered", "user", bare)
	return e, nil
}

// setOptions changes what a user shows, and the language in which we write unasked unless that is empty.
func (c *component) setOptions(ctx context.Context, e *entry, values fieldSet, lang string) error {
	u := e.user
	u.Options, u.Lang, u.Gone = values, cmp.Or(lang, u.Lang), time.Time{}
	// Who asks is online. If we do not see that, our contact has got lost: ask for it again.
	u.Asked = u.Asked || !u.Subscription.To() || len(e.resources) == 0
	if u != e.user {
		if err := c.db.StoreUser(ctx, u); err != nil {
			return err
		}
		e.user = u
	}
	c.update(e)
	c.setProfile(e, e.profile()) // what is switched off is forgotten
	return nil
}

// renewLink gives a user another address. The old one ends at once.
func (c *component) renewLink(ctx context.Context, e *entry) error {
	token, err := newToken(c.random)
	if err != nil {
		return err
	}
	u := e.user
	u.Token = token
	if err := c.db.StoreUser(ctx, u); err != nil {
		return err
	}
	c.board.replaceToken(e, u.Token)
	return nil
}

// remove ends a user's page and forgets the user. The contact is still to be withdrawn.
func (c *component) remove(ctx context.Context, e *entry) error {
	if err := c.db.DeleteUser(ctx, e.jid); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	c.board.remove(e)
	c.counted.Store(false)
	c.log.Info("a user has left", "user", e.jid)
	return nil
}

// askAll asks for what is wanting: to see the user's presence, and what the options want to be shown. Without a link the next
// one asks.
func (c *component) askAll(ctx context.Context, e *entry) {
	if e.user.Asked {
		c.sendRequest(e)
	}
	c.askProfile(ctx, e)
}

func (c *component) unregister(ctx context.Context, s *received, query *element, e *entry) (any, func(), error) {
	if len(query.children) != 1 {
		return nil, nil, badRequest()
	}
	if e == nil {
		return nil, nil, registrationRequired()
	}
	if err := c.remove(ctx, e); err != nil {
		return nil, nil, err
	}
	return nil, func() {
		c.withdraw(ctx, s.from.bare)
		c.tell(s.from.String(), s.lang(""), c.languages.match(s.lang("")).text("chat.goodbye"))
	}, nil
}

// readOptions changes those options that a submitted query names (XEP-0077 §3.1, §4; XEP-0004 §3). Unknown fields are
// ignored, as XEP-0004 §3.2 demands, and what is left out stays as it is. Every error is a *stanzaError.
func readOptions(query *element, offered fieldSet, values *fieldSet) (cancelled bool, err error) {
	var form *element
	plain := make(map[string][]string)
	for i := range query.children {
		c := &query.children[i]
		switch {
		case c.name.Space == nsForm && c.name.Local == "x":
			if form != nil {
				return false, badRequest()
			}
			form = c
		case c.name.Space == nsRegister && c.name.Local != "instructions" && c.name.Local != "registered" && c.name.Local != "key":
			plain[c.name.Local] = append(plain[c.name.Local], c.text)
		}
	}
	if form == nil {
		return false, readFields(plain, offered, values)
	}
	if len(plain) > 0 {
		return false, badRequest()
	}
	switch form.attr("type") {
	case stanza.FormTypeCancel:
		return true, nil
	case stanza.FormTypeSubmit:
	default:
		return false, badRequest()
	}
	fields, err := readForm(form)
	if err != nil {
		return false, err
	}
	if typ, ok := fields["FORM_TYPE"]; ok && (len(typ) != 1 || typ[0] != nsRegister) {
		return false, badRequest()
	}
	return false, readFields(fields, offered, values)
}

// readForm returns the values of each field.
func readForm(form *element) (map[string][]string, error) {
	fields := make(map[string][]string)
	for i := range form.children {
		f := &form.children[i]
		if f.name.Space != nsForm || f.name.Local != "field" {
			continue
		}
		name := f.attr("var")
		if _, twice := fields[name]; twice {
			return nil, badRequest()
		}
		values := []string{}
		for _, v := range f.children {
			if v.name.Space == nsForm && v.name.Local == "value" {
				values = append(values, v.text)
			}
		}
		fields[name] = values
	}
	return fields, nil
}

// readFields changes those options that are among the fields of a form. Every error is a *stanzaError.
func readFields(submitted map[string][]string, offered fieldSet, values *fieldSet) error {
	for i, f := range fields {
		given, ok := submitted[f.option]
		if !ok || !offered.has(i) {
			continue
		}
		if len(given) != 1 {
			return notAcceptable()
		}
		switch strings.TrimSpace(given[0]) {
		case "1", "true":
			*values = values.with(i, true)
		case "0", "false":
			*values = values.with(i, false)
		default:
			return notAcceptable()
		}
	}
	return nil
}
