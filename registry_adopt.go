package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

// What another node of a cluster has stored of a user is shown here as well. This takes a few milliseconds, in which the user may already
// write to this node.

// lookUpRate is how often strangers are looked up in the database, per second. Others than new users must not keep it busy.
const lookUpRate = 100

// lookUp returns the user with a bare JID who is not on the board, but has registered at another node a moment ago; nil if nobody has, or
// without a cluster. It runs in the user's queue.
func (c *cluster) lookUp(ctx context.Context, bare string) *entry {
	if c == nil || !c.lookUps.Allow() {
		return nil
	}
	c.reload(ctx, bare) // the user is unknown after a failure, too
	return c.board.byJID(bare)
}

// doubt has a user read again soon: this node may not know what the database has.
func (c *cluster) doubt(bare string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.doubted[bare] = true
}

// commitDelay is the time within which PostgreSQL may still commit a change that has failed here: it may wait for its disk or for a standby.
const commitDelay = 10 * time.Minute

// doubtFailed doubts a user after a failed change: the database may have made the change and only not confirmed it, or may still make it.
func (c *cluster) doubtFailed(bare string) {
	if c == nil {
		return
	}
	c.doubt(bare)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = c.now()
}

// mayStillCommit reports whether the database may make a change that has failed here.
func (c *cluster) mayStillCommit() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.failed.IsZero() && c.now().Sub(c.failed) < commitDelay
}

// reloadDoubted reads the users who have been doubted.
func (c *cluster) reloadDoubted(ctx context.Context) {
	c.mu.Lock()
	doubted := slices.Collect(maps.Keys(c.doubted))
	clear(c.doubted)
	c.mu.Unlock()
	for _, bare := range doubted {
		c.hooks.dispatch(ctx, bare, func(ctx context.Context) { c.reloadOrDoubt(ctx, bare) })
	}
}

// reloadOrDoubt reads a user again whom another node has changed, and once more later if that fails. It runs in the user's queue.
func (c *cluster) reloadOrDoubt(ctx context.Context, bare string) {
	if c.reload(ctx, bare) != nil {
		c.doubt(bare)
	}
}

// reload reads a user again, who may have been removed or added. It runs in the user's queue.
func (c *cluster) reload(ctx context.Context, bare string) error {
	e := c.board.byJID(bare)
	pending, isPending := c.pending(e) // before it is read, or it may be outdated and not pending any longer
	u, err := c.db.GetUser(ctx, bare)
	var heard []heardPresence
	if err == nil {
		heard, err = c.db.Heard(ctx, bare)
	}
	var before User
	switch {
	case errors.Is(err, ErrNotFound):
		if e != nil {
			c.evict(e)
		}
		return nil
	case err != nil:
		c.outages.report(ctx, "reading a changed user; it will be tried again", err)
		return err
	case e == nil:
		e = c.board.add(u.User, u.Status, u.Profile)
	default:
		before = e.user
	}
	if !pending.profile && !sameProfile(e.profile(), u.Profile.orEmpty()) {
		e.writableExtras().profile = u.Profile
	}
	c.adopt(e, before, u.User)
	c.replaceAllHeard(e, heard)
	if isPending {
		c.publish(e)
	} else {
		c.publishHeard(e, u.Status)
	}
	return nil
}

// adopt replaces a user as this node knew it, if it did, with the one that another node has stored. The caller publishes.
func (c *cluster) adopt(e *entry, before, u User) {
	c.board.setUser(e, u)
	c.setRich(e, e.extras.orEmpty().rich.orEmpty()) // as far as the options allow
	own := e.resources.Of(0)
	switch {
	case !u.Subscription.To():
		c.changeResources(e, func(all Resources) Resources { return all.Remove("") })
	case !before.Subscription.To():
		c.hooks.renew(e) // presence that came before was not ours to show
	}
	if u.Options == before.Options || len(own) == 0 {
		return
	}
	if !u.Options.has(fieldMessage) {
		c.changeResources(e, func(all Resources) Resources { all.Strip(); return all })
	} else if e.resources.IsStripped() {
		c.hooks.renew(e)
	}
	c.save(e, false) // as the options allow
}
