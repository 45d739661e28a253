package main

import (
	"fmt"
	"strings"
	"syscall"
	"time"
)

// A linkFault is something that happens to the connection to the XMPP server.
type linkFault struct {
	name  string
	begin func(r *rig, c *cable) (end func()) // end is nil if nothing has to be undone
	keeps bool                                // the stream; all other faults end it, or webstatus must
}

var linkFaults = []linkFault{
	{"cut", func(_ *rig, c *cable) func() { c.cut(); return nil }, false},
	{"unplugged", func(_ *rig, c *cable) func() { c.unplug(); return c.plug }, false},
	{"dead", func(_ *rig, c *cable) func() { c.die(); return c.cut }, false},
	{"slow", func(_ *rig, c *cable) func() { c.delay.Store(int64(200 * time.Millisecond)); return c.speedUp }, true},
	{"trickles", func(_ *rig, c *cable) func() {
		c.trickle.Store(20)
		c.delay.Store(int64(time.Millisecond))
		c.cut()
		return c.speedUp
	}, false},
	{"malformed", send(`<presence from='x@localhost'><show></presence>`), false},
	{"not XML", send("<\x00<<>>&&&"), false},
	{"half a stanza", func(r *rig, _ *cable) func() {
		r.realm.sendRaw(`<presence from='x@localhost' to='`)
		r.realm.cut()
		return nil
	}, false},
	{"stream error", send(`<stream:error><internal-server-error xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>`), false},
	{"closed", send(`</stream:stream>`), false},
}

// speedUp lets a cable forward everything at once.
func (c *cable) speedUp() {
	c.trickle.Store(0)
	c.delay.Store(0)
}

// send returns a fault in which the server sends something that ends the stream. It leaves the connection open, so webstatus must close it.
func send(data string) func(*rig, *cable) func() {
	return func(r *rig, _ *cable) func() { r.realm.sendRaw(data); return nil }
}

// linkFails disturbs the connection to the XMPP server in one way after the other, while people change what is stored and what is shown.
// After each, every page must show what the server knows. In a full run, some faults last until pages say that there is no link.
func linkFails(t *torture) {
	realm := newRealm(t)
	cable := newCable(t, realm.address())
	r := newRigAt(t, realm, cable.address())
	c := newCrowd(r, 20)
	r.watchdog.restart()
	disturb := func(f linkFault, wait func()) {
		stop, acted := make(chan struct{}), make(chan struct{})
		go func() { c.act(stop); close(acted) }()
		time.Sleep(t.upTo(200 * time.Millisecond))
		old := realm.link()
		end := f.begin(r, cable)
		wait()
		if end != nil {
			end()
		}
		t.within(recoversWithin, "the link is back: "+f.name, func() bool {
			s := realm.link()
			return s != nil && (f.keeps || s != old)
		})
		close(stop)
		<-acted
		c.wander()
		c.settle()
		c.verify(r.path)
		c.wantPages(recoversWithin)
	}
	for _, f := range linkFaults {
		if t.full && (f.name == "unplugged" || f.name == "dead") {
			disturb(f, func() { t.wantOutage(r.appliance, encodeJID(bystander), Available) })
		}
	}
	n := t.rounds(func(int) {
		disturb(pick(t, linkFaults...), func() { time.Sleep(t.upTo(500 * time.Millisecond)) })
	})
	t.wantPings(r.watchdog)
	t.Logf("%d faults, %d links, %d operations confirmed", n, r.countLog(linked), c.confirmed)
	t.wantMemory(r.process)
}

// outage is how long a fault lasts that pages must show: the XMPP server may be silent for a while first.
const outage = 45 * time.Second

// wantOutage waits for the length of an outage. In time, a page must say that its status may be outdated. It must keep showing that status.
func (t *torture) wantOutage(a *appliance, address string, state State) {
	t.Helper()
	end := time.After(outage)
	shows := func() bool {
		_, body := a.get(t, statusPath+address+".json")
		return strings.Contains(body, `"state":"`+string(state)+`"`) && strings.Contains(body, `"as_of"`)
	}
	t.within(defaultLinkTimes.dead+recoversWithin, "the page says that the link is down", shows)
	<-end
	if !shows() {
		t.Errorf("the page does not say that %s is outdated", state)
	}
}

// leastRestarts is how often a full run kills or stops the XMPP server.
const leastRestarts = 100

// serverFails kills, stops and freezes Prosody, or cuts its connection, again and again. Real clients log in again, or do not. Each time,
// every page must show what the server knows. In a full run, Prosody is once frozen until pages say that there is no link.
func serverFails(t *torture) {
	s := newServer(t, "prosody")
	cable := newCable(t, s.componentAddress())
	watchdog := newWatchdog(t)
	a := newAppliance(t, cable.address(), watchdog.env()...)
	users := testAccounts[:4]
	clients := make(map[string]*client)
	for _, user := range users {
		clients[user] = s.login(t, user, "torture")
		clients[user].send(t, `<presence/>`)
		clients[user].join(t, "show_status_msg=1")
	}
	watchdog.restart()
	kinds, count := []string{"killed", "stopped", "frozen", "cut"}, make(map[string]int)
	order := t.permutation(len(kinds))
	fail := func(kind string, n int) {
		links := a.countLog(linked)
		count[kind]++
		switch kind {
		case "killed", "stopped":
			s.process.end(t, map[string]syscall.Signal{"killed": syscall.SIGKILL, "stopped": syscall.SIGTERM}[kind])
			s.start(t)
			clear(clients)
		case "frozen":
			s.process.freeze()
			time.Sleep(t.upTo(2 * time.Second))
			s.process.thaw()
			links--
		case "silent":
			s.process.freeze()
			t.wantOutage(a, encodeJID(clients[users[0]].bare), Available)
			s.process.thaw()
		case "cut":
			cable.cut()
		}
		up := time.Now()
		want := make(map[string]shown)
		for _, user := range users {
			want[user+"@localhost"] = moveOn(t, s, clients, user, n)
		}
		a.waitLogs(t, links+1, linked)
		t.limit("the link to Prosody after it was "+kind, time.Since(up), recoversWithin)
		t.within(recoversWithin, "all pages show what Prosody knows after it was "+kind, func() bool {
			for bare, w := range want {
				if got, err := a.look(t, jidPath(bare)); err != nil || got != w {
					return false
				}
			}
			return true
		})
	}
	if t.full {
		fail("silent", 0)
	}
	t.roundsAtLeast(2*leastRestarts, func(n int) { fail(kinds[order[n%len(kinds)]], n+1) }) // half of the faults are restarts
	t.wantPings(watchdog)
	t.Logf("%v", count)
	t.wantMemory(a.process)
}

// moveOn changes the presence of a user, who may log in or out, and returns what the page must show.
func moveOn(t *torture, s *server, clients map[string]*client, user string, n int) shown {
	c := clients[user]
	if t.intN(4) == 0 {
		if c != nil {
			c.logout(t)
			delete(clients, user)
		}
		return shown{state: "unavailable"}
	}
	if c == nil {
		c = s.login(t, user, "torture")
		clients[user] = c
	}
	state, message := pick(t, Away, ExtendedAway, DoNotDisturb, Chat), fmt.Sprintf("round %d", n)
	c.send(t, `<presence><show>%s</show><status>%s</status></presence>`, state, message)
	return shown{state: string(state), message: message}
}
