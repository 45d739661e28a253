package main

import (
	"encoding/base32"
	"encoding/base64"
	"io"
	"strings"
)

// A Token is the random part of a person's web address: 128 bits that reveal nothing.
type Token [16]byte

var tokenText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func (t Token) String() string { return tokenText.EncodeToString(t[:]) }

// parseToken reads what String writes.
func parseToken(s string) (t Token, ok bool) {
	const bits = "aeimquy4" // what the last letter may be: three bits, and two that are zero
	if len(s) != tokenText.EncodedLen(len(t)) || strings.IndexByte(bits, s[len(s)-1]) < 0 {
		return t, false
	}
	n, err := tokenText.Decode(t[:], []byte(s)) // which passes over line ends
	return t, err == nil && n == len(t)
}

// newToken draws a token. It fails only if the source of randomness does.
func newToken(random io.Reader) (t Token, err error) {
	_, err = io.ReadFull(random, t[:])
	return t, err
}

// encodeJID makes the part of a web address that stands for a bare JID: its base64.
func encodeJID(bare string) string { return base64.RawURLEncoding.EncodeToString([]byte(bare)) }

// decodeJID is the inverse of encodeJID, for the standard and the URL alphabet, padded or not.
func decodeJID(id string) (bare string, ok bool) {
	id = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(id, "="))
	text, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil {
		return "", false
	}
	j, err := parseJID(string(text))
	return j.bare, err == nil && j.resource == ""
}

const statusPath = "/status/" // before every address
