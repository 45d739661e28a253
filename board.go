package main

import (
	"hash/maphash"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"weak"
)

// A snapshot is everything that the web may need of one user at one time. It never changes.
type snapshot struct {
	jid     string // bare
	token   Token
	options Options
	status  Status
	clients []Presence // connected ones, nil if they are not shown
	profile *Profile   // nil for none
	link    uint32     // the link over which the status was learnt
	sees    bool       // the user lets us see it

	renderings atomic.Pointer[weak.Pointer[rendering]] // the newest of those made so far
}

// An entry is one registered user's place on the board.
type entry struct {
	jid     string                   // bare
	current atomic.Pointer[snapshot] // nil once the user has left
	changed atomic.Pointer[chan struct{}]
	queued  atomic.Bool // a probe is about to go out

	// What follows belongs to the worker of the user's JID.

	user      User
	resources Resources
	extras    *extras // nil for those who show no more than the state, as most do
	link      uint32  // the link over which the user was heard of last, 0 if not since the start
	greeted   uint32  // the link over which the user was greeted last
	failed    bool    // the user's server was unreachable then
}

// extras are what is known of users who show more than the state.
type extras struct {
	profile    *Profile  // nil for none
	seen       time.Time // when a user who is offline was online last, zero if not known
	announced  string    // id of the picture that a presence has named last
	refreshed  time.Time // when we asked for the picture last
	refreshing bool      // we are about to ask again
}

// orNone returns a copy to be read.
func (x *extras) orNone() extras {
	if x == nil {
		return extras{}
	}
	return *x
}

// more returns the extras to be written to.
func (e *entry) more() *extras {
	if e.extras == nil {
		e.extras = &extras{}
	}
	return e.extras
}

// change returns a channel that is closed when the current snapshot has a successor.
func (e *entry) change() <-chan struct{} {
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

// publish puts a successor in place; nil ends the user's page.
func (e *entry) publish(s *snapshot) {
	e.current.Store(s)
	if ch := e.changed.Swap(nil); ch != nil {
		close(*ch)
	}
}

// A linkState says what the link to the XMPP server means for everybody's status. It never changes.
type linkState struct {
	number  uint32        // of the current or last link, counted from 1
	since   time.Time     // when the link broke; zero while it is up
	valid   uint32        // what was learnt over an earlier link is no longer shown
	changed chan struct{} // closed when it has a successor
}

// The board holds every registered user's status in memory, for as many readers as there are. Changes to one user come
// from one worker at a time.
type board struct {
	seed   maphash.Seed
	users  [64]shard[string]
	tokens [64]shard[Token]
	link   atomic.Pointer[linkState]
	linkMu sync.Mutex // held by those who replace link
	expiry *time.Timer
}

// A shard is one part of an index, so that those who look something up do not queue behind one lock.
type shard[K comparable] struct {
	mu sync.RWMutex
	m  map[K]*entry
}

func (s *shard[K]) get(k K) *entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.m[k]
}

func (s *shard[K]) set(k K, e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[k] = e
}

func (s *shard[K]) remove(k K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, k)
}

// outage is how long the last state is shown after the link to the XMPP server broke.
const outage = 5 * time.Minute

// newBoard makes an empty board whose link is down since the given time.
func newBoard(down, now time.Time) *board {
	b := &board{seed: maphash.MakeSeed()}
	for i := range b.users {
		b.users[i].m = make(map[string]*entry)
		b.tokens[i].m = make(map[Token]*entry)
	}
	state := &linkState{since: down, changed: make(chan struct{})}
	if now.Sub(down) >= outage {
		state.valid = 1
	}
	b.link.Store(state)
	b.expire(state, now)
	return b
}

func (b *board) userShard(jid string) *shard[string] {
	return &b.users[maphash.String(b.seed, jid)%uint64(len(b.users))]
}

func (b *board) tokenShard(t Token) *shard[Token] { return &b.tokens[int(t[0])%len(b.tokens)] }

// byJID returns the entry of a bare JID, nil if it is not registered.
func (b *board) byJID(bare string) *entry { return b.userShard(bare).get(bare) }

// byToken returns the entry of a token, nil if it is nobody's.
func (b *board) byToken(t Token) *entry { return b.tokenShard(t).get(t) }

// add puts a user on the board, with the status and the profile that were known last.
func (b *board) add(u User, last Status, p *Profile) *entry {
	e := &entry{jid: u.JID, user: u}
	if p != nil {
		e.more().profile = p
	}
	e.publish(&snapshot{jid: u.JID, token: u.Token, options: u.Options, status: last, profile: p, sees: u.Subscription.To()})
	b.userShard(u.JID).set(u.JID, e)
	b.tokenShard(u.Token).set(u.Token, e)
	return e
}

// remove takes a user off the board.
func (b *board) remove(e *entry) {
	b.userShard(e.jid).remove(e.jid)
	b.tokenShard(e.user.Token).remove(e.user.Token)
	e.publish(nil)
}

// replaceToken gives a user another token.
func (b *board) replaceToken(e *entry, u User) {
	old := e.user.Token
	e.user = u
	b.tokenShard(u.Token).set(u.Token, e)
	b.tokenShard(old).remove(old)
	b.update(e)
}

// update publishes what the entry's user and resources have become, if that is anything new, and reports whether it was.
func (b *board) update(e *entry) bool {
	old := e.current.Load()
	s := &snapshot{jid: e.jid, token: e.user.Token, options: e.user.Options, status: old.status, profile: e.extras.orNone().profile, link: e.link,
		sees: e.user.Subscription.To()}
	switch {
	case !s.sees || e.failed:
		s.status = Status{State: Unknown}
	case e.link > 0: // else what was known before the start still stands
		if s.status = e.resources.Status(); s.status.State == Unavailable {
			s.status.Since = e.extras.orNone().seen
		}
		s.status = s.status.After(old.status)
		if s.options.ShowResources {
			s.clients = e.resources.Sorted()
		}
	}
	if s.token == old.token && s.options == old.options && s.sees == old.sees && s.status.Equal(old.status) && s.profile == old.profile &&
		slices.EqualFunc(s.clients, old.clients, Presence.Equal) && old.link >= b.link.Load().valid {
		return false
	}
	e.publish(s)
	return true
}

// all goes through the entries of everybody.
func (b *board) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for i := range b.users {
			s := &b.users[i]
			s.mu.RLock()
			entries := make([]*entry, 0, len(s.m))
			for _, e := range s.m {
				entries = append(entries, e)
			}
			s.mu.RUnlock()
			for _, e := range entries {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// count returns how many are registered.
func (b *board) count() (n int) {
	for i := range b.users {
		s := &b.users[i]
		s.mu.RLock()
		n += len(s.m)
		s.mu.RUnlock()
	}
	return n
}

// linkUp says that a new link is there, and returns its number.
func (b *board) linkUp() uint32 {
	return b.replaceLink(func(l *linkState) {
		l.number++
		l.since = time.Time{}
	}).number
}

// linkDown says that there has been no link since the given time.
func (b *board) linkDown(now time.Time) {
	b.expire(b.replaceLink(func(l *linkState) { l.since = now }), now)
}

// expire makes everybody unknown when the link has been down for too long.
func (b *board) expire(down *linkState, now time.Time) {
	b.linkMu.Lock()
	defer b.linkMu.Unlock()
	b.expiry = time.AfterFunc(down.since.Add(outage).Sub(now), func() {
		b.replaceLink(func(l *linkState) {
			if l.since.Equal(down.since) {
				l.valid = l.number + 1
			}
		})
	})
}

func (b *board) replaceLink(change func(*linkState)) *linkState {
	b.linkMu.Lock()
	defer b.linkMu.Unlock()
	if b.expiry != nil {
		b.expiry.Stop()
	}
	old := b.link.Load()
	l := *old
	l.changed = make(chan struct{})
	change(&l)
	b.link.Store(&l)
	close(old.changed)
	return &l
}
