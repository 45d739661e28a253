package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"image/png"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// buildProgram builds the program as make build does, and returns its path.
func buildProgram(b testing.TB) string {
	program := filepath.Join(b.TempDir(), "webstatus") // the one on PATH is the test binary
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v %s", err, out)
	}
	return program
}

// A loadedServer is the program, linked to a loopback server, with people who show everything.
type loadedServer struct {
	*process
	address string
	metrics string      // address of /healthz; empty for none
	secure  *tls.Config // of clients; nil for plain HTTP
	stream  *loopbackStream
	people  []User
}

// newLoadedServer starts the program with a command, which may have flags and an environment, and a number of people who are online.
func newLoadedServer(b testing.TB, people int, cmd *exec.Cmd) *loadedServer {
	s := &loadedServer{address: "127.0.0.1:" + strconv.Itoa(freePort(b))}
	path := filepath.Join(b.TempDir(), "webstatus.db")
	db, err := openDatabase(b.Context(), path, true)
	if err != nil {
		b.Fatal(err)
	}
	var picture bytes.Buffer
	if err := png.Encode(&picture, noise()); err != nil {
		b.Fatal(err)
	}
	avatar, err := newAvatar(picture.Bytes(), AvatarPEP, pictureHash(picture.Bytes()))
	if err != nil {
		b.Fatal(err)
	}
	statuses, profiles := make(map[string]Status), make(map[string]*Profile)
	for i := range people {
		u := User{JID: fmt.Sprintf("user%d@example.org", i), Token: Token{byte(i), byte(i >> 8)}, Options: allFields, Subscription: SubscriptionBoth, Created: noon}
		s.people = append(s.people, u)
		statuses[u.JID] = Status{State: Unavailable}
		profiles[u.JID] = &Profile{Nick: fmt.Sprintf("Person %d", i), Avatar: avatar}
	}
	if _, _, err := db.InsertUsers(b.Context(), s.people); err != nil {
		b.Fatal(err)
	}
	if err := db.StorePresence(b.Context(), presenceBatch{statuses: statuses, profiles: profiles}); err != nil {
		b.Fatal(err)
	}
	db.Close()
	server, err := newLoopback("webstatus.example.org", "s3cret")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { server.listener.Close() })
	if slices.Contains(cmd.Args, "--tls-cert") {
		s.secure = &tls.Config{InsecureSkipVerify: true}
	}
	if i := slices.Index(cmd.Args, "--metrics-listen"); i >= 0 {
		s.metrics = cmd.Args[i+1]
	}
	cmd.Env = append(append(os.Environ(), cmd.Env...), "WEBSTATUS_TRUSTED_PROXY=127.0.0.1", "WEBSTATUS_DOMAIN="+server.domain, "WEBSTATUS_SECRET="+server.secret, "WEBSTATUS_SERVER="+server.address(),
		"WEBSTATUS_DB="+path, "WEBSTATUS_LISTEN="+s.address)
	s.process = start(b, cmd)
	if s.stream, err = server.acceptSoon(); err != nil {
		b.Fatal(err)
	}
	go s.discardStanzas()
	for i := range s.people {
		s.says(b, i, "away", 0)
	}
	last, err := s.client("203.0.113.3")
	if err != nil {
		b.Fatal(err)
	}
	defer last.Close()
	eventually(b, "everybody is away", func() bool {
		_, body, err := last.get(s.path(people-1) + ".json")
		return err == nil && bytes.Contains(body, []byte(`"state":"away"`))
	})
	return s
}

// discardStanzas answers nothing but pings, which keep the link up.
func (s *loadedServer) discardStanzas() {
	for {
		r, err := s.stream.receive()
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && r.typ == "get" {
			s.stream.send(`<iq type='result' id='%s' from='%s' to='%s'/>`, r.id, r.to.String(), r.from.bare)
		}
	}
}

// says sends the presence of a person, with a message that has a number and is long.
func (s *loadedServer) says(b testing.TB, person int, show string, number int) {
	message := fmt.Sprintf("%d %s", number, strings.Repeat("会議中です。", 100))
	if err := s.stream.send(`<presence from='%s/x' to='webstatus.example.org'><show>%s</show><status>%s</status></presence>`, s.people[person].JID, show, message); err != nil {
		b.Fatal(err)
	}
}

// path returns the address of a person's page.
func (s *loadedServer) path(person int) string { return statusPath + s.people[person].Token.String() }

// listPath returns the address of a list of as many people as possible, one of many.
func (s *loadedServer) listPath(n int) string {
	var all []string
	for i := range maxPeople {
		all = append(all, s.people[(i*(1+n%7)+n)%len(s.people)].Token.String())
	}
	return statusPath + strings.Join(all, ",")
}

// A webClient is a client with an address and a connection of its own.
type webClient struct {
	net.Conn
	answers *bufio.Reader
	from    string
}

func (s *loadedServer) client(from string) (*webClient, error) {
	conn, err := net.Dial("tcp", s.address)
	if err != nil {
		return nil, err
	}
	if s.secure != nil {
		conn = tls.Client(conn, s.secure)
	}
	return &webClient{conn, bufio.NewReader(conn), from}, nil
}

// get requests a path, and returns the response and its body.
func (c *webClient) get(path string) (*http.Response, []byte, error) {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\n\r\n", path, c.from); err != nil {
		return nil, nil, err
	}
	resp, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

// get requests a path, over a new connection if that of the client has been closed, as browsers do.
func (s *loadedServer) get(c *webClient, path string) (*http.Response, []byte, error) {
	resp, body, err := c.get(path)
	if err == nil {
		return resp, body, nil
	}
	again, err := s.client(c.from)
	if err != nil {
		return nil, nil, err
	}
	c.Close()
	*c = *again
	return c.get(path)
}

// latencies sorts durations and returns the median and the 99th percentile in milliseconds.
func latencies(took []time.Duration) (median, p99 float64) {
	if len(took) == 0 {
		return 0, 0
	}
	slices.Sort(took)
	return took[len(took)/2].Seconds() * 1000, took[len(took)*99/100].Seconds() * 1000
}

// expensivePaths are addresses of the most expensive renderings, none of which is cached: the number makes them different.
var expensivePaths = []func(s *loadedServer, n int) string{
	func(s *loadedServer, n int) string {
		return s.path(n%len(s.people)) + fmt.Sprintf(".png?style=card&size=480&label=%d", n)
	},
	func(s *loadedServer, n int) string {
		return s.path(n%len(s.people)) + fmt.Sprintf(".png?style=plastic&size=480&label=%060d", n)
	},
	func(s *loadedServer, n int) string { return s.listPath(n) + "?theme=dark&lang=ja" },
	func(s *loadedServer, n int) string {
		return s.path(n%len(s.people)) + fmt.Sprintf("/embed?label=%d", n)
	},
	func(s *loadedServer, n int) string {
		return s.path(n%len(s.people)) + fmt.Sprintf(".svg?style=card&label=%d", n)
	},
}

// An attack is something that many clients do at once.
type attack struct {
	clients     int
	flags       []string // of the program
	descriptors int      // limit on the open files of the program; 0 for the default
	run         func(ctx context.Context, s *loadedServer, client string, next func() int) error
}

var attacks = map[string]attack{
	// As fast as the server answers, but the client waits if it says so.
	"expensive": {clients: 2000, run: func(ctx context.Context, s *loadedServer, client string, next func() int) error {
		c, err := s.client(client)
		if err != nil {
			return err
		}
		defer c.Close()
		for ctx.Err() == nil {
			n := next()
			resp, _, err := c.get(expensivePaths[n%len(expensivePaths)](s, n))
			if err != nil {
				return err
			}
			if wait, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
				pause(ctx, time.Duration(wait)*time.Second)
			}
		}
		return nil
	}},
	"hang-up": {clients: 300, run: func(ctx context.Context, s *loadedServer, client string, next func() int) error {
		for ctx.Err() == nil {
			c, err := s.client(client)
			if err != nil {
				return err
			}
			n := next()
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\n\r\n", expensivePaths[n%2](s, n), client)
			pause(ctx, 10*time.Millisecond)
			c.Close()
		}
		return nil
	}},
	"unread": {clients: 2000, run: func(ctx context.Context, s *loadedServer, client string, next func() int) error {
		for ctx.Err() == nil {
			c, err := s.client(client)
			if err != nil {
				return err
			}
			c.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			n := next()
			fmt.Fprintf(c, "GET %s&label=%d HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\n\r\n", expensivePaths[2](s, n), n, client)
			pause(ctx, 5*time.Second)
			c.Close()
		}
		return nil
	}},
	// Live streams that nobody reads, of people with many clients whose long messages take six times as many bytes in JSON. All of them
	// change, except for those whom others watch.
	"streams": {clients: 100, run: func(ctx context.Context, s *loadedServer, client string, next func() int) error {
		for range 20 {
			c, err := s.client(client)
			if err != nil {
				return err
			}
			defer c.Close()
			c.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			fmt.Fprintf(c, "GET %s/events HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\n\r\n", s.listPath(next()), client)
		}
		for ctx.Err() == nil {
			n := next()
			err := s.stream.send(`<presence from='%s/%s' to='webstatus.example.org'><status>%s</status></presence>`,
				s.people[1+n%(len(s.people)-2)].JID, strconv.Itoa(n%13), strconv.Itoa(n)+strings.Repeat("<", 1000))
			if err != nil {
				return err
			}
			pause(ctx, 100*time.Millisecond)
		}
		return nil
	}},
	// More connections that wait for a request than the program may have open files. Clients whose connection is closed come again.
	"idle": {clients: 1500, descriptors: 1024, run: func(ctx context.Context, s *loadedServer, client string, next func() int) error {
		for ctx.Err() == nil {
			c, err := s.client(client)
			if err != nil {
				return err
			}
			stop := context.AfterFunc(ctx, func() { c.Close() })
			next()
			if _, _, err := c.get(s.path(0)); err == nil {
				c.answers.ReadByte() // until it is closed
			}
			pause(ctx, 100*time.Millisecond)
			stop()
			c.Close()
		}
		return nil
	}},
	// Requests of HTTP/2 that are reset at once.
	"reset": {clients: 4, flags: []string{"--tls-cert", "CERT", "--tls-key", "KEY"}, run: func(ctx context.Context, s *loadedServer, client string, next func() int) error {
		transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: s.secure.Clone()}
		defer transport.CloseIdleConnections()
		var streams sync.WaitGroup
		for range 50 {
			streams.Go(func() {
				for ctx.Err() == nil {
					n := next()
					request, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
					req, err := http.NewRequestWithContext(request, "GET", "https://"+s.address+expensivePaths[n%2](s, n), nil)
					if err == nil {
						req.Header.Set("X-Forwarded-For", client)
						if resp, err := transport.RoundTrip(req); err == nil {
							resp.Body.Close()
						}
					}
					cancel()
				}
			})
		}
		streams.Wait()
		return nil
	}},
}

// pause waits for a time, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// command returns the command that starts a program for the attack.
func (a attack) command(b testing.TB, program string) *exec.Cmd {
	cert, key := writeCertificate(b, b.TempDir(), "x")
	cmd := exec.Command(program, "serve")
	if a.descriptors > 0 {
		cmd = exec.Command("sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, a.descriptors), program, "serve")
	}
	cmd.Args = append(cmd.Args, "--metrics-listen", "127.0.0.1:"+strconv.Itoa(freePort(b)))
	for _, f := range a.flags {
		cmd.Args = append(cmd.Args, strings.NewReplacer("CERT", cert, "KEY", key).Replace(f))
	}
	return cmd
}

// An endured attack says what others have seen of it.
type endured struct {
	pages    []time.Duration // how long each request for an ordinary page took
	changes  []time.Duration // how long each change of presence took to be visible
	requests int             // of the attack
}

// endure lets the clients of an attack run for a time.
func (s *loadedServer) endure(b testing.TB, a attack, length time.Duration) (seen endured) {
	ctx, cancel := context.WithTimeout(b.Context(), length)
	defer cancel()
	var number atomic.Int64
	var running sync.WaitGroup
	for i := range a.clients {
		running.Go(func() {
			err := a.run(ctx, s, fmt.Sprintf("198.18.%d.%d", i>>8, i&255), func() int { return int(number.Add(1)) })
			if err != nil && ctx.Err() == nil {
				b.Error(err)
			}
		})
	}
	running.Go(func() { seen.changes = s.watchChanges(b, length) })
	running.Go(func() { s.watchHealth(b, length) })
	seen.pages = s.watchPage(b, length)
	running.Wait()
	seen.requests = int(number.Load())
	return seen
}

// BenchmarkAttack measures an ordinary page, the time until a presence change is visible, and the memory of the program while many
// clients attack it. The clients run on the same cores.
func BenchmarkAttack(b *testing.B) {
	for name, a := range attacks {
		b.Run(name, func(b *testing.B) {
			s := newLoadedServer(b, 2*maxPeople, a.command(b, buildProgram(b)))
			var quiet, pages, changes []time.Duration
			requests := 0
			for b.Loop() {
				quiet = append(quiet, s.watchPage(b, attackRest)...)
				seen := s.endure(b, a, attackLength)
				pages, changes, requests = append(pages, seen.pages...), append(changes, seen.changes...), requests+seen.requests
			}
			_, before := latencies(quiet)
			median, p99 := latencies(pages)
			_, visible := latencies(changes)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(before, "page-p99-ms-without")
			b.ReportMetric(median, "page-median-ms")
			b.ReportMetric(p99, "page-p99-ms(<=50)")
			b.ReportMetric(visible, "change-p99-ms(<=1000)")
			b.ReportMetric(memory(b, s.process, "VmHWM"), "peak-MiB(<=200)")
			b.ReportMetric(float64(requests)/attackLength.Seconds()/float64(b.N), "requests/s")
			s.end(b, syscall.SIGTERM)
			used := s.cmd.ProcessState.UserTime() + s.cmd.ProcessState.SystemTime()
			b.ReportMetric(100*used.Seconds()/attackLength.Seconds()/float64(b.N), "server-CPU-%")
		})
	}
}

const (
	attackRest   = 2 * time.Second // before an attack, for comparison
	attackLength = 15 * time.Second
)

// watchPage requests a cached page again and again, and returns how long each response took.
func (s *loadedServer) watchPage(b testing.TB, length time.Duration) (took []time.Duration) {
	c, err := s.client("203.0.113.1")
	if err != nil {
		b.Error(err)
		return nil
	}
	defer func() { c.Close() }()
	for until := time.Now().Add(length); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		began := time.Now()
		if resp, _, err := s.get(c, s.path(0)); err != nil || resp.StatusCode != http.StatusOK {
			b.Errorf("the page: %v %v", resp, err)
			return took
		}
		took = append(took, time.Since(began))
	}
	return took
}

// watchChanges changes a person's presence again and again, and returns how long it took to be visible.
func (s *loadedServer) watchChanges(b testing.TB, length time.Duration) (took []time.Duration) {
	c, err := s.client("203.0.113.2")
	if err != nil {
		b.Error(err)
		return nil
	}
	defer func() { c.Close() }()
	person := len(s.people) - 1
	for i, until := 0, time.Now().Add(length); time.Now().Before(until); i++ {
		began := time.Now()
		s.says(b, person, "dnd", i)
		for {
			resp, body, err := s.get(c, s.path(person)+".json")
			if err != nil {
				b.Error(err)
				return took
			}
			if resp.StatusCode == http.StatusOK && bytes.Contains(body, fmt.Appendf(nil, `"message":"%d `, i)) {
				break
			}
			time.Sleep(time.Millisecond)
		}
		took = append(took, time.Since(began))
		time.Sleep(50 * time.Millisecond)
	}
	return took
}

// watchHealth asks for the health again and again, over new connections, and expects that it is good.
func (s *loadedServer) watchHealth(b testing.TB, length time.Duration) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	for until := time.Now().Add(length); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
		resp, err := client.Get("http://" + s.metrics + "/healthz")
		if err != nil {
			b.Error(err)
			return
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			b.Errorf("the health: %s %s", resp.Status, body)
			return
		}
	}
}

// BenchmarkStreams opens live streams of one, a hundred, or many people, and measures the memory of each and the time until a change
// reaches all viewers of one person.
func BenchmarkStreams(b *testing.B) {
	for _, people := range []int{1, 2 * maxPeople, 8000} {
		b.Run(fmt.Sprintf("people=%d", people), func(b *testing.B) { benchmarkStreams(b, openableStreams(b), people) })
	}
}

// openableStreams returns 20,000, or as many live streams as the limit on open files permits. The clients need as many files as the
// program, which leaves a quarter to other requests.
func openableStreams(b *testing.B) int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	return int(min(20_000, limit.Cur*7/10))
}

func benchmarkStreams(b *testing.B, streams, people int) {
	s := newLoadedServer(b, people, exec.Command(buildProgram(b), "serve"))
	before := memory(b, s.process, "VmRSS")
	var viewers []*webClient
	for i := range streams {
		c := s.viewer(b, i%len(s.people), i)
		defer c.Close()
		viewers = append(viewers, c)
	}
	event := func(c *webClient) {
		if err := c.event(); err != nil {
			b.Fatal(err)
		}
	}
	for _, c := range viewers {
		event(c)
	}
	each := (memory(b, s.process, "VmRSS") - before) * 1024 / float64(streams)
	var slowest []time.Duration
	for i := 0; b.Loop(); i++ {
		began := time.Now()
		s.says(b, 0, []string{"dnd", "xa"}[i%2], i)
		for v := 0; v < streams; v += len(s.people) {
			event(viewers[v])
		}
		slowest = append(slowest, time.Since(began))
		time.Sleep(eventPause)
	}
	median, _ := latencies(slowest)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(each, "KiB-each(<=12)")
	b.ReportMetric(median, "all-viewers-ms(<=1000)")
	s.end(b, syscall.SIGTERM)
}
