package main

import (
	"encoding/base64"
	"net/http"
)

// An AvatarSource is where a picture has been published.
type AvatarSource string

// The sources of pictures.
const (
	AvatarPEP   AvatarSource = "pep"   // XEP-0084
	AvatarVCard AvatarSource = "vcard" // XEP-0153
)

// An Avatar is a person's picture as we show it: made anew, small, and square. It never changes.
type Avatar struct {
	ID     string // SHA-1 of what the person has published, hexadecimal
	Source AvatarSource
	Data   []byte // PNG or JPEG of avatarSize pixels
}

// ContentType returns the picture's media type.
func (a *Avatar) ContentType() string { return http.DetectContentType(a.Data) }

// URI returns the picture as a data: URI (RFC 2397), empty if there is none.
func (a *Avatar) URI() string {
	if a == nil {
		return ""
	}
	return "data:" + a.ContentType() + ";base64," + base64.StdEncoding.EncodeToString(a.Data)
}

// A Profile is what a person shows beside the presence. It never changes. What is not switched on is not in it.
type Profile struct {
	Nick   string  // empty for none
	Avatar *Avatar // nil for none
}

// orNone returns the profile itself, an empty one for nil.
func (p *Profile) orNone() Profile {
	if p == nil {
		return Profile{}
	}
	return *p
}
