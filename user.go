package main

import (
	"errors"
	"time"
)

// A User is a person who has registered.
type User struct {
	JID          string // bare
	Token        Token
	Options      fieldSet // the options that are on
	Subscription Subscription
	Asked        bool // we have sent a contact request and await the answer
	Created      time.Time
	Lang         string    // language of messages that we send unasked, BCP 47; empty if unknown
	Gone         time.Time // since when the user's server reports that the account does not exist; zero if it does not
}

// Errors of operations on users.
var (
	ErrNotFound = errors.New("not registered")       // there is no such user
	ErrFull     = errors.New("the disk has no room") // the change has not been stored; it can be tried again later
)

// A StoredUser is a user with the status and the profile that were stored last.
type StoredUser struct {
	User
	Status  Status
	Profile *Profile // nil for none
}

// A Subscription says who sees whose presence, from our side (RFC 6121 §3.1). No server keeps a roster for a component, so
// we keep it ourselves.
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

// subscription returns the subscription with the given directions.
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
