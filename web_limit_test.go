package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestRenderBudget checks that a client that requests many large images gets 429 Too Many Requests but still gets cached responses,
// and that other clients are not affected.
func TestRenderBudget(t *testing.T) {
	f := newFixture(t, nil)
	f.site.proxies = loopbackProxies
	f.site.limits.budgets.burst = 100 * time.Millisecond // too little to fill the cache
	clock := &stepClock{time: noon, step: 5 * time.Millisecond}
	f.site.limits.now = clock.now
	f.register("")
	f.says("b", "", "")
	const stranger, other = "192.0.2.1", "192.0.2.2"
	ask := func(client, path string) *http.Response {
		t.Helper()
		resp, _ := f.get(path, "X-Forwarded-For", client)
		return resp
	}
	for _, path := range []string{julietPage, statusPath + juliet + "/html", "/presence/jid/juliet/example.org/xml"} {
		if resp := ask(stranger, path); resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
	}
	for i := 0; ; i++ {
		resp := ask(stranger, julietPage+fmt.Sprintf(".png?size=480&style=plastic&label=%060d", i))
		if resp.StatusCode == http.StatusTooManyRequests {
			if resp.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After header")
			}
			break
		}
		if i > 1000 {
			t.Fatal("the client is never limited")
		}
	}
	clock.stop()
	for path, want := range map[string]int{julietPage: http.StatusOK, statusPath + juliet + "/html": http.StatusOK, "/presence/jid/juliet/example.org/xml": http.StatusOK,
		julietPage + "/embed": http.StatusTooManyRequests, statusPath + juliet + "/image": http.StatusTooManyRequests,
		"/presence/jid/juliet/example.org/image": http.StatusTooManyRequests, statusPath + "nobody.png": http.StatusTooManyRequests} {
		if resp := ask(stranger, path); resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, resp.Status, want)
		}
	}
	if resp := ask(other, julietPage+".png?label=other"); resp.StatusCode != http.StatusOK {
		t.Errorf("another client: %s", resp.Status)
	}
}

// A stalledWriter is a client that does not read: writing blocks until the test ends.
type stalledWriter struct {
	header  http.Header
	writing chan struct{} // closed at the first write
	once    sync.Once
	end     context.Context
}

func (w *stalledWriter) Header() http.Header { return w.header }
func (w *stalledWriter) WriteHeader(int)     {}
func (w *stalledWriter) Write(p []byte) (int, error) {
	w.once.Do(func() { close(w.writing) })
	<-w.end.Done()
	return 0, w.end.Err()
}

// TestStalledClient checks that a client that does not read its response does not block others at the same address.
func TestStalledClient(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	handler := f.site.handler()
	for i, path := range []string{julietPage + "/embed", julietPage + ".png?label=", statusPath + juliet + "/html", julietPage + "," + julietPage[len(statusPath):] + "?theme="} {
		stalled := &stalledWriter{header: make(http.Header), writing: make(chan struct{}), end: t.Context()}
		go handler.ServeHTTP(stalled, httptest.NewRequest("GET", path, nil))
		<-stalled.writing
		neighbor := httptest.NewRecorder()
		handler.ServeHTTP(neighbor, httptest.NewRequest("GET", julietPage+fmt.Sprintf("/embed?label=%d", i), nil))
		if neighbor.Code != http.StatusOK {
			t.Errorf("%s: the neighbor gets %d", path, neighbor.Code)
		}
	}
}

// TestUnreadBodies checks that the memory of bodies that clients do not read is bounded, in total and for each client, and that a body
// that many clients read counts once.
func TestUnreadBodies(t *testing.T) {
	f := newFixture(t, nil)
	f.site.proxies = loopbackProxies
	f.register("")
	f.says("b", "", "")
	sending := f.site.limits.sending
	_, body := f.get(julietPage)
	sending.large, sending.bytes.max, sending.bytes.maxPerClient = 1000, 5*len(body)/2, 3*len(body)/2
	handler := f.site.handler()
	ask := func(rw http.ResponseWriter, query, client string) {
		r := httptest.NewRequest("GET", julietPage+query, nil)
		r.RemoteAddr = "127.0.0.1:1"
		r.Header.Set("X-Forwarded-For", client)
		handler.ServeHTTP(rw, r)
	}
	status := func(query, client string) int {
		resp := httptest.NewRecorder()
		ask(resp, query, client)
		return resp.Code
	}
	var running sync.WaitGroup
	end, cancel := context.WithCancel(t.Context())
	stall := func(query, client string) {
		stalled := &stalledWriter{header: make(http.Header), writing: make(chan struct{}), end: end}
		running.Go(func() { ask(stalled, query, client) })
		<-stalled.writing
	}
	stall("", "192.0.2.1")
	for _, tt := range []struct {
		query, client string
		want          int
	}{{"", "192.0.2.2", 200}, {"", "192.0.2.1", 200}, {"?theme=dark", "192.0.2.1", 429}, {"?theme=dark", "192.0.2.2", 200}, {".json", "192.0.2.1", 200}} {
		if got := status(tt.query, tt.client); got != tt.want {
			t.Errorf("%s for %s: %d, want %d", tt.query, tt.client, got, tt.want)
		}
	}
	stall("?theme=dark", "192.0.2.2")
	if got := status("?theme=light", "192.0.2.3"); got != http.StatusServiceUnavailable {
		t.Errorf("above the total: %d", got)
	}
	cancel()
	running.Wait()
	if got := status("?theme=light", "192.0.2.3"); got != http.StatusOK {
		t.Errorf("after the others have ended: %d", got)
	}
	if sending.bytes.open() != 0 || len(sending.bodies) != 0 {
		t.Errorf("%d bytes still count", sending.bytes.open())
	}
}

// A stalledStream is the writer of a client that takes the start of a live stream, but no event.
type stalledStream struct {
	header http.Header
	event  chan []byte // that the client does not take
	end    context.Context
}

func (s *stalledStream) Header() http.Header { return s.header }
func (s *stalledStream) WriteHeader(int)     {}
func (s *stalledStream) Flush()              {}
func (s *stalledStream) Write(p []byte) (int, error) {
	if !bytes.HasPrefix(p, []byte("id: ")) {
		return len(p), nil
	}
	s.event <- p
	<-s.end.Done()
	return 0, s.end.Err()
}

// stall opens Juliet's live stream for a client that does not take the event, and returns the event. The client goes away with end.
func (f *fixture) stall(end context.Context, query, client string) []byte {
	f.t.Helper()
	s := &stalledStream{header: make(http.Header), event: make(chan []byte), end: end}
	r := httptest.NewRequest("GET", julietPage+"/events"+query, nil).WithContext(end)
	r.RemoteAddr = "127.0.0.1:1"
	r.Header.Set("X-Forwarded-For", client)
	go f.site.handler().ServeHTTP(s, r)
	select {
	case event := <-s.event:
		return event
	case <-time.After(patience):
		f.t.Fatalf("%s gets no event", client)
		return nil
	}
}

// TestUnreadEvents checks that the memory of large events is bounded, in total and for each client, that streams of one address share
// it, and that small events are not affected.
func TestUnreadEvents(t *testing.T) {
	f := newFixture(t, nil)
	f.site.proxies = loopbackProxies
	f.register("<show_status_msg>1</show_status_msg>")
	says := func(text string) { f.says("b", "", "<status>"+strings.Repeat(text, maxMessageSize)+"</status>") }
	says("&lt;")
	end, leave := context.WithCancel(t.Context())
	first := f.stall(end, "", "192.0.2.1")
	if want := maxMessageSize * len(`\u003c`); len(first) < want {
		t.Fatalf("an event of %d bytes, want at least %d", len(first), want)
	}
	for range 3 {
		if other := f.stall(end, "", "192.0.2.2"); &other[0] != &first[0] {
			t.Error("each stream has a copy of the event")
		}
	}
	leave()
	events := f.site.limits.events
	ended := func() bool { return f.site.limits.streams.open() == 0 && events.bytes.open() == 0 }
	eventually(t, "the streams have ended", ended)

	events.large, events.bytes.max, events.bytes.maxPerClient = 1000, 7*len(first)/2, 5*len(first)/2
	end, leave = context.WithCancel(t.Context())
	defer leave()
	open := func(query, client string) *bufio.Scanner {
		r, err := http.NewRequestWithContext(end, "GET", f.web.URL+julietPage+"/events"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Forwarded-For", client)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return bufio.NewScanner(resp.Body)
	}
	wantRefused := func(query, client string) {
		t.Helper()
		lines := open(query, client)
		if first, second := next(t, lines, "retry"), next(t, lines, "retry"); first != "3000" || second != "30000" {
			t.Errorf("retry is %s, then %s", first, second)
		}
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "data") {
				t.Errorf("%s gets an event", client)
			}
		}
	}
	f.stall(end, "", "192.0.2.1")
	f.stall(end, "?lang=de", "192.0.2.1")
	wantRefused("?lang=fr", "192.0.2.1")
	f.stall(end, "?lang=fr", "192.0.2.2")
	wantRefused("?lang=ja", "192.0.2.3")
	for _, query := range []string{"?lang=fr", "?parts=since"} {
		next(t, open(query, "192.0.2.1"), "data")
	}
	leave()
	eventually(t, "the streams have ended", ended)

	end, leave = context.WithCancel(t.Context())
	defer leave()
	lines := open("", "192.0.2.1")
	for _, text := range []string{"&lt;", "&gt;", "&amp;", "&lt;"} {
		says(text)
		next(t, lines, "data")
	}
	f.stall(end, "", "192.0.2.1")
	says("&gt;")
	next(t, lines, "data")
	if n := events.bytes.open(); n < 2*len(first) {
		t.Errorf("%d bytes count, but an event of %d bytes has not been read", n, len(first))
	}
	leave()
	eventually(t, "the streams have ended", ended)
}

// TestTooLargeEvent opens a stream of people whose state takes more memory than any client may have.
func TestTooLargeEvent(t *testing.T) {
	f := newFixture(t, nil)
	for i := range maxPeople {
		bare := fmt.Sprintf("user%d@example.org", i)
		f.send(`<iq type='set' id='r' from='` + bare + `/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><show_status_msg>1</show_status_msg><show_resources>1</show_resources></query></iq>` +
			`<presence type='subscribed' from='` + bare + `' to='webstatus.example.org'/>`)
		for resource := range 13 {
			f.send(fmt.Sprintf(`<presence from='%s/%d' to='webstatus.example.org'><status>%s</status></presence>`, bare, resource, strings.Repeat("&lt;", 1000)))
		}
	}
	list := func() string {
		var tokens []string
		for e := range f.comp.board.all() {
			tokens = append(tokens, e.snapshot.Load().token.String())
		}
		return "/status/" + strings.Join(tokens, ",")
	}
	eventually(t, "the state is large", func() bool {
		_, body := f.get(list() + ".json")
		return len(body) > maxClientEvents
	})
	client := http.Client{Timeout: patience}
	resp, err := client.Get(f.web.URL + list() + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if want := string(eventRetry) + string(eventRefused); err != nil || string(body) != want {
		t.Errorf("got %.100q of %d bytes, want %q: %v", body, len(body), want, err)
	}
}

// A stepClock advances by a step each time it is read.
type stepClock struct {
	mu   sync.Mutex
	time time.Time
	step time.Duration
}

func (c *stepClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.time = c.time.Add(c.step)
	return c.time
}

// stop has the clock stay at its time.
func (c *stepClock) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.step = 0
}

func (c *stepClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.time = c.time.Add(d)
}

// budgetLeft returns the remaining budget of a client.
func (f *fixture) budgetLeft(client string) time.Duration {
	now := f.site.limits.now
	b := f.site.limits.budgets.take(netip.MustParseAddr(client), now)
	defer f.site.limits.budgets.put(b)
	return time.Duration(b.left.TokensAt(now())) * time.Microsecond
}

// TestStreamsAreCharged checks that events are charged to the budget of a client that follows them, but not for each stream that
// shares them.
func TestStreamsAreCharged(t *testing.T) {
	f := newFixture(t, nil)
	f.site.proxies = loopbackProxies
	clock := &stepClock{time: noon, step: 10 * time.Millisecond}
	f.site.limits.now = clock.now
	f.site.limits.budgets.rate = 10 * time.Microsecond // negligible
	f.site.limits.after = immediately
	f.register("")
	f.says("b", "", "")
	const client, other = "192.0.2.1", "192.0.2.2"
	left := f.budgetLeft(client)
	spent := func() time.Duration {
		before := left
		left = f.budgetLeft(client)
		return before - left
	}
	_, lines := f.events(julietPage, "", client)
	next(t, lines, "data")
	if cost := spent(); cost < clock.step/2 {
		t.Errorf("the first event cost %s", cost)
	}
	f.says("b", "", "<show>dnd</show>")
	next(t, lines, "data")
	if cost := spent(); cost < clock.step/2 {
		t.Errorf("a change cost %s", cost)
	}
	_, several := f.events(julietPage+","+Token{9}.String(), "", client)
	next(t, several, "data")
	if cost := spent(); cost < clock.step/2 {
		t.Errorf("an event of several people cost %s", cost)
	}
	_, shared := f.events(julietPage, "", other)
	next(t, shared, "data")
	if left := f.budgetLeft(other); left < budgetBurst-time.Millisecond {
		t.Errorf("an event that is shared cost %s", budgetBurst-left)
	}
}

// immediately is a time.After that waits for nothing.
func immediately(time.Duration) <-chan time.Time {
	ch := make(chan time.Time)
	close(ch)
	return ch
}

// TestEventsAreDelayed exhausts a client's budget with a stream, and checks that the next event is delayed until the budget allows it
// and contains only the newest state.
func TestEventsAreDelayed(t *testing.T) {
	f := newFixture(t, nil)
	f.site.proxies = loopbackProxies
	clock := &stepClock{time: noon, step: 10 * time.Millisecond}
	delayed, released := make(chan time.Duration), make(chan time.Time)
	limits := f.site.limits
	limits.now, limits.budgets.rate, limits.budgets.burst = clock.now, time.Millisecond, 15*time.Millisecond // enough for one event
	limits.after = func(d time.Duration) <-chan time.Time { delayed <- d; return released }
	f.register("")
	f.says("b", "", "")
	_, lines := f.events(julietPage, "", "192.0.2.1")
	if data := next(t, lines, "data"); !strings.Contains(data, `"available"`) {
		t.Error(data)
	}
	f.says("b", "", "<show>dnd</show>")
	if d := <-delayed; d < minDelay || d > eventBusy {
		t.Errorf("delayed by %s", d)
	}
	f.says("b", "", "<show>xa</show>")
	f.says("b", "", "<show>away</show>")
	clock.advance(time.Minute)
	close(released)
	if data := next(t, lines, "data"); !strings.Contains(data, `"away"`) {
		t.Errorf("got %s, want the newest state", data)
	}
}

// TestEventsAreNotDelayedByOthers follows an address together with many streams of a client that may not render now, and checks that
// events are not delayed.
func TestEventsAreNotDelayedByOthers(t *testing.T) {
	stranger := netip.MustParseAddr("192.0.2.2")
	for name, occupy := range map[string]func(*limits){
		"budget": func(l *limits) {
			for range 2 { // to below zero
				l.charge(stranger, noon.Add(-budgetBurst))
			}
		},
		"turn": func(l *limits) { l.budgets.take(stranger, l.now).turn.acquire(t.Context(), errBudget) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			f.site.proxies = loopbackProxies
			limits := f.site.limits
			limits.now = (&stepClock{time: noon}).now
			var delays atomic.Int32 // also the pause after each event
			limits.after = func(d time.Duration) <-chan time.Time { delays.Add(1); return immediately(d) }
			f.register("")
			f.says("b", "", "")
			_, lines := f.events(julietPage, "", "192.0.2.1")
			next(t, lines, "data")
			occupy(limits)
			for range 20 {
				_, others := f.events(julietPage, "", stranger.String())
				next(t, others, "data")
			}
			changes := []string{"away", "dnd", "xa"}
			for _, show := range changes {
				f.says("b", "", "<show>"+show+"</show>")
				if data := next(t, lines, "data"); !strings.Contains(data, show) {
					t.Errorf("%s, want %s", data, show)
				}
			}
			if n := int(delays.Load()); n > len(changes) {
				t.Errorf("%d delays of %d events", n, len(changes))
			}
		})
	}
}

// TestBusy occupies the slots of one kind of rendering, and checks that requests of that kind get 503 Service Unavailable while cached
// responses and other kinds are served.
func TestBusy(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	const png, list, one = julietPage + ".png", julietPage + "," + "x.json", julietPage + ".json"
	f.get(png)
	slots := f.site.limits.slots
	for _, q := range slots.queues {
		q.maxWaiting = 0 // no queue
	}
	status := func(path string) *http.Response { resp, _ := f.get(path); return resp }
	free := slots.expensiveSlots()
	for range free {
		if err := slots.acquire(t.Context(), slotPNG); err != nil {
			t.Fatal(err)
		}
	}
	if resp := status(png + "?style=card"); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("no slot: %s, %q", resp.Status, resp.Header.Get("Retry-After"))
	}
	for _, path := range []string{png, one} {
		if resp := status(path); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	for range free {
		slots.release(slotPNG)
	}
	for _, path := range []string{png + "?style=card", list} {
		if resp := status(path); resp.StatusCode != http.StatusOK {
			t.Errorf("%s with free slots: %s", path, resp.Status)
		}
	}
}

// expensiveSlots returns the number of expensive renderings that can start now.
func (s *renderSlots) expensiveSlots() (n int) {
	for s.expensive.TryAcquire(1) {
		n++
	}
	s.expensive.Release(int64(n))
	return n
}

// TestSlots checks that expensive renderings leave one core to ordinary pages.
func TestSlots(t *testing.T) {
	for cores, want := range map[int]int{1: 1, 2: 1, 4: 3, 64: 63} {
		if got := newRenderSlots(cores).expensiveSlots(); got != want {
			t.Errorf("%d cores: %d expensive renderings at once, want %d", cores, got, want)
		}
	}
}

// TestWaitersLeave checks that clients that disconnect while they wait leave the queue, and that nothing is rendered for them.
func TestWaitersLeave(t *testing.T) {
	l := newLimits()
	client := netip.MustParseAddr("192.0.2.1")
	entered, proceed := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	go func() {
		done <- l.render(t.Context(), client, slotPNG, func() error { close(entered); <-proceed; return nil })
	}()
	<-entered
	for i, waiter := range []netip.Addr{client, netip.MustParseAddr("192.0.2.2"), {}} {
		ctx, leave := context.WithCancel(t.Context())
		result := make(chan error)
		for range l.slots.expensiveSlots() { // on more than two cores
			l.slots.acquire(t.Context(), slotPNG)
		}
		go func() {
			result <- l.render(ctx, waiter, slotPNG, func() error { t.Error("rendered for a client that has disconnected"); return nil })
		}()
		leave()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("waiter %d: %v", i, err)
		}
	}
	close(proceed)
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, q := range l.slots.queues {
		if n := q.waiting.Load(); n != 0 {
			t.Errorf("%d clients still wait", n)
		}
	}
}

// TestClientsLeave checks, with HTTP/1.1 and HTTP/2, that a request ends when its client goes away: one that waits for a slot, and one
// that is being rendered.
func TestClientsLeave(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			f := newFixture(t, nil)
			f.register("")
			f.says("b", "", "")
			rendering, stopped := make(chan string), make(chan error)
			format := *formatPNG
			format.write = func(_ *renderer, spec *renderSpec, _ []view) ([]byte, error) {
				<-spec.ctx.Done()
				stopped <- spec.ctx.Err()
				return nil, spec.ctx.Err()
			}
			mux := http.NewServeMux()
			mux.Handle("/status/", f.site.handler())
			mux.HandleFunc("/rendering", func(rw http.ResponseWriter, r *http.Request) {
				rendering <- r.Proto
				f.site.representation(rw, r, &format, target{people: []*entry{f.site.board.byJID(juliet)}})
			})
			server := httptest.NewUnstartedServer(mux)
			server.EnableHTTP2 = protocol == "HTTP/2.0"
			server.StartTLS()
			defer server.Close()
			ask := func(path string) (leave func()) {
				ctx, cancel := context.WithCancel(t.Context())
				req, err := http.NewRequestWithContext(ctx, "GET", server.URL+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				done := make(chan struct{})
				go func() {
					defer close(done)
					if resp, err := server.Client().Do(req); err == nil {
						resp.Body.Close()
						t.Errorf("%s: %s", path, resp.Status)
					}
				}()
				return func() { cancel(); <-done }
			}
			leave := ask("/rendering")
			if got := <-rendering; got != protocol {
				t.Error(got)
			}
			leave()
			if err := <-stopped; !errors.Is(err, context.Canceled) {
				t.Errorf("rendering ended with %v", err)
			}
			slots := f.site.limits.slots
			for range slots.expensiveSlots() {
				slots.acquire(t.Context(), slotPNG)
			}
			leave = ask(julietPage + ".png?style=card")
			waiting := &slots.queues[slotPNG].waiting
			eventually(t, "the request waits", func() bool { return waiting.Load() == 1 })
			leave()
			eventually(t, "the request has left", func() bool { return waiting.Load() == 0 })
		})
	}
}

// TestRenderingStops checks that drawings and pages end with their context.
func TestRenderingStops(t *testing.T) {
	r, err := loadRenderer("webstatus.example.org", "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, f := range []*format{formatPage, formatPNG} {
		spec := &renderSpec{format: f, lang: r.languages.english(), options: defaultRenderOptions}
		if _, err := r.render(ctx, spec, []view{unknownView(spec.lang)}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", f.metric, err)
		}
	}
}

// TestBudgetsAreForgotten checks that the number of budgets is bounded and that the budget of a client with an open request is kept.
func TestBudgetsAreForgotten(t *testing.T) {
	clock := &stepClock{time: noon}
	bs := newRenderBudgets()
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	served := bs.take(address(0), clock.now)
	for i := range 3 * maxBudgets {
		b := bs.take(address(1+i), clock.now)
		b.charge(noon, noon.Add(-time.Second))
		bs.put(b)
	}
	if len(bs.byPrefix) > maxBudgets {
		t.Errorf("%d budgets are kept", len(bs.byPrefix))
	}
	if bs.take(address(0), clock.now) != served {
		t.Error("a client with an open request has a second budget")
	}
}

// TestSiteBudget lets a site use up its budget from several of its networks, each of which stays within its own.
func TestSiteBudget(t *testing.T) {
	l := newLimits()
	clock := &stepClock{time: noon}
	l.now = clock.now
	render := func(client string) error {
		return l.render(t.Context(), netip.MustParseAddr(client), slotSingle, func() error {
			l.charge(netip.MustParseAddr(client), clock.now().Add(-budgetBurst*3/4))
			return nil
		})
	}
	refused := -1
	for i := 0; refused < 0; i++ {
		err := render(fmt.Sprintf("2001:db8:0:%x::1", i))
		if errors.Is(err, errBudget) {
			refused = i
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if want := siteShare*4/3 + 1; refused != want {
		t.Errorf("the network with number %d is the first one to be refused, want %d", refused, want)
	}
	for _, other := range []string{"2001:db8:1::1", "192.0.2.1"} {
		if err := render(other); err != nil {
			t.Errorf("%s: %v", other, err)
		}
	}
	clock.advance(time.Minute)
	if err := render("2001:db8:0:ffff::1"); err != nil {
		t.Errorf("a minute later: %v", err)
	}
}

func TestClientPrefix(t *testing.T) {
	for client, want := range map[string]string{"192.0.2.1": "192.0.2.1/32", "2001:db8::1": "2001:db8::/64", "2001:db8:0:1::1": "2001:db8:0:1::/64"} {
		if got := clientPrefix(netip.MustParseAddr(client)).String(); got != want {
			t.Errorf("%s: %s, want %s", client, got, want)
		}
	}
	if clientPrefix(netip.Addr{}).IsValid() {
		t.Error("the zero address has a prefix")
	}
}
