package main

import "sync"

// An index finds entries by a key. It is a hash table with linear probing that holds no keys, since the entries have them: a map would
// take up three times the memory.
type index struct {
	mu      sync.RWMutex
	hashes  []uint32 // of the keys of the entries in the same slots
	entries []*entry // nil where a slot is free, as at least a quarter of them are
	count   int
}

const minSlots = 16 // of an index

// get returns the entry whose key has a hash and for which is returns true; nil if there is none.
func (x *index) get(hash uint32, is func(*entry) bool) *entry {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.count == 0 {
		return nil
	}
	return x.entries[x.find(hash, is)]
}

// set adds an entry under a key with a hash. It replaces the one for which is returns true.
func (x *index) set(hash uint32, e *entry, is func(*entry) bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if 4*(x.count+1) > 3*len(x.entries) {
		x.grow()
	}
	slot := x.find(hash, is)
	if x.entries[slot] == nil {
		x.count++
	}
	x.hashes[slot], x.entries[slot] = hash, e
}

// remove removes an entry that was added under a key with a hash, unless it has been replaced.
func (x *index) remove(hash uint32, e *entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.count == 0 {
		return
	}
	free := x.find(hash, func(other *entry) bool { return other == e })
	if x.entries[free] == nil {
		return
	}
	x.count--
	// Close the gap: move each entry that its own search would no longer reach.
	for slot := x.next(free); x.entries[slot] != nil; slot = x.next(slot) {
		if x.distance(x.first(x.hashes[slot]), slot) >= x.distance(free, slot) {
			x.hashes[free], x.entries[free] = x.hashes[slot], x.entries[slot]
			free = slot
		}
	}
	x.entries[free] = nil
}

// all returns all entries.
func (x *index) all() []*entry {
	x.mu.RLock()
	defer x.mu.RUnlock()
	entries := make([]*entry, 0, x.count)
	for _, e := range x.entries {
		if e != nil {
			entries = append(entries, e)
		}
	}
	return entries
}

// length returns the number of entries.
func (x *index) length() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.count
}

// find returns the slot of the entry whose key has a hash and for which is returns true, or else the free slot where it belongs.
func (x *index) find(hash uint32, is func(*entry) bool) (slot int) {
	slot = x.first(hash)
	for x.entries[slot] != nil && (x.hashes[slot] != hash || !is(x.entries[slot])) {
		slot = x.next(slot)
	}
	return slot
}

// first returns the slot where the search for a hash begins.
func (x *index) first(hash uint32) int { return int(uint64(hash) * uint64(len(x.entries)) >> 32) }

func (x *index) next(slot int) int {
	if slot++; slot == len(x.entries) {
		return 0
	}
	return slot
}

// distance returns the number of steps from one slot to another.
func (x *index) distance(from, to int) int {
	if to < from {
		to += len(x.entries)
	}
	return to - from
}

// grow adds a quarter to the slots, so that few are free.
func (x *index) grow() {
	hashes, entries := x.hashes, x.entries
	size := len(entries) + max(len(entries)/4, minSlots)
	x.hashes, x.entries = make([]uint32, size), make([]*entry, size)
	for i, e := range entries {
		if e != nil {
			slot := x.find(hashes[i], func(*entry) bool { return false })
			x.hashes[slot], x.entries[slot] = hashes[i], e
		}
	}
}
