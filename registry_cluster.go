package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Several nodes share a PostgreSQL database. Each has all users on its board, with its own changes and with the changes
// of the others. Presence is stored by user and node, and each node changes only its own. A node that has failed or has no link
// is replaced by the leader, which probes the users whose presence that node has received.

const (
	clusterBatch  = 3 * time.Millisecond // for which changes are gathered before they are stored and announced
	heartbeat     = time.Second
	purgeInterval = time.Minute
	reloadTimeout = time.Minute // for reading everything
	clusterSave   = 5000        // users whose presence is stored in one transaction
)

// A cluster is what a registry knows about the other nodes.
type cluster struct {
	*registry
	hooks   clusterHooks
	changed chan struct{} // this node has changed something
	links   chan struct{} // the link of this node has come up or gone down
	doubts  chan struct{} // another node may have a new link
	heard   time.Time     // when the changes of other nodes were read last

	snapshot string // of the database, up to which the changes of other nodes are known
	leads    atomic.Bool
	stalled  atomic.Bool   // see SetStalled
	lookUps  *rate.Limiter // of strangers
	answers  chan string   // to questions of other nodes

	mu      sync.Mutex
	numbers map[string]uint16 // of nodes, by name; 0 for this one
	others  []nodeState
	taking  map[string]bool   // nodes that are being replaced
	doubted map[string]bool   // bare JIDs of users who are to be read again
	failed  time.Time         // when a change has failed last
	logouts map[string]string // of which the other nodes are to be told: resources by bare JID, empty for several
}

// clusterHooks are the functions of the component that the cluster calls.
type clusterHooks struct {
	dispatch func(ctx context.Context, bare string, f func(context.Context)) // runs a function in the queue of a user
	probe    func(ctx context.Context, jids []string) bool                   // probes users, and reports whether there was time for all answers
	renew    func(e *entry)                                                  // probes a user, from the user's queue
	answered func(stanza string)                                             // handles an answer that has come to another node
	always   bool                                                            // a node without a link may lead
}

// load records the other nodes, and returns the presence that all nodes have received, by bare JID.
func (c *cluster) load(ctx context.Context) (heard map[string][]heardPresence, err error) {
	others, err := c.db.Beat(ctx, false)
	if err != nil {
		return nil, err
	}
	c.setNodes(others)
	c.heard = c.now()
	if c.snapshot, err = c.db.Snapshot(ctx); err != nil {
		return nil, err
	}
	return c.heardByUser(ctx)
}

func newCluster(r *registry) *cluster {
	return &cluster{registry: r, changed: make(chan struct{}, 1), links: make(chan struct{}, 1), doubts: make(chan struct{}, 1), numbers: map[string]uint16{r.db.shared.node: 0},
		taking: make(map[string]bool), doubted: make(map[string]bool), logouts: make(map[string]string), lookUps: rate.NewLimiter(lookUpRate, lookUpRate), answers: make(chan string, maxAnswers)}
}

// number returns the number of a node.
func (c *cluster) number(node string) uint16 {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.numbers[node]
	if !ok {
		n = uint16(len(c.numbers))
		c.numbers[node] = n
	}
	return n
}

// Leads reports whether this node does the work that only one node may do.
func (r *registry) Leads() bool { return r.cluster == nil || r.cluster.leads.Load() }

// leadInterval is the time between two checks of who leads.
const leadInterval = 100 * time.Millisecond

// WhileLinkAllowed waits until this node may have a link, and returns a context that is done when it no longer may, or when ctx is done. With
// single, only the leader may.
func (c *cluster) WhileLinkAllowed(ctx context.Context, single bool) (allowed context.Context, stop context.CancelFunc) {
	allowed, stop = context.WithCancel(ctx)
	await := func(want bool) {
		for (!c.stalled.Load() && (c.leads.Load() || !single)) != want && allowed.Err() == nil {
			select {
			case <-allowed.Done():
			case <-time.After(leadInterval):
			}
		}
	}
	await(true)
	go func() {
		await(false)
		stop()
	}()
	return allowed, stop
}

// SetStalled records whether this node no longer handles stanzas. Then it is silent, so that another node replaces it.
func (c *cluster) SetStalled(stalled bool) { c.stalled.Store(stalled) }

// nodes returns the other nodes.
func (c *cluster) nodes() []nodeState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.others)
}

// SetLink records whether there is a link to the XMPP server; up is also a new one.
func (r *registry) SetLink(up bool) {
	if up {
		r.board.linkUp(r.now())
	} else {
		r.board.linkDown(r.now())
	}
	if r.cluster != nil {
		notify(r.cluster.links)
	}
}

// notify tells a loop that there is work, unless it has been told already.
func notify(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// announce schedules a notification to the other nodes about a change that this node has stored.
func (c *cluster) announce() {
	if c != nil {
		notify(c.changed)
	}
}

// RunCluster keeps this node in the cluster until ctx is done. It returns at once if no other node uses the database, and an error if
// the database no longer has the schema of this version.
func (r *registry) RunCluster(ctx context.Context, hooks clusterHooks) error {
	if r.cluster == nil {
		return nil
	}
	r.cluster.hooks = hooks
	return r.cluster.run(ctx)
}

func (c *cluster) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var loops sync.WaitGroup
	defer loops.Wait()
	defer stop()
	loops.Go(func() { c.storeLoop(ctx) })
	loops.Go(func() { c.beatLoop(ctx) })
	loops.Go(func() { c.answerLoop(ctx) })
	loops.Go(func() { c.doubtLoop(ctx) })
	for m := c.db.shared.first; ctx.Err() == nil; m = nil {
		err := c.runMembership(ctx, m)
		c.leads.Store(false)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errNewerSchema), errors.Is(err, errOlderSchema):
			return fmt.Errorf("the database %w", err)
		}
		c.outages.report(ctx, "listening for changes of other nodes", c.db.explain(err))
		if slices.ContainsFunc(c.nodes(), func(n nodeState) bool { return n.alive }) {
			c.board.setCutOff(c.heard, c.now())
		}
		select {
		case <-ctx.Done():
		case <-time.After(rejoinDelay):
		}
	}
	return nil
}

// runMembership follows the changes of other nodes until there is an error, which it returns. Without a membership, the node rejoins:
// it reads everything again, since it does not know what it has missed, and stores again what a crash of the database may have lost.
func (c *cluster) runMembership(ctx context.Context, m *membership) (err error) {
	again := m == nil
	if again {
		if m, err = c.db.join(ctx); err != nil {
			return err
		}
	}
	defer m.Close()
	if again {
		if c.snapshot, err = c.db.Snapshot(ctx); err != nil {
			return err
		}
		if err := c.reloadAll(ctx); err != nil {
			return err
		}
		c.board.setCutOff(time.Time{}, c.now())
		notify(c.doubts)
	}
	c.outages.report(ctx, "", nil)
	purged := c.now()
	for tried := (time.Time{}); ; {
		if time.Since(tried) > leadInterval {
			tried = time.Now()
			if err := m.lead(ctx, c.hooks.always || c.board.link.Load().isUp()); err != nil {
				return err
			}
			c.leads.Store(m.leads)
			c.reloadDoubted(ctx)
		}
		if err := c.readChanges(ctx, m); err != nil {
			return err
		}
		c.heard = c.now()
		if m.leads && c.now().Sub(purged) > purgeInterval {
			purged = c.now()
			if err := c.db.Purge(ctx); err != nil {
				return err
			}
		}
		select { // so that the changes of several nodes are read together
		case <-ctx.Done():
		case <-time.After(clusterBatch):
		}
		if err := m.wait(ctx, heartbeat); err != nil {
			return err
		}
		for _, stanza := range m.answers {
			c.hooks.answered(stanza)
		}
		m.answers = nil
		if m.relinked {
			m.relinked = false
			notify(c.doubts)
		}
		for _, full := range m.logouts {
			c.verify(ctx, full)
		}
		m.logouts = nil
	}
}

// readChanges reads what other nodes have changed, and shows it.
func (c *cluster) readChanges(ctx context.Context, m *membership) error {
	changed, next, err := m.changes(ctx, c.snapshot, c.mayStillCommit())
	if err != nil {
		return err
	}
	c.snapshot = next
	for _, bare := range changed.users {
		c.hooks.dispatch(ctx, bare, func(ctx context.Context) { c.reloadOrDoubt(ctx, bare) })
	}
	for _, h := range changed.presence {
		c.hooks.dispatch(ctx, h.jid, func(ctx context.Context) {
			if e := c.board.byJID(h.jid); e != nil {
				c.hearOne(ctx, e, h)
			}
		})
	}
	return nil
}

// reloadAll reads everything again. Users are read in their queues if they differ, because what this node stores there is newer.
func (c *cluster) reloadAll(ctx context.Context) error {
	reading, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	heard, err := c.heardByUser(ctx)
	if err != nil {
		return err
	}
	present := make(map[string]bool)
	for u, err := range c.db.Users(reading, userFilter{}) {
		if err != nil {
			return err
		}
		present[u.JID] = true
		c.hooks.dispatch(ctx, u.JID, func(ctx context.Context) {
			e := c.board.byJID(u.JID)
			if e == nil || e.user != u.User || !sameProfile(e.profile(), u.Profile.orEmpty()) {
				c.reloadOrDoubt(ctx, u.JID)
				e = c.board.byJID(u.JID)
			} else {
				_, isNewer := c.pending(e)
				isNewer = isNewer || u.Status.State == Unknown && e.link > 0 && e.snapshot.Load().status.State != Unknown // or the status was lost
				if isNewer {
					u.Status = *e.snapshot.Load().status
				}
				c.hear(e, heard[u.JID], u.Status)
				if isNewer {
					c.save(e, false)
				}
			}
			if e != nil && len(e.resources.Of(0)) > 0 {
				c.save(e, false)
			}
		})
	}
	for e := range c.board.all() {
		if !present[e.jid] {
			c.hooks.dispatch(ctx, e.jid, func(ctx context.Context) { c.reloadOrDoubt(ctx, e.jid) })
		}
	}
	return nil
}

// passOn passes an answer on that has come here although another node may have asked. ejabberd sends the answer of a room to the node beside
// which the room is. With domain_balancing, it sends all stanzas of one sender over one connection, so the pings of all nodes return to one.
func (c *cluster) passOn(stanza []byte) {
	if c == nil || len(stanza) > maxMessage {
		return
	}
	select {
	case c.answers <- string(stanza):
	default: // the node that asked will ask again
	}
}

// answerLoop passes answers on to the other nodes.
func (c *cluster) answerLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case stanza := <-c.answers:
			c.outages.report(ctx, "passing an answer on", c.db.Tell(ctx, answerChannel, stanza))
		}
	}
}

// storeLoop stores what this node has changed and tells the others, in batches.
func (c *cluster) storeLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.changed:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(clusterBatch):
		}
		if !c.SavePresence(ctx) && c.Backlog() == 0 {
			c.outages.report(ctx, "telling other nodes", c.db.Notify(ctx))
		}
	}
}

// beatLoop tells the other nodes once a second, and when the link changes, that this one is alive. The leader replaces those that
// are not, or that have no link.
func (c *cluster) beatLoop(ctx context.Context) {
	var takeovers sync.WaitGroup
	defer takeovers.Wait()
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	var notified uint32 // number of the last link that the others know of
	beat := func() {
		link := c.board.link.Load()
		others, err := c.db.Beat(ctx, link.isUp())
		if err == nil && link.isUp() && link.number != notified && c.db.Tell(ctx, linkChannel, c.db.shared.node) == nil {
			notified = link.number
		}
		if err == nil {
			c.setNodes(others)
			c.tellLogouts(ctx)
			for _, n := range others {
				if c.Leads() && !n.linked && c.board.link.Load().isUp() {
					takeovers.Go(func() { c.takeOver(ctx, n.name) })
				}
			}
		}
	}
	for ctx.Err() == nil {
		if !c.stalled.Load() {
			beat()
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		case <-c.links:
		}
	}
}

// doubtLoop probes the users whose presence this node has received, each time another node may have a new link. While that node had none,
// the server sent the stanzas of its clients here, but those who have left since have told that node.
func (c *cluster) doubtLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.doubts:
		}
		for e := range c.board.all() {
			if s := e.snapshot.Load(); s == nil || !s.status.State.Online() || ctx.Err() != nil {
				continue
			}
			c.hooks.dispatch(ctx, e.jid, func(context.Context) { c.doubtOwn(e, e.resources.Of(0)) })
		}
	}
}

// setNodes records the state of the other nodes.
func (c *cluster) setNodes(others []nodeState) {
	c.mu.Lock()
	before := c.others
	c.others = others
	c.mu.Unlock()
	for _, n := range others {
		i := slices.IndexFunc(before, func(b nodeState) bool { return b.name == n.name })
		switch {
		case n.alive && (i < 0 || !before[i].alive):
			c.log.Info("a node has joined", "node", n.name)
		case !n.alive && i >= 0 && before[i].alive:
			c.log.Warn("a node is gone", "node", n.name)
		}
	}
	if elsewhere := slices.ContainsFunc(others, func(n nodeState) bool { return n.linked }); elsewhere != c.board.link.Load().elsewhere {
		c.board.setElsewhere(elsewhere, c.now())
	}
}

// takeOver replaces a node: it probes the users whose presence that node has received, and then deletes that presence.
func (c *cluster) takeOver(ctx context.Context, node string) {
	c.mu.Lock()
	busy := c.taking[node]
	c.taking[node] = true
	c.mu.Unlock()
	if busy {
		return
	}
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.taking, node)
	}()
	jids, before, err := c.db.Orphans(ctx, node)
	if err != nil || len(jids) == 0 || !c.hooks.probe(ctx, jids) {
		return
	}
	if jids, err = c.db.ReleaseOrphans(ctx, node, before); err != nil {
		c.outages.report(ctx, "replacing a node", err)
	}
	n := c.number(node)
	for _, bare := range jids {
		c.hooks.dispatch(ctx, bare, func(context.Context) {
			if e := c.board.byJID(bare); e != nil {
				c.changeResources(e, func(all Resources) Resources { return all.Replace(n, nil) })
				c.publish(e)
				c.save(e, false)
			}
		})
	}
	c.log.Info("replaced a node", "node", node, "users", len(jids))
}
