package main

import (
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A debian is a fresh Debian container booted with systemd. It uses the host's network.
type debian struct {
	t    *testing.T
	root string
	init string // process ID of its systemd
}

// newDebian installs and boots a Debian, which is shut down when the test ends.
func newDebian(t *testing.T) *debian {
	t.Helper()
	d := &debian{t: t, root: filepath.Join(t.TempDir(), "root")}
	d.run("cp", "--archive", string(debianRoot(t, "bookworm")), d.root)
	d.write("etc/apt/apt.conf.d/yes", "APT::Get::Assume-Yes \"true\";\n", 0o644)
	machine := start(t, exec.Command(need(t, "systemd-nspawn"), "--boot", "--directory="+d.root, "--register=no", "--keep-unit", "--console=pipe"))
	children := fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", machine.cmd.Process.Pid)
	eventually(t, "a machine that runs", func() bool {
		select {
		case <-machine.done:
			t.Skipf("containers cannot be booted here: %s", machine.out)
		default:
		}
		pids, err := os.ReadFile(children)
		if err != nil || len(strings.Fields(string(pids))) != 1 {
			return false
		}
		d.init = strings.TrimSpace(string(pids))
		state, err := d.command("systemctl is-system-running --wait").Output()
		return err == nil && string(state) == "running\n"
	})
	d.inside("apt-get update") // the copy may be older than the mirror's latest packages
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := d.command("journalctl --no-pager --boot --lines=100").CombinedOutput() // empty if it did not get that far
			t.Logf("%s", log)
		}
	})
	return d
}

func (d *debian) run(name string, args ...string) string {
	d.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "GOFLAGS=-buildvcs=false") // works with any owner of the tree
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// command returns a shell command that runs in the machine.
func (d *debian) command(command string) *exec.Cmd {
	return exec.Command("nsenter", "--target="+d.init, "--all", "env", "-i", "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8",
		"DEBIAN_FRONTEND=noninteractive", "sh", "-c", "cd /root && "+command)
}

// inside runs a shell command in the machine, which must succeed.
func (d *debian) inside(command string) string {
	d.t.Helper()
	out, err := d.command(command).CombinedOutput()
	if err != nil {
		d.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
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

// Files that the Makefile builds.
var (
	builtDeb  = filepath.Join("build", fmt.Sprintf("webstatus_%s_amd64.deb", version))
	builtRPM  = filepath.Join("build", fmt.Sprintf("webstatus-%s-1.x86_64.rpm", version))
	builtSBOM = filepath.Join("build", fmt.Sprintf("webstatus_%s_linux_amd64.cdx.json", version))
)

// packages builds the packages and the SBOM, and returns their checksums.
func (d *debian) packages() string {
	d.t.Helper()
	d.run("make", "clean", "packages", builtSBOM)
	return d.run("sha256sum", builtDeb, builtRPM, builtSBOM)
}

// wantModules checks that the SBOM lists the modules in the binary, with a license each.
func wantModules(t *testing.T) {
	t.Helper()
	info, err := buildinfo.ReadFile("build/linux_amd64/webstatus")
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(builtSBOM)
	if err != nil {
		t.Fatal(err)
	}
	var sbom struct {
		BOMFormat  string
		Components []struct {
			Name, Version string
			Evidence      struct{ Licenses []any }
		}
	}
	if err := json.Unmarshal(content, &sbom); err != nil || sbom.BOMFormat != "CycloneDX" {
		t.Fatalf("%q %v", sbom.BOMFormat, err)
	}
	want, got := map[string]string{"std": info.GoVersion}, map[string]string{}
	for _, dep := range info.Deps {
		want[dep.Path] = dep.Version
	}
	for _, c := range sbom.Components {
		got[c.Name] = c.Version
		if c.Name != "std" && len(c.Evidence.Licenses) == 0 {
			t.Errorf("%s has no license", c.Name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("modules in the binary (-) and in the SBOM (+):\n%s", diff)
	}
}

// TestE2EDebian runs the commands of the README's section "On your server" in a fresh Debian and requests a page. It then covers a
// crash, an upgrade, files owned by root, an invalid configuration, and removal.
func TestE2EDebian(t *testing.T) {
	t.Parallel()
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
		t.Error("the packages are not reproducible")
	}
	wantModules(t)
	if info, err := os.Stat("build/linux_amd64/webstatus"); err != nil {
		t.Error(err)
	} else if info.Size() > mostBinary {
		t.Errorf("the binary has %d bytes, more than %d", info.Size(), mostBinary)
	}
	d.run(need(t, "lintian"), "--allow-root", "--fail-on=error,warning", builtDeb)
	deb := filepath.Base(builtDeb)
	content, err := os.ReadFile(builtDeb)
	if err != nil {
		t.Fatal(err)
	}
	d.write("root/"+deb, string(content), 0o644)
	commands := sectionCommands(t, "On your server", 7)
	for _, command := range commands[:5] {
		d.inside(command)
	}
	d.wantLink(commands[5])
	if listed := d.inside(commands[6]); !strings.Contains(listed, "JID") {
		t.Errorf("%s: %s", commands[6], listed)
	}
	for _, path := range []string{"usr/share/man/man1/webstatus-serve.1.gz", "usr/share/bash-completion/completions/webstatus"} {
		if !d.exists(path) {
			t.Errorf("%s is missing", path)
		}
	}

	if log := d.inside("journalctl --unit=webstatus --output=cat"); !strings.Contains(log, "\nlevel=INFO msg=serving ") {
		t.Errorf("the journal has:\n%s", log)
	}
	d.inside("systemctl reload webstatus")
	d.inside("systemctl kill --signal=ABRT webstatus") // as the watchdog does
	eventually(t, "the service is started again", func() bool {
		return d.inside("systemctl show --property=NRestarts --value webstatus") == "1\n"
	})
	d.wantLink(commands[5])
	stop := keepRequesting(t, pageOfDebian)
	for range 3 {
		d.inside("dpkg -i ./" + deb)
		d.wantLink(commands[5])
	}
	stop()
	testNode(t, d, commands[5])

	d.inside("systemctl stop webstatus.socket webstatus.service && rm /var/lib/webstatus/* && webstatus migrate --db /var/lib/webstatus/webstatus.db")
	d.inside("systemctl start webstatus") // the file belongs to root
	d.wantLink(commands[5])

	d.write("etc/webstatus/webstatus.env", "WEBSTATUS_DOMAIN=\n", 0o644)
	d.inside("dpkg -i ./" + deb)
	if kept := d.inside("cat /etc/webstatus/webstatus.env"); kept != "WEBSTATUS_DOMAIN=\n" {
		t.Errorf("the upgrade has changed the configuration: %s", kept)
	}
	if log := d.inside("journalctl --unit=webstatus --priority=err --output=cat"); !strings.Contains(log, "webstatus: --domain (WEBSTATUS_DOMAIN): required") ||
		strings.Contains(log, "level=INFO") {
		t.Errorf("the journal does not explain the failure:\n%s", log)
	}
	d.inside("dpkg -r webstatus")
	if d.exists("usr/bin/webstatus") || !d.exists("etc/webstatus/webstatus.env") || !d.exists("var/lib/webstatus/webstatus.db") {
		t.Error("removal must remove only the program")
	}
	if resp, err := http.Get(pageOfDebian); err == nil {
		resp.Body.Close()
		t.Error("the socket is open after removal")
	}
	d.inside("dpkg -P webstatus")
	if d.exists("etc/webstatus") || d.exists("var/lib/webstatus") {
		t.Error("files are left after purging")
	}
}

// mostBinary is the limit for the size of the binary, in bytes.
const mostBinary = 30 << 20

// testNode runs the commands of the README's section "More than one machine" for a node, on a PostgreSQL outside the machine, and upgrades it.
func testNode(t *testing.T, d *debian, statusCommand string) {
	location := newPostgresDatabase(t)
	commands := sectionCommands(t, "More than one machine", 7)[2:] // after those for the machine with PostgreSQL
	for i, command := range commands {
		listed := d.inside(strings.Replace(command, "postgres://webstatus:PASSWORD@db.example.org/webstatus", location, 1))
		if i == len(commands)-1 && !strings.Contains(listed, "JID") {
			t.Errorf("%s: %s", command, listed)
		}
	}
	d.wantLink(statusCommand)
	stop := keepRequesting(t, pageOfDebian)
	d.inside("dpkg -i ./" + filepath.Base(builtDeb))
	d.wantLink(statusCommand)
	stop()
	db, err := openDatabase(t.Context(), location, false)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var name string
	if err := db.sql.QueryRow("SELECT name FROM nodes").Scan(&name); err != nil || name+"\n" != d.inside("hostname") {
		t.Errorf("the node has the name %q: %v", name, err)
	}
	if log := d.inside("journalctl --unit=webstatus --output=cat"); strings.Contains(log, postgresPassword) {
		t.Error("the password is in the journal")
	}
	d.inside("rm -r /etc/systemd/system/webstatus.service.d && systemctl daemon-reload")
}

// pageOfDebian is the URL of the web server after installation.
const pageOfDebian = "http://127.0.0.1:8080/"

// wantLink waits until the service reports that it is linked, and until the page is served.
func (d *debian) wantLink(statusCommand string) {
	d.t.Helper()
	eventually(d.t, "the link", func() bool {
		status, err := d.command(statusCommand).Output()
		return err == nil && strings.Contains(string(status), `Status: "`+linked)
	})
	eventually(d.t, "a page", func() bool {
		resp, err := http.Get(pageOfDebian)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return err == nil && resp.StatusCode == 200 && strings.Contains(string(body), "webstatus.example.org")
	})
}

// sectionCommands returns the commands of a section of the README, without sudo.
func sectionCommands(t *testing.T, heading string, want int) (commands []string) {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(readme), "\n## "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		line, isCode := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "       ")
		if isCode && (strings.Contains(line, "sudo ") || strings.HasPrefix(line, "systemctl ")) {
			commands = append(commands, strings.Replace(line, "sudo ", "", 1))
		}
	}
	if len(commands) != want {
		t.Fatalf("%d commands: %q", len(commands), commands)
	}
	return commands
}
