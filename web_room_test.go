package main

import (
	"image/png"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const (
	lobby     = "lobby@rooms.example.org"
	roomQuery = `<iq type='get' id='room' from='webstatus.example.org' to='` + lobby + `'><query xmlns='http://jabber.org/protocol/disco#info'></query></iq>`
)

// roomInfo returns a room's answer to disco#info (XEP-0045, example 11).
func roomInfo(name, occupants, visibility string) string {
	return `<iq type='result' id='room' from='` + lobby + `' to='webstatus.example.org'><query xmlns='http://jabber.org/protocol/disco#info'>` +
		`<identity category='conference' name='` + name + `' type='text'/><feature var='http://jabber.org/protocol/muc'/><feature var='` + visibility + `'/>` +
		`<x xmlns='jabber:x:data' type='result'><field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/muc#roominfo</value></field>` +
		`<field var='muc#roominfo_occupants'><value>` + occupants + `</value></field></x></query></iq>`
}

func newRoomFixture(t *testing.T) *fixture {
	f := newFixture(t, func(c *componentConfig) { c.rooms = []string{"*@rooms.example.org", "one@other.example.org"} })
	f.register("")
	return f
}

// askRoom requests a path while the test plays the room, and returns the response.
func (f *fixture) askRoom(path string, room func()) (resp *http.Response, body string) {
	f.t.Helper()
	var wait sync.WaitGroup
	wait.Go(func() { resp, body = f.get(path) })
	room()
	wait.Wait()
	return resp, body
}

// TestRoom shows a room in each format.
func TestRoom(t *testing.T) {
	f := newRoomFixture(t)
	_, body := f.askRoom("/room/Lobby@rooms.example.org.json", func() {
		f.want(roomQuery)
		f.send(roomInfo("The &lt;b> lobby", "12", "muc_public"))
	})
	if want := `{"version":1,"jid":"lobby@rooms.example.org","name":"The \u003cb\u003e lobby","occupants":12,"public":true}`; body != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
	schema, err := jsonschema.NewCompiler().Compile("docs/room.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	validate(t, schema, body)

	// All others come from memory, and none of them asks the room.
	for path, want := range map[string]string{".svg": "The &lt;b&gt; lobby: 12 online · public", ".svg?lang=de&label=Chat": "Chat: 12 online · öffentlich",
		".svg?style=card": lobby, ".json?format=shields": `"label":"The \u003cb\u003e lobby","message":"12 online · public"`} {
		resp, body := f.get("/room/" + lobby + path)
		if resp.StatusCode != http.StatusOK || !strings.Contains(body, want) || resp.Header.Get("X-Robots-Tag") != "" || resp.Header.Get("Cache-Control") != "max-age=60" {
			t.Errorf("%s: %s %v %s", path, resp.Status, resp.Header, body)
		}
		if strings.Contains(path, ".svg") {
			checkXML(t, path, body)
		}
	}
	for _, path := range []string{".png", ".png?style=card&size=160", ".png?lang=ar", ".png?style=dot"} {
		resp, body := f.get("/room/" + lobby + path)
		if _, err := png.DecodeConfig(strings.NewReader(body)); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s %v", path, resp.Status, err)
		}
	}
	_, arabic := f.get("/room/" + lobby + ".png?lang=ar")
	if _, english := f.get("/room/" + lobby + ".png"); english != arabic {
		t.Error("a label that the font lacks is not in English")
	}
	f.settled(juliet)
}

// TestRoomRefresh checks that a room is asked at most once a minute, however many requests there are, and that its last answer is
// shown for a while if it does not answer again.
func TestRoomRefresh(t *testing.T) {
	f := newRoomFixture(t)
	path := "/room/" + lobby + ".json"
	get := func() string { _, body := f.get(path); return body }
	f.askRoom(path, func() {
		f.askRoom(path, func() {
			f.want(roomQuery)
			f.send(roomInfo("Lobby", "1", "muc_public"))
		})
	})
	f.advance(59 * time.Second)
	if body := get(); !strings.Contains(body, `"occupants":1,`) {
		t.Error(body)
	}
	f.settled(juliet)
	f.advance(time.Second)
	if _, body := f.askRoom(path, func() { f.want(roomQuery); f.send(roomInfo("Lobby", "2", "muc_hidden")) }); !strings.Contains(body, `"occupants":2,"public":false`) {
		t.Error(body)
	}
	f.send(roomInfo("Lobby", "99", "muc_public")) // nobody asked
	f.settled(lobby)
	if body := get(); !strings.Contains(body, `"occupants":2,`) {
		t.Errorf("an answer to nothing is shown: %s", body)
	}

	// No answer: the last one is shown for roomTTL.
	over := make(chan time.Time)
	f.comp.rooms.board.after = func(time.Duration) <-chan time.Time { return over }
	f.advance(time.Minute)
	if _, body := f.askRoom(path, func() { f.want(roomQuery); over <- noon }); !strings.Contains(body, `"occupants":2,`) {
		t.Error(body)
	}
	f.advance(roomTTL)
	if resp, _ := f.askRoom(path, func() { f.want(roomQuery); over <- noon }); resp.StatusCode != http.StatusNotFound {
		t.Errorf("after roomTTL: %s", resp.Status)
	}
}

// TestRoomWithoutLink checks that a room is asked as soon as there is a link, not a minute later.
func TestRoomWithoutLink(t *testing.T) {
	f := newRoomFixture(t)
	f.stream.Close()
	eventually(t, "the link is down", func() bool { return len(f.comp.links.open()) == 0 })
	if resp, _ := f.get("/room/" + lobby + ".json"); resp.StatusCode != http.StatusNotFound {
		t.Error(resp.Status)
	}
	f.accept()
	f.want(`<presence type='probe'…`)
	if _, body := f.askRoom("/room/"+lobby+".json", func() { f.want(roomQuery); f.send(roomInfo("Lobby", "3", "muc_public")) }); !strings.Contains(body, `"occupants":3`) {
		t.Error(body)
	}
}

// TestRoomsNotShown checks that only listed rooms are asked, and that only rooms are shown.
func TestRoomsNotShown(t *testing.T) {
	f := newRoomFixture(t)
	for _, path := range []string{"lobby@elsewhere.example.org.json", "two@other.example.org.json", "juliet@example.org.json", "rooms.example.org.json", "@rooms.example.org.json",
		lobby, lobby + ".xml", lobby + "%2Fjuliet.json", "x.json", ".json", "%20@rooms.example.org.json"} {
		if resp, body := f.get("/room/" + path); resp.StatusCode != http.StatusNotFound || strings.Contains(body, "lobby") {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	f.settled(juliet) // nobody was asked
	answers := map[string]string{
		"an error":  `<iq type='error' id='room' from='` + lobby + `' to='webstatus.example.org'>` + strings.TrimPrefix(roomInfo("x", "1", "muc_public"), roomInfo("x", "1", "muc_public")[:strings.Index(roomInfo("x", "1", "muc_public"), "<query")]),
		"no query":  `<iq type='result' id='room' from='` + lobby + `' to='webstatus.example.org'/>`,
		"a service": strings.Replace(roomInfo("x", "1", "muc_public"), "conference", "account", 1),
		"no rooms":  strings.Replace(roomInfo("x", "1", "muc_public"), "/muc'", "/other'", 1),
	}
	for name, answer := range answers {
		resp, _ := f.askRoom("/room/"+lobby+".json", func() { f.want(roomQuery); f.send(answer) })
		if image, body := f.get("/room/" + lobby + ".svg"); resp.StatusCode != http.StatusNotFound || image.StatusCode != http.StatusNotFound || !strings.Contains(body, "XMPP: Unknown") {
			t.Errorf("%s: %s, %s %s", name, resp.Status, image.Status, body)
		}
		f.advance(roomInterval)
	}
}

// TestParseRoom checks what is made of unusual answers.
func TestParseRoom(t *testing.T) {
	for description, want := range map[string]Room{
		`<identity category='conference'/>`:                                                                                           {lobby, "lobby", -1, false},
		`<identity category='conference' name=' a&#10; b '/><feature var='muc_public'/>`:                                              {lobby, "a b", -1, true},
		`<identity category='conference'/><x xmlns='jabber:x:data'><field var='muc#roominfo_occupants'><value>-1</value></field></x>`: {lobby, "lobby", -1, false},
		`<identity category='conference'/><x xmlns='jabber:x:data'><field var='muc#roominfo_occupants'/></x>`:                         {lobby, "lobby", -1, false},
		`<identity category='conference'/><x xmlns='jabber:x:data'><field var='muc#roominfo_occupants'><value>0</value></field></x>`:  {lobby, "lobby", 0, false},
	} {
		s, err := decodeStanza([]byte(`<iq type='result' id='room' from='` + lobby + `' to='webstatus.example.org'><query xmlns='` + nsDiscoInfo + `'><feature var='` + nsMUC + `'/>` + description + `</query></iq>`))
		if err != nil {
			t.Fatal(err)
		}
		if got := parseRoom(s.from, s.child(nsDiscoInfo, "query")); got == nil || *got != want {
			t.Errorf("%s: %+v", description, got)
		}
	}
}

func TestRoomPatterns(t *testing.T) {
	for pattern, want := range map[string]bool{"*@rooms.example.org": true, "XSF@Muc.example.org": true, "[a-c]?@x": true, "*": false, "*@*": false, "*@*.org": false,
		"@x": false, "a@": false, "[@x": false, "a@b/c": false, "a@b@c": false, "": false} {
		if got, ok := parseRoomPattern(pattern); ok != want || ok && got != strings.ToLower(pattern) {
			t.Errorf("%s: %q %t", pattern, got, ok)
		}
	}
	b := newRoomBoard([]string{"xsf*@muc.example.org"}, time.Now)
	for jid, want := range map[string]bool{"xsf@muc.example.org": true, "xsf-x@muc.example.org": true, "xs@muc.example.org": false, "xsf@muc.example.org.x": false} {
		if b.shows(jid) != want {
			t.Errorf("%s: %t", jid, !want)
		}
	}
}

// TestRoomBoardIsBounded checks that requests for many rooms do not fill the memory.
func TestRoomBoardIsBounded(t *testing.T) {
	now := noon
	b := newRoomBoard([]string{"*@x"}, func() time.Time { return now })
	b.waiting = maxRoomWaiting // nobody waits
	for i := range 3 * maxRooms {
		b.get(t.Context(), strings.Repeat("a", i%500+1)+strings.Repeat("b", i/500)+"@x")
		if i%2 == 0 {
			for len(b.requests) > 0 {
				<-b.requests
			}
		}
	}
	if len(b.entries) != maxRooms {
		t.Errorf("%d rooms", len(b.entries))
	}
	if e := b.ask("new@x"); e != nil {
		t.Error("a room was forgotten that must not be asked yet")
	}
	now = now.Add(roomInterval)
	if e := b.ask("new@x"); e == nil || len(b.entries) != maxRooms {
		t.Errorf("%d rooms after a minute", len(b.entries))
	}
}
