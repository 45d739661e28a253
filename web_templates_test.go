package main

import (
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestReload changes a template and then breaks it while pages are served.
func TestReload(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	f.site.templates = t.TempDir()
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(f.site.templates, "status.html"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.get(julietPage) // fill the cache
	go f.site.reload(t.Context())
	sendSIGHUP := func() {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	ignoreSIGHUP()
	write(`<p>{{(index .People 0).Label}}, says my own page</p>`)
	eventually(t, "the operator's page is shown", func() bool {
		sendSIGHUP()
		_, body := f.get(julietPage)
		return body == `<p>Available, says my own page</p>`
	})
	write(`{{.Nonsense}}`)
	eventually(t, "the log says what is wrong", func() bool {
		sendSIGHUP()
		return strings.Contains(f.log.String(), "status.html:1:")
	})
	if _, body := f.get(julietPage); body != `<p>Available, says my own page</p>` {
		t.Errorf("with an invalid template: %s", body)
	}
}

// ignoreSIGHUP keeps a SIGHUP without a handler from ending the tests. It does so for good, because the last one may still be on its
// way when a test ends.
func ignoreSIGHUP() { signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP) }
