package main

import (
	"encoding/xml"
	"maps"
	"slices"
	"sync"
	"time"
)

// Namespaces of XEP-0356. What they say about presence is the same.
const (
	nsPrivilege    = "urn:xmpp:privilege:2"
	nsPrivilegeOld = "urn:xmpp:privilege:1" // before version 0.4
)

// privileges knows the hosts that send us the presence of all their users (XEP-0356 §7). Registered users of such a host need no contact
// request.
//
// The server announces the privilege for each host right after the handshake, and then sends the presence of everyone who is online. We rely
// on this only if the host's software is Prosody. Its answer to the question for its software arrives after that presence. ejabberd neither
// sends presence that is older than the link, nor reports clients that lose their connection: its users would stay online forever.
type privileges struct {
	*service
	settled chan<- struct{} // notified when the privileges of the newest link are known

	mu     sync.Mutex
	link   *stream // the newest one
	phase  privilegePhase
	number uint32               // of the link whose privileges are settled
	hosts  map[string]privilege // announced over the link
	timer  *time.Timer          // settles them if the server does not answer
}

// A privilegePhase says how much is known of the privileges of a link.
type privilegePhase int

const (
	privilegesNone    privilegePhase = iota // there is no link
	privilegesOpen                          // the server may announce them
	privilegesAsked                         // the hosts have been asked for their software
	privilegesSettled                       // all have answered
)

// A privilege is the state of the privilege that a host has announced.
type privilege int

const (
	privilegeAnnounced privilege = iota + 1
	privilegeUsed
	privilegeRefused // the host may not send all presence
)

const (
	idSoftware      = "software" // of our requests
	trustedSoftware = "Prosody"
	maxSoftware     = 64       // bytes
	maxAnnouncement = 16 << 10 // bytes
)

func newPrivileges(s *service, settled chan<- struct{}) *privileges {
	return &privileges{service: s, settled: settled}
}

// onOpened forgets the privileges of earlier links. It is called before the board has the new link, so that they are not taken for its own.
// The hosts are asked when the first ping has come back, since the server handles it after the announcements.
func (p *privileges) onOpened(s *stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
	}
	p.link, p.phase, p.hosts = s, privilegesOpen, make(map[string]privilege)
	p.timer = time.AfterFunc(p.linkTimes.pong, func() { p.giveUp(s) })
	s.onFirstPong(func() { p.ask(s) })
}

// onClosed ends the privileges of a link. If there are other links, they have none.
func (p *privileges) onClosed(s *stream, last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link == s || last {
		p.hosts = nil
	}
	if last {
		p.timer.Stop()
		p.phase = privilegesNone
	} else if p.link == s && p.phase != privilegesSettled {
		p.settle()
	}
}

// read notes the privilege that a message from a host announces. It must be called in the order of the stream. After the first ping has come
// back, nothing counts: until then, only our own server has had the time to send anything.
func (p *privileges) read(host string, message []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != privilegesOpen || len(message) > maxAnnouncement {
		return
	}
	if s, err := decodeStanza(message); err == nil && s.to.String() == p.domain && s.grantsPresence() {
		p.hosts[host] = privilegeAnnounced
	}
}

// grantsPresence reports whether a message announces the privilege of presence. The type "roster" includes "managed_entity".
func (s *received) grantsPresence() bool {
	for _, space := range []string{nsPrivilege, nsPrivilegeOld} {
		privilege := s.child(space, "privilege")
		if privilege == nil {
			continue
		}
		for i := range privilege.children {
			perm := &privilege.children[i]
			if typ := perm.attr("type"); perm.attr("access") == "presence" && (typ == "managed_entity" || typ == "roster") {
				return true
			}
		}
	}
	return false
}

type versionQuery struct {
	XMLName xml.Name `xml:"jabber:iq:version query"`
}

// ask asks the hosts for their software.
func (p *privileges) ask(s *stream) {
	p.mu.Lock()
	if p.link != s || p.phase != privilegesOpen {
		p.mu.Unlock()
		return
	}
	p.phase = privilegesAsked
	hosts := slices.Collect(maps.Keys(p.hosts))
	if len(hosts) == 0 {
		p.settle()
	}
	p.mu.Unlock()
	for _, host := range hosts {
		p.links.send(envelope{XMLName: xml.Name{Local: "iq"}, Type: "get", ID: idSoftware, From: p.domain, To: host, Payload: versionQuery{}})
	}
}

// handleAnswer handles the answer of a host.
func (p *privileges) handleAnswer(s *received) {
	software := ""
	if query := s.child(nsVersion, "query"); query != nil && s.typ == "result" {
		software = singleLine(query.childText(nsVersion, "name"), maxSoftware)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != privilegesAsked || p.hosts[s.from.bare] != privilegeAnnounced {
		return
	}
	if software == trustedSoftware {
		p.hosts[s.from.bare] = privilegeUsed
		p.log.Info("the XMPP server sends the presence of all users, so no contact requests are needed", "host", s.from.bare)
	} else {
		p.refuse(s.from.bare, software)
	}
	for _, state := range p.hosts {
		if state == privilegeAnnounced {
			return
		}
	}
	p.settle()
}

// giveUp settles the privileges of a link, without those of hosts that have not answered.
func (p *privileges) giveUp(s *stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link != s || p.phase == privilegesSettled {
		return
	}
	for host, state := range p.hosts {
		if state == privilegeAnnounced {
			p.refuse(host, "")
		}
	}
	p.settle()
}

// refuse notes that we do not rely on a host's privilege. The caller holds mu.
func (p *privileges) refuse(host, software string) {
	p.hosts[host] = privilegeRefused
	p.log.Warn("a privilege is not used, because only Prosody is known to send all presence; contact requests are needed", "host", host,
		"software", software, "check", "that the server is Prosody, and that its module version is loaded for the host")
}

// settle starts the resync of the link. The caller holds mu.
func (p *privileges) settle() {
	p.timer.Stop()
	p.phase, p.number = privilegesSettled, p.board.link.Load().number
	notify(p.settled)
}

// cover reports whether the host of a bare JID sends us the presence of all its users.
func (p *privileges) cover(bare string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.phase == privilegesSettled && p.hosts[jid{bare: bare}.domain()] == privilegeUsed
}

// coverOver is like cover for the link with a number. It is known from the moment when the privileges of that link are settled, and by then
// all presence that is older than the link has arrived.
func (p *privileges) coverOver(link uint32, bare string) (covered, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hosts[jid{bare: bare}.domain()] == privilegeUsed, p.phase == privilegesSettled && p.number == link
}

// announced reports whether the host of a bare JID may send us presence that its users have not directed at us.
func (p *privileges) announced(bare string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hosts[jid{bare: bare}.domain()] != 0
}
