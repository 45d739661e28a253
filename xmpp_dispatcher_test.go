package main

import (
	"context"
	"fmt"
	"strconv"
	"testing"
)

// block keeps the queue of a bare JID busy until release is called.
func (f *fixture) block(bare string) (release func()) {
	running, released := make(chan struct{}), make(chan struct{})
	f.comp.dispatcher.dispatch(f.t.Context(), bare, func(context.Context) { close(running); <-released })
	<-running
	return func() { close(released) }
}

func pingFrom(id, from string) string {
	return `<iq type='get' id='` + id + `' from='` + from + `' to='webstatus.example.org'><ping xmlns='urn:xmpp:ping'/></iq>`
}

func pong(id, to string) string {
	return `<iq type='result' id='` + id + `' from='webstatus.example.org' to='` + to + `'></iq>`
}

// TestOneQueuePerPerson checks that two spellings of a JID share a queue.
func TestOneQueuePerPerson(t *testing.T) {
	f := newFixture(t, nil)
	release := f.block("juliß@example.org")
	f.send(pingFrom("1", "juli\u1e9e@example.org/x") + pingFrom("2", "juliß@example.org/x") + pingFrom("3", "romeo@example.org/x"))
	f.want(pong("3", "romeo@example.org/x"))
	release()
	f.want(pong("1", "juliß@example.org/x"), pong("2", "juliß@example.org/x"))
}

// TestFullQueue overfills the queue of one sender: other senders are not affected, requests are refused, and the latest presence and
// all subscription changes are kept.
func TestFullQueue(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	release := f.block(juliet)
	for i := range maxQueue {
		f.send(fmt.Sprintf(`<iq type='result' id='%d' from='juliet@example.org/b' to='webstatus.example.org'/>`, i))
	}
	f.send(pingFrom("full", "juliet@example.org/b"))
	f.want(`<iq type='error' id='full' from='webstatus.example.org' to='juliet@example.org/b'><error code='500' type='wait'><resource-constraint …`)
	for _, show := range []string{"away", "dnd", "xa"} {
		f.send(`<presence from='juliet@example.org/b' to='webstatus.example.org'><show>` + show + `</show></presence>`)
	}
	const times = 100
	for range times {
		f.send(`<presence type='subscribe' from='juliet@example.org' to='webstatus.example.org'/>`)
	}
	f.settled("romeo@example.org")
	f.wantState(Available)
	release()
	for range times {
		f.want(`<presence type='subscribed' from='webstatus.example.org' to='juliet@example.org'></presence>`,
			`<presence from='webstatus.example.org/web' to='juliet@example.org'>…`)
	}
	f.settled(juliet)
	f.wantState(ExtendedAway)
}

// TestBlockedWorkers checks that people whose tasks wait, for instance for a locked database, do not delay others.
func TestBlockedWorkers(t *testing.T) {
	f := newFixture(t, nil)
	for i := range 5 * workerCount {
		defer f.block(strconv.Itoa(i) + "@example.org")()
	}
	f.settled("romeo@example.org")
}

// TestDispatcherOrder checks that the tasks of one person run in order and never concurrently.
func TestDispatcherOrder(t *testing.T) {
	d := newDispatcher()
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() { defer close(stopped); d.run(ctx) }()
	const people, tasks = 100, 100
	var next [people]int // unsynchronized on purpose: the race detector reports concurrent tasks of one person
	for i := range tasks {
		for p := range people {
			d.dispatch(ctx, strconv.Itoa(p), func(context.Context) {
				if next[p] != i {
					t.Errorf("task %d of person %d runs as number %d", i, p, next[p])
				}
				next[p]++
			})
		}
	}
	d.drain(ctx)
	if n := d.length(); n != 0 {
		t.Errorf("%d tasks are left", n)
	}
	cancel()
	<-stopped
}
