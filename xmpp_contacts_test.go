package main

import (
	"testing"
	"time"
)

// TestCountIsNotBroadcast checks that a registration, which changes the user count in the component's presence, sends no presence to
// the other users.
func TestCountIsNotBroadcast(t *testing.T) {
	f := newFixture(t, func(c *componentConfig) { c.syncTimes.linkSeen = time.Millisecond })
	f.register("")
	f.says("b", "", "")
	f.send(`<presence type='subscribe' from='juliet@example.org' to='webstatus.example.org'/>`)
	f.want(`<presence type='subscribed' from='webstatus.example.org' to='juliet@example.org'></presence>`,
		`<presence from='webstatus.example.org' to='juliet@example.org'><status>People who publish their presence here: 1</status>…`)
	if _, err := f.comp.registry.Register(t.Context(), "romeo@example.org", 0, ""); err != nil {
		t.Fatal(err)
	}
	f.advance(time.Hour)
	eventually(t, "the maintenance has run", func() bool { seen, err := f.db.LinkSeen(t.Context()); return err == nil && seen.Equal(f.now()) })
	f.settled(juliet)
	f.send(`<presence type='probe' from='juliet@example.org/b' to='webstatus.example.org'/>`)
	f.want(`<presence from='webstatus.example.org' to='juliet@example.org/b'><status>People who publish their presence here: 2</status>…`)
}
