package main

import (
	"context"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Room is the public information about a room (XEP-0045 §6.4). It is immutable.
type Room struct {
	JID       string
	Name      string
	Occupants int  // -1 if unknown
	Public    bool // the service lists the room
}

// label returns the number of occupants and whether the room is public, in a language.
func (r *Room) label(lang *catalog) string {
	visibility := lang.text("room.hidden")
	if r.Public {
		visibility = lang.text("room.public")
	}
	if r.Occupants < 0 {
		return visibility
	}
	return lang.text("room.occupants", "count", strconv.Itoa(r.Occupants)) + " · " + visibility
}

// view returns what images show of the room.
func (r *Room) view(lang *catalog) view {
	v := view{State: Available, Label: r.label(lang), Nick: r.Name, JID: r.JID, Room: r, Indexed: r.Public}
	if r.Occupants == 0 {
		v.State = Unavailable
	}
	return v
}

// A roomBoard holds the latest information about rooms. A web request that needs newer information waits until the component has asked the
// room.
type roomBoard struct {
	patterns []string // of the rooms that are shown, in the syntax of path.Match
	now      func() time.Time
	after    func(time.Duration) <-chan time.Time
	requests chan string // rooms to ask

	mu      sync.Mutex
	entries map[string]*roomEntry // by JID
	waiting int                   // requests that wait for an answer
}

// A roomEntry is the place of one room on the board.
type roomEntry struct {
	room       *Room         // nil if there is no such room, or if there has been no answer
	askedAt    time.Time     // when the room was last asked
	answeredAt time.Time     // zero if it never answered
	answered   chan struct{} // closed by the answer to the last question
}

const (
	roomInterval    = time.Minute      // between two questions to the same room
	roomPatience    = 5 * time.Second  // that a web request waits for the answer
	roomTTL         = 10 * time.Minute // after which an answer that cannot be renewed is no longer shown
	maxRooms        = 1000             // in memory; beyond that, the oldest are forgotten
	maxRoomRequests = 100              // that wait to be sent
	maxRoomWaiting  = 1000             // web requests that wait for an answer
)

func newRoomBoard(patterns []string, now func() time.Time) *roomBoard {
	return &roomBoard{patterns: patterns, now: now, after: time.After, requests: make(chan string, maxRoomRequests), entries: make(map[string]*roomEntry)}
}

// shows reports whether the operator has listed a room.
func (b *roomBoard) shows(jid string) bool {
	for _, pattern := range b.patterns {
		if ok, err := path.Match(pattern, jid); ok && err == nil {
			return true
		}
	}
	return false
}

// get returns a room by its bare JID, nil if there is none to show. If the last answer is older than roomInterval it waits for the
// next one, and returns the last one if that takes too long.
func (b *roomBoard) get(ctx context.Context, jid string) *Room {
	if !b.shows(jid) {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.ask(jid)
	if e == nil {
		return nil
	}
	answered, wait := e.answered, e.askedAt.Add(roomPatience).Sub(b.now())
	if wait > 0 && b.waiting < maxRoomWaiting {
		b.waiting++
		b.mu.Unlock()
		select {
		case <-answered:
		case <-b.after(wait):
		case <-ctx.Done():
		}
		b.mu.Lock()
		b.waiting--
	}
	if b.now().Sub(e.answeredAt) > roomTTL {
		return nil
	}
	return e.room
}

// ask schedules a query to a room, unless there was one within roomInterval, and returns the room's entry; nil if too many queries are
// waiting. The mutex is held.
func (b *roomBoard) ask(jid string) *roomEntry {
	now, e := b.now(), b.entries[jid]
	if e != nil && now.Sub(e.askedAt) < roomInterval {
		return e
	}
	if e == nil && len(b.entries) >= maxRooms && !b.forget(now) {
		return nil
	}
	select {
	case b.requests <- jid:
	default:
		return e
	}
	if e == nil {
		e = &roomEntry{}
		b.entries[jid] = e
	}
	e.askedAt, e.answered = now, make(chan struct{})
	return e
}

// forget forgets the room that was asked the longest ago, and reports whether there is one that may be asked again. The mutex is held.
func (b *roomBoard) forget(now time.Time) bool {
	oldest := ""
	for jid, e := range b.entries {
		if oldest == "" || e.askedAt.Before(b.entries[oldest].askedAt) {
			oldest = jid
		}
	}
	if now.Sub(b.entries[oldest].askedAt) < roomInterval {
		return false
	}
	delete(b.entries, oldest)
	return true
}

// notAsked records that a question could not be sent, so that the next request asks again.
func (b *roomBoard) notAsked(jid string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.entries[jid]; e != nil && !e.hasAnswer() {
		e.askedAt = time.Time{}
		close(e.answered)
	}
}

// hasAnswer reports whether a request does not have to wait for an answer.
func (e *roomEntry) hasAnswer() bool {
	select {
	case <-e.answered:
		return true
	default:
		return false
	}
}

// answer records the answer of a room that was asked: nil if there is no such room. Other answers are ignored. It reports whether the room
// was asked.
func (b *roomBoard) answer(jid string, room *Room) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[jid]
	if e == nil || e.hasAnswer() {
		return false
	}
	e.room, e.answeredAt = room, b.now()
	close(e.answered)
	return true
}

// parseRoomPattern returns a pattern of rooms in the form that is matched. The service must be named, so that strangers cannot have
// us ask anyone.
func parseRoomPattern(s string) (string, bool) {
	local, domain, _ := strings.Cut(s, "@")
	_, err := path.Match(local, "")
	service, jidErr := parseJID(domain)
	return strings.ToLower(local) + "@" + service.bare, local != "" && err == nil && jidErr == nil && service.bare == service.domain() && service.resource == ""
}
