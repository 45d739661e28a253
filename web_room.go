package main

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
)

// room serves the representations of a room: /room/ROOM@SERVICE.svg, .png and .json.
func (w *website) room(rw http.ResponseWriter, r *http.Request) {
	address := r.PathValue("address")
	dot := strings.LastIndexByte(address, '.')
	if dot < 0 {
		w.notFound(rw, r)
		return
	}
	f := formatNamed(routesRoom, address[dot+1:])
	j, err := parseJID(address[:dot])
	if f == nil || err != nil || j.local() == "" || j.resource != "" {
		w.notFound(rw, r)
		return
	}
	room := w.rooms.get(r.Context(), j.bare)
	if room == nil && f.unknown == 0 {
		w.notFound(rw, r)
		return
	}
	renderer := w.renderer.Load()
	spec, err := specOf(renderer, r, f, false)
	if err != nil {
		w.fail(rw, r, f, err)
		return
	}
	status, subjects := http.StatusOK, []subject{{room: room}}
	if room == nil {
		status = f.unknown
	} else if !spec.options.labelled {
		spec.options.label, spec.options.labelled = room.Name, true
	}
	key := spec.key(subjects)
	if room != nil {
		key.people = fmt.Sprintf("%q%q%d%t", room.JID, room.Name, room.Occupants, room.Public)
	}
	n, ok := w.cache.GetIfPresent(key)
	if !ok {
		if n, err = w.render(r.Context(), w.client(r), renderer, spec, key, subjects); err != nil {
			w.fail(rw, r, f, err)
			return
		}
	}
	w.send(rw, r, n, status, room != nil && room.Public)
}

// writeRoomJSON writes a room as a JSON object, which docs/room.schema.json describes.
func writeRoomJSON(r *renderer, spec *renderSpec, views []view) ([]byte, error) {
	if spec.options.shields {
		return writeJSON(r, spec, views)
	}
	room := views[0].Room
	object := struct {
		Version   int    `json:"version"`
		JID       string `json:"jid"`
		Name      string `json:"name"`
		Occupants *int   `json:"occupants,omitempty"`
		Public    bool   `json:"public"`
	}{1, room.JID, room.Name, nil, room.Public}
	if room.Occupants >= 0 {
		object.Occupants = &room.Occupants
	}
	var b bytes.Buffer
	err := appendJSONValue(&b, object)
	return b.Bytes(), err
}
