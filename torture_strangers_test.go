package main

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A grammar produces stanzas that servers forward for anyone: they are well-formed, and the server has set the sender. Everything
// else can be anything.
type grammar struct{ t *torture }

// A hostile stanza is one of them.
type hostileStanza struct {
	xml string // without the attribute from
	id  string // of a request, which must be answered once; empty for all others
}

var hostileTexts = []string{"", "1", "0", "true", "register", "unregister", "help", "show all on", "message on", "link", "newlink", "stop", "yes", "-999", "99999999999999999999", "../../etc/passwd",
	"2999-01-01T00:00:00Z", "0000-00-00T00:00:00Z", "\u202eevil\u2066", "&#x10FFFF;", "]]>", "<script>alert(1)</script>", "%s%n%x", "'; DROP TABLE users; --", "\u0301\u0301\u0301", "👩‍👩‍👧‍👦", "ﷺ",
	"anonymous", "jabber:iq:register", "submit", "dnd", "away", strings.Repeat("会", 400), strings.Repeat("a", 5000)}

var hostileNamespaces = []string{nsRegister, nsCommands, nsForm, nsDiscoInfo, nsDiscoItem, nsPing, nsVersion, nsLast, nsVCard, nsPubSub, nsPubSubEvent, nsNick, nsAvatarMetadata, nsAvatarData,
	nsAvatarUpdate, nsDelay, nsOldDelay, nsIdle, nsStanzas, "jabber:client", "urn:xmpp:receipts", "urn:xmpp:carbons:2", "http://jabber.org/protocol/muc#user", "x:y"}

var hostileNames = []string{"query", "command", "x", "field", "value", "remove", "body", "show", "status", "priority", "ping", "vCard", "PHOTO", "BINVAL", "pubsub", "event", "items", "item", "nick", "metadata", "info",
	"data", "photo", "delay", "idle", "error", "item-not-found", "gone", "request", "subject", "registered", "username", "show_full_jid", "show_status_msg", "jid_link", "c", "presence", "iq", "message"}

var hostileAttributes = []string{"type", "var", "node", "sessionid", "action", "stamp", "since", "id", "bytes", "url", "seconds", "code", "from", "to", "xml:lang", "name", "ver"}

// hostilePayloads are beginnings that reach deep into the service; %s is content.
var hostilePayloads = []string{
	`<query xmlns='jabber:iq:register'>%s</query>`, `<query xmlns='jabber:iq:register'><remove/></query>`, `<query xmlns='jabber:iq:register'><x xmlns='jabber:x:data' type='submit'>%s</x></query>`,
	`<query xmlns='jabber:iq:register'><x xmlns='jabber:x:data' type='submit'><field var='show_nick'><value>1</value></field><field var='show_avatar'><value>1</value></field>%s</x></query>`,
	`<command xmlns='http://jabber.org/protocol/commands' node='options'>%s</command>`, `<command xmlns='http://jabber.org/protocol/commands' node='newlink'/>`,
	`<command xmlns='http://jabber.org/protocol/commands' node='stop' action='complete' sessionid='x'>%s</command>`, `<query xmlns='http://jabber.org/protocol/disco#info'>%s</query>`,
	`<vCard xmlns='vcard-temp'>%s</vCard>`, `<ping xmlns='urn:xmpp:ping'/>`, `<body>%s</body>`, `<show>dnd</show><status>%s</status>`, `<status xml:lang='de'>%s</status><priority>5</priority>`,
	`<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='http://jabber.org/protocol/nick'><item><nick xmlns='http://jabber.org/protocol/nick'>%s</nick></item></items></event>`,
	`<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='urn:xmpp:avatar:metadata'><item><metadata xmlns='urn:xmpp:avatar:metadata'><info id='%s' bytes='1'/></metadata></item></items></event>`,
	`<x xmlns='vcard-temp:x:update'><photo>%s</photo></x>`, `<delay xmlns='urn:xmpp:delay' stamp='%s'/>`, `<idle xmlns='urn:xmpp:idle:1' since='%s'/>`,
	`<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>%s</error>`,
}

// stanza returns a random stanza with a number that makes its id unique.
func (g grammar) stanza(number int64) hostileStanza {
	name := pick(g.t, "iq", "iq", "message", "presence", "presence")
	types := map[string][]string{
		"iq":       {"get", "set", "get", "set", "result", "error", "put"},
		"message":  {"", "chat", "normal", "headline", "groupchat", "error", "x"},
		"presence": {"", "", "", "unavailable", "subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe", "error", "x"},
	}
	typ := pick(g.t, types[name]...)
	id := fmt.Sprintf("h%d.%s", number, escaped(pick(g.t, "", "", "\"", "'", "<&>", "é", strings.Repeat("i", 300))))
	to := pick(g.t, testDomain, testDomain, "bot@"+testDomain, testDomain+"/web", testDomain+"/x", "nobody@"+testDomain)
	attributes := fmt.Sprintf(" id='%s' to='%s'", id, to)
	if typ != "" {
		attributes += " type='" + typ + "'"
	}
	if g.t.intN(4) == 0 {
		attributes += " xml:lang='" + escaped(pick(g.t, "de", "zh-Hant", "x", "en_US", "ar", strings.Repeat("q", 100))) + "'"
	}
	var content strings.Builder
	for range g.t.intN(4) {
		content.WriteString(g.content(0))
	}
	s := hostileStanza{xml: "<" + name + attributes + ">" + content.String() + "</" + name + ">"}
	if name == "iq" && typ != "result" && typ != "error" {
		s.id = strings.NewReplacer("&#34;", `"`, "&#39;", "'", "&lt;", "<", "&amp;", "&", "&gt;", ">").Replace(id)
	}
	return s
}

// content returns a random child of a stanza.
func (g grammar) content(depth int) string {
	switch g.t.intN(4) {
	case 0:
		return g.element(depth)
	case 1:
		return escaped(pick(g.t, hostileTexts...))
	}
	payload := pick(g.t, hostilePayloads...)
	if strings.Contains(payload, "='%s'") || g.t.intN(2) == 0 {
		return strings.ReplaceAll(payload, "%s", escaped(pick(g.t, hostileTexts...)))
	}
	return strings.ReplaceAll(payload, "%s", g.element(depth+1))
}

// element returns a random element with random content, which may be deep or long.
func (g grammar) element(depth int) string {
	name, attributes := pick(g.t, hostileNames...), ""
	if g.t.intN(2) == 0 {
		attributes = " xmlns='" + pick(g.t, hostileNamespaces...) + "'"
	}
	for _, i := range g.t.permutation(len(hostileAttributes))[:g.t.intN(4)] {
		attributes += " " + hostileAttributes[i] + "='" + escaped(pick(g.t, hostileTexts...)) + "'"
	}
	if g.t.intN(500) == 0 {
		n := 20 + g.t.intN(200)
		return strings.Repeat("<"+name+">", n) + strings.Repeat("</"+name+">", n)
	}
	var content strings.Builder
	for range g.t.intN(4) {
		if depth < 5 {
			content.WriteString(g.content(depth + 1))
		}
	}
	return "<" + name + attributes + ">" + content.String() + "</" + name + ">"
}

// permutation returns a random permutation of the numbers below n.
func (t *torture) permutation(n int) []int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.random.Perm(n)
}

const (
	hostileSenders = 5000
	hostileBatch   = 500 // stanzas, from 50 senders
)

// hostileStanzas sends hostile stanzas from many people, among them registered ones. Every request must be answered once, nobody else may get
// anything, the link must stay up, and the service must answer every page.
func hostileStanzas(t *torture) {
	r := newRig(t)
	for i := range hostileSenders {
		r.realm.says(hostileSender(i), Unavailable, "")
	}
	done := r.observe()
	g := grammar{t}
	var number int64
	t.rounds(func(int) {
		var batch strings.Builder
		var requests []string
		for range hostileBatch / 10 {
			who := hostileSender(t.intN(hostileSenders))
			from := " from='" + who + pick(t, "", "/a", "/b", "/"+escaped(pick(t, "é", "<&'", strings.Repeat("r", 1000)))) + "'"
			for range 10 {
				number++
				s := g.stanza(number)
				batch.WriteString(strings.Replace(s.xml, " id=", from+" id=", 1))
				if s.id != "" {
					requests = append(requests, s.id)
				}
			}
			number++
			barrier := fmt.Sprintf("h%d.", number)
			fmt.Fprintf(&batch, "<iq type='get' id='%s' from='%s/barrier' to='%s'><ping xmlns='urn:xmpp:ping'/></iq>", barrier, who, testDomain)
			requests = append(requests, barrier)
		}
		r.realm.expect(requests)
		r.realm.sendRaw(batch.String())
		eventually(t, "all requests are answered", func() bool { return r.realm.unanswered() == 0 })
		path := jidPath(hostileSender(t.intN(hostileSenders))) + pick(t, "", ".json", ".svg", ".txt", ".xml", "/embed")
		if code, body := r.get(t, path); code != 200 && code != 404 {
			t.Errorf("%s: %d %s", path, code, body)
		}
	})
	done()
	t.Logf("%d stanzas", number)
	if n := r.countLog(noLink); n > 0 {
		t.Errorf("the link was lost %d times", n)
	}
	t.wantMemory(r.process)
}

// hostileSender returns the bare JID of a sender. Some may register.
func hostileSender(i int) string {
	return fmt.Sprintf("hostile%d@%s", i, []string{"localhost", "elsewhere.example"}[i%2])
}

// hostileStanzasAtProsody is like hostileStanzas, with clients that are logged in to Prosody.
func hostileStanzasAtProsody(t *torture) {
	s := newServer(t, "prosody")
	watchdog := newWatchdog(t)
	a := newAppliance(t, s.componentAddress(), append(watchdog.env(), "WEBSTATUS_ALLOW=*")...)
	bystander := s.login(t, "user1", "bystander")
	bystander.send(t, `<presence/>`)
	bystander.join(t, "show_status_msg=1")
	var number atomic.Int64
	var clients []*client
	for _, user := range testAccounts[1:] {
		clients = append(clients, s.login(t, user, "hostile"))
	}
	watchdog.restart()
	t.rounds(func(n int) {
		var attackers sync.WaitGroup
		for _, c := range clients {
			attackers.Go(func() { c.attack(t, &number) })
		}
		message := fmt.Sprintf("round %d", n)
		bystander.send(t, `<presence><status>%s</status></presence>`, message)
		began := time.Now()
		a.want(t, bystander.bare, shown{state: "available", message: message})
		t.limit("showing a bystander's change", time.Since(began), visibleWithin)
		attackers.Wait()
	})
	t.Logf("%d stanzas", number.Load())
	if n := a.countLog(noLink); n > 0 {
		t.Errorf("the link was lost %d times", n)
	}
	t.wantPings(watchdog)
	t.wantMemory(a.process)
}

// attack sends hostile stanzas and waits until all requests among them are answered.
func (c *client) attack(t *torture, number *atomic.Int64) {
	g := grammar{t}
	var batch strings.Builder
	requests := make(map[string]bool)
	for range 100 {
		s := g.stanza(number.Add(1))
		batch.WriteString(s.xml)
		if s.id != "" {
			requests[s.id] = true
		}
	}
	c.send(t, "%s", batch.String())
	eventually(t, c.bare+" gets all answers", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.ended != nil {
			t.Fatalf("Prosody has closed the stream of %s: %v", c.bare, c.ended)
		}
		for _, n := range c.got {
			if n.XMLName.Local == "iq" && (n.attr("type") == "result" || n.attr("type") == "error") {
				delete(requests, n.attr("id"))
			}
		}
		c.got = nil
		return len(requests) == 0
	})
}
