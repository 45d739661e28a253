package main

import (
	"context"
	"slices"
	"strings"
)

// The presence that the nodes of a cluster have heard: what others have heard is shown here, and what this one has heard is stored for them.

// heardByUser returns what all nodes have heard, by bare JID.
func (c *cluster) heardByUser(ctx context.Context) (map[string][]heardPresence, error) {
	all, err := c.db.Heard(ctx, "")
	byUser := make(map[string][]heardPresence)
	for _, h := range all {
		byUser[h.jid] = append(byUser[h.jid], h)
	}
	return byUser, err
}

// sameProfile reports whether two profiles show the same.
func sameProfile(a, b Profile) bool {
	return a.Nick == b.Nick && (a.Avatar == nil) == (b.Avatar == nil) && (a.Avatar == nil || a.Avatar.ID == b.Avatar.ID)
}

// hear records the presence that all other nodes have received of a user, and the status that one of them has computed.
func (c *cluster) hear(e *entry, heard []heardPresence, status Status) {
	c.replaceAllHeard(e, heard)
	c.publishHeard(e, status)
}

// hearOne records the presence that one node has received of a user.
func (c *cluster) hearOne(ctx context.Context, e *entry, h heardPresence) {
	c.replaceHeard(e, h)
	if h.status.State == Unknown && !e.failed && e.user.Subscription.To() && len(e.resources) == 0 {
		c.reloadOrDoubt(ctx, e.jid) // this node may have stored a status since the other's was read
		return
	}
	c.publishHeard(e, h.status)
}

// replaceAllHeard replaces the presence that all other nodes have received of a user.
func (c *cluster) replaceAllHeard(e *entry, heard []heardPresence) {
	c.changeResources(e, func(all Resources) Resources {
		return slices.DeleteFunc(all, func(p Presence) bool { return p.Node != 0 })
	})
	for _, h := range heard {
		c.replaceHeard(e, h)
	}
}

// replaceHeard replaces the presence that a node has received of a user. A resource that this node has received too has moved: it is
// gone here unless a probe brings it back.
func (c *cluster) replaceHeard(e *entry, h heardPresence) {
	node := c.number(h.node)
	if node == 0 && c.board.link.Load().isUp() {
		c.save(e, false) // this node has newer presence
		return
	}
	moved := append(e.resources.Of(node), h.resources...)
	c.changeResources(e, func(all Resources) Resources { return all.Replace(node, h.resources) })
	if node != 0 && h.status.Rich != nil {
		c.setRich(e, *h.status.Rich)
	}
	e.shared = e.shared || node != 0
	if node != 0 {
		c.doubtOwn(e, moved)
	}
}

// publishHeard shows the presence that other nodes have received, with the status that one of them has computed. If this node computes
// another status, it stores that.
func (c *cluster) publishHeard(e *entry, status Status) {
	e.failed = status.State == Unknown && e.user.Subscription.To() && len(e.resources) == 0
	if status.State == Unavailable && len(e.resources) == 0 {
		e.setLastSeen(status.Since)
	}
	if !e.isRegistered() {
		return
	}
	c.board.updateAs(e, status)
	now := storedStatus(*e.snapshot.Load().status, e.user.Options)
	if len(e.resources.Of(0)) > 0 && (now.State != status.State || !slices.Equal(now.Messages, status.Messages)) {
		c.save(e, false)
	}
}

// own returns the presence that this node has received of a user; nil without a cluster.
func (c *cluster) own(e *entry) []Presence {
	if c == nil {
		return nil
	}
	return e.resources.Of(0)
}

// noteOwn schedules the presence that this node has received to be stored if it has changed.
func (c *cluster) noteOwn(e *entry, before []Presence) {
	if c == nil {
		return
	}
	after := e.resources.Of(0)
	isKnown := func(p Presence) bool {
		return slices.ContainsFunc(before, func(q Presence) bool { return p.Equal(q) && p.Idle.Equal(q.Idle) })
	}
	if len(before) != len(after) || slices.ContainsFunc(after, func(p Presence) bool { return !isKnown(p) }) {
		c.save(e, false)
	}
}

// noteLogout records that this node has heard that a resource has gone offline. While a node is down, the server may send its stanzas to
// any other, and so a client's logout to another node than its login.
func (c *cluster) noteLogout(bare, resource string) {
	if c == nil || resource == "" { // an answer to a probe
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.logouts[bare]; ok && known != resource {
		resource = ""
	}
	c.logouts[bare] = resource
}

// tellLogouts tells the other nodes which resources have gone offline. What fails is tried again.
func (c *cluster) tellLogouts(ctx context.Context) {
	c.mu.Lock()
	logouts := c.logouts
	c.logouts = make(map[string]string)
	c.mu.Unlock()
	if len(logouts) == 0 {
		return
	}
	var jids []string
	for bare, resource := range logouts {
		jids = append(jids, jid{bare, resource}.String())
	}
	if err := c.db.Tell(ctx, logoutChannel, jids...); err != nil {
		c.outages.report(ctx, "telling other nodes of logouts", err)
		c.mu.Lock()
		defer c.mu.Unlock()
		for bare := range logouts {
			c.logouts[bare] = ""
		}
	}
}

// verify probes a user of whom some node has heard that a resource has gone offline, or several if full is bare, if this node shows it.
func (c *cluster) verify(ctx context.Context, full string) {
	bare, resource, _ := strings.Cut(full, "/")
	c.hooks.dispatch(ctx, bare, func(context.Context) {
		e := c.board.byJID(bare)
		switch {
		case e == nil:
		case resource == "":
			c.doubtOwn(e, e.resources.Of(0))
		default:
			c.doubtOwn(e, []Presence{{Resource: resource}})
		}
	})
}

// doubtOwn probes a user if this node has received presence of some resources, which may be outdated. A privilege comes with the only link,
// so that nothing is outdated there.
func (c *cluster) doubtOwn(e *entry, resources []Presence) {
	if !e.user.Privileged && e.resources.Doubt(resources) {
		c.hooks.renew(e)
	}
}

// postpone keeps only as many changes as fit into a short transaction, and schedules the rest for the next one. The caller holds the mutex
// of the registry.
func (c *cluster) postpone(changed map[*entry]unsaved) {
	if c == nil {
		return
	}
	for e, u := range changed {
		if len(changed) <= clusterSave {
			return
		}
		c.unsaved[e] = u
		delete(changed, e)
		c.announce()
	}
}

// pending returns what is still to be stored of an entry, which is newer than what the database has.
func (c *cluster) pending(e *entry) (u unsaved, isPending bool) {
	c.registry.mu.Lock()
	defer c.registry.mu.Unlock()
	saving, isSaving := c.saving[e]
	u, isUnsaved := c.unsaved[e]
	u.profile = u.profile || saving.profile
	return u, isSaving || isUnsaved
}

// maxAnswers is the number of answers that wait to be passed on.
const maxAnswers = 64
