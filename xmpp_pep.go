package main

import (
	"context"
	"encoding/base64"
	"encoding/xml"
	"strconv"
	"strings"
	"time"
)

// Namespaces of profiles. Those of PEP nodes are also the names of the nodes.
const (
	nsNick           = "http://jabber.org/protocol/nick"         // XEP-0172
	nsAvatarMetadata = "urn:xmpp:avatar:metadata"                // XEP-0084
	nsAvatarData     = "urn:xmpp:avatar:data"                    // XEP-0084
	nsAvatarUpdate   = "vcard-temp:x:update"                     // XEP-0153
	nsPubSub         = "http://jabber.org/protocol/pubsub"       // XEP-0060
	nsPubSubEvent    = "http://jabber.org/protocol/pubsub#event" // XEP-0060
)

const (
	maxNick        = 64               // bytes of a nickname
	avatarInterval = 10 * time.Second // between two requests for the same user's avatar
)

// pep follows what users show besides presence: nickname, avatar, rich presence and last activity. It requests what the options want shown
// and no presence carries, and follows events (XEP-0163).
type pep struct {
	*service
	ids      *questionIDs
	avatars  *avatarDecoder
	decoding *domainQuota // of pixels of pictures
}

func newPEP(s *service) *pep {
	return &pep{service: s, ids: newQuestionIDs(s.domain, s.secret, s.now()), avatars: newAvatarDecoder(), decoding: newDomainQuota(pixelsPerSecond, pixelsAtOnce)}
}

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

// newestItem requests the newest item of a node.
func newestItem(node string) pubSubItems {
	return pubSubItems{Items: pubSubQuery{Node: node, Max: "1"}}
}

// send sends a request to a user's server. Without a link, the next one requests everything again.
func (p *pep) send(e *entry, q question, payload any) {
	p.links.send(envelope{XMLName: xml.Name{Local: "iq"}, Type: "get", ID: p.ids.next(e.jid, q, p.now()), From: e.user.Granted.jid(p.domain), To: e.jid, Payload: payload})
}

// request requests everything that a user's options want shown and no presence carries.
func (p *pep) request(ctx context.Context, e *entry) {
	if !e.user.Subscription.To() {
		return // the server would not answer
	}
	if e.user.Options.has(fieldNick) {
		p.send(e, askNick, newestItem(nsNick))
	}
	if e.user.Options.has(fieldAvatar) {
		p.requestAvatar(ctx, e)
	}
	p.requestRich(e)
	if e.user.Options.has(fieldLastSeen) && len(e.resources) == 0 {
		p.send(e, askLast, lastQuery{})
	}
}

// requestAvatar requests a user's avatar, from PEP first and then from the vCard. Requests for the same user are avatarInterval apart.
func (p *pep) requestAvatar(ctx context.Context, e *entry) {
	notes := &e.writableExtras().avatar
	if notes.scheduled {
		return
	}
	if wait := notes.asked.Add(avatarInterval).Sub(p.now()); wait > 0 {
		notes.scheduled = true
		time.AfterFunc(wait, func() {
			p.dispatcher.dispatch(ctx, e.jid, func(ctx context.Context) {
				e.writableExtras().avatar.scheduled = false
				p.requestAvatar(ctx, e)
			})
		})
		return
	}
	notes.asked = p.now()
	if e.isRegistered() && e.user.Options.has(fieldAvatar) {
		p.send(e, askAvatar, newestItem(nsAvatarMetadata))
	}
}

// isAnswer reports whether a result or an error is the answer to one of our requests, and to which. Where it matters, only the first answer
// counts.
func (p *pep) isAnswer(e *entry, s *received) (question, bool) {
	q, at, ok := p.ids.parse(e.jid, s.id, p.now())
	if !ok || q >= answeredOnce {
		return q, ok
	}
	answered := &e.writableExtras().answered[q]
	if at <= *answered {
		return 0, false
	}
	*answered = at
	return q, true
}

// handleAnswer handles the answer to one of our requests. Anything else that looks like one is ignored: its sender could have us decode any
// number of pictures.
func (p *pep) handleAnswer(ctx context.Context, e *entry, s *received) {
	asked, ok := p.isAnswer(e, s)
	if !ok {
		return
	}
	if s.typ == "error" {
		s.children = nil // an error may repeat the request (RFC 6120 §8.3.1), which is no answer
	}
	switch asked {
	case askNick:
		if item, ok := s.item(nsPubSub, nsNick); ok {
			p.setNick(e, item)
		}
	case askAvatar:
		p.onAvatarMetadata(e, s)
	case askData:
		item, _ := s.item(nsPubSub, nsAvatarData)
		p.onPicture(ctx, e, AvatarPEP, item.attr("id"), item.childText(nsAvatarData, "data"))
	case askVCard:
		var picture string
		if card := s.child(nsVCard, "vCard"); card != nil && card.child(nsVCard, "PHOTO") != nil {
			picture = card.child(nsVCard, "PHOTO").childText(nsVCard, "BINVAL")
		}
		p.onPicture(ctx, e, AvatarVCard, e.extras.orEmpty().avatar.photoHash, picture)
	case askLast:
		p.onLast(e, s)
	case askActivity, askMood, askTune:
		p.onRich(e, s, nsPubSub)
	}
}

// setNick sets the nickname in an element of XEP-0172.
func (p *pep) setNick(e *entry, parent *element) {
	p.registry.SetNick(e, singleLine(parent.childText(nsNick, "nick"), maxNick))
}

// onAvatarMetadata requests the picture that the metadata name. Without metadata, it tries the vCard.
func (p *pep) onAvatarMetadata(e *entry, s *received) {
	if !e.user.Options.has(fieldAvatar) {
		return
	}
	item, _ := s.item(nsPubSub, nsAvatarMetadata)
	id := avatarID(item)
	a := e.profile().Avatar
	switch {
	case id == "":
		p.send(e, askVCard, vCardQuery{})
	case id == e.extras.orEmpty().avatar.refused:
	case a == nil || a.ID != id:
		p.send(e, askData, pubSubItems{Items: pubSubQuery{Node: nsAvatarData, Item: &pubSubItem{id}}})
	}
}

// avatarID returns the id of a picture that is stored on the user's own server (XEP-0084 §4.2), empty if there is none. Pictures at web
// addresses are ignored, because strangers would choose what we fetch.
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

// onPicture has a published picture decoded and shown. One that cannot be shown replaces the previous one as well.
func (p *pep) onPicture(ctx context.Context, e *entry, source AvatarSource, id, base64Text string) {
	if !e.user.Options.has(fieldAvatar) {
		return
	}
	notes := &e.writableExtras().avatar
	if base64Text = strings.Join(strings.Fields(base64Text), ""); base64Text == "" {
		p.registry.SetAvatar(e, nil)
		return
	}
	if notes.decoding {
		p.requestAvatar(ctx, e) // later
		return
	}
	picture, err := base64.StdEncoding.DecodeString(base64Text)
	if err != nil {
		p.refusePicture(e, id, err)
		return
	}
	hash := pictureHash(picture)
	if a := e.profile().Avatar; hash == notes.refused || a != nil && a.ID == hash && (source == AvatarVCard || id == hash) {
		return // known already
	}
	work, err := checkPicture(picture)
	if err != nil {
		p.refusePicture(e, hash, err)
		return
	}
	if person, err := parseJID(e.jid); err != nil || !p.decoding.use(person.domain(), p.now(), work) {
		p.requestAvatar(ctx, e) // later
		return
	}
	notes.decoding = p.avatars.add(avatarJob{picture, source, id, func(ctx context.Context, a *Avatar, err error) {
		p.dispatcher.dispatch(ctx, e.jid, func(context.Context) {
			e.writableExtras().avatar.decoding = false
			if err != nil {
				p.refusePicture(e, hash, err)
				return
			}
			p.registry.SetAvatar(e, a)
		})
	}})
	if !notes.decoding {
		p.requestAvatar(ctx, e) // too many pictures are waiting; try again later
	}
}

// refusePicture removes a user's avatar, and remembers the published picture so that it is not requested again.
func (p *pep) refusePicture(e *entry, hash string, err error) {
	p.log.Debug("picture not shown", "user", e.jid, "cause", err)
	e.writableExtras().avatar.refused = hash
	p.registry.SetAvatar(e, nil)
}

// onLast records when a user whom we have not seen online was last online (XEP-0012 §4).
func (p *pep) onLast(e *entry, s *received) {
	query := s.child(nsLast, "query")
	if query == nil || len(e.resources) > 0 || !e.user.Options.has(fieldLastSeen) {
		return
	}
	if seconds, err := strconv.ParseUint(query.attr("seconds"), 10, 31); err == nil {
		p.registry.SetLastSeen(e, p.now().Add(-time.Duration(seconds)*time.Second))
	}
}

// onPresence handles the nickname and the hash of the vCard's photo in a presence.
func (p *pep) onPresence(ctx context.Context, e *entry, s *received) {
	if s.childText(nsNick, "nick") != "" {
		p.setNick(e, &s.element)
	}
	update := s.child(nsAvatarUpdate, "x")
	if update == nil || update.child(nsAvatarUpdate, "photo") == nil || !e.user.Options.has(fieldAvatar) {
		return // the client does not know the photo yet
	}
	hash := strings.ToLower(truncate(strings.TrimSpace(update.childText(nsAvatarUpdate, "photo")), maxNick))
	notes := &e.writableExtras().avatar
	a := e.profile().Avatar
	switch {
	case a != nil && (a.Source == AvatarPEP || a.ID == hash), a == nil && hash == notes.photoHash, hash != "" && hash == notes.refused:
		return // known already
	}
	notes.photoHash = hash
	p.requestAvatar(ctx, e)
}

// handleEvent handles a PEP event (XEP-0163).
func (p *pep) handleEvent(ctx context.Context, e *entry, s *received) {
	if !e.user.Subscription.To() {
		return
	}
	p.onRich(e, s, nsPubSubEvent)
	if item, ok := s.item(nsPubSubEvent, nsNick); ok {
		p.setNick(e, item)
	}
	if item, ok := s.item(nsPubSubEvent, nsAvatarMetadata); ok && e.user.Options.has(fieldAvatar) {
		var shown string
		if a := e.profile().Avatar; a != nil && a.Source == AvatarPEP {
			shown = a.ID
		}
		if id := avatarID(item); id != shown && (id == "" || id != e.extras.orEmpty().avatar.refused) {
			p.requestAvatar(ctx, e)
		}
	}
}

// item returns the first item of a node, an empty one if there is none or if the node has been purged or deleted. It is not ok if the
// stanza is not about the node.
func (s *received) item(space, node string) (item *element, ok bool) {
	for _, name := range []string{"pubsub", "event"} {
		outer := s.child(space, name)
		if outer == nil {
			continue
		}
		for _, end := range []string{"purge", "delete"} { // XEP-0060 §8.5, §8.4
			if e := outer.child(space, end); e != nil && e.attr("node") == node {
				return &element{}, true
			}
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
