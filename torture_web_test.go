package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// webAttacks lets many web clients attack the service in every way that the benchmarks know, in the short form a few clients in one way.
func webAttacks(t *torture) {
	names := slices.Sorted(maps.Keys(attacks))
	if !t.full {
		names = []string{pick(t, names...)}
	}
	for _, name := range names {
		t.Run(name, func(inner *testing.T) {
			a := attacks[name]
			if !t.full {
				a.clients = (a.clients + 99) / 100
			}
			watchdog := newWatchdog(inner)
			cmd := a.command(inner, "webstatus")
			cmd.Env = watchdog.env()
			s := newLoadedServer(inner, 2*maxPeople, cmd)
			watchdog.restart()
			seen := s.endure(inner, a, t.length/time.Duration(len(names)))
			sub := &torture{T: inner, full: t.full}
			sub.wantPings(watchdog)
			if len(seen.changes) == 0 {
				inner.Fatal("no change is visible")
			}
			sub.limit("showing a bystander's change", slices.Max(seen.changes), visibleWithin)
			sub.wantMemory(s.process)
			_, pages := latencies(seen.pages)
			inner.Logf("%d requests; an ordinary page p99 %.0f ms, a change at most %v", seen.requests, pages, slices.Max(seen.changes).Round(time.Millisecond))
		})
	}
}

// A flood is something that hostile servers send a lot of.
type flood struct {
	name string
	send func(r *rig, n int) // the n-th part of it
}

var floods = []flood{
	// Registrations of people of a domain that may be anyone's.
	{"registrations", func(r *rig, n int) {
		var batch strings.Builder
		var requests []string
		for i := range 200 {
			who, id := fmt.Sprintf("flood%d.%d@evil.example", n, i), fmt.Sprintf("flood-%d.%d.", n, i)
			r.realm.says(who, Unavailable, "")
			fmt.Fprintf(&batch, `<iq type='set' id='%s' from='%s/x' to='%s'><query xmlns='jabber:iq:register'/></iq>`, id, who, testDomain)
			requests = append(requests, id)
		}
		r.realm.expect(requests)
		r.realm.sendRaw(batch.String())
		eventually(r.t, "all registrations are answered", func() bool { return r.realm.unanswered() == 0 })
	}},
	// Presence of users with as many clients, languages and words as a server forwards.
	{"presence", func(r *rig, n int) {
		who := fmt.Sprintf("large%d@localhost", n)
		r.realm.says(who, Unavailable, "")
		if a, err := r.realm.request(who, "set", `<query xmlns='jabber:iq:register'><show_status_msg>1</show_status_msg></query>`); err != nil || a.typ != "result" {
			r.t.Errorf("%s is not registered: %v %v", who, a, err)
		}
		var presence strings.Builder
		for resource := range 64 {
			fmt.Fprintf(&presence, `<presence from='%s/%d' to='%s'>`, who, resource, testDomain)
			for lang := range 16 {
				fmt.Fprintf(&presence, `<status xml:lang='x-%d'>%s</status>`, lang, strings.Repeat(strconv.Itoa(n%10), 1024))
			}
			presence.WriteString(`</presence>`)
		}
		r.realm.sendRaw(presence.String())
		r.realm.request(who, "get", `<ping xmlns='urn:xmpp:ping'/>`)
	}},
	// Unsolicited pictures from a registered user.
	{"pictures", func(r *rig, n int) {
		var batch strings.Builder
		for i := range 16 {
			fmt.Fprintf(&batch, `<iq type='result' id='vcard.%d.%d' from='%s' to='%s'><vCard xmlns='vcard-temp'><PHOTO><BINVAL>%s</BINVAL></PHOTO></vCard></iq>`, n, i, bystander, testDomain, largePicture())
		}
		r.realm.sendRaw(batch.String())
		r.realm.request(bystander, "get", `<ping xmlns='urn:xmpp:ping'/>`)
	}},
}

// largePicture returns a small file with a large picture, in base64. It is made when it is needed, since these tests start this program
// hundreds of times.
var largePicture = sync.OnceValue(func() string {
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewPaletted(image.Rect(0, 0, 2048, 2048), color.Palette{color.Black, color.White})); err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(b.Bytes())
})

// hostileServers floods the service, which lets anyone register, with what only servers can send.
func hostileServers(t *torture) {
	began := time.Now()
	r := newRig(t, "WEBSTATUS_ALLOW=localhost,*") // so that people at localhost may always register
	length := t.length / time.Duration(len(floods))
	for _, f := range floods {
		done := r.observe()
		t.length = length
		n := t.rounds(func(n int) { f.send(r, n) })
		t.Logf("%s: %d times", f.name, n)
		done()
	}
	registered := 0
	for bare := range usersIn(t, r.path) {
		if strings.HasSuffix(bare, "@evil.example") {
			registered++
		}
	}
	if limit := registrationsPerHour + 1 + int(registrationsPerHour*time.Since(began).Hours()); registered > limit {
		t.Errorf("%d people of one domain are registered, more than %d", registered, limit)
	}
	t.wantMemory(r.process)
}
