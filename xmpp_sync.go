package main

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"golang.org/x/time/rate"
)

// syncTimes are the durations of what happens at a new link and in the background.
type syncTimes struct {
	silence time.Duration // after a probe, from which on it counts as an answer
	save    time.Duration // between writes of presence
	poll    time.Duration // between looks at what another process has changed in the database
	seen    time.Duration // between notes that the link is up
	again   time.Duration // between questions for those whose account is gone
	pace    rate.Limit    // probes a second
}

var defaultSyncTimes = syncTimes{
	silence: 5 * time.Second,
	save:    time.Second,
	poll:    time.Second,
	seen:    time.Minute,
	again:   24 * time.Hour,
	pace:    5000,
}

// synchronise asks, for each new link, how everybody is: no server tells a component what it has missed.
func (c *component) synchronise(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.linked:
		}
		c.withdrawAll(ctx)
		for e := range c.board.all() {
			c.inTurn(ctx, e.jid, func(context.Context) { c.greet(e) })
			if len(c.linked) > 0 || ctx.Err() != nil {
				break // begin anew with the newer link
			}
		}
	}
}

// greet tells a user that we are there, and asks what has to be asked.
func (c *component) greet(e *entry) {
	link := c.board.link.Load().number
	if e.snapshot.Load() == nil || e.announced == link {
		return // has left, or come, meanwhile
	}
	e.announced = link
	if e.user.Subscription.From() {
		c.sendAvailable(e, e.jid)
	}
	c.askAgain(e)
}

// askAgain asks for a user's presence, or to be allowed to see it.
func (c *component) askAgain(e *entry) {
	switch {
	case e.user.Subscription.To():
		c.askPresence(e)
	case e.user.Asked:
		c.sendRequest(e)
	}
}

// askGone asks whether those whose account is gone are back.
func (c *component) askGone(ctx context.Context) {
	for e := range c.board.all() {
		c.inTurn(ctx, e.jid, func(context.Context) {
			if e.snapshot.Load() != nil && !e.user.Gone.IsZero() {
				c.askAgain(e)
			}
		})
	}
}

// askPresence has a probe sent to a user whose presence we may see.
func (c *component) askPresence(e *entry) {
	if e.probing.Swap(true) {
		return
	}
	c.mu.Lock()
	c.probes = append(c.probes, e)
	c.mu.Unlock()
	wake(c.asking)
}

// A sentProbe is one that may still be answered.
type sentProbe struct {
	entry *entry
	link  uint32
	until time.Time // from then on silence is the answer
}

// probe sends probes (RFC 6121 §4.3), no faster than a server can take them, and counts silence as an answer.
func (c *component) probe(ctx context.Context) {
	var open []sentProbe // in the order of time
	pace := rate.NewLimiter(c.sync.pace, 100)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.asking:
		case <-timer.C:
		}
		c.mu.Lock()
		asked := c.probes
		c.probes = nil
		c.mu.Unlock()
		for _, e := range asked {
			if pace.Wait(ctx) != nil {
				return
			}
			link := c.board.link.Load().number
			e.probing.Store(false)
			c.sendPresence(e.jid, "probe") // without a link: the next one asks again
			open = append(open, sentProbe{e, link, time.Now().Add(c.sync.silence)})
			open = c.closeProbes(ctx, open)
		}
		if open = c.closeProbes(ctx, open); len(open) > 0 {
			timer.Reset(time.Until(open[0].until))
		}
	}
}

// closeProbes returns the probes that may still be answered.
func (c *component) closeProbes(ctx context.Context, open []sentProbe) []sentProbe {
	for len(open) > 0 && !time.Now().Before(open[0].until) {
		p := open[0]
		open = open[1:]
		c.inTurn(ctx, p.entry.jid, func(ctx context.Context) { c.silent(ctx, p.entry, p.link) })
	}
	return open
}

// silent takes what a probe has not brought back for an answer: those resources are gone.
func (c *component) silent(ctx context.Context, e *entry, link uint32) {
	if state := c.board.link.Load(); e.snapshot.Load() == nil || state.number != link || !state.downSince.IsZero() {
		return // who has left; and a newer link asks again
	}
	if e.resources = e.resources.Silent(link); len(e.resources) == 0 && e.extras != nil {
		e.extras.lastSeen = time.Time{} // they went while we did not watch
	}
	c.heard(ctx, e)
}

// keepDatabase writes down what may be written late, and hears of users whom another process has removed.
func (c *component) keepDatabase(ctx context.Context) {
	save, poll, seen, again := time.NewTicker(c.sync.save), time.NewTicker(c.sync.poll), time.NewTicker(c.sync.seen), time.NewTicker(c.sync.again)
	defer save.Stop()
	defer poll.Stop()
	defer seen.Stop()
	defer again.Stop()
	var changes int64
	for {
		select {
		case <-ctx.Done():
			c.savePresence(ctx)
			return
		case <-save.C:
			c.savePresence(ctx)
		case <-seen.C:
			c.saveLinkSeen(ctx)
			c.announceCount(ctx)
		case <-again.C:
			c.askGone(ctx)
		case <-c.left:
			c.withdrawAll(ctx)
		case <-poll.C:
			n, err := c.db.Changes(ctx)
			if err != nil {
				c.log.Error("the database could not be read", "cause", explain(err))
			} else if n != changes {
				c.withdrawAll(ctx)
				changes = n
			}
		}
	}
}

// savePresence writes down the statuses and profiles that have changed, also when we are about to stop. What is not shown is not
// kept either.
func (c *component) savePresence(ctx context.Context) {
	c.mu.Lock()
	unsaved := c.unsaved
	c.unsaved = make(map[*entry]bool)
	c.mu.Unlock()
	statuses := make(map[string]Status, len(unsaved))
	profiles := make(map[string]*Profile)
	for e, withProfile := range unsaved {
		s := e.snapshot.Load()
		if s == nil {
			continue
		}
		status := s.status
		if !s.options.has(fieldMessage) {
			status.Messages = nil
		}
		if !s.options.has(fieldLastSeen) && !status.State.Online() {
			status.Since = time.Time{}
		}
		statuses[s.jid] = status
		if withProfile {
			profiles[s.jid] = s.profile
		}
	}
	if len(statuses) == 0 {
		return
	}
	if err := c.db.StorePresence(context.WithoutCancel(ctx), statuses, profiles); err != nil {
		c.log.Error("presence could not be stored; it will be tried again", "cause", explain(err))
		for e, withProfile := range unsaved {
			c.save(e, withProfile)
		}
	}
}

// saveLinkSeen notes until when the statuses are known to be right.
func (c *component) saveLinkSeen(ctx context.Context) {
	if !c.board.link.Load().downSince.IsZero() {
		return
	}
	if err := c.db.StoreLinkSeen(ctx, c.now()); err != nil {
		c.log.Error("the state of the link could not be stored", "cause", explain(err))
	}
}

// announceCount tells those who see us that the number of users in our presence has changed.
func (c *component) announceCount(ctx context.Context) {
	if c.counted.Swap(true) {
		return
	}
	for e := range c.board.all() {
		c.inTurn(ctx, e.jid, func(context.Context) {
			if e.snapshot.Load() != nil && e.user.Subscription.From() {
				c.sendAvailable(e, e.jid) // without a link the next one makes up for it
			}
		})
	}
}

// withdrawAll withdraws the contact from all who have left and not been told yet.
func (c *component) withdrawAll(ctx context.Context) {
	jids, err := c.db.Withdrawals(ctx)
	if err != nil {
		c.log.Error("the database could not be read", "cause", explain(err))
	}
	for _, bare := range jids {
		c.inTurn(ctx, bare, func(ctx context.Context) { c.withdraw(ctx, bare) })
	}
}

// withdraw takes somebody who is no longer registered off the board, and our contact off the roster.
func (c *component) withdraw(ctx context.Context, bare string) {
	if _, err := c.db.GetUser(ctx, bare); !errors.Is(err, ErrNotFound) {
		return // is registered again; or the database fails, and the next link makes up for it
	}
	if e := c.board.byJID(bare); e != nil {
		c.board.remove(e)
		c.counted.Store(false)
		c.log.Info("a user has left", "user", bare)
	}
	for _, typ := range []string{"unsubscribe", "unsubscribed", "unavailable"} {
		if c.sendPresence(bare, typ) != nil {
			return // the next link makes up for it
		}
	}
	if s := c.streamFor(bare); s == nil || s.flush() != nil {
		return
	}
	if err := c.db.Withdrawn(ctx, bare); err != nil {
		c.log.Error("a withdrawal could not be noted", "user", bare, "cause", explain(err))
	}
}

// leaveTime is how long our goodbyes may take.
const leaveTime = 5 * time.Second

// takeLeave finishes what was received, says goodbye to those who see us, and closes the streams.
func (c *component) takeLeave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	context.AfterFunc(ctx, c.hangUp)
	for e := range c.board.all() {
		c.inTurn(ctx, e.jid, func(context.Context) {
			if e.user.Subscription.From() {
				c.sendPresence(e.jid, "unavailable") // without a link the server says so
			}
		})
	}
	done := make(chan struct{}, workerCount)
	for _, w := range c.workers {
		select {
		case w.queue <- task{do: func(context.Context) { done <- struct{}{} }}:
		case <-ctx.Done():
		}
	}
	for range c.workers {
		select {
		case <-done:
		case <-ctx.Done():
		}
	}
	c.saveLinkSeen(ctx)
	for _, s := range c.openStreams() {
		s.farewell()
	}
}

func (c *component) openStreams() []*stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.streams)
}

// hangUp ends all streams without a word.
func (c *component) hangUp() {
	for _, s := range c.openStreams() {
		s.fail(net.ErrClosed)
	}
}
