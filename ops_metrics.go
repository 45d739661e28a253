package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

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
	gauge(linkUp, oneIf(link.downSince.IsZero()))
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
		if s := e.snapshot.Load(); s != nil {
			byState[s.view(s.freshness(link, c.now()), m.site.renderer.Load().languages.english(), 0).State]++
		}
	}
	total := 0
	for _, state := range states {
		gauge(usersByState, float64(byState[state]), string(state))
		total += byState[state]
	}
	gauge(registeredUsers, float64(total))
	for i, representation := range representations {
		for class := range m.site.answers[i] {
			if n := m.site.answers[i][class].Load(); n > 0 {
				count(requestsAnswered, n, representation, fmt.Sprintf("%dxx", class))
			}
		}
	}
	gauge(openStreams, float64(m.site.limits.streams.open()))
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

// handler answers at --metrics-listen.
func (m collector) handler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, r *http.Request) {
		h := m.health(r.Context())
		rw.Header()["Content-Type"] = headerJSON
		rw.Header()["Cache-Control"] = headerNoStore
		if !h.OK {
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
		json.NewEncoder(rw).Encode(h) // an error means that the client has gone
	})
	return mux
}
