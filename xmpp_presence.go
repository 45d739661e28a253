package main

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// parsePresence parses an available presence (RFC 6121 §4.7), received at now. Invalid values are ignored. Times are cut to milliseconds, as
// they are stored, or else another node of a cluster could order presences differently.
func parsePresence(s *received, now time.Time) Presence {
	p := Presence{Resource: strings.Clone(s.from.resource), State: Available, Since: now}
	if show := s.child(nsComponent, "show"); show != nil {
		switch show := State(strings.TrimSpace(show.text)); show {
		case Chat, Away, ExtendedAway, DoNotDisturb:
			p.State = show
		}
	}
	if priority := s.child(nsComponent, "priority"); priority != nil {
		p.Priority = parsePriority(priority.text)
	}
	for i := range s.children {
		if c := &s.children[i]; c.name.Space == nsComponent && c.name.Local == "status" {
			p.addMessage(c.lang(s.lang("")), c.text)
		}
	}
	if idle := s.child(nsIdle, "idle"); idle != nil {
		if since, err := time.Parse(time.RFC3339, idle.attr("since")); err == nil && since.Before(now) {
			p.Idle = since.UTC()
		}
	}
	if sent, ok := delayStamp(s); ok {
		p.Delayed = true
		if sent.Before(now) {
			p.Since = sent
		}
	}
	p.Since, p.Idle = p.Since.Truncate(time.Millisecond), p.Idle.Truncate(time.Millisecond)
	return p
}

// parsePriority parses a priority, which servers forward without validation. Values outside -128..127 are clamped; a malformed one
// is 0.
func parsePriority(s string) int8 {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0
	}
	return int8(max(-128, min(n, 127)))
}

// delayStamp returns when a delayed stanza was originally sent (XEP-0203, or the legacy XEP-0091).
func delayStamp(s *received) (time.Time, bool) {
	if d := s.child(nsDelay, "delay"); d != nil {
		t, err := time.Parse(time.RFC3339, d.attr("stamp"))
		return t, err == nil
	}
	if d := s.child(nsOldDelay, "x"); d != nil {
		t, err := time.Parse("20060102T15:04:05", d.attr("stamp"))
		return t, err == nil
	}
	return time.Time{}, false
}
