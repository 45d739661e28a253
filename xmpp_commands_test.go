package main

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"image/png"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gosrc.io/xmpp/stanza"
)

// ask sends an iq and returns the response.
func (f *fixture) ask(from, typ, payload string) string {
	f.t.Helper()
	f.advance(time.Second)
	f.send(`<iq type='` + typ + `' id='q' from='` + from + `/x' to='webstatus.example.org'>` + payload + `</iq>`)
	return f.next()
}

// asks sends an iq and checks that the response contains the wanted strings.
func (f *fixture) asks(from, typ, payload string, want ...string) string {
	f.t.Helper()
	got := f.ask(from, typ, payload)
	for _, w := range want {
		if !strings.Contains(got, w) {
			f.t.Errorf("%s\ngot  %s\nwant %s", payload, got, w)
		}
	}
	return got
}

func commandXML(node, attributes, content string) string {
	return `<command xmlns='http://jabber.org/protocol/commands' node='` + node + `' ` + attributes + `>` + content + `</command>`
}

func TestCommands(t *testing.T) {
	f := newFixture(t, func(c *componentConfig) { c.admins = []string{"admin@example.org"} })
	const romeo, admin = "romeo@elsewhere.example", "admin@example.org"
	list := `<query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/>`
	if got := f.ask(romeo, "get", list); strings.Contains(got, "<item") {
		t.Errorf("a stranger is offered %s", got)
	}
	f.asks(romeo, "set", commandXML("page", "", ""), `type='error'`, `code='403'`, `<forbidden`)
	f.asks(romeo, "set", commandXML("nonsense", "", ""), `code='404'`, `<item-not-found`)
	f.asks(romeo, "get", `<query xmlns='http://jabber.org/protocol/disco#info' node='page'/>`, `<item-not-found`)
	f.register("")
	if got := f.asks(juliet, "get", list, `node='page' name='My status page'`, `node='options'`, `node='newlink'`, `node='stop'`); strings.Contains(got, "node='register'") {
		t.Errorf("a user is offered %s", got)
	}
	f.asks(juliet, "get", `<query xmlns='http://jabber.org/protocol/disco#info' node='options'/>`, `type='command-node'`, `name='Options'`, `var='jabber:x:data'`)
	f.asks(juliet, "get", `<query xmlns='http://jabber.org/protocol/disco#info' node='http://jabber.org/protocol/commands'/>`, `type='command-list'`)
	f.asks(juliet, "set", commandXML("page", "action='execute'", ""), `status='completed'`, `<note type='info'>Others see:`, `<x xmlns='jabber:x:data' type='result'>`+
		`<field var='url' type='text-single' label='Your web status URL'><value>https://status.example.org/status/`+Token{}.String()+`</value></field>`+
		`<field var='jid_url' type='text-single' label='JID-based URL'><value>https://status.example.org`+julietPage+`</value></field></x>`)

	session := func(node string) string {
		t.Helper()
		got := f.asks(juliet, "set", commandXML(node, "", ""), `status='executing'`, `<actions execute='complete'><complete></complete></actions>`, `type='form'`)
		return regexp.MustCompile(`sessionid='[^']+'`).FindString(got)
	}
	const submit = `<x xmlns='jabber:x:data' type='submit'>`
	options := session("options")
	f.asks(juliet, "set", commandXML("options", options, submit+`<field var='show_full_jid'><value>maybe</value></field></x>`), `<bad-request`, `<bad-payload xmlns='http://jabber.org/protocol/commands'`)
	f.asks(juliet, "set", commandXML("options", options, ""), `<bad-payload`)
	f.asks(juliet, "set", commandXML("options", options+" action='complete'", submit+`<field var='show_full_jid'><value>1</value></field></x>`),
		`status='completed'`, `Show full JID`)
	f.want(`<presence type='subscribe' …`) // no subscription yet
	f.asks(juliet, "set", commandXML("options", options, submit+`</x>`), `<bad-sessionid xmlns='http://jabber.org/protocol/commands'`)
	f.asks(juliet, "set", commandXML("options", "sessionid='none'", submit+`</x>`), `<bad-sessionid`)
	f.asks(juliet, "set", commandXML("options", "action='dance'", ""), `<malformed-action`)
	f.asks(juliet, "set", commandXML("options", session("options")+" action='prev'", ""), `<bad-action`)
	f.asks(juliet, "set", commandXML("options", "action='cancel'", ""), `<bad-action`)
	f.asks(juliet, "set", commandXML("options", session("options")+" action='cancel'", ""), `status='canceled'`)
	f.asks(juliet, "set", commandXML("options", "action='next'", ""), `<bad-action`)
	f.asks(juliet, "set", commandXML("options", session("options")+" action='next'", submit+`</x>`), `status='completed'`) // as poezio does
	f.want(`<presence type='subscribe' …`)
	old := session("options")
	f.advance(sessionTime)
	f.asks(juliet, "set", commandXML("options", old, submit+`</x>`), `code='405'`, `<not-allowed`, `<session-expired xmlns='http://jabber.org/protocol/commands'`)
	first, second := session("options"), session("options")
	for range maxSessions - 1 { // which the client leaves open
		f.asks(juliet, "set", commandXML("options", "", ""), `status='executing'`)
	}
	f.asks(juliet, "set", commandXML("options", first, submit+`</x>`), `<bad-sessionid`)
	f.asks(juliet, "set", commandXML("options", second, submit+`</x>`), `status='completed'`)
	f.want(`<presence type='subscribe' …`)

	f.asks(juliet, "set", commandXML("newlink", "", ""), `status='completed'`, `<note type='info'>Your page has a new address.`,
		`<field var='url' type='text-single' label='Your web status URL'><value>https://status.example.org/status/`+
			Token{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}.String()+`</value></field>`)
	f.asks(juliet, "set", commandXML(nsAdmin+"#get-registered-users-num", "", ""), `<forbidden`)

	f.asks(admin, "get", list, nsAdmin+"#delete-user")
	f.asks(admin, "set", commandXML(nsAdmin+"#get-registered-users-num", "", ""), `var='registeredusersnum'`, `<value>1</value>`)
	f.asks(admin, "set", commandXML(nsAdmin+"#get-online-users-num", "", ""), `<value>0</value>`)
	f.says("b", "", "")
	f.asks(admin, "set", commandXML(nsAdmin+"#get-online-users-list", "", ""), `var='onlineuserjids'`, `<value>juliet@example.org</value>`)
	f.asks(admin, "set", commandXML(nsAdmin+"#get-registered-users-list", "", ""), `<value>juliet@example.org</value>`)
	got := f.ask(admin, "set", commandXML(nsAdmin+"#delete-user", "", ""))
	remove := regexp.MustCompile(`sessionid='[^']+'`).FindString(got)
	f.asks(admin, "set", commandXML(nsAdmin+"#delete-user", remove, submit+`<field var='accountjids'><value>nobody@example.org</value></field></x>`), `<item-not-found`)
	f.asks(admin, "set", commandXML(nsAdmin+"#delete-user", remove, submit+`<field var='accountjids'><value>juliet@example.org</value><value>Juliet@example.org</value></field></x>`), `status='completed'`)
	f.want(`<presence type='unsubscribe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
}

// TestRegisterCommand registers with the command that people have who may register.
func TestRegisterCommand(t *testing.T) {
	f := newFixture(t, nil)
	const romeo = "romeo@elsewhere.example"
	f.asks(romeo, "set", commandXML("register", "", ""), `code='403'`, `<forbidden`)
	f.asks("example.org", "set", commandXML("register", "", ""), `code='403'`, `<forbidden`)
	list := `<query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'>`
	f.asks(juliet, "get", list+`</query>`, list+`<item jid='webstatus.example.org' node='register' name='Register'></item></query>`)
	f.asks(juliet, "get", `<query xmlns='http://jabber.org/protocol/disco#info' node='register'/>`, `type='command-node'`, `name='Register'`)

	// The form is that of jabber:iq:register, with a title.
	registration := f.ask(juliet, "get", `<query xmlns='jabber:iq:register'/>`)
	form := registration[strings.Index(registration, `<x xmlns='jabber:x:data' type='form'>`) : strings.Index(registration, `</x>`)+len(`</x>`)]
	titled := strings.Replace(form, `</instructions>`, `</instructions><title>Register</title>`, 1)
	begin := func() (session string) {
		t.Helper()
		got := f.asks(juliet, "set", commandXML("register", "", ""), `status='executing'`, `<actions execute='complete'>`, titled)
		return regexp.MustCompile(`sessionid='[^']+'`).FindString(got)
	}
	const submit = `<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>jabber:iq:register</value></field>`
	session := begin()
	f.asks(juliet, "set", commandXML("register", session, submit+`<field var='show_full_jid'><value>maybe</value></field></x>`), `<bad-request`, `<bad-payload`)
	f.asks(juliet, "set", commandXML("register", session+" action='cancel'", ""), `status='canceled'`)
	f.wantNotFound(julietPage)
	f.asks(juliet, "set", commandXML("register", begin()+" action='complete'", submit+`<field var='show_full_jid'><value>1</value></field></x>`),
		`status='completed'`, `<x xmlns='jabber:x:data' type='result'>`+
			`<field var='url' type='text-single' label='Your web status URL'><value>https://status.example.org/status/`+Token{}.String()+`</value></field>`+
			`<field var='jid_url' type='text-single' label='JID-based URL'><value>https://status.example.org`+julietPage+`</value></field></x>`,
		`<note type='info'>You are registered.`)
	f.want(`<presence type='subscribe' from='webstatus.example.org' to='juliet@example.org'>…`)
	f.settled(juliet) // the result has said everything
	if resp, body := f.get(julietPage + ".json"); !strings.Contains(body, juliet) {
		t.Errorf("%s %s", resp.Status, body)
	}
	f.asks(juliet, "set", commandXML("register", "", ""), `<forbidden`)
}

// TestCommandTitles checks that the start page names the commands that users have.
func TestCommandTitles(t *testing.T) {
	var titles []string
	for _, cmd := range new(commands).list() {
		if cmd.audience == forUsers {
			titles = append(titles, cmd.name)
		}
	}
	if !slices.Equal(commandTitles, titles) {
		t.Errorf("the start page names %s, want %s", commandTitles, titles)
	}
}

func TestStopCommand(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	got := f.asks(juliet, "set", commandXML("stop", "", ""), `status='executing'`, `deletes your page`)
	f.asks(juliet, "set", commandXML("stop", regexp.MustCompile(`sessionid='[^']+'`).FindString(got), `<x xmlns='jabber:x:data' type='submit'/>`), `status='completed'`)
	f.want(`<presence type='unsubscribe' from='webstatus.example.org' to='juliet@example.org'></presence>`)
	if resp, _ := f.get(julietPage); resp.StatusCode != 404 {
		t.Error(resp.Status)
	}
}

func TestIdentity(t *testing.T) {
	f := newFixture(t, func(c *componentConfig) {
		c.contacts = map[string][]string{"admin": {"xmpp:admin@example.org", "mailto:admin@example.org"}, "abuse": {"mailto:abuse@example.org"}}
	})
	const romeo = "romeo@elsewhere.example"
	f.asks(romeo, "get", `<query xmlns='jabber:iq:version'/>`, `<name>webstatus</name><version>`+version+`</version><os>`)
	f.asks(romeo, "get", `<query xmlns='jabber:iq:last'/>`, `<query xmlns='jabber:iq:last' seconds='2'>`)
	f.asks(romeo, "set", `<vCard xmlns='vcard-temp'/>`, `<forbidden`)
	card := f.asks(romeo, "get", `<vCard xmlns='vcard-temp'/>`, `<FN>Web presence</FN>`, `<URL>https://status.example.org/</URL>`, `<TYPE>image/png</TYPE>`)
	encoded := regexp.MustCompile(`<BINVAL>([^<]+)</BINVAL>`).FindStringSubmatch(card)
	picture, err := base64.StdEncoding.DecodeString(encoded[1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := png.Decode(strings.NewReader(string(picture))); err != nil {
		t.Error(err)
	}
	info := f.asks(romeo, "get", `<query xmlns='http://jabber.org/protocol/disco#info'/>`, `<value>http://jabber.org/network/serverinfo</value>`,
		`var='abuse-addresses' type='list-multi'><value>mailto:abuse@example.org</value>`, `<value>urn:xmpp:data-policy:0</value>`, `var='data_retention' type='text-single'><value>infinite</value>`,
		`var='admin-addresses' type='list-multi'><value>xmpp:admin@example.org</value><value>mailto:admin@example.org</value>`)

	// The entity capabilities in the presence match the disco#info response.
	f.register("")
	f.send(`<presence type='subscribe' from='juliet@example.org' to='webstatus.example.org'/>`)
	f.want(`<presence type='subscribed' …`)
	presence := f.next()
	sum := sha1.Sum(picture)
	if !strings.Contains(presence, `<photo>`+hex.EncodeToString(sum[:])+`</photo>`) || !strings.Contains(presence, "publish their presence here: 1<") {
		t.Error(presence)
	}
	ver := regexp.MustCompile(`ver='([^']+)'`).FindStringSubmatch(presence)[1]
	if want := verify(t, info); ver != want {
		t.Errorf("caps %s, want %s", ver, want)
	}
	node := `<query xmlns='http://jabber.org/protocol/disco#info' node='https://status.example.org#` + ver + `'`
	f.asks(romeo, "get", node+`/>`, node, `component`)
	f.asks(romeo, "get", `<query xmlns='http://jabber.org/protocol/disco#info' node='https://status.example.org#x'/>`, `<item-not-found`)
}

// verify computes the hash of a disco#info result from its XML, as a client does (XEP-0115 §5.4).
func verify(t *testing.T, info string) string {
	t.Helper()
	var q struct {
		Identity []struct {
			Category string `xml:"category,attr"`
			Type     string `xml:"type,attr"`
			Name     string `xml:"name,attr"`
		} `xml:"query>identity"`
		Features []struct {
			Var string `xml:"var,attr"`
		} `xml:"query>feature"`
		Forms []struct {
			Fields []struct {
				Var    string   `xml:"var,attr"`
				Values []string `xml:"value"`
			} `xml:"field"`
		} `xml:"query>x"`
	}
	if err := xml.Unmarshal([]byte(info), &q); err != nil {
		t.Fatal(err)
	}
	s := q.Identity[0].Category + "/" + q.Identity[0].Type + "//" + q.Identity[0].Name + "<"
	var vars []string
	for _, f := range q.Features {
		vars = append(vars, f.Var)
	}
	slices.Sort(vars)
	s += strings.Join(vars, "<") + "<"
	var forms []string
	for _, form := range q.Forms {
		var fields []string
		formType := ""
		for _, f := range form.Fields {
			if f.Var == "FORM_TYPE" {
				formType = f.Values[0] + "<"
				continue
			}
			slices.Sort(f.Values)
			fields = append(fields, f.Var+"<"+strings.Join(f.Values, "<")+"<")
		}
		slices.Sort(fields)
		forms = append(forms, formType+strings.Join(fields, ""))
	}
	slices.Sort(forms)
	s += strings.Join(forms, "")
	sum := sha1.Sum([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// TestCapsVersion computes the hash of an example (XEP-0115 §5.2), and of the same with the form of the next one and another form (§5.3).
func TestCapsVersion(t *testing.T) {
	info := discoInfo{Identity: []stanza.Identity{{Category: "client", Type: "pc", Name: "Exodus 0.9.1"}}, Features: []stanza.Feature{{Var: "http://jabber.org/protocol/muc"},
		{Var: "http://jabber.org/protocol/disco#info"}, {Var: "http://jabber.org/protocol/disco#items"}, {Var: "http://jabber.org/protocol/caps"}}}
	if got := capsVersion(info); got != "QgayPKawpkPSDYmwT/WM94uAlu0=" {
		t.Errorf("simple: %s", got)
	}
	field := func(name string, values ...string) *stanza.Field { return &stanza.Field{Var: name, ValuesList: values} }
	software := infoForm("urn:xmpp:dataforms:softwareinfo", field("software_version", "0.11"), field("ip_version", "ipv6", "ipv4"), field("os", "Mac"), field("os_version", "10.5.1"), field("software", "Psi"))
	other := infoForm("a", field("z", "2"), field("b", "1", "10", "0"))
	info.Forms = []*stanza.Form{software, other}
	want := "client/pc//Exodus 0.9.1<http://jabber.org/protocol/caps<http://jabber.org/protocol/disco#info<http://jabber.org/protocol/disco#items<http://jabber.org/protocol/muc<" +
		"a<b<0<1<10<z<2<urn:xmpp:dataforms:softwareinfo<ip_version<ipv4<ipv6<os<Mac<os_version<10.5.1<software<Psi<software_version<0.11<"
	sum := sha1.Sum([]byte(want))
	if got := capsVersion(info); got != base64.StdEncoding.EncodeToString(sum[:]) {
		t.Errorf("with two forms, whose fields and values are not sorted: %s", got)
	}
}

func TestHideOS(t *testing.T) {
	f := newFixture(t, func(c *componentConfig) { c.hideOS = true })
	if got := f.ask(juliet, "get", `<query xmlns='jabber:iq:version'/>`); strings.Contains(got, "<os>") {
		t.Error(got)
	}
}

// TestFeatures checks that every advertised feature is implemented.
func TestFeatures(t *testing.T) {
	f := newFixture(t, nil)
	for i, feature := range features {
		if strings.HasSuffix(feature, "+notify") || feature == nsReceipts {
			continue // not a request, but a notification that the component receives, or part of a message
		}
		local := map[string]string{nsPing: "ping", nsVCard: "vCard", nsCommands: "command"}[feature]
		if local == "" {
			local = "query"
		}
		typ := "get"
		if local == "command" {
			typ = "set"
		}
		if got := f.ask("u"+strconv.Itoa(i)+"@example.org", typ, `<`+local+` xmlns='`+feature+`'/>`); strings.Contains(got, "service-unavailable") {
			t.Errorf("%s: %s", feature, got)
		}
	}
}

// TestUserListIsBounded requests more users than fit into one stanza (XEP-0133 §4.20).
func TestUserListIsBounded(t *testing.T) {
	const admin, node = "admin@example.org", nsAdmin + "#get-registered-users-list"
	f := newFixture(t, func(c *componentConfig) { c.admins = []string{admin} })
	f.stop()
	const users = listWithoutForm + 50
	var all []User
	for i := range users {
		all = append(all, User{JID: fmt.Sprintf("user%d-%s@%s.example.org", i, strings.Repeat("x", 900), strings.Repeat("long", 250)), Token: Token{byte(i)},
			Subscription: SubscriptionNone, Created: noon})
	}
	db, err := openDatabase(t.Context(), f.dbPath, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := db.InsertUsers(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	db.Close()
	f.start()
	list := func(maxItems string) (jids int, answer string) {
		t.Helper()
		got := f.asks(admin, "set", commandXML(node, "", ""), `status='executing'`, `type='list-single'`, `var='max_items'`)
		id := regexp.MustCompile(`sessionid='[^']+'`).FindString(got)
		answer = f.ask(admin, "set", commandXML(node, id, `<x xmlns='jabber:x:data' type='submit'><field var='max_items'><value>`+maxItems+`</value></field></x>`))
		return strings.Count(answer, "@long"), answer
	}
	if n, answer := list("25"); n != 25 || !strings.Contains(answer, `25 of 250 users`) {
		t.Errorf("%d users: %.300s", n, answer)
	}
	if n, answer := list("none"); n < 100 || n == users || len(answer) > 2*maxListSize || !strings.Contains(answer, ` of 250 users`) {
		t.Errorf("%d users in %d bytes", n, len(answer))
	}
	if _, answer := list("many"); !strings.Contains(answer, `<bad-payload`) {
		t.Error(answer)
	}
}
