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
	t.Cleanup(func() { // a container that has just ended may still have its shared memory mounted
		mounts, _ := os.ReadFile("/proc/self/mounts")
		for line := range strings.Lines(string(mounts)) {
			if at := strings.Fields(line)[1]; strings.HasPrefix(at, dir) {
				exec.Command("umount", "-l", at).Run()
			}
		}
	})
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

// importDir creates an image from a directory, owned by nobody, with changes in the syntax of a Containerfile.
func (p podman) importDir(name, dir string, changes ...string) {
	p.t.Helper()
	tar := filepath.Join(p.t.TempDir(), "image.tar")
	if out, err := exec.Command("tar", "-C", dir, "--owner=65534", "--group=65534", "-cf", tar, ".").CombinedOutput(); err != nil {
		p.t.Fatalf("%v %s", err, out)
	}
	args := []string{"import"}
	for _, change := range changes {
		args = append(args, "--change="+change)
	}
	p.run(append(args, tar, name)...)
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
	p.importDir(name, dir, "ENV PATH=/usr/local/go/bin:/bin", "ENV GOPROXY=off", "ENV GOMODCACHE=/mod", "ENV GOCACHE=/cache")
}

// runArgs returns the arguments for a container that uses the host's network and has no more privileges than the test.
func runArgs(more ...string) []string {
	return append([]string{"run", "--rm", "--network=host", "--pull=never", "--ulimit=nofile=4096:4096", "--ulimit=nproc=1024:1024"}, more...)
}

// TestE2EContainer builds the image, runs it, and runs the compose file with it.
func TestE2EContainer(t *testing.T) {
	t.Parallel()
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
	t.Run("image", func(t *testing.T) { testImage(t, p) })
	t.Run("compose", func(t *testing.T) { testCompose(t, p) })
}

// testImage checks the image's user, its database volume and its health check.
func testImage(t *testing.T, p podman) {
	p.t = t
	s := newServer(t, "prosody")
	web, metrics := "127.0.0.1:"+strconv.Itoa(freePort(t)), "127.0.0.1:"+strconv.Itoa(freePort(t))
	args := runArgs("--name=webstatus", "--volume=data:/data", "--env=WEBSTATUS_DOMAIN="+testDomain, "--env=WEBSTATUS_SECRET="+testSecret,
		"--env=WEBSTATUS_SERVER="+s.componentAddress(), "--env=WEBSTATUS_ALLOW=localhost", "--env=WEBSTATUS_LISTEN="+web,
		"--env=WEBSTATUS_METRICS_LISTEN="+metrics, "webstatus")
	t.Cleanup(func() { p.command("rm", "--force", "--time=0", "webstatus").Run() }) // which outlives a podman that is killed
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

// imageProsodyConfig reads the variables of Prosody's image that dist/compose.yaml sets.
const imageProsodyConfig = `data_path = "/var/lib/prosody"
pidfile = "/var/lib/prosody/prosody.pid"
log = "*console"
VirtualHost (ENV_PROSODY_VIRTUAL_HOSTS)
Component (ENV_PROSODY_EXTERNAL_COMPONENTS)
	component_secret = ENV_PROSODY_COMPONENT_SECRET
Include "/etc/prosody/conf.d/*.cfg.lua"
`

// composeOverride takes the programs of Prosody's container from a root directory.
const composeOverride = `services:
  prosody:
    ulimits: {nofile: "4096:4096", nproc: "1024:1024"}
    volumes: ["ROOT/usr:/usr:ro"]
  webstatus:
    ulimits: {nofile: "4096:4096", nproc: "1024:1024"}
    environment: {WEBSTATUS_SERVER: "127.0.0.1:5347"}
`

// podmanWrapper runs podman for podman-compose, with the network that it is in for all containers. The services have no names there.
const podmanWrapper = `#!/bin/sh
[ "$1" = network ] && exit
for arg; do
	shift
	case $skip$arg in
	--net) set -- "$@" --net=host; skip=skip ;;
	--network-alias | -p) skip=skip ;;
	skip*) skip= ;;
	*) set -- "$@" "$arg" ;;
	esac
done
exec PODMAN "$@"
`

// testCompose starts the services of dist/compose.yaml in a network of their own, with a replacement for Prosody's image.
func testCompose(t *testing.T, p podman) {
	p.t = t
	image, dir := t.TempDir(), t.TempDir()
	for _, sub := range []string{"usr", "tmp", "etc/prosody/certs", "etc/prosody/conf.d", "var/lib/prosody"} {
		if err := os.MkdirAll(filepath.Join(image, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{"bin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+link, filepath.Join(image, link)); err != nil {
			t.Fatal(err)
		}
	}
	network := start(t, exec.Command("unshare", "--net", need(t, "busybox"), "sh", "-c", "busybox ifconfig lo up && busybox echo up && exec busybox sleep 1000000"))
	eventually(t, "a network", func() bool { return network.out.String() == "up\n" })
	inside := []string{"nsenter", "--net=/proc/" + strconv.Itoa(network.cmd.Process.Pid) + "/ns/net"}
	for path, content := range map[string]string{
		filepath.Join(image, "etc/prosody/prosody.cfg.lua"): imageProsodyConfig,
		filepath.Join(dir, "override.yaml"):                 strings.Replace(composeOverride, "ROOT", string(debianRoot(t, "trixie")), 1),
		filepath.Join(dir, ".env"):                          "COMPONENT_SECRET=" + testSecret + "\n",
		filepath.Join(dir, "podman"):                        strings.Replace(podmanWrapper, "PODMAN", strings.Join(append(inside, p.args...), " "), 1),
	} {
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"compose.yaml", "compose-prosody.cfg.lua"} {
		content, err := os.ReadFile(filepath.Join("dist", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p.importDir("docker.io/prosodyim/prosody:13.0", image, "USER 65534:65534", "ENV PATH=/usr/bin", `CMD ["prosody", "-F"]`)

	compose := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(need(t, "podman-compose"), append([]string{"--podman-path=" + filepath.Join(dir, "podman"), "--project-name=webstatus", "-f", "compose.yaml", "-f", "override.yaml"}, args...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("podman-compose %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	compose("up", "--detach", "--no-build")
	t.Cleanup(func() { compose("down") })
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(compose("logs"))
			out, _ := p.command("ps", "--all").CombinedOutput() // only for the log
			t.Logf("%s", out)
		}
	})
	eventually(t, "the services are well", func() bool {
		return exec.Command(filepath.Join(dir, "podman"), "healthcheck", "run", "webstatus_webstatus_1").Run() == nil
	})
	page, err := exec.Command(inside[0], inside[1], "busybox", "wget", "-q", "-O", "-", "http://localhost:8080/").Output()
	if err != nil || !strings.Contains(string(page), "webstatus.localhost") {
		t.Errorf("the start page: %v %s\n%s", err, page, compose("logs"))
	}
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
