package main

import (
	"fmt"
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// A collector reads the state of the running service for metrics and health checks.
type collector struct {
	component *component
	site      *website
	db        *database
}

// metric returns the description of one of our metrics; the name gets the prefix webstatus_.
func metric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("webstatus_"+name, help, labels, nil)
}

var (
	linkUp           = metric("link_up", "Whether the link to the XMPP server is up.")
	linkConnections  = metric("link_connections", "Open connections to the XMPP server.")
	linksTotal       = metric("links_total", "Connections to the XMPP server established since the start.")
	stanzasReceived  = metric("stanzas_received_total", "Stanzas received from the XMPP server.", "kind")
	stanzasSent      = metric("stanzas_sent_total", "Stanzas sent to the XMPP server.", "kind")
	queueTasks       = metric("queue_tasks", "Stanzas waiting to be handled.")
	registeredUsers  = metric("users_registered", "Registered users.")
	usersByState     = metric("users", "Registered users by state.", "state")
	requestsAnswered = metric("http_requests_total", "HTTP requests by representation and status class.", "representation", "status")
	openStreams      = metric("event_streams", "Open event streams.")
	webhookRequests  = metric("webhook_requests_total", "Requests to the webhook by result.", "result")
	webhookDropped   = metric("webhook_dropped_total", "Changes that the webhook has not been sent and will not be.")
	webhookWaiting   = metric("webhook_waiting", "Users with a change that waits to be sent to the webhook.")
	presenceBacklog  = metric("presence_backlog", "Users whose presence has not been stored in the database yet.")
	databaseFailing  = metric("database_failing", "Whether the last database transaction failed.")
	buildInfo        = metric("build_info", "1, with the version.", "version", "goversion")
)

// Describe implements prometheus.Collector.
func (m collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector. It counts nothing itself: it reads the counters of the layers below.
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
	gauge(linkConnections, float64(len(c.links.open())))
	count(linksTotal, uint64(link.number))
	for i, kind := range stanzaKinds {
		count(stanzasReceived, c.received[i].Load(), kind)
		count(stanzasSent, c.links.sent[i].Load(), kind)
	}
	gauge(queueTasks, float64(c.dispatcher.length()))
	byState, now := make(map[State]int), c.now()
	for e := range c.board.all() {
		if s := e.snapshot.Load(); s != nil {
			byState[s.state(s.freshness(link, now))]++
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
	if hook := m.site.webhook; hook != nil {
		count(webhookRequests, hook.sent.Load(), "sent")
		count(webhookRequests, hook.failed.Load(), "failed")
		count(webhookDropped, hook.dropped.Load())
		gauge(webhookWaiting, float64(hook.length()))
	}
	gauge(presenceBacklog, float64(c.registry.Backlog()))
	gauge(databaseFailing, oneIf(m.db.failing() != nil))
	m.db.durations.Collect(ch)
	m.collectNodes(gauge)
	gauge(buildInfo, 1, version, runtime.Version())
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// handler returns the handler for --metrics-listen.
func (m collector) handler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", m.serveHealth)
	return withErrorHeaders(mux)
}
