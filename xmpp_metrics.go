package main

import "sync/atomic"

// stanzaKinds are the kinds that stanzas are counted by.
var stanzaKinds = [4]string{"iq", "message", "presence", "other"}

// stanzaCounts counts stanzas by kind.
type stanzaCounts [len(stanzaKinds)]atomic.Uint64

// add counts a stanza, given the name of its element.
func (c *stanzaCounts) add(name string) {
	for i, kind := range stanzaKinds[:len(stanzaKinds)-1] {
		if kind == name {
			c[i].Add(1)
			return
		}
	}
	c[len(stanzaKinds)-1].Add(1)
}
