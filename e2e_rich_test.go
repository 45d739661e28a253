package main

import (
	"encoding/json"
	"fmt"
	"testing"
)

// testRichPresence follows what a client publishes over PEP, and checks that both ways to end it work: publishing an empty payload
// (XEP-0107 §2.2, XEP-0108 §2.2, XEP-0118 §2.2) and retracting the item (XEP-0060 §7.2).
func testRichPresence(t *testing.T, s *server) {
	a := newAppliance(t, s.componentAddress())
	c := s.login(t, "user1", "desk")
	c.send(t, `<presence/>`)
	c.join(t, "show_activity=1", "show_mood=1", "show_tune=1")
	showsNow := func(activity, mood, tune string) bool {
		_, body := a.get(t, jidPath(c.bare)+".json")
		var status statusJSON
		if err := json.Unmarshal([]byte(body), &status); err != nil {
			t.Fatal(err)
		}
		return status.Activity == activity && status.Mood == mood && status.Tune == tune
	}
	shows := func(activity, mood, tune string) {
		t.Helper()
		eventually(t, fmt.Sprintf("the page shows %q, %q, %q", activity, mood, tune), func() bool { return showsNow(activity, mood, tune) })
	}
	const knights = "Prokofiev – Dance of the Knights"
	eventually(t, "the page shows everything", func() bool {
		c.publishRich(t) // again, because ejabberd sends no event before it knows the component's features
		return showsNow("relaxing", "in_love", knights)
	})
	c.publish(t, `<tune xmlns='`+nsTune+`'/>`)
	shows("relaxing", "in_love", "")
	c.publish(t, `<mood xmlns='`+nsMood+`'/>`)
	shows("relaxing", "", "")
	c.publish(t, `<activity xmlns='`+nsActivity+`'/>`)
	shows("", "", "")

	c.publishRich(t)
	shows("relaxing", "in_love", knights)
	for _, node := range []string{nsTune, nsMood, nsActivity} {
		c.request(t, "set", "", `<pubsub xmlns='http://jabber.org/protocol/pubsub'><retract node='`+node+`' notify='true'><item id='current'/></retract></pubsub>`)
	}
	if s.name != "ejabberd" || s.root != "" { // ejabberd 23.01 sends no event
		shows("", "", "")
	}
	c.send(t, `<presence type='unavailable'/>`)
	a.want(t, c.bare, shown{state: "unavailable"})
	c.send(t, `<presence/>`)
	a.want(t, c.bare, shown{state: "available"})
	c.publish(t, `<mood xmlns='`+nsMood+`'><happy/></mood>`)
	shows("", "happy", "") // nothing comes back
	c.dropContact(t)
}
