package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
)

// counters count what happens, at the cost of one atomic addition each.
type counters struct {
	received [4]atomic.Uint64                   // stanzas, by kind
	sent     [4]atomic.Uint64                   // the same
	answers  [len(answerKinds)][6]atomic.Uint64 // by what was asked for, and by class of status
}

var stanzaKinds = [4]string{"iq", "message", "presence", "other"}

// stanzaKind returns the index of a kind.
func stanzaKind(name string) int {
	for i, kind := range stanzaKinds {
		if kind == name {
			return i
		}
	}
	return len(stanzaKinds) - 1
}

// answerKinds are what may be asked for.
var answerKinds = [...]string{"page", "json", "txt", "xml", "js", "svg", "png", "events", "embed", "index", "compatible", "none"}

// answerKind returns the index of what a path asks for.
func answerKind(path string) int {
	if path == "/" {
		return 9
	}
	if strings.HasPrefix(path, "/presence/") || strings.Contains(path, "@") {
		return 10
	}
	if !strings.HasPrefix(path, statusPath) {
		return 11
	}
	end := path[strings.LastIndexAny(path, "./")+1:]
	for i, kind := range answerKinds[:9] {
		if end == kind {
			return i
		}
	}
	return 0
}

// A counted answer remembers its status.
type counted struct {
	http.ResponseWriter
	status int
}

func (c *counted) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController through.
func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// count counts the answers of a handler.
func (c *counters) count(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		answer := counted{rw, http.StatusOK}
		handler.ServeHTTP(&answer, r)
		c.answers[answerKind(r.URL.Path)][min(answer.status/100, 5)].Add(1)
	})
}

// A collector tells Prometheus how a component and its website are when it is asked.
type collector struct {
	component *component
	site      *website
}

func metric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("webstatus_"+name, help, labels, nil)
}

var (
	linkUp           = metric("link_up", "Whether there is a link to the XMPP server.")
	linkConnections  = metric("link_connections", "Open connections to the XMPP server.")
	linkNumber       = metric("links_total", "Connections to the XMPP server that came up since the start.")
	stanzasReceived  = metric("stanzas_received_total", "Stanzas from the XMPP server.", "kind")
	stanzasSent      = metric("stanzas_sent_total", "Stanzas to the XMPP server.", "kind")
	queueTasks       = metric("queue_tasks", "Stanzas that wait to be handled.")
	registeredUsers  = metric("users_registered", "Registered users.")
	usersByState     = metric("users", "Registered users by what is known of them.", "state")
	requestsAnswered = metric("http_requests_total", "Requests answered, by what was asked for and the class of the status.", "representation", "status")
	openStreams      = metric("event_streams", "Open live streams.")
	presenceBacklog  = metric("presence_backlog", "Users whose presence is still to be written to the database.")
	databaseFailing  = metric("database_failing", "Whether the last transaction has failed.")
	databaseWrites   = metric("database_transaction_seconds", "How long transactions took.")
	buildInfo        = metric("build_info", "1, with the version.", "version", "goversion")
)

// Describe names what Collect may tell.
func (m collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect tells how things are now.
func (m collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	count := func(d *prometheus.Desc, value uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	c := m.component
	link := c.board.link.Load()
	gauge(linkUp, oneIf(link.since.IsZero()))
	gauge(linkConnections, float64(len(c.openStreams())))
	count(linkNumber, uint64(link.number))
	for i, kind := range stanzaKinds {
		count(stanzasReceived, c.counters.received[i].Load(), kind)
		count(stanzasSent, c.counters.sent[i].Load(), kind)
	}
	waiting := 0
	for _, w := range c.workers {
		waiting += len(w.queue)
	}
	gauge(queueTasks, float64(waiting))
	byState := make(map[State]int)
	for e := range c.board.all() {
		if s := e.current.Load(); s != nil {
			byState[s.view(s.validity(link, c.now()), m.site.renderer.Load().languages.all[0], 0).State]++
		}
	}
	total := 0
	for _, state := range states {
		gauge(usersByState, float64(byState[state]), string(state))
		total += byState[state]
	}
	gauge(registeredUsers, float64(total))
	for kind := range answerKinds {
		for class := range 6 {
			if n := c.counters.answers[kind][class].Load(); n > 0 {
				count(requestsAnswered, n, answerKinds[kind], fmt.Sprintf("%dxx", class))
			}
		}
	}
	gauge(openStreams, float64(m.site.streams.open()))
	c.mu.Lock()
	backlog := len(c.unsaved)
	c.mu.Unlock()
	gauge(presenceBacklog, float64(backlog))
	gauge(databaseFailing, oneIf(c.db.failing() != nil))
	times := c.db.times.snapshot()
	ch <- prometheus.MustNewConstHistogram(databaseWrites, times.count, times.sum, times.buckets)
	gauge(buildInfo, 1, version, runtime.Version())
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// A histogram counts durations below bounds.
type histogram struct {
	mu      sync.Mutex
	count   uint64
	sum     float64 // seconds
	buckets map[float64]uint64
}

var histogramBounds = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

func (h *histogram) add(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count++
	h.sum += d.Seconds()
	if h.buckets == nil {
		h.buckets = make(map[float64]uint64)
	}
	for _, bound := range histogramBounds {
		if d.Seconds() <= bound {
			h.buckets[bound]++
		}
	}
}

func (h *histogram) snapshot() *histogram {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := &histogram{count: h.count, sum: h.sum, buckets: make(map[float64]uint64)}
	for _, bound := range histogramBounds {
		now.buckets[bound] = h.buckets[bound]
	}
	return now
}

// A finding is how one part of us is.
type finding struct {
	OK      bool   `json:"ok"`
	Problem string `json:"problem,omitempty"`
	Since   string `json:"since,omitempty"` // RFC 3339
}

// health is what /healthz answers.
type health struct {
	OK       bool    `json:"ok"`
	Link     finding `json:"link"`
	Database finding `json:"database"`
	Web      finding `json:"web"`
}

// health looks whether the link, the database and the web work.
func (m collector) health(ctx context.Context) health {
	var h health
	if link := m.component.board.link.Load(); link.since.IsZero() {
		h.Link.OK = true
	} else {
		h.Link = finding{Problem: "no link to the XMPP server", Since: optionalTime(link.since)}
	}
	h.Database.OK = true
	if failing := m.component.db.failing(); failing != nil {
		h.Database = finding{Problem: explain(failing.err).Error(), Since: optionalTime(failing.since)}
	} else if !m.component.isAlive(ctx) {
		h.Database = finding{Problem: "the workers or the database do not answer"}
	}
	h.Web.OK = m.site.closing.Err() == nil
	if !h.Web.OK {
		h.Web.Problem = "stopping"
	}
	h.OK = h.Link.OK && h.Database.OK && h.Web.OK
	return h
}

// handler answers at --metrics-listen.
func (m collector) handler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, r *http.Request) {
		h := m.health(r.Context())
		rw.Header()["Content-Type"] = asJSON.contentType
		rw.Header()["Cache-Control"] = noStore
		if !h.OK {
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
		json.NewEncoder(rw).Encode(h) // a reader who has gone needs no answer
	})
	return mux
}

// healthcheckCommand asks a running serve, for containers that have no other program to ask with.
func healthcheckCommand() *cobra.Command {
	var conf config
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask a running serve whether it is well",
		Long:  "Ask /healthz at --metrics-listen, print what it says, and exit with 0 if all is well.",
		Args:  cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string, problems *usageError) error {
			if conf.metrics == "" {
				problems.add("metrics-listen", "required: the address that serve has been given")
			}
			if err := problems.orNil(); err != nil {
				return err
			}
			client := &http.Client{Timeout: 2 * aliveTime}
			resp, err := client.Get("http://" + conf.metrics + "/healthz")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if _, err := io.Copy(cmd.OutOrStdout(), resp.Body); err != nil {
				return err
			}
			if resp.StatusCode != http.StatusOK {
				return errors.New("not well")
			}
			return nil
		}),
	}
	cmd.Flags().StringVar(&conf.metrics, "metrics-listen", "", "`address` that serve has been given, such as 127.0.0.1:9180")
	return cmd
}
