package main

import (
	"bufio"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestUnits verifies the packaged units with systemd-analyze.
func TestUnits(t *testing.T) {
	t.Parallel()
	analyze := need(t, "systemd-analyze")
	dir := t.TempDir()
	for _, name := range []string{"webstatus.service", "webstatus.socket"} {
		content, err := os.ReadFile(filepath.Join("dist", name))
		if err != nil {
			t.Fatal(err)
		}
		unit := strings.ReplaceAll(string(content), "/usr/bin/webstatus", need(t, "webstatus"))
		if err := os.WriteFile(filepath.Join(dir, name), []byte(unit), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(analyze, "verify", "--man=no", filepath.Join(dir, "webstatus.service"), filepath.Join(dir, "webstatus.socket")).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v %s", err, out)
	}
	out, err := exec.Command(analyze, "security", "--offline=true", filepath.Join(dir, "webstatus.service")).CombinedOutput()
	level := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindSubmatch(out)
	if err != nil || level == nil {
		t.Fatalf("%v %s", err, out)
	}
	if exposure, err := strconv.ParseFloat(string(level[1]), 64); err != nil || exposure > 1.5 {
		t.Errorf("exposure %s %v", level[1], err)
	}
}

// startWithSocket starts serve with an open listener, as systemd does.
func startWithSocket(t *testing.T, listener *net.TCPListener, env ...string) *process {
	t.Helper()
	file, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command("sh", "-c", "LISTEN_PID=$$ exec webstatus serve") // exec keeps the process ID
	cmd.Env = append(append(os.Environ(), "LISTEN_FDS=1"), env...)
	cmd.ExtraFiles = []*os.File{file}
	return start(t, cmd)
}

// TestSystemd passes a socket and expects the notifications of sd_notify(3): ready, the state of the link, watchdog, stopping.
func TestSystemd(t *testing.T) {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	socket := filepath.Join(t.TempDir(), "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	notifications := make(chan string, 100)
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := notify.Read(buffer)
			if err != nil {
				return
			}
			notifications <- string(buffer[:n])
		}
	}()
	server, err := newLoopback("webstatus.example.org", "s3cret")
	if err != nil {
		t.Fatal(err)
	}
	defer server.listener.Close()
	p := startWithSocket(t, listener, "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=20000", "WEBSTATUS_DOMAIN=webstatus.example.org", "WEBSTATUS_SECRET=s3cret",
		"WEBSTATUS_SERVER="+server.address(), "WEBSTATUS_DB="+filepath.Join(t.TempDir(), "w.db"))
	expect := func(want string) {
		t.Helper()
		deadline := time.After(patience)
		for {
			select {
			case got := <-notifications:
				if strings.HasPrefix(got, want) {
					return
				}
			case <-deadline:
				t.Fatalf("no notification %s; %s", want, p.out)
			}
		}
	}
	expect("READY=1")
	stream, err := server.acceptSoon()
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	expect("STATUS=linked to the XMPP server as webstatus.example.org, 0 registered")
	expect("WATCHDOG=1")
	resp, err := http.Get("http://" + listener.Addr().String() + "/")
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	resp.Body.Close()
	stream.Close()
	expect("STATUS=no link to the XMPP server since ")
	p.signal(syscall.SIGTERM)
	expect("STOPPING=1")
	if code := p.wait(t); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// TestE2EUpgrade restarts the service while clients request pages, users change presence, and a client follows an event stream. It
// checks that no request is refused and no change is lost.
func TestE2EUpgrade(t *testing.T) {
	t.Parallel()
	s := newServer(t, "prosody")
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	env := []string{"WEBSTATUS_DOMAIN=" + testDomain, "WEBSTATUS_SECRET=" + testSecret, "WEBSTATUS_SERVER=" + s.componentAddress(),
		"WEBSTATUS_DB=" + filepath.Join(t.TempDir(), "w.db"), "WEBSTATUS_ALLOW=localhost"}
	a := &appliance{url: "http://" + listener.Addr().String(), process: startWithSocket(t, listener, env...)}
	a.waitLog(t, linked)
	c := s.login(t, "user1", "desk")
	c.send(t, `<presence/>`)
	c.join(t, "show_status_msg=1")
	a.want(t, c.bare, shown{state: "available"})

	stop := keepRequesting(t, a.url+jidPath(c.bare)+".json")
	for i := range 3 {
		resp, err := http.Get(a.url + jidPath(c.bare) + "/events")
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(resp.Body)
		next(t, lines, "data")
		a.process.signal(syscall.SIGTERM)
		if retry := next(t, lines, "retry"); retry != "1000" {
			t.Errorf("retry: %s ms", retry)
		}
		resp.Body.Close()
		message := "change " + strconv.Itoa(i)
		c.send(t, `<presence><show>away</show><status>%s</status></presence>`, message) // while the service is down
		if code := a.process.wait(t); code != 0 {
			t.Errorf("exit status %d", code)
		}
		a.process = startWithSocket(t, listener, env...)
		a.waitLog(t, linked)
		a.want(t, c.bare, shown{state: "away", message: message})
		if n := a.countLog("conflict"); n > 0 {
			t.Errorf("%d conflicts: %s", n, a.out)
		}
	}
	stop()
}

// keepRequesting requests a URL in a loop, on a new connection each time, until stop is called. The test fails unless every response
// is 200 OK.
func keepRequesting(t *testing.T, url string) (stop func()) {
	t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	stopped, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			resp, err := client.Get(url)
			if err != nil || resp.StatusCode != 200 {
				t.Errorf("refused: %v %v", resp, err)
				return
			}
			resp.Body.Close()
			select {
			case <-stopped:
				return
			default:
			}
		}
	}()
	return func() {
		close(stopped)
		<-done
	}
}

// TestNixOSModule checks that the NixOS module has the version and the settings of the systemd unit.
func TestNixOSModule(t *testing.T) {
	unit, err := os.ReadFile("dist/webstatus.service")
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile("dist/nixos.nix")
	if err != nil {
		t.Fatal(err)
	}
	module := string(content)
	if !strings.Contains(module, `version = "`+version+`";`) {
		t.Errorf("the version is not %s", version)
	}
	_, service, _ := strings.Cut(string(unit), "[Service]\n")
	service, _, _ = strings.Cut(service, "[Install]")
	different := []string{"ExecStartPre", "ExecStart", "ExecReload", "EnvironmentFile", "Environment", "LoadCredential", "AmbientCapabilities"}
	for line := range strings.Lines(service) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(key, "#") || slices.Contains(different, key) {
			continue
		}
		_, setting, _ := strings.Cut(module, "\n        "+key+" = ")
		setting, _, _ = strings.Cut(setting, ";")
		if value == "yes" {
			value = "true"
		}
		words := strings.Fields(strings.Trim(value, "~"))
		if setting == "" || slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(setting, word) }) {
			t.Errorf("%s is %q, want %s", key, setting, value)
		}
	}
}
