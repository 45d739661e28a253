package main

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// syncTimes are the durations of background work.
type syncTimes struct {
	probe       time.Duration // after a probe, until silence counts as an answer
	save        time.Duration // between batches of presence
	poll        time.Duration // between checks for changes of the database by other processes
	linkSeen    time.Duration // between records that the link is up
	goneProbe   time.Duration // between probes of users whose account is gone
	probeRate   rate.Limit    // probes a second
	shutdown    time.Duration // for the shutdown of the component
	aliveWithin time.Duration // within which a healthy component runs a task
	stalled     time.Duration // without a sign of life, until the last check of whether a component is stalled
}

var defaultSyncTimes = syncTimes{
	probe:       5 * time.Second,
	save:        time.Second,
	poll:        time.Second,
	linkSeen:    time.Minute,
	goneProbe:   24 * time.Hour,
	probeRate:   5000,
	shutdown:    5 * time.Second,
	aliveWithin: 5 * time.Second,
	stalled:     15 * time.Second,
}

// resyncLoop requests the presence of all users after each new link, because servers do not replay what a component has missed.
func (c *component) resyncLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.linked:
		}
		c.withdrawAll(ctx)
		for e := range c.board.all() {
			c.dispatcher.dispatch(ctx, e.jid, func(ctx context.Context) { c.contacts.announce(ctx, e) })
			if len(c.linked) > 0 || ctx.Err() != nil {
				break // start over with the newer link
			}
		}
	}
}

// probeTimeout treats silence after a probe as an answer: the resources that were not reported are gone.
func (c *component) probeTimeout(ctx context.Context, e *entry, link uint32) {
	c.dispatcher.dispatch(ctx, e.jid, func(ctx context.Context) {
		if state := c.board.link.Load(); !e.isRegistered() || state.number != link || !state.isUp() {
			return // removed meanwhile, or a newer link probes again
		}
		c.contacts.onSilence(ctx, e, link)
	})
}

// maintain does the work that recurs: it stores presence and what could not be stored before, and looks for users whom another process has
// removed.
func (c *component) maintain(ctx context.Context) {
	save, poll, seen, gone := time.NewTicker(c.syncTimes.save), time.NewTicker(c.syncTimes.poll),
		time.NewTicker(c.syncTimes.linkSeen), time.NewTicker(c.syncTimes.goneProbe)
	for _, t := range []*time.Ticker{save, poll, seen, gone} {
		defer t.Stop()
	}
	var version int64
	for {
		select {
		case <-ctx.Done():
			c.registry.SavePresence(context.WithoutCancel(ctx))
			return
		case <-save.C:
			c.registry.SavePresence(ctx)
			c.contacts.retry(ctx)
		case <-seen.C:
			c.registry.NoteLinkSeen()
		case <-gone.C:
			if c.registry.Leads() {
				c.probeGone(ctx)
			}
		case <-c.removed:
			c.withdrawAll(ctx)
		case <-poll.C:
			if n, err := c.registry.ChangedOutside(ctx); err == nil && n != version && c.withdrawAll(ctx) == nil {
				version = n
			}
		}
	}
}

// probeGone probes the users whose accounts did not exist.
func (c *component) probeGone(ctx context.Context) {
	for e := range c.board.all() {
		c.dispatcher.dispatch(ctx, e.jid, func(context.Context) {
			if e.isRegistered() && !e.user.Gone.IsZero() {
				c.contacts.probeOrAsk(e)
			}
		})
	}
}

// withdrawAll withdraws the contact from all removed users who still have it.
func (c *component) withdrawAll(ctx context.Context) error {
	jids, err := c.registry.Withdrawals(ctx)
	for _, bare := range jids {
		c.dispatcher.dispatch(ctx, bare, func(ctx context.Context) { c.contacts.withdraw(ctx, bare) })
	}
	return err
}

// probeAll probes users, and waits for the answers. It reports whether the link has been up for all of that time.
func (c *component) probeAll(ctx context.Context, jids []string) bool {
	link := c.board.link.Load().number
	var probed []*entry
	var waiting atomic.Int64
	for _, bare := range jids {
		e := c.board.byJID(bare)
		if e == nil {
			continue
		}
		probed = append(probed, e)
		waiting.Add(1)
		c.dispatcher.dispatch(ctx, bare, func(context.Context) {
			defer waiting.Add(-1)
			c.prober.probe(e)
		})
	}
	isSent := func() bool {
		return waiting.Load() == 0 && !slices.ContainsFunc(probed, func(e *entry) bool { return e.probing.Load() > 0 })
	}
	for !isSent() && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	select {
	case <-ctx.Done():
	case <-time.After(c.syncTimes.probe + c.syncTimes.probe/5): // some of it for the queues
	}
	state := c.board.link.Load()
	return ctx.Err() == nil && state.isUp() && state.number == link
}

// isAlive reports whether stanzas are still handled.
func (c *component) isAlive(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, c.syncTimes.aliveWithin)
	defer cancel()
	return c.dispatcher.isAlive(ctx)
}

// stallLoop closes the link of a node that no longer handles stanzas, until it does again: the server sends stanzas to another node of the
// cluster only then.
func (c *component) stallLoop(ctx context.Context) {
	nodes := c.registry.cluster
	if nodes == nil {
		return // there is no other node
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(c.syncTimes.stalled / 4):
		}
		timed, cancel := context.WithTimeout(ctx, c.syncTimes.stalled)
		isAlive := c.dispatcher.isAlive(timed) || c.isAlive(ctx) // again, or a process that was frozen would seem stalled
		cancel()
		if isAlive || ctx.Err() != nil {
			continue
		}
		c.log.Error("stanzas are not being handled: the link is closed, so that another node takes over")
		nodes.SetStalled(true)
		c.dispatcher.isAlive(ctx)
		nodes.SetStalled(false)
	}
}

// shutdown handles what has been received, sends our unavailable presence, and closes the streams.
func (c *component) shutdown(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, c.syncTimes.shutdown)
	defer cancel()
	context.AfterFunc(ctx, c.links.abort)
	for e := range c.board.all() {
		if c.board.link.Load().elsewhere {
			break // we are still there for our contacts
		}
		c.dispatcher.dispatch(ctx, e.jid, func(context.Context) {
			if e.user.Subscription.From() {
				c.contacts.sendUnavailable(e, e.jid)
			}
		})
	}
	c.dispatcher.drain(ctx)
	if ctx.Err() == nil {
		c.registry.NoteLinkSeen() // maintain stores it with the last presence
	}
	c.links.close()
}
