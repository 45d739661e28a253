package main

import (
	"context"
	"encoding/xml"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/time/rate"
	"gosrc.io/xmpp/stanza"
)

// An allowList lists the people who may register: domains and bare JIDs, normalized, or "*" for anyone.
type allowList []string

func (a allowList) allows(j jid) bool {
	return j.local() != "" && (slices.Contains(a, "*") || a.names(j))
}

// names reports whether the list has a person's JID or domain, and not just "*".
func (a allowList) names(j jid) bool {
	return slices.Contains(a, j.bare) || slices.Contains(a, j.domain())
}

// parseAllow normalizes one item of an allowList.
func parseAllow(s string) (string, error) {
	if s == "*" {
		return s, nil
	}
	j, err := parseJID(s)
	if err == nil && j.resource != "" {
		err = errors.New(strconv.Quote(s) + " has a resource; use a domain, a bare JID or *")
	}
	return j.bare, err
}

// accounts registers, changes and removes users, whether they ask by form, by chat or by command.
type accounts struct {
	*service
	contacts    *contacts
	quota       *domainQuota // of registrations
	registering atomic.Int64 // registrations that are being stored
	refused     rate.Sometimes
}

// registrationsPerHour is the number of people of one domain who may register within an hour, if only "*" allows it.
const registrationsPerHour = 100

func newAccounts(s *service, c *contacts) *accounts {
	return &accounts{service: s, contacts: c, quota: newDomainQuota(rate.Limit(registrationsPerHour)/3600, registrationsPerHour),
		refused: rate.Sometimes{Interval: failureInterval}}
}

// A registration is the answer to a registration query (XEP-0077 §3.1).
type registration struct {
	XMLName      xml.Name  `xml:"jabber:iq:register query"`
	Registered   *struct{} `xml:"registered"`
	Instructions string    `xml:"instructions"`
	Form         *stanza.Form
}

// fieldTextSingle is a field type whose constant in the library is misspelled.
const fieldTextSingle = "text-single"

// form answers with the registration form, which has the current values for a registered user.
func (a *accounts) form(_ context.Context, r request) (any, func(), error) {
	e := a.board.byJID(r.from.bare)
	if e == nil && !a.allow.allows(r.from) {
		return nil, nil, forbidden()
	}
	answer := &registration{Instructions: r.lang.text("form.instructions"), Form: a.optionsForm(r.lang, r.from.bare, e)}
	if e != nil {
		answer.Registered = &struct{}{}
	}
	return answer, nil, nil
}

// submit handles a submitted form or plain fields, a removal or a cancellation.
func (a *accounts) submit(ctx context.Context, r request) (any, func(), error) {
	e := a.board.byJID(r.from.bare)
	if e == nil && !a.allow.allows(r.from) {
		return nil, nil, forbidden()
	}
	if r.query.child(nsRegister, "remove") != nil {
		return a.unregister(ctx, r, e)
	}
	options, canceled, err := readOptions(r.query, a.offeredOptions())
	if err != nil || canceled {
		return nil, nil, err
	}
	if e != nil {
		err := a.registerAgain(ctx, e, r.contact, options, a.languageOf(r.received))
		return nil, func() { a.contacts.ask(ctx, e) }, err
	}
	if e, err = a.register(ctx, r.from, r.contact, options, a.languageOf(r.received)); err != nil {
		return nil, nil, err
	}
	return nil, func() {
		a.contacts.ask(ctx, e)
		a.sendChat(r.contact, e.jid, r.received.lang(""), a.welcome(r.lang, e))
	}, nil
}

func (a *accounts) unregister(ctx context.Context, r request, e *entry) (any, func(), error) {
	if len(r.query.children) != 1 {
		return nil, nil, badRequest()
	}
	if e == nil {
		e = a.registry.cluster.lookUp(ctx, r.from.bare)
	}
	if e == nil {
		return nil, nil, registrationRequired()
	}
	if err := a.registry.Remove(ctx, e); err != nil {
		return nil, nil, err
	}
	// No message follows: a client would list us again as a contact that is not in the roster.
	return nil, func() { a.contacts.withdraw(ctx, r.from.bare) }, nil
}

// register registers a user, within the limits. The contact request that follows counts as the user's announcement over this link.
func (a *accounts) register(ctx context.Context, person jid, contact Contact, options optionChange, lang string) (*entry, error) {
	defer a.registering.Add(-1)
	if n := a.registering.Add(1); a.maxUsers > 0 && int64(a.board.count())+n > int64(a.maxUsers) {
		a.refused.Do(func() {
			a.log.Warn("rejecting registrations: the limit of --max-users is reached", "users", a.maxUsers)
		})
		return nil, resourceConstraint()
	}
	if !a.allow.names(person) && !a.quota.use(person.domain(), a.now(), 1) {
		a.refused.Do(func() {
			a.log.Warn("rejecting registrations: too many users of a domain that only --allow * admits have registered within an hour",
				"domain", person.domain(), "limit", registrationsPerHour)
		})
		return nil, resourceConstraint()
	}
	e, err := a.registry.Register(ctx, person.bare, contact, options, lang, a.contacts.privileges.cover(person.bare))
	if errors.Is(err, ErrExists) && e != nil {
		err = a.registerAgain(ctx, e, contact, options, lang)
	}
	if err == nil {
		a.contacts.leaving.Delete(person.bare)
		e.announced = a.board.link.Load().number
	}
	return e, err
}

// registerAgain changes the options of a user who is registered, and makes the address that was used the user's contact.
func (a *accounts) registerAgain(ctx context.Context, e *entry, contact Contact, options optionChange, lang string) error {
	if err := a.registry.SetOptions(ctx, e, options, lang); err != nil {
		return err
	}
	return a.contacts.moveTo(ctx, e, contact)
}

// languageOf returns the one of our languages that a stanza is in, empty if it does not say.
func (a *accounts) languageOf(s *received) string {
	if lang := s.lang(""); lang != "" {
		return a.languages.match(lang).Tag
	}
	return ""
}

// offeredOptions returns the fields that the form offers.
func (s *service) offeredOptions() fieldSet {
	offered := fieldsWhere(func(f field) bool { return f.option != "" })
	if !s.jidLinks {
		offered = offered.with(fieldJIDLink, false)
	}
	if !s.webhook {
		offered = offered.with(fieldPost, false)
	}
	return offered
}

// optionsForm returns a form with the options (XEP-0004) and the address of the page; e is nil before registration.
func (a *accounts) optionsForm(lang *catalog, bare string, e *entry) *stanza.Form {
	form := stanza.NewForm([]*stanza.Field{{Type: stanza.FieldTypeHidden, Var: "FORM_TYPE", ValuesList: []string{nsRegister}}}, stanza.FormTypeForm)
	values := defaultOptions()
	switch {
	case e != nil:
		values = e.user.Options
		for _, p := range a.addresses(e) {
			form.Instructions = append(form.Instructions, lang.text(p.sentence)+" "+p.url)
		}
	case a.jidLinks:
		form.Instructions = []string{lang.text("form.before", "url", jidURL(a.baseURL, bare))}
	default:
		form.Instructions = []string{lang.text("form.before_token")}
	}
	offered := a.offeredOptions()
	for i, f := range fields {
		if !offered.has(i) {
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

// A pageAddress is one of the URLs of a page.
type pageAddress struct {
	field    string // name of the form field with it
	label    string // name of the text that labels the field
	sentence string // name of the text that precedes it
	url      string
}

// addresses returns the addresses of a user's page.
func (a *accounts) addresses(e *entry) []pageAddress {
	all := []pageAddress{{"url", "address.page", "form.after", tokenURL(a.baseURL, e.user.Token)}}
	if a.jidLinks && e.user.Options.has(fieldJIDLink) {
		all = append(all, pageAddress{"jid_url", "address.jid", "form.also", jidURL(a.baseURL, e.jid)})
	}
	return all
}

// addressText names a user's addresses in chat. Each is alone on its line, so that clients recognize it and people can copy it.
func (a *accounts) addressText(lang *catalog, e *entry) string {
	var lines []string
	for _, p := range a.addresses(e) {
		lines = append(lines, lang.text(p.sentence), p.url)
	}
	return strings.Join(lines, "\n")
}

// addressForm names a user's addresses in the result of a command (XEP-0004 §3.2).
func (a *accounts) addressForm(lang *catalog, e *entry) *stanza.Form {
	form := stanza.NewForm(nil, stanza.FormTypeResult)
	for _, p := range a.addresses(e) {
		form.Fields = append(form.Fields, &stanza.Field{Type: fieldTextSingle, Label: lang.text(p.label), Var: p.field, ValuesList: []string{p.url}})
	}
	return form
}

// welcome returns the message to a newly registered user.
func (a *accounts) welcome(lang *catalog, e *entry) string {
	welcome := "chat.welcome"
	if e.user.Privileged {
		welcome = "chat.welcome_privileged"
	}
	return lang.text(welcome) + "\n" + a.addressText(lang, e)
}

// readOptions returns the change of the options that a submitted query names (XEP-0077 §3.1, §4; XEP-0004 §3). Unknown fields are ignored,
// as XEP-0004 §3.2 demands, and options that are left out keep their values. Every error is a *stanzaError.
func readOptions(query *element, offered fieldSet) (options optionChange, canceled bool, err error) {
	var form *element
	plain := make(map[string][]string)
	for i := range query.children {
		c := &query.children[i]
		switch {
		case c.name.Space == nsForm && c.name.Local == "x":
			if form != nil {
				return options, false, badRequest()
			}
			form = c
		case c.name.Space == nsRegister && c.name.Local != "instructions" && c.name.Local != "registered" && c.name.Local != "key":
			plain[c.name.Local] = append(plain[c.name.Local], c.text)
		}
	}
	if form == nil {
		options, err = readFields(plain, offered)
		return options, false, err
	}
	if len(plain) > 0 {
		return options, false, badRequest()
	}
	switch form.attr("type") {
	case stanza.FormTypeCancel:
		return options, true, nil
	case stanza.FormTypeSubmit:
	default:
		return options, false, badRequest()
	}
	fields, err := readForm(form)
	if err != nil {
		return options, false, err
	}
	if typ, ok := fields["FORM_TYPE"]; ok && (len(typ) != 1 || typ[0] != nsRegister) {
		return options, false, badRequest()
	}
	options, err = readFields(fields, offered)
	return options, false, err
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
		if name == "" {
			continue // a fixed text, of which there may be several (XEP-0004 §3.2)
		}
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

// readFields returns the change of the offered options that are among submitted fields. Every error is a *stanzaError.
func readFields(submitted map[string][]string, offered fieldSet) (options optionChange, err error) {
	for i, f := range fields {
		given, ok := submitted[f.option]
		if !ok || !offered.has(i) {
			continue
		}
		if len(given) != 1 {
			return optionChange{}, notAcceptable()
		}
		switch strings.TrimSpace(given[0]) {
		case "1", "true":
			options = options.with(i, true)
		case "0", "false":
			options = options.with(i, false)
		default:
			return optionChange{}, notAcceptable()
		}
	}
	return options, nil
}
