package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// fakeSystemctl stands in for systemd, which cannot run in a mere directory: it starts what the units say.
const fakeSystemctl = `#!/bin/sh
case "$*" in
"restart prosody")
	su prosody -s /bin/sh -c 'echo $$ > /tmp/prosody.pid; exec prosody -F' >/var/log/prosody.out 2>&1 & ;;
"enable --now webstatus.socket webstatus.service")
	set -a
	. /etc/webstatus/webstatus.env
	eval "$(sed -n 's/^Environment=//p' /usr/lib/systemd/system/webstatus.service)"
	WEBSTATUS_LISTEN=$(sed -n 's/^ListenStream=//p' /usr/lib/systemd/system/webstatus.socket)
	CREDENTIALS_DIRECTORY=/etc/webstatus
	mkdir -p /var/lib/webstatus
	$(sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/webstatus.service) >/var/log/webstatus.log 2>&1 &
	echo $! > /run/webstatus.pid;;
"status webstatus") ;;
*) echo "systemctl $*: unknown" >&2; exit 1;;
esac
`

// TestE2EDebian follows the README's "On your server" word by word in a fresh Debian, and gets a page; then it upgrades the package,
// removes it, and purges it.
func TestE2EDebian(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can set up a Debian in a directory")
	}
	debootstrap := need(t, "debootstrap")
	for _, address := range []string{"127.0.0.1:8080", "127.0.0.1:5347", "127.0.0.1:5222"} {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			t.Skipf("something else listens at %s", address)
		}
	}
	root := t.TempDir()
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "GOFLAGS=-buildvcs=false") // whoever owns the tree
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	inside := func(command string) string {
		t.Helper()
		return run("chroot", root, "sh", "-c", "cd /root && "+command)
	}
	write := func(path, content string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, path), []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	exists := func(path string) bool {
		_, err := os.Lstat(filepath.Join(root, path))
		return err == nil
	}
	sum := func() string {
		run("make", "clean", "packages")
		return run("sha256sum", filepath.Join("build", fmt.Sprintf("webstatus_%s_amd64.deb", version)), filepath.Join("build", fmt.Sprintf("webstatus-%s-1.x86_64.rpm", version)))
	}
	if first := sum(); first != sum() {
		t.Error("the packages are other bytes each time")
	}
	run(debootstrap, "--variant=minbase", "bookworm", root)
	write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
	write("etc/apt/apt.conf.d/yes", "APT::Get::Assume-Yes \"true\";\n", 0o644)
	write("usr/local/bin/systemctl", fakeSystemctl, 0o755)
	t.Cleanup(func() {
		for _, name := range []string{"tmp/prosody.pid", "run/webstatus.pid"} {
			content, _ := os.ReadFile(filepath.Join(root, name)) // none if it came to nothing
			if pid, err := strconv.Atoi(strings.TrimSpace(string(content))); err == nil {
				syscall.Kill(pid, syscall.SIGTERM)
			}
		}
		if t.Failed() {
			for _, name := range []string{"prosody.out", "webstatus.log"} {
				log, _ := os.ReadFile(filepath.Join(root, "var/log", name))
				t.Logf("%s:\n%s", name, log)
			}
		}
	})
	deb := fmt.Sprintf("webstatus_%s_amd64.deb", version)
	content, err := os.ReadFile(filepath.Join("build", deb))
	if err != nil {
		t.Fatal(err)
	}
	write("root/"+deb, string(content), 0o644)
	commands := serverCommands(t)
	for _, command := range commands[:6] {
		inside(command)
	}
	eventually(t, "a page", func() bool {
		resp, err := http.Get("http://127.0.0.1:8080/")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return err == nil && resp.StatusCode == 200 && strings.Contains(string(body), "webstatus.example.org")
	})
	eventually(t, "the link", func() bool {
		log, err := os.ReadFile(filepath.Join(root, "var/log/webstatus.log"))
		return err == nil && strings.Contains(string(log), linked)
	})
	if listed := inside(commands[6]); !strings.Contains(listed, "JID") {
		t.Errorf("%s: %s", commands[6], listed)
	}

	for _, path := range []string{"usr/share/man/man1/webstatus-serve.1.gz", "usr/share/bash-completion/completions/webstatus"} {
		if !exists(path) {
			t.Errorf("%s is missing", path)
		}
	}
	write("etc/webstatus/webstatus.env", "WEBSTATUS_DOMAIN=mine.example.org\n", 0o644)
	inside("dpkg -i ./" + deb)
	if kept := inside("cat /etc/webstatus/webstatus.env"); kept != "WEBSTATUS_DOMAIN=mine.example.org\n" {
		t.Errorf("the upgrade has changed the configuration: %s", kept)
	}
	inside("dpkg -r webstatus")
	if exists("usr/bin/webstatus") || !exists("etc/webstatus/webstatus.env") || !exists("var/lib/webstatus/webstatus.db") {
		t.Error("a removal is to remove the program alone")
	}
	inside("dpkg -P webstatus")
	if exists("etc/webstatus") || exists("var/lib/webstatus") {
		t.Error("something is left after purging")
	}
}

// serverCommands are those of the README's section, without sudo.
func serverCommands(t *testing.T) (commands []string) {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(readme), "\n## On your server\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		line = strings.TrimSpace(line)
		if command, ok := strings.CutPrefix(line, "sudo "); ok {
			commands = append(commands, command)
		} else if strings.HasPrefix(line, "systemctl ") {
			commands = append(commands, line)
		}
	}
	if len(commands) != 7 {
		t.Fatalf("%d commands: %q", len(commands), commands)
	}
	return commands
}
