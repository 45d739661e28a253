package main

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// contacts handles the presence of registered users and the subscriptions between them and us (RFC 6121 §3, §4), and sends our presence.
type contacts struct {
	*service
	prober     *prober
	privileges *privileges
	pep        *pep
	identity   *identity
	logOns     *logOns
	leaving    sync.Map // the last *sentWithdrawal of each user that is not recorded yet, by bare JID
	unstored   sync.Map // the last *unstoredSubscription in each direction that is not stored yet, by subscriptionKey
}

// A sentWithdrawal is a withdrawal that the server may not have handled yet.
type sentWithdrawal struct {
	over     *stream
	unstored atomic.Bool // the server has handled it, but that could not be stored
}

// A subscriptionKey names one direction of the subscription between a user and one of our addresses.
type subscriptionKey struct {
	bare    string
	contact Contact
	toUs    bool // the user's subscription to our presence; otherwise ours to the user's
}

// An unstoredSubscription is a stanza about a subscription that could not be stored.
type unstoredSubscription struct {
	typ   string
	again atomic.Bool // it is about to be handled again
}

// handle handles a presence stanza. People who are not registered get no information.
func (c *contacts) handle(ctx context.Context, s *received) {
	e := c.board.byJID(s.from.bare)
	contact, exists := c.contactAt(s.to)
	if e == nil && exists && s.changesSubscription() {
		e = c.registry.cluster.lookUp(ctx, s.from.bare)
	}
	if e == nil || !exists {
		switch s.typ {
		case "subscribe", "probe":
			c.links.send(s.subscriptionReply("unsubscribed"))
		}
		return
	}
	switch s.typ {
	case "":
		c.onAvailable(ctx, e, s)
	case "unavailable":
		c.onUnavailable(ctx, e, s)
	case "error":
		c.onError(ctx, e, s)
	case "subscribe", "subscribed", "unsubscribe", "unsubscribed":
		c.onSubscription(ctx, e, contact, s.typ)
	case "probe":
		c.onProbe(e, s, contact)
	default:
		c.refuse(s, badRequest())
	}
}

// changesSubscription reports whether a presence stanza manages a subscription (RFC 6121 §3).
func (s *received) changesSubscription() bool {
	switch s.typ {
	case "subscribe", "subscribed", "unsubscribe", "unsubscribed":
		return true
	}
	return false
}

func (c *contacts) onAvailable(ctx context.Context, e *entry, s *received) {
	if !e.user.Subscription.To() {
		if !c.privileges.announced(e.jid) {
			c.sendAvailable(e, s.from.String()) // directed at us, and not ours to show
		}
		return
	}
	if c.logOns.onAvailable(s) {
		c.sendAvailable(e, s.from.String())
	}
	wasOffline := len(e.resources) == 0
	first := c.registry.SetPresence(e, parsePresence(s, c.now()))
	c.accountExists(ctx, e)
	if first {
		c.pep.request(ctx, e)
	} else if wasOffline {
		c.pep.requestRich(e)
	}
	c.pep.onPresence(ctx, e, s)
}

func (c *contacts) onUnavailable(ctx context.Context, e *entry, s *received) {
	at := c.now()
	if sent, ok := delayStamp(s); ok && sent.Before(at) {
		at = sent.UTC()
	}
	if c.registry.RemoveResource(e, s.from.resource, at) {
		c.pep.request(ctx, e)
	}
	if s.from.resource != "" && e.user.Subscription.From() {
		c.logOns.onUnavailable(s)
		c.sendUnavailable(e, s.from.String())
	}
}

// onSilence removes the resources that the server has not reported over a link, although it has had the time.
func (c *contacts) onSilence(ctx context.Context, e *entry, link uint32) {
	if c.registry.RemoveSilent(e, link) && len(e.resources) == 0 {
		c.pep.request(ctx, e)
	}
}

// onError handles the return of a presence that we sent: the user cannot be reached, or the account is gone.
func (c *contacts) onError(ctx context.Context, e *entry, s *received) {
	c.registry.SetUnreachable(e, s.from.resource)
	if s.from.resource == "" && s.isGone() {
		c.accountGone(ctx, e)
	}
}

// isGone reports whether an error says that there is no such account (RFC 6120 §8.3.3).
func (s *received) isGone() bool {
	failure := s.child(nsComponent, "error")
	return failure != nil && (failure.child(nsStanzas, "gone") != nil || failure.child(nsStanzas, "item-not-found") != nil)
}

// onSubscription handles a stanza about a subscription, now and, if it cannot be stored, again later. Nothing is confirmed before it is
// stored.
func (c *contacts) onSubscription(ctx context.Context, e *entry, contact Contact, typ string) error {
	key := subscriptionKey{e.jid, contact, typ == "subscribe" || typ == "unsubscribe"}
	c.unstored.Delete(key)
	var err error
	switch typ {
	case "subscribe":
		err = c.onSubscribe(ctx, e, contact)
	case "subscribed":
		err = c.onSubscribed(ctx, e, contact)
	case "unsubscribe":
		err = c.onUnsubscribe(ctx, e, contact)
	case "unsubscribed":
		err = c.onUnsubscribed(ctx, e, contact)
	}
	if err != nil && !errors.Is(err, ErrNotFound) { // removed by another process meanwhile
		c.unstored.Store(key, &unstoredSubscription{typ: typ})
	}
	return err
}

// retry handles what could not be stored again: one stanza or withdrawal at a time, and all of them once the database works.
func (c *contacts) retry(ctx context.Context) {
	for k, v := range c.unstored.Range {
		key, u := k.(subscriptionKey), v.(*unstoredSubscription)
		if u.again.CompareAndSwap(false, true) {
			c.dispatcher.dispatch(ctx, key.bare, func(ctx context.Context) {
				if !c.unstored.CompareAndDelete(key, u) {
					return // a newer one has been handled
				}
				if e := c.board.byJID(key.bare); e != nil {
					c.onSubscription(ctx, e, key.contact, u.typ)
				}
			})
		}
		if c.registry.outages.lasts() {
			return
		}
	}
	for bare, v := range c.leaving.Range {
		if w := v.(*sentWithdrawal); w.unstored.CompareAndSwap(true, false) {
			c.dispatcher.dispatch(ctx, bare.(string), func(ctx context.Context) { c.withdrawn(ctx, bare.(string), w) })
			if c.registry.outages.lasts() {
				return
			}
		}
	}
}

// onSubscribe grants a subscription once that is stored.
func (c *contacts) onSubscribe(ctx context.Context, e *entry, contact Contact) error {
	moved := e.user.Contact != contact
	if err := c.moveTo(ctx, e, contact); err != nil {
		return err
	}
	if moved && e.user.Asked {
		defer c.sendRequest(e)
	}
	if err := c.registry.SetFrom(ctx, e, true); err != nil {
		return err
	}
	c.accountExists(ctx, e)
	c.links.sendPresence(contact.jid(c.domain), e.jid, "subscribed")
	c.sendAvailable(e, e.jid)
	return nil
}

// moveTo makes the address that a user writes to the one that we write from. The other address is removed from the contact list, unless it
// sees the presence that the new one still has to request.
func (c *contacts) moveTo(ctx context.Context, e *entry, contact Contact) error {
	old := e.user.Contact
	if old == contact {
		return nil
	}
	if err := c.registry.SetContact(ctx, e, contact); err != nil {
		return err
	}
	if old != e.user.Granted {
		c.leave(e.jid, old)
	}
	return nil
}

// leave takes one of our addresses out of a contact list (XEP-0100 §4.3). The unavailable presence from the bare JID is for clients
// that take "unsubscribe" for available presence, such as Profanity.
func (c *contacts) leave(bare string, contact Contact) error {
	address := contact.jid(c.domain)
	return cmp.Or(c.links.sendPresence(address, bare, "unsubscribe"), c.links.sendPresence(address, bare, "unsubscribed"),
		c.links.sendPresence(address+"/"+resourceWeb, bare, "unavailable"), c.links.sendPresence(address, bare, "unavailable"))
}

// onSubscribed probes, because not every server sends the presence of itself.
func (c *contacts) onSubscribed(ctx context.Context, e *entry, contact Contact) error {
	if contact != e.user.Contact && e.user.Subscription.To() {
		return nil // it is about to be removed from the contact list
	}
	old := e.user.Granted
	if err := c.registry.SetGranted(ctx, e, contact); err != nil {
		return err
	}
	if old != contact {
		c.leave(e.jid, old)
	}
	c.accountExists(ctx, e)
	c.prober.probe(e)
	c.pep.request(ctx, e)
	return nil
}

func (c *contacts) onUnsubscribe(ctx context.Context, e *entry, contact Contact) error {
	if contact != e.user.Contact {
		return nil
	}
	err := c.registry.SetFrom(ctx, e, false)
	if err == nil {
		c.sendUnavailable(e, e.jid)
	}
	return err
}

// onUnsubscribed stops showing the presence at once, even if that cannot be stored. It explains the withdrawal of what was granted,
// but not the refusal of a contact request.
func (c *contacts) onUnsubscribed(ctx context.Context, e *entry, contact Contact) error {
	granted := e.user.Subscription.To()
	if contact == e.user.Granted && !(e.user.Privileged && e.user.Asked) {
		c.registry.SetUnreachable(e, "")
	}
	err := c.registry.SetDenied(ctx, e, contact)
	if err == nil && granted && !e.user.Subscription.To() {
		c.sendChat(e.user.Contact, e.jid, e.user.Lang, c.languages.match(e.user.Lang).text("chat.withdrawn"))
	}
	return err
}

func (c *contacts) onProbe(e *entry, s *received, contact Contact) {
	if e.user.Subscription.From() && contact == e.user.Contact {
		c.logOns.forget(s.from)
		c.sendAvailable(e, s.from.String())
	} else {
		c.links.send(s.subscriptionReply("unsubscribed"))
	}
}

// subscriptionReply returns a reply to the bare JID, as RFC 6121 §3.1.2 requires.
func (s *received) subscriptionReply(typ string) envelope {
	return envelope{XMLName: xml.Name{Local: s.name.Local}, Type: typ, ID: s.id, From: s.to.bare, To: s.from.bare}
}

// accountGone records that a user's account is gone, and removes the user once it has been gone for long enough.
func (c *contacts) accountGone(ctx context.Context, e *entry) {
	now := c.now()
	switch {
	case e.user.Gone.IsZero(), e.user.Gone.After(now): // or the clock has been set back
		c.setGone(ctx, e, now.UTC().Truncate(time.Second))
	case c.expire > 0 && now.Sub(e.user.Gone) >= c.expire:
		c.log.Info("removing a user whose account no longer exists", "user", e.jid, "since", e.user.Gone)
		if err := c.registry.Remove(ctx, e); err != nil {
			c.log.Error("cannot remove a user", "user", e.jid, "cause", err)
			return
		}
		c.withdraw(ctx, e.jid)
	}
}

// accountExists records that a user's account is not gone.
func (c *contacts) accountExists(ctx context.Context, e *entry) {
	if !e.user.Gone.IsZero() {
		c.setGone(ctx, e, time.Time{})
	}
}

// setGone stores since when an account does not exist. If that fails, a later error or presence repeats it.
func (c *contacts) setGone(ctx context.Context, e *entry, since time.Time) {
	if err := c.registry.SetGone(ctx, e, since); err != nil && !errors.Is(err, ErrNotFound) {
		c.log.Error("cannot store whether an account exists", "user", e.jid, "cause", err)
	}
}

// announce sends a user our presence after a new link, and asks for theirs.
func (c *contacts) announce(ctx context.Context, e *entry) {
	link := c.board.link.Load().number
	covered, known := c.privileges.coverOver(link, e.jid)
	if !e.isRegistered() || e.announced == link || !known {
		return
	}
	e.announced = link
	if e.user.Subscription.From() {
		c.sendAvailable(e, e.jid)
	}
	switch {
	case !covered && e.user.Privileged:
		c.registry.SetUnreachable(e, "")
		c.setPrivileged(ctx, e, false)
	case covered && e.user.Privileged:
		c.onSilence(ctx, e, link) // all presence has arrived
	case covered && e.user.Asked && !e.user.Subscription.To():
		c.setPrivileged(ctx, e, true)
	}
	c.probeOrAsk(e)
}

// setPrivileged stores whether we see a user's presence by a privilege. If that fails, the next link tries again.
func (c *contacts) setPrivileged(ctx context.Context, e *entry, privileged bool) {
	if err := c.registry.SetPrivileged(ctx, e, privileged); err != nil && !errors.Is(err, ErrNotFound) {
		c.log.Error("cannot store whether presence is seen by a privilege", "user", e.jid, "cause", err)
	}
}

// probeOrAsk asks for a user's presence, or for the permission to see it.
func (c *contacts) probeOrAsk(e *entry) {
	switch {
	case e.user.Subscription.To() && !e.user.Privileged:
		c.prober.probe(e)
	case e.user.Asked:
		c.sendRequest(e)
	}
}

// ask sends a contact request if one is due, and requests what the options want shown. Without a link, the next one does.
func (c *contacts) ask(ctx context.Context, e *entry) {
	if e.user.Asked && !e.user.Subscription.To() && c.privileges.cover(e.jid) {
		c.setPrivileged(ctx, e, true)
	}
	if e.user.Asked {
		c.sendRequest(e)
	}
	if e.user.Options.has(fieldMessage) && e.resources.IsStripped() {
		c.prober.probe(e)
	}
	c.pep.request(ctx, e)
}

// sendAvailable sends our presence to a user, or to one of the user's resources. It names the number of users, which is not sent
// again when it changes.
func (c *contacts) sendAvailable(e *entry, to string) {
	count := c.languages.match(e.user.Lang).text("presence.count", "count", strconv.Itoa(c.board.count()))
	c.links.send(envelope{XMLName: xml.Name{Local: "presence"}, From: c.fullJID(e), To: to, Lang: e.user.Lang,
		Payload: []any{statusElement{Text: count}, c.identity.caps, c.identity.photo, nickElement{Text: c.name}}})
}

// sendUnavailable sends our unavailable presence to a user, or to one of the user's resources.
func (c *contacts) sendUnavailable(e *entry, to string) {
	c.links.sendPresence(c.fullJID(e), to, "unavailable")
}

// fullJID returns the address that our presence comes from.
func (c *contacts) fullJID(e *entry) string { return e.user.Contact.jid(c.domain) + "/" + resourceWeb }

// sendRequest asks a user for the permission to see the presence, and says why.
func (c *contacts) sendRequest(e *entry) {
	why := "ask.why"
	if e.user.Privileged {
		why = "ask.more"
	}
	c.links.send(envelope{XMLName: xml.Name{Local: "presence"}, Type: "subscribe", From: e.user.Contact.jid(c.domain), To: e.jid, Lang: e.user.Lang,
		Payload: []any{statusElement{Text: c.languages.match(e.user.Lang).text(why)}, nickElement{Text: c.name}}})
}

type statusElement struct {
	XMLName xml.Name `xml:"status"`
	Text    string   `xml:",chardata"`
}

// nickElement is the name under which clients list us (XEP-0172).
type nickElement struct {
	XMLName xml.Name `xml:"http://jabber.org/protocol/nick nick"`
	Text    string   `xml:",chardata"`
}

// withdraw takes a removed user off the board, and our contact out of the user's roster (XEP-0100 §4.3), unless that has been done.
func (c *contacts) withdraw(ctx context.Context, bare string) {
	pending, err := c.registry.Evict(ctx, bare)
	if err != nil {
		if !errors.Is(err, ErrNotFound) {
			c.log.Error("the database "+err.Error(), "operation", "withdrawing a contact, which the next link repeats", "user", bare)
		}
		return
	}
	s := c.links.streamFor(bare)
	if w, ok := c.leaving.Load(bare); s == nil || ok && w.(*sentWithdrawal).over == s {
		return // the next link tries again, or the server has not handled it yet
	}
	w := &sentWithdrawal{over: s}
	c.leaving.Store(bare, w)
	if c.leave(bare, pending.Contact) != nil || pending.Granted != pending.Contact && c.leave(bare, pending.Granted) != nil {
		return // the next link tries again
	}
	s.confirm(func() { // if it fails, the next link tries again
		c.dispatcher.dispatch(ctx, bare, func(ctx context.Context) { c.withdrawn(ctx, bare, w) })
	})
}

// withdrawn records that the server has handled a withdrawal, unless the user has registered again meanwhile or a newer link has repeated it.
func (c *contacts) withdrawn(ctx context.Context, bare string, w *sentWithdrawal) {
	if last, ok := c.leaving.Load(bare); !ok || last != w {
		return
	}
	if c.registry.Withdrawn(ctx, bare) != nil {
		w.unstored.Store(true)
		return
	}
	c.leaving.Delete(bare)
}
