package main

import "sync/atomic"

// counters count what happens, at the cost of one atomic addition each.
type counters struct {
	received [4]atomic.Uint64 // stanzas, by kind
	sent     [4]atomic.Uint64 // the same
}

var stanzaKinds = [4]string{"iq", "message", "presence", "other"}

// stanzaKind returns the index of a kind.
func stanzaKind(name string) int {
	for i, kind := range stanzaKinds {
		if kind == name {
			return i
		}
	}
	return len(stanzaKinds) - 1
}
