package main

import (
	"cmp"
	"context"
	"encoding/xml"
	"slices"
	"strconv"

	"golang.org/x/time/rate"
)

const nsMUC = "http://jabber.org/protocol/muc" // XEP-0045

// rooms requests the public information about rooms, without joining them (XEP-0045 §6.4), for the room board.
type rooms struct {
	*service
	board *roomBoard
}

const (
	idRoom      = "room" // of our requests
	roomRate    = 10     // requests a second, to all rooms together
	maxRoomName = 64     // bytes
)

type discoQuery struct {
	XMLName xml.Name `xml:"http://jabber.org/protocol/disco#info query"`
}

// run sends requests until ctx is done.
func (r *rooms) run(ctx context.Context) {
	limiter := rate.NewLimiter(roomRate, roomRate)
	for {
		select {
		case <-ctx.Done():
			return
		case jid := <-r.board.requests:
			if limiter.Wait(ctx) != nil {
				return
			}
			if r.links.send(envelope{XMLName: xml.Name{Local: "iq"}, Type: "get", ID: idRoom, From: r.domain, To: jid, Payload: discoQuery{}}) != nil {
				r.board.notAsked(jid)
			}
		}
	}
}

// isAnswer reports whether a stanza is the answer of a room that may be shown.
func (r *rooms) isAnswer(s *received) bool {
	return s.name.Local == "iq" && (s.typ == "result" || s.typ == "error") && s.id == idRoom && s.from.resource == "" && s.to.String() == r.domain && r.board.shows(s.from.bare)
}

// handleAnswer handles the answer of a room, and reports whether this node has asked for it.
func (r *rooms) handleAnswer(s *received) bool {
	query := s.child(nsDiscoInfo, "query")
	if s.typ == "error" || query == nil {
		return r.board.answer(s.from.bare, nil)
	}
	return r.board.answer(s.from.bare, parseRoom(s.from, query))
}

// parseRoom returns the room that a disco#info describes, nil if it describes something else.
func parseRoom(from jid, query *element) *Room {
	room := &Room{JID: from.bare, Occupants: -1}
	var kinds, features []string
	for i := range query.children {
		switch c := &query.children[i]; {
		case c.name == xml.Name{Space: nsDiscoInfo, Local: "identity"}:
			kinds = append(kinds, c.attr("category"))
			room.Name = cmp.Or(room.Name, singleLine(c.attr("name"), maxRoomName))
		case c.name == xml.Name{Space: nsDiscoInfo, Local: "feature"}:
			features = append(features, c.attr("var"))
		case c.name == xml.Name{Space: nsForm, Local: "x"}:
			if form, err := readForm(c); err == nil && len(form["muc#roominfo_occupants"]) == 1 {
				if n, err := strconv.ParseUint(form["muc#roominfo_occupants"][0], 10, 31); err == nil {
					room.Occupants = int(n)
				}
			}
		}
	}
	if !slices.Contains(kinds, "conference") || !slices.Contains(features, nsMUC) {
		return nil
	}
	room.Name = cmp.Or(room.Name, from.local())
	room.Public = slices.Contains(features, "muc_public")
	return room
}
