package main

import (
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestOutageExpiry checks that statuses expire after an outage, however many changes of the link came before.
func TestOutageExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard(time.Now(), time.Now())
		for range 100 {
			var changes sync.WaitGroup
			for range 4 {
				changes.Go(func() {
					for range 100 {
						b.linkUp(time.Now())
						b.linkDown(time.Now())
					}
				})
			}
			changes.Wait()
			time.Sleep(time.Second)
		}
		b.linkUp(time.Now())
		b.linkDown(time.Now())
		time.Sleep(outageGrace - time.Second)
		synctest.Wait()
		if l := b.link.Load(); l.oldestValid > l.number {
			t.Errorf("expired early: %+v", l)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if l := b.link.Load(); l.oldestValid != l.number+1 {
			t.Errorf("not expired: %+v", l)
		}
	})
}

// TestLinkState checks that the board agrees with the open streams if one ends while another is opened.
func TestLinkState(t *testing.T) {
	db, err := openDatabase(t.Context(), filepath.Join(t.TempDir(), "webstatus.db"), true)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	log := slog.New(slog.DiscardHandler)
	users, err := newRegistry(t.Context(), registryConfig{now: time.Now, log: log}, db)
	if err != nil {
		t.Fatal(err)
	}
	c := newComponent(componentConfig{now: time.Now, log: log}, users)
	current := &stream{}
	c.opened(current)
	for range 10000 {
		next := &stream{}
		var changes sync.WaitGroup
		changes.Go(func() { c.opened(next) })
		changes.Go(func() { c.closed(current) })
		changes.Wait()
		if !users.board.link.Load().isUp() {
			t.Fatal("the link is down with an open stream")
		}
		current = next
	}
}
