package main

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// truncate returns a copy of at most size bytes of s, cut between two characters. As a copy, it does not keep a longer text in memory that s
// is a part of.
func truncate(s string, size int) string {
	if len(s) <= size {
		return strings.Clone(s)
	}
	const ellipsis = "…"
	cut := size - len(ellipsis)
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + ellipsis
}

// directionControls are the characters that change the direction of what follows, beyond the text that they are in if nothing ends them
// (UAX #9): embeddings, overrides and isolates. Text written from right to left does not need them.
const directionControls = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

// withoutDirection removes directionControls.
func withoutDirection(text string) string {
	if !strings.ContainsAny(text, directionControls) {
		return text
	}
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(directionControls, r) {
			return -1
		}
		return r
	}, text)
}

// singleLine turns a text into one line of at most size bytes.
func singleLine(text string, size int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, withoutDirection(strings.ToValidUTF8(text, "\uFFFD")))
	return truncate(strings.Join(strings.Fields(text), " "), size)
}

// formatTime formats a time as RFC 3339 in UTC; the zero time is empty.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
