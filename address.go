package main

import (
	"encoding/base32"
	"encoding/base64"
	"io"
	"strings"
)

// The addresses of a user's page: /status/TOKEN, which reveals nothing, and the JID-based /status/BASE64(bare JID).

// statusPath is the prefix of all addresses of status pages.
const statusPath = "/status/"

// tokenURL returns the address with a token.
func tokenURL(baseURL string, t Token) string { return baseURL + statusPath + t.String() }

// jidURL returns the JID-based address.
func jidURL(baseURL, bare string) string { return baseURL + statusPath + encodeJID(bare) }

// A Token is the random part of a user's address: 128 bits that reveal nothing.
type Token [16]byte

var tokenEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func (t Token) String() string { return tokenEncoding.EncodeToString(t[:]) }

// parseToken parses the output of String.
func parseToken(s string) (t Token, ok bool) {
	const lastLetters = "aeimquy4" // the last letter carries three bits; its other two are zero
	if len(s) != tokenEncoding.EncodedLen(len(t)) || strings.IndexByte(lastLetters, s[len(s)-1]) < 0 {
		return t, false
	}
	n, err := tokenEncoding.Decode(t[:], []byte(s)) // skips line ends, hence the check of n
	return t, err == nil && n == len(t)
}

// newToken reads a token from a source of randomness. It fails only if the source does.
func newToken(random io.Reader) (t Token, err error) {
	_, err = io.ReadFull(random, t[:])
	return t, err
}

// encodeJID encodes a bare JID for an address: base64 in the URL alphabet without padding, which chat clients recognize as part
// of a link (RFC 4648 §5).
func encodeJID(bare string) string { return base64.RawURLEncoding.EncodeToString([]byte(bare)) }

// decodeJID decodes a bare JID, from the standard or the URL alphabet, padded or not.
func decodeJID(id string) (bare string, ok bool) {
	id = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(id, "="))
	text, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil {
		return "", false
	}
	j, err := parseJID(string(text))
	return j.bare, err == nil && j.resource == ""
}

// canonicalAddress returns the one spelling of an address that may have several, which only a JID-based one has.
func canonicalAddress(address string) string {
	if _, ok := parseToken(address); ok {
		return address
	}
	if bare, ok := decodeJID(address); ok {
		return encodeJID(bare)
	}
	return address
}
