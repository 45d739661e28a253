package main

import (
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
