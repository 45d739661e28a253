package main

import (
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A root is the root directory of a Debian that programs run in, or empty for the host system. Programs share the host's network,
// devices and temporary directory, so that ports and test files are the same inside and outside.
type root string

// inRoot runs a command in a root. A private mount namespace removes the mounts when the command ends for any reason.
const inRoot = `set -e
root=$1 tmp=$2
shift 2
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mkdir -p "$root$tmp"
mount --bind "$tmp" "$root$tmp"
exec chroot "$root" "$@"`

// command returns a command that runs in the root. Its process ID is that of the program.
func (r root) command(program string, args ...string) *exec.Cmd {
	if r == "" {
		return exec.Command(program, args...)
	}
	return exec.Command("unshare", append([]string{"--mount", "--propagation=private", "sh", "-c", inRoot, "sh", string(r), os.TempDir(), program}, args...)...)
}

// need returns the path of a program in the root.
func (r root) need(t testing.TB, program string) string {
	t.Helper()
	if r == "" {
		return need(t, program)
	}
	for _, dir := range []string{"/usr/bin", "/usr/sbin"} {
		path := filepath.Join(dir, program)
		if _, err := os.Stat(string(r) + path); err == nil {
			return path
		}
	}
	t.Fatalf("%s has no %s", r, program)
	return ""
}

// versions returns the versions of packages in the root, for the log.
func (r root) versions(packages ...string) string {
	out, _ := r.command("dpkg-query", append([]string{"--show", "--showformat=${Package} ${Version} "}, packages...)...).Output() // empty without dpkg
	return strings.TrimSpace(string(out))
}

// suitePackages are the packages that the tests use in each release of Debian.
var suitePackages = map[string][]string{
	"bookworm": {"systemd-sysv"},
	"trixie":   {"prosody", "prosody-modules", "ejabberd", "jabberd2"},
}

// roots holds the roots used so far in this run, or the error of creating them.
var roots = struct {
	sync.Mutex
	bySuite map[string]root
	failed  map[string]error
}{bySuite: map[string]root{}, failed: map[string]error{}}

// debianRoot returns a root with a release of Debian. Roots are cached in the user's cache directory; the tests only read them.
func debianRoot(t testing.TB, suite string) root {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can set up a Debian in a directory")
	}
	need(t, "debootstrap")
	need(t, "unshare")
	roots.Lock()
	defer roots.Unlock()
	if _, ok := roots.bySuite[suite]; !ok && roots.failed[suite] == nil {
		if out, err := exec.Command("unshare", "--mount", "--propagation=private", "chroot", "/", "mount", "-t", "tmpfs", "tmpfs", os.TempDir()).CombinedOutput(); err != nil {
			t.Skipf("chroot and mount do not work here: %v %s", err, out)
		}
		roots.bySuite[suite], roots.failed[suite] = cachedRoot(suite)
	}
	if err := roots.failed[suite]; err != nil {
		missing(t, fmt.Sprintf("no Debian %s: %v", suite, err))
	}
	return roots.bySuite[suite]
}

// cachedRoot returns a root from the cache, and creates it if it is missing or damaged.
func cachedRoot(suite string) (root, error) {
	packages := suitePackages[suite]
	dir, err := cached(suite, packages, func(dir string) bool { return root(dir).intact(packages) }, func(dir string) error {
		install := append([]string{"DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--no-install-recommends"}, packages...)
		for _, cmd := range []*exec.Cmd{
			root("/").command("debootstrap", "--variant=minbase", suite, dir), // debootstrap mounts file systems as well
			root(dir).command("env", install...),
			root(dir).command("apt-get", "clean"),
		} {
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
			}
		}
		return nil
	})
	return root(dir), err
}

// cached returns a directory in the user's cache, which is kept for the next run. It is filled if it is missing or not intact. Its name
// includes a hash of its contents list.
func cached(name string, contents []string, intact func(dir string) bool, fill func(dir string) error) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	cache = filepath.Join(cache, "webstatus-test")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	hash := fnv.New32a()
	fmt.Fprint(hash, contents)
	dir := filepath.Join(cache, fmt.Sprintf("%s-%08x", name, hash.Sum32()))
	lock, err := os.Create(dir + ".lock") // against another run
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil && intact(dir) {
		return dir, nil
	}
	unfinished := dir + ".unfinished"
	for _, old := range []string{dir, unfinished} {
		if err := os.RemoveAll(old); err != nil {
			return "", err
		}
	}
	if err := fill(unfinished); err != nil {
		return "", err
	}
	if !intact(unfinished) {
		return "", fmt.Errorf("%s is damaged after being filled", unfinished)
	}
	return dir, os.Rename(unfinished, dir)
}

// intact reports whether the root has the packages, and every file of every package.
func (r root) intact(packages []string) bool {
	for _, args := range [][]string{{"dpkg", "--verify"}, {"dpkg", "--audit"}} {
		if out, err := r.command(args[0], args[1:]...).CombinedOutput(); err != nil || len(out) > 0 {
			return false
		}
	}
	return exec.Command("chroot", append([]string{string(r), "dpkg-query", "--show"}, packages...)...).Run() == nil
}
