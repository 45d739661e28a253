package main

import (
	"hash/maphash"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A sender is a temporary record of someone who sends requests. It is used in the dispatcher's queue of that person.
type sender struct {
	limiter       *rate.Limiter
	lastRequest   time.Time           // guarded by senders.mu
	unknownSince  time.Time           // when the first of unknownTexts came
	unknownTexts  int                 // that we did not understand, within unknownWindow
	introduced    bool                // we have said unasked what we are
	confirmBefore time.Time           // a second "unregister" counts until then
	lastStamp     time.Time           // newest time stamp of a message, by the client's clock; not in the future
	sessions      map[string]*session // of commands, by id
}

const (
	requestRate     = 10              // sustained requests a second of one person
	requestBurst    = 50              // requests at once, as clients send when they discover us
	senderIdleTTL   = time.Hour       // after which a sender may be forgotten
	maxSenders      = 160000          // of 250 bytes each, before idle ones are forgotten
	unknownWindow   = time.Minute     // in which unknownAnswers texts are answered that we do not understand
	unknownAnswers  = 5               // then silence until the window is over, so that two bots do not talk forever
	confirmInterval = 2 * time.Minute // to confirm "unregister"
)

// mayAnswerUnknown counts a text that we do not understand, and reports whether it is to be answered.
func (s *sender) mayAnswerUnknown(now time.Time) bool {
	if now.Sub(s.unknownSince) >= unknownWindow {
		s.unknownSince, s.unknownTexts = now, 0
	}
	s.unknownTexts++
	return s.unknownTexts <= unknownAnswers
}

// isRepeated reports whether a message is one that we have read before, going by its time stamp. Kaidan 0.8 sends all messages again
// after every reconnect; a repeated "newlink" would end the address that the user has handed out.
func (s *sender) isRepeated(message *received, now time.Time) bool {
	stamp, stamped := delayStamp(message)
	if !stamped {
		return false
	}
	if !stamp.After(s.lastStamp) {
		return true
	}
	if s.lastStamp = stamp; stamp.After(now) {
		s.lastStamp = now
	}
	return false
}

// senders holds the senders by a hash of their bare JIDs, which may be long.
type senders struct {
	seed maphash.Seed
	mu   sync.Mutex
	by   map[uint64]*sender
}

func newSenders() *senders { return &senders{seed: maphash.MakeSeed(), by: make(map[uint64]*sender)} }

// get returns the sender with a bare JID.
func (s *senders) get(bare string, now time.Time) *sender {
	key := maphash.String(s.seed, bare)
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.by[key]
	if one == nil {
		if len(s.by) >= maxSenders {
			s.forgetIdle(now)
		}
		one = &sender{limiter: rate.NewLimiter(requestRate, requestBurst)}
		s.by[key] = one
	}
	one.lastRequest = now
	return one
}

// forgetIdle forgets the idle senders, and all of them if none is idle.
func (s *senders) forgetIdle(now time.Time) {
	for key, one := range s.by {
		if now.Sub(one.lastRequest) > senderIdleTTL {
			delete(s.by, key)
		}
	}
	if len(s.by) >= maxSenders {
		clear(s.by)
	}
}
