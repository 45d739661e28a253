package main

import (
	"net/http"
	"strings"
	"testing"
)

// roomServers are servers with the configuration of a service for rooms.
var roomServers = map[string]string{
	"prosody":         "Component \"conference.localhost\" \"muc\"\n\trestrict_room_creation = false",
	"ejabberd":        "", // the configuration of all tests has mod_muc
	"prosody@trixie":  "Component \"conference.localhost\" \"muc\"\n\trestrict_room_creation = false",
	"ejabberd@trixie": "",
}

// TestE2ERoom shows a room of a real server as people enter and leave it, and as its owner renames and hides it.
func TestE2ERoom(t *testing.T) {
	t.Parallel()
	for name, config := range roomServers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, name, config)
			const room = "lobby@conference.localhost"
			// Each instance asks by itself, so that the test need not wait a minute.
			look := func(want string) {
				t.Helper()
				a := newAppliance(t, s.componentAddress(), "WEBSTATUS_ROOM=*@conference.localhost")
				eventually(t, "the room is "+want, func() bool {
					code, body := a.get(t, "/room/"+room+".json")
					return code == http.StatusOK && strings.HasSuffix(body, want) || want == "" && code == http.StatusNotFound && a.countLog(linked) > 0
				})
				if want != "" {
					if code, body := a.get(t, "/room/"+room+".svg"); code != http.StatusOK || !strings.Contains(body, "online") {
						t.Errorf("image: %d %s", code, body)
					}
				}
				a.end(t, 15)
			}
			look("")
			owner, guest := s.login(t, "user1", "desk"), s.login(t, "user2", "desk")
			configure := func(fields string) {
				t.Helper()
				owner.request(t, "set", room, `<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'>`+
					`<field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#roomconfig</value></field>`+fields+`</x></query>`)
			}
			owner.send(t, `<presence to='%s/owner'><x xmlns='http://jabber.org/protocol/muc'/></presence>`, room)
			configure(`<field var='muc#roomconfig_roomname'><value>The lobby</value></field><field var='muc#roomconfig_publicroom'><value>1</value></field>`)
			look(`"name":"The lobby","occupants":1,"public":true}`)
			guest.send(t, `<presence to='%s/guest'><x xmlns='http://jabber.org/protocol/muc'/></presence>`, room)
			guest.request(t, "get", room, `<query xmlns='http://jabber.org/protocol/disco#info'/>`) // after the presence has been handled
			configure(`<field var='muc#roomconfig_roomname'><value>The lounge</value></field><field var='muc#roomconfig_publicroom'><value>0</value></field>`)
			look(`"name":"The lounge","occupants":2,"public":false}`)
		})
	}
}
