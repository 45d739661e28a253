package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// npmPackages lists the clients that npm installs.
var npmPackages = []string{"@xmpp/client@0.14.0", "converse.js@14.0.0"}

// npmModules returns the directory with the clients that npm installed.
var npmModules = sync.OnceValues(func() (string, error) {
	dir, err := cached("npm", npmPackages, func(dir string) bool {
		return exec.Command("npm", "ls", "--prefix", dir).Run() == nil
	}, func(dir string) error {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		args := slices.Concat([]string{"install", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund"}, npmPackages)
		if out, err := exec.Command("npm", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("npm: %w\n%s", err, out)
		}
		return nil
	})
	return filepath.Join(dir, "node_modules"), err
})

func needModules(t testing.TB) string {
	t.Helper()
	need(t, "npm")
	modules, err := npmModules()
	if err != nil {
		missing(t, err.Error())
	}
	return modules
}

// testXMPPJS uses the service with an xmpp.js client, from discovery to unregistering.
func testXMPPJS(t *testing.T, s *server, service string) {
	modules, node := needModules(t), need(t, "node")
	newAppliance(t, s.componentAddress())
	s.login(t, "user3", "cleanup").dropContact(t)
	dir := t.TempDir() // Node.js resolves modules relative to the script
	script, err := os.ReadFile("testdata/e2e/client.mjs")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "client.mjs"), script, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, filepath.Join(dir, "client.mjs"), "127.0.0.1", strconv.Itoa(s.c2s), "localhost", "user3", "pass-user3", service)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "done\n") {
		t.Errorf("%v\n%s", err, out)
	}
}
