package main

import (
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestReload has the operator change a template, and then break it, while pages are shown.
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
	f.get(julietPage) // which is kept
	go f.site.reload(t.Context(), f.conf.domain)
	hangUp := func() {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	keepHangUps(t)
	write(`<p>{{(index .People 0).Label}}, says my own page</p>`)
	eventually(t, "the operator's page is shown", func() bool {
		hangUp()
		_, body := f.get(julietPage)
		return body == `<p>Available, says my own page</p>`
	})
	write(`{{.Nonsense}}`)
	eventually(t, "the log says what is wrong", func() bool {
		hangUp()
		return strings.Contains(f.log.String(), "status.html:1:")
	})
	if _, body := f.get(julietPage); body != `<p>Available, says my own page</p>` {
		t.Errorf("after a mistake: %s", body)
	}
}

// keepHangUps keeps a SIGHUP from ending the tests while nobody listens for it.
func keepHangUps(t *testing.T) {
	hangUps := make(chan os.Signal, 1)
	signal.Notify(hangUps, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(hangUps) })
}
