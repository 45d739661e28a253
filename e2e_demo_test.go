package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestE2EDemo opens the page of the demo and checks that every format shows Juliet's status, and then the next one.
func TestE2EDemo(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)
	listener, err := listenAnyPort("127.0.0.1:0", false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	out, done := &lockedBuffer{}, make(chan error, 1)
	go func() {
		done <- demo(ctx, config{}, listener, out, slog.New(slog.NewTextHandler(io.Discard, nil)))
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	pageURL := regexp.MustCompile(`http://\S+/demo`)
	eventually(t, "the demo prints its address", func() bool { return pageURL.MatchString(out.String()) })
	tab := newTab(t, browser, pageURL.FindString(out.String()))
	tab.emulate(t, chromedp.EmulateViewport(1000, 1060))
	// All formats show the same state at some time.
	const shown = `(() => {
		const status = JSON.parse(document.querySelector("#json pre").textContent || "{}"), label = status.label;
		const frames = [...document.querySelectorAll("iframe")].map(f => f.contentDocument?.querySelector(".label")?.textContent);
		const elements = [...document.querySelectorAll("xmpp-status")].map(e => e.shadowRoot?.querySelector("[part=label]")?.textContent);
		const images = [...document.querySelectorAll("img")];
		const details = [status.activity_label, status.mood_label, status.tune && "♫ " + status.tune].filter(Boolean).join("|");
		const listed = root => [...root?.querySelectorAll(".details:not([hidden]) li, [part=detail]") ?? []].map(e => e.innerText).join("|");
		const agree = (details || status.state === "unavailable") && listed(document.querySelector("iframe").contentDocument) === details &&
			listed(document.querySelector("xmpp-status").shadowRoot) === details && frames.length === 2 && frames.every(f => f === label) && elements.length === 3 && elements.every(e => e === label) &&
			document.querySelector("#text pre").textContent.startsWith(label) && images.length === 6 && images.every(i => i.complete && i.naturalWidth > 0);
		if (agree) (window.seen ||= new Set()).add(status.state);
		return String(window.seen ? window.seen.size : 0);
	})()`
	tab.wants(t, shown, "1")
	tab.picture(t, "demo.png")
	tab.wants(t, shown, "2")
}

// TestE2EDemoNodes kills a node of the demo with the button on its page, and starts it again, while the others follow the people. At the
// end, no process and no file is left.
func TestE2EDemoNodes(t *testing.T) {
	t.Parallel()
	if postgresProgram("postgres") == "" {
		missing(t, errNoPostgres.Error())
	}
	browser := newBrowser(t)
	dir, err := os.MkdirTemp("", "demo-") // unlike the test's own, accessible for the user who runs PostgreSQL
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cmd := exec.Command("webstatus", "demo", "--nodes", "3", "--listen", fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	p := start(t, cmd)
	eventually(t, "the demo prints its addresses", func() bool { return strings.Contains(p.out.String(), "Ctrl-C") })
	tab := newTab(t, browser, regexp.MustCompile(`all nodes +(\S+)`).FindStringSubmatch(p.out.String())[1])
	tab.emulate(t, chromedp.EmulateViewport(1240, 740))
	var nodes []string // URLs of everybody's status
	for _, found := range regexp.MustCompile(`node\d +(\S+)/\n`).FindAllStringSubmatch(p.out.String(), -1) {
		nodes = append(nodes, found[1]+allPath(demoActors())+".json")
	}
	// agree waits until nodes know everybody's status and show the same, another one than before, and returns it.
	agree := func(before string, nodes ...string) string {
		t.Helper()
		var all []string
		eventually(t, "the nodes agree", func() bool {
			all = nil
			for _, n := range nodes {
				response, err := http.Get(n)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(response.Body)
				response.Body.Close()
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, string(body))
			}
			return !strings.Contains(all[0], `"unknown"`) && !strings.Contains(all[0], "as_of") && all[0] != before && countEqual(all) == len(nodes)
		})
		return all[0]
	}
	shown := agree(agree("", nodes...), nodes...)
	tab.wantsFramed(t, ".nick", "Juliet")
	tab.run(t, `document.querySelector("#node2 button").click()`)
	tab.wants(t, `document.querySelector("#node2.killed button").textContent`, "Start")
	if _, err := http.Get(nodes[1]); err == nil {
		t.Error("a killed node answers")
	}
	shown = agree(agree(shown, nodes[0], nodes[2]), nodes[0], nodes[2])
	tab.picture(t, "nodes.png")
	tab.run(t, `document.querySelector("#node2 button").click()`)
	tab.wants(t, `document.querySelector("#node2:not(.killed) button").textContent`, "Kill")
	agree(agree(shown, nodes...), nodes...)

	pidFiles, err := filepath.Glob(filepath.Join(dir, "webstatus-postgres-*/data/postmaster.pid"))
	if err != nil || len(pidFiles) != 1 {
		t.Fatal(pidFiles, err)
	}
	pid, err := os.ReadFile(pidFiles[0])
	if err != nil {
		t.Fatal(err)
	}
	p.end(t, syscall.SIGTERM)
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("files are left: %v %v", left, err)
	}
	line, _, _ := strings.Cut(string(pid), "\n")
	if n, err := strconv.Atoi(line); err != nil || syscall.Kill(n, 0) != syscall.ESRCH {
		t.Errorf("PostgreSQL, process %s, is left", line)
	}
	for _, n := range nodes {
		if _, err := http.Get(n); err == nil {
			t.Errorf("%s still answers", n)
		}
	}
}
