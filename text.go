package main

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// truncate cuts s to at most size bytes, at the end of a character.
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

func optionalTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// cleanLine makes one line of at most so many bytes of a text.
func cleanLine(text string, size int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	return truncate(strings.Join(strings.Fields(text), " "), size)
}
