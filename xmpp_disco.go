package main

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"gosrc.io/xmpp/stanza"
)

const (
	nsVersion    = "jabber:iq:version"                    // XEP-0092
	nsLast       = "jabber:iq:last"                       // XEP-0012
	nsVCard      = "vcard-temp"                           // XEP-0054
	nsServerInfo = "http://jabber.org/network/serverinfo" // XEP-0157
)

// features are what disco#info names (XEP-0030 §3.1): all that we answer, what we want to be told (XEP-0163 §4.3.2), and nothing
// else.
var features = []string{nsCommands, nsDiscoInfo, nsDiscoItem, nsNick + "+notify", nsLast, nsRegister, nsVersion, nsAvatarMetadata + "+notify",
	nsPing, nsVCard}

// A discoInfo is what an entity is and can do (XEP-0030 §3.1). The library's has no form.
type discoInfo struct {
	XMLName  xml.Name          `xml:"http://jabber.org/protocol/disco#info query"`
	Node     string            `xml:"node,attr,omitempty"`
	Identity []stanza.Identity `xml:"identity"`
	Features []stanza.Feature  `xml:"feature"`
	Form     *stanza.Form
}

// An identity is what we say of ourselves. It never changes while we run.
type identity struct {
	info   discoInfo
	caps   capsElement
	avatar []byte // PNG
	update avatarUpdate
}

// capsElement names what we can do by a hash, so that nobody has to ask (XEP-0115).
type capsElement struct {
	XMLName xml.Name `xml:"http://jabber.org/protocol/caps c"`
	Hash    string   `xml:"hash,attr"`
	Node    string   `xml:"node,attr"`
	Version string   `xml:"ver,attr"`
}

// avatarUpdate names our picture by a hash (XEP-0153).
type avatarUpdate struct {
	XMLName xml.Name `xml:"vcard-temp:x:update x"`
	Photo   string   `xml:"photo"`
}

func newIdentity(conf componentConfig) (*identity, error) {
	i := &identity{info: discoInfo{Identity: []stanza.Identity{{Name: "web presence", Category: "component", Type: "presence"}}}}
	for _, f := range features {
		i.info.Features = append(i.info.Features, stanza.Feature{Var: f})
	}
	if len(conf.contacts) > 0 {
		i.info.Form = stanza.NewForm([]*stanza.Field{
			{Type: stanza.FieldTypeHidden, Var: "FORM_TYPE", ValuesList: []string{nsServerInfo}},
			{Type: "list-multi", Var: "admin-addresses", ValuesList: conf.contacts},
		}, stanza.FormTypeResult)
	}
	i.caps = capsElement{Hash: "sha-1", Node: conf.baseURL, Version: capsVersion(i.info)}
	var err error
	if i.avatar, err = drawAvatar(); err != nil {
		return nil, err
	}
	sum := sha1.Sum(i.avatar)
	i.update.Photo = hex.EncodeToString(sum[:])
	return i, nil
}

// capsVersion makes the verification string's hash (XEP-0115 §5.1).
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
	if info.Form != nil {
		parts = append(parts, info.Form.Fields[0].ValuesList[0])
		for _, f := range info.Form.Fields[1:] { // there is one, so it is sorted
			parts = append(parts, f.Var)
			parts = append(parts, slices.Sorted(slices.Values(f.ValuesList))...)
		}
	}
	sum := sha1.Sum([]byte(strings.Join(parts, "<") + "<"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// drawAvatar returns our avatar, a PNG of 96 by 96 pixels.
func drawAvatar() ([]byte, error) { return serviceAvatar() }

// sendAvailable sends our presence to a user, or to one of the user's clients: what we can do, our picture, and how many use us.
func (c *component) sendAvailable(e *entry, to string) error {
	count := c.languages.match(e.user.Lang).text("presence.count", "count", strconv.Itoa(c.board.count()))
	return c.send(envelope{XMLName: xml.Name{Local: "presence"}, From: c.domain, To: to, Lang: e.user.Lang,
		Payload: []any{statusElement{Text: count}, c.self.caps, c.self.update}})
}

type statusElement struct {
	XMLName xml.Name `xml:"status"`
	Text    string   `xml:",chardata"`
}

// sendRequest asks a user to let us see the presence, and says why.
func (c *component) sendRequest(e *entry) error {
	return c.send(envelope{XMLName: xml.Name{Local: "presence"}, Type: "subscribe", From: c.domain, To: e.jid, Lang: e.user.Lang,
		Payload: statusElement{Text: c.languages.match(e.user.Lang).text("ask.why")}})
}

func (c *component) ping(context.Context, *received, *element) (any, func(), error) {
	return nil, nil, nil
}

// discoInfo says what we are, what the list of our commands is, or what one of them is.
func (c *component) discoInfo(_ context.Context, s *received, query *element) (any, func(), error) {
	node := query.attr("node")
	lang := c.languages.match(s.lang(""))
	switch node {
	case "", c.self.caps.Node + "#" + c.self.caps.Version:
		info := c.self.info
		info.Node = node
		return &info, nil, nil
	case nsCommands:
		return &discoInfo{Node: node, Identity: []stanza.Identity{{Category: "automation", Type: "command-list", Name: "web presence"}},
			Features: []stanza.Feature{{Var: nsCommands}}}, nil, nil
	}
	cmd, ok := commandFor(node)
	if !ok || !c.mayRun(cmd, s.from.bare) {
		return nil, nil, itemNotFound()
	}
	return &discoInfo{Node: node, Identity: []stanza.Identity{{Category: "automation", Type: "command-node", Name: cmd.title(lang)}},
		Features: []stanza.Feature{{Var: nsCommands}, {Var: nsForm}}}, nil, nil
}

// discoItems lists the commands that somebody may run (XEP-0050 §3.1).
func (c *component) discoItems(_ context.Context, s *received, query *element) (any, func(), error) {
	items := &stanza.DiscoItems{Node: query.attr("node")}
	lang := c.languages.match(s.lang(""))
	switch items.Node {
	case "":
	case nsCommands:
		for _, cmd := range commands {
			if c.mayRun(cmd, s.from.bare) {
				items.AddItem(c.domain, cmd.node, cmd.title(lang))
			}
		}
	default:
		cmd, ok := commandFor(items.Node)
		if !ok || !c.mayRun(cmd, s.from.bare) {
			return nil, nil, itemNotFound()
		}
	}
	return items, nil, nil
}

// A versionAnswer names our software (XEP-0092).
type versionAnswer struct {
	XMLName xml.Name `xml:"jabber:iq:version query"`
	Name    string   `xml:"name"`
	Version string   `xml:"version"`
	OS      string   `xml:"os,omitempty"`
}

func (c *component) version(context.Context, *received, *element) (any, func(), error) {
	answer := &versionAnswer{Name: "webstatus", Version: version}
	if !c.hideOS {
		answer.OS = runtime.GOOS
	}
	return answer, nil, nil
}

// A lastAnswer says for how long we have been running (XEP-0012 §5).
type lastAnswer struct {
	XMLName xml.Name `xml:"jabber:iq:last query"`
	Seconds int      `xml:"seconds,attr"`
}

func (c *component) lastActivity(context.Context, *received, *element) (any, func(), error) {
	return &lastAnswer{Seconds: int(c.now().Sub(c.started) / time.Second)}, nil, nil
}

// A vCardAnswer is our card (XEP-0054).
type vCardAnswer struct {
	XMLName     xml.Name `xml:"vcard-temp vCard"`
	Name        string   `xml:"FN"`
	Description string   `xml:"DESC"`
	URL         string   `xml:"URL"`
	JID         string   `xml:"JABBERID"`
	PhotoType   string   `xml:"PHOTO>TYPE"`
	PhotoBytes  string   `xml:"PHOTO>BINVAL"` // base64
}

func (c *component) vCard(_ context.Context, s *received, _ *element) (any, func(), error) {
	return &vCardAnswer{Name: "web presence", Description: c.languages.match(s.lang("")).text("vcard.description"), URL: c.baseURL + "/",
		JID: c.domain, PhotoType: "image/png", PhotoBytes: base64.StdEncoding.EncodeToString(c.self.avatar)}, nil, nil
}

// setVCard refuses to change our card: that is the operator's.
func (c *component) setVCard(context.Context, *received, *element) (any, func(), error) {
	return nil, nil, forbidden()
}
