package main

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// A finding is the health of one part.
type finding struct {
	OK      bool   `json:"ok"`
	Problem string `json:"problem,omitempty"`
	Since   string `json:"since,omitempty"` // RFC 3339
}

// health is the answer of /healthz.
type health struct {
	OK       bool    `json:"ok"`
	Link     finding `json:"link"`
	Database finding `json:"database"`
	Web      finding `json:"web"`
}

// databaseTimeout is how long a healthy database may take to answer.
const databaseTimeout = 5 * time.Second

// health checks the link, the database and the web server.
func (m collector) health(ctx context.Context) health {
	var h health
	if link := m.component.board.link.Load(); link.isUp() {
		h.Link.OK = true
	} else {
		h.Link = finding{Problem: "no link to the XMPP server", Since: formatTime(link.downSince)}
	}
	if !m.component.isAlive(ctx) {
		h.Link = finding{Problem: "stanzas are not handled"}
	}
	h.Database = m.databaseHealth(ctx)
	h.Web.OK = m.site.closing.Err() == nil
	if !h.Web.OK {
		h.Web.Problem = "shutting down"
	}
	h.OK = h.Link.OK && h.Database.OK && h.Web.OK
	return h
}

func (m collector) databaseHealth(ctx context.Context) finding {
	if failing := m.db.failing(); failing != nil {
		return finding{Problem: "the database " + failing.err.Error(), Since: formatTime(failing.since)}
	}
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	if _, err := m.db.DataVersion(ctx); err != nil {
		return finding{Problem: "the database does not answer"}
	}
	return finding{OK: true}
}

// serveHealth answers /healthz: 200 if everything works, else 503, with the findings as JSON.
func (m collector) serveHealth(rw http.ResponseWriter, r *http.Request) {
	h := m.health(r.Context())
	rw.Header().Set("Content-Type", "application/json")
	rw.Header().Set("Cache-Control", "no-store")
	if !h.OK {
		rw.WriteHeader(http.StatusServiceUnavailable)
	}
	json.NewEncoder(rw).Encode(h) // the client may be gone
}
