package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// An erlangNet is what Erlang nodes on this machine need to find each other.
type erlangNet struct {
	epmd  int // port of the name service
	ports int // first of ten ports of the nodes
}

// newErlangNet starts a name service.
func newErlangNet(t testing.TB) erlangNet {
	t.Helper()
	n := erlangNet{epmd: freePort(t), ports: freePort(t)}
	cmd := exec.Command(need(t, "epmd"), "-port", fmt.Sprint(n.epmd), "-address", "127.0.0.1", "-relaxed_command_check")
	start(t, cmd)
	return n
}

// newEjabberdNode starts an ejabberd in the net, which joins the cluster of another one unless that is empty.
func newEjabberdNode(t testing.TB, net erlangNet, name, join string) *server {
	t.Helper()
	erl := need(t, "erl")
	s := &server{name: "ejabberd", dir: t.TempDir(), c2s: freePort(t), compPort: freePort(t)}
	s.libraries = filepath.Dir(s.path(t, "/usr/lib/*-linux-gnu/ejabberd-*"))
	config := s.configure(t, ejabberdConfig+"net_ticktime: 5\n", "ejabberd.yml")
	for _, dir := range []string{"home", "logs", "spool"} {
		if err := os.Mkdir(filepath.Join(s.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var register strings.Builder
	for _, user := range testAccounts {
		fmt.Fprintf(&register, `ejabberd_auth:try_register(<<"%s">>,<<"localhost">>,<<"pass-%s">>),`, user, user)
	}
	s.run = func() *process {
		ready := filepath.Join(s.dir, "ready")
		os.Remove(ready) // may not be there
		eval := register.String()
		if join != "" {
			eval = "ok=ejabberd_cluster:join('" + join + "@localhost'),"
		}
		cmd := exec.Command(erl, "+P", "50000", "+sbwt", "none", "-noinput", "-sname", name+"@localhost", "-setcookie", "secret", "-start_epmd", "false",
			"-kernel", "inet_dist_use_interface", "{127,0,0,1}", "inet_dist_listen_min", fmt.Sprint(net.ports), "inet_dist_listen_max", fmt.Sprint(net.ports+9),
			"net_ticktime", "5", "-mnesia", "dir", fmt.Sprintf("%q", filepath.Join(s.dir, "spool")), "-s", "ejabberd",
			"-eval", eval+fmt.Sprintf("file:write_file(%q,\"ok\").", ready))
		cmd.Env = append(os.Environ(), "HOME="+filepath.Join(s.dir, "home"), "EJABBERD_CONFIG_PATH="+config, fmt.Sprintf("ERL_EPMD_PORT=%d", net.epmd),
			"ERL_EPMD_ADDRESS=127.0.0.1", "EJABBERD_LOG_PATH="+filepath.Join(s.dir, "logs", "ejabberd.log"), "ERL_LIBS="+s.libraries,
			"ERL_CRASH_DUMP_BYTES=0", "ERL_MAX_PORTS=4096", "ERL_INETRC=/etc/ejabberd/inetrc")
		p := start(t, cmd)
		eventually(t, "ejabberd is ready", func() bool { _, err := os.Stat(ready); return err == nil })
		return p
	}
	s.start(t)
	return s
}

// agreed waits until all nodes show the same status of user1, with and without a text.
func agreed(t *testing.T, with, without string, nodes ...*appliance) {
	t.Helper()
	var all []string
	defer func() {
		if t.Failed() {
			t.Logf("the nodes do not agree on %s without %s:\n%s", with, without, strings.Join(all, "\n"))
		}
	}()
	eventually(t, "the nodes agree on "+with, func() bool {
		all = nil
		for _, n := range nodes {
			_, body := n.get(t, "/status/"+encodeJID("user1@localhost")+".json")
			all = append(all, body)
		}
		return strings.Contains(all[0], with) && (without == "" || !strings.Contains(all[0], without)) && countEqual(all) == len(all)
	})
}

// newBalancer starts nginx in front of nodes, as docs/cluster.md says, and returns its URL.
func newBalancer(t *testing.T, nodes ...*appliance) (url string) {
	t.Helper()
	upstream := "upstream webstatus {\n"
	for _, n := range nodes {
		upstream += "server " + strings.TrimPrefix(n.url, "http://") + " max_fails=0;\n"
	}
	return nginx.start(t, "server {", upstream+"}\nserver {", "http://127.0.0.1:8080", "http://webstatus")
}

// TestE2ECluster runs three nodes on one PostgreSQL beside three ejabberd nodes that form a cluster, upgrades them, and kills each part.
func TestE2ECluster(t *testing.T) {
	t.Parallel()
	database := ownPostgres(t)
	location := database.newDatabase(t)
	net := newErlangNet(t)
	first := newEjabberdNode(t, net, "n1", "")
	second, third := newEjabberdNode(t, net, "n2", "n1"), newEjabberdNode(t, net, "n3", "n1")
	node := func(s *server, name string) *appliance {
		return newAppliance(t, s.componentAddress(), "WEBSTATUS_DB="+location, "WEBSTATUS_NODE="+name)
	}
	a, b, c := node(first, "a"), node(second, "b"), node(third, "c")
	one, two := first.login(t, "user1", "desk"), second.login(t, "user1", "phone")
	one.send(t, "<presence/>")
	two.send(t, "<presence/>")
	one.join(t, "show_status_msg=1", "show_resources=1")
	agreed(t, `"state":"available"`, "as_of", a, b, c)
	one.send(t, `<presence><show>away</show><status>lunch</status></presence>`)
	agreed(t, `"lunch"`, "", a, b, c)
	two.send(t, `<presence><show>dnd</show><priority>5</priority><status>train</status></presence>`)
	agreed(t, `"train"`, "", a, b, c)
	two.submit(t, "show_full_jid=1")
	agreed(t, `"jid":"user1@localhost"`, "", a, b, c)

	// The nodes are upgraded one after the other. No request through the load balancer is refused.
	stop := keepRequesting(t, newBalancer(t, a, b, c)+jidPath(one.bare)+".json")
	for i, n := range []*appliance{a, b, c} {
		n.end(t, syscall.SIGTERM)
		one.send(t, `<presence><show>away</show><priority>6</priority><status>upgrade %d</status></presence>`, i)
		n.start(t)
		agreed(t, fmt.Sprintf("upgrade %d", i), "as_of", a, b, c)
	}
	stop()

	// A node of webstatus is killed. Its ejabberd hands the stanzas of its clients to another one.
	a.end(t, syscall.SIGKILL)
	eventually(t, "the node is missed", func() bool { return b.countLog("a node is gone", "node=a")+c.countLog("a node is gone", "node=a") > 0 })
	one.send(t, `<presence><show>xa</show><status>holiday</status></presence>`)
	agreed(t, `"holiday"`, "lunch", b, c)
	a.start(t)
	agreed(t, `"holiday"`, "as_of", a, b, c)
	one.send(t, `<presence><show>chat</show><status>back</status></presence>`)
	agreed(t, `"back"`, "holiday", a, b, c)

	// PostgreSQL is killed.
	database.end(syscall.SIGKILL)
	agreed(t, `"as_of"`, "", a)
	two.send(t, `<presence><show>away</show><priority>5</priority><status>late</status></presence>`)
	if err := database.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	agreed(t, `"late"`, "as_of", a, b, c)

	// An ejabberd node is killed. No server reports that its clients are gone.
	second.process.end(t, syscall.SIGKILL)
	agreed(t, `"back"`, "phone", a, b, c)
	agreed(t, `"back"`, "as_of", a, b, c)
	second.start(t)
	b.waitLogs(t, 2, "linked to the XMPP server")
	three := second.login(t, "user1", "tablet")
	three.send(t, `<presence><show>dnd</show><priority>7</priority><status>again</status></presence>`)
	agreed(t, `"again"`, "", a, b, c)

	one.revoke(t)
	agreed(t, `"state":"unknown"`, "", a, b, c)
	for _, n := range []*appliance{a, b, c} {
		if strings.Contains(n.out.String(), postgresPassword) {
			t.Error("the password is in the log")
		}
	}
}

// kickOld is what docs/cluster.md adds to Prosody's component for standbys.
const kickOld = "	component_conflict_resolve = \"kick_old\"\n"

// TestE2EStandby runs two nodes on a Prosody, which accepts one connection. The second takes over when the machine of the first is lost,
// although Prosody never sees the end of its connection, and the first when the second is killed.
func TestE2EStandby(t *testing.T) {
	t.Parallel()
	database := ownPostgres(t)
	location := database.newDatabase(t)
	prosody := newServer(t, "prosody", kickOld+privilegeConfig["prosody"])
	privilegeModule(t, prosody.root)
	link := newCable(t, prosody.componentAddress())
	data := newCable(t, fmt.Sprintf("127.0.0.1:%d", database.port))
	cabled := strings.Replace(location, data.to, data.address(), 1)
	a := newAppliance(t, link.address(), "WEBSTATUS_DB="+cabled, "WEBSTATUS_NODE=a", "WEBSTATUS_SINGLE_LINK=1")
	a.waitLog(t, "no contact requests are needed")
	port := fmt.Sprint(freePort(t))
	b := &appliance{url: "http://127.0.0.1:" + port, env: append(slices.Clone(a.env), "WEBSTATUS_NODE=b", "WEBSTATUS_DB="+location,
		"WEBSTATUS_SERVER="+prosody.componentAddress(), "WEBSTATUS_LISTEN=127.0.0.1:"+port, fmt.Sprintf("WEBSTATUS_METRICS_LISTEN=127.0.0.1:%d", freePort(t)))}
	b.process = start(t, b.command("serve"))
	b.waitLog(t, "msg=serving")
	one := prosody.login(t, "user1", "desk")
	one.send(t, "<presence/>")
	one.join(t, "show_status_msg=1", "show_mood=1") // as a contact, for the mood
	one.send(t, `<presence><show>away</show><status>lunch</status></presence>`)
	agreed(t, `"lunch"`, "as_of", a, b)
	two := prosody.login(t, "user2", "phone")
	two.submit(t) // without a contact request
	two.send(t, `<presence><show>chat</show></presence>`)
	b.want(t, two.bare, shown{state: "chat"})
	if b.countLog(linked) > 0 {
		t.Error("both nodes are linked")
	}
	eventually(t, "the standby is healthy", func() bool {
		out, err := b.command("healthcheck").Output()
		return err == nil && strings.Contains(string(out), `"node":{"name":"b","leads":false,"standby":true}`)
	})

	// The machine of a is lost. PostgreSQL ends its session after some seconds of silence, but Prosody keeps its connection.
	link.die()
	data.unplug()
	two.send(t, `<presence><show>xa</show></presence>`) // while there is no link
	b.waitLog(t, linked)
	b.want(t, two.bare, shown{state: "xa"})
	two.cut()
	b.want(t, two.bare, shown{state: "unavailable"})
	one.send(t, `<presence><show>dnd</show><status>meeting</status></presence>`)
	agreed(t, `"meeting"`, "as_of", b)

	// The machine is back, and a becomes a standby.
	link.cut()
	data.plug()
	agreed(t, `"meeting"`, "as_of", a, b)
	if a.countLog(linked) > 1 || b.countLog(linked) > 1 || b.countLog(noLink) > 0 {
		t.Error("a has taken the link back")
	}

	// The process b is killed.
	b.end(t, syscall.SIGKILL)
	a.waitLogs(t, 2, linked)
	one.send(t, `<presence><show>chat</show><status>done</status></presence>`)
	agreed(t, `"done"`, "as_of", a)
	b.process = start(t, b.command("serve"))
	b.waitLog(t, "msg=serving")
	agreed(t, `"done"`, "as_of", a, b)
	if b.countLog(linked) > 0 {
		t.Error("both nodes are linked")
	}

	// PostgreSQL is killed. No node knows that it is the only one that leads, so none is linked.
	database.end(syscall.SIGKILL)
	eventually(t, "the link is closed", func() bool {
		one.ask(t, "get", testDomain, `<ping xmlns='urn:xmpp:ping'/>`) // is not answered if the link closes just then
		one.mu.Lock()
		defer one.mu.Unlock()
		return slices.ContainsFunc(one.got, func(n *node) bool { return n.find("error").has("remote-server-timeout") })
	})
	agreed(t, `"as_of"`, "", a)
	agreed(t, `"as_of"`, "", b)
	if err := database.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	agreed(t, `"done"`, "as_of", a, b)
}
