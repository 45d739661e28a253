package main

import (
	"hash/maphash"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// A snapshot is everything that may be shown of one user at one time. It is immutable.
type snapshot struct {
	id      uint64 // identifies the snapshot for as long as the process runs
	jid     string // bare
	token   Token
	options fieldSet
	link    uint32   // link over which the status was received
	status  *Status  // immutable
	profile *Profile // nil for none
}

// An entry is the place of one registered user on the board.
type entry struct {
	jid      string                   // bare
	snapshot atomic.Pointer[snapshot] // nil once the user has been removed
	changed  atomic.Pointer[chan struct{}]

	// The registry alone changes the following fields, in the dispatcher's queue of the user.

	user      User
	resources Resources
	extras    *extras // nil for users who show no more than the state, as most do
	link      uint32  // link over which the user's server last reported presence; 0 if none since the start
	failed    bool    // the user's server was unreachable then
	shared    bool    // another node of the cluster has reported presence

	// Notes of the component.

	announced uint32        // link over which the user was last sent our presence; only used in the user's queue
	probing   atomic.Uint32 // one more than the Contact that is about to send a probe; 0 for none
}

// extras holds what is known of users who show more than the state.
type extras struct {
	profile  *Profile      // nil for none
	rich     *RichPresence // nil for none, which it is for users who are offline
	lastSeen time.Time     // when an offline user was last online; zero if unknown
	avatar   avatarNotes
	answered [answeredOnce]int64 // time of the last request that was answered, Unix time in milliseconds
}

// A question is a kind of request that we send to a user's server.
type question int

// The questions.
const (
	askNick   question = iota
	askAvatar          // metadata of the PEP avatar
	askData            // its picture
	askVCard
	askLast

	// Answers to the following questions are as cheap as events, so they may be repeated.

	askActivity
	askMood
	askTune
	questionCount

	answeredOnce = askActivity
)

// String returns the start of the ids of the question.
func (q question) String() string {
	return [questionCount]string{"nick", "avatar", "avatar-data", "vcard", "last", "activity", "mood", "tune"}[q]
}

// avatarNotes are notes of the component on the avatar of a user.
type avatarNotes struct {
	photoHash string    // hash of the vCard's photo in the user's last presence (XEP-0153)
	refused   string    // SHA-1 of the last file that could not be shown
	asked     time.Time // when we last asked for the avatar
	scheduled bool      // we are about to ask again
	decoding  bool      // a picture waits to be decoded
}

// orEmpty returns a copy to read from.
func (x *extras) orEmpty() extras {
	if x == nil {
		return extras{}
	}
	return *x
}

// isRegistered reports whether the user has not been removed.
func (e *entry) isRegistered() bool { return e.snapshot.Load() != nil }

// hasToken reports whether the page of the user is at a token.
func (e *entry) hasToken(t Token) bool {
	s := e.snapshot.Load()
	return s != nil && s.token == t
}

// profile returns what is known of the user besides presence.
func (e *entry) profile() Profile { return e.extras.orEmpty().profile.orEmpty() }

// writableExtras returns the extras to write to.
func (e *entry) writableExtras() *extras {
	if e.extras == nil {
		e.extras = &extras{}
	}
	return e.extras
}

// setLastSeen records when an offline user was last online, if the user shows that.
func (e *entry) setLastSeen(at time.Time) {
	switch {
	case e.user.Options.has(fieldLastSeen):
		e.writableExtras().lastSeen = at
	case e.extras != nil:
		e.extras.lastSeen = time.Time{} // or an outdated time would return with the option
	}
}

// successor returns a channel that is closed when the current snapshot is replaced.
func (e *entry) successor() <-chan struct{} {
	for {
		ch := e.changed.Load()
		if ch == nil {
			fresh := make(chan struct{})
			if !e.changed.CompareAndSwap(nil, &fresh) {
				continue
			}
			ch = &fresh
		}
		return *ch
	}
}

// publish replaces the snapshot; nil ends the user's page.
func (e *entry) publish(s *snapshot) {
	e.snapshot.Store(s)
	if ch := e.changed.Swap(nil); ch != nil {
		close(*ch)
	}
}

// A linkState is the state of the link to the XMPP server, which affects the status of all users. It is immutable.
type linkState struct {
	number      uint32        // of the current or last link, counted from 1
	downSince   time.Time     // zero while the link is up
	elsewhere   bool          // other nodes of the cluster have a link
	cutOff      time.Time     // since when there has been no news of other nodes; zero if there is news, or if there are none
	oldestValid uint32        // statuses received over an older link have expired
	replaced    chan struct{} // closed when there is a newer linkState
}

// isUp reports whether the link is up.
func (l *linkState) isUp() bool { return l.downSince.IsZero() }

// staleSince returns the time up to which the statuses are known to be current; zero if they are current now.
func (l *linkState) staleSince() time.Time {
	switch {
	case l.cutOff.IsZero() && l.elsewhere:
		return time.Time{}
	case l.cutOff.IsZero(), !l.isUp() && !l.elsewhere && l.downSince.Before(l.cutOff):
		return l.downSince
	}
	return l.cutOff
}

// The board holds the status of every registered user in memory, for any number of readers. It is sharded, so that readers do
// not wait for one lock. The changes of one user come one at a time.
type board struct {
	seed   maphash.Seed
	users  [64]index     // by bare JID
	tokens [64]index     // by token
	lastID atomic.Uint64 // of a snapshot

	offline, unknown Status // shared; immutable

	observe func(e *entry, old, current *snapshot) // called after a snapshot has been replaced; must not block; nil for none

	link   atomic.Pointer[linkState]
	linkMu sync.Mutex  // held while link is replaced
	expiry *time.Timer // of the statuses; nil before the first
}

// outageGrace is how long the last state is shown after the link to the XMPP server broke.
const outageGrace = 5 * time.Minute

// newBoard returns an empty board whose link has been down since the given time.
func newBoard(downSince, now time.Time) *board {
	b := &board{seed: maphash.MakeSeed(), offline: Status{State: Unavailable}, unknown: Status{State: Unknown}}
	l := &linkState{downSince: downSince, replaced: make(chan struct{})}
	if now.Sub(downSince) >= outageGrace {
		l.oldestValid = 1
	}
	b.link.Store(l)
	b.scheduleExpiry(l, now)
	return b
}

// userIndex returns the index that has a bare JID, and the hash in it.
func (b *board) userIndex(bare string) (*index, uint32) {
	hash := maphash.String(b.seed, bare)
	return &b.users[hash>>32%uint64(len(b.users))], uint32(hash)
}

// tokenIndex returns the index that has a token, and the hash in it.
func (b *board) tokenIndex(t Token) (*index, uint32) {
	hash := maphash.Bytes(b.seed, t[:])
	return &b.tokens[hash>>32%uint64(len(b.tokens))], uint32(hash)
}

// byJID returns the entry of a bare JID, nil if it is not registered.
func (b *board) byJID(bare string) *entry {
	users, hash := b.userIndex(bare)
	return users.get(hash, func(e *entry) bool { return e.jid == bare })
}

// byToken returns the entry of a token, nil if there is none.
func (b *board) byToken(t Token) *entry {
	tokens, hash := b.tokenIndex(t)
	return tokens.get(hash, func(e *entry) bool { return e.hasToken(t) })
}

// add puts a user on the board, with the status and the profile that were stored last.
func (b *board) add(u User, last Status, p *Profile) *entry {
	e := &entry{jid: u.JID, user: u}
	if p != nil {
		e.writableExtras().profile = p
	}
	b.publish(e, &snapshot{id: b.lastID.Add(1), jid: u.JID, token: u.Token, options: u.Options, status: b.share(last), profile: p})
	users, hash := b.userIndex(u.JID)
	users.set(hash, e, func(other *entry) bool { return other.jid == u.JID })
	b.setToken(e)
	return e
}

// remove takes a user off the board.
func (b *board) remove(e *entry) {
	users, hash := b.userIndex(e.jid)
	users.remove(hash, e)
	b.removeToken(e, e.user.Token)
	b.publish(e, nil)
}

// setToken indexes an entry by its token.
func (b *board) setToken(e *entry) {
	tokens, hash := b.tokenIndex(e.user.Token)
	tokens.set(hash, e, func(other *entry) bool { return other.hasToken(e.user.Token) })
}

// removeToken removes an entry from the index of a token.
func (b *board) removeToken(e *entry, t Token) {
	tokens, hash := b.tokenIndex(t)
	tokens.remove(hash, e)
}

// setUser replaces what is stored of a user. If the token is another one, the old one ends at once. The caller publishes.
func (b *board) setUser(e *entry, u User) {
	old := e.user.Token
	if e.user = u; u.Token != old {
		b.setToken(e)
		b.removeToken(e, old)
	}
}

// publish replaces the snapshot of an entry.
func (b *board) publish(e *entry, s *snapshot) {
	old := e.snapshot.Load()
	e.publish(s)
	if b.observe != nil {
		b.observe(e, old, s)
	}
}

// share returns the status to keep. Users who are offline or unknown, without a time, share one status, as most users do.
func (b *board) share(s Status) *Status {
	for _, shared := range []*Status{&b.offline, &b.unknown} {
		if s.Equal(*shared) {
			return shared
		}
	}
	kept := s // only now on the heap
	return &kept
}

// update publishes a new snapshot if the entry has changed, and reports whether it has.
func (b *board) update(e *entry) bool { return b.updateAs(e, Status{}) }

// updateAs updates an entry. If another node has computed the same state, it began at the same time.
func (b *board) updateAs(e *entry, other Status) bool {
	old := e.snapshot.Load()
	status := *old.status
	s := &snapshot{id: b.lastID.Add(1), jid: e.jid, token: e.user.Token, options: e.user.Options, profile: e.extras.orEmpty().profile, link: e.link}
	switch {
	case !e.user.Subscription.To() || e.failed:
		status = Status{State: Unknown}
	case e.link > 0 || e.shared: // otherwise the stored status is kept
		if status = e.resources.Status(); status.State == Unavailable {
			status.Since = e.extras.orEmpty().lastSeen
		} else {
			status.Rich = e.extras.orEmpty().rich
		}
		if status = status.After(*old.status); status.State == other.State && !other.Since.IsZero() {
			status.Since = other.Since
		}
		if s.options.has(fieldResources) {
			status.Resources = e.resources.Sorted()
		}
	}
	if !s.options.has(fieldMessage) {
		status.Messages = nil // those that were stored before
	}
	s.status = b.share(status)
	if s.equal(old) && old.link >= b.link.Load().oldestValid {
		return false
	}
	b.publish(e, s)
	return true
}

// equal reports whether two snapshots look the same to everyone.
func (s *snapshot) equal(o *snapshot) bool {
	return s.token == o.token && s.options == o.options && s.status.Equal(*o.status) && s.profile == o.profile
}

// all iterates over all entries.
func (b *board) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for i := range b.users {
			for _, e := range b.users[i].all() {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// count returns the number of registered users.
func (b *board) count() (n int) {
	for i := range b.users {
		n += b.users[i].length()
	}
	return n
}

// linkUp records a new link and returns its number.
func (b *board) linkUp(now time.Time) uint32 {
	return b.replaceLink(now, func(l *linkState) {
		l.number++
		l.downSince = time.Time{}
	}).number
}

// linkDown records that there has been no link since the given time.
func (b *board) linkDown(now time.Time) {
	b.replaceLink(now, func(l *linkState) { l.downSince = now })
}

// setElsewhere records whether other nodes of the cluster have a link. Their news makes every status valid again.
func (b *board) setElsewhere(elsewhere bool, now time.Time) {
	b.replaceLink(now, func(l *linkState) {
		if elsewhere {
			l.oldestValid = 0
		} else if l.elsewhere && !l.isUp() {
			l.downSince = now // the statuses were current until now
		}
		l.elsewhere = elsewhere
	})
}

// setCutOff records since when there has been no news of other nodes; the zero time if there is news again.
func (b *board) setCutOff(since, now time.Time) {
	b.replaceLink(now, func(l *linkState) {
		if since.IsZero() {
			l.oldestValid = 0
		}
		if since.IsZero() || l.cutOff.IsZero() {
			l.cutOff = since
		}
	})
}

// replaceLink changes the state of the link.
func (b *board) replaceLink(now time.Time, change func(*linkState)) *linkState {
	b.linkMu.Lock()
	defer b.linkMu.Unlock()
	old := b.link.Load()
	l := *old
	l.replaced = make(chan struct{})
	change(&l)
	b.link.Store(&l)
	close(old.replaced)
	b.scheduleExpiry(&l, now)
	return &l
}

// scheduleExpiry lets every status expire when it has been stale for longer than outageGrace. The caller holds linkMu.
func (b *board) scheduleExpiry(l *linkState, now time.Time) {
	if b.expiry != nil {
		b.expiry.Stop()
	}
	since := l.staleSince()
	if since.IsZero() || l.oldestValid > l.number { // nothing is stale, or everything has expired
		return
	}
	end := since.Add(outageGrace)
	b.expiry = time.AfterFunc(end.Sub(now), func() {
		b.replaceLink(end, func(l *linkState) {
			if l.staleSince().Equal(since) {
				l.oldestValid = l.number + 1
			}
		})
	})
}
