package main

import (
	"strings"
	"sync"
	"time"

	"golang.org/x/net/publicsuffix"
	"golang.org/x/time/rate"
)

// A domainQuota limits how much of a shared resource the people of one domain may use. Subdomains count as one
// domain if one owner can create any number of them.
type domainQuota struct {
	rate  rate.Limit
	burst int

	mu sync.Mutex
	by map[string]*rate.Limiter
}

// maxQuotaDomains is the number of domains before those that use nothing are forgotten.
const maxQuotaDomains = 10000

func newDomainQuota(limit rate.Limit, burst int) *domainQuota {
	return &domainQuota{rate: limit, burst: burst, by: make(map[string]*rate.Limiter)}
}

// use reports whether a domain may use n units now. A number larger than the burst counts as the burst.
func (q *domainQuota) use(domain string, now time.Time, n int) bool {
	if registrable, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		domain = registrable
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	limiter := q.by[domain]
	if limiter == nil {
		if len(q.by) >= maxQuotaDomains {
			q.forgetIdle(now)
		}
		limiter = rate.NewLimiter(q.rate, q.burst)
		q.by[strings.Clone(domain)] = limiter
	}
	return limiter.AllowN(now, min(n, q.burst))
}

// forgetIdle forgets the domains that have their full quota, and all of them if none has.
func (q *domainQuota) forgetIdle(now time.Time) {
	for domain, limiter := range q.by {
		if limiter.TokensAt(now) >= float64(q.burst) {
			delete(q.by, domain)
		}
	}
	if len(q.by) >= maxQuotaDomains {
		clear(q.by)
	}
}
