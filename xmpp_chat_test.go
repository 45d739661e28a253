package main

import (
	"bytes"
	"encoding/xml"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

const noStore = `<no-store xmlns='urn:xmpp:hints'></no-store>`

// write sends a message from Juliet and returns the text of the reply.
func (f *fixture) write(text string) string {
	f.t.Helper()
	f.advance(time.Second)
	f.send(`<message type='chat' id='m' from='juliet@example.org/b' to='webstatus.example.org'><body>` + text + `</body><thread>t</thread></message>`)
	got := f.next()
	got, _ = strings.CutSuffix(got, noStore+`</message>`)
	got, _ = strings.CutSuffix(got, `</message>`)
	start, end := `<message type='chat' from='webstatus.example.org' to='juliet@example.org/b'><body>`, `</body><thread>t</thread>`
	if !strings.HasPrefix(got, start) || !strings.HasSuffix(got, end) {
		f.t.Fatalf("%s: %s", text, got)
	}
	return strings.NewReplacer("&#xA;", "\n", "&#34;", `"`, "&lt;", "<", "&gt;", ">").Replace(got[len(start) : len(got)-len(end)])
}

func TestChat(t *testing.T) { atEachAddress(t, testChat) }

func testChat(t *testing.T, f *fixture) {
	says := func(text string, want ...string) {
		t.Helper()
		got := f.write(text)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: %q, want %q", text, got, w)
			}
		}
	}
	says("HELP", "newlink", "unregister – ")
	says("status", "You are not registered")
	says("link", "You are not registered")
	says("register", "You are registered", "https://status.example.org/status/"+Token{}.String())
	f.want(`<presence type='subscribe' from='webstatus.example.org' to='juliet@example.org'>…`)
	f.send(`<presence type='subscribed' from='juliet@example.org' to='webstatus.example.org'/>`)
	f.want(`<presence type='probe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
	f.says("b", "", "<show>away</show><status>at the ball</status>")
	says("register", "already registered")
	says("status", "Others see: Away")
	says("show message on", "Show status msg")
	f.replays("b", "<show>away</show><status>at the ball</status>")
	says("show jid on", "Show status msg, Show full JID")
	says("status", "Others see: Away – at the ball – juliet@example.org")
	says("show jid off", "Turned on: Show status msg")
	says("show nick avatar lastseen resources on", "Show status msg, Show nickname, Show picture, ", "Show each connected client")
	f.want(wantNick, wantMetadata)
	says("show nick avatar lastseen resources off", "Turned on: Show status msg")
	says("show message off", "only your state is shown")
	says("show everything on", "Send “show message on”")
	says("show", "Send “show message on”")
	says("link", Token{}.String(), julietPage, "<iframe src=")
	says("newlink", Token{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}.String())
	if resp, _ := f.get("/status/" + Token{}.String()); resp.StatusCode != 404 {
		t.Errorf("the old URL: %s", resp.Status)
	}
	says("what?", "I do not understand")
	says("unregister", "unregister” again")
	f.advance(time.Hour)
	says("unregister", "unregister” again")
	says("unregister", "no longer registered")
	f.wantLeave("webstatus.example.org")
	if resp, _ := f.get(julietPage); resp.StatusCode != 404 {
		t.Errorf("after unregistering: %s", resp.Status)
	}
}

// TestChatSilence checks the messages that get no reply.
func TestChatSilence(t *testing.T) {
	f := newFixture(t, nil)
	for _, silent := range []string{
		`<message type='error' from='romeo@example.org/x' to='webstatus.example.org'><body>help</body></message>`,
		`<message type='groupchat' from='romeo@example.org/x' to='webstatus.example.org'><body>help</body></message>`,
		`<message type='headline' from='romeo@example.org/x' to='webstatus.example.org'><body>help</body></message>`,
		`<message type='chat' from='romeo@example.org/x' to='webstatus.example.org'><body> </body></message>`,
		`<message type='chat' from='romeo@example.org/x' to='webstatus.example.org'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>`,
		`<message type='chat' from='bot.example.org' to='webstatus.example.org'><body>help</body></message>`,
	} {
		f.send(silent)
		f.settled("romeo@example.org")
		f.settled("bot.example.org")
	}
	f.send(`<message from='romeo@elsewhere.example/x' to='webstatus.example.org'><body>register</body></message>`)
	f.want(`<message from='webstatus.example.org' to='romeo@elsewhere.example/x'><body>You are not allowed to register here.</body></message>`)
	f.send(`<message id='m' from='romeo@example.org/x' to='x@webstatus.example.org'><body>help</body></message>`)
	f.want(`<message type='error' id='m' from='x@webstatus.example.org' to='romeo@example.org/x'><error code='404' type='cancel'><item-not-found …`)
}

// TestAddressLines checks, in every language, that each address in chat is alone on its line, so that people can copy it.
func TestAddressLines(t *testing.T) {
	f := newFixture(t, nil)
	for i, lang := range f.conf.languages.all {
		var address struct {
			random, byJID string
		}
		me := lang.Tag + "@example.org"
		check := func(what, text string) {
			t.Helper()
			shown := 0
			for line := range strings.Lines(text) {
				line = strings.TrimSuffix(line, "\n")
				switch {
				case line == address.random || line == address.byJID:
					shown++
				case strings.HasPrefix(line, `<iframe src="`+address.random+`"`) && strings.HasSuffix(line, `</iframe>`):
				case strings.Contains(line, "://"), strings.TrimSpace(line) == "", strings.ContainsAny(line, "{}"):
					t.Errorf("%s, %s: %q", lang.Tag, what, line)
				}
			}
			if shown != 2 {
				t.Errorf("%s, %s: %d addresses in %q", lang.Tag, what, shown, text)
			}
		}
		send := func(stanza, content string) string {
			t.Helper()
			f.advance(time.Second)
			f.send(`<` + stanza + ` from='` + me + `/x' to='webstatus.example.org' xml:lang='` + lang.Tag + `'>` + content + `</` + stanza[:strings.Index(stanza, " ")] + `>`)
			var answer struct {
				Body string `xml:"body"`
				Note string `xml:"command>note"`
			}
			if err := xml.Unmarshal([]byte(f.next()), &answer); err != nil {
				t.Fatal(err)
			}
			return answer.Body + answer.Note
		}
		use := func(token int) {
			address.random = "https://status.example.org/status/" + Token(bytes.Repeat([]byte{byte(token)}, 16)).String()
			address.byJID = jidURL("https://status.example.org", me)
		}
		use(2 * i)
		check("welcome", send(`message type='chat'`, `<body>register</body>`))
		f.want(`<presence type='subscribe'…`)
		check("link", send(`message type='chat'`, `<body>link</body>`))
		check("My status page", send(`iq type='set' id='q'`, commandXML("page", "", "")))
		use(2*i + 1)
		check("newlink", send(`message type='chat'`, `<body>newlink</body>`))
		check("register", send(`message type='chat'`, `<body>register</body>`))
		f.want(`<presence type='subscribe'…`)
	}
}

// TestIntroduction checks that people who are not registered learn what we are, and how to register.
func TestIntroduction(t *testing.T) {
	f := newFixture(t, nil)
	const romeo, what = "romeo@elsewhere.example", "This service shows on a web page whether you are available on XMPP. You decide what it shows."
	const mayRegister, mayNot = what + "&#xA;You are not registered. Send “register” to publish your status page.", what + "&#xA;You are not allowed to register here."
	write := func(from, text string) {
		f.send(`<message type='chat' from='` + from + `/x' to='webstatus.example.org'><body>` + text + `</body></message>`)
	}
	answered := func(to, text string) {
		t.Helper()
		f.want(`<message type='chat' from='webstatus.example.org' to='` + to + `/x'><body>` + text + `</body>` + noStore + `</message>`)
	}
	write(romeo, "hello")
	answered(romeo, mayNot)

	// Five within a minute are answered.
	for range 2 {
		for range 5 {
			write(juliet, "hello")
			answered(juliet, mayRegister)
			f.advance(time.Second)
		}
		write(juliet, "hello")
		f.settled(juliet)
		write(juliet, "status") // is understood
		answered(juliet, "You are not registered. Send “register” to publish your status page.")
		f.advance(time.Minute - 6*time.Second)
		write(juliet, "hello")
		f.settled(juliet)
		f.advance(time.Second)
	}

	// So are those of users.
	f.register("")
	for range 5 {
		write(juliet, "hello")
		answered(juliet, "I do not understand that. Send “help” to see what I can do.")
	}
	write(juliet, "hello")
	f.settled(juliet)
}

// TestIntroducedOnce checks that we introduce ourselves once to people who are not registered and ask for our presence.
func TestIntroducedOnce(t *testing.T) {
	f := newFixture(t, nil)
	subscribe := func(from, to string) {
		f.send(`<presence type='subscribe' from='` + from + `' to='` + to + `' xml:lang='de'/>`)
		f.want(`<presence type='unsubscribed' from='` + to + `' to='` + from + `'></presence>`)
	}
	introduced := func(to, next string) {
		t.Helper()
		f.want(`<message type='chat' from='webstatus.example.org' to='` + to + `' xml:lang='de'>` +
			`<body>Dieser Dienst zeigt auf einer Webseite, ob du in XMPP erreichbar bist. Was er zeigt, bestimmst du.&#xA;` + next + `</body></message>`)
	}
	const us, romeo = "webstatus.example.org", "romeo@elsewhere.example"
	subscribe(juliet, us)
	introduced(juliet, "Du bist nicht registriert. Schreib „register“, um eine Seite über dich zu veröffentlichen.")
	subscribe(juliet, us)
	f.settled(juliet)
	subscribe(romeo, "x@"+us) // nobody
	f.settled(romeo)
	subscribe(romeo, us)
	introduced(romeo, "Du darfst dich hier nicht registrieren.")
	subscribe("example.org", us) // a server does not read
	f.settled("example.org")
	f.send(`<presence type='probe' from='nurse@example.org' to='webstatus.example.org'/>`)
	f.want(`<presence type='unsubscribed' …`)
	f.settled("nurse@example.org")
}

// TestReceipts checks that a message that requests a receipt gets one (XEP-0184), in a message of its own.
func TestReceipts(t *testing.T) {
	f := newFixture(t, nil)
	send := func(attributes, content string) {
		f.send(`<message from='romeo@example.org/x' to='webstatus.example.org' ` + attributes + `>` + content + `</message>`)
	}
	const request = `<request xmlns='urn:xmpp:receipts'/>`
	const receipt, answer = ` from='webstatus.example.org' to='romeo@example.org/x'><received xmlns='urn:xmpp:receipts' id='m'></received></message>`,
		` from='webstatus.example.org' to='romeo@example.org/x'><body>…`
	send(`id='m' type='chat'`, `<body>help</body>`+request)
	f.want(`<message type='chat'`+receipt, `<message type='chat'`+answer)
	send(`id='m'`, `<body>help</body>`+request)
	f.want(`<message`+receipt, `<message`+answer)
	send(`type='chat'`, `<body>help</body>`+request) // without an id, there is nothing to name in a receipt
	f.want(`<message type='chat'` + answer)
	for _, silent := range []string{request, `<received xmlns='urn:xmpp:receipts' id='m'/>`, `<displayed xmlns='urn:xmpp:chat-markers:0' id='m'/>`} {
		send(`id='m' type='chat'`, silent)
		f.settled("romeo@example.org")
	}
	send(`id='m' type='error'`, `<body>help</body>`+request+`<error/>`)
	f.settled("romeo@example.org")
}

// TestRepeatedMessages sends old messages again, as Kaidan does after a reconnect: they get receipts, and are not carried out again.
func TestRepeatedMessages(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	start := f.now()
	send := func(id, text string, age time.Duration) {
		f.send(`<message type='chat' id='` + id + `' from='juliet@example.org/b' to='webstatus.example.org'><body>` + text + `</body>` +
			`<request xmlns='urn:xmpp:receipts'/><delay xmlns='urn:xmpp:delay' stamp='` + start.Add(-age).Format(time.RFC3339Nano) + `'/></message>`)
		f.want(`<message type='chat' from='webstatus.example.org' to='juliet@example.org/b'><received xmlns='urn:xmpp:receipts' id='` + id + `'></received></message>`)
	}
	const answer = `<message type='chat' from='webstatus.example.org' to='juliet@example.org/b'><body>…`
	send("a", "newlink", time.Hour) // written an hour ago, when the client was offline
	f.want(answer)
	send("b", "status", 59*time.Minute)
	f.want(answer)
	for range 2 {
		send("a", "newlink", time.Hour)
		send("b", "status", 59*time.Minute)
		f.settled(juliet)
	}
	send("c", "status", -time.Hour) // a clock that is fast
	f.want(answer)
	f.advance(time.Second)
	send("d", "status", -time.Second) // the same clock, after it has been set
	f.want(answer)
	if answer := f.write("status"); answer == "" { // no time stamp
		t.Error("no answer")
	}
}

// TestNoStore checks that an answer that is useless later stays out of archives (XEP-0334), and that one with an address does not.
func TestNoStore(t *testing.T) {
	f := newFixture(t, nil)
	for _, tt := range []struct {
		text string
		kept bool
	}{{"help", false}, {"status", false}, {"link", false}, {"what?", false}, {"register", true}, {"register", true}, {"status", false},
		{"show jid on", false}, {"link", true}, {"newlink", true}, {"unregister", false}} {
		f.send(`<message type='chat' from='juliet@example.org/b' to='webstatus.example.org'><body>` + tt.text + `</body></message>`)
		got := f.next()
		for strings.HasPrefix(got, `<presence type='subscribe'`) {
			got = f.next()
		}
		if strings.Contains(got, noStore) == tt.kept {
			t.Errorf("%s: %s", tt.text, got)
		}
	}
}

// TestFlood checks that a sender who exceeds the rate limit does not affect others.
func TestFlood(t *testing.T) {
	f := newFixture(t, nil)
	for range requestBurst {
		f.send(`<iq type='get' id='p' from='romeo@example.org/x' to='webstatus.example.org'><ping xmlns='urn:xmpp:ping'/></iq>`)
		f.want(`<iq type='result' id='p' from='webstatus.example.org' to='romeo@example.org/x'></iq>`)
	}
	const constraint = `<error code='500' type='wait'><resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'></resource-constraint></error>`
	f.send(`<iq type='get' id='p' from='romeo@example.org/y' to='webstatus.example.org'><ping xmlns='urn:xmpp:ping'/></iq>`)
	f.want(`<iq type='error' id='p' from='webstatus.example.org' to='romeo@example.org/y'>` + constraint + `</iq>`)
	f.send(`<message id='m' from='romeo@example.org/y' to='webstatus.example.org'><body>help</body></message>`)
	f.want(`<message type='error' id='m' from='webstatus.example.org' to='romeo@example.org/y'>` + constraint + `</message>`)
	f.send(`<presence type='subscribe' from='romeo@example.org' to='webstatus.example.org'/>`) // is not answered
	f.send(`<iq type='get' id='p' from='romeo@example.org/y' to='webstatus.example.org'><ping xmlns='urn:xmpp:ping'/></iq>`)
	f.want(`<iq type='error' id='p' from='webstatus.example.org' to='romeo@example.org/y'>` + constraint + `</iq>`)
	f.settled(juliet)
	f.advance(time.Second)
	f.settled("romeo@example.org")
}

// TestSendersAreForgotten checks the memory that senders with long addresses take up.
func TestSendersAreForgotten(t *testing.T) {
	before := heapSize()
	s := newSenders()
	long := strings.Repeat("x", 2*maxJIDPart)
	for i := range 2*maxSenders - 1 {
		s.get(long+strconv.Itoa(i), noon)
		if len(s.by) > maxSenders {
			t.Fatalf("%d senders are kept", len(s.by))
		}
	}
	if kept := heapSize() - before; kept > 80<<20 {
		t.Errorf("%d bytes for %d senders", kept, len(s.by))
	}
	s.get("", noon) // keeps s
}

// heapSize returns the size of all reachable objects, in bytes.
func heapSize() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
