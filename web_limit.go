package main

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
)

// Limits on the resources that clients can use. They do not apply to cached responses.

// Errors of limits.
var (
	errBudget = errors.New("the client has used up its render budget")
	errBusy   = errors.New("the server is overloaded")
	errOpen   = errors.New("the client has too many streams or responses open")
)

// isLimit reports whether an error comes from a limit, and not from a failure.
func isLimit(err error) bool {
	return errors.Is(err, errBudget) || errors.Is(err, errBusy) || errors.Is(err, errTooLarge)
}

// limits are the limits of a website.
type limits struct {
	budgets     *renderBudgets
	slots       *renderSlots
	streams     *openLimit
	sending     *sendLimit // of responses
	events      *sendLimit
	connections *connectionLimit                     // nil if the website has no server
	now         func() time.Time                     // measures rendering
	after       func(time.Duration) <-chan time.Time // delays events
}

func newLimits() *limits {
	return &limits{budgets: newRenderBudgets(), slots: newRenderSlots(runtime.GOMAXPROCS(0)), streams: newOpenLimit(maxStreams, maxClientStreams),
		sending: newSendLimit(largeBody, maxSending, maxClientSending), events: newSendLimit(largeEvent, maxEvents, maxClientEvents), now: time.Now, after: time.After}
}

// render runs work for a client, once it is the client's turn, its budget is not used up, and a slot is free.
// The time that the work takes is charged to the client. The work must not write to the client, because others would have to wait for it.
// render returns the error of the work, errBudget, errBusy, or the context's error if the client disconnected first.
func (l *limits) render(ctx context.Context, client netip.Addr, class slotClass, work func() error) error {
	b := l.budgets.take(client, l.now)
	if b != nil {
		defer l.budgets.put(b)
		if err := b.turn.acquire(ctx, errBudget); err != nil {
			return err
		}
		defer b.turn.release()
		if b.delay(l.now()) > 0 {
			return errBudget
		}
	}
	if err := l.slots.acquire(ctx, class); err != nil {
		return err
	}
	defer l.slots.release(class)
	if err := ctx.Err(); err != nil {
		return err
	}
	if b != nil {
		began := l.now()
		defer func() { b.charge(l.now(), began) }()
	}
	return work()
}

// charge charges a client for work that needed no slot.
func (l *limits) charge(client netip.Addr, began time.Time) {
	if b := l.budgets.take(client, l.now); b != nil {
		b.charge(l.now(), began)
		l.budgets.put(b)
	}
}

// delay returns the time until something may be rendered for a client, 0 if it may now.
func (l *limits) delay(client netip.Addr) time.Duration {
	b := l.budgets.take(client, l.now)
	if b == nil {
		return 0
	}
	defer l.budgets.put(b)
	if !b.turn.isFree() {
		return max(minDelay, b.delay(l.now()))
	}
	return b.delay(l.now())
}

// minDelay is how long events are delayed at least, for changes to merge.
const minDelay = 20 * time.Millisecond

// A renderBudget is the time that may be spent on rendering, compression and events for one client prefix.
type renderBudget struct {
	turn  *queue        // one rendering at a time, so that requests sent at once cannot all start before the first is charged
	left  *rate.Limiter // microseconds
	users int           // of the budget at the moment; under the mutex of renderBudgets
	site  *renderBudget // of the site that the client prefix is part of; nil for none
}

const (
	budgetRate   = 200 * time.Millisecond // each second
	budgetBurst  = 2 * time.Second        // at once, for a site that shows many people
	siteShare    = 4                      // budgets of client prefixes that one site has
	maxTurns     = 200                    // requests of one client that wait for their turn: a page may show many images
	budgetsPause = time.Minute            // between searches for budgets that are whole again
	maxBudgets   = 10000                  // client prefixes, before all are forgotten
)

// charge deducts the time since something began from a budget, which may become negative by one burst at most.
func (b *renderBudget) charge(now, began time.Time) {
	for ; b != nil; b = b.site {
		b.left.ReserveN(now, min(int(now.Sub(began).Microseconds()), b.left.Burst()))
	}
}

// delay returns the time until the budget allows more, 0 if it does now.
func (b *renderBudget) delay(now time.Time) (d time.Duration) {
	for ; b != nil; b = b.site {
		if tokens := b.left.TokensAt(now); tokens <= 0 {
			d = max(d, minDelay, time.Duration((1-tokens)/float64(b.left.Limit())*float64(time.Second)))
		}
	}
	return d
}

// renderBudgets are the budgets of all client prefixes. A full budget is not kept, because it is the same as a new one.
type renderBudgets struct {
	rate, burst time.Duration // of each budget: refilled in a second, and at most

	mu       sync.Mutex
	byPrefix map[netip.Prefix]*renderBudget
	cleaned  time.Time
}

func newRenderBudgets() *renderBudgets {
	return &renderBudgets{rate: budgetRate, burst: budgetBurst, byPrefix: make(map[netip.Prefix]*renderBudget)}
}

// take returns the budget of a client until put gets it back; nil for a client of this machine, which has none.
func (bs *renderBudgets) take(client netip.Addr, now func() time.Time) *renderBudget {
	prefix := clientPrefix(client)
	if !prefix.IsValid() {
		return nil
	}
	bs.mu.Lock()
	defer bs.mu.Unlock()
	b := bs.budget(prefix, 1, now)
	b.users++
	if site := sitePrefix(client); site.IsValid() {
		if wide := bs.budget(site, siteShare, now); wide != b.site { // never while b is in use, so that its users need no lock
			b.site = wide
		}
		b.site.users++
	}
	return b
}

// budget returns the budget of a prefix, which is created as a multiple of that of a client prefix. The mutex is held.
func (bs *renderBudgets) budget(prefix netip.Prefix, share int, now func() time.Time) *renderBudget {
	b := bs.byPrefix[prefix]
	if b == nil {
		bs.forget(now())
		left := rate.NewLimiter(rate.Limit(bs.rate.Microseconds()*int64(share)), int(bs.burst.Microseconds())*share)
		b = &renderBudget{turn: newQueue(1, maxTurns), left: left}
		bs.byPrefix[prefix] = b
	}
	return b
}

func (bs *renderBudgets) put(b *renderBudget) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	for ; b != nil; b = b.site {
		b.users--
	}
}

// forget removes full budgets from time to time, and all that are not in use if there are too many. The mutex is held.
func (bs *renderBudgets) forget(now time.Time) {
	full := len(bs.byPrefix) >= maxBudgets
	if !full && now.Sub(bs.cleaned) < budgetsPause {
		return
	}
	bs.cleaned = now
	maps.DeleteFunc(bs.byPrefix, func(_ netip.Prefix, b *renderBudget) bool {
		return b.users == 0 && b.left.TokensAt(now) >= float64(b.left.Burst())
	})
	if len(bs.byPrefix) >= maxBudgets {
		maps.DeleteFunc(bs.byPrefix, func(_ netip.Prefix, b *renderBudget) bool { return b.users == 0 })
	}
}

// clientPrefix returns the network that is likely to belong to one client: an IPv4 address, or 64 bits of IPv6 (RFC 6177). It is
// invalid for the zero address.
func clientPrefix(client netip.Addr) netip.Prefix {
	bits := 64
	if client.Is4() {
		bits = 32
	}
	prefix, _ := client.Prefix(bits)
	return prefix
}

// sitePrefix returns the IPv6 network that may belong to one site, with 65,536 client prefixes (RFC 6177). It is invalid for
// other addresses.
func sitePrefix(client netip.Addr) (prefix netip.Prefix) {
	if client.Is6() {
		prefix, _ = client.Prefix(48)
	}
	return prefix
}

// A slotClass is a kind of rendering with its own slots, so that expensive renderings do not hold up cheap ones.
type slotClass uint8

const (
	slotSingle slotClass = iota // a page of one person, or its data
	slotList                    // several people, and the page with the snippets
	slotPNG
	slotClasses
)

// renderSlots bound how much is rendered at once for all clients together, and with that the memory that rendering takes.
type renderSlots struct {
	queues    [slotClasses]*queue
	expensive *semaphore.Weighted // shared by lists and PNGs: all cores but one, which is left to ordinary pages
}

const (
	slotWait      = time.Second // for a slot
	maxSlotWaits  = 64          // requests that wait for a slot of an expensive class: about as many as can get one within slotWait
	maxSingleWait = 1024        // requests that wait for a slot of an ordinary page
)

func newRenderSlots(cores int) *renderSlots {
	expensive := max(1, cores-1)
	return &renderSlots{expensive: semaphore.NewWeighted(int64(expensive)),
		queues: [slotClasses]*queue{slotSingle: newQueue(cores, maxSingleWait), slotList: newQueue(expensive, maxSlotWaits), slotPNG: newQueue(expensive, maxSlotWaits)}}
}

// acquire waits for a slot, for slotWait at most and not longer than ctx lasts.
func (s *renderSlots) acquire(ctx context.Context, class slotClass) error {
	q := s.queues[class]
	if err := q.acquire(ctx, errBusy); err != nil || class == slotSingle {
		return err
	}
	// At most one rendering of the other class is in front of this one for each core, so this wait is short.
	if err := s.expensive.Acquire(ctx, 1); err != nil {
		q.release()
		return err
	}
	return nil
}

func (s *renderSlots) release(class slotClass) {
	if class != slotSingle {
		s.expensive.Release(1)
	}
	s.queues[class].release()
}

// A queue is a semaphore that a bounded number wait for, each for a bounded time.
type queue struct {
	slots      *semaphore.Weighted
	waiting    atomic.Int64
	maxWaiting int64
}

func newQueue(slots, maxWaiting int) *queue {
	return &queue{slots: semaphore.NewWeighted(int64(slots)), maxWaiting: int64(maxWaiting)}
}

// acquire takes a slot. It returns full if too many wait already or none becomes free within slotWait, and the context's error if
// that ends first.
func (q *queue) acquire(ctx context.Context, full error) error {
	if q.slots.TryAcquire(1) {
		return nil
	}
	defer q.waiting.Add(-1)
	if q.waiting.Add(1) > q.maxWaiting {
		return full
	}
	wait, cancel := context.WithTimeout(ctx, slotWait)
	defer cancel()
	switch err := q.slots.Acquire(wait, 1); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return full
}

func (q *queue) release() { q.slots.Release(1) }

// isFree reports whether a slot is free.
func (q *queue) isFree() bool {
	free := q.slots.TryAcquire(1)
	if free {
		q.release()
	}
	return free
}

const (
	maxStreams       = 50000    // open event streams
	maxClientStreams = 100      // of one client prefix, which may be an office
	streamMemory     = 28 << 10 // bytes that an open stream takes, with an event that is not large
)

// streamCapacity returns how many streams may be open: at most three quarters of the connections, and as many as half of the memory
// limit allows.
func streamCapacity(connections int) int {
	return int(min(maxStreams, int64(connections)*3/4, debug.SetMemoryLimit(-1)/2/streamMemory))
}

// An openLimit bounds how many of something are open, for all clients and for each client prefix. A site has several times the limit
// of a client prefix.
type openLimit struct {
	max, maxPerClient int

	mu       sync.Mutex
	total    int
	byPrefix map[netip.Prefix]int
}

func newOpenLimit(maximum, maxPerClient int) *openLimit {
	return &openLimit{max: maximum, maxPerClient: maxPerClient, byPrefix: make(map[netip.Prefix]int)}
}

// open returns how many are open.
func (o *openLimit) open() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.total
}

// enter counts n more, and returns a function that ends them. The error is errBusy or errOpen. The zero address only counts toward
// the total.
func (o *openLimit) enter(client netip.Addr, n int) (leave func(), err error) {
	var prefixes []netip.Prefix
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.total+n > o.max {
		return nil, errBusy
	}
	if client.IsValid() {
		prefixes = append(prefixes, clientPrefix(client))
		if o.byPrefix[prefixes[0]]+n > o.maxPerClient {
			return nil, errOpen
		}
		if site := sitePrefix(client); site.IsValid() {
			if prefixes = append(prefixes, site); o.byPrefix[site]+n > siteShare*o.maxPerClient {
				return nil, errOpen
			}
		}
	}
	o.total += n
	for _, p := range prefixes {
		o.byPrefix[p] += n
	}
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.total -= n
		for _, p := range prefixes {
			if o.byPrefix[p] -= n; o.byPrefix[p] == 0 {
				delete(o.byPrefix, p)
			}
		}
	}, nil
}

const (
	largeBody        = 64 << 10 // bytes of a body that is counted while a client takes it; smaller ones fit into the buffers of a socket
	maxSending       = 32 << 20 // bytes of all such bodies
	maxClientSending = 4 << 20  // of one client prefix

	largeEvent      = 8 << 10  // bytes of an event that is counted while live streams are open that show it
	maxEvents       = 32 << 20 // bytes of all such events
	maxClientEvents = 2 << 20  // of one client prefix
)

// A sendLimit bounds the memory of large bodies that clients have not taken yet, or of events that live streams show. A body that
// several clients take counts once, for the first of them.
type sendLimit struct {
	large int        // bytes from which on a body counts
	bytes *openLimit // of bodies

	mu     sync.Mutex
	bodies map[*rendering]*sentBody
}

// A sentBody is a body that clients take.
type sentBody struct {
	clients int
	leave   func() // ends its count
}

func newSendLimit(large, maximum, maxPerClient int) *sendLimit {
	return &sendLimit{large: large, bytes: newOpenLimit(maximum, maxPerClient), bodies: make(map[*rendering]*sentBody)}
}

// isLarge reports whether a rendering counts.
func (l *sendLimit) isLarge(n *rendering) bool { return len(n.body) >= l.large }

// enter counts a client that takes a large rendering, and returns a function to call when it has been sent. The error is errBusy or
// errOpen.
func (l *sendLimit) enter(n *rendering, client netip.Addr) (leave func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	body := l.bodies[n]
	if body == nil {
		body = &sentBody{}
		if body.leave, err = l.bytes.enter(client, len(n.body)); err != nil {
			return nil, err
		}
		l.bodies[n] = body
	}
	body.clients++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if body.clients--; body.clients == 0 {
			body.leave()
			delete(l.bodies, n)
		}
	}, nil
}
