package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"text/template"
	"time"
)

// patience is the timeout of all waits. It does not measure performance.
const patience = 60 * time.Second

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// need returns the path of a program.
func need(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		missing(t, program+" is not on PATH")
	}
	return path
}

// missing skips the test, or fails it if WEBSTATUS_E2E=require.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("WEBSTATUS_E2E") == "require" {
		t.Fatal(what + ", and WEBSTATUS_E2E=require")
	}
	t.Skip(what)
}

// freePort returns a port for a server that cannot choose one itself. It is below those that systems choose for outgoing connections,
// which may take it at any time.
func freePort(t testing.TB) int {
	t.Helper()
	port := unusedPort()
	if port == 0 {
		t.Fatal("there is no free port")
	}
	return port
}

// A process is a program that runs beside the test.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	out  *lockedBuffer
}

// A lockedBuffer collects the output of a process.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs a command until the test ends.
func start(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, done: make(chan struct{}), out: &lockedBuffer{}}
	cmd.Stdout, cmd.Stderr = p.out, p.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		cmd.Wait() // cmd.ProcessState has the result
		close(p.done)
	}()
	t.Cleanup(func() {
		p.thaw()
		p.signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(10 * time.Second):
			p.signal(syscall.SIGKILL)
			<-p.done
		}
		if t.Failed() {
			t.Logf("output of %s:\n%s", filepath.Base(cmd.Path), p.out)
		}
	})
	return p
}

// signal sends a signal to the process and its children, if they still run.
func (p *process) signal(s syscall.Signal) { syscall.Kill(-p.cmd.Process.Pid, s) }

// freeze suspends the process; its connections stay open.
func (p *process) freeze() { p.signal(syscall.SIGSTOP) }

// thaw resumes the process.
func (p *process) thaw() { p.signal(syscall.SIGCONT) }

// end sends a signal that ends the process, and waits until it has ended.
func (p *process) end(t testing.TB, s syscall.Signal) {
	t.Helper()
	p.signal(s)
	p.wait(t)
}

// wait waits until the process ends, and returns its exit status.
func (p *process) wait(t testing.TB) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("%s does not end", filepath.Base(p.cmd.Path))
	}
	return p.cmd.ProcessState.ExitCode()
}

const (
	testDomain = "webstatus.localhost"
	testSecret = "s3cret"
)

// A server is a real XMPP server on loopback ports.
type server struct {
	name          string
	root          root // where it runs
	dir           string
	c2s, compPort int
	web           int    // port for WebSocket, or of mod_webpresence, or 0
	libraries     string // directory of its modules, if it must be configured
	run           func() *process
	process       *process
	large         bool // forwards stanzas that are very deep or have a megabyte
}

// testAccounts are the accounts on every server. Each password is "pass-" and the name.
var testAccounts = []string{"user1", "user2", "user3", "user4", "stranger"}

const prosodyConfig = `
run_as_root = {{.Root}}
daemonize = false
pidfile = "{{.Dir}}/prosody.pid"
data_path = "{{.Dir}}/data"
certificates = "{{.Dir}}"
log = { { levels = { min = "info" }, to = "console" } }
interfaces = { "127.0.0.1" }
c2s_ports = { {{.C2S}} }
legacy_ssl_ports = {} c2s_direct_tls_ports = {} s2s_ports = {} https_ports = {}
http_interfaces = { "127.0.0.1" }
http_ports = { {{.Web}} }
http_default_host = "localhost"
consider_websocket_secure = true
component_interfaces = { "127.0.0.1" }
component_ports = { {{.Component}} }
c2s_require_encryption = false
c2s_stanza_size_limit = 2097152
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
storage = "internal"
modules_enabled = { "roster","saslauth","disco","presence","message","iq","c2s","ping","offline","pep","private","carbons","vcard_legacy","lastactivity","blocklist","websocket" }
modules_disabled = { "s2s","tls","admin_shell","admin_socket" }
VirtualHost "localhost"
Component "webstatus.localhost"
	component_secret = "s3cret"
`

const ejabberdConfig = `
hosts: [localhost]
loglevel: info
listen:
  - {port: {{.C2S}}, ip: "127.0.0.1", module: ejabberd_c2s, starttls: false, max_stanza_size: 262144}
  - port: {{.Component}}
    ip: "127.0.0.1"
    module: ejabberd_service
    access: all
    hosts: {webstatus.localhost: {password: "s3cret"}}
{{if .Web}}  - {port: {{.Web}}, ip: "127.0.0.1", module: ejabberd_http, request_handlers: {/presence: mod_webpresence}}{{end}}
auth_method: [internal]
auth_password_format: plain
disable_sasl_mechanisms: ["X-OAUTH2"]
acl: {local: {user_regexp: ""}}
access_rules: {local: {allow: local}, c2s: {allow: all}, webpresence_auto: {allow: local}}
modules: {mod_disco: {}, mod_roster: {}, mod_last: {}, mod_ping: {}, mod_offline: {}, mod_private: {}, mod_caps: {},
  mod_vcard: {}, mod_vcard_xupdate: {}, mod_pubsub: {plugins: [flat, pep]}, mod_muc: {}} # without which mod_caps fails
`

// jabberd2Configs are the configurations of jabberd2's three programs, which connect to its router. Components also connect to the router.
var jabberd2Configs = map[string]string{
	"router": `<router><id>router</id><log type='stdout'/>
<local><ip>127.0.0.1</ip><port>{{.Component}}</port><users>{{.Dir}}/users.xml</users><secret>s3cret</secret></local>
<aci><acl type='all'><user>jabberd</user></acl></aci></router>`,
	"users": `<users><user><name>jabberd</name><secret>s3cret</secret></user></users>`,
	"sm": `<sm><id>sm</id><log type='stdout'/>` + jabberd2Router + `<local><id>localhost</id></local>
<storage><path>{{.Libraries}}</path><driver>db</driver><db><path>{{.Dir}}/data</path></db></storage>
<modules><path>{{.Libraries}}</path>
<chain id='sess-start'><module>status</module></chain>
<chain id='sess-end'><module>status</module><module>iq-last</module></chain>
<chain id='in-sess'><module>validate</module><module>status</module><module>privacy</module><module>roster</module><module>iq-vcard</module><module>iq-ping</module>
	<module>iq-private</module><module>disco</module><module>offline</module><module>presence</module><module>deliver</module></chain>
<chain id='in-router'><module>session</module><module>validate</module><module>presence</module><module>privacy</module></chain>
<chain id='out-router'><module>privacy</module></chain>
<chain id='pkt-sm'><module>iq-last</module><module>iq-ping</module><module>iq-time</module><module>iq-version</module><module>disco</module><module>presence</module></chain>
<chain id='pkt-user'><module>roster</module><module>presence</module><module>disco</module><module>iq-vcard</module><module>deliver</module>
	<module>offline</module><module>iq-last</module></chain>
<chain id='pkt-router'><module>session</module><module>disco</module></chain>
<chain id='user-load'><module>active</module><module>roster</module><module>privacy</module></chain>
<chain id='user-create'><module>active</module></chain>
<chain id='disco-extend'><module>iq-version</module></chain></modules>
<discovery><identity><category>server</category><type>im</type><name>jabberd2</name></identity></discovery></sm>`,
	"c2s": `<c2s><id>c2s</id><log type='stdout'/>` + jabberd2Router + `<local><id register-enable='true'>localhost</id><ip>127.0.0.1</ip><port>{{.C2S}}</port></local>
<io><limits><stanzasize>262144</stanzasize></limits></io>
<authreg><path>{{.Libraries}}</path><module>db</module><db><path>{{.Dir}}/accounts</path></db>
<mechanisms><sasl><plain/></sasl></mechanisms></authreg></c2s>`,
}

const jabberd2Router = `<router><ip>127.0.0.1</ip><port>{{.Component}}</port><user>jabberd</user><pass>s3cret</pass>
<retry><init>60</init><lost>60</lost><sleep>1</sleep></retry></router>`

// configure writes a server's configuration.
func (s *server) configure(t testing.TB, text, file string) string {
	t.Helper()
	var b bytes.Buffer
	err := template.Must(template.New("").Parse(text)).Execute(&b, map[string]any{
		"Dir": s.dir, "C2S": s.c2s, "Component": s.compPort, "Web": s.web, "Root": os.Getuid() == 0, "Libraries": s.libraries,
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.dir, file)
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// newServer starts a server with optional additions to its configuration. The name may be followed by @ and the Debian release of the
// server; the default is the host's.
func newServer(t testing.TB, name string, more ...string) *server {
	t.Helper()
	name, suite, _ := strings.Cut(name, "@")
	s := &server{name: name, dir: t.TempDir(), c2s: freePort(t), compPort: freePort(t)}
	if suite != "" {
		s.root = debianRoot(t, suite)
	}
	switch name {
	case "prosody":
		s.large, s.web = true, freePort(t)
		program := s.root.need(t, "prosody")
		config := s.configure(t, prosodyConfig+strings.Join(more, "\n"), "prosody.cfg.lua")
		for _, user := range testAccounts {
			dir := filepath.Join(s.dir, "data", "localhost", "accounts")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			account := fmt.Sprintf("return { [\"password\"] = \"pass-%s\"; };\n", user)
			if err := os.WriteFile(filepath.Join(dir, user+".dat"), []byte(account), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s.run = func() *process { return start(t, s.root.command(program, "-F", "--config", config)) }
	case "ejabberd":
		// The command ejabberdctl requires a node name, a cookie and its own user. Running erl directly does not.
		erl := s.root.need(t, "erl")
		s.libraries = filepath.Dir(s.path(t, "/usr/lib/*-linux-gnu/ejabberd-*"))
		additions := strings.Join(more, "\n")
		if strings.Contains(additions, "mod_webpresence") {
			s.web = freePort(t)
		}
		config := s.configure(t, ejabberdConfig+additions, "ejabberd.yml")
		for _, dir := range []string{"home", "logs", "spool"} {
			if err := os.Mkdir(filepath.Join(s.dir, dir), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		s.run = func() *process { return s.runEjabberd(t, erl, config) }
	case "jabberd2":
		router, sm, c2s := s.root.need(t, "jabberd2-router"), s.root.need(t, "jabberd2-sm"), s.root.need(t, "jabberd2-c2s")
		s.libraries = s.path(t, "/usr/lib/*-linux-gnu/jabberd2")
		for part, text := range jabberd2Configs {
			s.configure(t, text, part+".xml")
		}
		for _, dir := range []string{"accounts", "data"} {
			if err := os.Mkdir(filepath.Join(s.dir, dir), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		script := fmt.Sprintf("cd '%s' && { %s -c router.xml & %s -c sm.xml & exec %s -c c2s.xml; }", s.dir, router, sm, c2s)
		s.run = func() *process {
			p := start(t, s.root.command("sh", "-c", script))
			eventually(t, "jabberd2 is ready", func() bool {
				return strings.Contains(p.out.String(), "sm ready for sessions") && strings.Contains(p.out.String(), "ready for connections")
			})
			return p
		}
	}
	s.start(t)
	if name == "jabberd2" {
		for _, user := range testAccounts {
			s.register(t, user)
		}
	}
	return s
}

// path returns the path that matches a pattern in the server's root.
func (s *server) path(t testing.TB, pattern string) string {
	t.Helper()
	paths, err := filepath.Glob(string(s.root) + pattern)
	if err != nil || len(paths) == 0 {
		missing(t, s.name+" is not where Debian has it")
	}
	return strings.TrimPrefix(paths[0], string(s.root))
}

func (s *server) runEjabberd(t testing.TB, erl, config string) *process {
	t.Helper()
	var register strings.Builder
	for _, user := range testAccounts {
		fmt.Fprintf(&register, `ejabberd_auth:try_register(<<"%s">>,<<"localhost">>,<<"pass-%s">>),`, user, user)
	}
	ready := filepath.Join(s.dir, "ready")
	os.Remove(ready) // may not be there
	cmd := s.root.command(erl, "+P", "50000", "+sbwt", "none", "-noinput", "-mnesia", "dir", strconv.Quote(filepath.Join(s.dir, "spool")),
		"-s", "ejabberd", "-eval", register.String()+fmt.Sprintf("file:write_file(%q,\"ok\").", ready))
	cmd.Env = append(os.Environ(), "HOME="+filepath.Join(s.dir, "home"), "EJABBERD_CONFIG_PATH="+config,
		"EJABBERD_LOG_PATH="+filepath.Join(s.dir, "logs", "ejabberd.log"), "ERL_LIBS="+s.libraries,
		"ERL_CRASH_DUMP_BYTES=0", "ERL_MAX_PORTS=4096", "ERL_INETRC=/etc/ejabberd/inetrc")
	p := start(t, cmd)
	eventually(t, "ejabberd is ready", func() bool { _, err := os.Stat(ready); return err == nil })
	return p
}

// start starts or restarts the server and waits until it accepts connections.
func (s *server) start(t testing.TB) {
	t.Helper()
	s.process = s.run()
	for _, port := range []int{s.c2s, s.compPort, s.web} {
		if port == 0 {
			continue
		}
		eventually(t, s.name+" listens", func() bool {
			conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
			if err != nil {
				return false
			}
			conn.Close()
			return true
		})
	}
}

func (s *server) componentAddress() string { return "127.0.0.1:" + strconv.Itoa(s.compPort) }

// An appliance is a running webstatus process.
type appliance struct {
	*process
	env []string
	url string
}

// newAppliance starts a webstatus with a database of its own.
func newAppliance(t testing.TB, componentAddress string, more ...string) *appliance {
	t.Helper()
	port := strconv.Itoa(freePort(t))
	a := &appliance{url: "http://127.0.0.1:" + port, env: append([]string{
		"WEBSTATUS_DOMAIN=" + testDomain, "WEBSTATUS_SECRET=" + testSecret, "WEBSTATUS_SERVER=" + componentAddress,
		"WEBSTATUS_LISTEN=127.0.0.1:" + port, "WEBSTATUS_DB=" + filepath.Join(t.TempDir(), "webstatus.db"), "WEBSTATUS_ALLOW=localhost",
	}, more...)}
	a.start(t)
	return a
}

func (a *appliance) command(args ...string) *exec.Cmd {
	cmd := exec.Command("webstatus", args...)
	cmd.Env = append(os.Environ(), a.env...)
	return cmd
}

// start starts or restarts webstatus.
func (a *appliance) start(t testing.TB) {
	t.Helper()
	a.process = start(t, a.command("serve"))
	a.waitLog(t, "linked to the XMPP server")
}

// waitLog waits for a log line that contains all words.
func (a *appliance) waitLog(t testing.TB, words ...string) {
	t.Helper()
	a.waitLogs(t, 1, words...)
}

// waitLogs waits for n log lines that contain all words.
func (a *appliance) waitLogs(t testing.TB, n int, words ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d log lines with %q", n, words), func() bool { return a.countLog(words...) >= n })
}

func (a *appliance) countLog(words ...string) (n int) {
line:
	for line := range strings.Lines(a.out.String()) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue line
			}
		}
		n++
	}
	return n
}

// get requests a path.
func (a *appliance) get(t testing.TB, path string) (status int, body string) {
	t.Helper()
	resp, err := (&http.Client{Timeout: patience}).Get(a.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b.String()
}

// A cable is a TCP proxy between webstatus and its XMPP server that can be disconnected, slow down, or stop forwarding.
type cable struct {
	listener net.Listener
	to       string
	trickle  atomic.Int64 // bytes that are forwarded at once, in each direction; 0 for no limit
	delay    atomic.Int64 // nanoseconds before they are forwarded

	mu    sync.Mutex
	state cableState
	wires []*wire
}

type cableState int

const (
	plugged   cableState = iota
	unplugged            // new connections are closed immediately
	dead                 // connections stay open, but nothing is forwarded
)

// A wire is one connection through a cable. A dead wire stays dead, because the dropped bytes are lost.
type wire struct {
	here, there net.Conn // there is nil if the connection was not forwarded
	dead        atomic.Bool
}

func newCable(t testing.TB, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{listener: l, to: to}
	t.Cleanup(func() { l.Close(); c.unplug() })
	go func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			c.connect(here)
		}
	}()
	return c
}

func (c *cable) address() string { return c.listener.Addr().String() }

func (c *cable) connect(here net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &wire{here: here}
	switch c.state {
	case unplugged:
		here.Close()
		return
	case plugged:
		there, err := net.Dial("tcp", c.to)
		if err != nil {
			here.Close()
			return
		}
		w.there = there
		go c.carry(w, here, there)
		go c.carry(w, there, here)
	}
	c.wires = append(c.wires, w)
}

// carry forwards the bytes and the end of one direction. A dead wire forwards nothing.
func (c *cable) carry(w *wire, from, to net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		size := len(buf)
		if slow := c.trickle.Load(); slow > 0 {
			size = int(slow)
		}
		n, err := from.Read(buf[:size])
		time.Sleep(time.Duration(c.delay.Load()))
		switch {
		case w.dead.Load() && err != nil:
			return
		case w.dead.Load():
		case err != nil:
			to.Close()
			return
		default:
			to.Write(buf[:n]) // an error appears in the other direction
		}
	}
}

// plug forwards new connections.
func (c *cable) plug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = plugged
}

// unplug closes all connections, and new ones immediately.
func (c *cable) unplug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = unplugged
	c.breakAll()
}

// cut closes all connections, including dead ones, and forwards new ones.
func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = plugged
	c.breakAll()
}

func (c *cable) breakAll() {
	for _, w := range c.wires {
		w.here.Close()
		if w.there != nil {
			w.there.Close()
		}
	}
	c.wires = nil
}

// die keeps all connections open but drops all bytes, and does not forward a close.
func (c *cable) die() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = dead
	for _, w := range c.wires {
		w.dead.Store(true)
	}
}
