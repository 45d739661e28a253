package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// privilegeConfig has a server send webstatus the presence of everybody, as docs/operating.md says; in an ejabberd it must be ignored.
var privilegeConfig = map[string]string{
	"prosody": `	modules_enabled = { "privilege" }
VirtualHost "localhost"
	modules_enabled = { "privilege", "version" }
	privileged_entities = { ["webstatus.localhost"] = { presence = "managed_entity" } }
`,
	"ejabberd": "append_host_config: {localhost: {modules: {mod_version: {}, mod_privilege: {presence: {managed_entity: all}}}}}\n",
}

// TestE2EPrivilege runs webstatus with the privilege to see the presence of everybody (XEP-0356), in both versions of it.
func TestE2EPrivilege(t *testing.T) {
	for _, name := range []string{"prosody", "prosody@trixie"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testPrivilege(t, newServer(t, name, privilegeConfig["prosody"]))
		})
	}
	t.Run("prosody, "+nsPrivilegeOld, func(t *testing.T) {
		t.Parallel()
		module, err := os.ReadFile(privilegeModule(t, ""))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "mod_privilege.lua"), bytes.ReplaceAll(module, []byte(nsPrivilege), []byte(nsPrivilegeOld)), 0o644); err != nil {
			t.Fatal(err)
		}
		testPrivilege(t, newServer(t, "prosody", privilegeConfig["prosody"], fmt.Sprintf("Host \"*\"\nplugin_paths = { %q }\n", dir)))
	})
	t.Run("ejabberd", func(t *testing.T) {
		t.Parallel()
		s := newServer(t, "ejabberd", privilegeConfig["ejabberd"])
		a := newAppliance(t, s.componentAddress())
		c := s.login(t, "user1", "desk")
		c.send(t, `<presence/>`)
		c.join(t) // with a contact request
		a.want(t, c.bare, shown{state: "available"})
		c.cut()
		a.want(t, c.bare, shown{state: "unavailable"})
	})
}

// privilegeModule returns the path of Prosody's module.
func privilegeModule(t testing.TB, r root) string {
	t.Helper()
	path := string(r) + "/usr/lib/prosody/modules/mod_privilege/mod_privilege.lua"
	if _, err := os.Stat(path); err != nil {
		missing(t, "prosody-modules is missing")
	}
	return path
}

// A slixmppClient is a client written by others, which does what it is told.
type slixmppClient struct {
	*process
	in io.Writer
}

// newSlixmppClient logs in as a user, who is busy.
func newSlixmppClient(t testing.TB, s *server, user string) *slixmppClient {
	t.Helper()
	if err := exec.Command(python, "-c", "import slixmpp").Run(); err != nil {
		missing(t, "python3-slixmpp is missing")
	}
	cmd := exec.Command(python, "testdata/e2e/privilege.py", "127.0.0.1", strconv.Itoa(s.c2s), user+"@localhost/slixmpp", "pass-"+user, testDomain)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	return &slixmppClient{start(t, cmd), in}
}

// do has the client do something.
func (c *slixmppClient) do(t testing.TB, what string) {
	t.Helper()
	if _, err := io.WriteString(c.in, what+"\n"); err != nil {
		t.Fatal(err)
	}
}

func testPrivilege(t *testing.T, s *server) {
	privilegeModule(t, s.root)
	stranger := s.login(t, "stranger", "elsewhere")
	stranger.send(t, `<presence><status>unread</status></presence>`)
	one := newSlixmppClient(t, s, "user1")
	two := s.login(t, "user2", "phone")
	two.send(t, `<presence/>`)
	a := newAppliance(t, s.componentAddress())
	a.waitLog(t, "no contact requests are needed", "host=localhost")

	// Nobody gets a contact request. The first change after the registration appears, and all that follow.
	one.do(t, "register")
	two.submit(t)
	eventually(t, "user1 is registered", func() bool { return strings.Contains(one.out.String(), "You do not have to accept a contact request.") })
	a.want(t, "user1@localhost", shown{state: "unknown"})
	for _, state := range []string{"away", "xa", "dnd"} {
		one.do(t, state)
		a.want(t, "user1@localhost", shown{state: state})
	}
	two.send(t, `<presence><show>chat</show></presence>`)
	a.want(t, two.bare, shown{state: "chat"})

	// What happens while webstatus is down is noticed, and so is a connection that breaks.
	a.end(t, syscall.SIGKILL)
	one.do(t, "away")
	two.cut()
	stranger.send(t, `<presence><show>away</show><status>unread</status></presence>`)
	stranger.request(t, "get", "localhost", `<ping xmlns='urn:xmpp:ping'/>`)
	a.start(t)
	a.want(t, two.bare, shown{state: "unavailable"})
	a.want(t, "user1@localhost", shown{state: "away"})
	two = s.login(t, "user2", "tablet")
	two.send(t, `<presence/>`)
	a.want(t, two.bare, shown{state: "available"})
	two.cut()
	a.want(t, two.bare, shown{state: "unavailable"})

	// The server restarts.
	if strings.Contains(one.out.String(), "contact request from") {
		t.Error(one.out)
	}
	one.do(t, "quit")
	one.wait(t)
	two = s.login(t, "user2", "tablet")
	two.send(t, `<presence/>`)
	a.want(t, two.bare, shown{state: "available"})
	s.process.end(t, syscall.SIGTERM)
	s.start(t)
	a.waitLogs(t, 2, "no contact requests are needed")
	a.want(t, two.bare, shown{state: "unavailable"})
	two = s.login(t, "user2", "desk")
	two.send(t, `<presence><show>dnd</show></presence>`)
	a.want(t, two.bare, shown{state: "dnd"})

	// Nothing is known of the stranger.
	out, err := a.command("users", "list").CombinedOutput()
	if err != nil || strings.Count(string(out), "to (privileged)") != 2 {
		t.Errorf("%v\n%s", err, out)
	}
	a.wantNotStored(t, "unread", "stranger@")

	// The operator takes the privilege away: the presence is unknown until the contact request is accepted.
	config := filepath.Join(s.dir, "prosody.cfg.lua")
	text, err := os.ReadFile(config)
	if err == nil {
		err = os.WriteFile(config, bytes.ReplaceAll(text, []byte("managed_entity"), []byte("none")), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.process.end(t, syscall.SIGTERM)
	s.start(t)
	a.waitLogs(t, 3, linked)
	two = s.login(t, "user2", "desk")
	two.send(t, `<presence><show>xa</show></presence>`)
	two.accept(t)
	a.want(t, two.bare, shown{state: "xa"})
}

// wantNotStored checks that no file of the database contains certain words.
func (a *appliance) wantNotStored(t testing.TB, words ...string) {
	t.Helper()
	path := ""
	for _, variable := range a.env {
		if value, ok := strings.CutPrefix(variable, "WEBSTATUS_DB="); ok {
			path = value
		}
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) == 0 {
		t.Fatal(path, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range words {
			if bytes.Contains(content, []byte(word)) {
				t.Errorf("%s contains %q", file, word)
			}
		}
	}
}
