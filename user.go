package main

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// A User is a person who has registered.
type User struct {
	JID          string // bare
	Token        Token
	Options      fieldSet // the options that are on
	Subscription Subscription
	Asked        bool    // we have sent a contact request and await the answer
	Contact      Contact // the address that writes to the user, sends our presence and asks for the user's
	Granted      Contact // the address that sees the user's presence, if any; it differs from Contact until that is granted it too
	Privileged   bool    // the server sends us the presence by a privilege (XEP-0356); the subscription is in no roster
	Created      time.Time
	Lang         string    // language of unsolicited messages, BCP 47; empty if unknown
	Gone         time.Time // since when the user's server reports that the account does not exist; zero if it does not
}

// lacksContact reports whether a contact request is needed to show what the user has switched on.
func (u User) lacksContact() bool {
	return !u.Subscription.To() || u.Privileged && u.Options&contactFields() != 0
}

// Errors of operations on users.
var (
	ErrNotFound    = errors.New("not registered")                 // there is no such user
	ErrFull        = errors.New("the disk is full")               // the change has not been stored; it can be tried again later
	ErrExists      = errors.New("registered already")             // there is such a user
	ErrUnreachable = errors.New("the database cannot be reached") // as ErrFull, but the change may have been stored
	ErrLocked      = errors.New("the database is locked")         // by another process; as ErrFull
	ErrSlow        = errors.New("the database is slow")           // as ErrFull
)

// A StoredUser is a user with the status and the profile that were stored last.
type StoredUser struct {
	User
	Status  Status
	Profile *Profile // nil for none
}

// A Contact is one of our two addresses, as a user has it in the contact list.
type Contact uint8

const (
	ContactDomain Contact = iota // the component's domain
	ContactBot                   // bot@ the domain, for clients that refuse a JID without a local part
)

// botLocal is the local part of ContactBot.
const botLocal = "bot"

// jid returns the bare JID of the contact at the component's domain.
func (c Contact) jid(domain string) string {
	if c == ContactBot {
		return botLocal + "@" + domain
	}
	return domain
}

// MarshalText implements encoding.TextMarshaler.
func (c Contact) MarshalText() ([]byte, error) { return []byte(contactNames[c]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Contact) UnmarshalText(text []byte) error {
	i := slices.Index(contactNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("%q is neither %s nor %s", text, contactNames[ContactDomain], contactNames[ContactBot])
	}
	*c = Contact(i)
	return nil
}

var contactNames = [...]string{ContactDomain: "domain", ContactBot: "bot"}

// A Withdrawal says which of our addresses are to be removed from the contact list of a removed user.
type Withdrawal struct{ Contact, Granted Contact }

// A Subscription says who sees whose presence, from our side (RFC 6121 §3.1). No server keeps a roster for a component, so
// we keep it ourselves. The zero value is none of them.
type Subscription uint8

// The subscriptions.
const (
	SubscriptionNone Subscription = iota + 1
	SubscriptionTo                // we see the user
	SubscriptionFrom              // the user sees us
	SubscriptionBoth
)

var subscriptionNames = [...]string{SubscriptionNone: "none", SubscriptionTo: "to", SubscriptionFrom: "from", SubscriptionBoth: "both"}

// To reports whether we may see the user's presence.
func (s Subscription) To() bool { return s == SubscriptionTo || s == SubscriptionBoth }

// From reports whether the user may see ours.
func (s Subscription) From() bool { return s == SubscriptionFrom || s == SubscriptionBoth }

// String returns the name that RFC 6121 gives the subscription.
func (s Subscription) String() string { return subscriptionNames[s] }

// MarshalText implements encoding.TextMarshaler.
func (s Subscription) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Subscription) UnmarshalText(text []byte) (err error) {
	*s, err = parseSubscription(string(text))
	return err
}

// parseSubscription returns the subscription with a name.
func parseSubscription(name string) (Subscription, error) {
	i := slices.Index(subscriptionNames[:], name)
	if i < int(SubscriptionNone) {
		return 0, fmt.Errorf("%q is not a subscription", name)
	}
	return Subscription(i), nil
}

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
