package main

import (
	"math/rand/v2"
	"testing"
)

// TestEntryIndex compares an index with a map, while entries with few hashes come and go.
func TestEntryIndex(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	hash := func(key int) uint32 { return uint32(key%8) << 29 } // the last of them fill the end, and continue at the start
	type added struct{ key, turn int }
	keys := make(map[*entry]added)
	var x index
	want := make(map[int]*entry)
	for turn := range 20000 {
		key := random.IntN(100)
		is := func(e *entry) bool { return keys[e].key == key }
		if got := x.get(hash(key), is); got != want[key] {
			t.Fatalf("turn %d: found %v for %d, not %v", turn, keys[got], key, keys[want[key]])
		}
		if old := want[key]; old != nil && random.IntN(2) == 0 {
			x.remove(hash(key), old)
			x.remove(hash(key), old) // again, which does nothing
			delete(want, key)
			continue
		}
		e := &entry{}
		keys[e] = added{key, turn}
		x.set(hash(key), e, is)
		want[key] = e
	}
	if x.length() != len(want) {
		t.Errorf("length %d, not %d", x.length(), len(want))
	}
	for _, e := range x.all() {
		if want[keys[e].key] != e {
			t.Errorf("%v is left", keys[e])
		}
	}
}
