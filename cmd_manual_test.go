package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// configurationTable returns the flags of serve as a Markdown table.
func configurationTable() string {
	var conf config
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	conf.serveFlags(flags)
	var b strings.Builder
	b.WriteString("| flag | environment | default | |\n|---|---|---|---|\n")
	flags.VisitAll(func(f *pflag.Flag) {
		value := strings.Trim(f.DefValue, "[]")
		if value != "" {
			value = "`" + value + "`"
		}
		fmt.Fprintf(&b, "| `--%s` | `%s` | %s | %s |\n", f.Name, envName(f.Name), value, strings.ReplaceAll(plainUsage(f), "|", "\\|"))
	})
	return b.String()
}

// TestConfigurationTable checks that docs/operating.md lists the current flags. With -update it writes the table.
func TestConfigurationTable(t *testing.T) {
	const path, begin, end = "docs/operating.md", "<!-- begin: configuration -->\n", "<!-- end: configuration -->\n"
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(content), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no markers for the configuration table", path)
	}
	if table == configurationTable() {
		return
	}
	if !*update {
		t.Fatalf("%s is out of date: run the test with -update", path)
	}
	if err := os.WriteFile(path, []byte(before+begin+configurationTable()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestManual checks that the manual pages and the help topic are generated.
func TestManual(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := exec.Command("webstatus", "man", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for _, name := range []string{"webstatus.1", "webstatus-serve.1", "webstatus-users-list.1", "webstatus-backup.1"} {
		page, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.HasPrefix(string(page), ".") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if out, err := exec.Command("webstatus", "help", "configuration").CombinedOutput(); err != nil || !strings.Contains(string(out), "WEBSTATUS_TRUSTED_PROXY\n") {
		t.Errorf("%v %s", err, out)
	}
}

// TestLinks checks that the documents link to existing files.
func TestLinks(t *testing.T) {
	for _, path := range []string{"README.md", "docs/operating.md", "docs/privacy.md", "docs/architecture.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"} {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for part := range strings.SplitSeq(string(content), "](") {
			target, _, ok := strings.Cut(part, ")")
			if !ok || strings.Contains(target, " ") || strings.Contains(target, "://") || target == "" || strings.ContainsAny(target, "#\n") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), target)); err != nil && part != string(content) {
				t.Errorf("%s links to %s: %v", path, target, err)
			}
		}
	}
}
