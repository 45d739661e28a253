package main

import (
	"errors"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A ration is how much of our time one reader may take with what has to be made for them. What is there already costs nothing.
type ration struct {
	mu   sync.Mutex // held while something is made, so that a reader has one thing made after the other
	left *rate.Limiter
}

const (
	rationRate  = 200 * time.Millisecond // a second
	rationBurst = 2 * time.Second        // at once, for who shows many people on one site
	rationPause = time.Minute            // between two looks at which are whole again, and are forgotten
	maxRations  = 10000                  // before all are forgotten
)

// errRation says that a reader has taken more than their ration.
var errRation = errors.New("more has been asked for than is due to one reader")

// rations are those of all readers, by household.
type rations struct {
	mu     sync.Mutex
	by     map[netip.Prefix]*ration
	looked time.Time
}

func newRations() *rations { return &rations{by: make(map[netip.Prefix]*ration)} }

// spend has work done at the cost of a reader, and returns its error, or errRation. Who is not told apart has no ration of their own.
func (r *rations) spend(client netip.Addr, work func() error) error {
	from := household(client)
	if !from.IsValid() {
		return work()
	}
	one := r.of(from)
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.left.Tokens() <= 0 {
		return errRation
	}
	began := time.Now()
	defer func() { one.left.ReserveN(time.Now(), int(min(time.Since(began), rationBurst).Microseconds())) }()
	return work()
}

func (r *rations) of(from netip.Prefix) *ration {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.by[from]
	if one == nil {
		r.forget()
		one = &ration{left: rate.NewLimiter(rate.Limit(rationRate.Microseconds()), int(rationBurst.Microseconds()))}
		r.by[from] = one
	}
	return one
}

// forget drops now and then the rations that are whole, and all of them where that makes no room.
func (r *rations) forget() {
	if now := time.Now(); len(r.by) >= maxRations || now.Sub(r.looked) >= rationPause {
		r.looked = now
		maps.DeleteFunc(r.by, func(_ netip.Prefix, one *ration) bool { return one.left.Tokens() >= float64(one.left.Burst()) })
	}
	if len(r.by) >= maxRations {
		clear(r.by)
	}
}

// household returns the network that one reader is likely to have all of: an address of IPv4, 64 bits of IPv6. It is not valid for
// the zero address.
func household(client netip.Addr) netip.Prefix {
	bits := 64
	if client.Is4() {
		bits = 32
	}
	from, _ := client.Prefix(bits)
	return from
}

const (
	maxStreams     = 50000 // open ones
	maxStreamsEach = 100   // of one address, behind which there may be an office
)

// Streams counts the open event streams, so that nobody takes them all.
type streams struct {
	mu    sync.Mutex
	total int
	by    map[netip.Prefix]int
}

func newStreams() *streams { return &streams{by: make(map[netip.Prefix]int)} }

// open returns how many streams are open.
func (s *streams) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// enter counts a stream in, and returns what counts it out, or the status of a refusal. Who is not told apart has no limit of
// their own.
func (s *streams) enter(client netip.Addr) (leave func(), status int) {
	from := household(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.total >= maxStreams:
		return nil, http.StatusServiceUnavailable
	case from.IsValid() && s.by[from] >= maxStreamsEach:
		return nil, http.StatusTooManyRequests
	}
	s.total++
	if from.IsValid() {
		s.by[from]++
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.total--
		if s.by[from] <= 1 {
			delete(s.by, from)
		} else {
			s.by[from]--
		}
	}, http.StatusOK
}

// client returns from where a request comes, the zero address for this machine. What X-Forwarded-For says is believed of the
// proxies that the operator has named, and of nobody else.
func (w *website) client(r *http.Request) netip.Addr {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	address := remote.Addr().Unmap()
	if err == nil && !w.isProxy(address) {
		return notLocal(address)
	}
	forwarded := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for _, hop := range slices.Backward(forwarded) {
		next, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil || len(w.proxies) == 0 {
			break
		}
		if address = next.Unmap(); !w.isProxy(address) {
			break
		}
	}
	return notLocal(address)
}

func (w *website) isProxy(address netip.Addr) bool {
	return slices.ContainsFunc(w.proxies, func(p netip.Prefix) bool { return p.Contains(address) })
}

func notLocal(address netip.Addr) netip.Addr {
	if address.IsLoopback() {
		return netip.Addr{}
	}
	return address
}
