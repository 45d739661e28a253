package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// Each benchmark alternates between the code under test and a baseline in the same run, and reports their ratio.

// BenchmarkWeb compares cached representations, and first requests after a change, with a bare handler that writes the same body. The
// headers benchmarks show how fast that handler is if it also sends the same headers.
func BenchmarkWeb(b *testing.B) {
	const users = 1 << 14 // more than are requested in one turn
	board := newBoard(noon, noon)
	board.linkUp(time.Now())
	var entries []*entry
	for i := range users {
		e := board.add(User{JID: juliet, Token: Token{byte(i), byte(i >> 8)}, Options: setOf(fieldMessage, fieldJID, fieldJIDLink),
			Subscription: SubscriptionTo}, Status{}, nil)
		e.link = 1
		entries = append(entries, e)
	}
	turn := 0
	change := func() {
		turn++
		for i, e := range entries {
			e.resources = Resources{{Resource: "b", State: Away, Since: noon, Messages: []Text{{"", fmt.Sprintf("lunch %d of %05d", turn%10, i)}}, Link: 1}}
			board.update(e)
		}
	}
	change()
	r, err := loadRenderer("webstatus.example.org", "")
	if err != nil {
		b.Fatal(err)
	}
	site := newWebsite(websiteConfig{jidLinks: true, frameAncestors: "*", board: board, now: time.Now, log: slog.New(slog.DiscardHandler), closing: b.Context()}, r).handler()
	for name, path := range map[string]string{"prosody.html": statusPath + juliet + "/html", "ejabberd.xml": "/presence/jid/juliet/example.org/xml"} {
		b.Run("legacy."+name, func(b *testing.B) {
			compareWeb(b, bareHandler(site, path), site, []string{path}, func() {}, "ratio")
		})
	}
	for ext, first := range map[string]string{"": "ratio(>=0.4)", ".json": "ratio(>=0.4)", ".svg": "ratio(>=0.4)", ".png": "ratio(>=0.15)"} {
		var paths []string
		for _, e := range entries {
			paths = append(paths, "/status/"+e.user.Token.String()+ext)
		}
		bare := bareHandler(site, paths[0])
		b.Run("page"+ext, func(b *testing.B) {
			compareWeb(b, bare, site, paths[:1], func() {}, "ratio(>=0.9)")
		})
		b.Run("headers"+ext, func(b *testing.B) {
			compareWeb(b, bare, sameHeaders(site, paths[0], bare), paths[:1], func() {}, "ratio")
		})
		b.Run("first"+ext, func(b *testing.B) { compareWeb(b, bare, site, paths, change, first) })
	}
	var cards []string
	for _, e := range entries {
		cards = append(cards, "/status/"+e.user.Token.String()+".png?style=card")
	}
	b.Run("first.card", func(b *testing.B) { compareWeb(b, bareHandler(site, cards[0]), site, cards, change, "ratio") })
}

// bareHandler returns a handler that writes the body that site returns for a path, and nothing else.
func bareHandler(site http.Handler, path string) http.Handler {
	first := httptest.NewRecorder()
	site.ServeHTTP(first, httptest.NewRequest("GET", path, nil))
	body, contentType := first.Body.Bytes(), first.Header().Get("Content-Type")
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", contentType)
		rw.Write(body)
	})
}

// sameHeaders returns a handler that sets the headers that site returns for a path, and calls next: what they cost by themselves.
func sameHeaders(site http.Handler, path string, next http.Handler) http.Handler {
	first := httptest.NewRecorder()
	site.ServeHTTP(first, httptest.NewRequest("GET", path, nil))
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		h := rw.Header()
		for name, values := range first.Header() {
			h[name] = values
		}
		next.ServeHTTP(rw, r)
	})
}

// compareWeb alternates between two handlers over real connections. It calls before ahead of each turn.
func compareWeb(b *testing.B, bare, ours http.Handler, paths []string, before func(), ratio string) {
	const clients, turn = 16, 100 * time.Millisecond
	var addresses [2]string
	for i, h := range []http.Handler{bare, ours} {
		s := httptest.NewServer(h)
		defer s.Close()
		addresses[i] = s.Listener.Addr().String()
	}
	var answered [2]int
	for b.Loop() {
		for i, address := range addresses {
			before()
			runtime.GC()
			answered[i] += hammer(b, address, paths, clients, turn)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(answered[0])/(float64(b.N)*turn.Seconds()), "bare/s")
	b.ReportMetric(float64(answered[1])/(float64(b.N)*turn.Seconds()), "ours/s")
	b.ReportMetric(float64(answered[1])/float64(answered[0]), ratio)
}

// hammer counts the responses to clients that request one path after the other. The clients only read lengths, so that the
// server dominates the measurement.
func hammer(b *testing.B, address string, paths []string, clients int, turn time.Duration) int {
	counts := make(chan int)
	var requests atomic.Int64
	until := time.Now().Add(turn)
	for range clients {
		go func() {
			n := 0
			defer func() { counts <- n }()
			conn, err := net.Dial("tcp", address)
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			buf := make([]byte, 64<<10)
			for time.Now().Before(until) {
				request := "GET " + paths[int(requests.Add(1))%len(paths)] + " HTTP/1.1\r\nHost: x\r\n\r\n"
				if _, err := io.WriteString(conn, request); err != nil {
					b.Error(err)
					return
				}
				for got := 0; !isComplete(buf[:got]); {
					m, err := conn.Read(buf[got:])
					if err != nil {
						b.Error(err)
						return
					}
					got += m
				}
				n++
			}
		}()
	}
	total := 0
	for range clients {
		total += <-counts
	}
	return total
}

// isComplete reports whether a buffer holds a complete HTTP response, with a length or chunked.
func isComplete(answer []byte) bool {
	const field = "\r\nContent-Length: "
	head, at := bytes.Index(answer, []byte("\r\n\r\n")), bytes.Index(answer, []byte(field))
	if at < 0 || at > head {
		return bytes.HasSuffix(answer, []byte("\r\n0\r\n\r\n"))
	}
	length := 0
	for _, digit := range answer[at+len(field):] {
		if digit == '\r' {
			break
		}
		length = 10*length + int(digit-'0')
	}
	return len(answer) >= head+len("\r\n\r\n")+length
}

// presenceStanza returns a presence stanza of typical length.
func presenceStanza(i int) string {
	return fmt.Sprintf(`<presence xml:lang='en' to='webstatus.example.org' from='user%d@example.org/Gajim.%08d'><show>%s</show><priority>%d</priority>`+
		`<status>working on it %d</status><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://gajim.org' ver='qFz8mLLY5tGYl2LlqGJvJcIyLPo='/>`+
		`<x xmlns='vcard-temp:x:update'><photo>ba2bcd5f6c7d1fc1b5a0e8f4e9e11e4b2a9d3c10</photo></x></presence>`,
		i%1000, i, []string{"away", "dnd", "xa", "chat"}[i/1000%4], i%10, i)
}

// BenchmarkStanzas compares processing presence, from the socket to the board, with only xml.Decoder.Token on the same bytes, both on
// one core; and that with two connections on two cores.
func BenchmarkStanzas(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const stanzas = 20000
	var inputs [3]strings.Builder // for one connection, and for two
	for i := range inputs {
		inputs[i].WriteString("<stream>")
	}
	for i := range stanzas {
		inputs[0].WriteString(presenceStanza(i))
		inputs[1+i%2].WriteString(presenceStanza(i)) // so that a person's stanzas come over the same connection
	}
	one, two := []string{inputs[0].String()}, []string{inputs[1].String(), inputs[2].String()}
	db, err := openDatabase(context.Background(), filepath.Join(b.TempDir(), "webstatus.db"), true)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	log := slog.New(slog.DiscardHandler)
	users, err := newRegistry(context.Background(), registryConfig{now: time.Now, log: log}, db)
	if err != nil {
		b.Fatal(err)
	}
	c := newComponent(componentConfig{domain: "webstatus.example.org", now: time.Now, log: log, syncTimes: defaultSyncTimes}, users)
	for i := range 1000 {
		c.board.add(User{JID: fmt.Sprintf("user%d@example.org", i), Token: Token{byte(i), byte(i >> 8)}, Subscription: SubscriptionTo}, Status{}, nil)
	}
	c.board.linkUp(time.Now())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go c.dispatcher.run(ctx)
	deliver := func(r io.Reader) {
		f := newFramer(r, maxStanza)
		if _, err := f.header(); err != nil {
			b.Error(err)
		}
		for {
			fr, err := f.next()
			if err != nil {
				return
			}
			c.deliver(ctx, fr)
		}
	}
	var tokens, ours, both time.Duration
	for b.Loop() {
		tokens += readAll(b, one, func(r io.Reader) {
			d := xml.NewDecoder(r)
			for {
				if _, err := d.Token(); err != nil {
					return
				}
			}
		}, func() {})
		ours += readAll(b, one, deliver, func() { c.dispatcher.drain(ctx) })
		runtime.GOMAXPROCS(2)
		both += readAll(b, two, deliver, func() { c.dispatcher.drain(ctx) })
		runtime.GOMAXPROCS(1)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(stanzas*b.N)/tokens.Seconds(), "tokens-alone/s")
	b.ReportMetric(float64(stanzas*b.N)/ours.Seconds(), "ours/s")
	b.ReportMetric(float64(tokens)/float64(ours), "ratio(>=0.6)")
	b.ReportMetric(float64(ours)/float64(both), "two-connections(>=1.6)")
}

// readAll passes loopback connections that deliver the inputs to read, side by side, and calls end. It returns how long that took.
func readAll(b *testing.B, inputs []string, read func(io.Reader), end func()) time.Duration {
	began := time.Now()
	var readers sync.WaitGroup
	for _, input := range inputs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		go func() {
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			io.WriteString(conn, input) // unread input is not counted
		}()
		conn, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		readers.Go(func() { read(conn) })
	}
	readers.Wait()
	end()
	return time.Since(began)
}

// BenchmarkFlood sends ten thousand messages from one sender at once, and measures the latency of another user's presence behind them.
func BenchmarkFlood(b *testing.B) {
	const messages = 10000
	server, err := newLoopback("webstatus.example.org", "s3cret")
	if err != nil {
		b.Fatal(err)
	}
	defer server.listener.Close()
	db, err := openDatabase(context.Background(), filepath.Join(b.TempDir(), "webstatus.db"), true)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	languages, err := loadLanguages(embeddedTemplates)
	if err != nil {
		b.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	users, err := newRegistry(context.Background(), registryConfig{now: time.Now, random: rand.Reader, log: log}, db)
	if err != nil {
		b.Fatal(err)
	}
	c := newComponent(componentConfig{domain: server.domain, languages: languages, secret: server.secret, servers: []string{server.address()},
		connections: 1, linkTimes: defaultLinkTimes, syncTimes: defaultSyncTimes, now: time.Now, log: log}, users)
	u := User{JID: juliet, Token: Token{1}, Subscription: SubscriptionTo}
	if err := db.InsertUser(context.Background(), u); err != nil {
		b.Fatal(err)
	}
	e := c.board.add(u, Status{}, nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.run(ctx) }()
	s, err := server.accept()
	if err != nil {
		b.Fatal(err)
	}
	go io.Copy(io.Discard, s) // discard replies
	flood := strings.Repeat(`<message type='chat' from='romeo@example.org/x' to='webstatus.example.org'><body>help</body></message>`, messages)
	var longest time.Duration
	for i := 0; b.Loop(); i++ {
		show := []string{"away", "dnd"}[i%2]
		began := time.Now()
		if err := s.send(flood + `<presence from='juliet@example.org/b' to='webstatus.example.org'><show>` + show + `</show></presence>`); err != nil {
			b.Fatal(err)
		}
		for {
			changed := e.successor()
			if string(e.snapshot.Load().status.State) == show {
				break
			}
			<-changed
		}
		longest = max(longest, time.Since(began))
	}
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(longest.Milliseconds()), "longest-ms(<=1000)")
}

// BenchmarkPage measures the time from a client's presence on a real server to its display in an open page in Chromium.
func BenchmarkPage(b *testing.B) {
	browser := newBrowser(b)
	s := newServer(b, "prosody")
	a := newAppliance(b, s.componentAddress())
	c := s.login(b, "user1", "desk")
	c.send(b, `<presence/>`)
	c.join(b)
	a.want(b, c.bare, shown{state: "available"})
	tab := newTab(b, browser, a.url+jidPath(c.bare))
	tab.wants(b, `document.querySelector(".label").textContent`, "Available")
	tab.run(b, `window.seen = []; new MutationObserver(() => window.seen.push(performance.timeOrigin + performance.now()))
		.observe(document.documentElement, {attributeFilter: ["data-state"]}); 0`)
	var times []float64
	for i := 0; b.Loop(); i++ {
		began := time.Now()
		c.send(b, `<presence><show>%s</show></presence>`, []string{"away", "dnd"}[i%2])
		tab.wants(b, "String(window.seen.length)", strconv.Itoa(i+1))
		seen, err := chromedp.Run(tab, chromedp.Evaluate[float64]("window.seen.at(-1)"))
		if err != nil {
			b.Fatal(err)
		}
		times = append(times, seen-float64(began.UnixMicro())/1000)
	}
	slices.Sort(times)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(times[len(times)/2], "median-ms(<=100)")
	b.ReportMetric(times[len(times)*99/100], "p99-ms")
}

// BenchmarkStart measures the time until the program, with a thousand users, answers requests, and then its memory and CPU use while
// idle.
func BenchmarkStart(b *testing.B) {
	path := filepath.Join(b.TempDir(), "webstatus.db")
	db, err := openDatabase(b.Context(), path, true)
	if err != nil {
		b.Fatal(err)
	}
	var users []User
	for i := range 1000 {
		users = append(users, User{JID: fmt.Sprintf("user%d@example.org", i), Token: Token{byte(i), byte(i >> 8)}, Subscription: SubscriptionBoth, Created: noon})
	}
	if _, _, err := db.InsertUsers(b.Context(), users); err != nil {
		b.Fatal(err)
	}
	db.Close()
	program := buildProgram(b)
	serve := func() *process {
		address := "127.0.0.1:" + strconv.Itoa(freePort(b))
		cmd := exec.Command(program, "serve")
		cmd.Env = append(os.Environ(), "WEBSTATUS_DOMAIN=webstatus.example.org", "WEBSTATUS_SECRET=s3cret", "WEBSTATUS_SERVER=127.0.0.1:1",
			"WEBSTATUS_DB="+path, "WEBSTATUS_LISTEN="+address)
		p := start(b, cmd)
		for {
			if resp, err := http.Get("http://" + address + "/"); err == nil {
				resp.Body.Close()
				return p
			}
		}
	}
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		p := serve()
		took = append(took, time.Since(began))
		p.end(b, syscall.SIGTERM)
	}
	slices.Sort(took)
	p := serve()
	const seconds = 5
	ticks := cpuTicks(b, p)
	time.Sleep(seconds * time.Second)
	mib, used := memory(b, p, "VmRSS"), cpuTicks(b, p)-ticks // hundredths of a second, and so a percentage of each second
	p.end(b, syscall.SIGTERM)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "median-ms(<=300)")
	b.ReportMetric(mib, "idle-MiB(<=25)")
	b.ReportMetric(used/seconds, "idle-%(<=1)")
}

// BenchmarkManyUsers measures the time until the program, with a million users, answers requests, and the memory that each user takes up 40
// seconds later, while all of them are being probed and a fifth are online.
func BenchmarkManyUsers(b *testing.B) {
	const users = 1_000_000
	s := newManyUsers(b, filepath.Join(b.TempDir(), "webstatus.db"), users)
	for b.Loop() {
		p, serving := s.start(b)
		time.Sleep(40*time.Second - serving)
		b.ReportMetric(serving.Seconds(), "serving-s(<=5)")
		b.ReportMetric(memory(b, p, "VmRSS")*(1<<20)/users, "bytes/user(<=600)")
		b.ReportMetric(memory(b, p, "VmHWM"), "peak-MiB")
		p.end(b, syscall.SIGTERM)
	}
	b.ReportMetric(0, "ns/op")
}

// manyUsers is a database of users, with a loopback server at which a fifth of them are online.
type manyUsers struct {
	program, location string // location is of the database
	server            *loopback
}

func newManyUsers(b *testing.B, location string, users int) *manyUsers {
	s := &manyUsers{program: buildProgram(b), location: location}
	stored := storeUsers(b, location, users, defaultOptions())
	db, err := openDatabase(b.Context(), location, true)
	if err != nil {
		b.Fatal(err)
	}
	for batch := range slices.Chunk(stored, 50_000) {
		statuses := make(map[string]Status)
		for _, u := range batch {
			if statuses[u.JID] = (Status{State: Unavailable}); isOnline(u.JID) {
				statuses[u.JID] = Status{State: Away, Since: noon}
			}
		}
		if err := db.StorePresence(b.Context(), presenceBatch{statuses: statuses}); err != nil {
			b.Fatal(err)
		}
	}
	db.Close()
	if s.server, err = newLoopback("webstatus.example.org", "s3cret"); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.server.listener.Close() })
	return s
}

// isOnline reports whether one of manyUsers is online: each fifth is.
func isOnline(bare string) bool { return (bare[len("user00000")]-'0')%5 == 0 }

// start starts the program, and returns how long it took until it answered requests.
func (s *manyUsers) start(b *testing.B) (p *process, serving time.Duration) {
	go s.server.answerProbes(isOnline)
	address := "127.0.0.1:" + strconv.Itoa(freePort(b))
	cmd := exec.Command(s.program, "serve")
	cmd.Env = append(os.Environ(), "WEBSTATUS_DOMAIN=webstatus.example.org", "WEBSTATUS_SECRET=s3cret", "WEBSTATUS_SERVER="+s.server.address(),
		"WEBSTATUS_DB="+s.location, "WEBSTATUS_LISTEN="+address)
	began := time.Now()
	p = start(b, cmd)
	for {
		if resp, err := http.Get("http://" + address + "/"); err == nil {
			resp.Body.Close()
			return p, time.Since(began)
		}
	}
}

// answerProbes accepts a component, and answers the probes of those who are online.
func (l *loopback) answerProbes(online func(bare string) bool) {
	s, err := l.accept()
	if err != nil {
		return
	}
	defer s.Close()
	out := bufio.NewWriter(s)
	for {
		f, err := s.framer.next()
		if err != nil {
			return
		}
		switch string(attribute(f.data, "type")) {
		case "get": // the ping that a link starts with
			to := attribute(f.data, "to")
			fmt.Fprintf(out, "<iq type='result' id='%s' from='%s' to='%s'/>", attribute(f.data, "id"), to, to)
			if out.Flush() != nil {
				return
			}
			continue
		case "probe":
		default:
			continue
		}
		if bare := string(attribute(f.data, "to")); online(bare) {
			fmt.Fprintf(out, "<presence from='%s/desktop-4f7a' to='%s'><show>away</show><status>lunch</status><priority>5</priority></presence>", bare, attribute(f.data, "from"))
			if out.Flush() != nil {
				return
			}
		}
	}
}

// memory returns a field of /proc/PID/status of a process, such as its resident memory, in MiB.
func memory(b testing.TB, p *process, field string) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), field+":")
	kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}
