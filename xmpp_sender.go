package main

import (
	"time"

	"golang.org/x/time/rate"
)

// A visitor is what a worker remembers, for a while, of somebody who asks for things.
type visitor struct {
	bucket   *rate.Limiter
	seen     time.Time
	confused time.Time           // when we last said that we did not understand
	leaving  time.Time           // until when "unregister" is meant
	sessions map[string]*session // of commands, by id
}

const (
	requestRate  = 10              // requests a second that one person may go on asking
	requestBurst = 50              // requests that a client may ask at once, when it finds us
	quiet        = time.Hour       // after which a visitor is forgotten where room is wanted
	maxVisitors  = 10000           // of one worker, before those are forgotten
	confusion    = time.Minute     // between two admissions of not understanding, so that two bots do not talk for ever
	hesitation   = 2 * time.Minute // that somebody may take to confirm
)

// visitors are the visitors of one worker, by bare JID.
type visitors map[string]*visitor

// visit returns the visitor of that JID.
func (v visitors) visit(bare string, now time.Time) *visitor {
	one := v[bare]
	if one == nil {
		if len(v) >= maxVisitors {
			v.forget(now)
		}
		one = &visitor{bucket: rate.NewLimiter(requestRate, requestBurst)}
		v[bare] = one
	}
	one.seen = now
	return one
}

// forget drops those who are quiet, and all of them where that makes no room.
func (v visitors) forget(now time.Time) {
	for bare, one := range v {
		if now.Sub(one.seen) > quiet {
			delete(v, bare)
		}
	}
	if len(v) >= maxVisitors {
		clear(v)
	}
}
