package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// receiver is a receiver of the webhook: it verifies and prints each request. Its arguments are a port and a file with the key.
const receiver = `
import hashlib, hmac, http.server, sys

class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        signed = self.headers["Webstatus-Timestamp"].encode() + b"." + body
        want = hmac.new(open(sys.argv[2], "rb").read(), signed, hashlib.sha256).hexdigest()
        verified = hmac.compare_digest(want, self.headers["Webstatus-Signature"])
        print("verified" if verified else "forged", body.decode(), flush=True)
        self.send_response(204)
        self.end_headers()
    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
`

// newPostingFixture returns a fixture with a webhook.
func newPostingFixture(t *testing.T, url string) *fixture {
	t.Helper()
	f := newFixture(t, func(c *componentConfig) { c.webhook = true })
	f.stop()
	f.hook = webhookConfig{url: url, secret: "the key", retry: time.Millisecond}
	f.start()
	return f
}

// posted returns what the webhook would get for Juliet.
func (f *fixture) posted() string {
	s := *f.comp.board.byJID(juliet).snapshot.Load()
	s.options = s.options.with(fieldPost, true)
	var e entry
	e.snapshot.Store(&s)
	return string(newWebhook(webhookConfig{}, f.site).body(s.token, &e))
}

// TestWebhook posts to a receiver that is killed and started again. It must get all changes in order, and the newest one of those that it
// has missed.
func TestWebhook(t *testing.T) {
	python, key, port := need(t, "python3"), filepath.Join(t.TempDir(), "key"), strconv.Itoa(freePort(t))
	if err := os.WriteFile(key, []byte("the key"), 0o600); err != nil {
		t.Fatal(err)
	}
	first := start(t, exec.Command(python, "-c", receiver, port, key))
	eventually(t, "the receiver listens", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
	f := newPostingFixture(t, "http://127.0.0.1:"+port+"/hidden")
	f.register("<show_status_msg>1</show_status_msg><post_changes>1</post_changes>")
	says := func(from, to int) {
		t.Helper()
		for i := from; i <= to; i++ {
			f.advance(time.Second) // within the rate limit
			f.says("b", "", "<status>"+strconv.Itoa(i)+"</status>")
		}
	}
	// messages returns the messages that a receiver has got.
	messages := func(p *process) (all []int) {
		t.Helper()
		for line := range strings.Lines(p.out.String()) {
			if !strings.HasSuffix(line, "\n") { // not yet complete
				break
			}
			if !strings.HasPrefix(line, `verified {"page":"https://status.example.org/status/`+Token{}.String()+`","status":{"version":1,`) {
				t.Fatalf("the receiver got %s", line)
			}
			_, rest, _ := strings.Cut(line, `"message":"`)
			if i, err := strconv.Atoi(strings.SplitN(rest, `"`, 2)[0]); err == nil {
				all = append(all, i)
			}
		}
		return all
	}
	got := func(p *process, last int) func() bool {
		return func() bool { all := messages(p); return len(all) > 0 && all[len(all)-1] == last }
	}
	for i := 1; i <= 100; i += 10 {
		says(i, i+9)
		eventually(t, "the receiver has the last change", got(first, i+9))
	}
	if all := messages(first); len(all) < 10 || !slices.IsSorted(all) {
		t.Fatalf("not in order: %v", all)
	}

	first.end(t, syscall.SIGKILL)
	says(101, 120)
	eventually(t, "the failure is logged", func() bool { return strings.Contains(f.log.String(), "the webhook fails") })
	second := start(t, exec.Command(python, "-c", receiver, port, key))
	eventually(t, "the receiver has the newest change", got(second, 120))
	if all := messages(second); len(all) != 1 {
		t.Errorf("changes that have been superseded are posted: %v", all)
	}
	eventually(t, "the recovery is logged", func() bool { return strings.Contains(f.log.String(), "the webhook works again") })
	metrics := httptest.NewServer(collector{f.comp, f.site, f.db}.handler())
	defer metrics.Close()
	if _, body := fetch(t, metrics.URL+"/metrics"); strings.Contains(body, `webstatus_webhook_requests_total{result="failed"} 0`) ||
		!strings.Contains(body, `webstatus_webhook_requests_total{result="sent"}`) || !strings.Contains(body, "webstatus_webhook_dropped_total 0") {
		t.Error(body)
	}
	if log := f.log.String(); strings.Count(log, "the webhook fails") != 1 || strings.Contains(log, "hidden") || strings.Contains(log, "the key") {
		t.Errorf("the log has:\n%s", log)
	}
}

// A recorder is a server that records request bodies.
type recorder struct {
	*httptest.Server
	t      *testing.T
	bodies chan string
}

// newRecorder returns a recorder that answers with a status.
func newRecorder(t *testing.T, status int) *recorder {
	r := &recorder{t: t, bodies: make(chan string, 100)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		body := make([]byte, req.ContentLength)
		if _, err := req.Body.Read(body); err != nil && int64(len(body)) != req.ContentLength {
			t.Error(err)
		}
		r.bodies <- req.URL.Path + " " + string(body)
		rw.Header().Set("Location", "/elsewhere")
		rw.WriteHeader(status)
	}))
	t.Cleanup(r.Close)
	return r
}

// want checks the next request: the page's token and the JSON of the status.
func (r *recorder) want(token Token, status string) {
	r.t.Helper()
	want := `/ {"page":"https://status.example.org/status/` + token.String() + `","status":` + status + `}`
	if got := r.next(); got != want {
		r.t.Errorf("got  %s\nwant %s", got, want)
	}
}

// next returns the path and the body of the next request.
func (r *recorder) next() string {
	r.t.Helper()
	select {
	case got := <-r.bodies:
		return got
	case <-time.After(patience):
		r.t.Fatal("no request")
		return ""
	}
}

const unknownJSON = `{"version":1,"state":"unknown","label":"Unknown"}`

// TestWebhookChoice checks that only users who allow it are posted, and that the receiver hears when they do not anymore.
func TestWebhookChoice(t *testing.T) {
	r := newRecorder(t, http.StatusOK)
	f := newPostingFixture(t, r.URL+"/")
	f.register("")
	f.says("b", "", "<show>dnd</show>")
	f.options("<post_changes>1</post_changes>")
	_, dnd := f.get(julietPage + ".json")
	r.want(Token{}, dnd)
	f.says("b", "", "<show>away</show>")
	_, away := f.get(julietPage + ".json")
	r.want(Token{}, away)
	f.write("newlink")
	r.want(Token{}, unknownJSON)
	renewed := f.comp.board.byJID(juliet).snapshot.Load().token
	r.want(renewed, away)
	f.comp.board.replaceLink(f.now(), func(l *linkState) { l.oldestValid = l.number + 1 })
	r.want(renewed, unknownJSON)
	f.comp.board.linkUp(f.now())
	f.says("b", "", "<show>xa</show>")
	_, xa := f.get(julietPage + ".json")
	r.want(renewed, xa)
	f.options("<post_changes>0</post_changes>")
	r.want(renewed, unknownJSON)
	f.says("b", "", "<show>chat</show>")
	f.options("<post_changes>1</post_changes>")
	_, chat := f.get(julietPage + ".json")
	r.want(renewed, chat)
	f.send(`<iq type='set' id='x' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><remove/></query></iq>`)
	r.want(renewed, unknownJSON)
}

// TestWebhookIsNotOffered checks that the option is not offered without a webhook.
func TestWebhookIsNotOffered(t *testing.T) {
	f := newFixture(t, nil)
	f.register("<post_changes>1</post_changes>")
	f.settled(juliet)
	if f.comp.board.byJID(juliet).snapshot.Load().isPosted() {
		t.Error("the option can be switched on")
	}
	f.send(`<iq type='get' id='q' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'/></iq>`)
	if form := f.next(); strings.Contains(form, "post_changes") {
		t.Error(form)
	}
}

// TestWebhookRefused checks that refused changes are given up, that redirects are not followed, and that certificates are verified.
func TestWebhookRefused(t *testing.T) {
	for _, status := range []int{http.StatusNotFound, http.StatusFound, http.StatusTemporaryRedirect} {
		r := newRecorder(t, status)
		f := newPostingFixture(t, r.URL+"/")
		f.register("<post_changes>1</post_changes>")
		f.says("b", "", "<show>dnd</show>")
		last := ""
		eventually(t, "the last change", func() bool { last = r.next(); return strings.Contains(last, `"dnd"`) })
		f.stop()
		if h := f.site.webhook; h.sent.Load() != 0 || h.failed.Load() != h.dropped.Load() || len(r.bodies) > 0 || !strings.HasPrefix(last, "/ ") {
			t.Errorf("%d: %d sent, %d failed, %d dropped, %d more requests; the last is %s", status, h.sent.Load(), h.failed.Load(), h.dropped.Load(), len(r.bodies), last)
		}
	}
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	f := newPostingFixture(t, secure.URL)
	f.register("<post_changes>1</post_changes>")
	eventually(t, "the certificate is refused", func() bool { return strings.Contains(f.log.String(), "failed to verify certificate") })
}

// TestWebhookShutdown checks that a change that waits at shutdown is still posted, and that a receiver that fails ends the wait.
func TestWebhookShutdown(t *testing.T) {
	r := newRecorder(t, http.StatusOK)
	r.bodies = make(chan string) // the receiver hangs until it is read
	f := newPostingFixture(t, r.URL+"/")
	f.register("<post_changes>1</post_changes>")
	f.says("b", "", "<show>dnd</show>")
	stopped := make(chan struct{})
	go func() { f.stop(); close(stopped) }()
	<-f.site.closing.Done()
	for last := ""; !strings.Contains(last, `"dnd"`); {
		last = r.next()
	}
	<-stopped

	r = newRecorder(t, http.StatusServiceUnavailable)
	f = newPostingFixture(t, r.URL+"/")
	f.register("<post_changes>1</post_changes>")
	r.next()
	f.stop()
	if n := f.site.webhook.dropped.Load(); n != 1 {
		t.Errorf("%d changes are dropped", n)
	}
}

// TestWebhookIsBounded checks that a limited number of people wait.
func TestWebhookIsBounded(t *testing.T) {
	h := newWebhook(webhookConfig{}, nil)
	for i := range maxWebhookWaiting + 10 {
		for range 2 {
			h.add(Token{byte(i), byte(i >> 8)}, nil)
		}
	}
	if h.length() != maxWebhookWaiting || h.dropped.Load() != 20 {
		t.Errorf("%d wait, %d are dropped", h.length(), h.dropped.Load())
	}
}
