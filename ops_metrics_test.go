package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestMetrics checks /metrics, and /healthz with the link up and down and the database writable and not.
func TestMetrics(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "<show>away</show>")
	web := httptest.NewServer(f.site.answers.count(f.site.handler()))
	defer web.Close()
	for _, path := range []string{julietPage, julietPage + ".json", "/status/nobody.svg", "/", "/x", "/presence/juliet/example.org/text"} {
		resp, err := http.Get(web.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	monitoring := httptest.NewServer(collector{f.comp, f.site, f.db}.handler())
	defer monitoring.Close()
	get := func(path string) (int, string) {
		t.Helper()
		resp, body := fetch(t, monitoring.URL+path)
		checkSecurityHeaders(t, path, resp.StatusCode, resp.Header)
		return resp.StatusCode, body
	}
	get("/elsewhere")
	_, body := get("/metrics")
	for _, line := range []string{"webstatus_link_up 1", "webstatus_users_registered 1", `webstatus_users{state="away"} 1`, `webstatus_users{state="dnd"} 0`,
		`webstatus_http_requests_total{representation="page",status="2xx"} 1`, `webstatus_http_requests_total{representation="json",status="2xx"} 1`,
		`webstatus_http_requests_total{representation="svg",status="4xx"} 1`, `webstatus_http_requests_total{representation="index",status="2xx"} 1`,
		`webstatus_http_requests_total{representation="none",status="4xx"} 1`, `webstatus_http_requests_total{representation="legacy",status="2xx"} 1`,
		`webstatus_stanzas_received_total{kind="presence"} 2`, "webstatus_event_streams 0", "webstatus_database_failing 0", "# TYPE webstatus_database_transaction_seconds histogram",
		"go_goroutines ", "process_open_fds ", `webstatus_build_info{goversion=`} {
		if !strings.Contains(body, line) {
			t.Errorf("no %s in\n%s", line, body)
		}
	}
	if strings.Contains(body, "juliet") || strings.Contains(body, "s3cret") {
		t.Error("the metrics contain JIDs or secrets")
	}
	healthy := func(status int, link, database bool) {
		t.Helper()
		code, body := get("/healthz")
		var h health
		if err := json.Unmarshal([]byte(body), &h); err != nil || code != status || h.OK != (status == 200) || h.Link.OK != link || h.Database.OK != database || !h.Web.OK {
			t.Errorf("%d %s %v", code, body, err)
		}
		if !link && h.Link.Since == "" || !database && (h.Database.Since == "" || h.Database.Problem == "") {
			t.Errorf("no time or no problem: %s", body)
		}
	}
	healthy(200, true, true)
	if _, err := f.db.sql.Exec("PRAGMA query_only = 1"); err != nil {
		t.Fatal(err)
	}
	f.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><show_nick>1</show_nick></query></iq>`)
	f.want(`<iq type='error' id='r' …`)
	healthy(503, true, false)
	if _, err := f.db.sql.Exec("PRAGMA query_only = 0"); err != nil {
		t.Fatal(err)
	}
	f.send(`<iq type='set' id='r' from='juliet@example.org/b' to='webstatus.example.org'><query xmlns='jabber:iq:register'><show_full_jid>1</show_full_jid></query></iq>`)
	f.want(`<iq type='result' id='r' …`)
	healthy(200, true, true)
	f.server.listener.Close()
	f.stream.Close()
	eventually(t, "the link is down", func() bool { code, _ := get("/healthz"); return code == 503 })
	healthy(503, false, true)
}

// TestNodeMetrics checks that /metrics and /healthz distinguish nodes, and that a node is forgotten that has been gone for long.
func TestNodeMetrics(t *testing.T) {
	t.Parallel()
	a, b := twoNodes(t, newPostgresDatabase(t))
	eventually(t, "one node leads", func() bool { return a.comp.registry.Leads() != b.comp.registry.Leads() })
	if b.comp.registry.Leads() {
		a, b = b, a
	}
	addresses := make(map[*fixture]string) // of the monitoring
	for _, f := range []*fixture{a, b} {
		monitoring := httptest.NewServer(collector{f.comp, f.site, f.db}.handler())
		t.Cleanup(monitoring.Close)
		addresses[f] = monitoring.URL
	}
	names := strings.NewReplacer("LEADER", a.node, "OTHER", b.node)
	shows := func(f *fixture, path string, lines ...string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s of %s has %q", path, f.node, lines), func() bool {
			_, body := fetch(t, addresses[f]+path)
			return !slices.ContainsFunc(lines, func(line string) bool { return !strings.Contains(body, names.Replace(line)) })
		})
	}
	shows(a, "/healthz", `{"ok":true,"node":{"name":"LEADER","leads":true,"standby":false},"link":{"ok":true}`)
	shows(b, "/healthz", `{"ok":true,"node":{"name":"OTHER","leads":false,"standby":false},"link":{"ok":true}`)
	shows(a, "/metrics", `webstatus_node_info{node="LEADER"} 1`, "webstatus_node_leads 1", `webstatus_cluster_node_alive{node="OTHER"} 1`,
		`webstatus_cluster_node_linked{node="OTHER"} 1`)
	shows(b, "/metrics", `webstatus_node_info{node="OTHER"} 1`, "webstatus_node_leads 0", `webstatus_cluster_node_alive{node="LEADER"} 1`,
		`webstatus_cluster_node_linked{node="LEADER"} 1`)
	a.stop()
	shows(b, "/metrics", "webstatus_node_leads 1", `webstatus_cluster_node_alive{node="LEADER"} 0`, `webstatus_cluster_node_linked{node="LEADER"} 0`)
	shows(b, "/healthz", `{"ok":true,"node":{"name":"OTHER","leads":true,"standby":false},"link":{"ok":true}`)

	if err := b.db.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	shows(b, "/metrics", `webstatus_cluster_node_alive{node="LEADER"} 0`)
	if _, err := b.db.sql.Exec("UPDATE nodes SET seen = seen - interval '25 hours' WHERE name = $1", a.node); err != nil {
		t.Fatal(err)
	}
	if err := b.db.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node is forgotten", func() bool {
		_, body := fetch(t, addresses[b]+"/metrics")
		return !strings.Contains(body, "webstatus_cluster_node") && strings.Contains(body, "webstatus_node_info")
	})
}

// TestAlerts checks and tests the alerting rules with promtool, and checks that they and the dashboard use existing metrics.
func TestAlerts(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command(need(t, "promtool"), "check", "rules", "dist/alerts.yml").CombinedOutput(); err != nil {
		t.Errorf("%v %s", err, out)
	}
	if out, err := exec.Command(need(t, "promtool"), "test", "rules", "dist/alerts_test.yml").CombinedOutput(); err != nil {
		t.Errorf("%v %s", err, out)
	}
	f, _ := twoNodes(t, newPostgresDatabase(t))
	monitoring := httptest.NewServer(collector{f.comp, f.site, f.db}.handler())
	defer monitoring.Close()
	_, known := fetch(t, monitoring.URL+"/metrics")
	for _, file := range []string{"dist/alerts.yml", "dist/grafana.json"} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, ".json") && !json.Valid(content) {
			t.Errorf("%s is not JSON", file)
		}
		for _, name := range metricName.FindAllString(string(content), -1) {
			base := strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_count")
			if !strings.Contains(string(known), "# HELP "+base+" ") && base != "webstatus_http_requests_total" {
				t.Errorf("%s: unknown metric %s", file, name)
			}
		}
	}
}

var metricName = regexp.MustCompile(`webstatus_[a-z_]+`)
