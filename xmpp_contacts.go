package main

import (
	"context"
	"time"
)

// subscriptionAnswer goes to the bare JID, as RFC 6121 §3.1.2 asks.
func (s *received) subscriptionAnswer(typ string) envelope {
	return envelope{XMLName: s.name, Type: typ, ID: s.id, From: s.to, To: s.from.bare}.local()
}

// subscribe grants what a user asks for, and answers with our presence.
func (c *component) subscribe(ctx context.Context, e *entry) {
	if c.storeSubscription(ctx, e, e.user.Subscription.To(), true, e.user.Asked) != nil {
		return // the user's server repeats the request
	}
	c.alive(ctx, e)
	c.sendPresence(e.jid, "subscribed")
	c.sendAvailable(e, e.jid)
}

// subscribed says that we may see the user from now on. Not every server sends the presence unasked.
func (c *component) subscribed(ctx context.Context, e *entry) {
	c.storeSubscription(ctx, e, true, e.user.Subscription.From(), false) // if that fails, we ask again after a restart
	c.alive(ctx, e)
	c.update(e)
	c.askPresence(e)
	c.askProfile(ctx, e)
}

func (c *component) unsubscribe(ctx context.Context, e *entry) {
	if c.storeSubscription(ctx, e, e.user.Subscription.To(), false, e.user.Asked) == nil {
		c.sendPresence(e.jid, "unavailable")
	}
}

func (c *component) unsubscribed(ctx context.Context, e *entry) {
	c.storeSubscription(ctx, e, false, e.user.Subscription.From(), false) // if that fails, the next probe is not answered
	e.resources = nil
	c.heard(ctx, e)
}

func (c *component) probed(e *entry, s *received) {
	if e.user.Subscription.From() {
		c.sendAvailable(e, s.from.String())
	} else {
		c.send(s.subscriptionAnswer("unsubscribed"))
	}
}

// storeSubscription keeps a subscription, in memory even when the database fails. The user is to be told nothing of what is
// not stored.
func (c *component) storeSubscription(ctx context.Context, e *entry, to, from, asked bool) error {
	before := e.user
	e.user.Subscription, e.user.Asked = subscription(to, from), asked
	if e.user == before {
		return nil
	}
	err := c.db.StoreUser(ctx, e.user)
	if err != nil {
		c.log.Error("a subscription could not be stored", "user", e.jid, "cause", explain(err))
	}
	return err
}

// saysGone reports whether a stanza that came back says that there is no such account (RFC 6120 §8.3.3).
func (s *received) saysGone() bool {
	failure := s.child(nsComponent, "error")
	return failure != nil && (failure.child(nsStanzas, "gone") != nil || failure.child(nsStanzas, "item-not-found") != nil)
}

// gone notes that a user's account is gone, and removes the user when it has been for long enough.
func (c *component) gone(ctx context.Context, e *entry) {
	now := c.now()
	switch {
	case e.user.Gone.IsZero():
		c.storeGone(ctx, e, now.UTC().Truncate(time.Second))
	case c.expire > 0 && now.Sub(e.user.Gone) >= c.expire:
		c.log.Info("a user's account has been gone for too long", "user", e.jid, "since", e.user.Gone)
		if err := c.remove(ctx, e); err != nil {
			c.log.Error("a user could not be removed", "user", e.jid, "cause", explain(err))
			return
		}
		c.withdraw(ctx, e.jid)
	}
}

// alive notes that there is such an account.
func (c *component) alive(ctx context.Context, e *entry) {
	if !e.user.Gone.IsZero() {
		c.storeGone(ctx, e, time.Time{})
	}
}

func (c *component) storeGone(ctx context.Context, e *entry, since time.Time) {
	u := e.user
	u.Gone = since
	if err := c.db.StoreUser(ctx, u); err != nil {
		c.log.Error("that an account is gone or back could not be stored", "user", e.jid, "cause", explain(err))
		return // it will be heard of again
	}
	e.user = u
}
