package main

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// A realm is the XMPP server of simulated people. It knows what each of them last said, and answers the component as real servers do:
// people approve contact requests, probes are answered for those who are seen, and pings return.
type realm struct {
	*loopback
	t testing.TB

	mu      sync.Mutex
	stream  *loopbackStream // nil while the component is not linked
	people  map[string]*resident
	waiting map[string]chan answer // by the id of a request over the stream; closed when the stream ends
	open    map[string]bool        // ids of other requests that are not answered yet
	late    map[string]bool        // ids of requests over streams that have ended: the answer may come over another one
	ids     int
}

// A resident is somebody with one client, at testClient.
type resident struct {
	seen    bool  // the component may see the presence
	state   State // what the client says
	message string
}

const testClient = "/client"

// An answer is the component's answer to a request.
type answer struct {
	*received
	raw string
}

// condition returns the condition of an error.
func (a answer) condition() string {
	if failure := a.child(nsComponent, "error"); failure != nil && len(failure.children) > 0 {
		return failure.children[0].name.Local
	}
	return ""
}

func newRealm(t testing.TB) *realm {
	t.Helper()
	l, err := newLoopback(testDomain, testSecret)
	if err != nil {
		t.Fatal(err)
	}
	r := &realm{loopback: l, t: t, people: make(map[string]*resident), open: make(map[string]bool), late: make(map[string]bool)}
	closed := make(chan struct{})
	t.Cleanup(func() { l.listener.Close(); r.cut(); <-closed })
	go func() {
		defer close(closed)
		for {
			s, err := l.accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil { // the component may be killed during the handshake
				r.serve(s)
			}
		}
	}()
	return r
}

// serve handles what a component sends until its stream ends.
func (r *realm) serve(s *loopbackStream) {
	r.mu.Lock()
	r.stream, r.waiting = s, make(map[string]chan answer)
	r.mu.Unlock()
	for {
		f, err := s.framer.next()
		if err != nil {
			break
		}
		raw := string(f.data)
		stanza, err := decodeStanza(f.data)
		if err != nil {
			r.t.Errorf("the component sends %q: %v", raw, err)
			continue
		}
		r.mu.Lock()
		r.handle(answer{stanza, raw})
		r.mu.Unlock()
	}
	s.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stream = nil
	for id, c := range r.waiting {
		r.late[id] = true
		close(c)
	}
	r.waiting = nil
}

// handle handles a stanza of the component; mu is held. Errors of sending end the stream, which the loop notices.
func (r *realm) handle(s answer) {
	to := s.to.bare
	p := r.people[to]
	switch {
	case to == testDomain:
		r.stream.send(`<iq type='result' id='%s' from='%s' to='%s'/>`, s.id, testDomain, testDomain)
	case p == nil:
		r.t.Errorf("nobody has asked for %s", s.raw)
	case s.name.Local == "iq" && !s.isRequest():
		c := r.waiting[s.id]
		switch {
		case c != nil:
			delete(r.waiting, s.id)
			c <- s
		case r.open[s.id]:
			delete(r.open, s.id)
		case r.late[s.id]:
			delete(r.late, s.id)
		default:
			r.t.Errorf("nothing was asked: %s", s.raw)
		}
	case s.name.Local == "iq":
		r.stream.send(`<iq type='error' id='%s' from='%s' to='%s'><error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`, s.id, to, s.from.String())
	case s.name.Local == "presence":
		switch s.typ {
		case "subscribe":
			p.seen = true
			r.stream.send(`<presence type='subscribed' from='%s' to='%s'/>`, to, s.from.bare)
		case "unsubscribe":
			p.seen = false
		case "probe":
			r.tell(to, p)
		}
	}
}

// tell sends a person's presence to the component, if it may see that.
func (r *realm) tell(bare string, p *resident) {
	switch {
	case r.stream == nil || !p.seen:
	case p.state == Unavailable:
		r.stream.send(`<presence type='unavailable' from='%s' to='%s'/>`, bare+testClient, testDomain)
	case p.state == Available:
		r.stream.send(`<presence from='%s' to='%s'><status>%s</status></presence>`, bare+testClient, testDomain, p.message)
	default:
		r.stream.send(`<presence from='%s' to='%s'><show>%s</show><status>%s</status></presence>`, bare+testClient, testDomain, string(p.state), p.message)
	}
}

// says changes a person's presence.
func (r *realm) says(bare string, state State, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.people[bare]
	if p == nil {
		p = &resident{}
		r.people[bare] = p
	}
	p.state, p.message = state, message
	r.tell(bare, p)
}

// person returns what is known of a person.
func (r *realm) person(bare string) resident {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *r.people[bare]
}

// Errors of request.
var (
	errNotLinked = errors.New("the component is not linked")
	errNoAnswer  = errors.New("the stream ended before the answer")
)

// request sends a request to the component and returns the answer. The request is not sent if the error is errNotLinked.
func (r *realm) request(bare, typ, payload string) (answer, error) {
	c := make(chan answer, 1)
	r.mu.Lock()
	if r.stream == nil {
		r.mu.Unlock()
		return answer{}, errNotLinked
	}
	r.ids++
	id := fmt.Sprintf("op-%d.", r.ids)
	r.waiting[id] = c
	r.stream.send(`<iq type='`+typ+`' id='%s' from='%s' to='%s'>`+payload+`</iq>`, id, bare+testClient, testDomain)
	r.mu.Unlock()
	select {
	case a, ok := <-c:
		if !ok {
			return answer{received: &received{id: id}}, errNoAnswer
		}
		return a, nil
	case <-time.After(2 * patience):
		r.t.Errorf("%s gets no answer to %s", bare, payload)
		return answer{received: &received{id: id}}, errNoAnswer
	}
}

// expect notes requests that are about to be sent. Each must be answered once.
func (r *realm) expect(ids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		r.open[id] = true
	}
}

// unanswered returns the number of expected answers that have not come.
func (r *realm) unanswered() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open)
}

// sendRaw sends bytes to the component, if it is linked.
func (r *realm) sendRaw(data string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stream != nil {
		r.stream.Write([]byte(data)) // an error ends the stream
	}
}

// link returns the stream of the component, nil if it is not linked.
func (r *realm) link() *loopbackStream {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stream
}

// cut closes the connection of the component.
func (r *realm) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stream != nil {
		r.stream.Close()
	}
}

// An account is what the database holds of a person.
type account struct {
	registered bool
	options    fieldSet
	token      string // empty for any
	oldToken   string // which it must not be; empty for none
}

// matches reports whether a user, nil for none, is as the account says.
func (a account) matches(u *User) bool {
	if !a.registered || u == nil {
		return !a.registered && u == nil
	}
	token := u.Token.String()
	return u.Options&formOptions == a.options && (a.token == "" || a.token == token) && (a.oldToken == "" || a.oldToken != token)
}

// formOptions are the options that a service offers that has no --webhook.
var formOptions = fieldsWhere(func(f field) bool { return f.option != "" }).with(fieldPost, false)

// A member is a person who registers, changes options, gets new links and leaves, again and again.
type member struct {
	bare      string
	confirmed account  // as the service has confirmed it
	pending   *account // what a request makes of it that was not answered; nil if there is none
	steps     []*step
}

// A step is a request of a member.
type step struct {
	id      string
	after   account // what the request makes of it
	refused bool
}

// A crowd is members of a realm who act at the same time.
type crowd struct {
	r         *rig
	members   []*member
	confirmed int // requests
	refused   int
	mu        sync.Mutex
}

func newCrowd(r *rig, n int) *crowd {
	c := &crowd{r: r}
	for i := range n {
		m := &member{bare: fmt.Sprintf("member%d@localhost", i)}
		c.members = append(c.members, m)
		r.realm.says(m.bare, Unavailable, "")
	}
	return c
}

// act lets all members act until stop is closed or the link is lost.
func (c *crowd) act(stop <-chan struct{}) {
	var acting sync.WaitGroup
	for _, m := range c.members {
		acting.Go(func() {
			for c.step(m) {
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	acting.Wait()
}

// actFor lets all members act for a time.
func (c *crowd) actFor(d time.Duration) {
	stop := make(chan struct{})
	time.AfterFunc(d, func() { close(stop) })
	c.act(stop)
}

var tokenInAnswer = regexp.MustCompile(`/status/([a-z2-7]{26})`)

// step lets a member do something at random. It returns false if what has become of it is not known.
func (c *crowd) step(m *member) bool {
	t := c.r.t
	if t.intN(2) == 0 {
		c.r.realm.says(m.bare, pick(t, states[:6]...), fmt.Sprintf("number %d.", t.intN(1e6)))
		return true
	}
	after, payload := m.confirmed, ""
	switch n := t.intN(10); {
	case !after.registered || n < 5:
		var form strings.Builder
		for i, f := range fields {
			if formOptions.has(i) {
				on := t.intN(2)
				after.options = after.options.with(i, on == 1)
				fmt.Fprintf(&form, "<%s>%d</%[1]s>", f.option, on)
			}
		}
		after.registered = true
		payload = `<query xmlns='jabber:iq:register'>` + form.String() + `</query>`
	case n < 8:
		after.oldToken, after.token = after.token, ""
		payload = `<command xmlns='` + nsCommands + `' node='newlink'/>`
	default:
		after = account{}
		payload = `<query xmlns='jabber:iq:register'><remove/></query>`
	}
	m.pending = &after
	a, err := c.r.realm.request(m.bare, "set", payload)
	if errors.Is(err, errNotLinked) {
		m.pending = nil
		return false
	}
	s := &step{a.id, after, err == nil && a.typ == "error"}
	m.steps = append(m.steps, s)
	if err != nil || a.condition() == "internal-server-error" {
		return false
	}
	m.pending = nil
	if a.typ == "error" {
		time.Sleep(20 * time.Millisecond) // people do not try again at once
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.typ == "error" {
		c.refused++
		return true
	}
	c.confirmed++
	if token := tokenInAnswer.FindStringSubmatch(a.raw); token != nil {
		s.after.token = token[1]
	}
	m.confirmed = s.after
	return true
}

// wander changes the presence of all members.
func (c *crowd) wander() {
	for _, m := range c.members {
		c.r.realm.says(m.bare, pick(c.r.t, states[:6]...), fmt.Sprintf("number %d.", c.r.t.intN(1e6)))
	}
}

// settle waits until everything is handled that the members have sent.
func (c *crowd) settle() {
	for _, m := range c.members {
		c.r.realm.request(m.bare, "get", `<ping xmlns='urn:xmpp:ping'/>`) // without a link, there is nothing
	}
}

// verify compares a database with what was confirmed, and takes from it what has become of requests that were not answered.
func (c *crowd) verify(path string) {
	t := c.r.t
	t.Helper()
	users := usersIn(t, path)
	c.compare(users, func(m *member) (account, *account) { return m.confirmed, m.pending })
	for _, m := range c.members {
		m.confirmed, m.pending = account{}, nil
		if u := users[m.bare]; u != nil {
			m.confirmed = account{registered: true, options: u.Options & formOptions, token: u.Token.String()}
		}
	}
}

// compare checks that each member is as was confirmed, or as a request asks that was not answered, and that there is nobody else.
func (c *crowd) compare(users map[string]*User, want func(*member) (confirmed account, pending *account)) {
	c.r.t.Helper()
	expected := map[string]bool{bystander: true}
	for _, m := range c.members {
		expected[m.bare] = true
		confirmed, pending := want(m)
		if u := users[m.bare]; !confirmed.matches(u) && (pending == nil || !pending.matches(u)) {
			c.r.t.Errorf("%s is %+v, confirmed was %+v, not answered %+v", m.bare, u, confirmed, pending)
		}
	}
	for bare := range users {
		if !expected[bare] {
			c.r.t.Errorf("nobody has asked for %s", bare)
		}
	}
}

// usersIn returns the users in a database, by bare JID, and checks its integrity.
func usersIn(t testing.TB, path string) map[string]*User {
	t.Helper()
	db, err := openDatabase(t.Context(), path, true)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var result string
	if err := db.sql.QueryRow("PRAGMA integrity_check").Scan(&result); err != nil || result != "ok" {
		t.Fatalf("integrity_check: %s %v", result, err)
	}
	users := make(map[string]*User)
	for u, err := range db.Users(t.Context(), userFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		users[u.JID] = &u.User
	}
	return users
}

// wantPages checks that every page shows what the realm knows within a time, and that the contact of those who have left is withdrawn. What
// was confirmed must have been verified.
func (c *crowd) wantPages(limit time.Duration) {
	t := c.r.t
	t.Helper()
	var wrong string
	defer func() {
		if wrong != "" {
			t.Log(wrong)
		}
	}()
	t.within(limit, "all pages show what the server knows", func() bool {
		for _, m := range c.members {
			p := c.r.realm.person(m.bare)
			if !m.confirmed.registered && p.seen {
				wrong = m.bare + " still has the contact"
				return false
			}
			message := ""
			if m.confirmed.options.has(fieldMessage) && p.state != Unavailable {
				message = p.message
			}
			if m.confirmed.registered && !c.r.shows(m.confirmed.token, p.state, message) {
				wrong = fmt.Sprintf("%s does not show %+v", m.bare, p)
				return false
			}
		}
		wrong = ""
		return true
	})
}
