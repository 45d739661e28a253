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

// A jid is an XMPP address in its normal form (RFC 7622 §3), so that two of them are the same address exactly when they
// are equal.
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

// domain returns the part behind the "@".
func (j jid) domain() string { return j.bare[strings.IndexByte(j.bare, '@')+1:] }

// local returns the part before the "@", empty for a server or a component.
func (j jid) local() string { return j.bare[:max(0, strings.IndexByte(j.bare, '@'))] }

const maxJIDPart = 1023 // bytes of each part (RFC 7622 §3.2, 3.3, 3.4)

var errMalformedJID = errors.New("not an XMPP address")

// parseJID normalises an address. Every error is an errMalformedJID.
//
// A resource that PRECIS refuses is kept as it is: the older stringprep of today's servers allows more, and to them it is
// the same resource each time.
func parseJID(s string) (jid, error) {
	address, resource, hasResource := strings.Cut(s, "/")
	if hasResource && (resource == "" || len(resource) > maxJIDPart) {
		return jid{}, fmt.Errorf("%w: %.100q", errMalformedJID, s)
	}
	local, domain, hasLocal := strings.Cut(address, "@")
	if !hasLocal {
		local, domain = "", address
	}
	domain, err := normalDomain(domain)
	if err != nil {
		return jid{}, fmt.Errorf("%w: %.100q", errMalformedJID, s)
	}
	j := jid{bare: domain}
	if hasLocal {
		if local, err = normalLocal(local); err != nil {
			return jid{}, fmt.Errorf("%w: %.100q", errMalformedJID, s)
		}
		if j.bare = address; address != local+"@"+domain {
			j.bare = local + "@" + domain
		}
	}
	j.resource = resource
	if !isPlain(resource, " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		if opaque, err := precis.OpaqueString.String(resource); err == nil {
			j.resource = opaque
		}
	}
	return j, nil
}

// isPlain reports whether s consists of ASCII digits, small letters and the bytes in more: text that is its own normal
// form, as nearly every address is.
func isPlain(s, more string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte(more, c) < 0 {
			return false
		}
	}
	return true
}

// locals is the profile UsernameCaseMapped (RFC 8265 §3.3) without its rule about direction, which the package applies to
// text that runs left to right as well, and so refuses names that servers have.
var locals = precis.NewIdentifier(precis.FoldWidth, precis.LowerCase(), precis.Norm(norm.NFC))

func normalLocal(s string) (string, error) {
	if !isPlain(s, "-_.+") {
		var err error
		if s, err = locals.String(s); err != nil {
			return "", err
		}
	}
	if s == "" || len(s) > maxJIDPart || strings.ContainsAny(s, `"&'/:<>@`) { // RFC 7622 §3.3.1
		return "", errMalformedJID
	}
	return s, nil
}

// domains maps names as RFC 7622 §3.2 asks. Underscores and lengths that DNS refuses are left to the server: it has
// accepted the name already.
var domains = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false))

func normalDomain(s string) (string, error) {
	s = strings.TrimSuffix(s, ".")
	if ip, ok := strings.CutPrefix(s, "["); ok {
		address, err := netip.ParseAddr(strings.TrimSuffix(ip, "]"))
		return "[" + address.WithZone("").String() + "]", err
	}
	if !isPlain(s, "-_.") || strings.Contains(s, "xn--") {
		var err error
		if s, err = domains.ToUnicode(s); err != nil {
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
