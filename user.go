package main

import (
	"errors"
	"time"
)

// Options are what a user has decided about the page.
type Options struct {
	ShowMessage   bool // the status message
	ShowJID       bool // the bare JID
	ShowNick      bool // the nickname
	ShowAvatar    bool // the picture
	ShowLastSeen  bool // when the user was active last, coarsely
	ShowResources bool // each connected client
	JIDLink       bool // also answer at the address made from the JID
	SearchEngines bool // the page may be listed by search engines
}

// A User is somebody who has registered.
type User struct {
	JID          string // bare
	Token        Token
	Options      Options
	Subscription Subscription
	Asked        bool // we asked to subscribe and await the answer
	Created      time.Time
	Lang         string    // in which we write unasked, BCP 47; empty if not known
	Gone         time.Time // since when the user's server says that there is no such account; else zero
}

// ErrNotFound says that no such user is registered.
var ErrNotFound = errors.New("not registered")

// A UserStatus is a user with the last status and profile that were written down.
type UserStatus struct {
	User
	Status  Status
	Profile *Profile // nil for none
}

// A Subscription says who sees whose presence, from our side (RFC 6121 §3.1). No server keeps a roster for a component, so
// it is ours to keep.
type Subscription string

// The subscriptions.
const (
	SubscriptionNone Subscription = "none"
	SubscriptionTo   Subscription = "to"   // we see the user
	SubscriptionFrom Subscription = "from" // the user sees us
	SubscriptionBoth Subscription = "both"
)

// To reports whether we may see the user's presence.
func (s Subscription) To() bool { return s == SubscriptionTo || s == SubscriptionBoth }

// From reports whether the user may see ours.
func (s Subscription) From() bool { return s == SubscriptionFrom || s == SubscriptionBoth }

// subscription returns the subscription with its two directions set.
func subscription(to, from bool) Subscription {
	switch {
	case to && from:
		return SubscriptionBoth
	case to:
		return SubscriptionTo
	case from:
		return SubscriptionFrom
	}
	return SubscriptionNone
}

// defaultOptions are those of somebody who has decided nothing.
var defaultOptions = Options{JIDLink: true}
