package main

import (
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"gosrc.io/xmpp/stanza"
)

const (
	nsVersion    = "jabber:iq:version"                    // XEP-0092
	nsLast       = "jabber:iq:last"                       // XEP-0012
	nsVCard      = "vcard-temp"                           // XEP-0054
	nsServerInfo = "http://jabber.org/network/serverinfo" // XEP-0157
	nsDataPolicy = "urn:xmpp:data-policy:0"               // XEP-0504
)

// features lists what disco#info names (XEP-0030 §3.1): all requests that we answer, receipts, and the PEP nodes that we follow
// (XEP-0163 §4.3.2).
var features = []string{nsActivity + "+notify", nsCommands, nsDiscoInfo, nsDiscoItem, nsMood + "+notify", nsNick + "+notify", nsTune + "+notify", nsLast, nsRegister, nsVersion, nsAvatarMetadata + "+notify",
	nsPing, nsReceipts, nsVCard}

// A discoInfo is the description of an entity (XEP-0030 §3.1), with forms for more (XEP-0128). The library's type has no form.
type discoInfo struct {
	XMLName  xml.Name          `xml:"http://jabber.org/protocol/disco#info query"`
	Node     string            `xml:"node,attr,omitempty"`
	Identity []stanza.Identity `xml:"identity"`
	Features []stanza.Feature  `xml:"feature"`
	Forms    []*stanza.Form
}

// An identity is our description of ourselves. It is immutable.
type identity struct {
	info  discoInfo
	caps  capsElement
	photo photoElement
}

// capsElement identifies our features by a hash, so that clients need not ask for them (XEP-0115).
type capsElement struct {
	XMLName xml.Name `xml:"http://jabber.org/protocol/caps c"`
	Hash    string   `xml:"hash,attr"`
	Node    string   `xml:"node,attr"`
	Version string   `xml:"ver,attr"`
}

// photoElement identifies our picture by a hash (XEP-0153).
type photoElement struct {
	XMLName xml.Name `xml:"vcard-temp:x:update x"`
	Photo   string   `xml:"photo"`
}

func newIdentity(conf componentConfig) *identity {
	i := &identity{info: discoInfo{Identity: []stanza.Identity{{Name: "web presence", Category: "component", Type: "presence"}}}}
	for _, f := range features {
		i.info.Features = append(i.info.Features, stanza.Feature{Var: f})
	}
	if len(conf.contacts) > 0 {
		var fields []*stanza.Field
		for _, kind := range slices.Sorted(maps.Keys(conf.contacts)) {
			fields = append(fields, &stanza.Field{Type: stanza.FieldTypeListMulti, Var: kind + "-addresses", ValuesList: conf.contacts[kind]})
		}
		i.info.Forms = append(i.info.Forms, infoForm(nsServerInfo, fields...))
	}
	i.info.Forms = append(i.info.Forms, dataPolicy())
	i.caps = capsElement{Hash: "sha-1", Node: conf.baseURL, Version: capsVersion(i.info)}
	sum := sha1.Sum(conf.avatar)
	i.photo.Photo = hex.EncodeToString(sum[:])
	return i
}

// contactKinds are the kinds of contact addresses (XEP-0157 §6.2).
var contactKinds = []string{"abuse", "admin", "feedback", "sales", "security", "status", "support"}

// infoForm returns a form with more about us, of a type (XEP-0128).
func infoForm(formType string, fields ...*stanza.Field) *stanza.Form {
	hidden := &stanza.Field{Type: stanza.FieldTypeHidden, Var: "FORM_TYPE", ValuesList: []string{formType}}
	return stanza.NewForm(append([]*stanza.Field{hidden}, fields...), stanza.FormTypeResult)
}

// dataPolicy returns what this program does with data (XEP-0504 §3). It leaves out the fields that depend on the operator, such as those
// about backups.
func dataPolicy() *stanza.Form {
	field := func(name, typ, value string) *stanza.Field {
		return &stanza.Field{Type: typ, Var: name, ValuesList: []string{value}}
	}
	return infoForm(nsDataPolicy,
		field("access_policy", stanza.FieldTypeListMulti, "admins"),
		field("auth_data", stanza.FieldTypeListSingle, "no_auth"),
		field("data_deletion", stanza.FieldTypeBool, "true"),
		field("data_retention", fieldTextSingle, "infinite"), // until the user unregisters
		field("full_erasure", stanza.FieldTypeBool, "true"))
}

// capsVersion returns the hash of the verification string (XEP-0115 §5.1).
func capsVersion(info discoInfo) string {
	var parts []string
	for _, id := range info.Identity {
		parts = append(parts, id.Category+"/"+id.Type+"//"+id.Name)
	}
	slices.Sort(parts)
	var vars []string
	for _, f := range info.Features {
		vars = append(vars, f.Var)
	}
	slices.Sort(vars)
	parts = append(parts, vars...)
	for _, form := range slices.SortedFunc(slices.Values(info.Forms), func(a, b *stanza.Form) int { return cmp.Compare(formType(a), formType(b)) }) {
		parts = append(parts, formType(form))
		for _, f := range slices.SortedFunc(slices.Values(form.Fields), func(a, b *stanza.Field) int { return cmp.Compare(a.Var, b.Var) }) {
			if f.Var != "FORM_TYPE" {
				parts = append(append(parts, f.Var), slices.Sorted(slices.Values(f.ValuesList))...)
			}
		}
	}
	sum := sha1.Sum([]byte(strings.Join(parts, "<") + "<"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// formType returns the type of a form that infoForm has made.
func formType(form *stanza.Form) string { return form.Fields[0].ValuesList[0] }

// disco answers questions about us: service discovery, version, uptime, vCard and pings.
type disco struct {
	*service
	identity *identity
	commands *commands
	started  time.Time
}

func (d *disco) ping(context.Context, request) (any, func(), error) { return nil, nil, nil }

// info describes us, the list of our commands, or one of them.
func (d *disco) info(_ context.Context, r request) (any, func(), error) {
	node := r.query.attr("node")
	switch node {
	case "", d.identity.caps.Node + "#" + d.identity.caps.Version:
		info := d.identity.info
		info.Node = node
		return &info, nil, nil
	case nsCommands:
		return &discoInfo{Node: node, Identity: []stanza.Identity{{Category: "automation", Type: "command-list", Name: "web presence"}},
			Features: []stanza.Feature{{Var: nsCommands}}}, nil, nil
	}
	cmd, ok := d.commands.find(node)
	if !ok || !d.commands.mayRun(cmd, r.from) {
		return nil, nil, itemNotFound()
	}
	return &discoInfo{Node: node, Identity: []stanza.Identity{{Category: "automation", Type: "command-node", Name: cmd.title(r.lang)}},
		Features: []stanza.Feature{{Var: nsCommands}, {Var: nsForm}}}, nil, nil
}

// items lists the commands that the sender may run (XEP-0050 §3.1).
func (d *disco) items(_ context.Context, r request) (any, func(), error) {
	items := &stanza.DiscoItems{Node: r.query.attr("node")}
	switch items.Node {
	case "":
	case nsCommands:
		for _, cmd := range d.commands.list() {
			if d.commands.mayRun(cmd, r.from) {
				items.AddItem(r.to.bare, cmd.node, cmd.title(r.lang))
			}
		}
	default:
		cmd, ok := d.commands.find(items.Node)
		if !ok || !d.commands.mayRun(cmd, r.from) {
			return nil, nil, itemNotFound()
		}
	}
	return items, nil, nil
}

// A versionPayload names our software (XEP-0092).
type versionPayload struct {
	XMLName xml.Name `xml:"jabber:iq:version query"`
	Name    string   `xml:"name"`
	Version string   `xml:"version"`
	OS      string   `xml:"os,omitempty"`
}

func (d *disco) version(context.Context, request) (any, func(), error) {
	payload := &versionPayload{Name: "webstatus", Version: version}
	if !d.hideOS {
		payload.OS = runtime.GOOS
	}
	return payload, nil, nil
}

// A lastPayload says how long we have been running (XEP-0012 §5).
type lastPayload struct {
	XMLName xml.Name `xml:"jabber:iq:last query"`
	Seconds int      `xml:"seconds,attr"`
}

func (d *disco) uptime(context.Context, request) (any, func(), error) {
	return &lastPayload{Seconds: int(d.now().Sub(d.started) / time.Second)}, nil, nil
}

// A vCardPayload is our card (XEP-0054).
type vCardPayload struct {
	XMLName     xml.Name `xml:"vcard-temp vCard"`
	Name        string   `xml:"FN"`
	Description string   `xml:"DESC"`
	URL         string   `xml:"URL"`
	JID         string   `xml:"JABBERID"`
	PhotoType   string   `xml:"PHOTO>TYPE"`
	PhotoBytes  string   `xml:"PHOTO>BINVAL"` // base64
}

func (d *disco) vCard(_ context.Context, r request) (any, func(), error) {
	return &vCardPayload{Name: d.name, Description: r.lang.text("vcard.description"), URL: d.baseURL + "/",
		JID: r.to.bare, PhotoType: "image/png", PhotoBytes: base64.StdEncoding.EncodeToString(d.avatar)}, nil, nil
}

// setVCard refuses to change our card, which is the operator's.
func (d *disco) setVCard(context.Context, request) (any, func(), error) { return nil, nil, forbidden() }
