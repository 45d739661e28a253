package main

import (
	"encoding/base64"
	"strings"
	"testing"
)

// growing has a resourcepart that becomes too long by normalization.
var growing = "u@example.org/" + strings.Repeat("\u0958", 300)

func TestParseJID(t *testing.T) {
	tests := []struct{ in, want string }{
		{"juliet@example.org", "juliet@example.org"},
		{"juliet@example.org/Balcony @ night/2", "juliet@example.org/Balcony @ night/2"},
		{"Juliet@Example.ORG/Balcony", "juliet@example.org/Balcony"},
		{"example.org", "example.org"},
		{"example.org.", "example.org"},
		{"ΣΊΣΥΦΟΣ@example.org", "σίσυφοσ@example.org"},
		{"u@BÜCHER.example", "u@bücher.example"},
		{"u@xn--bcher-kva.example", "u@bücher.example"},
		{"u@[::1]", "u@[::1]"},
		{"u@[0:0::1]", "u@[::1]"},
		{"u@sub_domain.example", "u@sub_domain.example"},
		{"u@example.org/ｆｏｏ", "u@example.org/ｆｏｏ"},
		{growing, growing},
		{"", ""}, {"@example.org", ""}, {"u@", ""}, {"u@example.org/", ""}, {"a b@example.org", ""}, {"a@b@example.org", ""},
		{`a"b@example.org`, ""}, {"u@exa mple.org", ""}, {"u@[::1", "u@[::1]"},
		{strings.Repeat("a", 1024) + "@example.org", ""}, {"u@example.org/" + strings.Repeat("a", 1024), ""},
	}
	for _, tt := range tests {
		got, err := parseJID(tt.in)
		if got.String() != tt.want && err == nil || (err == nil) != (tt.want != "") {
			t.Errorf("parseJID(%.40q) = %.40q, %v; want %.40q", tt.in, got, err, tt.want)
		}
	}
}

func TestDecodeJID(t *testing.T) {
	for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		for _, bare := range []string{"user2@localhost", "ab@example.org", "jürgen~o?@example.org"} {
			if got, ok := decodeJID(e.EncodeToString([]byte(bare))); !ok || got != bare {
				t.Errorf("%q, %v; want %q", got, ok, bare)
			}
		}
	}
	for _, id := range []string{"", "!", "dXNlcjJAbG9jYWxob3N0L3g", "AAAA", strings.Repeat("A", 1<<16)} {
		if got, ok := decodeJID(id); ok {
			t.Errorf("decodeJID(%.20q) = %q", id, got)
		}
	}
}

// FuzzAddress checks that parsing an address, a JID-based URL or a token fails or has a stable result.
func FuzzAddress(f *testing.F) {
	for _, seed := range []string{"juliet@example.org/Balcony", "Ⅷ@example.org", "u@xn--bcher-kva.example", "dXNlcjJAbG9jYWxob3N0", "u@[::1]", "ß@ß/ß", growing} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if j, err := parseJID(s); err == nil {
			reparsed, err := parseJID(j.String())
			if err != nil || reparsed != j {
				t.Errorf("%q is parsed as %q, and that as %q, %v", s, j, reparsed, err)
			}
			if bare, ok := decodeJID(encodeJID(j.bare)); !ok || bare != j.bare {
				t.Errorf("%q is decoded as %q", j.bare, bare)
			}
		}
		decodeJID(s)
		if token, ok := parseToken(s); ok && token.String() != s {
			t.Errorf("token %q is encoded as %q", s, token)
		}
	})
}
