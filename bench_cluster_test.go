package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A loadedCluster is three nodes, each a process beside an XMPP server of its own, on a PostgreSQL that keeps what it has committed if the
// machine crashes. Each person's clients are at one of the XMPP servers.
type loadedCluster struct {
	database *postgresServer
	location string
	nodes    []*loadedNode
	people   []User
}

// A loadedNode is one of the nodes. Its server answers pings, and no probes.
type loadedNode struct {
	*loadedServer
	metrics string                    // address
	probes  atomic.Int64              // received
	result  atomic.Pointer[func(int)] // called for each result of a request, with the number in its id
}

// newLoadedCluster starts the nodes with a number of people, who show a message. It waits until no node expects answers to probes.
func newLoadedCluster(b *testing.B, people int) *loadedCluster {
	c := &loadedCluster{database: durablePostgres(b)}
	c.location = c.database.newDatabase(b)
	c.people = storeUsers(b, c.location, people, fieldSet(0).with(fieldMessage, true))
	program := buildProgram(b)
	for _, name := range []string{"a", "b", "c"} {
		c.nodes = append(c.nodes, c.newNode(b, program, name))
	}
	eventually(b, "everybody is probed", func() bool {
		time.Sleep(time.Second)
		for _, n := range c.nodes {
			if n.probes.Load() < int64(people) {
				return false
			}
		}
		return true
	})
	if people > 0 {
		time.Sleep(defaultSyncTimes.probe + time.Second)
	}
	return c
}

// durablePostgres starts a PostgreSQL that waits for the disk.
func durablePostgres(b *testing.B) *postgresServer {
	p := ownPostgres(b)
	p.end(syscall.SIGINT)
	p.durable = true
	if err := p.start(b.Context()); err != nil {
		b.Fatal(err)
	}
	return p
}

// storeUsers stores a number of users in a new database, and returns them.
func storeUsers(b *testing.B, location string, count int, options fieldSet) (users []User) {
	db, err := openDatabase(b.Context(), location, true)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	for i := range count {
		users = append(users, User{JID: fmt.Sprintf("user%06d@example.org", i), Token: Token{byte(i), byte(i >> 8), byte(i >> 16)}, Options: options,
			Subscription: SubscriptionBoth, Created: noon})
	}
	for batch := range slices.Chunk(users, 50_000) {
		if _, _, err := db.InsertUsers(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	return users
}

func (c *loadedCluster) newNode(b *testing.B, program, name string) *loadedNode {
	server, err := newLoopback("webstatus.example.org", "s3cret")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { server.listener.Close() })
	n := &loadedNode{loadedServer: &loadedServer{address: "127.0.0.1:" + strconv.Itoa(freePort(b)), people: c.people}, metrics: "127.0.0.1:" + strconv.Itoa(freePort(b))}
	cmd := exec.Command(program, "serve")
	cmd.Env = append(os.Environ(), "WEBSTATUS_TRUSTED_PROXY=127.0.0.1", "WEBSTATUS_DOMAIN="+server.domain, "WEBSTATUS_SECRET="+server.secret, "WEBSTATUS_SERVER="+server.address(),
		"WEBSTATUS_DB="+c.location, "WEBSTATUS_NODE="+name, "WEBSTATUS_LISTEN="+n.address, "WEBSTATUS_METRICS_LISTEN="+n.metrics, "WEBSTATUS_LOG_LEVEL=warn")
	n.process = start(b, cmd)
	if n.stream, err = server.acceptSoon(); err != nil {
		b.Fatal(err)
	}
	go n.answer()
	return n
}

// answer answers the pings of the node, and counts its probes and results.
func (n *loadedNode) answer() {
	for {
		f, err := n.stream.framer.next()
		if err != nil {
			return
		}
		switch typ, id := string(attribute(f.data, "type")), string(attribute(f.data, "id")); typ {
		case "probe":
			n.probes.Add(1)
		case "get":
			n.stream.send(`<iq type='result' id='%s' from='webstatus.example.org' to='webstatus.example.org'/>`, id)
		case "result", "error":
			if note := n.result.Load(); note != nil {
				if number, err := strconv.Atoi(id); err == nil && typ == "result" {
					(*note)(number)
				}
			}
		}
	}
}

// home returns the node beside the server that a person's clients are at, and viewedAt another one, at which the page is viewed.
func (c *loadedCluster) home(person int) *loadedNode     { return c.nodes[person%len(c.nodes)] }
func (c *loadedCluster) viewedAt(person int) *loadedNode { return c.nodes[(person+1)%len(c.nodes)] }

// metric returns the sum of a metric over all nodes.
func (c *loadedCluster) metric(b *testing.B, name string) (sum float64) {
	for _, n := range c.nodes {
		resp, err := http.Get("http://" + n.metrics + "/metrics")
		if err != nil {
			b.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		_, line, found := strings.Cut(string(text), "\n"+name+" ")
		if err != nil || !found {
			b.Fatalf("%s: %v", name, err)
		}
		line, _, _ = strings.Cut(line, "\n")
		value, err := strconv.ParseFloat(line, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += value
	}
	return sum
}

// show waits until all nodes show a text in the status of each of some people.
func (c *loadedCluster) show(b *testing.B, people []User, text string) {
	b.Helper()
	deadline := time.Now().Add(patience)
	for _, n := range c.nodes {
		client, err := n.client("")
		if err != nil {
			b.Fatal(err)
		}
		defer func() { client.Close() }()
		requests := 0
		for group := range slices.Chunk(people, maxPeople) {
			var tokens []string
			for _, u := range group {
				tokens = append(tokens, u.Token.String())
			}
			for shown := 0; shown < len(group); {
				requests++
				client.from = fmt.Sprintf("198.18.%d.%d", requests>>8&255, requests&255)
				_, body, err := n.get(client, statusPath+strings.Join(tokens, ",")+".json")
				if shown = bytes.Count(body, []byte(text)); err != nil || time.Now().After(deadline) {
					b.Fatalf("%d of %d people are shown: %v\n%s", shown, len(group), err, body)
				}
			}
		}
	}
}

// BenchmarkCluster measures three nodes on a PostgreSQL that waits for the disk. All of them, PostgreSQL and the clients share the machine.
func BenchmarkCluster(b *testing.B) {
	b.Run("changes=200", func(b *testing.B) {
		benchmarkClusterChanges(b, clusterChanges{rate: 200, people: 400, watched: 400, length: 20 * time.Second})
	})
	b.Run("changes=5000", func(b *testing.B) {
		benchmarkClusterChanges(b, clusterChanges{rate: 5000, people: 30_000, watched: 300, length: time.Minute})
	})
	b.Run("registrations", benchmarkClusterRegistrations)
	b.Run("users", benchmarkClusterUsers)
}

// clusterChanges is a load of presence changes, spread evenly over people and time.
type clusterChanges struct {
	rate    int // each second
	people  int
	watched int // people who have a viewer
	length  time.Duration
}

// benchmarkClusterChanges measures how long it takes until a change that one node hears of is shown by another, and how far the nodes are
// behind in the end; and how long a notification of PostgreSQL takes with nothing else going on.
func benchmarkClusterChanges(b *testing.B, load clusterChanges) {
	c := newLoadedCluster(b, load.people)
	notifyMedian, notifyP99 := latencies(c.notifications(b, load.rate))
	var took []time.Duration
	var behind time.Duration
	var backlog, rate float64
	round := 0
	for b.Loop() {
		w := c.watch(b, load)
		began := time.Now()
		changes := c.change(b, load, round, w)
		ended := time.Now()
		rate = float64(changes) / ended.Sub(began).Seconds()
		backlog = c.metric(b, "webstatus_presence_backlog") + c.metric(b, "webstatus_queue_tasks")
		last := c.people[(changes-1)%load.people/maxPeople*maxPeople:][:maxPeople]
		round += changes / load.people
		text := fmt.Sprintf(`"message":"%d"`, round-1)
		c.show(b, last, text)
		behind = max(behind, time.Since(ended))
		c.show(b, c.people, text)
		took = append(took, w.close()...)
	}
	median, p99 := latencies(took)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(rate, "changes/s")
	b.ReportMetric(median, "change-median-ms")
	b.ReportMetric(p99, "change-p99-ms(<=100)")
	b.ReportMetric(notifyMedian, "notify-median-ms")
	b.ReportMetric(notifyP99, "notify-p99-ms")
	b.ReportMetric(behind.Seconds(), "behind-s(<=1)")
	b.ReportMetric(backlog, "backlog")
	c.end(b)
}

// notifications measures how long notifications take from one connection to PostgreSQL to another.
func (c *loadedCluster) notifications(b *testing.B, rate int) (took []time.Duration) {
	var conns [2]*pgx.Conn
	for i := range conns {
		var err error
		if conns[i], err = pgx.Connect(b.Context(), c.location); err != nil {
			b.Fatal(err)
		}
		defer conns[i].Close(b.Context())
	}
	if _, err := conns[1].Exec(b.Context(), "LISTEN yardstick"); err != nil {
		b.Fatal(err)
	}
	tick := time.NewTicker(time.Second / time.Duration(min(rate, 1000)))
	defer tick.Stop()
	for range 1000 {
		began := time.Now()
		if _, err := conns[0].Exec(b.Context(), "NOTIFY yardstick"); err != nil {
			b.Fatal(err)
		}
		if _, err := conns[1].WaitForNotification(b.Context()); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
		<-tick.C
	}
	return took
}

// A clusterWatch is viewers of people.
type clusterWatch struct {
	every   int // each so many people have a viewer
	clients []*webClient
	viewers sync.WaitGroup

	mu    sync.Mutex
	began []map[string]time.Time // of each person's changes, by message
	took  []time.Duration
}

func (c *loadedCluster) watch(b *testing.B, load clusterChanges) *clusterWatch {
	w := &clusterWatch{every: load.people / load.watched, began: make([]map[string]time.Time, load.people)}
	for person := 0; person < load.people; person += w.every {
		w.began[person] = make(map[string]time.Time)
		client := c.viewedAt(person).viewer(b, person, person)
		if err := client.event(); err != nil { // the current status
			b.Fatal(err)
		}
		w.clients = append(w.clients, client)
		w.viewers.Go(func() {
			for {
				line, err := client.answers.ReadBytes('\n')
				if err != nil {
					return
				}
				_, rest, found := bytes.Cut(line, []byte(`"message":"`))
				if !found {
					continue
				}
				message, _, _ := bytes.Cut(rest, []byte(`"`))
				w.mu.Lock()
				if began, ok := w.began[person][string(message)]; ok {
					w.took = append(w.took, time.Since(began))
				}
				w.mu.Unlock()
			}
		})
	}
	return w
}

// note records that a person's presence is about to change.
func (w *clusterWatch) note(person int, message string) {
	if all := w.began[person]; all != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		all[message] = time.Now()
	}
}

// close ends the viewers, and returns how long the changes took.
func (w *clusterWatch) close() []time.Duration {
	for _, client := range w.clients {
		client.Close()
	}
	w.viewers.Wait()
	return w.took
}

// change changes the presence of people at a rate, and returns the number of changes. Each message is the number of the round.
func (c *loadedCluster) change(b *testing.B, load clusterChanges, round int, w *clusterWatch) (changes int) {
	total := load.rate * int(load.length.Seconds())
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for changes < total {
		<-tick.C
		var texts [3]strings.Builder
		for due := min(total, int(time.Since(began).Seconds()*float64(load.rate))); changes < due; changes++ {
			person, number := changes%load.people, round+changes/load.people
			message := strconv.Itoa(number)
			w.note(person, message)
			fmt.Fprintf(&texts[person%len(texts)], `<presence from='%s/x' to='webstatus.example.org'><show>%s</show><status>%s</status></presence>`, c.people[person].JID,
				[]string{"dnd", "xa"}[number%2], message)
		}
		for i := range texts {
			if texts[i].Len() == 0 {
				continue
			}
			if err := c.nodes[i].stream.send(texts[i].String()); err != nil {
				b.Fatal(err)
			}
		}
	}
	return changes
}

// benchmarkClusterRegistrations registers people at all nodes as fast as these confirm it, and measures the rate, up to the time when all
// nodes show everybody; and the rate of commits of single rows from as many connections as the nodes have.
func benchmarkClusterRegistrations(b *testing.B) {
	const count, window = 20_000, 300 // requests that await their answers
	c := newLoadedCluster(b, 0)
	commits := c.commits(b)
	var rate, confirmed float64
	var took []time.Duration
	for round := 0; b.Loop(); round++ {
		var mu sync.Mutex
		began := make([]time.Time, count)
		room, done := make(chan struct{}, window), make(chan struct{}, count)
		result := func(i int) {
			mu.Lock()
			took = append(took, time.Since(began[i]))
			mu.Unlock()
			<-room
			done <- struct{}{}
		}
		for _, n := range c.nodes {
			n.result.Store(&result)
		}
		start := time.Now()
		for i := range count {
			room <- struct{}{}
			mu.Lock()
			began[i] = time.Now()
			mu.Unlock()
			c.home(i).stream.send(`<iq type='set' id='%s' from='new%s-%s@example.org/x' to='webstatus.example.org'><query xmlns='jabber:iq:register'><show_full_jid>1</show_full_jid></query></iq>`,
				strconv.Itoa(i), strconv.Itoa(round), strconv.Itoa(i))
		}
		for range count {
			<-done
		}
		confirmed = count / time.Since(start).Seconds()
		for c.metric(b, "webstatus_users_registered") < float64(count*(round+1)*len(c.nodes)) {
			time.Sleep(10 * time.Millisecond)
		}
		rate = count / time.Since(start).Seconds()
	}
	_, p99 := latencies(took)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(rate, "registrations/s(>=1000)")
	b.ReportMetric(confirmed, "confirmed/s")
	b.ReportMetric(p99, "confirmation-p99-ms")
	b.ReportMetric(commits, "commits-alone/s")
	c.end(b)
}

// commits measures how many rows are inserted a second, each in a transaction of its own.
func (c *loadedCluster) commits(b *testing.B) float64 {
	if err := c.database.execute(c.location, "CREATE SCHEMA yardstick; CREATE TABLE yardstick.users (jid TEXT PRIMARY KEY, token BYTEA UNIQUE)"); err != nil {
		b.Fatal(err)
	}
	const length = 3 * time.Second
	var count atomic.Int64
	var running sync.WaitGroup
	until := time.Now().Add(length)
	for range len(c.nodes) * postgresConnections {
		running.Go(func() {
			conn, err := pgx.Connect(b.Context(), c.location)
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close(b.Context())
			for time.Now().Before(until) {
				n := count.Add(1)
				_, err := conn.Exec(b.Context(), "INSERT INTO yardstick.users VALUES ($1, $2)", fmt.Sprintf("user%d@example.org", n), fmt.Appendf(nil, "%016d", n))
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	return float64(count.Load()) / length.Seconds()
}

// benchmarkClusterUsers compares a node that has a million users in PostgreSQL with a process that has them in a file: the time until it
// answers requests; and 30 seconds later, while it probes everybody, its resident memory and what was left of its heap when garbage was
// collected last.
func benchmarkClusterUsers(b *testing.B) {
	const users, settling = 1_000_000, 30 * time.Second
	p := durablePostgres(b)
	engines := map[string]*manyUsers{"SQLite": newManyUsers(b, filepath.Join(b.TempDir(), "webstatus.db"), users), "PostgreSQL": newManyUsers(b, p.newDatabase(b), users)}
	b.Setenv("GODEBUG", "gctrace=1")
	for b.Loop() {
		resident, heap := make(map[string]float64), make(map[string]float64)
		for name, s := range engines {
			node, serving := s.start(b)
			time.Sleep(settling)
			resident[name], heap[name] = memory(b, node, "VmRSS"), liveHeap(b, node)
			node.end(b, syscall.SIGTERM)
			b.ReportMetric(serving.Seconds(), name+"-serving-s")
			b.ReportMetric(resident[name], name+"-MiB")
			b.ReportMetric(heap[name], name+"-heap-MiB")
		}
		b.ReportMetric(resident["PostgreSQL"]/resident["SQLite"], "resident-ratio(<=1.1)")
		b.ReportMetric(heap["PostgreSQL"]/heap["SQLite"], "heap-ratio(<=1.1)")
	}
	b.ReportMetric(0, "ns/op")
}

// liveHeap returns the size of the heap after the last garbage collection of a process that traces them, in MiB.
func liveHeap(b *testing.B, p *process) float64 {
	all := gcTrace.FindAllStringSubmatch(p.out.String(), -1)
	if len(all) == 0 {
		b.Fatal("no garbage has been collected")
	}
	mib, err := strconv.ParseFloat(all[len(all)-1][1], 64)
	if err != nil {
		b.Fatal(err)
	}
	return mib
}

// gcTrace matches a line of GODEBUG=gctrace=1, with the size of the heap after a collection.
var gcTrace = regexp.MustCompile(`(?m)^gc \d+ @.*->(\d+) MB, `)

// end stops the nodes and reports their use of the processors.
func (c *loadedCluster) end(b *testing.B) {
	var used time.Duration
	for _, n := range c.nodes {
		n.process.end(b, syscall.SIGTERM)
		used += n.cmd.ProcessState.UserTime() + n.cmd.ProcessState.SystemTime()
	}
	c.database.end(syscall.SIGINT)
	state := c.database.cmd.ProcessState
	b.ReportMetric(used.Seconds(), "nodes-CPU-s")
	b.ReportMetric((state.UserTime() + state.SystemTime()).Seconds(), "PostgreSQL-CPU-s")
}
