package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A terminal runs a program in tmux.
type terminal struct{ tmux, socket string }

// newTerminal starts a program that runs until the test ends.
func newTerminal(t testing.TB, home string, program ...string) *terminal {
	t.Helper()
	term := &terminal{tmux: need(t, "tmux"), socket: filepath.Join(home, "tmux")}
	cmd := term.command(append([]string{"-f", "/dev/null", "new-session", "-d", "-x", "110", "-y", "50"}, program...)...)
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME=", "XDG_DATA_HOME=", "LC_ALL=C.UTF-8", "TERM=xterm-256color")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tmux: %v %s", err, out)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("on the screen:\n%s", term.screen())
		}
		term.command("kill-server").Run() // it may have exited already
	})
	return term
}

func (term *terminal) command(args ...string) *exec.Cmd {
	return exec.Command(term.tmux, append([]string{"-S", term.socket}, args...)...)
}

// screen returns the text on the screen, with wrapped lines joined.
func (term *terminal) screen() string {
	out, err := term.command("capture-pane", "-p", "-J").Output()
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// shows waits until the screen contains a text.
func (term *terminal) shows(t testing.TB, text string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%q on the screen", text), func() bool { return strings.Contains(term.screen(), text) })
}

// enter types a line.
func (term *terminal) enter(t testing.TB, line string) {
	t.Helper()
	for _, keys := range [][]string{{"-l", line}, {"Enter"}} {
		if out, err := term.command(append([]string{"send-keys"}, keys...)...).CombinedOutput(); err != nil {
			t.Fatalf("tmux: %v %s", err, out)
		}
	}
}

// testProfanity finds the service, registers, changes options and unregisters with Profanity.
func testProfanity(t *testing.T, s *server, service string) {
	profanity := need(t, "profanity")
	a := newAppliance(t, s.componentAddress())
	s.login(t, "user2", "cleanup").dropContact(t)
	home := t.TempDir()
	accounts := filepath.Join(home, ".local", "share", "profanity", "accounts")
	if err := os.MkdirAll(filepath.Dir(accounts), 0o700); err != nil {
		t.Fatal(err)
	}
	account := fmt.Sprintf("[me]\nenabled=true\njid=user2@localhost\nserver=127.0.0.1\nport=%d\ntls.policy=disable\nresource=profanity\npassword=pass-user2\n", s.c2s)
	if err := os.WriteFile(accounts, []byte(account), 0o600); err != nil {
		t.Fatal(err)
	}
	term := newTerminal(t, home, profanity, "-a", "me")
	term.shows(t, "logged in successfully")
	term.enter(t, "/disco items")
	term.shows(t, "  "+testDomain)
	term.enter(t, "/disco info "+service)
	term.shows(t, "web presence")
	term.enter(t, "/msg "+service+" register")
	term.shows(t, "You are registered.")
	term.shows(t, "Authorization request")
	term.enter(t, "/sub allow "+service)
	a.want(t, "user2@localhost", shown{state: "available"})
	term.enter(t, "/sub request "+service)
	term.enter(t, "/win 1")
	term.shows(t, " (web) is online") // under the name or the address
	term.enter(t, "/cmd exec options "+service)
	term.shows(t, "Form title: Options")
	term.enter(t, "/field1 on")
	term.shows(t, "[field1] Show status msg: TRUE")
	term.enter(t, "/field2 on")
	term.shows(t, "[field2] Show full JID: TRUE")
	term.enter(t, "/form submit")
	a.want(t, "user2@localhost", shown{state: "available", jid: "user2@localhost"})
	term.enter(t, `/status set dnd "Rehearsing"`)
	a.want(t, "user2@localhost", shown{"dnd", "Rehearsing", "user2@localhost"})
	term.enter(t, "/win 2")
	term.enter(t, "status")
	term.shows(t, "Others see: Do not disturb – Rehearsing – user2@localhost")
	term.enter(t, "unregister")
	term.shows(t, "unregister” again")
	term.enter(t, "unregister")
	term.shows(t, "You are no longer registered.")
	if code, _ := a.get(t, jidPath("user2@localhost")); code != http.StatusNotFound {
		t.Errorf("%d after unregistering", code)
	}
	term.enter(t, "/win 1")
	term.shows(t, " deleted subscription")
	term.enter(t, "/who online")
	term.shows(t, "No contacts are online.")
	term.enter(t, "/quit")
}
