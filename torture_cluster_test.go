package main

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"time"
)

const (
	clusterFaults      = 50 // in a full run
	shortClusterFaults = 5
)

// A clusterRig is three nodes on a PostgreSQL, each beside an ejabberd node of a cluster. The first node reaches the database through a cable.
// Systemd's watchdog watches the third node, which no fault hits directly.
type clusterRig struct {
	database *postgresServer
	cable    *cable
	ejabberd [3]*server
	nodes    []*appliance
	watchdog *watchdog
}

func newClusterRig(t *torture) *clusterRig {
	r := &clusterRig{database: ownPostgres(t), watchdog: newWatchdog(t)}
	location := r.database.newDatabase(t)
	r.cable = newCable(t, fmt.Sprintf("127.0.0.1:%d", r.database.port))
	net := newErlangNet(t)
	r.ejabberd[0] = newEjabberdNode(t, net, "n1", "")
	r.ejabberd[1], r.ejabberd[2] = newEjabberdNode(t, net, "n2", "n1"), newEjabberdNode(t, net, "n3", "n1")
	cabled := strings.Replace(location, fmt.Sprintf("127.0.0.1:%d", r.database.port), r.cable.address(), 1)
	for i, name := range []string{"a", "b", "c"} {
		env := []string{"WEBSTATUS_DB=" + location, "WEBSTATUS_NODE=" + name}
		switch i {
		case 0:
			env[0] = "WEBSTATUS_DB=" + cabled
		case 2:
			env = append(env, r.watchdog.env()...)
		}
		r.nodes = append(r.nodes, newAppliance(t, r.ejabberd[i].componentAddress(), env...))
	}
	return r
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

// A clusterFault is something that happens to a part of a cluster, which works again when inject returns.
type clusterFault struct {
	name   string
	inject func(t *torture, r *clusterRig)
}

// lostEjabberd is the fault that ends the sessions of the clients of the second ejabberd node.
const lostEjabberd = "ejabberd killed"

var clusterFaultList = []clusterFault{
	{"node killed", func(t *torture, r *clusterRig) { restartNode(t, pick(t, r.nodes[:2]...), syscall.SIGKILL) }},
	{"node stopped", func(t *torture, r *clusterRig) { restartNode(t, pick(t, r.nodes[:2]...), syscall.SIGTERM) }},
	{"node frozen", func(t *torture, r *clusterRig) {
		n := pick(t, r.nodes[:2]...)
		n.freeze()
		time.Sleep(t.upTo(2 * time.Second))
		n.thaw()
	}},
	{lostEjabberd, func(t *torture, r *clusterRig) {
		r.ejabberd[1].process.end(t, syscall.SIGKILL)
		time.Sleep(t.upTo(time.Second))
		r.ejabberd[1].start(t)
	}},
	{"PostgreSQL killed", func(t *torture, r *clusterRig) { r.restartDatabase(t, syscall.SIGKILL) }},
	{"PostgreSQL stopped", func(t *torture, r *clusterRig) { r.restartDatabase(t, syscall.SIGINT) }},
	{"database cut", func(t *torture, r *clusterRig) { r.cable.cut() }},
	{"database unplugged", func(t *torture, r *clusterRig) {
		length := 2 * time.Second
		if t.full {
			length = time.Minute
		}
		r.cable.unplug()
		time.Sleep(t.upTo(length))
		r.cable.plug()
	}},
}

func restartNode(t *torture, n *appliance, s syscall.Signal) {
	t.wantMemory(n.process)
	n.end(t, s)
	time.Sleep(t.upTo(time.Second))
	n.start(t)
}

func (r *clusterRig) restartDatabase(t *torture, s syscall.Signal) {
	r.database.end(s)
	time.Sleep(t.upTo(time.Second))
	if err := r.database.start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// clusterFails has one part of a cluster after the other fail. Just before, an option, a new link or a removal is confirmed; while the part is
// gone, people change their presence, log in at any ejabberd node, or log out. Then all nodes must show what was confirmed and what the
// clients know.
func clusterFails(t *torture) {
	r := newClusterRig(t)
	clients, home := make(map[string]*client), make(map[string]*server)
	users := testAccounts[:4]
	jids := make(map[string]string)   // those that are shown, by user
	tokens := make(map[string]string) // those of the newest links, by user
	for i, user := range users {
		home[user] = r.ejabberd[i%len(r.ejabberd)]
		c := home[user].login(t, user, "torture")
		clients[user] = c
		c.send(t, `<presence/>`)
		c.join(t, "show_status_msg=1")
	}
	done := r.observe(t)
	faults := shortClusterFaults
	if t.full {
		faults = clusterFaults
	}
	for n := range faults {
		fault := pick(t, clusterFaultList...)
		user := pick(t, users...)
		removed, codes := "", make(map[string]int) // codes are the statuses of pages, by path
		if c := clients[user]; c != nil {
			switch t.intN(3) {
			case 0:
				if jids[user] = c.bare; t.intN(2) == 0 {
					jids[user] = ""
				}
				c.submit(t, fmt.Sprintf("show_full_jid=%t", jids[user] != ""))
			case 1:
				if old := tokens[user]; old != "" {
					codes[statusPath+old] = http.StatusNotFound
				}
				answer := c.request(t, "set", testDomain, `<command xmlns='`+nsCommands+`' node='newlink'/>`)
				tokens[user] = tokenInAnswer.FindStringSubmatch(answer.String())[1]
				codes[statusPath+tokens[user]] = http.StatusOK
			default:
				c.request(t, "set", testDomain, `<query xmlns='jabber:iq:register'><remove/></query>`)
				if old := tokens[user]; old != "" {
					codes[statusPath+old] = http.StatusNotFound
				}
				removed, codes[jidPath(c.bare)] = user, http.StatusNotFound
				delete(jids, user)
				delete(tokens, user)
			}
		}
		fault.inject(t, r)
		want := make(map[string]shown)
		for _, user := range users {
			if fault.name == lostEjabberd && home[user] == r.ejabberd[1] {
				delete(clients, user)
			}
			if clients[user] == nil {
				home[user] = pick(t, r.ejabberd[:]...)
			}
			w := moveOn(t, home[user], clients, user, n)
			if w.jid = jids[user]; user != removed {
				want[user+"@localhost"] = w
			}
		}
		r.wantPages(t, fmt.Sprintf("%s (fault %d)", fault.name, n), want, codes)
		if removed != "" {
			if clients[removed] == nil {
				clients[removed] = home[removed].login(t, removed, "torture")
			}
			clients[removed].send(t, `<presence/>`)
			clients[removed].join(t, "show_status_msg=1")
		}
	}
	done()
	for _, n := range r.nodes {
		t.wantMemory(n.process)
	}
}

// wantPages waits until all nodes show the same, with the same status codes.
func (r *clusterRig) wantPages(t *torture, after string, want map[string]shown, codes map[string]int) {
	t.Helper()
	var problem string
	defer func() {
		if t.Failed() {
			t.Log(problem)
		}
	}()
	eventually(t, "all nodes show what the clients know after "+after, func() bool {
		for bare, w := range want {
			for i, n := range r.nodes {
				if got, err := n.look(t, jidPath(bare)); err != nil || got != w {
					problem = fmt.Sprintf("node %d shows %v of %s, not %v: %v", i, got, bare, w, err)
					return false
				}
			}
		}
		for path, code := range codes {
			for i, n := range r.nodes {
				if got, _ := n.get(t, path); got != code {
					problem = fmt.Sprintf("node %d answers %d at %s, not %d", i, got, path, code)
					return false
				}
			}
		}
		return true
	})
}
