package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"iter"
	"strings"
)

// The formats for programs: JSON, XML, text and a script. JSON and XML have the same keys: version, state and label, then those of
// the table of fields, then as_of and resources. A key without a value is absent. docs/status.schema.json describes the JSON.

// dataKeys yields the keys of a view that have a value, but for version and resources, which are no strings.
func dataKeys(v *view) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		if !yield("state", string(v.State)) || !yield("label", v.Label) {
			return
		}
		for i := range fields {
			for _, k := range fields[i].keys {
				if value := k.value(v); value != "" && !yield(k.name, value) {
					return
				}
			}
		}
		if !v.AsOf.IsZero() {
			yield("as_of", formatTime(v.AsOf))
		}
	}
}

// dataVersion is the version of the keys.
const dataVersion = "1"

// A resourceData is one connected resource.
type resourceData struct {
	Name     string `json:"name" xml:"name"`
	State    State  `json:"state" xml:"state"`
	Label    string `json:"label" xml:"label"`
	Message  string `json:"message,omitempty" xml:"message,omitempty"`
	Priority int8   `json:"priority" xml:"priority"`
}

func newResourceData(resources []viewResource) (all []resourceData) {
	for _, r := range resources {
		all = append(all, resourceData(r))
	}
	return all
}

// appendJSON appends a view as a JSON object.
func appendJSON(b *bytes.Buffer, v *view) error {
	b.WriteString(`{"version":` + dataVersion)
	for name, value := range dataKeys(v) {
		b.WriteString(`,"`)
		b.WriteString(name)
		b.WriteString(`":`)
		if err := appendJSONString(b, value); err != nil {
			return err
		}
	}
	if len(v.Resources) > 0 {
		b.WriteString(`,"resources":`)
		if err := appendJSONValue(b, newResourceData(v.Resources)); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

// appendJSONValue appends a value, with characters escaped that mean something in HTML: a page may contain the JSON.
func appendJSONValue(b *bytes.Buffer, value any) error {
	encoded, err := json.Marshal(value)
	b.Write(encoded)
	return err
}

// appendJSONString appends a string. Most are plain ASCII and need no encoder, which takes longer than all else in the object.
func appendJSONString(b *bytes.Buffer, s string) error {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return appendJSONValue(b, s)
		}
	}
	b.WriteByte('"')
	b.WriteString(s)
	b.WriteByte('"')
	return nil
}

// appendJSONArray appends views as a JSON array. It gives up with errTooLarge once the buffer has more than a number of bytes; 0 for no limit.
func appendJSONArray(b *bytes.Buffer, views []view, most int) error {
	separator := byte('[')
	for i := range views {
		if most > 0 && b.Len() > most {
			return errTooLarge
		}
		b.WriteByte(separator)
		if err := appendJSON(b, &views[i]); err != nil {
			return err
		}
		separator = ','
	}
	b.WriteByte(']')
	return nil
}

// errTooLarge says that a representation is larger than any client may have.
var errTooLarge = errors.New("the representation is too large")

// writeJSON writes an object, or an array for several people.
func writeJSON(_ *renderer, spec *renderSpec, views []view) (_ []byte, err error) {
	var b bytes.Buffer
	b.Grow(256) // for most
	switch {
	case spec.options.shields:
		return json.Marshal(newShields(spec, views))
	case spec.many:
		err = appendJSONArray(&b, views, spec.format.most)
	default:
		err = appendJSON(&b, &views[0])
	}
	return b.Bytes(), err
}

// A shields is the input of shields.io's endpoint badge, schema 1. It refuses other keys.
type shields struct {
	Version int    `json:"schemaVersion"`
	Label   string `json:"label"`
	Message string `json:"message"`
	Color   string `json:"color"`
}

func newShields(spec *renderSpec, views []view) shields {
	v := summary(spec, views)
	return shields{1, spec.options.labelOr(defaultLabel), v.Label, strings.TrimPrefix(hexColor(stateColors[v.State].light), "#")}
}

// summary returns the view of one person, or the aggregate of several.
func summary(spec *renderSpec, views []view) view {
	if spec.many {
		return aggregate(views)
	}
	return views[0]
}

// writeText writes the state, the nickname, the message, the activity, the mood, the tune, the last activity and the JID on a line each;
// several people on a line each.
func writeText(_ *renderer, spec *renderSpec, views []view) ([]byte, error) {
	var b bytes.Buffer
	separator := "\n"
	if spec.many {
		separator = " – "
	}
	for _, v := range views {
		b.WriteString(v.Label)
		values := []string{v.Nick, v.Message}
		for _, d := range v.details() {
			values = append(values, d.String())
		}
		for _, value := range append(values, v.LastActive, v.JID) {
			if value != "" {
				b.WriteString(separator + strings.Join(strings.Fields(value), " "))
			}
		}
		b.WriteByte('\n')
	}
	return b.Bytes(), nil
}

// writeXML writes an element status, or statuses for several people.
func writeXML(_ *renderer, spec *renderSpec, views []view) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(xml.Header)
	if spec.many {
		b.WriteString("<statuses>")
	}
	for i := range views {
		if err := appendXML(&b, &views[i]); err != nil {
			return nil, err
		}
	}
	if spec.many {
		b.WriteString("</statuses>")
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// appendXML appends a view as an element.
func appendXML(b *bytes.Buffer, v *view) error {
	b.WriteString(`<status version="` + dataVersion + `">`)
	for name, value := range dataKeys(v) {
		b.WriteString("<" + name + ">")
		if err := xml.EscapeText(b, []byte(value)); err != nil {
			return err
		}
		b.WriteString("</" + name + ">")
	}
	if len(v.Resources) > 0 {
		encoded, err := xml.Marshal(struct {
			XMLName  xml.Name       `xml:"resources"`
			Resource []resourceData `xml:"resource"`
		}{Resource: newResourceData(v.Resources)})
		if err != nil {
			return err
		}
		b.Write(encoded)
	}
	b.WriteString("</status>")
	return nil
}

// writeScript writes a script that puts the status into elements of the page that includes it.
func writeScript(r *renderer, spec *renderSpec, views []view) ([]byte, error) {
	var data bytes.Buffer
	if err := appendJSONArray(&data, views, spec.format.most); err != nil {
		return nil, err
	}
	return []byte(strings.Replace(r.sources["script.js"], "STATUS", data.String(), 1)), nil
}
