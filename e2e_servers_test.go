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
	"syscall"
	"testing"
	"text/template"
	"time"
)

// patience is how long anything may take that has to happen. It is no measure of speed.
const patience = 60 * time.Second

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("still not so: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// need skips the test if a program is missing, or fails it where all of them are required.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv("WEBSTATUS_E2E") == "require" {
			t.Fatalf("%s is not on PATH, and WEBSTATUS_E2E=require", program)
		}
		t.Skipf("%s is not on PATH", program)
	}
	return path
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// A process is a program that runs beside the test.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	out  *lockedBuffer
}

// A lockedBuffer collects what a process says.
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
func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, done: make(chan struct{}), out: &lockedBuffer{}}
	cmd.Stdout, cmd.Stderr = p.out, p.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		cmd.Wait() // how it ended is asked of cmd.ProcessState
		close(p.done)
	}()
	t.Cleanup(func() {
		p.signal(syscall.SIGCONT)
		p.signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(10 * time.Second):
			p.signal(syscall.SIGKILL)
			<-p.done
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(cmd.Path), p.out)
		}
	})
	return p
}

// signal sends a signal to the process and its children, if they are still there.
func (p *process) signal(s syscall.Signal) { syscall.Kill(-p.cmd.Process.Pid, s) }

// end sends a signal that ends the process, and waits for that.
func (p *process) end(s syscall.Signal) {
	p.signal(s)
	<-p.done
}

const (
	testDomain = "webstatus.localhost"
	testSecret = "s3cret"
)

// A server is a real XMPP server on loopback ports.
type server struct {
	name          string
	dir           string
	c2s, compPort int
	run           func() *process
	process       *process
	nested        bool // survives stanzas of great depth itself
}

var accounts = []string{"user1", "user2", "user3", "user4", "stranger"}

const prosodyConfig = `
run_as_root = {{.Root}}
daemonize = false
pidfile = "{{.Dir}}/prosody.pid"
data_path = "{{.Dir}}/data"
certificates = "{{.Dir}}"
log = { { levels = { min = "info" }, to = "console" } }
interfaces = { "127.0.0.1" }
c2s_ports = { {{.C2S}} }
legacy_ssl_ports = {} c2s_direct_tls_ports = {} s2s_ports = {} http_ports = {} https_ports = {}
component_interfaces = { "127.0.0.1" }
component_ports = { {{.Component}} }
c2s_require_encryption = false
c2s_stanza_size_limit = 2097152
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
storage = "internal"
modules_enabled = { "roster","saslauth","disco","presence","message","iq","c2s","ping","offline","pep","private","carbons" }
modules_disabled = { "s2s","tls","http","admin_shell","admin_socket" }
VirtualHost "localhost"
Component "webstatus.localhost"
	component_secret = "s3cret"
`

const ejabberdConfig = `
hosts: [localhost]
loglevel: info
listen:
  - {port: {{.C2S}}, ip: "127.0.0.1", module: ejabberd_c2s, starttls: false, max_stanza_size: 2097152}
  - port: {{.Component}}
    ip: "127.0.0.1"
    module: ejabberd_service
    access: all
    hosts: {webstatus.localhost: {password: "s3cret"}}
auth_method: [internal]
auth_password_format: plain
disable_sasl_mechanisms: ["X-OAUTH2"]
acl: {local: {user_regexp: ""}}
access_rules: {local: {allow: local}, c2s: {allow: all}}
modules: {mod_disco: {}, mod_roster: {}, mod_last: {}, mod_ping: {}, mod_offline: {}, mod_private: {}, mod_caps: {}}
`

// configure writes a server's configuration.
func (s *server) configure(t *testing.T, text, file string) string {
	t.Helper()
	var b bytes.Buffer
	err := template.Must(template.New("").Parse(text)).Execute(&b, map[string]any{
		"Dir": s.dir, "C2S": s.c2s, "Component": s.compPort, "Root": os.Getuid() == 0,
	})
	path := filepath.Join(s.dir, file)
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func newServer(t *testing.T, name string) *server {
	t.Helper()
	s := &server{name: name, dir: t.TempDir(), c2s: freePort(t), compPort: freePort(t)}
	switch name {
	case "prosody":
		s.nested = true
		program := need(t, "prosody")
		config := s.configure(t, prosodyConfig, "prosody.cfg.lua")
		for _, user := range accounts {
			dir := filepath.Join(s.dir, "data", "localhost", "accounts")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			account := fmt.Sprintf("return { [\"password\"] = \"pass-%s\"; };\n", user)
			if err := os.WriteFile(filepath.Join(dir, user+".dat"), []byte(account), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s.run = func() *process { return start(t, exec.Command(program, "-F", "--config", config)) }
	case "ejabberd":
		need(t, "ejabberdctl")
		erl := need(t, "erl")
		config := s.configure(t, ejabberdConfig, "ejabberd.yml")
		for _, dir := range []string{"home", "logs", "spool"} {
			if err := os.Mkdir(filepath.Join(s.dir, dir), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		s.run = func() *process { return s.runEjabberd(t, erl, config) }
	}
	s.start(t)
	return s
}

func (s *server) runEjabberd(t *testing.T, erl, config string) *process {
	var register strings.Builder
	for _, user := range accounts {
		fmt.Fprintf(&register, `ejabberd_auth:try_register(<<"%s">>,<<"localhost">>,<<"pass-%s">>),`, user, user)
	}
	ready := filepath.Join(s.dir, "ready")
	os.Remove(ready) // may not be there
	libraries, err := filepath.Glob("/usr/lib/*-linux-gnu/ejabberd-*")
	if err != nil || len(libraries) == 0 {
		t.Fatal("ejabberd's libraries are not where Debian has them")
	}
	cmd := exec.Command(erl, "+P", "50000", "+sbwt", "none", "-noinput", "-mnesia", "dir", strconv.Quote(filepath.Join(s.dir, "spool")),
		"-s", "ejabberd", "-eval", register.String()+fmt.Sprintf("file:write_file(%q,\"ok\").", ready))
	cmd.Env = append(os.Environ(), "HOME="+filepath.Join(s.dir, "home"), "EJABBERD_CONFIG_PATH="+config,
		"EJABBERD_LOG_PATH="+filepath.Join(s.dir, "logs", "ejabberd.log"), "ERL_LIBS="+filepath.Dir(libraries[0]),
		"ERL_CRASH_DUMP_BYTES=0", "ERL_MAX_PORTS=4096", "ERL_INETRC=/etc/ejabberd/inetrc")
	p := start(t, cmd)
	eventually(t, "ejabberd is ready", func() bool { _, err := os.Stat(ready); return err == nil })
	return p
}

// start starts the server, again if it has run before, and waits until it answers.
func (s *server) start(t *testing.T) {
	t.Helper()
	s.process = s.run()
	for _, port := range []int{s.c2s, s.compPort} {
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

// An appliance is a webstatus that runs beside the test.
type appliance struct {
	*process
	env []string
	url string
}

// newAppliance starts a webstatus with a database of its own.
func newAppliance(t *testing.T, componentAddress string, more ...string) *appliance {
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

// start starts the webstatus, again if it has run before.
func (a *appliance) start(t *testing.T) {
	t.Helper()
	a.process = start(t, a.command("serve"))
	a.waitLog(t, "linked to the XMPP server")
}

// waitLog waits for a line in the log that has all of the words.
func (a *appliance) waitLog(t *testing.T, words ...string) {
	t.Helper()
	a.waitLogs(t, 1, words...)
}

// waitLogs waits for so many lines that have all of the words.
func (a *appliance) waitLogs(t *testing.T, n int, words ...string) {
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

// get returns what is at a path.
func (a *appliance) get(t *testing.T, path string) (status int, body string) {
	t.Helper()
	resp, err := http.Get(a.url + path)
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

// A cable is what a webstatus reaches its XMPP server through, and what can be cut.
type cable struct {
	listener net.Listener
	to       string
	mu       sync.Mutex
	conns    []net.Conn
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{listener: l, to: to}
	t.Cleanup(func() { l.Close(); c.cut() })
	go func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", to)
			if err != nil {
				here.Close()
				continue
			}
			c.mu.Lock()
			c.conns = append(c.conns, here, there)
			c.mu.Unlock()
			go pipe(here, there)
			go pipe(there, here)
		}
	}()
	return c
}

func pipe(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (c *cable) address() string { return c.listener.Addr().String() }

// cut breaks all connections.
func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}
