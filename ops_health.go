package main

import "context"

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
	if link := m.component.board.link.Load(); link.downSince.IsZero() {
		h.Link.OK = true
	} else {
		h.Link = finding{Problem: "no link to the XMPP server", Since: formatTime(link.downSince)}
	}
	h.Database.OK = true
	if failing := m.component.db.failing(); failing != nil {
		h.Database = finding{Problem: explain(failing.err).Error(), Since: formatTime(failing.since)}
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
