package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A podman runs podman with images, containers and volumes of its own.
type podman struct {
	t    *testing.T
	args []string
}

func newPodman(t *testing.T) podman {
	t.Helper()
	need(t, "runc")
	dir := t.TempDir()
	return podman{t, []string{need(t, "podman"), "--root=" + filepath.Join(dir, "root"), "--runroot=" + filepath.Join(dir, "run"),
		"--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=none", "--runtime=runc"}}
}

func (p podman) command(args ...string) *exec.Cmd {
	args = append(p.args[1:len(p.args):len(p.args)], args...)
	return exec.Command(p.args[0], args...)
}

func (p podman) run(args ...string) string {
	p.t.Helper()
	var stderr bytes.Buffer
	cmd := p.command(args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("podman %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return strings.TrimSpace(string(out))
}

// importBase creates a replacement for the Go base image of dist/Containerfile: a shell, certificates, and a mount point for the Go
// installation that runs the tests.
func (p podman) importBase(name string) {
	p.t.Helper()
	dir := p.t.TempDir()
	for _, sub := range []string{"bin", "tmp", "root", "usr/local/go", "etc/ssl/certs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			p.t.Fatal(err)
		}
	}
	for to, from := range map[string]string{"bin/busybox": need(p.t, "busybox"), "etc/ssl/certs/ca-certificates.crt": "/etc/ssl/certs/ca-certificates.crt"} {
		content, err := os.ReadFile(from)
		if err != nil {
			missing(p.t, err.Error())
		}
		if err := os.WriteFile(filepath.Join(dir, to), content, 0o755); err != nil {
			p.t.Fatal(err)
		}
	}
	for _, program := range []string{"sh", "mkdir", "true"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", program)); err != nil {
			p.t.Fatal(err)
		}
	}
	tar := filepath.Join(p.t.TempDir(), "base.tar")
	if out, err := exec.Command("tar", "-C", dir, "-cf", tar, ".").CombinedOutput(); err != nil {
		p.t.Fatalf("%v %s", err, out)
	}
	p.run("import", "--change=ENV PATH=/usr/local/go/bin:/bin", "--change=ENV GOPROXY=off", "--change=ENV GOMODCACHE=/mod", "--change=ENV GOCACHE=/cache", tar, name)
}

// runArgs returns the arguments for a container that uses the host's network and has no more privileges than the test.
func runArgs(more ...string) []string {
	return append([]string{"run", "--rm", "--network=host", "--pull=never", "--ulimit=nofile=4096:4096", "--ulimit=nproc=1024:1024"}, more...)
}

// TestE2EContainer builds and runs the image, and checks its user, its database volume and its health check.
func TestE2EContainer(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can run containers here")
	}
	p := newPodman(t)
	const base = "docker.io/library/golang:1.26"
	p.importBase(base)
	if out, err := p.command(runArgs(base, "true")...).CombinedOutput(); err != nil {
		t.Skipf("containers do not work here: %v %s", err, out)
	}
	p.run("build", "--pull=never", "--isolation=chroot", "--format=docker", "--volume="+goEnv(t, "GOROOT")+":/usr/local/go:ro",
		"--volume="+goEnv(t, "GOMODCACHE")+":/mod", "--volume="+goEnv(t, "GOCACHE")+":/cache", "--file=dist/Containerfile", "--tag=webstatus", ".")

	s := newServer(t, "prosody")
	web, metrics := "127.0.0.1:"+strconv.Itoa(freePort(t)), "127.0.0.1:"+strconv.Itoa(freePort(t))
	args := runArgs("--name=webstatus", "--volume=data:/data", "--env=WEBSTATUS_DOMAIN="+testDomain, "--env=WEBSTATUS_SECRET="+testSecret,
		"--env=WEBSTATUS_SERVER="+s.componentAddress(), "--env=WEBSTATUS_ALLOW=localhost", "--env=WEBSTATUS_LISTEN="+web,
		"--env=WEBSTATUS_METRICS_LISTEN="+metrics, "webstatus")
	a := &appliance{process: start(t, p.command(args...)), url: "http://" + web}
	a.waitLog(t, linked)
	c := s.login(t, "user1", "desk")
	c.send(t, `<presence/>`)
	c.join(t, "")
	a.want(t, c.bare, shown{state: "available"})
	p.run("healthcheck", "run", "webstatus")
	status, err := os.ReadFile("/proc/" + p.run("inspect", "--format={{.State.Pid}}", "webstatus") + "/status")
	if err != nil || !strings.Contains(string(status), "\nUid:\t65532\t65532\t") {
		t.Errorf("it runs as root: %v %s", err, status)
	}

	a.end(t, syscall.SIGTERM)
	a.process = start(t, p.command(args...))
	a.waitLog(t, linked)
	a.want(t, c.bare, shown{state: "available"})
	s.process.end(t, syscall.SIGTERM)
	eventually(t, "it is not well", func() bool { return p.command("healthcheck", "run", "webstatus").Run() != nil })
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
