package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A registry is the only code that changes a user. Where the database is authoritative, it changes first; memory and board follow, and
// then the caller may confirm. The operations on one user must be called one at a time, in the dispatcher's queue of that user.
//
// Every operation returns ErrNotFound if the user has been removed by another process meanwhile, and then takes the user off the
// board. ErrFull says that the disk is full, ErrLocked that another process has locked the database, ErrSlow that the database is slow.
type registry struct {
	registryConfig
	db      *database
	board   *board
	outages failureLog // of the database
	cluster *cluster   // nil if no other node uses the database

	presenceBytes atomic.Int64 // size of the resources of all users

	storing sync.RWMutex // held by SavePresence, so that it never stores what SetOptions has just deleted

	mu       sync.Mutex
	unsaved  map[*entry]unsaved // entries whose status is to be stored
	saving   map[*entry]unsaved // those that are being stored
	linkSeen time.Time          // when the statuses were last known to be current; zero if that has been stored
}

// unsaved is what is to be stored of an entry besides the status.
type unsaved struct {
	profile bool       // the profile has changed
	own     []Presence // presence that this node of a cluster has received
}

// A registryConfig is the configuration of a registry. All fields are required.
type registryConfig struct {
	now    func() time.Time
	random io.Reader // for tokens
	log    *slog.Logger
}

// newRegistry returns a registry of a database, with every user on its board.
func newRegistry(ctx context.Context, conf registryConfig, db *database) (*registry, error) {
	seen, err := db.LinkSeen(ctx)
	if err != nil {
		return nil, fmt.Errorf("the database %w", err)
	}
	now := conf.now()
	if seen.IsZero() || seen.After(now) { // the clock has been set back
		seen = now
	}
	r := &registry{registryConfig: conf, db: db, board: newBoard(seen, now), unsaved: make(map[*entry]unsaved),
		outages: failureLog{log: conf.log, now: conf.now, what: "the database"}}
	var heard map[string][]heardPresence
	if db.shared != nil {
		r.cluster = newCluster(r)
		if heard, err = r.cluster.load(ctx); err != nil {
			return nil, fmt.Errorf("the database %w", err)
		}
	}
	err = readAhead(db.Users(ctx, userFilter{}), func(u *StoredUser) {
		if u.Status.Since.After(now) {
			u.Status.Since = now
		}
		e := r.board.add(u.User, u.Status, u.Profile)
		if all := heard[u.JID]; len(all) > 0 {
			r.cluster.hear(e, all, u.Status)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("the database %w", err)
	}
	return r, nil
}

// readAhead calls add for each user, while another goroutine reads the next ones.
func readAhead(users iter.Seq2[StoredUser, error], add func(*StoredUser)) (err error) {
	const size, buffers = 256, 2
	full, empty := make(chan []StoredUser, buffers), make(chan []StoredUser, buffers)
	for range buffers {
		empty <- make([]StoredUser, 0, size)
	}
	go func() {
		defer close(full)
		batch := <-empty
		for u, e := range users {
			if e != nil {
				err = e
				return
			}
			if batch = append(batch, u); len(batch) == size {
				full <- batch
				batch = <-empty
			}
		}
		full <- batch
	}()
	for batch := range full {
		for i := range batch {
			add(&batch[i])
		}
		empty <- batch[:0]
	}
	return err
}

// Register registers a user through one of our addresses, with the default options and a change of them. Of a privileged one, we see the
// presence without a contact request. If another node has registered the user meanwhile, or the registration was stored although that could
// not be confirmed, it returns ErrExists and the user as stored.
func (r *registry) Register(ctx context.Context, bare string, contact Contact, options optionChange, lang string, privileged bool) (*entry, error) {
	token, err := newToken(r.random)
	if err != nil {
		return nil, err
	}
	u := User{JID: strings.Clone(bare), Token: token, Options: options.apply(defaultOptions()), Subscription: subscription(privileged, false), Contact: contact, Granted: contact,
		Privileged: privileged, Created: r.now().UTC().Truncate(time.Second), Lang: lang}
	u.Asked = u.lacksContact()
	err = r.db.InsertUser(ctx, u)
	if errors.Is(err, ErrExists) && r.cluster != nil {
		r.cluster.reload(ctx, bare) // an error leaves the user unknown
		return r.board.byJID(bare), err
	}
	r.noteChange(ctx, bare, true, err)
	if err != nil {
		return nil, err
	}
	r.log.Info("user registered", "user", bare)
	return r.board.add(u, Status{State: Unknown}, nil), nil
}

// SetOptions changes what a user shows, and the language of unsolicited messages unless lang is empty. Everything that is turned off is
// deleted in the same transaction.
func (r *registry) SetOptions(ctx context.Context, e *entry, options optionChange, lang string) error {
	r.storing.RLock()
	defer r.storing.RUnlock()
	change := func(u *User) {
		u.Options, u.Lang, u.Gone = options.apply(u.Options), cmp.Or(lang, u.Lang), time.Time{}
		// A user who writes to us is online. If we do not see that, the contact has been lost: ask for it again.
		u.Asked = u.Asked || u.lacksContact() || len(e.resources) == 0 && !u.Privileged
	}
	err := r.store(ctx, e, change, func(change func(*User)) (User, error) {
		return r.db.UpdateOptions(ctx, e.jid, change, func(options fieldSet) (Status, *Profile) {
			return storedStatus(*e.snapshot.Load().status, options), storedProfile(e.profile(), options)
		})
	})
	if err != nil {
		return err
	}
	if !e.user.Options.has(fieldMessage) {
		r.changeResources(e, func(all Resources) Resources { all.Strip(); return all })
	}
	if profile := storedProfile(e.profile(), e.user.Options); profile.orEmpty() != e.profile() {
		e.writableExtras().profile = profile
	}
	r.setRich(e, e.extras.orEmpty().rich.orEmpty()) // as far as the options allow
	r.publish(e)
	return nil
}

// changedBy returns a user with a change applied.
func changedBy(change func(*User), u User) User {
	change(&u)
	return u
}

// RenewToken gives a user another address. The old one stops working at once.
func (r *registry) RenewToken(ctx context.Context, e *entry) error {
	token, err := newToken(r.random)
	if err != nil {
		return err
	}
	return r.update(ctx, e, func(u *User) { u.Token = token })
}

// SetContact changes the address that a user has in the contact list. Unless the other address sees the user's presence, the new one
// has to request it; until that is granted, the old one still sees it.
func (r *registry) SetContact(ctx context.Context, e *entry, contact Contact) error {
	return r.update(ctx, e, func(u *User) {
		if u.Contact == contact {
			return
		}
		u.Contact, u.Subscription = contact, subscription(u.Subscription.To(), false)
		if !u.Subscription.To() || u.Privileged {
			u.Granted = contact
		}
		u.Asked = u.Granted != contact || u.lacksContact()
	})
}

// SetFrom records whether the user sees our presence.
func (r *registry) SetFrom(ctx context.Context, e *entry, from bool) error {
	return r.update(ctx, e, func(u *User) { u.Subscription = subscription(u.Subscription.To(), from) })
}

// SetGranted records that one of our addresses may see the user's presence.
func (r *registry) SetGranted(ctx context.Context, e *entry, contact Contact) error {
	return r.update(ctx, e, func(u *User) {
		u.Subscription, u.Granted = subscription(true, u.Subscription.From()), contact
		u.Asked, u.Privileged = u.Asked && contact != u.Contact, false
	})
}

// SetPrivileged records whether we see a user's presence by a privilege, and no longer by a subscription.
func (r *registry) SetPrivileged(ctx context.Context, e *entry, privileged bool) error {
	return r.update(ctx, e, func(u *User) {
		u.Privileged, u.Granted, u.Subscription = privileged, u.Contact, subscription(privileged, u.Subscription.From())
		u.Asked = u.lacksContact()
	})
}

// SetDenied records that one of our addresses may not see the user's presence, or no longer. The refusal of a contact request does not
// end a privilege.
func (r *registry) SetDenied(ctx context.Context, e *entry, contact Contact) error {
	return r.update(ctx, e, func(u *User) {
		switch {
		case u.Privileged && u.Asked:
			u.Asked = false
		case u.Contact == u.Granted && contact == u.Contact:
			u.Subscription, u.Asked, u.Privileged = subscription(false, u.Subscription.From()), false, false
		case contact == u.Granted: // and the request of the other address awaits its answer
			u.Subscription, u.Granted = subscription(false, u.Subscription.From()), u.Contact
		case contact == u.Contact: // and the other address still sees it
			u.Contact, u.Subscription, u.Asked = u.Granted, subscription(true, false), false
		}
	})
}

// SetGone records since when a user's server reports that the account does not exist; the zero time if it does.
func (r *registry) SetGone(ctx context.Context, e *entry, since time.Time) error {
	return r.update(ctx, e, func(u *User) { u.Gone = since })
}

// update changes a user.
func (r *registry) update(ctx context.Context, e *entry, change func(*User)) error {
	err := r.store(ctx, e, change, func(change func(*User)) (User, error) { return r.db.UpdateUser(ctx, e.jid, change) })
	if err == nil {
		r.publish(e)
	}
	return err
}

// store changes a user in the database and then here, unless there is nothing to change. The caller publishes. In a cluster, only the
// database knows whether there is: another node may have changed the user a moment ago. That is shown as well.
func (r *registry) store(ctx context.Context, e *entry, change func(*User), write func(func(*User)) (User, error)) error {
	if r.cluster == nil && changedBy(change, e.user) == e.user {
		return nil
	}
	var before User
	u, err := write(func(u *User) { before = *u; change(u) })
	r.noteChange(ctx, e.jid, u != before, err)
	if err := r.evictRemoved(e, err); err != nil {
		return err
	}
	if r.cluster != nil && before != e.user {
		r.cluster.adopt(e, e.user, before)
	}
	r.board.setUser(e, u)
	return nil
}

// noteChange records how a change of a user in the database went: in the log, if it failed or works again, and for the other nodes. One that
// has changed nothing proves nothing.
func (r *registry) noteChange(ctx context.Context, bare string, changed bool, err error) {
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrExists):
	case err != nil:
		r.cluster.doubtFailed(bare)
		r.outages.report(ctx, "changing a user", err)
	case changed:
		r.outages.report(ctx, "", nil)
		r.cluster.announce()
	}
}

// Remove ends a user's page and deletes all data about the user. The contact still has to be withdrawn.
func (r *registry) Remove(ctx context.Context, e *entry) error {
	err := r.db.DeleteUser(ctx, e.jid)
	r.noteChange(ctx, e.jid, true, err)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	r.evict(e)
	return nil
}

// Delete removes any user from the database. It may be called in the queue of another user; Evict, in the queue of the removed
// one, does the rest.
func (r *registry) Delete(ctx context.Context, bare string) error {
	err := r.db.DeleteUser(ctx, bare)
	r.noteChange(ctx, bare, true, err)
	return err
}

// Evict takes a removed user off the board, and returns what is still to be withdrawn. It returns ErrNotFound if the user has
// registered again, or if the contact has been withdrawn already.
func (r *registry) Evict(ctx context.Context, bare string) (Withdrawal, error) {
	w, err := r.db.GetWithdrawal(ctx, bare)
	if err != nil {
		return w, err
	}
	if e := r.board.byJID(bare); e != nil {
		r.evict(e)
	}
	return w, nil
}

func (r *registry) evict(e *entry) {
	r.changeResources(e, func(Resources) Resources { return nil })
	r.board.remove(e)
	r.log.Info("user removed", "user", e.jid)
}

// evictRemoved takes a user off the board whom an update has not found, and returns the update's error.
func (r *registry) evictRemoved(e *entry, err error) error {
	if errors.Is(err, ErrNotFound) {
		r.evict(e)
	}
	return err
}

// Withdrawals returns the bare JIDs of removed users whose contact this node is to withdraw.
func (r *registry) Withdrawals(ctx context.Context) ([]string, error) {
	jids, err := r.db.Withdrawals(ctx, r.Leads())
	if err != nil {
		r.outages.report(ctx, "reading which contacts are to be withdrawn", err)
	}
	return jids, err
}

// Withdrawn records that the contact of a removed user has been withdrawn.
func (r *registry) Withdrawn(ctx context.Context, bare string) error {
	err := r.db.DeleteWithdrawal(ctx, bare)
	r.outages.report(ctx, "storing that a contact has been withdrawn; it will be tried again", err)
	return err
}

// A failureLog logs a failure that repeats: when it begins, once a minute while it lasts, and when it is over.
type failureLog struct {
	log  *slog.Logger
	now  func() time.Time
	what string // subject of the log lines, such as "the database"

	mu     sync.Mutex
	since  time.Time // zero if there is no failure
	logged time.Time // when the last line was written
}

// failureInterval is the time between two log lines about the same failure.
const failureInterval = time.Minute

// report logs the outcome of an operation; nil ends a failure. That an operation was canceled, as at the shutdown, says nothing.
func (f *failureLog) report(ctx context.Context, operation string, err error) {
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	switch {
	case err == nil && !f.since.IsZero():
		f.log.Info(f.what+" works again", "after", now.Sub(f.since).Round(time.Second))
		f.since = time.Time{}
	case err == nil:
	case f.since.IsZero():
		f.since, f.logged = now, now
		f.log.Error(f.what+" "+err.Error(), "operation", operation)
	case now.Sub(f.logged) >= failureInterval:
		f.logged = now
		f.log.Error(f.what+" "+err.Error(), "operation", operation, "since", f.since.Format(time.RFC3339))
	}
}

// lasts reports whether the failure is not over.
func (f *failureLog) lasts() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.since.IsZero()
}
