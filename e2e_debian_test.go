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

// A debian is a fresh Debian in a directory.
type debian struct {
	t    *testing.T
	root string
}

// newDebian sets one up, whose programs are ended with the test.
func newDebian(t *testing.T) *debian {
	t.Helper()
	d := &debian{t, t.TempDir()}
	d.run(need(t, "debootstrap"), "--variant=minbase", "bookworm", d.root)
	d.write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
	d.write("etc/apt/apt.conf.d/yes", "APT::Get::Assume-Yes \"true\";\n", 0o644)
	d.write("usr/local/bin/systemctl", fakeSystemctl, 0o755)
	t.Cleanup(func() {
		for _, name := range []string{"tmp/prosody.pid", "run/webstatus.pid"} {
			content, _ := os.ReadFile(filepath.Join(d.root, name)) // none if it came to nothing
			if pid, err := strconv.Atoi(strings.TrimSpace(string(content))); err == nil {
				syscall.Kill(pid, syscall.SIGTERM)
			}
		}
		if t.Failed() {
			for _, name := range []string{"prosody.out", "webstatus.log"} {
				log, _ := os.ReadFile(filepath.Join(d.root, "var/log", name)) // the same
				t.Logf("%s:\n%s", name, log)
			}
		}
	})
	return d
}

func (d *debian) run(name string, args ...string) string {
	d.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "GOFLAGS=-buildvcs=false") // whoever owns the tree
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// inside runs a command in the directory, as if it were the whole machine.
func (d *debian) inside(command string) string {
	d.t.Helper()
	return d.run("chroot", d.root, "sh", "-c", "cd /root && "+command)
}

func (d *debian) write(path, content string, mode os.FileMode) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.root, path), []byte(content), mode); err != nil {
		d.t.Fatal(err)
	}
}

func (d *debian) exists(path string) bool {
	_, err := os.Lstat(filepath.Join(d.root, path))
	return err == nil
}

// packages makes the packages, and returns their sums.
func (d *debian) packages() string {
	d.t.Helper()
	d.run("make", "clean", "packages")
	return d.run("sha256sum", filepath.Join("build", fmt.Sprintf("webstatus_%s_amd64.deb", version)), filepath.Join("build", fmt.Sprintf("webstatus-%s-1.x86_64.rpm", version)))
}

// TestE2EDebian follows the README's "On your server" word by word in a fresh Debian, and gets a page; then it upgrades the package,
// removes it, and purges it.
func TestE2EDebian(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can set up a Debian in a directory")
	}
	for _, address := range []string{"127.0.0.1:8080", "127.0.0.1:5347", "127.0.0.1:5222"} {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			t.Skipf("something else listens at %s", address)
		}
	}
	d := newDebian(t)
	if first := d.packages(); first != d.packages() {
		t.Error("the packages are other bytes each time")
	}
	deb := fmt.Sprintf("webstatus_%s_amd64.deb", version)
	content, err := os.ReadFile(filepath.Join("build", deb))
	if err != nil {
		t.Fatal(err)
	}
	d.write("root/"+deb, string(content), 0o644)
	commands := serverCommands(t)
	for _, command := range commands[:6] {
		d.inside(command)
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
		log, err := os.ReadFile(filepath.Join(d.root, "var/log/webstatus.log"))
		return err == nil && strings.Contains(string(log), linked)
	})
	if listed := d.inside(commands[6]); !strings.Contains(listed, "JID") {
		t.Errorf("%s: %s", commands[6], listed)
	}

	for _, path := range []string{"usr/share/man/man1/webstatus-serve.1.gz", "usr/share/bash-completion/completions/webstatus"} {
		if !d.exists(path) {
			t.Errorf("%s is missing", path)
		}
	}
	d.write("etc/webstatus/webstatus.env", "WEBSTATUS_DOMAIN=mine.example.org\n", 0o644)
	d.inside("dpkg -i ./" + deb)
	if kept := d.inside("cat /etc/webstatus/webstatus.env"); kept != "WEBSTATUS_DOMAIN=mine.example.org\n" {
		t.Errorf("the upgrade has changed the configuration: %s", kept)
	}
	d.inside("dpkg -r webstatus")
	if d.exists("usr/bin/webstatus") || !d.exists("etc/webstatus/webstatus.env") || !d.exists("var/lib/webstatus/webstatus.db") {
		t.Error("a removal is to remove the program alone")
	}
	d.inside("dpkg -P webstatus")
	if d.exists("etc/webstatus") || d.exists("var/lib/webstatus") {
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
