package main

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// A checkResult is the health of one subsystem.
type checkResult struct {
	OK      bool   `json:"ok"`
	Problem string `json:"problem,omitempty"`
	Since   string `json:"since,omitempty"` // RFC 3339
}

// health is the response body of /healthz.
type health struct {
	OK       bool        `json:"ok"`
	Node     *nodeHealth `json:"node,omitempty"` // only with PostgreSQL
	Link     checkResult `json:"link"`
	Database checkResult `json:"database"`
	Web      checkResult `json:"web"`
}

// databaseTimeout limits the health check's query.
const databaseTimeout = 5 * time.Second

// health checks the link, the dispatcher, the database and the web server.
func (m collector) health(ctx context.Context) health {
	h := health{Node: m.node()}
	if link := m.component.board.link.Load(); link.isUp() || h.Node != nil && h.Node.Standby && link.elsewhere {
		h.Link.OK = true
	} else {
		h.Link = checkResult{Problem: "no link to the XMPP server", Since: formatTime(link.downSince)}
	}
	if !m.component.isAlive(ctx) {
		h.Link = checkResult{Problem: "stanzas are not being handled"}
	}
	h.Database = m.databaseHealth(ctx)
	h.Web.OK = m.site.closing.Err() == nil
	if !h.Web.OK {
		h.Web.Problem = "shutting down"
	}
	h.OK = h.Link.OK && h.Database.OK && h.Web.OK
	return h
}

// databaseHealth reports the last write error if the database is failing, and otherwise runs a query.
func (m collector) databaseHealth(ctx context.Context) checkResult {
	if failing := m.db.failing(); failing != nil {
		return checkResult{Problem: "the database " + failing.err.Error(), Since: formatTime(failing.since)}
	}
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	switch _, err := m.db.DataVersion(ctx, true); {
	case ctx.Err() != nil:
		return checkResult{Problem: "the database does not respond"}
	case err != nil:
		return checkResult{Problem: "the database " + err.Error()}
	}
	return checkResult{OK: true}
}

// serveHealth serves /healthz: the health as JSON, with 200 OK or 503 Service Unavailable.
func (m collector) serveHealth(rw http.ResponseWriter, r *http.Request) {
	h := m.health(r.Context())
	rw.Header().Set("Content-Type", "application/json")
	if !h.OK {
		rw.WriteHeader(http.StatusServiceUnavailable)
	}
	json.NewEncoder(rw).Encode(h) // fails only if the client is gone
}
