package main

import (
	"encoding/base64"
	"net/http"
)

// A Profile is what a user shows besides presence. It is immutable and holds only what is switched on.
type Profile struct {
	Nick   string  // empty for none
	Avatar *Avatar // nil for none
}

// orEmpty returns the profile, or an empty one for nil.
func (p *Profile) orEmpty() Profile {
	if p == nil {
		return Profile{}
	}
	return *p
}

// An AvatarSource says where an avatar was published.
type AvatarSource string

// The sources of avatars.
const (
	AvatarPEP   AvatarSource = "pep"   // XEP-0084
	AvatarVCard AvatarSource = "vcard" // XEP-0153
)

// avatarSize is the width and height of an avatar as we show it, in pixels.
const avatarSize = 64

// An Avatar is a user's picture as we show it: decoded, cropped to a square, scaled and encoded again. It is immutable.
type Avatar struct {
	ID     string // SHA-1 of the published file, hexadecimal
	Source AvatarSource
	Data   []byte // PNG or JPEG of avatarSize × avatarSize pixels
}

// ContentType returns the media type of the picture.
func (a *Avatar) ContentType() string { return http.DetectContentType(a.Data) }

// URI returns the picture as a data: URI (RFC 2397), empty if there is none.
func (a *Avatar) URI() string {
	if a == nil {
		return ""
	}
	return "data:" + a.ContentType() + ";base64," + base64.StdEncoding.EncodeToString(a.Data)
}
