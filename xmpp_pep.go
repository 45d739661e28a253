package main

import (
	"context"
	"encoding/base64"
	"encoding/xml"
	"strconv"
	"strings"
	"time"
)

// Namespaces of what people say about themselves. Those of nodes are their names as well.
const (
	nsNick           = "http://jabber.org/protocol/nick"         // XEP-0172
	nsAvatarMetadata = "urn:xmpp:avatar:metadata"                // XEP-0084
	nsAvatarData     = "urn:xmpp:avatar:data"                    // the same
	nsAvatarUpdate   = "vcard-temp:x:update"                     // XEP-0153
	nsPubSub         = "http://jabber.org/protocol/pubsub"       // XEP-0060
	nsPubSubEvent    = "http://jabber.org/protocol/pubsub#event" // the same
)

const (
	maxNick      = 64               // bytes of a nickname
	refreshPause = 10 * time.Second // between two looks at the same person's picture
)

// setProfile replaces what is known of a person, as far as it is switched on.
func (c *component) setProfile(e *entry, p Profile) {
	if !e.user.Options.has(fieldNick) {
		p.Nick = ""
	}
	if !e.user.Options.has(fieldAvatar) {
		p.Avatar = nil
	}
	if p == e.profile() {
		return
	}
	if e.writableExtras().profile = &p; p == (Profile{}) {
		e.extras.profile = nil
	}
	c.update(e)
	c.save(e, true)
}

func (c *component) setNick(e *entry, nick string) {
	p := e.profile()
	p.Nick = singleLine(nick, maxNick)
	c.setProfile(e, p)
}

func (c *component) setAvatar(e *entry, a *Avatar) {
	p := e.profile()
	p.Avatar = a
	c.setProfile(e, p)
}

// What we ask a person's server. Its answers carry the id back, and go to the person's worker as all else.

const (
	idNick   = "nick"
	idAvatar = "avatar"      // the metadata of the PEP avatar
	idData   = "avatar-data" // its picture
	idVCard  = "vcard"
	idLast   = "last"
)

type pubSubItems struct {
	XMLName xml.Name    `xml:"http://jabber.org/protocol/pubsub pubsub"`
	Items   pubSubQuery `xml:"items"`
}

type pubSubQuery struct {
	Node string      `xml:"node,attr"`
	Max  string      `xml:"max_items,attr,omitempty"`
	Item *pubSubItem `xml:"item"`
}

type pubSubItem struct {
	ID string `xml:"id,attr"`
}

type vCardQuery struct {
	XMLName xml.Name `xml:"vcard-temp vCard"`
}

type lastQuery struct {
	XMLName xml.Name `xml:"jabber:iq:last query"`
}

// ask asks a person's server something. Without a link nothing is asked; the next link makes up for it.
func (c *component) ask(e *entry, id string, payload any) {
	c.send(envelope{XMLName: xml.Name{Local: "iq"}, Type: "get", ID: id, From: c.domain, To: e.jid, Payload: payload})
}

// newest asks for the newest item of a node.
func newest(node string) pubSubItems { return pubSubItems{Items: pubSubQuery{Node: node, Max: "1"}} }

// askProfile asks for what a user's options want to be shown and no presence says.
func (c *component) askProfile(ctx context.Context, e *entry) {
	wanted := e.user.Options
	if !e.user.Subscription.To() {
		return // nobody answers
	}
	if wanted.has(fieldNick) {
		c.ask(e, idNick, newest(nsNick))
	}
	if wanted.has(fieldAvatar) {
		c.refreshAvatar(ctx, e)
	}
	if wanted.has(fieldLastSeen) && len(e.resources) == 0 {
		c.ask(e, idLast, lastQuery{})
	}
}

// refreshAvatar asks which picture somebody has: first PEP, then the vCard. It takes its time with those who change it often.
func (c *component) refreshAvatar(ctx context.Context, e *entry) {
	if e.extras.orEmpty().avatar.scheduled {
		return
	}
	if wait := e.extras.orEmpty().avatar.asked.Add(refreshPause).Sub(c.now()); wait > 0 {
		e.writableExtras().avatar.scheduled = true
		time.AfterFunc(wait, func() {
			c.inTurn(ctx, e.jid, func(ctx context.Context) {
				e.writableExtras().avatar.scheduled = false
				c.refreshAvatar(ctx, e)
			})
		})
		return
	}
	e.writableExtras().avatar.asked = c.now()
	if e.snapshot.Load() != nil && e.user.Options.has(fieldAvatar) {
		c.ask(e, idAvatar, newest(nsAvatarMetadata))
	}
}

// answered takes in what a person's server says to what we have asked. An error may repeat what was asked (RFC 6120 §8.3.1),
// which is no answer.
func (c *component) answered(e *entry, s *received) {
	if s.typ == "error" {
		s.children = nil
	}
	switch s.id {
	case idNick:
		if item, ok := s.item(nsPubSub, nsNick); ok {
			c.setNick(e, item.childText(nsNick, "nick"))
		}
	case idAvatar:
		c.heardMetadata(e, s)
	case idData:
		item, _ := s.item(nsPubSub, nsAvatarData)
		c.heardPicture(e, AvatarPEP, item.attr("id"), item.childText(nsAvatarData, "data"))
	case idVCard:
		var picture string
		if card := s.child(nsVCard, "vCard"); card != nil && card.child(nsVCard, "PHOTO") != nil {
			picture = card.child(nsVCard, "PHOTO").childText(nsVCard, "BINVAL")
		}
		c.heardPicture(e, AvatarVCard, e.extras.orEmpty().avatar.photoHash, picture)
	case idLast:
		c.heardLast(e, s)
	}
}

// heardMetadata asks for the picture that the metadata name. Without metadata there is none, or it is in the vCard.
func (c *component) heardMetadata(e *entry, s *received) {
	if !e.user.Options.has(fieldAvatar) {
		return
	}
	item, _ := s.item(nsPubSub, nsAvatarMetadata)
	id := avatarID(item)
	switch a := e.profile().Avatar; {
	case id == "":
		c.ask(e, idVCard, vCardQuery{})
	case a == nil || a.ID != id:
		c.ask(e, idData, pubSubItems{Items: pubSubQuery{Node: nsAvatarData, Item: &pubSubItem{id}}})
	}
}

// avatarID returns the id of the picture that is to be had from the person's own server (XEP-0084 §4.2), empty if there is
// none. One at a web address is left alone, since strangers would choose what we fetch.
func avatarID(item *element) string {
	metadata := item.child(nsAvatarMetadata, "metadata")
	if metadata == nil {
		return ""
	}
	for i := range metadata.children {
		info := &metadata.children[i]
		size, err := strconv.Atoi(info.attr("bytes"))
		if info.name.Local == "info" && info.attr("url") == "" && (err != nil || size <= maxPicture) {
			return strings.ToLower(info.attr("id"))
		}
	}
	return ""
}

// heardPicture shows a picture that has come. What is none takes the place of the one before as well.
func (c *component) heardPicture(e *entry, source AvatarSource, id, encoded string) {
	if !e.user.Options.has(fieldAvatar) {
		return
	}
	var avatar *Avatar
	if encoded = strings.Join(strings.Fields(encoded), ""); encoded != "" {
		picture, err := base64.StdEncoding.DecodeString(encoded)
		if err == nil {
			avatar, err = c.avatars.encode(picture, source, id)
		}
		if err != nil {
			c.log.Debug("a picture cannot be shown", "user", e.jid, "cause", err)
		}
	}
	c.setAvatar(e, avatar)
}

// heardLast takes in when somebody whom we have not watched was online last (XEP-0012 §4).
func (c *component) heardLast(e *entry, s *received) {
	query := s.child(nsLast, "query")
	if query == nil || len(e.resources) > 0 || !e.user.Options.has(fieldLastSeen) {
		return
	}
	if seconds, err := strconv.ParseUint(query.attr("seconds"), 10, 31); err == nil {
		e.writableExtras().lastSeen = c.now().Add(-time.Duration(seconds) * time.Second)
		c.update(e)
	}
}

// heardProfile takes in what a presence says of the person: the nickname, and that the picture in the vCard has changed.
func (c *component) heardProfile(ctx context.Context, e *entry, s *received) {
	if nick := s.childText(nsNick, "nick"); nick != "" {
		c.setNick(e, nick)
	}
	update := s.child(nsAvatarUpdate, "x")
	if update == nil || update.child(nsAvatarUpdate, "photo") == nil || !e.user.Options.has(fieldAvatar) {
		return // a client that does not know yet
	}
	announced := strings.ToLower(truncate(strings.TrimSpace(update.childText(nsAvatarUpdate, "photo")), maxNick))
	a := e.profile().Avatar
	switch {
	case a != nil && (a.Source == AvatarPEP || a.ID == announced), a == nil && announced == e.extras.orEmpty().avatar.photoHash:
		return // nothing new
	}
	e.writableExtras().avatar.photoHash = announced
	c.refreshAvatar(ctx, e)
}

// handleEvent takes in what a person has published in PEP (XEP-0163).
func (c *component) handleEvent(ctx context.Context, e *entry, s *received) {
	if !e.user.Subscription.To() {
		return
	}
	if item, ok := s.item(nsPubSubEvent, nsNick); ok {
		c.setNick(e, item.childText(nsNick, "nick"))
	}
	if item, ok := s.item(nsPubSubEvent, nsAvatarMetadata); ok && e.user.Options.has(fieldAvatar) {
		var shown string
		if a := e.profile().Avatar; a != nil && a.Source == AvatarPEP {
			shown = a.ID
		}
		if avatarID(item) != shown {
			c.refreshAvatar(ctx, e)
		}
	}
}

// item returns the first item of a node, an empty one if the node has none; not ok if the stanza is not about the node.
func (s *received) item(space, node string) (item *element, ok bool) {
	for _, name := range []string{"pubsub", "event"} {
		outer := s.child(space, name)
		if outer == nil {
			continue
		}
		items := outer.child(space, "items")
		if items == nil || items.attr("node") != node {
			continue
		}
		if item := items.child(space, "item"); item != nil {
			return item, true
		}
		return &element{}, true
	}
	return &element{}, false
}
