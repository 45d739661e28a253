package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"
)

// A jid is an XMPP address in normalized form (RFC 7622 §3). Two jids are equal if and only if they are the same address.
type jid struct {
	bare     string // local@domain, or the domain alone
	resource string // empty in a bare JID
}

func (j jid) String() string {
	if j.resource == "" {
		return j.bare
	}
	return j.bare + "/" + j.resource
}

// domain returns the domainpart.
func (j jid) domain() string { return j.bare[strings.IndexByte(j.bare, '@')+1:] }

// local returns the localpart, empty for a server or a component.
func (j jid) local() string { return j.bare[:max(0, strings.IndexByte(j.bare, '@'))] }

const maxJIDPart = 1023 // bytes of each part (RFC 7622 §3.2, 3.3, 3.4)

var errMalformedJID = errors.New("not an XMPP address")

// parseJID parses and normalizes an address. Every error wraps errMalformedJID.
//
// A resourcepart that PRECIS rejects or makes too long is kept unchanged: most servers still use the older stringprep, which permits more.
func parseJID(s string) (jid, error) {
	address, resource, hasResource := strings.Cut(s, "/")
	if hasResource && (resource == "" || len(resource) > maxJIDPart) {
		return jid{}, fmt.Errorf("%w: %.100q", errMalformedJID, s)
	}
	local, domain, hasLocal := strings.Cut(address, "@")
	if !hasLocal {
		local, domain = "", address
	}
	domain, err := normalizeDomain(domain)
	if err != nil {
		return jid{}, fmt.Errorf("%w: %.100q", errMalformedJID, s)
	}
	j := jid{bare: domain}
	if hasLocal {
		if local, err = normalizeLocal(local); err != nil {
			return jid{}, fmt.Errorf("%w: %.100q", errMalformedJID, s)
		}
		if j.bare = address; address != local+"@"+domain {
			j.bare = local + "@" + domain
		}
	}
	j.resource = resource
	if !isPlain(resource, " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		if opaque, err := precis.OpaqueString.String(resource); err == nil && len(opaque) <= maxJIDPart {
			j.resource = opaque
		}
	}
	return j, nil
}

// isPlain reports whether s consists of lower-case ASCII letters, digits and the bytes in more. Such text is already in normalized
// form, which is the common case and much faster to test for.
func isPlain(s, more string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte(more, c) < 0 {
			return false
		}
	}
	return true
}

// localProfile is UsernameCaseMapped (RFC 8265 §3.3) without the Bidi Rule: the precis package applies that to left-to-right text as
// well, and so rejects valid names.
var localProfile = precis.NewIdentifier(precis.FoldWidth, precis.LowerCase(), precis.Norm(norm.NFC))

// normalizeLocal normalizes a localpart (RFC 7622 §3.3).
func normalizeLocal(s string) (string, error) {
	if !isPlain(s, "-_.+") {
		var err error
		if s, err = localProfile.String(s); err != nil {
			return "", err
		}
	}
	if s == "" || len(s) > maxJIDPart || strings.ContainsAny(s, `"&'/:<>@`) { // RFC 7622 §3.3.1
		return "", errMalformedJID
	}
	return s, nil
}

// domainProfile maps names as RFC 7622 §3.2 requires. It permits underscores, and labels too long for DNS, because the server has
// already accepted the name.
var domainProfile = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false))

// normalizeDomain normalizes a domainpart: a domain name, an IPv4 address, or an IPv6 address in brackets (RFC 7622 §3.2).
func normalizeDomain(s string) (string, error) {
	s = strings.TrimSuffix(s, ".")
	if ip, ok := strings.CutPrefix(s, "["); ok {
		address, err := netip.ParseAddr(strings.TrimSuffix(ip, "]"))
		return "[" + address.WithZone("").String() + "]", err
	}
	if !isPlain(s, "-_.") || strings.Contains(s, "xn--") {
		var err error
		if s, err = domainProfile.ToUnicode(s); err != nil {
			return "", err
		}
	}
	for _, r := range s {
		if r == utf8.RuneError || r <= unicode.MaxASCII && !isPlain(string(r), "-_.") {
			return "", errMalformedJID
		}
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" {
			return "", errMalformedJID
		}
	}
	if len(s) > maxJIDPart {
		return "", errMalformedJID
	}
	return s, nil
}
