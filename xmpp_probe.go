package main

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A prober sends probes (RFC 6121 §4.3), no faster than a server can answer, and reports those without an answer. If a server
// does not answer, the user is offline.
type prober struct {
	*service
	timeout func(ctx context.Context, e *entry, link uint32) // called once the time for answers is over

	asked chan struct{} // waiting has grown

	mu      sync.Mutex
	waiting []waitingProbe
}

// A waitingProbe is a probe that is about to be sent.
type waitingProbe struct {
	entry *entry
	from  Contact
}

// A sentProbe is a probe that may still be answered.
type sentProbe struct {
	entry    *entry
	link     uint32
	deadline time.Time
}

func newProber(s *service, timeout func(context.Context, *entry, uint32)) *prober {
	return &prober{service: s, timeout: timeout, asked: make(chan struct{}, 1)}
}

// probe schedules a probe of a user whose presence we may see. Where that is a privilege, servers do not answer, and have told us already.
func (p *prober) probe(e *entry) {
	if e.user.Privileged {
		return
	}
	from := e.user.Granted
	if number := uint32(from) + 1; e.probing.Swap(number) == number {
		return
	}
	p.mu.Lock()
	p.waiting = append(p.waiting, waitingProbe{e, from})
	p.mu.Unlock()
	notify(p.asked)
}

// run sends what is scheduled until ctx is done.
func (p *prober) run(ctx context.Context) {
	var open []sentProbe // by deadline
	limiter := rate.NewLimiter(p.syncTimes.probeRate, 100)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.asked:
		case <-timer.C:
		}
		p.mu.Lock()
		waiting := p.waiting
		p.waiting = nil
		p.mu.Unlock()
		for _, w := range waiting {
			if limiter.Wait(ctx) != nil {
				return
			}
			link := p.board.link.Load().number
			w.entry.probing.CompareAndSwap(uint32(w.from)+1, 0)
			p.links.sendPresence(w.from.jid(p.domain), w.entry.jid, "probe") // without a link, the next one probes again
			open = append(open, sentProbe{w.entry, link, time.Now().Add(p.syncTimes.probe)})
			open = p.expire(ctx, open)
		}
		if open = p.expire(ctx, open); len(open) > 0 {
			timer.Reset(time.Until(open[0].deadline))
		}
	}
}

// expire reports the probes whose deadline is over, and returns the others.
func (p *prober) expire(ctx context.Context, open []sentProbe) []sentProbe {
	for len(open) > 0 && !time.Now().Before(open[0].deadline) {
		p.timeout(ctx, open[0].entry, open[0].link)
		open = open[1:]
	}
	return open
}
