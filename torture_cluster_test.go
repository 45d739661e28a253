package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	clusterFaults      = 50 // in a full run
	shortClusterFaults = 5

	longFault  = 10 * time.Second // longest in a full run, but for one
	shortFault = time.Second

	// replacedWithin is the limit for everything that nobody reports: a silent node counts as failed after 5 seconds, its users are probed
	// then, and silence counts as an answer after 5 more seconds.
	replacedWithin = 12 * time.Second
)

// A clusterRig is three nodes on a PostgreSQL, each beside an ejabberd node of a cluster, and four users. No fault hits the third node
// directly, which systemd's watchdog watches.
type clusterRig struct {
	database *postgresServer
	ports    [2]int   // of PostgreSQL; one is for the next replica
	cables   []*cable // from the first node to both
	ejabberd [3]*server
	nodes    []*appliance
	watchdog *watchdog
	users    []*clusterUser
	clients  map[string]*client // by user, of those who are logged in
	moves    int
}

// A clusterUser is a user, and what the pages must show.
type clusterUser struct {
	name  string
	home  *server // with the client, if there is one
	moved bool    // the user had a client at a deaf server during the fault
	shown shown   // without the JID
	token string  // of the newest link, empty if it was never requested

	showJID bool
	asked   *optionRequest // a change of showJID that may or may not have been made
	removed bool
}

// An optionRequest is a request that may never be answered.
type optionRequest struct {
	client  *client
	id      string
	showJID bool
}

func (u *clusterUser) bare() string { return u.name + "@localhost" }

// newClusterRig starts the servers and the nodes, and registers the users.
func newClusterRig(t *torture) *clusterRig {
	r := &clusterRig{database: ownPostgres(t), watchdog: newWatchdog(t), clients: make(map[string]*client)}
	r.ports = [2]int{r.database.port, freePort(t)}
	location := r.database.newDatabase(t)
	at := func(hosts ...string) string {
		return strings.Replace(location, fmt.Sprintf("127.0.0.1:%d", r.database.port), strings.Join(hosts, ","), 1) + "?target_session_attrs=read-write"
	}
	var direct, cabled []string
	for _, port := range r.ports {
		c := newCable(t, fmt.Sprintf("127.0.0.1:%d", port))
		r.cables = append(r.cables, c)
		direct, cabled = append(direct, c.to), append(cabled, c.address())
	}
	net := newErlangNet(t)
	r.ejabberd[0] = newEjabberdNode(t, net, "n1", "")
	r.ejabberd[1], r.ejabberd[2] = newEjabberdNode(t, net, "n2", "n1"), newEjabberdNode(t, net, "n3", "n1")
	for i, name := range []string{"a", "b", "c"} {
		env := []string{"WEBSTATUS_DB=" + at(direct...)}
		switch i {
		case 0:
			env[0] = "WEBSTATUS_DB=" + at(cabled...)
		case 2:
			env = append(env, r.watchdog.env()...)
		}
		r.nodes = append(r.nodes, newAppliance(t, r.ejabberd[i].componentAddress(), append(env, "WEBSTATUS_NODE="+name)...))
	}
	for i, name := range testAccounts[:4] {
		u := &clusterUser{name: name, home: r.ejabberd[i%len(r.ejabberd)]}
		r.users = append(r.users, u)
		r.register(t, u)
	}
	return r
}

// register registers a user, who logs in if necessary.
func (r *clusterRig) register(t *torture, u *clusterUser) {
	if r.clients[u.name] == nil {
		r.clients[u.name] = u.home.login(t, u.name, "torture")
	}
	r.clients[u.name].send(t, `<presence/>`)
	r.clients[u.name].join(t, "show_status_msg=1")
	u.shown, u.removed, u.showJID, u.asked, u.token = shown{state: "available"}, false, false, nil, ""
}

// observe watches the third node, at which a bystander is logged in, until the result is called.
func (r *clusterRig) observe(t *torture) (done func()) {
	t.Helper()
	c := r.ejabberd[2].login(t, testAccounts[4], "bystander")
	c.send(t, `<presence/>`)
	c.join(t, "show_status_msg=1")
	return t.observe(r.watchdog, func(message string) { c.send(t, `<presence><show>away</show><status>%s</status></presence>`, message) },
		func(message string) bool {
			code, body := r.nodes[2].get(t, jidPath(c.bare)+".json")
			return code == http.StatusOK && strings.Contains(body, `"state":"away"`) && strings.Contains(body, `"message":"`+message+`"`)
		})
}

// clusterFails has one part of a cluster after the other fail. Just before, an option, a new link or a removal is confirmed. While the part is
// gone, people change their presence, log in at any ejabberd node, or log out, and one changes an option. In a full run, the rest of the
// cluster must show that meanwhile. Once the part works again, all nodes must show what was confirmed and what the clients know.
func clusterFails(t *torture) {
	r := newClusterRig(t)
	done := r.observe(t)
	faults, longest := shortClusterFaults, shortFault
	if t.full {
		faults, longest = clusterFaults, longFault
	}
	for n := range faults {
		fault, length := pick(t, clusterFaultList...), t.upTo(longest)
		if t.full && n == faults/2 {
			fault, length = silentDatabase, time.Minute
		}
		codes := r.confirm(t)
		o := fault.begin(t, r)
		began := time.Now()
		r.meanwhile(t, o, length)
		name := fmt.Sprintf("%s (fault %d)", fault.name, n)
		if t.full && len(o.works) > 0 {
			r.wantPages(t, "during "+name, time.Now(), replacedWithin, o.works, func(u *clusterUser) bool { return !u.moved }, codes)
		}
		lasted := time.Since(began)
		if o.end != nil {
			o.end()
		}
		back := time.Now()
		r.wantPages(t, "online after "+name, back, recoversWithin, r.nodes, func(u *clusterUser) bool { return u.shown.state != "unavailable" }, codes)
		online := time.Since(back)
		r.wantPages(t, "after "+name, back, replacedWithin, r.nodes, func(*clusterUser) bool { return true }, codes)
		t.Logf("%s: lasted %v; %v and %v later, online users and all users were current", name, lasted.Round(time.Millisecond), online.Round(time.Millisecond), time.Since(back).Round(time.Millisecond))
		r.settle(t)
	}
	done()
	for _, n := range r.nodes {
		t.wantMemory(n.process)
	}
}

// confirm has a user change an option, request a new link or unregister, and returns the statuses that pages must have from then on, by path.
func (r *clusterRig) confirm(t *torture) (codes map[string]int) {
	codes = make(map[string]int)
	u := pick(t, r.users...)
	c := r.clients[u.name]
	if c == nil {
		return codes
	}
	switch t.intN(3) {
	case 0:
		u.showJID = t.intN(2) == 0
		c.submit(t, fmt.Sprintf("show_full_jid=%t", u.showJID))
		u.asked = nil
	case 1:
		if u.token != "" {
			codes[statusPath+u.token] = http.StatusNotFound
		}
		answer := c.request(t, "set", testDomain, `<command xmlns='`+nsCommands+`' node='newlink'/>`)
		u.token = tokenInAnswer.FindStringSubmatch(answer.String())[1]
		codes[statusPath+u.token] = http.StatusOK
	default:
		c.request(t, "set", testDomain, `<query xmlns='jabber:iq:register'><remove/></query>`)
		if u.token != "" {
			codes[statusPath+u.token] = http.StatusNotFound
		}
		u.removed, codes[jidPath(c.bare)] = true, http.StatusNotFound
	}
	return codes
}

// meanwhile has everyone move on, again and again for the length of a fault, and somebody change an option.
func (r *clusterRig) meanwhile(t *torture, o clusterOutage, length time.Duration) {
	changes := t.intN(len(r.users))
	for _, u := range r.users {
		u.moved = false
		if o.gone != nil && u.home == o.gone {
			delete(r.clients, u.name)
		}
	}
	for until := time.Now().Add(length); ; {
		for i, u := range r.users {
			if r.clients[u.name] == nil {
				u.home = pick(t, slices.DeleteFunc(slices.Clone(r.ejabberd[:]), func(s *server) bool { return s == o.gone })...)
			}
			u.moved = u.moved || u.home == o.deaf
			u.shown = moveOn(t, u.home, r.clients, u.name, r.moves)
			if c := r.clients[u.name]; c != nil && !u.removed && i == changes {
				u.asked = &optionRequest{c, c.ask(t, "set", testDomain, fmt.Sprintf(`<query xmlns='jabber:iq:register'><x xmlns='jabber:x:data' type='submit'>`+
					`<field var='FORM_TYPE'><value>jabber:iq:register</value></field><field var='show_full_jid'><value>%t</value></field></x></query>`, !u.showJID)), !u.showJID}
				changes = -1
			}
		}
		r.moves++
		left := time.Until(until)
		if left <= 0 {
			return
		}
		time.Sleep(min(left, t.upTo(time.Second)))
	}
}

// settle repeats the change of an option that was not confirmed, registers those again who were removed, and waits until all nodes show that.
func (r *clusterRig) settle(t *torture) {
	for _, u := range r.users {
		c := r.clients[u.name]
		switch {
		case u.removed:
			r.register(t, u)
		case u.asked != nil && c != nil:
			c.submit(t, fmt.Sprintf("show_full_jid=%t", u.asked.showJID))
			u.showJID, u.asked = u.asked.showJID, nil
		}
	}
	r.wantPages(t, "what was confirmed", time.Now(), recoversWithin, r.nodes, func(u *clusterUser) bool { return u.shown.state != "unavailable" }, nil)
}

// wants returns what the pages of a user may show: an option that was not confirmed may have been changed.
func (u *clusterUser) wants() []shown {
	if u.asked != nil && u.asked.client.answerType(u.asked.id) == "result" {
		u.showJID, u.asked = u.asked.showJID, nil
	}
	with, without := u.shown, u.shown
	with.jid = u.bare()
	switch {
	case u.asked != nil:
		return []shown{with, without}
	case u.showJID:
		return []shown{with}
	}
	return []shown{without}
}

// answerType returns the type of the answer to a request, empty if there is none yet.
func (c *client) answerType(id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.got {
		if n.XMLName.Local == "iq" && n.attr("id") == id {
			return n.attr("type")
		}
	}
	return ""
}

// wantPages waits until nodes show the same of some of the users, with the same status codes. In a full run, that must be in time.
func (r *clusterRig) wantPages(t *torture, what string, since time.Time, limit time.Duration, nodes []*appliance, of func(*clusterUser) bool, codes map[string]int) {
	t.Helper()
	var problem string
	defer func() {
		if t.Failed() {
			t.Log(what + ": " + problem)
		}
	}()
	eventually(t, "the nodes agree with the clients "+what, func() bool {
		for _, u := range r.users {
			if u.removed || !of(u) {
				continue
			}
			wants := u.wants()
			for i, n := range nodes {
				got, err := n.look(t, jidPath(u.bare()))
				if err != nil || !slices.Contains(wants, got) {
					problem = fmt.Sprintf("%v shows %v of %s, not one of %v: %v", n.env[len(n.env)-1], got, u.name, wants, err)
					return false
				}
				if i == 0 {
					wants = []shown{got}
				}
			}
		}
		for path, code := range codes {
			for _, n := range nodes {
				if got, _ := n.get(t, path); got != code {
					problem = fmt.Sprintf("%v answers %d at %s, not %d", n.env[len(n.env)-1], got, path, code)
					return false
				}
			}
		}
		return true
	})
	if took := time.Since(since); t.full && took > limit {
		t.Errorf("the nodes agreed with the clients %s after %v, not within %v; last: %s", what, took.Round(time.Millisecond), limit, problem)
	}
}

// A clusterFault is something that happens to a part of a cluster.
type clusterFault struct {
	name  string
	begin func(t *torture, r *clusterRig) clusterOutage
}

// A clusterOutage is a fault that has begun.
type clusterOutage struct {
	end   func()       // makes the part work again, and returns when its links are back; nil if it works already
	works []*appliance // nodes that soon show everything although the part is gone
	gone  *server      // an ejabberd node without clients
	deaf  *server      // an ejabberd node whose clients nobody hears who could tell the nodes that work
}

// others returns the nodes other than one.
func (r *clusterRig) others(n *appliance) []*appliance {
	return slices.DeleteFunc(slices.Clone(r.nodes), func(o *appliance) bool { return o == n })
}

var clusterFaultList = []clusterFault{
	{"node killed", nodeEnds(syscall.SIGKILL)},
	{"node stopped", nodeEnds(syscall.SIGTERM)},
	{"node frozen", func(t *torture, r *clusterRig) clusterOutage {
		i := t.intN(len(r.nodes) - 1)
		n := r.nodes[i]
		n.freeze()
		return clusterOutage{end: n.thaw, works: r.others(n), deaf: r.ejabberd[i]}
	}},
	{"ejabberd killed", func(t *torture, r *clusterRig) clusterOutage {
		s, n := r.ejabberd[1], r.nodes[1]
		links := n.countLog(linked)
		s.process.end(t, syscall.SIGKILL)
		return clusterOutage{end: func() { s.start(t); n.waitLogs(t, links+1, linked) }, works: r.nodes, gone: s}
	}},
	{"PostgreSQL killed", databaseEnds(syscall.SIGKILL)},
	{"PostgreSQL stopped", databaseEnds(syscall.SIGINT)},
	{"PostgreSQL replaced by its replica", func(t *torture, r *clusterRig) clusterOutage {
		port := r.ports[0]
		if r.database.port == port {
			port = r.ports[1]
		}
		replica := newReplica(t.T, r.database, port)
		r.database.end(syscall.SIGKILL)
		r.database.remove()
		return clusterOutage{end: func() {
			if err := replica.execute(replica.url("postgres"), "SELECT pg_promote()"); err != nil {
				t.Fatal(err)
			}
			r.database = replica
		}}
	}},
	{"database cut", func(_ *torture, r *clusterRig) clusterOutage {
		r.each((*cable).cut)
		return clusterOutage{}
	}},
	{"database unplugged", func(_ *torture, r *clusterRig) clusterOutage {
		r.each((*cable).unplug)
		return clusterOutage{end: func() { r.each((*cable).plug) }, works: r.nodes[1:], deaf: r.ejabberd[0]}
	}},
	silentDatabase,
}

// silentDatabase keeps the connections of a node to the database open, but drops everything.
var silentDatabase = clusterFault{"database silent", func(_ *torture, r *clusterRig) clusterOutage {
	r.each((*cable).die)
	return clusterOutage{end: func() { r.each((*cable).cut) }, works: r.nodes[1:], deaf: r.ejabberd[0]}
}}

// each does something to the cables of the first node.
func (r *clusterRig) each(f func(*cable)) {
	for _, c := range r.cables {
		f(c)
	}
}

// nodeEnds returns a fault in which a node gets a signal that ends it.
func nodeEnds(s syscall.Signal) func(*torture, *clusterRig) clusterOutage {
	return func(t *torture, r *clusterRig) clusterOutage {
		n := pick(t, r.nodes[:2]...)
		t.wantMemory(n.process)
		n.end(t, s)
		return clusterOutage{end: func() { n.start(t) }, works: r.others(n)}
	}
}

// databaseEnds returns a fault in which PostgreSQL gets a signal that ends it.
func databaseEnds(s syscall.Signal) func(*torture, *clusterRig) clusterOutage {
	return func(t *torture, r *clusterRig) clusterOutage {
		r.database.end(s)
		return clusterOutage{end: func() {
			if err := r.database.start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}}
	}
}
