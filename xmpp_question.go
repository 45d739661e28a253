package main

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// questionIDs creates the ids of our requests, and recognizes them in answers. An id contains the time and a keyed hash of the person, the
// question and the time, so that only real requests can be answered, and open requests need not be remembered. The key is derived
// from the component secret, because the answer may arrive at another node, which has the same secret.
type questionIDs struct {
	key   func() []byte
	start time.Time    // with a monotonic clock, so that ids do not jump with the time of day
	last  atomic.Int64 // time in the newest id, Unix time in milliseconds; no two ids have the same
}

const (
	answerTime    = 5 * time.Minute // for an answer to arrive
	keyIterations = 100_000         // they protect a weak secret: every server that we ask can try to guess it
	questionMAC   = 15              // bytes
)

func newQuestionIDs(domain, secret string, now time.Time) *questionIDs {
	return &questionIDs{start: now, key: sync.OnceValue(func() []byte {
		key, err := pbkdf2.Key(sha256.New, secret, []byte("questions of "+domain), keyIterations, sha256.Size)
		if err != nil {
			panic(err) // a key of this length is always possible
		}
		return key
	})}
}

// time returns a time as ids have it.
func (q *questionIDs) time(now time.Time) int64 {
	return q.start.UnixMilli() + now.Sub(q.start).Milliseconds()
}

// next returns the id of a question to a person.
func (q *questionIDs) next(to string, asked question, now time.Time) string {
	for {
		last := q.last.Load()
		at := max(q.time(now), last+1)
		if q.last.CompareAndSwap(last, at) {
			return asked.String() + "." + strconv.FormatInt(at, 36) + "." + q.mac(to, asked, at)
		}
	}
}

// parse returns the question of an id that was sent to a person, and its time; ok is false if the id is not ours or too old.
func (q *questionIDs) parse(from, id string, now time.Time) (asked question, at int64, ok bool) {
	name, rest, _ := strings.Cut(id, ".")
	stamp, mac, _ := strings.Cut(rest, ".")
	for asked.String() != name {
		if asked++; asked == questionCount {
			return 0, 0, false
		}
	}
	at, err := strconv.ParseInt(stamp, 36, 64)
	if age := q.time(now) - at; err != nil || max(age, -age) > answerTime.Milliseconds() {
		return 0, 0, false
	}
	return asked, at, subtle.ConstantTimeCompare([]byte(mac), []byte(q.mac(from, asked, at))) == 1
}

// mac returns the keyed hash of a question to a person at a time.
func (q *questionIDs) mac(to string, asked question, at int64) string {
	h := hmac.New(sha256.New, q.key())
	binary.Write(h, binary.BigEndian, []int64{int64(asked), at}) // writing to a hash cannot fail
	h.Write([]byte(to))
	return base32.HexEncoding.EncodeToString(h.Sum(nil)[:questionMAC])
}
