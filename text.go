package main

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// truncate cuts s to at most size bytes, between two characters.
func truncate(s string, size int) string {
	if len(s) <= size {
		return s
	}
	const ellipsis = "…"
	cut := size - len(ellipsis)
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + ellipsis
}

// singleLine turns a text into one line of at most size bytes.
func singleLine(text string, size int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	return truncate(strings.Join(strings.Fields(text), " "), size)
}

// formatTime formats a time as RFC 3339 in UTC; the zero time is empty.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
