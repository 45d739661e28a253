package main

import (
	"context"
	"time"
)

// Presence and profiles change in memory at once and are stored a little later, in batches.

// SetPresence records the presence of a resource. It reports whether this is the first news of the user over the current link.
func (r *registry) SetPresence(e *entry, p Presence) (first bool) {
	p.Link = r.board.link.Load().number
	if !e.user.Options.has(fieldMessage) {
		p.strip()
	}
	most := maxPresence
	if r.presenceBytes.Load() > maxAllPresence {
		most = scarcePresence
	}
	r.changeResources(e, func(all Resources) Resources { return all.Put(p).Fit(most) })
	return r.confirm(e)
}

// maxAllPresence is the size of the resources of all users, in bytes, above which the limit of each user is scarcePresence.
const maxAllPresence = 128 << 20

// changeResources changes the resources of a user, and keeps count of the memory that those of all users take up. In a cluster, it has
// them stored.
func (r *registry) changeResources(e *entry, change func(Resources) Resources) {
	before, own := e.resources.size(), r.cluster.own(e)
	if e.resources = change(e.resources); len(e.resources) == 0 {
		e.resources = nil
	}
	r.presenceBytes.Add(int64(e.resources.size() - before))
	r.cluster.noteOwn(e, own)
	if e.resources == nil {
		r.setRich(e, RichPresence{})
	}
}

// RemoveResource records that a resource has gone offline; all of them if it is empty. If it was the last, the user was last seen at
// the given time. It reports whether this is the first news of the user over the current link.
func (r *registry) RemoveResource(e *entry, resource string, at time.Time) (first bool) {
	if len(e.resources) > 0 {
		e.setLastSeen(at)
	}
	r.changeResources(e, func(all Resources) Resources { return all.Remove(resource) })
	r.cluster.noteLogout(e.jid, resource)
	return r.confirm(e)
}

// RemoveSilent removes the resources that a probe over the link of that number has not brought back. It reports whether this is the
// first news of the user over that link, from any node. Where an error has answered the probe, it does nothing.
func (r *registry) RemoveSilent(e *entry, link uint32) (first bool) {
	if e.failed && e.link == link {
		return false
	}
	r.changeResources(e, func(all Resources) Resources { return all.OverLink(link) })
	if len(e.resources) == 0 && e.extras != nil {
		e.extras.lastSeen = time.Time{} // the user left at an unknown time
	}
	return r.confirm(e)
}

// SetUnreachable records that a user, or one resource of theirs, cannot be reached.
func (r *registry) SetUnreachable(e *entry, resource string) {
	r.changeResources(e, func(all Resources) Resources { return all.Remove(resource) })
	e.link, e.failed = r.board.link.Load().number, resource == "" && len(e.resources) == 0
	r.publish(e)
}

// confirm publishes news from a user's server.
func (r *registry) confirm(e *entry) (first bool) {
	link := r.board.link.Load().number
	first = e.link != link
	e.link, e.failed = link, false
	r.publish(e)
	return first
}

// SetLastSeen records when an offline user was last online.
func (r *registry) SetLastSeen(e *entry, at time.Time) {
	e.setLastSeen(at)
	r.publish(e)
}

// SetNick changes a user's nickname; empty for none.
func (r *registry) SetNick(e *entry, nick string) {
	p := e.profile()
	p.Nick = nick
	r.setProfile(e, p)
}

// SetAvatar changes a user's avatar; nil for none.
func (r *registry) SetAvatar(e *entry, a *Avatar) {
	p := e.profile()
	p.Avatar = a
	r.setProfile(e, p)
}

// setProfile changes a user's profile as far as the options allow to keep it.
func (r *registry) setProfile(e *entry, p Profile) {
	stored := storedProfile(p, e.user.Options)
	if !e.isRegistered() || stored.orEmpty() == e.profile() {
		return
	}
	e.writableExtras().profile = stored
	r.board.update(e)
	r.save(e, true)
}

// SetRichPresence changes a user's rich presence. That of offline users is not kept, and neither is any while the resources of all users
// take up much memory.
func (r *registry) SetRichPresence(e *entry, p RichPresence) {
	if e.resources == nil || r.presenceBytes.Load() > maxAllPresence {
		p = RichPresence{}
	}
	p.own = r.cluster != nil && e.resources != nil
	r.setRich(e, p)
	if e.isRegistered() && r.board.update(e) && r.cluster != nil {
		r.save(e, false)
	}
}

// setRich changes a user's rich presence as far as the options allow to keep it, and keeps count of the memory.
func (r *registry) setRich(e *entry, p RichPresence) {
	p = p.only(e.user.Options)
	before := e.extras.orEmpty().rich.orEmpty()
	if p == before {
		return
	}
	r.presenceBytes.Add(int64(p.size() - before.size()))
	if x := e.writableExtras(); p == (RichPresence{}) {
		x.rich = nil
	} else {
		x.rich = &p
	}
}

// publish puts the entry on the board, and has it stored if it has changed.
func (r *registry) publish(e *entry) {
	if e.isRegistered() && r.board.update(e) {
		r.save(e, false)
	}
}

// save schedules an entry's status to be stored, and the profile if that has changed.
func (r *registry) save(e *entry, profile bool) {
	r.mu.Lock()
	u := r.unsaved[e]
	r.unsaved[e] = unsaved{profile || u.profile, r.cluster.own(e)}
	r.mu.Unlock()
	r.cluster.announce()
}

// Backlog returns the number of users whose presence is still to be stored.
func (r *registry) Backlog() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.unsaved)
}

// storedStatus returns the part of a status that the options allow to keep.
func storedStatus(s Status, options fieldSet) Status {
	if !options.has(fieldMessage) {
		s.Messages = nil
	}
	if !options.has(fieldLastSeen) && !s.State.Online() {
		s.Since = time.Time{}
	}
	return s
}

// storedProfile returns the part of a profile that the options allow to keep; nil for none.
func storedProfile(p Profile, options fieldSet) *Profile {
	if !options.has(fieldNick) {
		p.Nick = ""
	}
	if !options.has(fieldAvatar) {
		p.Avatar = nil
	}
	if p == (Profile{}) {
		return nil
	}
	return &p
}

// saveTimeout limits a SavePresence, so that a database that is locked does not delay the shutdown.
const saveTimeout = 3 * time.Second

// SavePresence stores the statuses and profiles that have changed, and when they were known to be current, and reports whether it has. What
// cannot be stored is kept for the next time.
func (r *registry) SavePresence(ctx context.Context) (stored bool) {
	r.storing.Lock()
	defer r.storing.Unlock()
	r.mu.Lock()
	changed := r.unsaved
	r.unsaved = make(map[*entry]unsaved)
	linkSeen := r.linkSeen
	r.linkSeen = time.Time{}
	r.cluster.postpone(changed)
	r.saving = changed
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.saving = nil
	}()
	batch := presenceBatch{statuses: make(map[string]Status, len(changed)), profiles: make(map[string]*Profile), linkSeen: linkSeen}
	if r.cluster != nil {
		batch.resources = make(map[string]string, len(changed))
	}
	for e, u := range changed {
		s := e.snapshot.Load()
		if s == nil {
			continue
		}
		batch.statuses[s.jid] = storedStatus(*s.status, s.options)
		if u.profile {
			batch.profiles[s.jid] = s.profile
		}
		if r.cluster != nil {
			batch.resources[s.jid] = encodeResources(u.own, s.options.has(fieldMessage), s.status.Rich)
		}
	}
	if len(batch.statuses) == 0 && linkSeen.IsZero() {
		return false
	}
	timed, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	err := r.db.StorePresence(timed, batch)
	r.outages.report(ctx, "storing presence; it will be tried again", err)
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.linkSeen.IsZero() {
			r.linkSeen = linkSeen
		}
		for e, u := range changed {
			if newer, ok := r.unsaved[e]; ok {
				u.own = newer.own
				u.profile = u.profile || newer.profile
			}
			r.unsaved[e] = u
		}
	}
	return err == nil
}

// NoteLinkSeen has the next SavePresence record that the statuses are known to be current now. It does nothing while the link is down.
func (r *registry) NoteLinkSeen() {
	if r.board.link.Load().isUp() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.linkSeen = r.now()
	}
}

// ChangedOutside returns a number that changes whenever another process has changed the database.
func (r *registry) ChangedOutside(ctx context.Context) (int64, error) {
	n, err := r.db.DataVersion(ctx, r.Leads())
	if err != nil {
		r.outages.report(ctx, "reading", err)
	}
	return n, err
}
