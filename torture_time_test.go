package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// clockJumps sets the clock forward and back while a user is online. Live presence must be shown at once, whatever stamps from the past and
// the future say, and no time in the future may be shown.
func clockJumps(t *torture) {
	f := newFixture(t, nil)
	f.register("")
	f.says("live", "", "")
	f.options(`<show_status_msg>1</show_status_msg><show_last_seen>1</show_last_seen><show_resources>1</show_resources>`)
	f.settled(juliet)
	n := t.rounds(func(n int) {
		f.advance(pick(t, time.Second, time.Minute, 24*time.Hour, 10*365*24*time.Hour) * time.Duration(t.intN(5)-2))
		stamp := f.now().Add(pick(t, time.Second, time.Hour, 10*365*24*time.Hour) * time.Duration(t.intN(5)-2)).UTC().Format(time.RFC3339)
		delayed := `<delay xmlns='urn:xmpp:delay' stamp='` + stamp + `'/>`
		f.advance(time.Minute) // stay below the rate limit
		f.says("other", pick(t, "", "type='unavailable'"), `<show>away</show><priority>-5</priority><idle xmlns='urn:xmpp:idle:1' since='`+stamp+`'/>`+delayed)
		state, message := pick(t, Chat, Available, Away, ExtendedAway, DoNotDisturb), fmt.Sprintf("round %d", n)
		show := "<show>" + string(state) + "</show>"
		if state == Available {
			show = ""
		}
		f.says("live", "", show+"<status>"+message+"</status>"+pick(t, "", `<idle xmlns='urn:xmpp:idle:1' since='`+stamp+`'/>`))
		shown := f.status()
		if shown.State != state || shown.Message != message {
			t.Errorf("%+v, want %s %q", shown, state, message)
		}
		for _, text := range []string{shown.Since, shown.Idle, shown.Seen} {
			if at, err := time.Parse(time.RFC3339, text); err == nil && at.After(f.now()) {
				t.Errorf("%+v, and now it is %s", shown, f.now())
			}
		}
	})
	t.Logf("the clock has jumped %d times", n)
}

// Limits of what may grow while the service runs.
const (
	endureUsers     = 200
	endureRate      = 200 // changes a second
	moreMemory      = 16  // MiB
	moreGoroutines  = 20
	moreDescriptors = 10
)

// endurance changes the presence of many users. Memory, goroutines and file descriptors must not grow. The cache is full from the start, or
// it would fill for half an hour.
func endurance(t *torture) {
	r := newRig(t)
	for i := range endureUsers {
		who := fmt.Sprintf("user%d@localhost", i)
		r.realm.says(who, Available, "")
		if a, err := r.realm.request(who, "set", `<query xmlns='jabber:iq:register'><show_status_msg>1</show_status_msg></query>`); err != nil || a.typ != "result" {
			t.Fatalf("%s is not registered: %v %v", who, a, err)
		}
	}
	if t.full {
		r.fillCache()
	}
	names := []string{"process_resident_memory_bytes", "go_goroutines", "process_open_fds"}
	measure := func() (values [3]float64) {
		r.metric("go_goroutines") // the connection of the measurement counts from the start
		for i, name := range names {
			values[i] = r.metric(name)
		}
		return values
	}
	done := r.observe()
	change := time.NewTicker(time.Second / endureRate)
	defer change.Stop()
	began := time.Now()
	var before [3]float64
	n := t.rounds(func(n int) {
		<-change.C
		r.realm.says(fmt.Sprintf("user%d@localhost", n%endureUsers), pick(t, states[:6]...), fmt.Sprintf("number %d.", n))
		if before[0] == 0 && time.Since(began) > t.length/3 {
			before = measure()
		}
	})
	done()
	after := measure()
	t.Logf("%d changes; %v: %.0f, and %.0f at the end", n, names, before, after)
	for i, more := range [3]float64{moreMemory << 20, moreGoroutines, moreDescriptors} {
		if t.full && after[i] > before[i]+more {
			t.Errorf("%s has grown from %.0f to %.0f", names[i], before[i], after[i])
		}
	}
	t.wantMemory(r.process)
}

// fillCache requests different renderings until the cache of renderings has evicted as much as it holds.
func (r *rig) fillCache() {
	for n, size := 0, 0; size < 2*maxCacheWeight; n++ {
		code, body := r.get(r.t, jidPath(bystander)+fmt.Sprintf(".svg?style=card&label=%d", n))
		if code != 200 {
			r.t.Fatalf("the card %d: %d %s", n, code, body)
		}
		size += renderingWeight + len(body)
	}
}

// metric returns the value of a metric.
func (r *rig) metric(name string) float64 {
	_, body := fetch(r.t, "http://"+r.metrics+"/metrics")
	_, rest, _ := strings.Cut(body, "\n"+name+" ")
	text, _, _ := strings.Cut(rest, "\n")
	value, err := strconv.ParseFloat(text, 64)
	if err != nil {
		r.t.Errorf("metric %s: %v", name, err)
	}
	return value
}
