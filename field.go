package main

import (
	"slices"
	"time"
)

// A field is a part of a user's status that can be shown, or another choice of the user. This table is the
// only place that lists them; the form, the chat, the database, the view, the embed page and the data formats iterate it. A new
// option needs a row here, a column in the schema, and the text option.NAME in each language.
type field struct {
	option string      // form field and database column (boolean); empty if the field is always shown
	on     bool        // the option is on by default
	pep    bool        // it comes from PEP, which servers keep from those who are not contacts
	chat   string      // word for "show … on"; empty if the chat does not offer it
	query  string      // name in ?parts=; empty if it is no part of the status
	hide   func(*view) // removes it from a view; nil if it is not part of the status
	keys   []fieldKey  // its keys in JSON and XML, in order
}

// A fieldKey is a key of the JSON object of a status, and an element of the XML.
type fieldKey struct {
	name  string
	value func(*view) string // empty if the key is to be absent
}

// Indices of the fields that code refers to by name.
const (
	fieldMessage = iota
	fieldJID
	fieldSince
	fieldNick
	fieldAvatar
	fieldActivity
	fieldMood
	fieldTune
	fieldLastSeen
	fieldResources
	fieldJIDLink
	fieldSearchEngines
	fieldPost
)

// fields lists all fields, in the order of the form.
var fields = []field{
	fieldMessage: {option: "show_status_msg", chat: "message", query: "message", hide: (*view).hideMessage,
		keys: []fieldKey{{"message", func(v *view) string { return v.Message }}}},
	fieldJID: {option: "show_full_jid", chat: "jid", query: "jid", hide: func(v *view) { v.JID = "" },
		keys: []fieldKey{{"jid", func(v *view) string { return v.JID }}}},
	fieldSince: {query: "since", hide: func(v *view) { v.Since = time.Time{} },
		keys: []fieldKey{{"since", func(v *view) string { return formatTime(v.Since) }}}},
	fieldNick: {option: "show_nick", pep: true, chat: "nick", query: "nick", hide: func(v *view) { v.Nick = "" },
		keys: []fieldKey{{"nick", func(v *view) string { return v.Nick }}}},
	fieldAvatar: {option: "show_avatar", pep: true, chat: "avatar", query: "avatar", hide: func(v *view) { v.Avatar = nil },
		keys: []fieldKey{{"avatar", func(v *view) string { return v.Avatar.URI() }}}},
	fieldActivity: {option: "show_activity", pep: true, chat: "activity", query: "activity", hide: (*view).hideActivity,
		keys: []fieldKey{
			{"activity", func(v *view) string { return v.Rich.Activity.General }},
			{"activity_specific", func(v *view) string { return v.Rich.Activity.Specific }},
			{"activity_label", func(v *view) string { return v.ActivityLabel }},
			{"activity_text", func(v *view) string { return v.Rich.Activity.Text }}}},
	fieldMood: {option: "show_mood", pep: true, chat: "mood", query: "mood", hide: (*view).hideMood,
		keys: []fieldKey{
			{"mood", func(v *view) string { return v.Rich.Mood.Name }},
			{"mood_label", func(v *view) string { return v.MoodLabel }},
			{"mood_text", func(v *view) string { return v.Rich.Mood.Text }}}},
	fieldTune: {option: "show_tune", pep: true, chat: "tune", query: "tune", hide: func(v *view) { v.Rich.Tune = Tune{} },
		keys: []fieldKey{
			{"tune", func(v *view) string { return v.Rich.Tune.String() }},
			{"tune_artist", func(v *view) string { return v.Rich.Tune.Artist }},
			{"tune_title", func(v *view) string { return v.Rich.Tune.Title }},
			{"tune_source", func(v *view) string { return v.Rich.Tune.Source }}}},
	fieldLastSeen: {option: "show_last_seen", chat: "lastseen", query: "active", hide: (*view).hideLastActive,
		keys: []fieldKey{
			{"idle_since", func(v *view) string { return formatTime(v.Idle) }},
			{"last_seen", func(v *view) string { return formatTime(v.LastSeen) }}}},
	fieldResources:     {option: "show_resources", chat: "resources", query: "resources", hide: func(v *view) { v.Resources = nil }},
	fieldJIDLink:       {option: "jid_link", on: true},
	fieldSearchEngines: {option: "search_engines"},
	fieldPost:          {option: "post_changes"},
}

// A fieldSet is a set of fields: bit i stands for fields[i].
type fieldSet uint32

// allFields is the set of every field.
const allFields = ^fieldSet(0)

// has reports whether the set has the field of an index.
func (s fieldSet) has(i int) bool { return s&(1<<i) != 0 }

// with returns the set with a field added, or without it.
func (s fieldSet) with(i int, on bool) fieldSet {
	if on {
		return s | 1<<i
	}
	return s &^ (1 << i)
}

// An optionChange is a change of some of a user's options. Another node of a cluster may change others at the same time.
type optionChange struct {
	changed fieldSet
	values  fieldSet // the changed options that are switched on
}

// with returns the change with the option of an index switched on or off as well.
func (c optionChange) with(i int, on bool) optionChange {
	return optionChange{c.changed.with(i, true), c.values.with(i, on)}
}

// apply returns options with the change applied.
func (c optionChange) apply(options fieldSet) fieldSet { return options&^c.changed | c.values }

// fieldsWhere returns the set of the fields for which a condition holds.
func fieldsWhere(condition func(field) bool) (s fieldSet) {
	for i, f := range fields {
		s = s.with(i, condition(f))
	}
	return s
}

// contactFields returns the fields that only contacts may see.
func contactFields() fieldSet { return fieldsWhere(func(f field) bool { return f.pep }) }

// fieldIndex returns the index of the field for which a condition holds, -1 if there is none.
func fieldIndex(condition func(field) bool) int { return slices.IndexFunc(fields, condition) }

// defaultOptions returns the options of a user who has not changed any.
func defaultOptions() fieldSet { return fieldsWhere(func(f field) bool { return f.on }) }

// optionNames returns the names of all options that are in a set, in the order of the form.
func optionNames(s fieldSet) []string {
	names := []string{}
	for i, f := range fields {
		if f.option != "" && s.has(i) {
			names = append(names, f.option)
		}
	}
	return names
}
